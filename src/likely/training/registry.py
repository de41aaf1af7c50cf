"""The registry of objectives: names and settings, torch-free.

An objective is a frozen dataclass, and its fields are its settings. Those of Likely take them from
a dataclass here, so that the help can list them; one of another package registers itself:

    @objective("focal")
    @dataclasses.dataclass(frozen=True)
    class Focal(Objective): ...
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from likely.errors import InvalidSetting
from likely.settings import OBJECTIVES as OBJECTIVES
from likely.settings import at_least, typed

Kind = TypeVar("Kind", bound=type[Any])
Penalised = Literal["real", "generated", "both", "between"]
Augmentation = Literal["brightness", "saturation", "contrast", "translation", "cutout"]


def objective(name: str, place: str = "") -> Callable[[Kind], Kind]:
    """Register the decorated dataclass.

    Args:
        name: on the command line, as "negative-elbo".
        place: of the class, as "module:Class", where the decorated one holds only its settings.

    Raises:
        InvalidSetting: the name is taken by another objective, or it is no dataclass.
    """

    def register(kind: Kind) -> Kind:
        if not dataclasses.is_dataclass(kind):
            raise InvalidSetting(
                f'objective "{name}": {kind.__name__} is no dataclass; put @objective above '
                "@dataclasses.dataclass(frozen=True)"
            )
        OBJECTIVES.join(
            name, place or f"{kind.__module__}:{kind.__qualname__}", kind.__module__, kind
        )
        return kind

    return register


@objective("negative-log-likelihood", "likely.training.objectives:NegativeLogLikelihood")
@dataclasses.dataclass(frozen=True)
class LikelihoodSettings:
    """None."""


@objective("sequence-likelihood", "likely.training.objectives:SequenceLikelihood")
@dataclasses.dataclass(frozen=True)
class SequenceLikelihoodSettings:
    """None."""


@objective("sequence-bound", "likely.training.objectives:SequenceBound")
@dataclasses.dataclass(frozen=True)
class SequenceBoundSettings:
    """Of the negative bound of sequences with latents.

    Attributes:
        warmup: steps over which the weight of the KL term rises linearly to 1.
        first_weight: of the KL term.
        particles: of FIVO, the bound by a particle filter, whose KL term is not weighted; 1 for the
            ELBO.
    """

    warmup: int = 500
    first_weight: float = 0.2
    particles: int = 1

    def __post_init__(self) -> None:
        typed(self)
        at_least(self, 0, "warmup", "first_weight")
        at_least(self, 1, "particles")


@objective("expectation-maximization", "likely.training.objectives:ExpectationMaximization")
@dataclasses.dataclass(frozen=True)
class ExpectationSettings:
    """None."""


@objective("subsampled-likelihood", "likely.training.objectives:SubsampledLikelihood")
@dataclasses.dataclass(frozen=True)
class SubsampledSettings:
    """-log p(x) by one alternative per update, for mixtures and networks of several masks."""


@objective("order-agnostic-likelihood", "likely.training.objectives:OrderAgnosticLikelihood")
@dataclasses.dataclass(frozen=True)
class OrderAgnosticSettings:
    """None."""


@objective("negative-elbo", "likely.training.objectives:NegativeELBO")
@dataclasses.dataclass(frozen=True)
class ELBOSettings:
    """Of the negative ELBO.

    Attributes:
        beta: weight of the KL term at the end of the warm-up; 1 is the bound itself.
        warmup: steps over which the weight rises linearly from zero.
        free_nats: KL of a stochastic layer, on average over the batch, that is not penalised.
        gradient: of the encoder: plain, or stl (sticking the landing: without the score of q,
            whose mean is zero).
        encoder_updates: most updates of the encoder alone before each of all networks, on batches
            of their own, until its loss stops falling (aggressive training, He et al. 2019).
        encoder_until: step after which there are none; 0 for the whole fit.
    """

    beta: float = 1.0
    warmup: int = 0
    free_nats: float = 0.0
    gradient: Literal["plain", "stl"] = "plain"
    encoder_updates: int = 0
    encoder_until: int = 0

    def __post_init__(self) -> None:
        typed(self)
        at_least(self, 0, "beta", "warmup", "free_nats", "encoder_updates", "encoder_until")


@objective("reconstruction-error", "likely.training.objectives:ReconstructionError")
@dataclasses.dataclass(frozen=True)
class ReconstructionSettings:
    """None: an autoencoder's loss, noise and penalty are its own settings."""


@objective("code-likelihood", "likely.training.objectives:CodeLikelihood")
@dataclasses.dataclass(frozen=True)
class CodeLikelihoodSettings:
    """Of the fit of a density over codes.

    Attributes:
        autoencoder: whether the autoencoder moves, too, by its reconstruction error.
    """

    autoencoder: bool = False


@objective("importance-weighted", "likely.training.objectives:ImportanceWeighted")
@dataclasses.dataclass(frozen=True)
class ImportanceSettings:
    """Of the importance-weighted bound.

    Attributes:
        k: number of samples.
        gradient: of the encoder: plain, stl (without the score of q, Roeder 2017) or dreg (doubly
            reparameterised, Tucker 2019), whose noise does not grow with k.
    """

    k: int = 5
    gradient: Literal["plain", "stl", "dreg"] = "plain"

    def __post_init__(self) -> None:
        typed(self)
        at_least(self, 1, "k")


@objective("quantised-bound", "likely.training.objectives:QuantisedBound")
@dataclasses.dataclass(frozen=True)
class QuantisedSettings:
    """Of a model with discrete codes.

    Attributes:
        commitment: weight of the squared distances that draw the encoder to its codes.
        rate: weight with which the encoder is drawn to codes that the prior finds likely, at the
            end of the warm-up; 0 in the paper.
        warmup: steps over which that weight rises linearly from zero.
        encoder_steps: updates after which encoder and codes stay as they are, and prior and decoder
            are fitted to the bound alone; 0 for all.
    """

    commitment: float = 0.25
    rate: float = 0.0
    warmup: int = 0
    encoder_steps: int = 0

    def __post_init__(self) -> None:
        typed(self)
        at_least(self, 0, "commitment", "rate", "warmup", "encoder_steps")


@objective("contrastive-divergence", "likely.training.objectives:ContrastiveDivergence")
@dataclasses.dataclass(frozen=True)
class ContrastiveSettings:
    """Of models known up to a constant.

    Attributes:
        k: steps of each Markov chain for an update.
        persistent: whether chains continue from one update to the next; otherwise they start at the
            data.
    """

    k: int = 5
    persistent: bool = True

    def __post_init__(self) -> None:
        typed(self)
        at_least(self, 1, "k")


@dataclasses.dataclass(frozen=True)
class GameSettings:
    """Of every game between a generator and its discriminator D.

    Attributes:
        penalty: gamma of the gradient penalty gamma/2 |grad D|^2, with penalised=between of
            gamma (|grad D| - 1)^2; 0 for none.
        penalised: the images at which D's gradient is penalised: real (R1), generated (R2), both,
            or points between pairs of them.
        first_penalty: gamma of the first update, from which it falls to `penalty`.
        penalty_steps: updates in which it does, by half a cosine in its logarithm; 0 for no fall.
        penalty_every: updates of D from a penalty, weighted as many times, to the next (lazy).
        clip_weights: the largest size of D's weights, which are clipped after its updates; 0
            for any.
        discriminator_updates: updates of D before each one of the generator.
        packing: images of one kind that D judges together.
        augment: differentiable changes of the images that D sees, real and generated alike:
            brightness, saturation, contrast, translation, cutout.
    """

    penalty: float = 0.0
    penalised: Penalised = "real"
    first_penalty: float = 1.0
    penalty_steps: int = 0
    penalty_every: int = 1
    clip_weights: float = 0.0
    discriminator_updates: int = 1
    packing: int = 1
    augment: tuple[Augmentation, ...] = ()

    def __post_init__(self) -> None:
        typed(self)
        at_least(self, 0, "penalty", "clip_weights", "penalty_steps")
        if self.penalty_steps and not self.first_penalty >= self.penalty > 0:
            raise InvalidSetting(
                f"gamma falls from first_penalty to penalty, both above 0: given "
                f"first_penalty={self.first_penalty:g}, penalty={self.penalty:g}"
            )
        at_least(self, 1, "penalty_every", "discriminator_updates", "packing")


@objective("minimax-gan", "likely.training.adversarial:MinimaxGAN")
@dataclasses.dataclass(frozen=True)
class MinimaxSettings(GameSettings):
    """Of the game as it is defined."""


@objective("non-saturating-gan", "likely.training.adversarial:NonSaturatingGAN")
@dataclasses.dataclass(frozen=True)
class NonSaturatingSettings(GameSettings):
    """Of the game as it is played since 2014."""


@objective("least-squares-gan", "likely.training.adversarial:LeastSquaresGAN")
@dataclasses.dataclass(frozen=True)
class LeastSquaresSettings(GameSettings):
    """Of least squares."""


@objective("hinge-gan", "likely.training.adversarial:HingeGAN")
@dataclasses.dataclass(frozen=True)
class HingeSettings(GameSettings):
    """Of the hinge."""


@objective("wasserstein-gan", "likely.training.adversarial:WassersteinGAN")
@dataclasses.dataclass(frozen=True)
class WassersteinSettings(GameSettings):
    """Of the Wasserstein distance: by its gradient penalty, or with penalty=0 by clip_weights."""

    penalty: float = 10.0
    penalised: Penalised = "between"
    discriminator_updates: int = 5


@objective("relativistic-gan", "likely.training.adversarial:RelativisticGAN")
@dataclasses.dataclass(frozen=True)
class RelativisticSettings(GameSettings):
    """Of the relativistic game."""

    penalty: float = 1.0
    penalised: Penalised = "both"
