"""Mixtures by EM and probabilistic PCA: laws, known answers, planted defects."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import likely
from likely import runs
from likely.data.spec import Dataset, DataSpec
from likely.density import ExpectedStatistics
from likely.errors import InvalidSetting
from likely.models.classical.mixtures import BernoulliMixture, ProductMixture
from likely.models.classical.ppca import PPCA
from likely.models.classical.settings import (
    BernoulliMixtureSettings,
    PPCASettings,
    ProductMixtureSettings,
)
from likely.noise import Noise
from likely.settings import FitSettings
from likely.verify import verify
from likely.verify.subject import all_images
from toy_data import dataset

KINDS = {"bernoulli": (BernoulliMixture, BernoulliMixtureSettings),
         "product": (ProductMixture, ProductMixtureSettings)}  # fmt: skip
Mixture = BernoulliMixture | ProductMixture


def clustered(levels: int, n: int = 400, noise: float = 0.2) -> Dataset:
    """Three kinds of images of eight pixels, noisy."""
    random = np.random.Generator(np.random.Philox(1))
    centres = random.integers(0, levels, (3, 1, 2, 4))
    x = centres[random.integers(0, 3, n)]
    noisy = random.random(x.shape) < noise
    x = np.where(noisy, random.integers(0, levels, x.shape), x)
    return dataset(x.astype(np.uint8), levels)


def mixture(kind: str, spec: DataSpec, **changes: float) -> Mixture:
    network, settings = KINDS[kind]
    return network(spec, settings(**changes))  # type: ignore[arg-type]


def tensor(data: Dataset) -> Tensor:
    return torch.from_numpy(np.asarray(data.x).astype(np.int64))


def em(model: Mixture, x: Tensor, steps: int) -> list[float]:
    """log-likelihood, or with the prior where there is smoothing, before each step."""
    values = []
    for _ in range(steps):
        log_prob, match = model.expectation(x)
        values.append(float(log_prob.sum() + log_prior(model)))
        gradients = torch.autograd.grad(match.mean(), [model.shares, model.counts])
        with torch.no_grad():
            model.shares -= gradients[0]
            model.counts -= gradients[1]
    return values


def log_prior(model: Mixture) -> Tensor:
    log_pi, log_theta = model._logs()
    share = model.settings.smoothing
    return (share * (log_pi.mean() + model.draws * log_theta.mean(2).sum())).detach()


@pytest.mark.parametrize("smoothing", [0.0, 1.0, 10.0])
@pytest.mark.parametrize("levels", [2, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_the_likelihood_never_falls(kind: str, levels: int, smoothing: float) -> None:
    data = clustered(levels)
    model = mixture(kind, data.spec, components=4, smoothing=smoothing).double()
    model.examples.fill_(len(data))
    values = em(model, tensor(data), 40)
    assert all(b >= a - 1e-9 * abs(a) for a, b in itertools.pairwise(values))
    assert values[-1] > values[0] + 100


@pytest.mark.parametrize("kind", KINDS)
def test_without_the_shares_of_components_it_falls(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: responsibilities that forget pi."""
    data = clustered(2, noise=0.5)
    model = mixture(kind, data.spec, components=4, smoothing=0.0).double()
    em(model, tensor(data), 40)
    right = type(model)._log_joint

    def wrong(self: Mixture, x: Tensor, observed: Tensor | None = None) -> Tensor:
        return right(self, x, observed) - self._logs()[0]

    def expectation(self: Mixture, x: Tensor) -> tuple[Tensor, Tensor]:
        log_prob = self.log_prob(x).detach()
        return log_prob, self._match(x, wrong(self, x).softmax(1).detach())

    monkeypatch.setattr(type(model), "expectation", expectation)
    values = em(model, tensor(data), 10)
    assert any(b < a - 1e-6 for a, b in itertools.pairwise(values))


@pytest.mark.parametrize("kind", KINDS)
def test_a_fit_makes_steps_of_em(kind: str) -> None:
    """The loop's updates are those of EM, and the fit ends at a maximum that the truth knows."""
    data = clustered(2)
    model = mixture(kind, data.spec, components=3, smoothing=0.0, restarts=2)
    reference = mixture(kind, data.spec, components=3, smoothing=0.0, restarts=2)
    reference.double().start_at(data)
    run = likely.fit(model.double(), data, steps=7, batch_size=len(data))
    values = em(reference, tensor(data), 7)
    assert [m["nll"] for m in run.metrics] == pytest.approx(
        [-value / len(data) for value in values], rel=1e-9
    )
    torch.testing.assert_close(model.counts, reference.counts)
    assert float(model.shares.detach().sum()) == pytest.approx(1.0)
    assert float(model.counts.detach().min()) >= 0.0
    assert run.objective is not None
    assert type(run.objective).__name__ == "ExpectationMaximization"


def test_micro_batches_and_parts_of_the_data_give_means_of_statistics() -> None:
    data = clustered(5)
    models = [mixture("product", data.spec, components=3, restarts=1) for _ in range(2)]
    for model, parts in zip(models, (1, 4), strict=True):
        likely.fit(model, data, steps=3, batch_size=len(data), settings=None if parts == 1 else
                   FitSettings(steps=3, batch_size=len(data), micro_batches=parts, warmup=0,
                               optimizer="sgd", learning_rate=1.0, schedule="constant", clip=0.0,
                               ema=0.0))  # fmt: skip
    torch.testing.assert_close(models[0].counts, models[1].counts, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_three_kinds_of_images_are_found_and_responsibilities_are_features(kind: str) -> None:
    data = clustered(5)
    model = mixture(kind, data.spec, components=3)
    likely.fit(model, data, steps=30, batch_size=len(data))
    shares = likely.ask(model, "features", tensor(data))
    torch.testing.assert_close(shares.sum(1), torch.ones(len(data)))
    assert float((shares.amax(1) > 0.9).float().mean()) > 0.9
    counts = shares.argmax(1).bincount(minlength=3).double() / len(data)
    assert float(counts.min()) > 0.2  # no component is lost


@pytest.mark.parametrize("levels", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_completion_follows_the_conditional_distribution_whatever_is_observed(
    kind: str, levels: int
) -> None:
    spec = DataSpec("t", (1, 1, 3), levels)
    model = mixture(kind, spec, components=3).double()
    with torch.no_grad():
        model.counts.pow_(4)
    everything = all_images(spec.shape, levels)
    joint = model.log_prob(everything).exp()
    assert float(joint.detach().sum()) == pytest.approx(1.0)
    observed = torch.tensor([[False, True, False]])
    x = torch.full((20_000, 1, 1, 3), levels - 1)
    drawn = model.complete(x, observed, seed=3)
    assert bool((drawn[..., 1] == levels - 1).all())
    fits = everything[:, 0, 0, 1] == levels - 1
    wanted = joint * fits / joint[fits].sum()
    places = levels ** torch.arange(3).flip(0)
    shares = torch.bincount((drawn.flatten(1) * places).sum(1), minlength=len(joint)) / 20_000
    error = (wanted * (1 - wanted) / 20_000).sqrt() + 1e-9
    assert bool(((shares - wanted).abs() < 5 * error).all())
    # And conditionals multiply to the joint.
    each = [model.conditional(everything, 0, d).gather(1, everything[:, 0, 0, d:d + 1])
            for d in range(3)]  # fmt: skip
    torch.testing.assert_close(torch.cat(each, 1).prod(1), joint)


def test_levels_that_were_never_seen_have_a_finite_probability() -> None:
    values = np.zeros((50, 1, 2, 2), np.uint8)
    values[::2] = 2
    data = dataset(values, 6)
    model = ProductMixture(data.spec, ProductMixtureSettings(components=2, smoothing=1.0))
    likely.fit(model, data, steps=5, batch_size=50)
    unseen = torch.full((1, 1, 2, 2), 5)
    # A component of 25 examples and one pseudo-observation: log (1/6) / 26 for each pixel.
    assert float(model.log_prob(unseen)) == pytest.approx(4 * math.log(1 / 6 / 26), rel=0.02)


class Unnormalised(ProductMixture):
    """Planted: the tables are not divided by their sums."""

    def _logs(self) -> tuple[Tensor, Tensor]:
        log_pi, _ = super()._logs()
        return log_pi, (self.counts.abs() * len(self.shares) + 1e-3).log()


class Uncounted(BernoulliMixture):
    """Planted: the ways to toss so many heads are not counted."""

    def _log_ways(self, x: Tensor) -> Tensor | float:
        return 0.0


@pytest.mark.parametrize("kind", [Unnormalised, Uncounted])
def test_planted_defects_are_caught(kind: type[ExpectedStatistics]) -> None:
    spec = DataSpec("t", (1, 2, 3), 4)
    proofs = verify(kind(spec, None))
    assert any("total probability" in proof.name for proof in proofs.failed)
    assert verify(kind.__mro__[1](spec, None), quick=True).passed


def test_settings_are_refused() -> None:
    with pytest.raises(InvalidSetting, match="smoothing must not be negative"):
        ProductMixtureSettings(smoothing=-1.0)
    with pytest.raises(InvalidSetting, match="components must be at least 1"):
        BernoulliMixtureSettings(components=0)


# -- probabilistic PCA


def correlated(n: int = 3000) -> Dataset:
    random = np.random.Generator(np.random.Philox(2))
    w = random.normal(0, 12.0, (6, 2))
    y = 128 + random.normal(0, 1, (n, 2)) @ w.T + random.normal(0, 5.0, (n, 6))
    return dataset(np.clip(y.round(), 0, 255).astype(np.uint8).reshape(n, 1, 2, 3), 256)


def test_the_closed_form_is_the_maximum_and_the_density_that_of_its_covariance() -> None:
    data = correlated()
    model = PPCA(data.spec, PPCASettings(latent=2)).double()
    model.start_at(data)
    x = tensor(data)
    covariance = model.weight @ model.weight.T + (2 * model.log_scale).exp() * torch.eye(6)
    gaussian = torch.distributions.MultivariateNormal(model.mean, covariance)
    y = x + Noise("u").uniform(*x.shape)
    torch.testing.assert_close(model.log_density(y), gaussian.log_prob(y.flatten(1)))
    # Eigenvalues: two kept, the rest is their mean (Tipping and Bishop, eqs. 7 and 8).
    wanted = torch.linalg.eigvalsh(torch.cov(x.flatten(1).T.double(), correction=0)
                                   + torch.eye(6) / 12).flip(0)  # fmt: skip
    values = torch.linalg.eigvalsh(covariance).flip(0)
    torch.testing.assert_close(values[:2], wanted[:2])
    torch.testing.assert_close(values[2:], wanted[2:].mean().expand(4))
    # The mean over u of log p(x + u) has no slope there.
    s = torch.cov(x.flatten(1).T.double(), correction=0) + torch.eye(6) / 12
    mean = x.flatten(1).double().mean(0) + 0.5
    d = (mean - model.mean)[:, None]
    covariance = model.weight @ model.weight.T + (2 * model.log_scale).exp() * torch.eye(6)
    distance = torch.trace(torch.linalg.solve(covariance, s + d @ d.T))
    bound = -0.5 * (torch.logdet(covariance) + distance)
    for gradient in torch.autograd.grad(bound, list(model.parameters())):
        assert float(gradient.abs().max()) < 1e-9


def test_ppca_fits_in_closed_form_and_its_number_is_a_bound() -> None:
    data = correlated()
    model = PPCA(data.spec, PPCASettings(latent=2))
    run = likely.fit(model, data)
    assert run.finished
    estimate = likely.nats(run.model, data)
    assert estimate.relation.value == "<="
    # Of the true model: six Gaussian dimensions.
    wanted = 0.5 * float(
        torch.logdet(2 * math.pi * math.e * torch.cov(tensor(data).flatten(1).T.double()))
    )
    assert estimate.value == pytest.approx(wanted, abs=0.3)
    assert likely.ask(run.model, "features", tensor(data)[:4]).shape == (4, 2)
    assert verify(run.model, data).passed


def test_what_is_said_of_the_codes_of_ppca_agrees() -> None:
    data = correlated(100)
    model = PPCA(data.spec, PPCASettings(latent=2))
    answers = likely.answers(model)
    assert answers["features"].guarantee.value == "approximate"
    for query in ("posterior", "reconstruct"):
        assert answers[query].reason == (
            "it has no encoder: ask for features, which it has without one"
        )
    with pytest.raises(InvalidSetting, match="no encoder that gives a distribution"):
        likely.annealed(model, data)


class Shrunk(PPCA):
    """Planted: log det C forgets the directions that are left out."""

    def log_density(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        rest = (self.spec.dimensions - self.latent) * self.log_scale[0]
        return super().log_density(y) + rest


class Noiseless(PPCA):
    """Planted: samples lie in the principal subspace."""

    def real(self, noise: Noise, n: int, context: Tensor | None) -> Tensor:
        z = noise.normal(n, self.latent, dtype=self.mean.dtype)
        return (z @ self.weight.T + self.mean).reshape(n, *self.spec.grid)


@pytest.mark.parametrize("defect", [Shrunk, Noiseless])
def test_planted_defects_of_ppca_are_caught(defect: type[PPCA]) -> None:
    model = defect(correlated(100).spec, PPCASettings(latent=1))
    assert not verify(model, quick=True)["samples follow the density"].passed


def gap_of(model: PPCA) -> float:
    """KL(q || p(z|y)) of the best diagonal q, the same for every y, by determinants."""
    w, variance = model.weight, (2 * model.log_scale).exp()
    precision = torch.eye(model.latent) + w.T @ w / variance
    return 0.5 * float(precision.diagonal().log().sum() - torch.logdet(precision))


def test_a_diagonal_posterior_is_tight_only_where_the_columns_are_orthogonal() -> None:
    """The linear VAE against the exact marginal of PPCA (Lucas et al. 2019)."""
    data = correlated()
    model = PPCA(data.spec, PPCASettings(latent=2)).double()
    model.start_at(data)
    y = tensor(data)[:50] + 0.5
    exact = model.log_density(y)
    for angle, tight in ((0.0, True), (0.7, False)):
        turn = torch.tensor(
            [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        )
        turned = PPCA(data.spec, PPCASettings(latent=2)).double()
        turned.load_state_dict(model.state_dict())
        turned.weight.data = model.weight.data @ turn.double()
        torch.testing.assert_close(turned.log_density(y), exact)  # the density does not change
        bound = elbo_of(turned, y)
        gap = exact - bound
        torch.testing.assert_close(gap, torch.full_like(gap, gap_of(turned)))
        assert (float(gap.max()) < 1e-9) == tight
        assert tight or float(gap.min()) > 0.1


def elbo_of(model: PPCA, y: Tensor) -> Tensor:
    """E_q[log p(y|z)] - KL(q || N(0, I)) by its terms, [B]; q the best diagonal Gaussian.

    Its mean is the posterior's, its covariance the inverse of the diagonal of the precision.
    """
    m, rest, variance, _ = model._explained(y)
    precision = torch.eye(model.latent) + model.weight.T @ model.weight / variance
    spread = 1 / precision.diagonal()  # of q, [Z]
    d = model.spec.dimensions
    squares = rest.square().sum(1) + (model.weight.square() * spread).sum()
    given_z = -0.5 * (d * (2 * math.pi * variance).log() + squares / variance)
    kl = 0.5 * (m.square() + spread - 1 - spread.log()).sum(1)
    return given_z - kl


@pytest.mark.parametrize("scale", [1.0, 1e10])
@pytest.mark.parametrize(("name", "levels"), [("bernoulli-mixture", 16), ("product-mixture", 4)])
def test_a_file_claims_the_likelihood_of_what_a_float_cannot_hold(
    name: str, levels: int, scale: float
) -> None:
    model: Any = runs.build(
        name, DataSpec("rare", (1, 3, 3), levels), {"components": 4, "smoothing": 0.0}
    )
    with torch.no_grad():
        model.counts.mul_(scale)
        model.counts[:, ::2, 0] = 0.0
        model.shares[0] = 0.0
        x = torch.arange(levels).reshape(-1, 1, 1, 1).expand(-1, *model.spec.shape)
        nats = -float(model.log_prob(x).double().sum())
    compressed = likely.compress(model, x)
    assert math.isfinite(nats)
    assert compressed.claimed * math.log(2.0) == pytest.approx(nats, rel=1e-5)
