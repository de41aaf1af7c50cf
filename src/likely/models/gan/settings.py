"""Settings of DCGAN; torch-free."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from likely.models.common import BySize, NetworkSettings
from likely.models.registry import model
from likely.settings import FitSettings

if TYPE_CHECKING:
    from likely.models.gan.dcgan import DCGAN as DCGAN

# Adam without momentum, averaged weights. The gradient penalty bounds the gradients; clipping
# them would hide its effect.
_FIT = FitSettings(
    steps=1800, batch_size=64, learning_rate=1.5e-3, beta1=0.0, beta2=0.9, clip=0.0, ema=0.995,
    final_learning_rate=0.1,
)  # fmt: skip


@model("dcgan", "likely.models.gan.dcgan:DCGAN")
@dataclasses.dataclass(frozen=True)
class DCGANSettings(NetworkSettings):
    """DCGAN (Radford 2016): samples only, no density; generator against discriminator.

    Attributes:
        latent: dimensions of the latent code z.
        channels: feature maps of both networks at the highest inner resolution.
        normalize: batch (the paper's guideline) or none (for losses with gradient penalties).
        conditional: condition both networks on the class label.
    """

    latent: int = 100
    channels: int = 64
    normalize: Literal["batch", "none"] = "none"
    conditional: bool = False

    SIZES = BySize(
        tiny={"latent": 32, "channels": 64},
        medium={"latent": 64, "channels": 64},
        large={"latent": 100, "channels": 128},
    )
    FITS = BySize(_FIT, dataclasses.replace(_FIT, steps=20_000, learning_rate=3e-4, ema=0.999))
