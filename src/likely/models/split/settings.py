"""Settings of the models of an image in parts; torch-free."""

from __future__ import annotations

import dataclasses
from dataclasses import fields
from typing import TYPE_CHECKING, Literal

from likely.models.common import BySize, MaskedSettings
from likely.models.pixelcnn.settings import GatedPixelCNNSettings
from likely.models.registry import model
from likely.settings import FitSettings

if TYPE_CHECKING:
    from likely.models.split.haar_pyramid import HaarPyramid as HaarPyramid
    from likely.models.split.luma_chroma import LumaChroma as LumaChroma

TINY_FIT = FitSettings(steps=1000, batch_size=64, learning_rate=2e-3, ema=0.99)
# Orthogonal updates of small batches: fewer images than Adam for one value.
LARGE_FIT = FitSettings(
    steps=8000, batch_size=16, optimizer="muon", learning_rate=0.01, schedule="linear",
    warmup=100, beta1=0.95, beta2=0.99, clip=0.0, ema=0.99,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class SplitSettings(MaskedSettings):
    """What the networks of both parts have.

    Attributes:
        channels: feature maps of the Gated PixelCNNs; a multiple of the colour channels.
        base_layers: layers of that of the first part.
        layers: layers of that of the second part.
        head: distribution of a value of the first part given the earlier ones.
        features: feature maps of the first part that condition the second.
        blocks: residual blocks at each size of the network that makes them.
    """

    channels: int = 48
    base_layers: int = 6
    layers: int = 5
    first_kernel: int = 5
    head_channels: int = 96
    components: int = 5
    features: int = 48
    blocks: int = 1

    FITS = BySize(TINY_FIT, LARGE_FIT)

    @property
    def without_effect(self) -> dict[str, str]:
        """None: the second part has a mixture, whatever the head of the first."""
        return {}

    def of_base(self) -> GatedPixelCNNSettings:
        """Of the network of the first part."""
        return GatedPixelCNNSettings(
            channels=self.channels, layers=self.base_layers, kernel=self.kernel, head=self.head,
            first_kernel=self.first_kernel, components=self.components,
            head_channels=self.head_channels, dropout=self.dropout, conditional=self.conditional,
        )  # fmt: skip

    def of_rest(self) -> GatedPixelCNNSettings:
        """Of the network of the second part."""
        return dataclasses.replace(
            self.of_base(), layers=self.layers, head="logistic-mixture", conditional=True
        )


@model("luma-chroma", "likely.models.split.luma_chroma:LumaChroma")
@dataclasses.dataclass(frozen=True)
class LumaChromaSettings(SplitSettings):
    """Luma, then chroma (YCoCg-R): exact likelihood, colours grey images exactly.

    Attributes:
        luma: the model of luma: by rows, or scale by scale.
        base_layers: layers of the network of luma.
        layers: layers of the network of chroma.
        features: feature maps of luma that condition chroma.
        chroma_scales: 1 for chroma in raster order; 2 begins with every second place, 3 with every
            fourth.
    """

    luma: Literal["gated-pixelcnn", "haar-pyramid"] = "gated-pixelcnn"
    chroma_scales: int = 1

    SIZES = BySize(
        tiny={"channels": 24, "base_layers": 4, "layers": 3, "features": 24, "dropout": 0.1,
              "chroma_scales": 2},
        large={"luma": "haar-pyramid", "chroma_scales": 3},
    )  # fmt: skip

    def of_pyramid(self) -> HaarPyramidSettings:
        """Of luma scale by scale."""
        shared = {field.name: getattr(self, field.name) for field in fields(SplitSettings)}
        return HaarPyramidSettings(**shared)


@model("haar-pyramid", "likely.models.split.haar_pyramid:HaarPyramid")
@dataclasses.dataclass(frozen=True)
class HaarPyramidSettings(SplitSettings):
    """Averages, then details (S-transform), scale by scale: exact likelihood, enlarges exactly.

    Attributes:
        scales: how often the sides are halved.
        base_layers: layers of the network of the smallest image.
        layers: layers of the network of the details at each scale.
        features: feature maps of the averages that condition the details.
    """

    scales: int = 2

    SIZES = BySize(
        tiny={"scales": 1, "channels": 24, "base_layers": 4, "layers": 3, "features": 24,
              "dropout": 0.1},
        large={},
    )  # fmt: skip
