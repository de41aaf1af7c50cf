"""Settings of PixelCNN++; see the package's docstring."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from likely.models.settings.heads import HeadName
from likely.settings import FitSettings, at_least, known, rates

if TYPE_CHECKING:
    from likely.data.spec import DataSpec


@dataclasses.dataclass(frozen=True)
class PixelCNNPPSettings:
    """PixelCNN++ (Salimans 2017): exact likelihood, two streams over several resolutions.

    Every improvement of the paper can be switched off, to see what it is worth.

    Attributes:
        channels: feature maps of each stream.
        blocks: residual blocks at each resolution, on the way down (one more on the way up).
        scales: resolutions, each half the one before; sides round up.
        resampling: strided (the paper's), or at full resolution with dilated or plain kernels.
        block: gated (concat-ELU, tanh-free gate) or relu (plain residual).
        shortcuts: connect each block on the way down to its counterpart on the way up.
        weight_norm: normalised weights with data-dependent initialisation.
        head: distribution of a pixel; auto is the logistic mixture for colour.
        components: number of components of the logistic mixture.
        dropout: dropout rate inside each block.
        conditional: condition on the context that examples come with, or else on the class label.
    """

    channels: int = 64
    blocks: int = 3
    scales: int = 3
    resampling: Literal["strided", "dilated", "plain"] = "strided"
    block: Literal["gated", "relu"] = "gated"
    shortcuts: bool = True
    weight_norm: bool = True
    head: HeadName = "auto"
    components: int = 10
    dropout: float = 0.5
    conditional: bool = False

    def __post_init__(self) -> None:
        known(self)
        at_least(self, 1, "channels", "blocks", "scales", "components")
        rates(self, "dropout")

    @classmethod
    def preset(cls, spec: DataSpec) -> PixelCNNPPSettings:
        """Sizes that work without tuning, by the side of the image and the colour channels."""
        side = spec.side
        colour = spec.grid[0] > 1
        if side <= 12:
            return cls(channels=24, blocks=2, scales=2, components=5, dropout=0.2)
        if side <= 28 and not colour:
            return cls(channels=32, blocks=2, dropout=0.2)
        if side <= 32:
            return cls(channels=160, blocks=5)
        return cls(channels=160, blocks=5, scales=4)

    @classmethod
    def fit_preset(cls, spec: DataSpec) -> FitSettings:
        """A fit that works without tuning; large images as in the paper's code."""
        if spec.side <= 12:
            return FitSettings(steps=700, batch_size=64, learning_rate=2e-3, ema=0.99)
        return FitSettings(
            steps=20_000, batch_size=32, learning_rate=1e-3, warmup=500, beta1=0.95,
            beta2=0.9995, ema=0.9995,
        )  # fmt: skip
