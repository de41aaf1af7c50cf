r"""How far the codes of a data set are from what codes are drawn from.

With the aggregate posterior q(z) = E_data q(z|x), what is decoded from p(z) looks like data only
where KL(q(z) || p(z)) is small. It has no closed form. It lies between

- E_q log r(z) - log p(z), for any density r: it is the KL less KL(q || r). Here r is a Gaussian
  with full covariance, fitted to half of the codes and read on the other half;
- KL(q_N || p), the aggregate of N examples in place of q, which is above on average by convexity
  (Hoffman and Johnson 2016, http://approximateinference.org/accepted/HoffmanJohnson2016.pdf).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from likely.ask.encode import features
from likely.data.spec import Dataset
from likely.density import (
    DiagonalGaussian,
    EncoderDecoder,
    Fittable,
    LatentVariable,
    StandardNormal,
    chunks,
    condition_of,
    reading_of,
)
from likely.devices.precision import without_autocast
from likely.errors import InvalidData
from likely.estimate import Estimate, Relation
from likely.nn.codes import FullGaussian
from likely.noise import Noise

# Nats below which codes of data and codes that are drawn are taken for alike.
CLOSE = 2.0
LIMIT = 1000
STANDARD = "N(0, I)"
# Examples below which nothing is said.
FEWEST = 20
ROWS = 64


@dataclasses.dataclass(frozen=True)
class PriorGap:
    """KL(q(z) || p(z)) between two bounds.

    Attributes:
        lower: nats; `>=` in the relation. Never below 0.
        upper: nats, `<=`; None where the encoder gives one code and no distribution.
        prior: p(z) in words.
        fitted: whether it was fitted to codes.
    """

    lower: Estimate
    upper: Estimate | None
    prior: str
    fitted: bool

    @property
    def answer(self) -> str:
        """What that means for codes that are drawn, in words."""
        if self.lower.value > CLOSE:
            ending = "may decode to noise" if self.lower.value > 10 * CLOSE else "may decode badly"
            remedy = (
                "take another density, or more updates of it"
                if self.fitted
                else "give the codes a density, `likely prior RUN`"
            )
            return (
                f"codes drawn from {self.prior} are not where the codes of data are and {ending}: "
                f"{remedy}"
            )
        if self.upper is None or self.upper.value > CLOSE:
            return f"codes drawn from {self.prior} may be where the codes of data are"
        return f"codes drawn from {self.prior} are where the codes of data are"

    def __str__(self) -> str:
        above = "" if self.upper is None else f" and <= {self.upper.value:.3g}"
        return f"KL(q(z) || p(z)) >= {self.lower.value:.3g}{above} nats: {self.answer}"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        upper = None if self.upper is None else self.upper.to_json()
        record = {"lower": self.lower.to_json(), "upper": upper}
        return {**record, "prior": self.prior, "answer": self.answer}


@torch.no_grad()
def prior_gap(model: Fittable, data: Dataset, *, seed: int = 0, limit: int = LIMIT) -> PriorGap:
    """KL(q(z) || p(z)) of a model with codes; of a plain autoencoder against N(0, I).

    Args:
        model: with an encoder.
        data: whose codes are meant.
        seed: of codes that are drawn.
        limit: examples that are read, at most.

    Raises:
        Unanswerable: a model without an encoder.
        InvalidData: fewer than `FEWEST` examples.
    """
    if len(data) < FEWEST:
        raise InvalidData(
            f"{len(data)} examples say too little about their codes; give at least {FEWEST}"
        )
    step = max(1, -(-len(data) // limit))
    part = data.take(np.arange(0, len(data), step))
    codes, posteriors = [], []
    with without_autocast(model.device):
        for rows, x, context in reading_of(model, part, ROWS):
            if isinstance(model, LatentVariable):
                q = model.posterior(x, context)
                noise = Noise("prior gap", seed, rows.start, device=model.device)
                codes.append(q.sample(noise.normal(*q.mean.shape, dtype=q.mean.dtype)))
                posteriors.append(q)
            else:
                codes.append(features(model, x, context))
        z = torch.cat(codes)
        log_prior, name = _prior(model)
        expected = torch.cat([log_prior(z[rows]) for rows in chunks(len(z), ROWS)]).double()
    exact = z.double().cpu()
    lower = _read_on_the_other_half(exact) - expected.cpu()
    gaussian = all(isinstance(q, DiagonalGaussian) for q in posteriors) and bool(posteriors)
    upper = None
    if gaussian:
        mean = torch.cat([q.mean for q in posteriors]).double().cpu()
        log_scale = torch.cat([q.log_scale for q in posteriors]).double().cpu()
        every = DiagonalGaussian(mean, log_scale)
        aggregate = torch.cat(
            [every.log_prob(exact[rows, None]).logsumexp(1) for rows in chunks(len(exact), ROWS)]
        )
        above = aggregate - math.log(len(exact)) - expected.cpu()
        upper = _estimate(above, Relation.UPPER, part, model)
    bound = _estimate(lower, Relation.LOWER, part, model)
    bound = dataclasses.replace(bound, value=max(0.0, bound.value))
    return PriorGap(bound, upper, name, name != STANDARD)


def _prior(model: Fittable) -> tuple[Callable[[Tensor], Tensor], str]:
    """log p(z), and p in words."""
    if isinstance(model, LatentVariable):
        standard = isinstance(model.prior, StandardNormal)
        return model.prior.log_prob, STANDARD if standard else "the learned prior"
    density = getattr(model, "code_density", None)
    if density is not None:
        return density.log_prob, "the density of the codes"
    assert isinstance(model, EncoderDecoder)
    return StandardNormal(model.latent).log_prob, STANDARD


def _read_on_the_other_half(z: Tensor) -> Tensor:
    """log r(z) of each code, r a Gaussian fitted to the codes of the other half, [N]."""
    values = torch.empty(len(z), dtype=torch.float64)
    for half in (0, 1):
        gaussian = FullGaussian(z.shape[1]).double()
        gaussian.start_at(z[1 - half :: 2])
        values[half::2] = gaussian.log_prob(z[half::2])
    return values


def _estimate(values: Tensor, relation: Relation, data: Dataset, model: Fittable) -> Estimate:
    return Estimate.mean_of(
        values.tolist(),
        unit="nats",
        relation=relation,
        quantity="prior-gap",
        fingerprint=data.fingerprint_given(condition_of(model)),
        lower_is_better=True,
    )
