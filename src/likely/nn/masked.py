r"""Convolutions that see only what comes before, in raster order with channels innermost.

Sources: van den Oord, Kalchbrenner, Kavukcuoglu 2016 (masks A and B over colour groups), van
den Oord et al. 2016 (vertical and horizontal stacks).

Kernels are cropped to the taps that may be seen instead of being multiplied by zeros; only the
tap on the current pixel of a colour image needs a mask, and that mask multiplies the weight in
the forward pass, so weights are never written.

Each convolution also evaluates a part at a time, for sampling: a vertical one a row at a time,
with the rows that its kernel reaches kept in a ring; a horizontal one a pixel and a colour group
at a time, with the columns of its row kept. Every activation is then computed once.

Feature maps of G groups hold the groups one after another; group g belongs to channel g of the
image. Mask A lets group g see groups < g, mask B groups <= g.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from likely.errors import InvalidSetting

Mask = Literal["A", "B"]


def group_mask(out_features: int, in_features: int, groups: int, mask: Mask) -> Tensor:
    """Which input feature each output feature of the same pixel may see, [out, in] of 0 and 1."""
    for features in (out_features, in_features):
        if features % groups:
            raise InvalidSetting(f"{features} features do not divide into {groups} colour groups")
    out_group = torch.arange(out_features) * groups // out_features
    in_group = torch.arange(in_features) * groups // in_features
    sees = out_group[:, None] > in_group if mask == "A" else out_group[:, None] >= in_group
    return sees.float()


class VerticalConv(nn.Module):
    """A k x k convolution over the current row and the k // 2 rows above it.

    Its output at row r depends on rows <= r, all columns within reach: shift it down one row
    (`shift_down`) where it meets what may not see row r.
    """

    def __init__(self, in_features: int, out_features: int, kernel: int, dilation: int = 1) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise InvalidSetting(f"the vertical stack needs an odd kernel, given {kernel}")
        self.taps, self.dilation = kernel // 2, dilation
        conv = nn.Conv2d(in_features, out_features, (self.taps + 1, kernel))
        self.weight, self.bias = conv.weight, conv.bias

    def forward(self, x: Tensor) -> Tensor:
        side = self.taps * self.dilation
        x = pad(x, (side, side, side, 0))
        return conv2d(x, self.weight, self.bias, dilation=self.dilation)

    def ring(self, batch: int, width: int) -> Tensor:
        """An empty memory of the rows that the kernel reaches, [B, in, rows, W + 2 side]."""
        side = self.taps * self.dilation
        return self.weight.new_zeros(batch, self.weight.shape[1], side + 1, width + 2 * side)

    def row(self, ring: Tensor, x: Tensor) -> Tensor:
        """The output of one more row.

        Args:
            ring: of `ring`; the row is added, the oldest one dropped, in place.
            x: the row, [B, in, 1, W].

        Returns:
            [B, out, 1, W], what `forward` gives at that row.
        """
        side = self.taps * self.dilation
        if side:
            ring[:, :, :-1] = ring[:, :, 1:].clone()
        ring[:, :, -1:, side : side + x.shape[3]] = x
        return conv2d(ring, self.weight, self.bias, dilation=self.dilation)


class HorizontalConv(nn.Module):
    """A 1 x k convolution over the pixels to the left and, as the mask allows, the current one.

    Mask A on one group (a grey image, or a head that couples the channels) sees the pixels to
    the left only. Otherwise the current pixel's tap carries the group mask.

    Attributes:
        taps: columns to the left that are seen, `dilation` apart.
        sees_current: whether the last tap is the current pixel.
    """

    seen: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        taps: int,
        mask: Mask,
        groups: int,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.taps, self.dilation = taps, dilation
        self.sees_current = not (mask == "A" and groups == 1)
        width = taps + 1 if self.sees_current else taps
        conv = nn.Conv2d(in_features, out_features, (1, width))
        self.weight, self.bias = conv.weight, conv.bias
        self.masked = groups > 1
        if self.masked:
            seen = torch.ones(out_features, in_features, 1, width)
            seen[:, :, 0, -1] = group_mask(out_features, in_features, groups, mask)
            self.register_buffer("seen", seen, persistent=False)

    def kernel(self) -> Tensor:
        """The weight as it acts, masked, [out, in, 1, width]."""
        return self.weight * self.seen if self.masked else self.weight

    def forward(self, x: Tensor) -> Tensor:
        side = self.taps * self.dilation
        # Without the current pixel, the last column is never read: drop it.
        right = 0 if self.sees_current else -self.dilation
        x = pad(x, (side, right, 0, 0))
        return conv2d(x, self.kernel(), self.bias, dilation=(1, self.dilation))

    def columns(self, column: int) -> list[int]:
        """The columns that the taps read at a column; negative ones are padding."""
        width = self.weight.shape[3]
        first = column - self.taps * self.dilation
        return [first + tap * self.dilation for tap in range(width)]

    def matrices(self, groups: int) -> list[Tensor]:
        """For each colour group the kernel as a matrix, [width * in, out / groups]."""
        rows = self.kernel()[:, :, 0].permute(0, 2, 1).flatten(1)  # [out, width * in]
        return [part.t().contiguous() for part in rows.chunk(groups, 0)]

    def biases(self, groups: int) -> list[Tensor]:
        """For each colour group the bias, [out / groups]."""
        return biases_of(self.bias, groups)


class GroupedPointwise(nn.Module):
    """A 1 x 1 convolution that keeps the order of the colour groups (mask B)."""

    seen: Tensor

    def __init__(self, in_features: int, out_features: int, groups: int, mask: Mask = "B") -> None:
        super().__init__()
        conv = nn.Conv2d(in_features, out_features, 1)
        self.weight, self.bias = conv.weight, conv.bias
        self.masked = groups > 1
        if self.masked:
            seen = group_mask(out_features, in_features, groups, mask)[:, :, None, None]
            self.register_buffer("seen", seen, persistent=False)

    def kernel(self) -> Tensor:
        """The weight as it acts, masked, [out, in, 1, 1]."""
        return self.weight * self.seen if self.masked else self.weight

    def forward(self, x: Tensor) -> Tensor:
        return conv2d(x, self.kernel(), self.bias)

    def matrices(self, groups: int) -> list[Tensor]:
        """For each colour group the weights on it and the groups before, [in seen, out / G]."""
        step = self.weight.shape[1] // groups
        rows = self.kernel()[:, :, 0, 0].chunk(groups, 0)
        return [part[:, : (group + 1) * step].t().contiguous() for group, part in enumerate(rows)]

    def biases(self, groups: int) -> list[Tensor]:
        """For each colour group the bias, [out / groups]."""
        return biases_of(self.bias, groups)


def biases_of(bias: Tensor | None, groups: int) -> list[Tensor]:
    """A bias cut into colour groups."""
    assert bias is not None
    return list(bias.detach().chunk(groups, 0))


def shift_down(x: Tensor) -> Tensor:
    """Row r of the result is row r - 1 of x; row 0 is zero. [B, F, H, W]."""
    return pad(x, (0, 0, 1, -1))
