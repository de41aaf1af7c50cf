"""Invertible maps: is the inverse one, and is the log-determinant that of the Jacobian?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.autograd.functional import jacobian

from likely.density import Dequantized, LatentVariable
from likely.nn.flow import Bijection, FlowDensity, FlowPosterior
from likely.noise import Noise
from likely.verify.proofs import Proof
from likely.verify.subject import Subject, all_images, smaller_or_none

TOLERANCE = 1e-6
EXAMPLES = 2
# Dimensions up to which a Jacobian is computed.
MOST_DIMENSIONS = 128
SAMPLES = 20_000
SIGMAS = 5.0
# Points to a side of a cell, and the logits of its first and last one.
POINTS, FARTHEST = 96, 14.0


def maps(subject: Subject, model: LatentVariable) -> Iterator[Proof]:
    """The checks of each flow in a latent-variable model, with the fitted weights."""
    prior, q = model.prior, model.posterior(subject.x[:EXAMPLES], subject.labels(EXAMPLES))
    if isinstance(prior, FlowDensity):
        z = model.latents(subject.noise("flow"), EXAMPLES)
        yield from checked("prior", prior.flow, z, [None] * EXAMPLES)
    if isinstance(q, FlowPosterior):
        e = q.base.sample(subject.noise("flow").normal(*q.mean.shape, dtype=q.mean.dtype))
        yield from checked("posterior", q.flow, e, list(q.context))


def dequantised(subject: Subject, model: Dequantized) -> Iterator[Proof]:
    """The checks of a density of x + u: its flows, and on two dimensions its samples."""
    levels = 2
    tiny = smaller_or_none(model, (1, 1, 2), levels, subject.seed)
    small = model
    if model.spec.dimensions > MOST_DIMENSIONS:
        fewer = smaller_or_none(model, (model.spec.shape[0], 4, 4), model.spec.levels, subject.seed)
        small = model if fewer is None else fewer[0]
    for flow in (module for module in small.modules() if isinstance(module, FlowDensity)):
        noise = subject.noise("flow")
        z = flow.sample(noise, EXAMPLES, torch.float64)
        yield from checked("density", flow.flow, z, [None] * EXAMPLES)
    yield _dequantiser(subject, small)
    if tiny is None:
        about = f"{type(model).__name__} cannot be built for two pixels."
        yield Proof.at_most("samples follow the density", math.inf, SIGMAS, about)
        return
    if any(isinstance(module, FlowDensity) for module in small.modules()):
        yield _density_of_draws(subject, tiny[0])
    yield _as_often(subject, tiny[0])


def _as_often(subject: Subject, tiny: Dequantized) -> Proof:
    """Samples in the cell of each image against the integral of the density over it."""
    images = all_images(tiny.spec.grid, tiny.spec.levels)
    u, weight = cell_grid()
    drawn = tiny.real(subject.noise("real"), SAMPLES, None).floor()
    worst = 0.0
    for x in images:
        p = float((tiny.log_density(x + u).exp() * weight).sum())
        share = float((drawn == x).flatten(1).all(1).double().mean())
        error = math.sqrt(max(p * (1 - p), 1 / SAMPLES) / SAMPLES)
        worst = _worse(worst, abs(share - p) / error)
    return Proof.at_most(
        "samples follow the density",
        worst,
        SIGMAS,
        f"Share of {SAMPLES} draws in the cell of each of {len(images)} images of two pixels "
        "against the integral there, fresh weights; standard errors.",
    )


class _Held(Noise):
    """Numbers that are decided, in place of those that are drawn; differentiable."""

    def __init__(self, numbers: Tensor) -> None:
        super().__init__("held")
        self.numbers, self.log_density = numbers, torch.zeros(())

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        return self.numbers.reshape(shape)

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        self.log_density = -0.5 * (self.numbers.square() + math.log(2 * math.pi)).sum()
        return self.numbers.reshape(shape)


def _dequantiser(subject: Subject, model: Dequantized) -> Proof:
    """log q(u | x) against the Jacobian of u, a function of the noise that it is drawn from."""
    uniform = subject.noise("u").uniform(EXAMPLES, model.spec.dimensions)
    levels = torch.arange(EXAMPLES).reshape(-1, 1, 1, 1) % model.spec.levels
    worst = 0.0
    for x, numbers in zip(levels.expand(-1, *model.spec.grid), uniform, strict=True):

        def place(noise: Noise, x: Tensor = x) -> Tensor:
            return model.dequantizer.draw(x[None], noise, torch.float64)[0]

        log_q = model.dequantizer.draw(x[None], _Held(numbers), torch.float64)[1]
        expected = _by_jacobian(place, numbers)[1]
        worst = _worse(worst, float((log_q - expected).abs().max()))
    return Proof.at_most(
        "the dequantiser's log q is that of its draw",
        worst,
        TOLERANCE,
        f"Largest difference from the density of the noise over the Jacobian of u, by automatic "
        f"differentiation, for {EXAMPLES} constant images; nats.",
    )


def _density_of_draws(subject: Subject, model: Dequantized) -> Proof:
    """log p(y) against the Jacobian of y, a function of the noise that it is drawn from."""
    normal = subject.noise("y").normal(512, model.spec.dimensions, dtype=torch.float64)
    # At an end of the levels a logit has lost its digits: the draws that stay farthest inside.
    y = model.real(_Held(normal), len(normal), None).flatten(1)
    inside = (y - model.spec.levels / 2).abs().amax(1).argsort()
    worst = 0.0
    for numbers in normal[inside[:EXAMPLES]]:
        y, expected = _by_jacobian(lambda noise: model.real(noise, 1, None), numbers)
        worst = _worse(worst, float((model.log_density(y) - expected).abs().max()))
    return Proof.at_most(
        "the density is that of its draws",
        worst,
        TOLERANCE,
        f"Largest difference of log p(y) from the density of the noise over the Jacobian of y, by "
        f"automatic differentiation, for {EXAMPLES} draws of two pixels, fresh weights; nats.",
    )


def _by_jacobian(draw: Callable[[Noise], Tensor], numbers: Tensor) -> tuple[Tensor, Tensor]:
    """(what is drawn at these numbers [D], its log density in nats by change of variables)."""
    noise = _Held(numbers)
    drawn = draw(noise)
    with torch.enable_grad():
        slopes: Tensor = jacobian(lambda v: draw(_Held(v)).flatten(), numbers)  # type: ignore[no-untyped-call]
    return drawn, noise.log_density - torch.linalg.slogdet(slopes)[1]


def cell_grid() -> tuple[Tensor, Tensor]:
    """Points u in the cell of an image of two pixels, [P, 1, 1, 2], and their weights [P].

    The trapezoidal rule in the logit of u: dense at the ends, where first maps may be steep.
    """
    logit = torch.linspace(-FARTHEST, FARTHEST, POINTS, dtype=torch.float64)
    line = logit.sigmoid()
    width = line * (1 - line) * (logit[1] - logit[0])
    weight = torch.cartesian_prod(width, width).prod(1)
    return torch.cartesian_prod(line, line).reshape(-1, 1, 1, 2), weight


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
