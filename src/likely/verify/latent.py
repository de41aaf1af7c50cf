r"""Latent-variable models: is the bound a bound, and the KL term a KL?

On a tiny instance with one latent coordinate, p(x) = integral p(x|z) p(z) dz is computed by the
trapezoidal rule, and so is the exact ELBO; codes drawn from the prior are held against the integral
of its density. There, in expectation,

    ELBO <= L_k <= log p(x),      E[exp(L_k)] = p(x),      sum over all x of p(x) = 1

(Burda et al. 2016, Theorem 1). Comparisons of random estimates are in standard errors.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from likely.density import (
    Autoregressive,
    Decoder,
    DiagonalGaussian,
    LatentVariable,
    Posterior,
    Prior,
    StandardNormal,
)
from likely.noise import Noise
from likely.verify.drawing import samples_follow
from likely.verify.flow import maps
from likely.verify.proofs import Proof
from likely.verify.subject import (
    Subject,
    all_images,
    few_channels,
    least_levels,
    smaller_or_none,
    work_of,
)

DRAWS = 400
CODES = 4000
POINTS = 2401
MOST_IMAGES = 128
SIGMAS = 6.0  # for the largest of up to 128 numbers: by chance less than once in a million
TOTAL_TOLERANCE = 1e-8


def bounds(subject: Subject, model: LatentVariable) -> Iterator[Proof]:
    """All checks of the bounds of a latent-variable model."""
    if model.layers > 1:
        yield _kl_by_layers(subject, model)
        yield _ordered_on_fitted(subject, model)
        yield from _by_draws(subject, model)
        return
    yield _kl_formula(subject, model) if _has_kl(subject, model) else _kl_at_a_draw(subject, model)
    yield from maps(subject, model)
    yield _ordered_on_fitted(subject, model)
    channels = few_channels(model)
    for shape in ((channels, 2, 2), (channels, 1, 2), (channels, 1, 1)):
        levels = least_levels(model) if channels == 1 else 2
        fewer = 4 if subject.quick and math.prod(shape) > channels else 1
        if levels ** math.prod(shape) > MOST_IMAGES // fewer:
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


def conditioned(subject: Subject, model: LatentVariable, network: Autoregressive) -> Subject:
    """The network of an autoregressive p(x | z) under verification, given what codes decode to."""
    z = model.latents(subject.noise("given z"), len(subject.x))
    maps = model.decoder_output(z, subject.labels(len(z)))
    return dataclasses.replace(subject, model=network, context=maps)


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
        wide = _is_wide(tiny, tiny.posterior(images, subject.labels(len(images)))).double()
        if float(wide.mean()) > share:
            best, share = tiny, float(wide.mean())
        if share == 1.0:
            break
    return best


def _is_wide(tiny: LatentVariable, q: Posterior) -> Tensor:
    """Whether each q(z|x) is about as wide as the prior or wider, bool [B].

    With p(z|x) as wide as the prior the variance is finite from a scale of 0.71 on; a much
    wider q wastes its draws. Heavier tails than those of q need a wider one.
    """
    ones = torch.ones_like(q.mean)
    scale = (q.sample(ones) - q.sample(-ones))[:, 0].abs() / 2
    centre, spread = _extent(tiny)
    near = (q.sample(0 * ones)[:, 0] - centre).abs() < 2 * spread
    standard = isinstance(tiny.prior, StandardNormal)
    return (scale > 0.8 * spread) & (scale < 3.0 * spread) & (near | standard)


def _extent(tiny: LatentVariable) -> tuple[float, float]:
    """Mean and standard deviation of p(z), z of one coordinate; more where its tails are heavier
    than a Gaussian's, as those of a mixture with one broad component."""
    if isinstance(tiny.prior, StandardNormal):
        return 0.0, 1.0
    z = tiny.latents(Noise("extent"), CODES)
    farthest = float((z - z.mean()).abs().max())
    return float(z.mean()), max(float(z.std()), farthest / 5)


def _has_kl(subject: Subject, model: LatentVariable) -> bool:
    """Whether KL(q(z|x) || p(z)) is known in closed form."""
    q = model.posterior(subject.x[:1], subject.labels(1))
    return isinstance(q, DiagonalGaussian) and isinstance(model.prior, StandardNormal)


def _kl_at_a_draw(subject: Subject, model: LatentVariable) -> Proof:
    """The KL term in the model's own ELBO against log q(z|x) - log p(z) at the same z."""
    x, labels = subject.x, subject.labels(len(subject.x))
    _, reported = model.elbo_terms(x, subject.noise("kl"), labels)
    q = model.posterior(x, labels)
    z = q.sample(subject.noise("kl").normal(*q.mean.shape, dtype=torch.float64))
    expected = q.log_prob(z) - model.prior.log_prob(z)
    return Proof.at_most(
        "the KL term is a KL",
        float((reported.sum(-1) - expected).abs().max()),
        1e-6,
        f"Largest difference from log q(z|x) - log p(z) at the z drawn for {len(x)} images, "
        "nats, fitted weights.",
    )


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


def _kl_by_layers(subject: Subject, model: LatentVariable) -> Proof:
    """The KL terms of a hierarchy against log q(z|x) - log p(z) at the same draws, on average."""
    draws = 32 if subject.quick else 128
    x = subject.x[:2].repeat_interleave(draws, 0)
    labels = subject.labels(len(x))
    _, reported = model.elbo_terms(x, subject.noise("kl"), labels)
    q = model.posterior(x, labels)
    z = q.sample(subject.noise("kl").normal(len(x), model.latent, dtype=torch.float64))
    difference = q.log_prob(z) - model.prior.log_prob(z) - reported.sum(-1)
    return Proof.at_most(
        "the KL term is a KL",
        _largest_z(difference.reshape(-1, draws).T),
        SIGMAS,
        f"Sum over the layers, each given the codes above, against {draws} draws for 2 images, "
        "fitted weights; standard errors.",
    )


def _by_draws(subject: Subject, model: LatentVariable) -> Iterator[Proof]:
    """A tiny instance of too many coordinates for a grid: draws of q against those of the prior.

    For any f, E_p[f q / (p + q)] = E_q[f p / (p + q)] (Meng and Wong 1996): both sides are bounded
    where f is, so their means tell, which those of importance weights need not.
    """
    channels = few_channels(model, 3)
    shape, levels = (channels, *((2, 2) if channels == 1 else (1, 2))), 2
    smaller = smaller_or_none(model, shape, levels, subject.seed)
    if smaller is None:
        about = f"{type(model).__name__} cannot be built for images of few pixels."
        yield Proof.at_most("total probability", math.inf, SIGMAS, about)
        return
    tiny, images = smaller[0], all_images(shape, levels)
    k, draws = 8, CODES // 4 if subject.quick else CODES
    z, p, q = tiny.latents(subject.noise("prior"), draws), tiny.prior, tiny.posterior(images)
    output = tiny.decoder_output(z)
    each = [tiny.likelihood_given_z.log_prob(x.expand(draws, *x.shape), output) for x in images]
    given_z = torch.stack(each)  # [N, draws]
    share = (q.unsqueezed().log_prob(z.expand(len(images), -1, -1)) - p.log_prob(z)).sigmoid()
    at = subject.noise("weights").normal(len(images), draws, tiny.latent, dtype=torch.float64)
    of_q, log_q = q.unsqueezed().draw(at)
    log_p = p.log_prob(of_q)
    repeated = images.repeat_interleave(draws, 0)
    there = tiny.likelihood_given_z.log_prob(repeated, tiny.decoder_output(of_q.flatten(0, 1)))
    there = there.reshape(log_p.shape)
    log_w, share_q = there + log_p - log_q, (log_p - log_q).sigmoid()
    weights = tiny.log_weights(images, draws, subject.noise("weights"), chunk=len(repeated))
    few = 4  # equal to the last digit or not: a few tell
    bound = tiny.importance_bound(images[:few], draws, subject.noise("weights"), chunk=few * draws)
    off = (weights - log_w).abs().max()
    off = torch.maximum(off, (bound - log_w[:few].logsumexp(1) + math.log(draws)).abs().max())
    elbo = tiny.elbo(images.repeat_interleave(DRAWS, 0), subject.noise("tiny elbo"))
    elbo = elbo.reshape(len(images), DRAWS)
    grouped = log_w.reshape(len(images), -1, k).logsumexp(2) - math.log(k)  # [N, draws / k]
    what = f"all {len(images)} images of {shape}, {tiny.latent} latent coordinates, fresh weights"
    yield Proof.at_most(
        "total probability",
        float(given_z.logsumexp(0).abs().max()),
        TOTAL_TOLERANCE,
        f"Largest |log of the sum of p(x|z) over {what}|, {draws} codes of the prior.",
    )
    yield Proof.at_most(
        "importance weights are p(x, z) / q(z | x)",
        float(off),
        TOTAL_TOLERANCE,
        f"Largest difference of their logarithms, and of L_{draws}, from its parts; {what}; nats.",
    )
    sides = f"{draws} draws of the prior against as many of q"
    for name, value, about in (
        (
            "the prior's samples follow its density",
            _apart(share, share_q),
            f"Mean of q / (p + q) by {sides}",
        ),
        (
            "importance weights are unbiased",
            _apart(given_z.exp() * share, there.exp() * share_q),
            f"Mean of p(x|z) q / (p + q) by {sides}",
        ),
        (
            "the ELBO is the ELBO",
            _apart(elbo, log_w),
            f"Mean of {DRAWS} estimates against that of log p(x, z) - log q(z|x)",
        ),
        (
            "ELBO <= importance bound",
            _z(elbo.mean(0)[: grouped.shape[1]] - grouped.mean(0)[:DRAWS]),
            f"Mean excess of the ELBO over L_{k}",
        ),
    ):
        yield Proof.at_most(name, value, SIGMAS, f"{about}; {what}; standard errors.")


def codes_follow_their_prior(subject: Subject, model: Decoder, prior: Prior) -> Proof:
    """Codes behind the samples of a model without a likelihood against the density of its codes.

    As in `_by_draws`, E_p[f q / (p + q)] = E_q[f p / (p + q)], q a Gaussian as wide as other draws.
    """
    draws = CODES // 4 if subject.quick else CODES
    others = model.latents(subject.noise("extent"), draws)
    q = DiagonalGaussian(others.mean(0), others.std(0).clamp(min=1e-6).log())
    z = model.latents(subject.noise("prior"), draws)
    of_q = q.sample(subject.noise("q").normal(draws, z.shape[1], dtype=z.dtype))
    share = (q.log_prob(z) - prior.log_prob(z)).sigmoid()
    share_q = (prior.log_prob(of_q) - q.log_prob(of_q)).sigmoid()

    def weighed(share: Tensor, at: Tensor) -> Tensor:
        distance = ((at - q.mean) * (-q.log_scale).exp()).square().mean(1).clamp(max=9.0)
        return torch.stack([share, share * distance])

    return Proof.at_most(
        "the samples' codes follow their density",
        _apart(weighed(share, z), weighed(share_q, of_q)),
        SIGMAS,
        f"Mean of f q / (p + q) by {draws} codes of samples against that of f p / (p + q) by as "
        "many of a Gaussian q, f = 1 and the squared distance from the mean of q; "
        f"{z.shape[1]} coordinates, fitted weights; standard errors.",
    )


def _apart(first: Tensor, second: Tensor) -> float:
    """The largest difference of the means of rows, [N, draws] each, in standard errors."""
    error = torch.sqrt(first.var(1) / first.shape[1] + second.var(1) / second.shape[1])
    z = float(((first.mean(1) - second.mean(1)).abs() / (error + 1e-12)).max())
    return z if z == z else math.inf


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
    yield _prior_samples(subject, tiny)
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
        some = len(images) * (DRAWS // 4)
        bound = tiny.importance_bound(
            wide[:some], 8, subject.noise("tiny bound", label), subject.labels(some, label), some
        )
        bound = bound.reshape(-1, len(images))
        worst_elbo = max(worst_elbo, _largest_z(elbo - exact_elbo))
        wide_q = _is_wide(tiny, tiny.posterior(images, labels))
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
    yield samples_follow(subject, tiny, log_p, label)


def _quadrature(
    subject: Subject, tiny: LatentVariable, images: Tensor, label: int
) -> tuple[Tensor, Tensor]:
    """(log p(x), exact ELBO), nats [N], by the trapezoidal rule.

    The rule is exact to rounding for a smooth integrand that has died out at both ends: over 12
    standard deviations to each side under the prior, over 9 scales to each side under q.
    """
    centre, spread = _extent(tiny)
    # Another prior than a Gaussian may have parts much narrower than the whole.
    points = POINTS // 4 if isinstance(tiny.prior, StandardNormal) else POINTS
    z = centre + spread * torch.linspace(-12.0, 12.0, points, dtype=torch.float64)[:, None]
    log_prior = tiny.prior.log_prob(z)  # [G]
    log_step = math.log(float(z[1, 0] - z[0, 0]))
    output = tiny.decoder_output(z, subject.labels(len(z), label))
    u = torch.linspace(-9.0, 9.0, 181, dtype=torch.float64)
    mass = torch.exp(-0.5 * u**2) / math.sqrt(2 * math.pi) * float(u[1] - u[0])
    log_p, elbo = [], []
    for x in images:
        likelihood = tiny.likelihood_given_z.log_prob(x.expand(len(z), *x.shape), output)
        log_p.append((likelihood + log_prior).logsumexp(0) + log_step)
        at, log_q = tiny.posterior(x[None], subject.labels(1, label)).draw(u[:, None])  # [U, 1]
        there = tiny.decoder_output(at, subject.labels(len(at), label))
        likelihood = tiny.likelihood_given_z.log_prob(x.expand(len(at), *x.shape), there)
        elbo.append((mass * (likelihood + tiny.prior.log_prob(at) - log_q)).sum())
    return torch.stack(log_p), torch.stack(elbo)


def _prior_samples(subject: Subject, tiny: LatentVariable) -> Proof:
    """Codes behind the samples against the density in the bound, by Kolmogorov and Smirnov.

    Where the codes fall in their distribution function is uniform: its spread, whose mean is a
    twelfth, tells a scale that is off by a tenth, which the largest difference does not.
    """
    draws = 2 * CODES
    drawn = tiny.latents(subject.noise("prior"), draws)[:, 0].sort().values
    centre, spread = _extent(tiny)
    z = centre + spread * torch.linspace(-12.0, 12.0, POINTS, dtype=torch.float64)
    mass = tiny.prior.log_prob(z[:, None]).exp() * float(z[1] - z[0])
    below = mass.cumsum(0) - mass / 2
    share = (torch.searchsorted(drawn, z, right=True)).double() / draws
    off = float((share - below).abs().max()) * math.sqrt(draws)
    after = torch.searchsorted(z, drawn).clamp(1, POINTS - 1)
    part = ((drawn - z[after - 1]) / (z[after] - z[after - 1])).clamp(0.0, 1.0)
    uniform = below[after - 1].lerp(below[after], part)
    return Proof.at_most(
        "the prior's samples follow its density",
        max(off, abs(_z((uniform - 0.5).square() - 1 / 12)) / 2),
        SIGMAS / 2,
        f"Largest difference of distribution functions at {POINTS} points times the root of "
        f"{draws} draws, or half of what their spread is off by in standard errors; one latent "
        "coordinate, fresh weights.",
    )


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
