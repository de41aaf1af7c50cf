"""Settings of the fully visible sigmoid belief network; see the package's docstring."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from likely.models.settings.fits import local_prior
from likely.models.settings.heads import HeadName
from likely.settings import FitSettings, at_least, known

if TYPE_CHECKING:
    from likely.data.spec import DataSpec

Prior = Literal["none", "local"]


@dataclasses.dataclass(frozen=True)
class FVSBNSettings:
    """Fully visible sigmoid belief network (Frey 1998): logistic regressions on earlier pixels.

    Attributes:
        head: distribution of a pixel given the earlier ones.
        components: number of components of the logistic mixture.
        prior: of the weights; none, or local: Gaussian by offset and distance of two pixels.
        conditional: condition on the class label (a bias per class).
    """

    head: HeadName = "auto"
    components: int = 1
    prior: Prior = "none"
    conditional: bool = False

    def __post_init__(self) -> None:
        known(self)
        at_least(self, 1, "components")

    @classmethod
    def preset(cls, spec: DataSpec) -> FVSBNSettings:
        """The one size there is; more components and a prior where the images are small."""
        prior: Prior = "local" if local_prior(spec) else "none"
        return cls(components=3 if spec.side <= 12 else 1, prior=prior)

    @classmethod
    def fit_preset(cls, spec: DataSpec) -> FitSettings:
        """A fit that works without tuning."""
        if spec.side <= 12:
            return FitSettings(steps=2000, batch_size=64, learning_rate=5e-3, ema=0.99)
        if local_prior(spec):
            # Concave: a high rate, and a decay to zero.
            return FitSettings(
                steps=4000, batch_size=200, learning_rate=0.02, schedule="linear", warmup=50,
                beta2=0.99, ema=0.998,
            )  # fmt: skip
        return FitSettings(steps=10_000, batch_size=100, learning_rate=2e-3, warmup=200)
