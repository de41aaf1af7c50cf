r"""Strictly causal attention over the pixels of an image, with positions in two dimensions.

    o_i = sum_{j < i} softmax_j(q_i . k_j / sqrt(d)) v_j,    o_0 = 0

The query of a pixel is made of features that see the pixels before it; key and value of a pixel
also see the pixel itself, so pixel i may attend to pixels before i only (Chen, Mishra,
Rohaninejad, Abbeel 2018). Queries from the second pixel on meet keys up to the last but one, and
then the usual causal mask, which keeps its diagonal, is the strict one; no softmax is empty.

Positions: each pair of components of a query or key is turned by an angle proportional to its
row (first half of the pairs) or its column (second half), so that q_i . k_j depends on the
difference of their places (Su et al. 2021, rotary embeddings, an axis each half). No weight
depends on the size of the image.

Memory is linear in the number of pixels (scaled_dot_product_attention). For sampling, keys and
values of earlier pixels are kept, and a pixel costs its own query.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

from likely.errors import InvalidSetting
from likely.nn.channel_norm import ChannelNorm
from likely.nn.masked import GroupedPointwise
from likely.noise import Dropout
from likely.sampling.program import Builder, Cells, Tap

# Wavelengths run from 2 pi to 2 pi * SLOWEST pixels.
SLOWEST = 32.0


def turns(height: int, width: int, size: int, like: Tensor) -> Tensor:
    """Cosines and sines of the angle of every pixel and pair, [2, H * W, size / 2].

    Args:
        height: rows.
        width: columns.
        size: components of a query; a multiple of 4.
        like: gives type and device.
    """
    each = size // 4
    exponents = torch.arange(each, dtype=like.dtype, device=like.device) / max(1, each - 1)
    rates = SLOWEST**-exponents
    rows = torch.arange(height, dtype=like.dtype, device=like.device)[:, None, None] * rates
    columns = torch.arange(width, dtype=like.dtype, device=like.device)[None, :, None] * rates
    shape = (height, width, each)
    angles = torch.cat([rows.expand(shape), columns.expand(shape)], 2).flatten(0, 1)
    return torch.stack([angles.cos(), angles.sin()])


def turned(x: Tensor, turn: Tensor) -> Tensor:
    """Rotate the pairs (x_p, x_{p + size / 2}) of [..., size] by `turn` [2, ..., size / 2]."""
    a, b = x.chunk(2, -1)
    cosine, sine = turn.to(x.dtype)
    return torch.cat([a * cosine - b * sine, a * sine + b * cosine], -1)


@dataclasses.dataclass(frozen=True)
class TurnMaps:
    """`turns` as feature maps of all heads, for incremental evaluation."""

    cosine: Cells
    sine: Cells

    @classmethod
    def of(cls, build: Builder, heads: int, size: int, like: Tensor) -> TurnMaps:
        """Those of the image that `build` evaluates."""
        _, height, width = build.shape
        cosine, sine = turns(height, width, size, like).reshape(2, height, width, size // 2)
        maps = [torch.cat([x, x], 2).repeat(1, 1, heads).permute(2, 0, 1) for x in (cosine, sine)]
        return cls(build.constant(maps[0]), build.constant(maps[1]))

    def turned(self, build: Builder, x: Cells, quarter: Cells) -> Cells:
        """x turned, given x turned by a quarter: (-b, a) for (a, b)."""
        return build.add(build.multiply(x, self.cosine), build.multiply(quarter, self.sine))


class CausalAttention(nn.Module):
    """h + W o, o the attention of each pixel to those before it; h is [B, F, H, W].

    With G colour groups, group g has `heads` queries of its own, made of groups <= g; keys and
    values are of whole pixels, because all channels of an earlier pixel may be seen.
    """

    def __init__(
        self, features: int, channels: int, heads: int, size: int, groups: int, dropout: float
    ) -> None:
        super().__init__()
        if size % 4:
            raise InvalidSetting(f"positions in two dimensions need head_size in 4s, given {size}")
        self.heads, self.size = groups * heads, size
        inner = self.heads * size
        self.norm = ChannelNorm(features, groups)
        self.query = GroupedPointwise(features, inner, groups)
        self.memory = nn.Linear(features + channels, 2 * inner)
        self.dropout = Dropout(dropout)
        self.out = GroupedPointwise(inner, features, groups)

    def forward(self, h: Tensor, x: Tensor, turn: Tensor) -> Tensor:
        """Attend.

        Args:
            h: features that see the pixels before theirs, [B, F, H, W].
            x: the image, [B, C, H, W].
            turn: of `turns`, [2, H * W, size / 2].
        """
        b, _, height, width = h.shape
        seen = self.norm(h)
        query = turned(self._by_head(_rows(self.query(seen))), turn)  # [B, heads, N, size]
        key, value = self.memory(torch.cat([_rows(seen), _rows(x)], 2)).chunk(2, 2)
        key, value = turned(self._by_head(key), turn), self._by_head(value)
        values = self.attend(query, key, value)
        values = values.transpose(1, 2).reshape(b, height, width, -1).permute(0, 3, 1, 2)
        change: Tensor = self.out(self.dropout(values))
        return h + change

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Each pixel to those before it, zero for the first; all [B, heads, N, size]."""
        if query.shape[2] == 1:
            return torch.zeros_like(value)
        values = scaled_dot_product_attention(
            query[:, :, 1:], key[:, :, :-1], value[:, :, :-1], is_causal=True
        )
        return pad(values, (0, 0, 1, 0))

    def _by_head(self, x: Tensor) -> Tensor:
        """[B, N, heads * size] to [B, heads, N, size]."""
        return x.reshape(len(x), -1, self.heads, self.size).transpose(1, 2)

    def incremental(self, build: Builder, h: Cells, x: Cells, turn: TurnMaps) -> Cells:
        """`forward`."""
        seen = self.norm.incremental(build, h)
        weight, bias = self.query.kernel()[:, :, 0, 0], self.query.bias
        assert bias is not None
        query = build.linear([Tap(seen, weight.t())], bias)
        weight, bias = self._quarter(weight, bias)
        query = turn.turned(build, query, build.linear([Tap(seen, weight.t())], bias))
        key_weight, value_weight = self.memory.weight.chunk(2)
        key_bias, value_bias = self.memory.bias.chunk(2)
        key = self._remembered(build, seen, x, key_weight, key_bias)
        quarter = self._remembered(build, seen, x, *self._quarter(key_weight, key_bias))
        key = turn.turned(build, key, quarter)
        value = self._remembered(build, seen, x, value_weight, value_bias)
        values = build.attend(query, key, value, heads=self.heads, scale=self.size**-0.5)
        return self.out.incremental(build, values, [h])

    def _quarter(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Weights [out, in] whose outputs are those of the given ones after a quarter turn."""
        half = self.size // 2
        rows = torch.arange(self.heads * self.size).reshape(self.heads, 2, half)
        sign = torch.ones_like(rows, dtype=weight.dtype)
        sign[:, 0] = -1
        rows, sign = rows.flip(1).flatten(), sign.flatten().to(weight.device)
        return weight[rows] * sign[:, None], bias[rows] * sign

    @staticmethod
    def _remembered(build: Builder, h: Cells, x: Cells, weight: Tensor, bias: Tensor) -> Cells:
        """Keys or values of a pixel, from its features and its values."""
        matrix = weight.t()  # [F + C, out]
        taps = [Tap(h, matrix[: h.features]), Tap(x, matrix[h.features :])]
        return build.linear(taps, bias)


def _rows(x: Tensor) -> Tensor:
    """[B, F, H, W] to [B, H * W, F]."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)
