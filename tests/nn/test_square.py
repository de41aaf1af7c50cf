"""A masked square convolution is a full one masked, as the paper has it."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import conv2d

from likely.errors import InvalidSetting
from likely.nn.masked import Mask
from likely.nn.square import MaskedConv


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("mask", ["A", "B"])
@pytest.mark.parametrize("kernel", [3, 5])
def test_it_is_a_full_kernel_masked(kernel: int, mask: Mask, groups: int) -> None:
    layer = MaskedConv(3, 6, kernel, mask, groups).double()
    taps = kernel // 2
    full = torch.zeros(6, 3, kernel, kernel, dtype=torch.float64)
    full[:, :, :taps] = layer.above.detach()
    full[:, :, taps, : layer.row.weight.shape[3]] = layer.row.weight.detach()[:, :, 0]
    for out in range(6):
        for inp in range(3):
            a, b = out * groups // 6, inp * groups // 3
            if not (a > b or (a == b and mask == "B")):
                full[out, inp, taps, taps] = 0
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 6, 5, generator=generator, dtype=torch.float64)
    expected = conv2d(x, full, layer.row.bias, padding=taps)
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)
    # Every tap that may be seen has a weight, and no other.
    seen = taps * kernel + taps + (mask == "B" or groups > 1)
    assert layer.above[0, 0].numel() + layer.row.weight[0, 0].numel() == seen


@pytest.mark.parametrize("kernel", [1, 4])
def test_a_kernel_without_a_centre_or_without_neighbours_is_refused(kernel: int) -> None:
    with pytest.raises(InvalidSetting, match="odd kernel of at least 3"):
        MaskedConv(1, 1, kernel, "A", 1)
