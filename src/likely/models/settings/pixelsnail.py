"""Settings of PixelSNAIL; see the package's docstring."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from likely.models.settings.heads import HeadName
from likely.settings import FitSettings, at_least, known, rates

if TYPE_CHECKING:
    from likely.data.spec import DataSpec


@dataclasses.dataclass(frozen=True)
class PixelSNAILSettings:
    """PixelSNAIL (Chen 2018): exact likelihood, causal convolutions and attention.

    Attributes:
        channels: feature maps; a multiple of the colour channels.
        blocks: each of some convolutions and one attention.
        convolutions: gated convolutions of a block.
        kernel: side of their causal windows, odd.
        first_kernel: side of the first layer's window, odd.
        heads: of each attention (for each colour channel, where the network masks colours).
        head_size: components of a query; a multiple of 4.
        head: distribution of a pixel given the earlier ones.
        components: number of components of the logistic mixture.
        head_channels: feature maps of the two output convolutions.
        dropout: dropout rate inside each layer.
        conditional: condition on the class label.
    """

    channels: int = 64
    blocks: int = 3
    convolutions: int = 3
    kernel: int = 3
    first_kernel: int = 7
    heads: int = 4
    head_size: int = 16
    head: HeadName = "auto"
    components: int = 10
    head_channels: int = 128
    dropout: float = 0.0
    conditional: bool = False

    def __post_init__(self) -> None:
        known(self)
        at_least(
            self, 1, "channels", "blocks", "convolutions", "kernel", "first_kernel", "heads",
            "head_size", "components", "head_channels",
        )  # fmt: skip
        rates(self, "dropout")

    @classmethod
    def preset(cls, spec: DataSpec) -> PixelSNAILSettings:
        """Sizes that work without tuning, by the side of the image and the colour channels."""
        side = spec.side
        colour = spec.grid[0] > 1
        if side <= 12:
            return cls(
                channels=48, blocks=2, convolutions=2, first_kernel=5, heads=3, head_channels=96,
                dropout=0.2,
            )  # fmt: skip
        if side <= 28 and not colour:
            return cls(head_channels=64, dropout=0.2)
        return cls(
            channels=144, blocks=4, convolutions=4, heads=4, head_size=32, head_channels=144,
            dropout=0.1,
        )  # fmt: skip

    @classmethod
    def fit_preset(cls, spec: DataSpec) -> FitSettings:
        """A fit that works without tuning."""
        if spec.side <= 12:
            return FitSettings(steps=700, batch_size=64, learning_rate=2e-3, ema=0.99)
        return FitSettings(steps=60_000, batch_size=16, learning_rate=1e-3, warmup=500, ema=0.9995)
