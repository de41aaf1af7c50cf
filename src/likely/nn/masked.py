r"""Convolutions that see only what comes before, in raster order with channels innermost.

Sources: van den Oord, Kalchbrenner, Kavukcuoglu 2016 (masks A and B over colour groups),
https://arxiv.org/abs/1601.06759; van den Oord et al. 2016 (vertical and horizontal stacks),
https://arxiv.org/abs/1606.05328.

Kernels are cropped to the taps that may be seen instead of being multiplied by zeros; only the
tap on the current pixel of a colour image needs a mask, and that mask multiplies the weight in
the forward pass, so weights are never written.

Each layer also records its incremental program, for sampling (`likely.sampling.program`).

Feature maps of G groups hold the groups one after another; group g belongs to channel g of the
image. Mask A lets group g see groups < g, mask B groups <= g.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from likely.errors import InvalidSetting
from likely.sampling.program import Builder, Cells, Moment, Tap

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

    def incremental(self, build: Builder, x: Cells, plus: Sequence[Cells] = ()) -> Cells:
        """`forward` plus the sum of some feature maps."""
        side = self.taps * self.dilation
        taps = conv_taps(x, self.weight, self.dilation, (side, side))
        return build.linear(taps, self.bias, plus)


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

    def incremental(self, build: Builder, x: Cells, plus: Sequence[Cells] = ()) -> Cells:
        """`forward` plus the sum of some feature maps."""
        return build.linear(self.reads(x), self.bias, plus)

    def reads(self, x: Cells) -> list[Tap]:
        """What it reads of x, for `Builder.linear`."""
        taps = conv_taps(x, self.kernel(), self.dilation, (0, self.taps * self.dilation))
        if x.moment is Moment.LATE and self.sees_current:
            # Of the pixel itself only the colour groups before: mask A.
            taps[-1] = dataclasses.replace(taps[-1], groups_before=True)
        return taps


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

    def incremental(
        self, build: Builder, x: Cells, plus: Sequence[Cells] = (), outputs: Tensor | None = None
    ) -> Cells:
        """`forward` plus the sum of some feature maps.

        Args:
            build: takes it down.
            x: input.
            plus: feature maps that are added.
            outputs: which output features, as indices; all by default.
        """
        return pointwise(build, x, self.kernel(), self.bias, plus, outputs)


def pointwise(
    build: Builder,
    x: Cells,
    weight: Tensor,
    bias: Tensor | None,
    plus: Sequence[Cells] = (),
    outputs: Tensor | None = None,
) -> Cells:
    """A 1 x 1 convolution, weight [out, in, 1, 1], incrementally; see `GroupedPointwise`."""
    matrix = weight[:, :, 0, 0]
    if outputs is not None:
        matrix, bias = matrix[outputs], None if bias is None else bias[outputs]
    return build.linear([Tap(x, matrix.t())], bias, plus)


def conv_taps(
    x: Cells, weight: Tensor, dilation: int = 1, first: tuple[int, int] = (0, 0)
) -> list[Tap]:
    """The taps of a convolution's weight [out, in, rows, columns], for `Builder.linear`.

    Args:
        x: what is convolved.
        weight: masked already.
        dilation: cells from one tap to the next.
        first: how far up and left of the cell the first tap reads.
    """
    return [
        Tap(x, weight[:, :, i, j].t(), first[0] - i * dilation, first[1] - j * dilation)
        for i in range(weight.shape[2])
        for j in range(weight.shape[3])
    ]


def shift_down(x: Tensor) -> Tensor:
    """Row r of the result is row r - 1 of x; row 0 is zero. [B, F, H, W]."""
    return pad(x, (0, 0, 1, -1))


def linear_gate(x: Tensor, groups: int = 1) -> Tensor:
    """One half of the features times the sigmoid of the other, within each colour group.

    [B, 2F, H, W] to [B, F, H, W].
    """
    if groups == 1:
        a, b = x.chunk(2, 1)
        return a * torch.sigmoid(b)
    a, b = x.reshape(len(x), groups, -1, *x.shape[2:]).chunk(2, 2)
    return (a * torch.sigmoid(b)).flatten(1, 2)
