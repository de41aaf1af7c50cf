"""Settings of DeepNADE and EoNADE; see the package's docstring."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal, Self

from likely.models.settings.heads import HeadName
from likely.settings import FitSettings, at_least, known

if TYPE_CHECKING:
    from likely.data.spec import DataSpec


@dataclasses.dataclass(frozen=True)
class DeepNADESizes:
    """What DeepNADE and the mixture over orders have in common.

    Attributes:
        hidden: units of each hidden layer.
        layers: hidden layers.
        head: distribution of a pixel given the earlier ones.
        components: number of components of the logistic mixture.
        conditional: condition on the class label (biases per class).
    """

    hidden: int = 500
    layers: int = 2
    head: HeadName = "auto"
    components: int = 5
    conditional: bool = False

    def __post_init__(self) -> None:
        known(self)
        at_least(self, 1, "hidden", "layers", "components")

    @classmethod
    def preset(cls, spec: DataSpec) -> Self:
        """Sizes that work without tuning, by the side of the image."""
        if spec.side <= 12:
            return cls(hidden=300, components=3)
        return cls()

    @classmethod
    def fit_preset(cls, spec: DataSpec) -> FitSettings:
        """A fit that works without tuning."""
        if spec.side <= 12:
            return FitSettings(steps=4000, batch_size=64, learning_rate=1e-3, ema=0.99)
        return FitSettings(
            steps=50_000, batch_size=100, learning_rate=1e-3, warmup=200, validation_examples=256
        )


@dataclasses.dataclass(frozen=True)
class DeepNADESettings(DeepNADESizes):
    """DeepNADE (Uria 2014): one network for all orders of the pixels, used in one.

    Attributes:
        order: of the pixels; raster, or a random permutation (channels stay innermost).
    """

    order: Literal["raster", "random"] = "raster"


@dataclasses.dataclass(frozen=True)
class EoNADESettings(DeepNADESizes):
    """EoNADE (Uria 2014): a mixture of a DeepNADE's densities in several orders of the pixels.

    Attributes:
        orders: random orders whose densities are averaged.
    """

    orders: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "orders")
