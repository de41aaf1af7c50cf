"""Settings of the classical models of sequences; torch-free. Importing this module registers them.

They are fitted by EM, or in closed form before the first update.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Self

from likely.models.registry import sequence_model
from likely.models.sequence.settings import kind_of
from likely.settings import FitSettings, at_least, not_negative, typed

if TYPE_CHECKING:
    from likely.data.spec import DataSpec
    from likely.models.sequence.hmm import HMM as HMM
    from likely.models.sequence.state_space import StateSpace as StateSpace
    from likely.models.sequence.var import VAR as VAR

# Sequences whose statistics an update of EM takes together, where there are so many.
MOST = 256
_EM: dict[str, Any] = {
    "optimizer": "sgd", "learning_rate": 1.0, "schedule": "constant", "warmup": 0, "clip": 0.0,
    "ema": 0.0, "log_every": 1, "validation_examples": 0,
}  # fmt: skip
# The weights start at their optimum: an update changes nothing.
_AT_ONCE = FitSettings(
    steps=1, batch_size=1, optimizer="sgd", learning_rate=1e-12, schedule="constant", warmup=0,
    ema=0.0, validation_examples=0,
)  # fmt: skip


@sequence_model("hmm", "likely.models.sequence.hmm:HMM")
@dataclasses.dataclass(frozen=True)
class HMMSettings:
    """Hidden Markov model by EM, its columns independent given the state.

    Attributes:
        states: of the hidden chain.
        smoothing: pseudo-observations of every distribution, a Dirichlet prior, so that nothing has
            probability zero.
        bins: of a number of many levels, about equally many steps in each; within one all levels
            are equally likely.
    """

    states: int = 32
    smoothing: float = 1.0
    bins: int = 32

    def __post_init__(self) -> None:
        typed(self)
        at_least(self, 1, "states")
        at_least(self, 4, "bins")
        not_negative(self, "smoothing")

    @classmethod
    def preset(cls, spec: DataSpec) -> Self:
        """Sizes that work without tuning."""
        return cls(states=64 if "music" in kind_of(spec) else 32)

    @classmethod
    def fit_preset(cls, spec: DataSpec) -> FitSettings:
        """EM on all sequences at once, or stepwise on a part of many."""
        n = getattr(spec, "n", MOST)
        if n <= MOST:
            return FitSettings(steps=60, batch_size=max(1, n), **_EM)
        return FitSettings(steps=90, batch_size=MOST, **{**_EM, "schedule": "cosine"})


@sequence_model("var", "likely.models.sequence.var:VAR")
@dataclasses.dataclass(frozen=True)
class VARSettings:
    """Vector autoregression on the clock with Student-t noise, columns in turn.

    Attributes:
        lags: steps back that a step is predicted from.
        components: of the noise, a mixture of Student-t distributions of different scales.
        ridge: pseudo-observations that shrink the coefficients.
        rounds: of reweighted least squares.
    """

    lags: int = 24
    components: int = 3
    ridge: float = 4.0
    rounds: int = 12

    def __post_init__(self) -> None:
        typed(self)
        at_least(self, 1, "lags", "components", "rounds")
        not_negative(self, "ridge")

    @classmethod
    def preset(cls, spec: DataSpec) -> Self:
        """Sizes that work without tuning."""
        return cls(lags=24 if kind_of(spec) == "numbers" else 4)

    @classmethod
    def fit_preset(cls, spec: DataSpec) -> FitSettings:
        """One update that changes nothing: the weights start at their optimum."""
        return _AT_ONCE


@sequence_model("state-space", "likely.models.sequence.state_space:StateSpace")
@dataclasses.dataclass(frozen=True)
class StateSpaceSettings:
    """Linear-Gaussian state space by the Kalman filter, started by a reduced regression.

    Attributes:
        latent: dimensions of the state.
        window: steps that an update scores in a piece of a sequence; longer sequences are cut.
        before: steps before a window that are given, so that a state is not empty there.
        transpose: as of the networks: semitones by which music is moved at random in a fit.
    """

    latent: int = 16
    window: int = 96
    before: int = 24
    transpose: int = 0

    def __post_init__(self) -> None:
        typed(self)
        at_least(self, 1, "latent", "window")
        not_negative(self, "before", "transpose")

    @classmethod
    def preset(cls, spec: DataSpec) -> Self:
        """Sizes that work without tuning."""
        columns = len(getattr(spec, "columns", ())) or 1
        return cls(latent=max(4, min(24, 2 * columns)))

    @classmethod
    def fit_preset(cls, spec: DataSpec) -> FitSettings:
        """A fit that works without tuning."""
        windows = max(1, getattr(spec, "steps", 10_000) // cls.preset(spec).window)
        return FitSettings(
            steps=150, batch_size=max(1, min(16, windows // 2)), learning_rate=3e-3, warmup=10,
            ema=0.9, validation_examples=0,
        )  # fmt: skip
