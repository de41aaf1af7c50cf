"""Models with discrete codes: is the bound one of the fitted prior and decoder, and a bound?

On a tiny instance log p(x) = log sum_c p(c) p(x | c) is summed over all codes. There the bound lies
below it for every x, and p sums to one over all x.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from likely.density import DiscreteLatent, chunks
from likely.heads import log_likelihood
from likely.verify.drawing import samples_follow
from likely.verify.normalization import from_tables
from likely.verify.proofs import Proof
from likely.verify.subject import (
    Subject,
    all_images,
    few_channels,
    least_levels,
    smaller_or_none,
)

TOLERANCE = 1e-8
MOST_CODES = 5_000
MOST_IMAGES = 300


def prior_of(subject: Subject, model: DiscreteLatent) -> Subject:
    """The prior as a subject, its examples the codes of the probe images."""
    x = model.encode(subject.x, subject.context)
    return dataclasses.replace(subject, model=model.prior, x=x, context=None)


def codes(subject: Subject, model: DiscreteLatent) -> Iterator[Proof]:
    """All checks of the bound."""
    x, labels = subject.x, subject.context
    chosen = model.encode(x, labels)
    off, of_decoder = from_tables(model.head, model.decoder_output(chosen, labels), x)
    _, of_prior = from_tables(model.prior.head, model.prior.conditionals(chosen), chosen)
    expected = of_decoder + of_prior
    yield Proof.at_most(
        "each conditional sums to one (decoder)",
        off,
        TOLERANCE,
        f"Largest |log of the sum over {model.spec.levels} levels|, every dimension of {len(x)} "
        "images.",
    )
    reported = model.elbo(x, subject.noise("elbo"), labels)
    yield Proof.at_most(
        "the bound is of the fitted prior and of the codes",
        float(((reported - expected).abs() / expected.abs().clamp(min=1.0)).max()),
        TOLERANCE,
        f"Largest relative difference between the bound of {len(x)} images and the tables of prior "
        "and decoder at their codes.",
    )
    yield from _on_tiny(subject, model)


def _on_tiny(subject: Subject, model: DiscreteLatent) -> Iterator[Proof]:
    channels = few_channels(model)
    for shape in ((channels, 2, 2), (channels, 1, 2), (channels, 1, 1)):
        levels = least_levels(model) if channels == 1 else 2
        tiny = smaller_or_none(model, shape, levels, subject.seed)
        if tiny is None or levels ** math.prod(shape) > MOST_IMAGES or not listable(tiny[0]):
            continue
        images = all_images(shape, levels)
        labels = subject.labels(len(images), model=tiny[0])
        log_p = log_prob_of_all_codes(tiny[0], images, labels)
        bound = tiny[0].elbo(images, subject.noise("tiny"), labels)
        what = f"all {len(images)} images of {shape}, all codes, fresh weights"
        mass = math.exp(float(log_p.logsumexp(0)))
        yield Proof.at_most(
            "total probability",
            abs(mass - 1.0) if math.isfinite(mass) else math.inf,
            TOLERANCE,
            f"|sum of p(x) - 1|; {what}.",
        )
        yield Proof.at_most(
            "bound <= log p",
            float((bound - log_p).max()),
            TOLERANCE,
            f"Largest excess of the bound over the sum over codes, nats; {what}.",
        )
        yield samples_follow(subject, tiny[0], log_p)
        return
    yield Proof.at_most(
        "total probability",
        math.inf,
        TOLERANCE,
        f"{type(model).__name__} cannot be built for few pixels with at most {MOST_CODES} maps of "
        "codes, so nothing could be summed.",
    )


def listable(model: DiscreteLatent) -> bool:
    """Whether all maps of codes are few enough to list."""
    of_codes = model.prior.spec
    return math.prod([of_codes.levels] * of_codes.dimensions) <= MOST_CODES


def log_prob_of_all_codes(
    model: DiscreteLatent, x: Tensor, context: Tensor | None = None
) -> Tensor:
    """log p(x) by the sum over all maps of codes, nats [B]; see `listable`."""
    every = all_images(model.prior.spec.shape, model.prior.spec.levels)
    total = torch.full((len(x),), -math.inf, dtype=torch.float64)
    for part in chunks(len(every), 64):
        some, n = every[part], len(x)
        labels = None if context is None else context.repeat(len(some))
        parameters = model.decoder_output(some.repeat_interleave(n, 0), labels)
        likelihood = log_likelihood(model.head, parameters, x.repeat(len(some), 1, 1, 1))
        joint = likelihood.view(len(some), n) + model.prior.log_prob(some)[:, None]
        total = torch.logaddexp(total, joint.double().logsumexp(0))
    return total
