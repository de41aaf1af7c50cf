"""The unobserved pixels or steps, drawn from p(rest | observed), whichever they are."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from likely.ask.query import Answer, approximate, exact, no_conditionals, none, query, refusal
from likely.data.sequences.spec import MISSING
from likely.density import (
    PARTICLES,
    Autoregressive,
    AutoregressiveLikelihood,
    Completions,
    ExpectedStatistics,
    FillsGaps,
    Fittable,
    LatentVariable,
    Mixture,
    OrderAgnostic,
    SequenceDensity,
    TractableDensity,
)
from likely.density.completion import HasCompletions, Way
from likely.density.completion.agnostic import agnostic_completions
from likely.density.sequence.gaps import is_forecast
from likely.estimate import Estimate, Relation
from likely.noise import Noise

BY_PARTICLES = "sequential Monte Carlo along the model's order; the error falls with particles"


@runtime_checkable
class Completes(Protocol):
    """A model that answers."""

    def complete(
        self, x: Tensor, observed: Tensor, *, seed: int = 0, context: Tensor | int | None = None
    ) -> Tensor:
        """See `complete`; `method` and `particles` where the model has several ways."""


def answer(model: Fittable, observed: Tensor | None = None) -> Answer:
    """What a completion is worth.

    Args:
        model: any.
        observed: bool [H, W] ([D] for vectors; [T] or [T, K] for sequences); by default what can be
            said of all masks.
    """
    if isinstance(model, SequenceDensity):
        return _of_gaps(model, observed)
    if isinstance(model, ExpectedStatistics):
        return exact("a component from p(k | observed), whichever pixels are observed")
    if isinstance(model, LatentVariable):
        given_z = model.likelihood_given_z
        if isinstance(given_z, AutoregressiveLikelihood):
            if observed is not None and given_z.network.known_ranks(model.mask(observed)) is None:
                return none(
                    "p(observed | z) needs the observed pixels first in the decoder's order"
                )
            return approximate(
                "where the observed pixels come first in the decoder's order: codes resampled by "
                "p(observed | z)"
            )
        return approximate("codes from prior and encoder, resampled by p(observed | z)")
    if isinstance(model, Autoregressive | Mixture):
        return _of_orders(model, None if observed is None else model.mask(observed))
    if isinstance(model, Completes):
        return exact("as the model itself says")
    return no_conditionals(model, "p(unobserved | observed)")


def _of_orders(model: Autoregressive | Mixture, mask: Tensor | None) -> Answer:
    members = model.members() if isinstance(model, Mixture) else [model]
    agnostic = isinstance(model, OrderAgnostic)
    first = [mask is None or member.known_ranks(mask) is not None for member in members]
    if agnostic and (mask is None or not any(first)):
        return exact("in the order that begins with what is observed, whichever pixels they are")
    if not any(first):
        return approximate(BY_PARTICLES)
    if not isinstance(model, Mixture):
        says = "the observed pixels come first in the model's order"
        if mask is not None:
            return exact(says)
        return exact(
            "where the observed pixels come first in the model's order, as the top rows; for "
            "other masks approximate, by sequential Monte Carlo"
        )
    whose = "all members" if all(first) else "the members"
    says = (
        f"a member from p(k | observed), of {whose} in whose order the observed pixels come first"
    )
    return exact(says if mask is not None else f"{says}; else approximate, sequential Monte Carlo")


def _of_gaps(model: SequenceDensity, observed: Tensor | None) -> Answer:
    if isinstance(model, FillsGaps):
        return exact(f"{model.fills_by}, whatever is missing")
    if observed is not None and is_forecast(observed[None]):
        return exact("ancestral draws: nothing that is observed comes after the gap")
    return approximate(
        "sequential Monte Carlo over time; exact where the gap is at the end, a forecast"
    )


@query("completion", answer)
def complete(
    model: Fittable,
    x: Tensor,
    observed: Tensor,
    *,
    seed: int = 0,
    context: Tensor | int | None = None,
    method: str = "auto",
    particles: int = PARTICLES,
) -> Tensor:
    """Draw the unobserved pixels from p(rest | observed); the observed ones are kept.

    Args:
        model: a chain rule, a mixture, or a model with latent variables.
        x: integers [B, *shape]; unobserved values are ignored. Sequences are [B, T, K], without
            padding, and what is `MISSING` in them is unobserved, too.
        observed: bool [H, W] ([D] for vectors; [T], [T, K] or [B, T, K] for sequences).
        seed: of the noise.
        context: labels, as for `sample`.
        method: "auto" is the best that the model has for these pixels; "exact" is that or nothing;
            "smc" and "gibbs" of a chain rule, "importance" and "hmc" of a model with latent
            variables.
        particles: of each image, where the answer is approximate.

    Returns:
        int64, of the shape of x.

    Raises:
        Unanswerable: a model that cannot, or pixels for which method "exact" cannot.
        InvalidSetting: a method that the model does not have.
    """
    if not isinstance(model, Completes):
        raise refusal(model, answer(model))
    ways = {"method": method, "particles": particles}
    plain = {"method": "auto", "particles": PARTICLES}
    changed = {name: value for name, value in ways.items() if value != plain[name]}
    return model.complete(x, observed, seed=seed, context=context, **changed)


def completions(
    model: Fittable,
    x: Tensor,
    observed: Tensor,
    n: int = 1,
    *,
    seed: int = 0,
    context: Tensor | int | None = None,
    method: str = "auto",
    particles: int = PARTICLES,
) -> Completions:
    """n draws of the rest of every image, log p(observed), and what they are worth.

    Args:
        model, x, observed, seed, context, method, particles: as for `complete`.
        n: draws of each image.

    Raises:
        Unanswerable, InvalidSetting: as for `complete`.
    """
    if not isinstance(model, HasCompletions | SequenceDensity):
        raise refusal(model, answer(model))
    return model.completions(
        x, observed, n, seed=seed, context=context, method=method, particles=particles
    )


@torch.no_grad()
def completed_nats(
    model: Fittable,
    x: Tensor,
    observed: Tensor,
    drawn: Completions,
    *,
    context: Tensor | int | None = None,
    fingerprint: str = "",
) -> tuple[Estimate, ...]:
    """-log p of the observed part, of the missing one given it, and of the whole, in nats; of
    sequences with continuous columns nats of a density.

    Where -log p(observed) is an upper bound in expectation, what is left of an exact -log p(x) is a
    lower one. Of two bounds the difference bounds nothing: then the middle one is left out. The
    first alone is there where the truth itself is not known, as a value that a sequence lacks, or
    where a step that is given and not scored is not observed whole.

    Args:
        model: that completed.
        x: the true images, integers [B, *shape].
        observed: as it was given to `completions`.
        drawn: what that returned.
        context: as it was given.
        fingerprint: of the data that x is of.
    """
    first = -drawn.log_observed
    if isinstance(model, SequenceDensity):
        seen = (observed[:, None] if observed.ndim == 1 else observed).to(x.device)
        first = first + _log_volume(model, (x >= 0) & seen)
    parts = [("nll-observed", "-log p(observed)", first, drawn.relation)]
    if isinstance(model, SequenceDensity):
        if not bool(((x <= MISSING) | ((x <= -2) & ~seen)).any()):
            total = _log_volume(model, x >= 0) - model.log_prob(x, context)
            parts += _of_rest(first, total, drawn)
    elif isinstance(model, LatentVariable):
        labels = model.labels(context, len(x))
        noise = Noise("completed", 0, device=model.device)
        bound = model.importance_bound(x, max(1, drawn.particles), noise, labels)
        parts.append(("nll", "-log p(whole)", -bound, Relation.UPPER))
    else:
        labels, mask = model.labels(context, len(x)), model.mask(observed)
        parts += _of_rest(first, -_log_whole(model, model.integers(x), mask, drawn, labels), drawn)
    return tuple(
        Estimate.mean_of(
            values.double().tolist(),
            unit="nats",
            relation=relation,
            quantity=quantity,
            fingerprint=fingerprint,
            about=about,
        )
        for quantity, about, values, relation in parts
    )


def _log_volume(model: SequenceDensity, counted: Tensor) -> Tensor:
    """Of the values [B, T, K] that count, float64 [B]; see `SequenceSpec.log_volume`."""
    volume = model.spec.log_volume(counted.cpu().numpy()).sum(1)
    return torch.from_numpy(volume).to(model.device)


def _of_rest(
    first: Tensor, total: Tensor, drawn: Completions
) -> list[tuple[str, str, Tensor, Relation]]:
    relation = Relation.LOWER if drawn.relation is Relation.UPPER else drawn.relation
    return [("nll-missing", "-log p(missing | observed)", total - first, relation),
            ("nll", "-log p(whole)", total, Relation.EXACT)]  # fmt: skip


def _log_whole(
    model: Fittable, x: Tensor, mask: Tensor, drawn: Completions, labels: Tensor | None
) -> Tensor:
    """log p(x) by the density that the draws are of, nats [B]."""
    if drawn.rank is not None:
        assert isinstance(model, Autoregressive | Mixture)
        everything = torch.ones_like(mask)
        return agnostic_completions(
            model, x, everything, drawn.rank, Way(context=labels)
        ).log_observed
    if isinstance(model, Mixture) and drawn.exact:
        members = [m for m in model.members() if m.known_ranks(mask) is not None]
        logs = torch.stack([member.log_prob(x, labels).double() for member in members])
        return logs.logsumexp(0) - math.log(len(members))
    assert isinstance(model, TractableDensity)
    return model.log_prob(x, labels).double()
