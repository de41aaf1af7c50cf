"""Settings of classical densities; torch-free."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from likely.models.common import BySize, NetworkSettings
from likely.models.registry import model
from likely.settings import FitSettings, at_least, not_negative, typed

if TYPE_CHECKING:
    from likely.models.classical.mixtures import BernoulliMixture as BernoulliMixture
    from likely.models.classical.mixtures import ProductMixture as ProductMixture
    from likely.models.classical.ppca import PPCA as PPCA

# The whole training set at once, or a batch whose statistics move the weights by a share.
WHOLE = FitSettings(
    steps=60, batch_size=65_536, optimizer="sgd", learning_rate=1.0, schedule="constant", warmup=0,
    clip=0.0, ema=0.0, log_every=1,
)  # fmt: skip
STEPWISE = dataclasses.replace(WHOLE, steps=400, batch_size=1000, schedule="cosine", log_every=10)


@dataclasses.dataclass(frozen=True)
class MixtureSettings(NetworkSettings):
    """Of a mixture of products, fitted by EM.

    Attributes:
        components: of the mixture.
        smoothing: pseudo-observations of each dimension in each component, a Dirichlet prior, so
            that no level has probability zero.
        restarts: starts, of which the likeliest is taken.
    """

    components: int = 50
    smoothing: float = 1.0
    restarts: int = 3

    SIZES = BySize({}, {"components": 20}, {"components": 100})

    def __post_init__(self) -> None:
        typed(self)
        at_least(self, 1, "components", "restarts")
        not_negative(self, "smoothing")


@model("bernoulli-mixture", "likely.models.classical.mixtures:BernoulliMixture")
@dataclasses.dataclass(frozen=True)
class BernoulliMixtureSettings(MixtureSettings):
    """Mixture of products of Bernoulli by EM; of grey levels, as many tosses of a coin."""

    FITS = BySize(WHOLE, STEPWISE, WHOLE)


@model("product-mixture", "likely.models.classical.mixtures:ProductMixture")
@dataclasses.dataclass(frozen=True)
class ProductMixtureSettings(MixtureSettings):
    """Mixture of products of a free distribution over levels for each dimension, by EM."""

    FITS = BySize(WHOLE, STEPWISE)


@model("ppca", "likely.models.classical.ppca:PPCA")
@dataclasses.dataclass(frozen=True)
class PPCASettings(NetworkSettings):
    """Probabilistic PCA (Tipping and Bishop 1999): a Gaussian of few directions, in closed form.

    Attributes:
        latent: directions; fewer where the data has no more dimensions.
    """

    latent: int = 50

    SIZES = BySize({"latent": 16}, {"latent": 100}, {})
    # The weights start at their optimum: an update changes nothing.
    FITS = BySize(*[dataclasses.replace(STEPWISE, steps=1, batch_size=64, learning_rate=1e-9)] * 2)
