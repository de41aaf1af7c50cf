"""Cropped kernels are zero-masked full kernels; masks keep the order of the colour groups."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from likely.errors import InvalidSetting
from likely.nn.masked import (
    GroupedPointwise,
    HorizontalConv,
    Mask,
    VerticalConv,
    group_mask,
    shift_down,
)


def features(channels: int, height: int = 5, width: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, channels, height, width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("dilation", [1, 2])
def test_vertical_is_a_full_kernel_masked(kernel: int, dilation: int) -> None:
    layer = VerticalConv(3, 4, kernel, dilation).double()
    full = torch.zeros(4, 3, kernel, kernel, dtype=torch.float64)
    full[:, :, : kernel // 2 + 1] = layer.weight
    side = (kernel // 2) * dilation
    x = features(3)
    expected = conv2d(x, full, layer.bias, padding=side, dilation=dilation)
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("mask", ["A", "B"])
@pytest.mark.parametrize(("taps", "dilation"), [(1, 1), (2, 1), (3, 2)])
def test_horizontal_is_a_full_kernel_masked(
    groups: int, mask: Mask, taps: int, dilation: int
) -> None:
    layer = HorizontalConv(3, 6, taps, mask, groups, dilation).double()
    full = torch.zeros(6, 3, 1, 2 * taps + 1, dtype=torch.float64)
    full[..., : layer.weight.shape[-1]] = layer.weight.detach()
    # The mask as the paper has it, written out.
    for out in range(6):
        for inp in range(3):
            a, b = out * groups // 6, inp * groups // 3
            if not (a > b or (a == b and mask == "B")):
                full[out, inp, 0, taps] = 0
    x = features(3)
    expected = conv2d(x, full, layer.bias, padding=(0, taps * dilation), dilation=(1, dilation))
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mask", ["A", "B"])
def test_pointwise_keeps_the_order_of_the_groups(mask: Mask) -> None:
    layer = GroupedPointwise(6, 9, 3, mask).double()
    x = features(6, 1, 1).requires_grad_(True)
    for group in range(3):
        out = layer(x)[:, 3 * group : 3 * group + 3].sum()
        (gradient,) = torch.autograd.grad(out, x)
        seen = (gradient != 0).any(0).flatten().reshape(3, 2).all(1).tolist()
        assert seen == [g < group or (g == group and mask == "B") for g in range(3)]


def test_weights_are_not_written_by_the_mask() -> None:
    layer = HorizontalConv(3, 3, 2, "A", 3)
    before = layer.weight.detach().clone()
    layer(torch.randn(1, 3, 2, 4))
    assert torch.equal(before, layer.weight)
    assert set(layer.state_dict()) == {"weight", "bias"}


def test_group_masks() -> None:
    assert group_mask(3, 3, 3, "A").tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0]]
    assert group_mask(3, 3, 3, "B").tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert group_mask(2, 4, 2, "A").tolist() == [[0, 0, 0, 0], [1, 1, 0, 0]]
    with pytest.raises(InvalidSetting, match="4 features do not divide into 3"):
        group_mask(3, 4, 3, "A")


def test_shift_down_moves_rows() -> None:
    x = features(2)
    y = shift_down(x)
    assert torch.equal(y[:, :, 1:], x[:, :, :-1])
    assert not bool(y[:, :, 0].any())


def test_an_even_vertical_kernel_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="odd kernel, given 4"):
        VerticalConv(1, 1, 4)
