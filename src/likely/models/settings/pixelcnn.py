"""Settings of PixelCNN; see the package's docstring."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from likely.models.settings.fits import SMALL_GREY
from likely.models.settings.heads import HeadName
from likely.settings import FitSettings, at_least, known, rates

if TYPE_CHECKING:
    from likely.data.spec import DataSpec


@dataclasses.dataclass(frozen=True)
class PixelCNNSettings:
    """PixelCNN (van den Oord 2016): exact likelihood, masked convolutions, has a blind spot.

    Attributes:
        channels: h; the residual stream has 2 h feature maps. A multiple of the colour channels.
        layers: residual blocks after the first convolution.
        kernel: side of the blocks' kernels, odd.
        first_kernel: side of the first layer's kernel, odd.
        dilations: dilations of the blocks, in rotation.
        head: distribution of a pixel given the earlier ones.
        components: number of components of the logistic mixture.
        head_channels: feature maps of the two output convolutions.
        dropout: dropout rate inside each block.
        conditional: condition on the context that examples come with, or else on the class label.
    """

    channels: int = 64
    layers: int = 15
    kernel: int = 3
    first_kernel: int = 7
    dilations: tuple[int, ...] = (1,)
    head: HeadName = "auto"
    components: int = 10
    head_channels: int = 128
    dropout: float = 0.0
    conditional: bool = False

    def __post_init__(self) -> None:
        known(self)
        at_least(self, 1, "channels", "layers", "dilations", "components", "head_channels")
        at_least(self, 3, "kernel", "first_kernel")
        rates(self, "dropout")

    @classmethod
    def preset(cls, spec: DataSpec) -> PixelCNNSettings:
        """Sizes that work without tuning, by the side of the image and the colour channels."""
        side = spec.side
        colour = spec.grid[0] > 1
        if side <= 12:
            return cls(channels=24, layers=6, first_kernel=5, head_channels=96, dropout=0.1)
        if side <= 28 and not colour:
            return cls(channels=16, dilations=(1, 2, 4), head_channels=64)
        return cls(channels=129, layers=15, head_channels=1023)

    @classmethod
    def fit_preset(cls, spec: DataSpec) -> FitSettings:
        """A fit that works without tuning."""
        if spec.side <= 12:
            return FitSettings(steps=700, batch_size=64, learning_rate=2e-3, ema=0.99)
        if spec.side <= 28 and spec.grid[0] == 1:
            return SMALL_GREY
        return FitSettings(steps=20_000, batch_size=32, learning_rate=1e-3, warmup=500)
