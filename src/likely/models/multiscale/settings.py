"""Settings of the multi-scale models; torch-free."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from likely.errors import InvalidSetting
from likely.models.registry import model
from likely.settings import FitSettings, HeadName, at_least, known

if TYPE_CHECKING:
    from likely.data.spec import DataSpec
    from likely.models.multiscale.multiscale_pixelcnn import (
        MultiscalePixelCNN as MultiscalePixelCNN,
    )
    from likely.models.multiscale.parallel_multiscale import (
        ParallelMultiscale as ParallelMultiscale,
    )


@model("multiscale-pixelcnn", "likely.models.multiscale.multiscale_pixelcnn:MultiscalePixelCNN")
@dataclasses.dataclass(frozen=True)
class MultiscalePixelCNNSettings:
    """Multi-scale PixelCNN (van den Oord 2016): exact likelihood, a small image first.

    Attributes:
        factor: by which the small image is smaller, on each side.
        channels: feature maps; a multiple of the colour channels.
        small_layers: layers of the model of the small image.
        layers: layers of the model of the other pixels.
        kernel: side of the windows, odd.
        first_kernel: side of the first layer's window, odd.
        map_channels: feature maps that are made of the small image.
        head: distribution of a pixel given the earlier ones.
        components: number of components of the logistic mixture.
        head_channels: feature maps of the two output convolutions.
        dropout: dropout rate inside each layer.
        conditional: condition on the class label.
    """

    factor: int = 2
    channels: int = 48
    small_layers: int = 6
    layers: int = 6
    kernel: int = 3
    first_kernel: int = 7
    map_channels: int = 32
    head: HeadName = "auto"
    components: int = 10
    head_channels: int = 96
    dropout: float = 0.0
    conditional: bool = False

    def __post_init__(self) -> None:
        known(self)
        at_least(self, 2, "factor")
        at_least(
            self,
            1,
            "channels",
            "small_layers",
            "layers",
            "kernel",
            "first_kernel",
            "map_channels",
            "components",
            "head_channels",
        )
        _dropout(self.dropout)

    @classmethod
    def preset(cls, spec: DataSpec) -> MultiscalePixelCNNSettings:
        """Sizes that work without tuning, by the side of the image and the colour channels."""
        side = spec.side
        if side <= 12:
            return cls(small_layers=4, layers=4, first_kernel=5, dropout=0.1)
        if side <= 28 and spec.grid[0] == 1:
            return cls()
        return cls(
            channels=126, small_layers=10, layers=8, map_channels=64, head_channels=252, dropout=0.1
        )

    @classmethod
    def fit_preset(cls, spec: DataSpec) -> FitSettings:
        """A fit that works without tuning."""
        if spec.side <= 12:
            return FitSettings(steps=700, batch_size=64, learning_rate=2e-3, ema=0.99)
        return FitSettings(steps=20_000, batch_size=32, learning_rate=1e-3, warmup=500)


@model("parallel-multiscale", "likely.models.multiscale.parallel_multiscale:ParallelMultiscale")
@dataclasses.dataclass(frozen=True)
class ParallelMultiscaleSettings:
    """Parallel multi-scale density (Reed 2017): exact likelihood, samples in O(log N) passes.

    Attributes:
        channels: feature maps.
        blocks: residual blocks of the network of each scale.
        head: distribution of a pixel given the earlier ones.
        components: number of components of the logistic mixture.
        dropout: dropout rate inside each block.
        conditional: condition on the class label.
    """

    channels: int = 64
    blocks: int = 4
    head: HeadName = "auto"
    components: int = 10
    dropout: float = 0.0
    conditional: bool = False

    def __post_init__(self) -> None:
        known(self)
        at_least(self, 1, "channels", "blocks", "components")
        _dropout(self.dropout)

    @classmethod
    def preset(cls, spec: DataSpec) -> ParallelMultiscaleSettings:
        """Sizes that work without tuning, by the side of the image and the colour channels."""
        side = spec.side
        if side <= 12:
            return cls(channels=48, blocks=2, dropout=0.2)
        if side <= 28 and spec.grid[0] == 1:
            return cls(dropout=0.1)
        return cls(channels=128, blocks=6, dropout=0.1)

    @classmethod
    def fit_preset(cls, spec: DataSpec) -> FitSettings:
        """A fit that works without tuning."""
        if spec.side <= 12:
            return FitSettings(steps=700, batch_size=64, learning_rate=2e-3, ema=0.99)
        return FitSettings(steps=20_000, batch_size=32, learning_rate=1e-3, warmup=500)


def _dropout(rate: float) -> None:
    if not 0 <= rate < 1:
        raise InvalidSetting(f"dropout must be in [0, 1), given {rate}")
