r"""Convolutions of two causal streams that change resolution, with normalised weights.

Sources: Salimans, Karpathy, Chen, Kingma 2017 (PixelCNN++: streams, strides, gated residual
blocks), https://arxiv.org/abs/1701.05517; Salimans and Kingma 2016 (weight normalisation
w = g v / |v| and its data-dependent initialisation), https://arxiv.org/abs/1602.07868.

A `StreamConv` sees its own row and those above: `left` and `right` columns to the sides, `above`
rows up. The vertical stream u takes 2 x 3 kernels (both sides), the other, ul, 2 x 2 (left
side). With stride 2 the cell (i, j) of the coarse map reads rows 2 i - 1, 2 i, so it stands for
the corner pixel (2 i, 2 j) and may be used by every pixel of its 2 x 2 block. `StreamGrow` goes
back: it writes to rows 2 i, 2 i + 1 from row i. Sides round up; what is too much is cropped.

What may not see the pixel itself is shifted at the input (`shift_down`, `shift_right`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, elu, pad

from likely.nn.masked import conv_taps
from likely.sampling.program import Builder, Cells, Tap


class NormalizedKernel(nn.Module):
    """A kernel [out, in, kh, kw] with its bias: gain * direction / |direction|, or plain.

    Attributes:
        scale: standard deviation of the outputs after `start_at`.
        starting: whether the next pass sets gain and bias from its batch.
    """

    def __init__(
        self, inputs: int, outputs: int, size: tuple[int, int], normalize: bool, scale: float
    ) -> None:
        super().__init__()
        self.scale, self.starting = scale, False
        fan = inputs * size[0] * size[1]
        spread = 0.05 if normalize else scale / math.sqrt(fan)
        self.direction = nn.Parameter(torch.randn(outputs, inputs, *size) * spread)
        self.gain = nn.Parameter(torch.full((outputs,), scale)) if normalize else None
        self.bias = nn.Parameter(torch.zeros(outputs))

    def kernel(self) -> Tensor:
        """The kernel as it acts, [out, in, kh, kw]."""
        if self.gain is None:
            return self.direction
        # Flattened first: the sum must not depend on the order of the weight in memory.
        inverse = self.direction.flatten(1).square().sum(1).rsqrt()
        return self.direction * (self.gain * inverse)[:, None, None, None]

    @torch.no_grad()
    def start_at(self, out: Tensor) -> Tensor:
        """Set gain and bias so that these outputs would have mean 0 and deviation `scale`.

        A unit that hardly varies over the batch keeps its gain: dividing by nearly nothing is
        what made this initialisation diverge.

        Args:
            out: of the batch with gain and bias as they are, [B, out, H, W].

        Returns:
            The outputs with the new ones.
        """
        self.starting = False
        if self.gain is None:
            return out
        deviation, mean = torch.std_mean(out.float(), (0, 2, 3), correction=0)
        sound = deviation.isfinite() & mean.isfinite() & (deviation > 1e-3 * self.scale)
        factor = torch.where(sound, self.scale / deviation, 1.0).to(out.dtype)
        centre = torch.where(mean.isfinite(), mean, 0.0).to(out.dtype)
        self.gain.mul_(factor)
        self.bias.copy_((self.bias - centre) * factor)
        return (out - centre[:, None, None]) * factor[:, None, None]


class StreamConv(NormalizedKernel):
    """A causal convolution, [B, in, H, W] to [B, out, ceil(H / stride), ceil(W / stride)]."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        above: int = 0,
        left: int = 0,
        right: int = 0,
        stride: int = 1,
        dilation: int = 1,
        normalize: bool = True,
        scale: float = 1.0,
    ) -> None:
        super().__init__(inputs, outputs, (above + 1, left + 1 + right), normalize, scale)
        self.above, self.left, self.right = above * dilation, left * dilation, right * dilation
        self.stride, self.dilation = stride, dilation

    def forward(self, x: Tensor) -> Tensor:
        x = pad(x, (self.left, self.right, self.above, 0))
        out = conv2d(x, self.kernel(), self.bias, stride=self.stride, dilation=self.dilation)
        return self.start_at(out) if self.starting else out

    def incremental(self, build: Builder, x: Cells, plus: Sequence[Cells] = ()) -> Cells:
        """`forward` plus the sum of some feature maps, pixel by pixel."""
        return build.linear(self.taps(x), self.bias, plus, x.stride * self.stride)

    def taps(self, x: Cells, up: int = 0, left: int = 0, first: int = 0) -> list[Tap]:
        """What it reads of x, moved down by `up` and right by `left`; x holds the input features
        from `first` on."""
        weight = self.kernel()[:, first : first + x.features]
        return conv_taps(x, weight, self.dilation, (self.above + up, self.left + left))


class StreamGrow(NormalizedKernel):
    """Twice the resolution by a transposed convolution, cropped to the size that is wanted.

    Row i writes to rows 2 i and 2 i + 1; column j to 2 j and 2 j + 1, and with `both_sides` to
    2 j - 1, which only a stream that sees both sides may do.
    """

    def __init__(
        self, inputs: int, outputs: int, *, both_sides: bool, normalize: bool = True
    ) -> None:
        super().__init__(inputs, outputs, (2, 3 if both_sides else 2), normalize, 1.0)
        self.cut = 1 if both_sides else 0

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        weight = self.kernel().transpose(0, 1)  # torch keeps transposed kernels as [in, out]
        out = conv_transpose2d(x, weight, self.bias, stride=2)
        out = out[:, :, : size[0], self.cut : self.cut + size[1]]
        return self.start_at(out) if self.starting else out

    def incremental(self, build: Builder, x: Cells) -> Cells:
        """`forward`, pixel by pixel."""
        kernels: dict[tuple[int, int], Sequence[tuple[int, int, Tensor]]] = {}
        for i in (0, 1):
            for j in (0, 1):
                row = self.kernel()[:, :, i].permute(2, 1, 0)  # [columns, in, out]
                centre = (0, 0, row[j + self.cut])
                # An odd column is also written by the cell to the right.
                kernels[i, j] = [centre, (0, -1, row[0])] if self.cut and j else [centre]
        return build.upsample(x, kernels, self.bias, 2)


def concat_elu(x: Tensor) -> Tensor:
    """elu(x) and elu(-x), one after the other: [B, F, ...] to [B, 2 F, ...]."""
    return elu(torch.cat([x, -x], 1))


def gated(x: Tensor) -> Tensor:
    """One half of the features times the sigmoid of the other."""
    a, b = x.chunk(2, 1)
    return a * torch.sigmoid(b)


def shift_right(x: Tensor) -> Tensor:
    """Column c of the result is column c - 1 of x; column 0 is zero. [B, F, H, W]."""
    return pad(x, (1, -1))
