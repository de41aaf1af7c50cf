"""Codes of given examples: the posterior q(z | x), features, reconstructions.

A code comes from an encoder. A generator has none; the adversary of its fit has activations that
serve as features (Radford, Metz and Chintala 2016, sec. 5.1), https://arxiv.org/abs/1511.06434.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from likely.ask.query import Answer, approximate, exact, no_code, none, query, refusal
from likely.density import (
    Autoregressive,
    EnergyBased,
    ExpectedStatistics,
    Fittable,
    Mixture,
    Posterior,
    SequenceModel,
)
from likely.devices.precision import without_autocast


@runtime_checkable
class Encodes(Protocol):
    """A model with an encoder."""

    def features(self, x: Tensor, context: Tensor | int | None = None) -> Tensor:
        """See `features`."""

    def reconstruct(self, x: Tensor, context: Tensor | int | None = None) -> Tensor:
        """See `reconstruct`."""


@runtime_checkable
class HasPosterior(Protocol):
    """A model whose encoder gives a distribution of codes."""

    def posterior(self, x: Tensor, context: Tensor | None = None) -> Posterior:
        """See `posterior`."""


@runtime_checkable
class Describes(Protocol):
    """A model that gives features of examples."""

    def features(self, x: Tensor, context: Tensor | int | None = None) -> Tensor:
        """See `features`."""


@runtime_checkable
class HasFeatures(Protocol):
    """A network whose activations are features, as the adversary of a GAN."""

    def features(self, x: Tensor) -> Tensor:
        """Activations at floats x in [-1, 1], [B, *shape]; [B, features]."""


def posterior_answer(model: Fittable) -> Answer:
    """Approximate where there is an encoder with a distribution."""
    if isinstance(model, HasPosterior):
        return approximate("q(z|x), the encoder's distribution")
    if isinstance(model, EnergyBased):
        return none("its hidden units are independent given x: their probabilities are features")
    if isinstance(model, Encodes):
        return none("its encoder gives one code and no distribution: ask for features")
    return no_code(model)


def features_answer(model: Fittable, adversary: object = None) -> Answer:
    """The activations of an adversary, or the code where there is an encoder."""
    if isinstance(adversary, HasFeatures):
        return approximate("activations of its adversary, adversary=run.adversary")
    if isinstance(model, SequenceModel):
        return none("its state is one of a step, no code of the whole sequence")
    if isinstance(model, Encodes):
        return approximate(_code(model))
    if isinstance(model, ExpectedStatistics):
        return exact("p(k|x), the probabilities of the components")
    if isinstance(model, Describes):
        return approximate("the mean of p(z|y) where y is in the middle of the cell of x")
    if isinstance(model, Autoregressive | Mixture):
        return none("no hidden unit is a code of the whole x")
    return none(
        "it has no encoder; the adversary of a GAN's run has features, adversary=run.adversary"
    )


def reconstruct_answer(model: Fittable) -> Answer:
    """Decoded from the code where there is an encoder."""
    return approximate(f"decode {_code(model)}") if isinstance(model, Encodes) else no_code(model)


def _code(model: Fittable) -> str:
    if isinstance(model, EnergyBased):
        return "the probabilities p(h = 1 | x)"
    return "the mean of q(z|x)" if isinstance(model, HasPosterior) else "the encoder's code"


@query("posterior over latents", posterior_answer)
def posterior(model: Fittable, x: Tensor, context: Tensor | None = None) -> Posterior:
    """q(z | x), mean and log-scale [B, latent].

    Args:
        model: with an encoder.
        x: integers [B, *shape].
        context: labels int64 [B] or None.

    Raises:
        Unanswerable: a model without an encoder.
    """
    if not isinstance(model, HasPosterior):
        raise refusal(model, posterior_answer(model))
    return model.posterior(x, context)


@query("features", features_answer)
def features(
    model: Fittable,
    x: Tensor,
    context: Tensor | int | None = None,
    *,
    adversary: object = None,
) -> Tensor:
    """Numbers that describe x, for a classifier or a clustering, [B, features].

    Args:
        model: with an encoder or components, or any with an adversary.
        x: integers [B, *shape].
        context: labels, as for `sample`.
        adversary: take the activations of this network, `run.adversary` of a GAN.

    Raises:
        Unanswerable: neither features nor an adversary with features.
    """
    if adversary is None:
        # A network over time has a part of the name, which is no query.
        if isinstance(model, SequenceModel) or not isinstance(model, Describes):
            raise refusal(model, features_answer(model))
        return model.features(x, context)
    if not isinstance(adversary, HasFeatures):
        raise refusal(model, none(f"its adversary, {type(adversary).__name__}, has no features"))
    with torch.no_grad(), without_autocast(model.device):
        return adversary.features(model.scaled(model.integers(x)))


@query("reconstruction", reconstruct_answer)
def reconstruct(model: Fittable, x: Tensor, context: Tensor | int | None = None) -> Tensor:
    """Encode, then decode, int64 [B, *shape].

    Args:
        model: with an encoder.
        x: integers [B, *shape].
        context: labels, as for `sample`.

    Raises:
        Unanswerable: a model without an encoder.
    """
    if not isinstance(model, Encodes):
        raise refusal(model, reconstruct_answer(model))
    return model.reconstruct(x, context)
