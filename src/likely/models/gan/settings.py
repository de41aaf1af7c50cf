"""Settings of the adversarial networks; torch-free."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from likely.models.common import BySize, NetworkSettings
from likely.models.registry import model
from likely.settings import FitSettings, at_least

if TYPE_CHECKING:
    from likely.data.spec import DataSpec
    from likely.models.gan.dcgan import DCGAN as DCGAN
    from likely.models.gan.gan import GAN as GAN
    from likely.models.gan.r3gan import R3GAN as R3GAN

# Adam without momentum, averaged weights. The gradient penalty bounds the gradients; clipping
# them would hide its effect.
_FIT = FitSettings(
    steps=1800, batch_size=64, learning_rate=1.5e-3, beta1=0.0, beta2=0.9, clip=0.0, ema=0.995,
    final_learning_rate=0.1,
)  # fmt: skip
_LONG = dataclasses.replace(_FIT, steps=20_000, learning_rate=3e-4, ema=0.999)


@model("gan", "likely.models.gan.gan:GAN")
@dataclasses.dataclass(frozen=True)
class GANSettings(NetworkSettings):
    """GAN (Goodfellow 2014): samples only; fully connected generator against discriminator.

    Attributes:
        latent: dimensions of the latent code z.
        hidden: units of each hidden layer of the generator.
        discriminator_hidden: units of each hidden layer of the discriminator.
        layers: hidden layers of both networks.
        pieces: linear pieces of a maxout unit of the discriminator; 1 for LeakyReLU.
        rounds: whether in a fit D sees generated images rounded to levels, as they are sampled.
        conditional: condition both networks on the class label.
    """

    latent: int = 100
    hidden: int = 512
    discriminator_hidden: int = 256
    layers: int = 3
    pieces: int = 1
    rounds: bool = False
    conditional: bool = False

    SIZES = BySize(tiny={"latent": 32, "hidden": 256}, large={})
    FITS = BySize(_FIT, dataclasses.replace(_FIT, steps=20_000, learning_rate=3e-4, ema=0.999))


@model("dcgan", "likely.models.gan.dcgan:DCGAN")
@dataclasses.dataclass(frozen=True)
class DCGANSettings(NetworkSettings):
    """DCGAN (Radford 2016): samples only, no density; generator against discriminator.

    Attributes:
        latent: dimensions of the latent code z.
        channels: feature maps of both networks at the highest inner resolution.
        kernel: side of the strided convolutions, at least 2; 5 in the paper.
        normalize: batch (the paper's guideline), none (for losses with gradient penalties) or
            spectral (of D, batch in G).
        rounds: whether in a fit D sees generated images rounded to levels, as they are sampled.
        conditional: condition both networks on the class label.
    """

    latent: int = 100
    channels: int = 64
    kernel: int = 4
    normalize: Literal["batch", "none", "spectral"] = "none"
    rounds: bool = False
    conditional: bool = False

    # Radford, Metz and Chintala 2016, section 4: for 64 x 64 the widths are 128 to 1024.
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {
            "latent": 100, "channels": 128, "kernel": 5, "normalize": "batch",
            "objective": "non-saturating-gan", "batch_size": 128, "learning_rate": 2e-4,
            "schedule": "constant", "warmup": 0, "beta1": 0.5, "beta2": 0.999,
            "weight_decay": 1e-5, "ema": 0.0,
        },
    }  # fmt: skip
    SIZES = BySize(
        tiny={"latent": 32, "channels": 64},
        medium={"latent": 64, "channels": 64},
        large={"latent": 100, "channels": 128},
    )
    FITS = BySize(_FIT, _LONG, medium=dataclasses.replace(_FIT, steps=12_000, ema=0.999))

    @classmethod
    def preset(cls, spec: DataSpec) -> Self:
        """Sizes that work without tuning; images of two levels are rounded."""
        return cls(**cls.SIZES.of(spec), rounds=spec.levels == 2)

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 2, "kernel")


@model("r3gan", "likely.models.gan.r3gan:R3GAN")
@dataclasses.dataclass(frozen=True)
class R3GANSettings(NetworkSettings):
    """R3GAN (Huang 2024): samples only; residual networks without normalisation.

    Attributes:
        latent: dimensions of the latent code z.
        channels: features at the resolution of the image; they double where it halves.
        blocks: residual blocks at each resolution.
        expansion: features inside a block, as a multiple of those outside.
        group_size: features of a group of the 3 x 3 convolutions.
        patch: side of the patches that D reads and G writes; 1 in the paper, 2 at a quarter of the
            work.
        rounds: whether in a fit D sees generated images rounded to levels, as they are sampled.
        conditional: condition both networks on the class label.
    """

    latent: int = 64
    channels: int = 32
    blocks: int = 2
    expansion: int = 2
    group_size: int = 16
    patch: int = 1
    rounds: bool = False
    conditional: bool = False

    SIZES = BySize(
        tiny={"channels": 32, "blocks": 1},
        medium={"channels": 64, "blocks": 1, "patch": 2},
        large={"channels": 64, "patch": 2},
    )
    FITS = BySize(_FIT, _LONG)

    @classmethod
    def preset(cls, spec: DataSpec) -> Self:
        """Sizes that work without tuning; images of two levels are rounded."""
        return cls(**cls.SIZES.of(spec), rounds=spec.levels == 2)
