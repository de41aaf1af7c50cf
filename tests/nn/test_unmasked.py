"""Residual networks keep their sizes; batch normalisation is that of torch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from likely.nn.normalization import BatchNorm2d
from likely.nn.residual import Down, ResidualBlock, Up, sizes


@pytest.mark.parametrize(("height", "width"), [(8, 8), (28, 28), (5, 7), (2, 2), (33, 64)])
def test_up_undoes_the_sizes_of_down(height: int, width: int) -> None:
    steps = sizes(height, width)
    assert steps[0] == (height, width)
    x = torch.zeros(1, 2, height, width)
    for step in steps[1:]:
        x = Down(2, 2)(x)
        assert tuple(x.shape[2:]) == step
    for step in reversed(steps[:-1]):
        x = Up(2, 2, step)(x)
        assert tuple(x.shape[2:]) == step
    assert min(steps[-1]) <= 4 or len(steps) == 1


def test_a_residual_block_starts_near_the_identity() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 8, 5, 5)
    change = ResidualBlock(8)(x) - x
    assert 0 < float(change.abs().mean()) < 0.1 * float(x.abs().mean())


def test_batch_normalisation_is_that_of_torch() -> None:
    torch.manual_seed(0)
    ours, theirs = BatchNorm2d(3).double(), nn.BatchNorm2d(3).double()
    for step in range(3):
        x = torch.randn(4, 3, 5, 6, dtype=torch.float64) * (step + 1) + step
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_variance, theirs.running_var)
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-9, atol=1e-9)


def test_batch_normalisation_in_evaluation_does_not_couple_examples() -> None:
    layer = BatchNorm2d(2).eval()
    x = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    alone = layer(x[:1])
    assert torch.equal(alone, layer(x)[:1])
    assert float(layer.running_mean.abs().max()) == 0
