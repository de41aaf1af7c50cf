"""Gated PixelCNN: its reach, its gate, its label, its colour groups."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from likely.data.spec import DataSpec
from likely.errors import InvalidSetting
from likely.models.gated_pixelcnn import GatedPixelCNN, gate, halves
from likely.models.settings import GatedPixelCNNSettings

SMALL = GatedPixelCNNSettings(channels=6, layers=2, kernel=3, first_kernel=3, head_channels=12)


def built(spec: DataSpec, **changes: object) -> GatedPixelCNN:
    torch.manual_seed(0)
    return GatedPixelCNN(spec, dataclasses.replace(SMALL, **changes)).double().eval()  # type: ignore[arg-type]


def seen_from(model: GatedPixelCNN, row: int, column: int) -> Tensor:
    """Pixels that the parameters at (row, column) depend on, bool [H, W]."""
    x = torch.rand(1, *model.spec.shape, dtype=torch.float64, requires_grad=True)
    out = model.conditionals(x)[0, :, row, column].sum()
    (gradient,) = torch.autograd.grad(out, x)
    return (gradient[0] != 0).any(0)


@pytest.mark.parametrize(
    ("layers", "first", "kernel"), [(1, 3, 3), (2, 3, 3), (2, 5, 3), (3, 3, 5)]
)
def test_the_reach_is_the_sum_of_the_taps(layers: int, first: int, kernel: int) -> None:
    """A block of rows above, as wide to the right as to the left, and the row to the left."""
    model = built(
        DataSpec("t", (1, 21, 21), 2), layers=layers, first_kernel=first, kernel=kernel,
        head_channels=24,
    )  # fmt: skip
    reach = first // 2 + (layers - 1) * (kernel // 2)
    seen = seen_from(model, 10, 10)
    assert bool(seen[10, 10 - reach : 10].all())
    assert not bool(seen[10, 10:].any())
    assert not bool(seen[11:].any())
    assert bool(seen[10 - reach : 10, 10 - reach : 11 + reach].all())
    assert not bool(seen[10, : 10 - reach].any())
    # Vertical features of the row itself reach one row further up once they are shifted down.
    assert not bool(seen[: 10 - reach - 1].any())
    assert not bool(seen[:, 11 + reach :].any())


def test_dilation_widens_the_reach() -> None:
    plain, wide = (
        built(DataSpec("t", (1, 15, 15), 2), dilations=(d,), head_channels=24) for d in (1, 3)
    )
    assert int(seen_from(wide, 12, 7).sum()) > int(seen_from(plain, 12, 7).sum())
    assert bool(seen_from(wide, 12, 7)[12, 3])
    assert not bool(seen_from(plain, 12, 7)[12, 3])


def test_the_gate_is_tanh_times_sigmoid_within_each_colour_group() -> None:
    x = torch.arange(12, dtype=torch.float64).reshape(1, 12, 1, 1) / 10 - 0.5
    expected = torch.tanh(x[:, :6]) * torch.sigmoid(x[:, 6:])
    torch.testing.assert_close(gate(x), expected)
    first, second = halves(x, 3)
    assert (first.flatten() * 10 + 5).round().tolist() == [0, 1, 4, 5, 8, 9]
    assert (second.flatten() * 10 + 5).round().tolist() == [2, 3, 6, 7, 10, 11]


def test_the_first_pixel_depends_on_nothing() -> None:
    model = built(DataSpec("t", (3, 4, 4), 4), channels=24, head_channels=24)
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(4, (5, 3, 4, 4), generator=generator)
    red = model.conditionals(x)[:, :4, 0, 0]
    assert torch.equal(red, red[:1].expand_as(red))
    green = model.conditionals(x)[:, 4:8, 0, 0]
    assert not torch.equal(green, green[:1].expand_as(green))


def test_a_label_moves_every_pixel() -> None:
    model = built(DataSpec("t", (1, 4, 4), 2, classes=("a", "b")), conditional=True)
    x = torch.zeros(2, 1, 4, 4, dtype=torch.int64)
    a, b = model.conditionals(x, torch.tensor([0, 1]))
    assert bool((a != b).any(0).all())


def test_sizes_that_do_not_divide_are_refused() -> None:
    with pytest.raises(InvalidSetting, match="multiples of the 3 colour channels"):
        built(DataSpec("t", (3, 4, 4), 4), channels=8)
    # A head that couples the channels has no groups to divide into.
    assert built(DataSpec("t", (3, 4, 4), 4), channels=8, head="logistic-mixture").groups == 1
    with pytest.raises(InvalidSetting, match="odd kernel"):
        built(DataSpec("t", (1, 4, 4), 2), kernel=4)
