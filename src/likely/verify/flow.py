"""Invertible maps: is the inverse one, and is the log-determinant that of the Jacobian?"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.autograd.functional import jacobian

from likely.density import LatentVariable
from likely.nn.flow import Bijection, FlowDensity, FlowPosterior
from likely.verify.proofs import Proof
from likely.verify.subject import Subject

TOLERANCE = 1e-6
EXAMPLES = 2


def maps(subject: Subject, model: LatentVariable) -> Iterator[Proof]:
    """The checks of each flow in a latent-variable model, with the fitted weights."""
    prior, q = model.prior, model.posterior(subject.x[:EXAMPLES], subject.labels(EXAMPLES))
    if isinstance(prior, FlowDensity):
        z = model.latents(subject.noise("flow"), EXAMPLES)
        yield from checked("prior", prior.flow, z, [None] * EXAMPLES)
    if isinstance(q, FlowPosterior):
        e = q.base.sample(subject.noise("flow").normal(*q.mean.shape, dtype=q.mean.dtype))
        yield from checked("posterior", q.flow, e, list(q.context))


def checked(
    whose: str, flow: Bijection, z: Tensor, contexts: list[Tensor] | list[None]
) -> Iterator[Proof]:
    """The inverse and the log-determinant at some points [B, ...], by automatic differentiation."""
    worst_inverse = worst_log_det = 0.0
    for row, context in zip(z, contexts, strict=True):
        batch, h = row[None], None if context is None else context[None]
        u, log_det = flow(batch, h)
        back, log_det_back = flow.inverse(u, h)
        size = float(batch.abs().max().clamp(min=1.0))
        worst_inverse = _worse(worst_inverse, float((back - batch).abs().max()) / size)
        worst_log_det = _worse(worst_log_det, float((log_det + log_det_back).abs().max()))
        with torch.enable_grad():
            slopes: Tensor = jacobian(lambda v, h=h: flow(v, h)[0], batch)  # type: ignore[no-untyped-call]
        square = slopes.reshape(row.numel(), row.numel())
        expected = torch.linalg.slogdet(square)[1]
        worst_log_det = _worse(worst_log_det, float((log_det - expected).abs().max()))
    yield Proof.at_most(
        f"the {whose}'s flow is inverted",
        worst_inverse,
        TOLERANCE,
        f"Largest |f^-1(f(z)) - z| at {len(z)} points, relative to z.",
    )
    yield Proof.at_most(
        f"the {whose}'s log-determinant is that of its Jacobian",
        worst_log_det,
        TOLERANCE,
        f"Largest difference from the Jacobian by automatic differentiation at {len(z)} points, "
        "and between the two directions; nats.",
    )


def _worse(worst: float, value: float) -> float:
    return max(worst, value) if value == value else math.inf
