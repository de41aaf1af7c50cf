"""Settings of DCGAN; torch-free."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from likely.models.registry import model
from likely.settings import FitSettings, at_least, known

if TYPE_CHECKING:
    from likely.data.spec import DataSpec
    from likely.models.gan.dcgan import DCGAN as DCGAN


@model("dcgan", "likely.models.gan.dcgan:DCGAN")
@dataclasses.dataclass(frozen=True)
class DCGANSettings:
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

    def __post_init__(self) -> None:
        known(self)
        at_least(self, 1, "latent", "channels")

    @classmethod
    def preset(cls, spec: DataSpec) -> DCGANSettings:
        """Sizes that work without tuning, by the side of the image."""
        side = spec.side
        if side <= 12:
            return cls(latent=32, channels=64)
        if side <= 32:
            return cls(latent=64, channels=64)
        return cls(latent=100, channels=128)

    @classmethod
    def fit_preset(cls, spec: DataSpec) -> FitSettings:
        """A fit that works without tuning: Adam without momentum, averaged weights, no clipping.

        The gradient penalty bounds the gradients; clipping them would hide its effect.
        """
        adversarial = FitSettings(
            steps=1800,
            batch_size=64,
            learning_rate=1.5e-3,
            beta1=0.0,
            beta2=0.9,
            clip=0.0,
            ema=0.995,
            final_learning_rate=0.1,
        )
        if spec.side <= 12:
            return adversarial
        return dataclasses.replace(adversarial, steps=20_000, learning_rate=3e-4, ema=0.999)
