r"""Latent-variable models: is the bound a bound, and the KL term a KL?

On a tiny instance with one latent coordinate, p(x) = integral p(x|z) N(z; 0, 1) dz is computed
by the trapezoidal rule, and so is the exact ELBO. There, in expectation,

    ELBO <= L_k <= log p(x),      E[exp(L_k)] = p(x),      sum over all x of p(x) = 1

(Burda et al. 2016, Theorem 1). Comparisons of random estimates are in standard errors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from likely.density import DiagonalGaussian, LatentVariable
from likely.verify.proofs import Proof
from likely.verify.subject import Subject, all_images, least_levels, smaller_or_none, work_of

DRAWS = 400
MOST_IMAGES = 128
SIGMAS = 6.0  # for the largest of up to 128 numbers: by chance less than once in a million
TOTAL_TOLERANCE = 1e-8


def bounds(subject: Subject, model: LatentVariable) -> Iterator[Proof]:
    """All checks of the bounds of a latent-variable model."""
    yield _kl_formula(subject, model)
    yield _ordered_on_fitted(subject, model)
    for shape in ((model.spec.shape[0], 2, 2), (model.spec.shape[0], 1, 2)):
        levels = least_levels(model) if model.spec.shape[0] == 1 else 2
        if levels ** math.prod(shape) > MOST_IMAGES:
            continue
        tiny = _widest(subject, model, shape, levels)
        if tiny is not None:
            yield from _on_tiny(subject, tiny)
            return
    yield Proof.at_most(
        "total probability",
        math.inf,
        TOTAL_TOLERANCE,
        f"{type(model).__name__} cannot be built for images of few pixels and one latent "
        "coordinate, so nothing could be integrated.",
    )


def _widest(
    subject: Subject, model: LatentVariable, shape: tuple[int, ...], levels: int
) -> LatentVariable | None:
    """Of a few fresh tiny instances the one whose posteriors are wide most often.

    Importance weights have a finite variance only where q is wide enough, and without one their
    mean over a few hundred draws says nothing.
    """
    best, share = None, -1.0
    images = all_images(shape, levels)
    for attempt in range(8):
        smaller = smaller_or_none(model, shape, levels, subject.seed + attempt, latent=1)
        if smaller is None:
            return None
        tiny = smaller[0]
        wide = _is_wide(tiny.posterior(images, subject.labels(len(images)))).double()
        if float(wide.mean()) > share:
            best, share = tiny, float(wide.mean())
    return best


def _is_wide(q: DiagonalGaussian) -> Tensor:
    """Whether each q(z|x) is about as wide as the prior or wider, bool [B].

    With p(z|x) as wide as the prior the variance is finite from a scale of 0.71 on; a much
    wider q wastes its draws.
    """
    scale = q.log_scale[:, 0].exp()
    return (scale > 0.8) & (scale < 3.0)


def _kl_formula(subject: Subject, model: LatentVariable) -> Proof:
    """The KL in the model's own ELBO against the mean of log q(z|x) - log p(z), z ~ q."""
    x, labels = subject.x, subject.labels(len(subject.x))
    _, reported = model.elbo_terms(x, subject.noise("kl"), labels)
    q = model.posterior(x, labels)
    draws = 4000
    z = q.mean + q.log_scale.exp() * subject.noise("kl draws").normal(
        draws, *q.mean.shape, dtype=torch.float64
    )  # [S, B, Z]
    zero = torch.zeros_like(q.mean)
    ratio = q.log_prob(z) - DiagonalGaussian(zero, zero).log_prob(z)  # [S, B]
    return Proof.at_most(
        "the KL term is a KL",
        _largest_z(ratio - reported.sum(-1)),
        SIGMAS,
        f"Closed form against {draws} draws for {len(x)} images, fitted weights; standard errors.",
    )


def _ordered_on_fitted(subject: Subject, model: LatentVariable) -> Proof:
    """ELBO <= L_k in expectation, on the fitted weights."""
    k = 8
    x, labels = subject.x, subject.labels(len(subject.x))
    draws = 4 if subject.quick else 16
    heavy = work_of(model, len(x) * k * draws) * max(1, math.prod(model.spec.shape[1:]) / 4)
    draws = 4 if heavy > 1e12 else draws
    elbo = torch.stack([model.elbo(x, subject.noise("elbo", i), labels) for i in range(draws)])
    bound = torch.stack(
        [model.importance_bound(x, k, subject.noise("bound", i), labels) for i in range(draws)]
    )
    return Proof.at_most(
        "ELBO <= importance bound (fitted weights)",
        _z((elbo - bound).mean(1)),
        SIGMAS,
        f"Mean excess of the ELBO over L_{k} on {len(x)} images, {draws} draws; standard errors.",
    )


def _on_tiny(subject: Subject, tiny: LatentVariable) -> Iterator[Proof]:
    images = all_images(tiny.spec.shape, tiny.spec.levels)
    worst_total = worst_elbo = worst_unbiased = 0.0
    elbo_over_bound = bound_over_truth = -math.inf
    for label in sorted({0, max(0, tiny.classes - 1)}):
        labels = subject.labels(len(images), label)
        log_p, exact_elbo = _quadrature(subject, tiny, images, label)
        mass = math.exp(float(log_p.logsumexp(0)))
        worst_total = max(worst_total, abs(mass - 1.0) if math.isfinite(mass) else math.inf)
        wide = images.repeat(DRAWS, *[1] * (images.ndim - 1))
        wide_labels = subject.labels(len(wide), label)
        elbo = tiny.elbo(wide, subject.noise("tiny elbo", label), wide_labels)
        elbo = elbo.reshape(DRAWS, len(images))
        bound = torch.stack(
            [
                tiny.importance_bound(images, 8, subject.noise("tiny bound", label, i), labels)
                for i in range(DRAWS // 4)
            ]
        )
        worst_elbo = max(worst_elbo, _largest_z(elbo - exact_elbo))
        wide_q = _is_wide(tiny.posterior(images, labels))
        if bool(wide_q.any()):
            ratio = (bound - log_p)[:, wide_q].exp()
            worst_unbiased = max(worst_unbiased, abs(_z(ratio.mean(1) - 1.0)))
        elbo_over_bound = max(elbo_over_bound, _z(elbo[: len(bound)].mean(1) - bound.mean(1)))
        bound_over_truth = max(bound_over_truth, _z((bound - log_p).mean(1)))
    what = f"all {len(images)} images of {tiny.spec.shape}, one latent coordinate, fresh weights"
    yield Proof.at_most(
        "total probability",
        worst_total,
        TOTAL_TOLERANCE,
        f"|sum over {what} of p(x) by quadrature - 1|.",
    )
    for name, value, about in (
        ("the ELBO is the ELBO", worst_elbo, "Estimate against quadrature"),
        ("importance weights are unbiased", worst_unbiased, "Mean of exp(L_8) against p(x)"),
        ("ELBO <= importance bound", elbo_over_bound, "Mean excess of the ELBO over L_8"),
        ("importance bound <= log p", bound_over_truth, "Mean excess of L_8 over quadrature"),
    ):
        yield Proof.at_most(name, value, SIGMAS, f"{about}; {what}; standard errors.")


def _quadrature(
    subject: Subject, tiny: LatentVariable, images: Tensor, label: int
) -> tuple[Tensor, Tensor]:
    """(log p(x), exact ELBO), nats [N], by the trapezoidal rule.

    The rule is exact to rounding for a smooth integrand that has died out at both ends: over z
    in [-12, 12] under the prior, over 9 scales to each side under q.
    """
    z = torch.linspace(-12.0, 12.0, 2401, dtype=torch.float64)[:, None]  # [G, 1]
    standard = DiagonalGaussian(torch.zeros(1, dtype=z.dtype), torch.zeros(1, dtype=z.dtype))
    log_step = math.log(float(z[1, 0] - z[0, 0]))
    parameters = tiny.decoder_output(z, subject.labels(len(z), label))
    u = torch.linspace(-9.0, 9.0, 181, dtype=torch.float64)
    mass = torch.exp(-0.5 * u**2) / math.sqrt(2 * math.pi) * float(u[1] - u[0])
    q = tiny.posterior(images, subject.labels(len(images), label))
    log_p, elbo = [], []
    for index, x in enumerate(images):
        likelihood = tiny.head.log_prob(parameters, x.expand(len(z), *x.shape)).sum((1, 2, 3))
        log_p.append((likelihood + standard.log_prob(z)).logsumexp(0) + log_step)
        posterior = DiagonalGaussian(q.mean[index], q.log_scale[index])
        at = posterior.sample(u[:, None])  # [U, 1]
        there = tiny.decoder_output(at, subject.labels(len(at), label))
        likelihood = tiny.head.log_prob(there, x.expand(len(at), *x.shape)).sum((1, 2, 3))
        elbo.append((mass * (likelihood + standard.log_prob(at) - posterior.log_prob(at))).sum())
    return torch.stack(log_p), torch.stack(elbo)


def _z(values: Tensor) -> float:
    """Mean over the first side in standard errors of that mean; rounding counts as none."""
    error = float(values.std(0)) / math.sqrt(len(values))
    z = float(values.mean(0)) / (error + 1e-12)
    return z if z == z else math.inf


def _largest_z(differences: Tensor) -> float:
    """The largest |mean| over draws (first side) in standard errors, over the others."""
    error = differences.std(0) / math.sqrt(len(differences))
    z = float((differences.mean(0).abs() / (error + 1e-12)).max())
    return z if z == z else math.inf
