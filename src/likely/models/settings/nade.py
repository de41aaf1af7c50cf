"""Settings of NADE; see the package's docstring."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from likely.models.settings.heads import HeadName
from likely.settings import FitSettings, at_least, known

if TYPE_CHECKING:
    from likely.data.spec import DataSpec


@dataclasses.dataclass(frozen=True)
class NADESettings:
    """NADE (Larochelle and Murray 2011): one hidden layer shared by all pixels.

    Attributes:
        hidden: units of the hidden layer.
        head: distribution of a pixel given the earlier ones.
        components: number of components of the logistic mixture.
        conditional: condition on the class label (biases per class).
    """

    hidden: int = 500
    head: HeadName = "auto"
    components: int = 5
    conditional: bool = False

    def __post_init__(self) -> None:
        known(self)
        at_least(self, 1, "hidden", "components")

    @classmethod
    def preset(cls, spec: DataSpec) -> NADESettings:
        """Sizes that work without tuning, by the side of the image."""
        if spec.side <= 12:
            return cls(hidden=200, components=3)
        return cls()

    @classmethod
    def fit_preset(cls, spec: DataSpec) -> FitSettings:
        """A fit that works without tuning."""
        if spec.side <= 12:
            return FitSettings(steps=1500, batch_size=64, learning_rate=4e-3, ema=0.99)
        return FitSettings(steps=10_000, batch_size=100, learning_rate=5e-3, warmup=200)
