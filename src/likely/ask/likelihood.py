"""log p(x): exact, a lower bound, or none.

A lower bound on the log-likelihood is an upper bound on the reported -log p(x).

Sources: Kingma and Welling 2014 (eqs. 2, 3), https://arxiv.org/abs/1312.6114; Burda, Grosse and
Salakhutdinov 2016 (eq. 8), https://arxiv.org/abs/1509.00519.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from likely.ask.query import Answer, Guarantee, exact, none, query, refusal
from likely.density import (
    ApproximateDensity,
    Autoregressive,
    Dequantized,
    DiscreteLatent,
    EnergyBased,
    ExpectedStatistics,
    Fittable,
    LatentSequence,
    Mixture,
    SequenceDensity,
    TractableDensity,
    no_density,
)
from likely.devices.precision import without_autocast
from likely.errors import InvalidSetting
from likely.estimate import Relation
from likely.noise import Noise

# Temperatures and chains behind log Z: of a number that is reported, and of a validation in a fit.
LONG, QUICK = (10_000, 100), (1_000, 50)


@runtime_checkable
class Tightens(Protocol):
    """A bound that tightens with the number of importance samples."""

    def importance_bound(
        self, x: Tensor, k: int, noise: Noise, context: Tensor | None = None
    ) -> Tensor:
        """L_k in nats, [B]."""


@dataclasses.dataclass(frozen=True)
class Measure:
    """How the likelihood of a batch is computed.

    Attributes:
        log_prob: of (integers x [B, *shape], noise of the latents, context); nats [B].
        relation: of -log p(x) to the truth: EXACT, UPPER for a bound, LOWER where log Z is too low.
        about: how, in words.
        shared_error: standard error of what all examples share, nats.
    """

    log_prob: Callable[[Tensor, Noise, Tensor | None], Tensor]
    relation: Relation
    about: str
    shared_error: float = 0.0


def answer(model: Fittable) -> Answer:
    """Exact for a tractable density, a bound for an approximate one."""
    if isinstance(model, ApproximateDensity):
        if isinstance(model, LatentSequence):
            why = "p(x) is an integral over the latents of all steps; ELBO and FIVO bound it"
            return Answer(Guarantee.BOUND, why)
        if isinstance(model, Dequantized):
            why = "the density of x + u, u in [0, 1), is exact, and its mean log bounds log P(x)"
            return Answer(Guarantee.BOUND, why)
        if isinstance(model, DiscreteLatent):
            return Answer(
                Guarantee.BOUND, "p(x) is a sum over all codes; the term of one bounds it"
            )
        bounds = "ELBO and L_k bound it" if isinstance(model, Tightens) else "its ELBO bounds it"
        return Answer(Guarantee.BOUND, f"p(x) is an integral over z; {bounds}")
    if isinstance(model, EnergyBased):
        if model.is_summed:
            return exact("log Z is a sum over all states of the hidden units")
        return Answer(
            Guarantee.BOUND, "log Z is annealed, too low in expectation: log p(x) is too high"
        )
    if not isinstance(model, TractableDensity):
        return none(no_density(model))
    if isinstance(model, Autoregressive):
        return exact("the chain rule: a sum of log-conditionals")
    if isinstance(model, SequenceDensity):
        return exact("the chain rule over time: a sum of log-conditionals, every step scored")
    if isinstance(model, Mixture):
        return exact("the log of the mean of the members' densities")
    if isinstance(model, ExpectedStatistics):
        return exact("a sum over the components")
    return exact("its density has a closed form")


def tells_weights_apart(model: Fittable) -> bool:
    """Whether a validation of this model tells which weights of one fit are better.

    A log Z that is annealed again for each errs by more than they differ.
    """
    return not isinstance(model, EnergyBased) or model.is_summed


def relation_of(model: Fittable) -> Relation:
    """How negative log-likelihoods of the model relate to the truth."""
    if answer(model).guarantee is not Guarantee.BOUND:
        return Relation.EXACT
    return Relation.LOWER if isinstance(model, EnergyBased) else Relation.UPPER


def has_likelihood(model: Fittable) -> bool:
    """Whether the model has a likelihood at all."""
    return answer(model).guarantee is not Guarantee.NONE


def measure_of(
    model: Fittable, importance_samples: int | None = None, seed: int = 0, *, quick: bool = False
) -> Measure:
    """How a model's likelihood is computed; arguments and errors as for `likelihood`.

    What all examples share (log Z) is computed here, from few chains where `quick`.
    """
    k = importance_samples
    if k is not None and k < 1:
        raise InvalidSetting(f"importance_samples must be at least 1, given {k}")
    if isinstance(model, TractableDensity):
        return Measure(lambda x, _, context: model.log_prob(x, context), Relation.EXACT, "exact")
    if isinstance(model, EnergyBased):
        temperatures, chains = QUICK if quick else LONG
        noise = Noise("partition", seed, device=model.device)
        log_z = model.log_partition(noise, temperatures=temperatures, chains=chains)
        return Measure(
            lambda x, _, context: -model.free_energy(x, context) - log_z.value,
            relation_of(model),
            str(log_z),
            log_z.standard_error,
        )
    if not isinstance(model, ApproximateDensity):
        raise refusal(model, answer(model))
    if k is None:
        about = "ELBO, one latent an example"
        if isinstance(model, Dequantized):
            about = f"{model.dequantizer.about}, one draw an example"
        if isinstance(model, DiscreteLatent):
            about = "log p(c) + log p(x | c), one code an example, fitted prior"
        return Measure(model.elbo, Relation.UPPER, about)
    if isinstance(model, LatentSequence):
        return Measure(
            lambda x, noise, context: model.fivo(x, noise, context, k),
            Relation.UPPER, f"FIVO, a particle filter of {k} particles",
        )  # fmt: skip
    if not isinstance(model, Tightens):
        raise InvalidSetting(
            f"{type(model).__name__} has no importance-weighted bound; leave out "
            "importance_samples for its ELBO"
        )
    return Measure(
        lambda x, noise, context: model.importance_bound(x, k, noise, context),
        Relation.UPPER,
        f"importance-weighted bound, k = {k}",
    )


@query("log-likelihood", answer)
@torch.no_grad()
def likelihood(
    model: Fittable,
    x: Tensor,
    context: Tensor | None = None,
    *,
    importance_samples: int | None = None,
    seed: int = 0,
) -> Tensor:
    """log p(x | context), or a lower bound on it, nats [B].

    `likely.nats` makes an estimate of a whole data set from it, with proofs.

    Args:
        model: explicit.
        x: integers [B, *shape].
        context: labels int64 [B], floats [B, *context_shape], or None.
        importance_samples: k of the importance-weighted bound; the ELBO when None. A tractable
            density ignores it, so that one call serves a comparison.
        seed: of the latents of an approximate density, and of the chains behind log Z.

    Raises:
        Unanswerable: an implicit density.
        InvalidSetting: k < 1, or a model without an importance-weighted bound.
    """
    measure = measure_of(model, importance_samples, seed)
    with without_autocast(model.device):
        return measure.log_prob(x, Noise("likelihood", seed, device=model.device), context)
