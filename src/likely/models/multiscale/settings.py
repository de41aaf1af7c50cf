"""Settings of the multi-scale models; torch-free."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from likely.models.common import LARGE, TINY, BySize, ChainSettings, MaskedSettings
from likely.models.registry import model
from likely.settings import at_least

if TYPE_CHECKING:
    from likely.models.multiscale.multiscale_pixelcnn import (
        MultiscalePixelCNN as MultiscalePixelCNN,
    )
    from likely.models.multiscale.parallel_multiscale import (
        ParallelMultiscale as ParallelMultiscale,
    )


@model("multiscale-pixelcnn", "likely.models.multiscale.multiscale_pixelcnn:MultiscalePixelCNN")
@dataclasses.dataclass(frozen=True)
class MultiscalePixelCNNSettings(MaskedSettings):
    """Multi-scale PixelCNN (van den Oord 2016): exact likelihood, a small image first.

    Attributes:
        factor: by which the small image is smaller, on each side.
        channels: feature maps; a multiple of the colour channels.
        small_layers: layers of the model of the small image.
        layers: layers of the model of the other pixels.
        map_channels: feature maps that are made of the small image.
    """

    factor: int = 2
    channels: int = 48
    small_layers: int = 6
    layers: int = 6
    map_channels: int = 32
    head_channels: int = 96

    SIZES = BySize(
        tiny={"small_layers": 4, "layers": 4, "first_kernel": 5, "dropout": 0.1},
        grey={},
        large={
            "channels": 126, "small_layers": 10, "layers": 8, "map_channels": 64,
            "head_channels": 252, "dropout": 0.1,
        },
    )  # fmt: skip
    FITS = BySize(TINY, LARGE)

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 2, "factor")


@model("parallel-multiscale", "likely.models.multiscale.parallel_multiscale:ParallelMultiscale")
@dataclasses.dataclass(frozen=True)
class ParallelMultiscaleSettings(ChainSettings):
    """Parallel multi-scale density (Reed 2017): exact likelihood, samples in O(log N) passes.

    Attributes:
        channels: feature maps.
        blocks: residual blocks of the network of each scale.
    """

    channels: int = 64
    blocks: int = 4

    SIZES = BySize(
        tiny={"channels": 48, "blocks": 2, "dropout": 0.2},
        grey={"dropout": 0.1},
        large={"channels": 128, "blocks": 6, "dropout": 0.1},
    )
    FITS = BySize(TINY, LARGE)
