"""Settings of models with discrete codes; torch-free."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, ClassVar, Literal

from likely.errors import InvalidSetting
from likely.models.common import BySize, HeadSettings, NetworkSettings
from likely.models.registry import model
from likely.settings import CountsWith, FitSettings, HeadName

if TYPE_CHECKING:
    from likely.data.spec import DataSpec
    from likely.models.codes.vq_vae import VQVAE as VQVAE

# The prior has a softmax over all of them at every place.
MOST_CODES = 65_536


@dataclasses.dataclass(frozen=True)
class CodePriorSettings(NetworkSettings):
    """Gated PixelCNN over maps of codes.

    Attributes:
        channels: feature maps of each stack, and numbers of the vector that stands for a code.
        layers: gated layers.
        dropout: dropout rate inside each.
    """

    channels: int = 64
    layers: int = 8
    dropout: float = 0.1


@model("vq-vae", "likely.models.codes.vq_vae:VQVAE")
@dataclasses.dataclass(frozen=True)
class VQVAESettings(HeadSettings):
    """VQ-VAE (van den Oord 2017): discrete codes with an autoregressive prior, a bound.

    Attributes:
        quantiser: where codes come from; ema (moving averages), simvq (fixed vectors through a
            learned matrix), or fsq (a grid).
        codes: number of codes of ema and simvq.
        grid_levels: points along each side of the grid of fsq, as 8,8,8 for 512 codes.
        dimensions: of the vector that a code of ema or simvq stands for.
        channels: feature maps of encoder and decoder at full resolution.
        blocks: residual blocks of each at the resolution of the codes.
        halvings: times that the sides are halved, from image to codes.
        prior_channels: feature maps of each stack of the prior.
        prior_layers: gated layers of the prior.
        prior_dropout: dropout rate inside each of them.
    """

    quantiser: Literal["ema", "simvq", "fsq"] = "ema"
    codes: int = 512
    grid_levels: tuple[int, ...] = (8, 8, 8)
    dimensions: int = 16
    channels: int = 32
    blocks: int = 2
    halvings: int = 2
    prior_channels: int = 64
    prior_layers: int = 8
    prior_dropout: float = 0.1

    COUNTS_WITH: ClassVar[dict[str, CountsWith]] = {
        "codes": {"quantiser": ("ema", "simvq")},
        "dimensions": {"quantiser": ("ema", "simvq")},
        "grid_levels": {"quantiser": ("fsq",)},
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.count <= MOST_CODES:
            grid = ",".join(map(str, self.grid_levels))
            what = f" by grid_levels={grid}" if self.quantiser == "fsq" else ""
            raise InvalidSetting(f"codes must be in [2, {MOST_CODES}], given {self.count}{what}")

    @property
    def prior(self) -> CodePriorSettings:
        """Of the prior."""
        return CodePriorSettings(self.prior_channels, self.prior_layers, self.prior_dropout)

    @property
    def count(self) -> int:
        """Number of codes."""
        return math.prod(self.grid_levels) if self.quantiser == "fsq" else self.codes

    @classmethod
    def preset(cls, spec: DataSpec) -> VQVAESettings:
        """Sizes that work without tuning, by the side of the image."""
        head: HeadName = "auto" if spec.levels == 2 else "logistic-mixture"
        if spec.side <= 12:
            return cls(
                codes=64, grid_levels=(8, 8), dimensions=8, channels=16, halvings=1, head=head,
                components=3, prior_channels=32, prior_layers=4,
            )  # fmt: skip
        if spec.side <= 28:
            return cls(channels=16, head=head, components=5, prior_channels=32, prior_layers=5)
        return cls(head=head, halvings=2 if spec.side <= 32 else 3)

    FITS = BySize(
        FitSettings(steps=1500, batch_size=64, learning_rate=2e-3, schedule="linear", ema=0.99),
        FitSettings(steps=20_000, batch_size=64, learning_rate=1e-3, schedule="linear", warmup=500),
    )
