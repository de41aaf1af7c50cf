"""PixelSNAILs with one defect each, for the proofs to find."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from likely.data.spec import DataSpec
from likely.models.pixelcnn.pixelsnail import PixelSNAIL
from likely.models.pixelcnn.settings import PixelSNAILSettings
from likely.nn.attention import CausalAttention, TurnMaps
from likely.nn.channel_norm import ChannelNorm
from likely.nn.square import MaskedConv
from likely.sampling.program import Builder, Cells, shifted

SMALL = PixelSNAILSettings(
    channels=12, blocks=1, convolutions=2, kernel=3, first_kernel=3, heads=2, head_size=4,
    head_channels=12, components=2,
)  # fmt: skip


class NotStrict(CausalAttention):
    """Keys and values that see their own pixel, under a mask that keeps the diagonal."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return scaled_dot_product_attention(query, key, value, is_causal=True)


class MovedInItsRow(CausalAttention):
    """Moved back by a column, not by a place: the first column gets the end of its row."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        width = next(side for side in (5, 4, 3, 2, 1) if key.shape[2] % side == 0)
        key, value = (x.unflatten(2, (-1, width)).roll(1, 3).flatten(2, 3) for x in (key, value))
        return scaled_dot_product_attention(query, key, value, is_causal=True)


class SoftmaxOverAll(CausalAttention):
    """The mask is put on after the softmax: its denominator counts the future."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        weights = torch.softmax(query @ key.transpose(2, 3) / self.size**0.5, 3)
        return weights.tril(-1) @ value


class NoMask(CausalAttention):
    """Attention to the whole image."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return scaled_dot_product_attention(query, key, value)


class StaleCache(CausalAttention):
    """Sampling keeps the keys of the pixel before: written before the pixel was drawn."""

    def incremental(self, build: Builder, h: Cells, x: Cells, turn: TurnMaps) -> Cells:
        return super().incremental(build, h, shifted(x, left=1), turn)


class WrongTurn(CausalAttention):
    """Sampling turns queries and keys by sine and cosine exchanged."""

    def incremental(self, build: Builder, h: Cells, x: Cells, turn: TurnMaps) -> Cells:
        swapped = TurnMaps(turn.sine, turn.cosine)
        return super().incremental(build, h, x, swapped)


class ImageNorm(ChannelNorm):
    """Statistics of the whole image."""

    def forward(self, x: Tensor) -> Tensor:
        scale = x.square().mean((1, 2, 3), keepdim=True).add(1e-6).rsqrt()
        return x * scale * self.gain[:, None, None]


class OneNorm(ChannelNorm):
    """Statistics of all colour groups."""

    def forward(self, x: Tensor) -> Tensor:
        scale = x.square().mean(1, keepdim=True).add(1e-6).rsqrt()
        return x * scale * self.gain[:, None, None]


def with_attention(kind: type[CausalAttention]) -> type[PixelSNAIL]:
    """The model with attention of that class."""

    class Planted(PixelSNAIL):
        def __init__(self, spec: DataSpec, settings: Any = None) -> None:
            super().__init__(spec, settings)
            for layer in self.layers:
                if isinstance(layer, CausalAttention):
                    layer.__class__ = kind

    Planted.__name__ = kind.__name__
    return Planted


class NormOfImage(PixelSNAIL):
    """Normalisation over the image: every pixel sees the future."""

    def __init__(self, spec: DataSpec, settings: Any = None) -> None:
        super().__init__(spec, settings)
        self.norm.__class__ = ImageNorm


class NormOfColours(PixelSNAIL):
    """Normalisation over all colour groups: red sees blue."""

    def __init__(self, spec: DataSpec, settings: Any = None) -> None:
        super().__init__(spec, settings)
        self.norm.__class__ = OneNorm


class FirstSeesItself(PixelSNAIL):
    """Mask B in the first layer."""

    def __init__(self, spec: DataSpec, settings: Any = None) -> None:
        super().__init__(spec, settings)
        old = self.first
        self.first = MaskedConv(
            spec.shape[0], old.above.shape[0], 2 * old.taps + 1, "B", self.groups
        )


class NoAttention(PixelSNAIL):
    """Windows alone: the blind spot above and to the right is back."""

    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            for layer in self.layers:
                if isinstance(layer, CausalAttention):
                    layer.out.weight.zero_()
        return super().conditionals(x, context)
