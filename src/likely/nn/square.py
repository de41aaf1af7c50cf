r"""The masked square convolution of the PixelCNN (van den Oord, Kalchbrenner, Kavukcuoglu 2016).

A k x k kernel over the k // 2 rows above and the pixels to the left, with the current pixel as
the mask allows (A: earlier colour groups only; B: its own too). Only the taps that may be seen
have weights: k // 2 rows of k, and k // 2 to the left.

A stack of them has a blind spot. A pixel's features carry what lies to its left and, one row up,
at most k // 2 columns to its right; so m rows up nothing is seen that is more than m (k // 2)
columns to the right, however many layers there are. Taps that lie apart (dilation) take as many
more rows as columns, so that bound holds for them too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from likely.errors import InvalidSetting
from likely.nn.masked import HorizontalConv, Mask, conv_taps
from likely.sampling.program import Builder, Cells


class MaskedConv(nn.Module):
    """A masked k x k convolution, [B, in, H, W] to [B, out, H, W].

    Attributes:
        taps: rows above, and columns to either side: k // 2, `dilation` apart.
        above: weight on the rows above, [out, in, taps, k].
        row: the part in the current row, with the bias.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel: int,
        mask: Mask,
        groups: int,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        if kernel % 2 == 0 or kernel < 3:
            raise InvalidSetting(
                f"a masked convolution needs an odd kernel of at least 3, given {kernel}"
            )
        self.taps, self.dilation = kernel // 2, dilation
        self.row = HorizontalConv(in_features, out_features, self.taps, mask, groups, dilation)
        self.above = nn.Parameter(torch.empty(out_features, in_features, self.taps, kernel))
        # The variance of a layer with as many inputs as taps that are seen.
        seen = in_features * (self.taps * kernel + self.row.weight.shape[3])
        bound = seen**-0.5
        assert self.row.bias is not None
        for parameter in (self.above, self.row.weight, self.row.bias):
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        # One convolution is faster than two that are added; its last row is filled with zeros.
        current = self.row.kernel()
        current = pad(current, (0, self.above.shape[3] - current.shape[3]))
        weight = torch.cat([self.above, current], 2)
        side = self.taps * self.dilation
        x = pad(x, (side, side, side, 0))
        return conv2d(x, weight, self.row.bias, dilation=self.dilation)

    def incremental(self, build: Builder, x: Cells, plus: Sequence[Cells] = ()) -> Cells:
        """`forward` plus the sum of some feature maps."""
        side = self.taps * self.dilation
        above = conv_taps(x, self.above, self.dilation, (side, side))
        return build.linear([*above, *self.row.reads(x)], self.row.bias, plus)
