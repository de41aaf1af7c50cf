"""Settings of MADE; see the package's docstring."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from likely.errors import InvalidSetting
from likely.models.settings.heads import HeadName
from likely.settings import FitSettings, at_least

if TYPE_CHECKING:
    from likely.data.spec import DataSpec


@dataclasses.dataclass(frozen=True)
class MADESettings:
    """MADE (Germain 2015): a dense network masked so that each pixel sees those before it.

    Attributes:
        hidden: units of each hidden layer.
        layers: hidden layers.
        masks: sets of connections; one is drawn at each training step, all are averaged after.
        order: of the pixels; raster, or a random permutation (channels stay innermost).
        direct: connect the inputs to the outputs directly, too.
        dropout: rate of the hidden units.
        head: distribution of a pixel.
        components: of the logistic mixture.
        conditional: condition on the class label (biases of each class).
    """

    hidden: int = 1000
    layers: int = 2
    masks: int = 1
    order: Literal["raster", "random"] = "raster"
    direct: bool = True
    dropout: float = 0.0
    head: HeadName = "auto"
    components: int = 5
    conditional: bool = False

    def __post_init__(self) -> None:
        at_least(self, 1, "hidden", "layers", "masks", "components")
        at_least(self, 0, "dropout")
        if not self.dropout < 1:
            raise InvalidSetting(f"dropout must be below 1, given {self.dropout}")

    @classmethod
    def preset(cls, spec: DataSpec) -> MADESettings:
        """Sizes that work without tuning, by the side of the image."""
        side = max(spec.shape[1:])
        if side <= 12:
            return cls(hidden=500, masks=4, dropout=0.2, components=3)
        if side <= 28:
            return cls(masks=8, dropout=0.2)
        return cls(hidden=2000, components=2)

    @classmethod
    def fit_preset(cls, spec: DataSpec) -> FitSettings:
        """A fit that works without tuning."""
        if max(spec.shape[1:]) <= 12:
            return FitSettings(steps=2000, batch_size=64, learning_rate=2e-3, ema=0.99)
        return FitSettings(steps=15_000, batch_size=100, learning_rate=1e-3, warmup=200)


@dataclasses.dataclass(frozen=True)
class MADEEnsembleSettings:
    """Ensemble of MADEs (Germain 2015): one network in several orders of the pixels, mixed.

    Attributes:
        orders: random orders of the pixels; one is drawn at each training step.
        hidden: units of each hidden layer.
        layers: hidden layers.
        masks: sets of connections in each order.
        direct: connect the inputs to the outputs directly, too.
        dropout: rate of the hidden units.
        head: distribution of a pixel.
        components: of the logistic mixture.
        conditional: condition on the class label (biases of each class).
    """

    orders: int = 8
    hidden: int = 1000
    layers: int = 2
    masks: int = 1
    direct: bool = True
    dropout: float = 0.0
    head: HeadName = "auto"
    components: int = 5
    conditional: bool = False

    def __post_init__(self) -> None:
        at_least(self, 1, "orders", "hidden", "layers", "masks", "components")
        at_least(self, 0, "dropout")
        if not self.dropout < 1:
            raise InvalidSetting(f"dropout must be below 1, given {self.dropout}")

    @classmethod
    def preset(cls, spec: DataSpec) -> MADEEnsembleSettings:
        """Sizes that work without tuning, by the side of the image."""
        side = max(spec.shape[1:])
        if side <= 12:
            return cls(hidden=500, dropout=0.1, components=3)
        if side <= 28:
            return cls(dropout=0.1)
        return cls(hidden=2000, components=2)

    @classmethod
    def fit_preset(cls, spec: DataSpec) -> FitSettings:
        """A fit that works without tuning."""
        return MADESettings.fit_preset(spec)
