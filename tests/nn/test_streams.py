"""Strided and growing convolutions show what their cell stands for, and start normalised."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from likely.nn.streams import StreamConv, StreamGrow, concat_elu, gated, shift_right


def seen_by_outputs(layer: torch.nn.Module, height: int, width: int, *args: object) -> Tensor:
    """Which input cells each output cell depends on, bool [H out, W out, H, W]."""
    x = torch.randn(1, 2, height, width, dtype=torch.float64)

    def f(x: Tensor) -> Tensor:
        out: Tensor = layer(x, *args)
        return out.sum(1)[0]

    return torch.autograd.functional.jacobian(f, x)[:, :, 0].abs().sum(2) > 0


@pytest.mark.parametrize(("height", "width"), [(4, 6), (5, 7), (1, 1), (2, 3)])
@pytest.mark.parametrize("right", [0, 1])
def test_a_coarse_cell_stands_for_its_corner_pixel(height: int, width: int, right: int) -> None:
    torch.manual_seed(0)
    layer = StreamConv(2, 3, above=1, left=1, right=right, stride=2).double()
    seen = seen_by_outputs(layer, height, width)
    assert seen.shape[:2] == ((height + 1) // 2, (width + 1) // 2)
    for i in range(seen.shape[0]):
        for j in range(seen.shape[1]):
            expected = torch.zeros(height, width, dtype=torch.bool)
            columns = slice(max(0, 2 * j - 1), 2 * j + 1 + right)
            expected[max(0, 2 * i - 1) : 2 * i + 1, columns] = True
            assert torch.equal(seen[i, j], expected)


@pytest.mark.parametrize(("height", "width"), [(4, 6), (5, 7), (1, 1), (2, 3)])
@pytest.mark.parametrize("both_sides", [False, True])
def test_a_coarse_cell_is_written_to_no_pixel_before_its_corner(
    height: int, width: int, both_sides: bool
) -> None:
    torch.manual_seed(0)
    layer = StreamGrow(2, 3, both_sides=both_sides).double()
    coarse = ((height + 1) // 2, (width + 1) // 2)
    seen = seen_by_outputs(layer, *coarse, (height, width))
    assert seen.shape[:2] == (height, width)
    for row in range(height):
        for column in range(width):
            expected = torch.zeros(coarse, dtype=torch.bool)
            expected[row // 2, column // 2] = True
            if both_sides and column % 2 and column // 2 + 1 < coarse[1]:
                expected[row // 2, column // 2 + 1] = True
            assert torch.equal(seen[row, column], expected)


def test_weights_start_at_the_statistics_of_a_batch() -> None:
    torch.manual_seed(0)
    layer = StreamConv(4, 6, above=1, left=1, scale=0.3).double()
    x = 5 + 3 * torch.randn(8, 4, 7, 7, dtype=torch.float64)
    layer.starting = True
    first = layer(x)
    assert not layer.starting
    torch.testing.assert_close(layer(x), first)
    torch.testing.assert_close(first.mean((0, 2, 3)), torch.zeros(6).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        first.std((0, 2, 3), correction=0), torch.full((6,), 0.3).double(), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("value", [0.0, 3.0, float("nan"), float("inf")])
def test_a_batch_that_says_nothing_leaves_finite_weights(value: float) -> None:
    layer = StreamConv(2, 3)
    layer.starting = True
    layer(torch.full((4, 2, 3, 3), value))
    assert all(bool(p.isfinite().all()) for p in layer.parameters())
    assert bool((layer.gain == 1).all())  # type: ignore[union-attr]


def test_the_gain_is_the_length_of_the_kernel() -> None:
    layer = StreamConv(3, 4, above=1, left=1, scale=0.7)
    lengths = layer.kernel().flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.full((4,), 0.7))
    plain = StreamConv(3, 4, normalize=False)
    assert torch.equal(plain.kernel(), plain.direction)
    assert plain.gain is None


def test_the_small_functions() -> None:
    x = torch.tensor([1.0, -1.0]).reshape(1, 2, 1, 1)
    low = torch.expm1(torch.tensor(-1.0))
    torch.testing.assert_close(
        concat_elu(x).flatten(), torch.stack([torch.tensor(1.0), low, low, torch.tensor(1.0)])
    )
    torch.testing.assert_close(gated(x).flatten(), torch.sigmoid(torch.tensor([-1.0])))
    row = torch.arange(3.0).reshape(1, 1, 1, 3)
    assert shift_right(row).flatten().tolist() == [0, 0, 1]
