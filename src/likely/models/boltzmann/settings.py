"""Settings of Boltzmann machines; torch-free."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from likely.models.common import BySize, NetworkSettings
from likely.models.registry import model
from likely.settings import FitSettings

if TYPE_CHECKING:
    from likely.data.spec import DataSpec
    from likely.models.boltzmann.rbm import RBM as RBM


@model("rbm", "likely.models.boltzmann.rbm:RBM")
@dataclasses.dataclass(frozen=True)
class RBMSettings(NetworkSettings):
    """Restricted Boltzmann machine (Smolensky 1986): a density up to a constant, by Markov chains.

    Attributes:
        hidden: binary hidden units.
        chains: Markov chains that persist during a fit and where samples start.
        gibbs: steps of a chain for a sample, where the hidden units are too many to list.
    """

    hidden: int = 500
    chains: int = 100
    gibbs: int = 1000

    SIZES = BySize({"hidden": 128}, {})
    FITS = BySize(
        FitSettings(
            steps=3000, batch_size=64, learning_rate=3e-3, schedule="linear", ema=0.995, beta1=0.5
        ),
        FitSettings(
            steps=30_000, batch_size=100, learning_rate=1e-3, schedule="linear", warmup=100,
            beta1=0.5,
        ),
    )  # fmt: skip

    @classmethod
    def fit_preset(cls, spec: DataSpec) -> FitSettings:
        """A fit that works without tuning; of larger images of two levels by plain gradient steps.

        Adam moves the weights of pixels that are seldom on as fast as all others.
        """
        if spec.levels == 2 and spec.side > 12:
            return FitSettings(
                steps=40_000, batch_size=100, optimizer="sgd", learning_rate=0.05,
                weight_decay=2e-4, schedule="linear", warmup=100, clip=0.0,
            )  # fmt: skip
        return super().fit_preset(spec)
