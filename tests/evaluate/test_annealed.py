"""Annealing: the weights average p(x) at any temperatures, and the bounds stand in their order."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import likely
from likely.data.spec import Dataset, DataSpec
from likely.errors import InvalidSetting
from likely.estimate import Relation
from likely.evaluate import annealed as module
from likely.evaluate.annealed import (
    AnnealedSettings,
    Densities,
    State,
    anneal,
    annealed,
    move,
    schedule,
    simulated_bounds,
    tuned,
)
from likely.evaluate.quadrature import quadrature
from likely.models.pixelcnn.gated_pixelcnn import GatedPixelCNN
from likely.models.pixelcnn.settings import GatedPixelCNNSettings
from likely.models.vae.settings import VAESettings
from likely.models.vae.vae import VAE
from likely.noise import Noise
from likely.settings import FitSettings
from likely.verify.subject import all_images
from toy_data import dataset

LATENT, DIMENSIONS, SCALE = 2, 5, 0.5
Estimator = Callable[[Densities, Tensor, list[float], list[Tensor], int, Noise], tuple[Tensor, ...]]


class LinearGaussian:
    """x = W z + noise: log p(x) = log N(x; 0, W W' + s^2 I); q is off by a share of its width."""

    def __init__(self, off: float = 0.5, rough: bool = False) -> None:
        source = torch.Generator().manual_seed(0)
        w = torch.randn(DIMENSIONS, LATENT, generator=source, dtype=torch.float64)
        x = torch.randn(DIMENSIONS, generator=source, dtype=torch.float64)
        covariance = w @ w.T + SCALE**2 * torch.eye(DIMENSIONS, dtype=torch.float64)
        gaussian = torch.distributions.MultivariateNormal(torch.zeros_like(x), covariance)
        self.log_p = float(gaussian.log_prob(x))
        precision = torch.eye(LATENT, dtype=torch.float64) + w.T @ w / SCALE**2
        self.posterior = torch.distributions.MultivariateNormal(
            torch.linalg.solve(precision, w.T @ x / SCALE**2), precision_matrix=precision
        )
        self.width = self.posterior.covariance_matrix.diagonal().sqrt()
        self.q = torch.distributions.Normal(self.posterior.mean + off * self.width, self.width)
        prior = torch.distributions.Normal(0.0, torch.ones(LATENT, dtype=torch.float64))

        reducing: list[bool] = []

        def log_probs(z: Tensor) -> tuple[Tensor, Tensor]:
            if reducing:  # values and slopes that are both far off
                z = 0.7 * z + 0.1
            given_z = torch.distributions.Normal(z @ w.T, SCALE).log_prob(x).sum(-1)
            return self.q.log_prob(z).sum(-1), given_z + prior.log_prob(z).sum(-1)

        @contextlib.contextmanager
        def block() -> Iterator[None]:
            reducing.append(True)
            yield
            reducing.pop()

        self.densities = Densities(log_probs, block if rough else None)

    def start(self, noise: Noise, chains: int) -> Tensor:
        normal = noise.normal(chains, LATENT, dtype=torch.float64)
        return self.q.mean + self.width * normal

    def run(
        self,
        temperatures: int,
        chains: int,
        run: Estimator = anneal,
        betas: list[float] | None = None,
    ) -> Tensor:
        """log w - log p(x), [chains]."""
        noise = Noise("toy", temperatures)
        frozen = schedule(temperatures)
        pilot = self.start(noise, 64)
        steps = tuned(self.densities, pilot, frozen, 1.5 * self.width[None], 3, noise)
        many = [step.expand(chains, LATENT) for step in steps]
        start = self.start(noise, chains)
        return run(self.densities, start, betas or frozen, many, 3, noise)[0] - self.log_p


def z_score(log_ratio: Tensor) -> float:
    """The mean of w / p(x), less one, in standard errors."""
    ratio = log_ratio.exp()
    return float((ratio.mean() - 1.0) / (ratio.std() / math.sqrt(len(ratio))))


@pytest.mark.parametrize("temperatures", [2, 3, 6, 11])
def test_the_weights_average_the_likelihood_at_any_temperatures(temperatures: int) -> None:
    log_ratio = LinearGaussian().run(temperatures, 100_000)
    assert abs(z_score(log_ratio)) < 4.0
    assert float(log_ratio.mean()) < -0.005  # each alone is a lower bound, and loose


def test_slopes_that_are_off_cost_acceptance_but_no_truth() -> None:
    toy, rough = LinearGaussian(), LinearGaussian(rough=True)
    assert abs(z_score(rough.run(6, 100_000))) < 4.0
    noise, step = Noise("rough"), (0.9 * toy.width).expand(50_000, LATENT)
    start = toy.start(noise, 50_000)
    chances = []
    for densities in (toy.densities, rough.densities):
        state = densities.at(start)
        torch.testing.assert_close(state.log_joint, toy.densities.log_probs(start)[1])
        chances.append(float(move(densities, state, 1.0, step, 3, Noise("move"))[1].mean()))
    assert chances[1] < chances[0] - 0.02, chances


def test_the_error_shrinks_with_the_temperatures() -> None:
    errors = [-float(LinearGaussian(1.0).run(count, 4000).mean()) for count in (2, 5, 20, 80)]
    assert all(later < 0.6 * earlier for earlier, later in itertools.pairwise(errors)), errors
    assert 0.0 < errors[-1] < 0.02


def test_backwards_from_the_posterior_is_an_upper_bound() -> None:
    toy, chains = LinearGaussian(1.0), 4000
    noise, betas = Noise("reverse"), schedule(30)
    steps = tuned(toy.densities, toy.start(noise, 64), betas, toy.width[None], 3, noise)
    many = [step.expand(chains, LATENT) for step in steps]
    root = torch.linalg.cholesky(toy.posterior.covariance_matrix)
    start = toy.posterior.mean + noise.normal(chains, LATENT, dtype=torch.float64) @ root.T
    backwards, _ = anneal(toy.densities, start, betas[::-1], many[::-1], 3, noise)
    assert abs(z_score(backwards + toy.log_p)) < 4.0  # 1 / p(x) on average
    excess = -backwards - toy.log_p
    assert 3 * float(excess.std()) / math.sqrt(chains) < float(excess.mean()) < 0.1


def test_a_move_leaves_its_density_invariant() -> None:
    toy = LinearGaussian()
    noise = Noise("invariant")
    normal = noise.normal(100_000, LATENT, dtype=torch.float64)
    root = torch.linalg.cholesky(toy.posterior.covariance_matrix)
    state = toy.densities.at(toy.posterior.mean + normal @ root.T)
    step = (0.9 * toy.width).expand(100_000, LATENT)
    after, chance = move(toy.densities, state, 1.0, step, 3, noise)
    assert 0.5 < float(chance.mean()) < 0.99
    assert not torch.equal(after.z, state.z)
    torch.testing.assert_close(after.z.mean(0), toy.posterior.mean, atol=0.005, rtol=0)
    wanted = toy.posterior.covariance_matrix
    torch.testing.assert_close(after.z.T.cov(), wanted, atol=0.002, rtol=0.02)


def late(
    densities: Densities,
    z: Tensor,
    betas: list[float],
    steps: list[Tensor],
    leapfrogs: int,
    noise: Noise,
) -> tuple[Tensor, ...]:
    """Planted: the weight is updated after the move."""
    state, weight = densities.at(z), torch.zeros(len(z), dtype=torch.float64)
    for (before, beta), step in zip(itertools.pairwise(betas), [*steps, steps[-1]], strict=True):
        state, _ = move(densities, state, beta, step, leapfrogs, noise)
        weight += (beta - before) * (state.log_joint - state.log_q)
    return (weight,)


def test_a_weight_updated_after_the_move_is_caught() -> None:
    assert z_score(LinearGaussian(1.0).run(3, 50_000, late)) > 10.0


def test_a_move_without_its_accept_step_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def accepting(
        densities: Densities, state: State, beta: float, step: Tensor, leapfrogs: int, noise: Noise
    ) -> tuple[State, Tensor]:
        z, momentum = state.z, noise.normal(*state.z.shape, dtype=state.z.dtype)
        step, now = 2.5 * step, state
        for _ in range(leapfrogs):
            slope = (1 - beta) * now.slope_q + beta * now.slope_joint
            momentum = momentum + step * slope / 2
            z = z + step * momentum
            now = densities.at(z)
            slope = (1 - beta) * now.slope_q + beta * now.slope_joint
            momentum = momentum + step * slope / 2
        return now, torch.ones(len(z), dtype=torch.float64)

    monkeypatch.setattr(module, "move", accepting)
    assert abs(z_score(LinearGaussian(1.0).run(6, 50_000))) > 10.0


def test_a_schedule_of_the_wrong_sign_is_caught() -> None:
    backwards = [1.0 - beta for beta in schedule(6)]
    assert abs(z_score(LinearGaussian(1.0).run(6, 50_000, betas=backwards))) > 10.0


def test_the_schedule_rises_from_zero_to_one_and_is_slow_at_both_ends() -> None:
    betas = schedule(21)
    assert (betas[0], betas[-1], len(betas)) == (0.0, 1.0, 21)
    widths = np.diff(betas)
    assert (widths > 0).all()
    assert widths[0] == pytest.approx(widths[-1])
    assert widths[0] < 0.2 * widths[10]
    assert schedule(2) == [0.0, 1.0]


def small_vae(levels: int, head: str = "auto", conditional: bool = False) -> VAE:
    classes = ("a", "b") if conditional else ()
    spec = DataSpec("toy", (1, 2, 2), levels, classes=classes)
    settings = VAESettings(
        latent=2, network="dense", hidden=6, layers=1, head=head, conditional=conditional
    )
    return VAE(spec, settings, seed=3).double()


def test_quadrature_over_all_images_sums_to_one() -> None:
    model = small_vae(2)
    images = dataset(all_images((1, 2, 2), 2).numpy().astype(np.uint8), 2)
    measured = quadrature(model, images)
    assert measured.relation is Relation.EXACT
    assert "error at most" in measured.about
    assert float(np.exp(-measured.values).sum()) == pytest.approx(1.0, abs=1e-6)


def test_quadrature_of_a_conditional_model_keeps_the_labels_apart() -> None:
    model = small_vae(2, conditional=True)
    images = np.tile(all_images((1, 2, 2), 2).numpy().astype(np.uint8), (2, 1, 1, 1))
    data = dataset(images, 2, np.repeat([0, 1], 16))
    data.spec = dataclasses.replace(data.spec, classes=("a", "b"))
    values = np.exp(-quadrature(model, data).values).reshape(2, 16)
    np.testing.assert_allclose(values.sum(1), 1.0, atol=1e-6)
    assert not np.allclose(values[0], values[1])


def test_one_by_one_is_the_same_as_integrates_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_vae(2)
    images = dataset(all_images((1, 2, 2), 2).numpy().astype(np.uint8)[:3], 2)
    shared = quadrature(model, images).values
    monkeypatch.setattr(inspect.getmodule(quadrature), "TABLE", 0)
    np.testing.assert_allclose(quadrature(model, images).values, shared, rtol=1e-12)


def test_many_latents_are_not_integrated() -> None:
    spec = DataSpec("toy", (1, 2, 2), 2)
    model = VAE(spec, VAESettings(latent=3, network="dense", hidden=6, layers=1))
    with pytest.raises(InvalidSetting, match="anneal instead"):
        quadrature(model, dataset(np.zeros((2, 1, 2, 2), np.uint8), 2))


@pytest.mark.parametrize(
    ("levels", "head", "conditional"),
    [(2, "auto", False), (256, "logistic-mixture", False), (2, "auto", True)],
)
def test_noise_belongs_to_the_image_not_to_its_batch(
    levels: int, head: str, conditional: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_vae(levels, head, conditional)
    random = np.random.Generator(np.random.Philox(0))
    values = random.integers(0, levels, (7, 1, 2, 2)).astype(np.uint8)
    data = dataset(values, levels, np.arange(7) % 2 if conditional else None)
    data.spec = dataclasses.replace(data.spec, classes=model.spec.classes)
    few = AnnealedSettings(temperatures=6, chains=4, simulated=3, importance_samples=5)
    monkeypatch.setattr(module, "integrates_quickly", lambda _: False)
    together = annealed(model, data, few)
    monkeypatch.setattr(module, "DECODED", 8 * model.head.parameters * 4)  # two images at a time
    apart = annealed(model, data, few)
    np.testing.assert_allclose(apart.annealed.values, together.annealed.values, rtol=1e-9)
    other = annealed(model, data, few, seed=1)
    assert not np.allclose(other.annealed.values, together.annealed.values, rtol=1e-9)
    assert together.gap is not None
    assert together.gap.relation is Relation.UPPER
    assert together.annealed.relation is Relation.UPPER
    assert len(together.estimates) == 5
    assert "not a proven upper bound" in str(together)
    assert 0.5 < together.acceptance <= 1.0
    assert 1.0 <= together.effective <= 4.0


@pytest.mark.parametrize("reduced", [False, True])
def test_decodings_are_counted_as_they_happen(
    reduced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rows = small_vae(2), 0
    plain = model.decoder_output

    def counted(z: Tensor, context: Tensor | None = None) -> Tensor:
        nonlocal rows
        rows += len(z)
        return plain(z, context)

    monkeypatch.setattr(model, "decoder_output", counted)
    monkeypatch.setattr(module, "_reduced", lambda _: contextlib.nullcontext if reduced else None)
    few = AnnealedSettings(temperatures=5, chains=8)
    x = torch.zeros(3, 1, 2, 2, dtype=torch.int64)
    module._annealed(model, x, None, [(0, index) for index in range(3)], few)
    assert rows == 3 * module._decodings(model, few)


def test_the_report_is_of_what_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gain is over L_k, chains are worth (sum w)^2 / sum w^2, the pilot has its own noise."""
    weights: list[Tensor] = []
    keys: list[tuple[int | str, ...]] = []
    run, stream = module.anneal, module.Noise

    def kept(*arguments: Any) -> tuple[Tensor, Tensor]:
        result = run(*arguments)
        weights.append(result[0])
        return result

    def noted(*key: int | str, **how: Any) -> Noise:
        keys.append(key)
        return stream(*key, **how)

    monkeypatch.setattr(module, "anneal", kept)
    monkeypatch.setattr(module, "Noise", noted)
    data = dataset(np.zeros((3, 1, 2, 2), np.uint8), 2)
    few = AnnealedSettings(temperatures=5, chains=8, simulated=0, importance_samples=4)
    measured = annealed(small_vae(2), data, few)
    _, importance, by_annealing, _ = (bound.values for bound in measured.bounds)
    assert measured.gain.value == pytest.approx(float((importance - by_annealing).mean()))
    assert measured.gain.relation is Relation.APPROXIMATE
    w = torch.cat(weights).reshape(3, 8).exp()
    assert measured.effective == pytest.approx(float((w.sum(1) ** 2 / (w**2).sum(1)).mean()))
    assert {key[3] for key in keys} == {"spread", "pilot", "run"}
    assert len(set(keys)) == len(keys)


def test_two_temperatures_are_importance_sampling_and_brackets_hold() -> None:
    model = small_vae(2)
    settings = AnnealedSettings(temperatures=10, chains=8, simulated=200)
    lower, upper = simulated_bounds(model, settings)
    gap = upper - lower
    assert gap.mean() > -3 * gap.std() / math.sqrt(200)
    looser = AnnealedSettings(temperatures=2, chains=8, simulated=200)
    low, high = simulated_bounds(model, looser)
    assert (high - low).mean() > gap.mean()


def test_a_model_without_latent_variables_is_refused() -> None:
    model = GatedPixelCNN(
        DataSpec("toy", (1, 3, 3), 2),
        GatedPixelCNNSettings(channels=6, layers=2, first_kernel=3, head_channels=6),
    )
    with pytest.raises(InvalidSetting, match=r"GatedPixelCNN is .*: annealing goes"):
        annealed(model, dataset(np.zeros((2, 1, 3, 3), np.uint8), 2))
    with pytest.raises(InvalidSetting, match="temperatures must be at least 2, given 1"):
        AnnealedSettings(temperatures=1)


def test_on_digits_each_bound_is_below_the_next_image_by_image(
    digits: tuple[Dataset, Dataset],
) -> None:
    """ELBO <= L_k <= annealed <= exact on images that the model was not fitted to."""
    train, test = digits
    settings = VAESettings(
        latent=2, network="dense", hidden=32, layers=1, head="logistic-mixture", components=1
    )
    steps = FitSettings(steps=600, batch_size=64, learning_rate=5e-3)
    fitted = likely.fit(VAE(train.spec, settings), train, likely.NegativeELBO(), steps)
    few = AnnealedSettings(n=40, temperatures=30, chains=8, simulated=40, importance_samples=2000)
    measured = likely.annealed(fitted.model, test, few)
    assert [bound.relation.value for bound in measured.bounds] == ["<=", "<=", "<=", "="]
    elbo, importance, annealed_, exact = (-bound.values for bound in measured.bounds)
    for looser, tighter in itertools.pairwise((elbo, importance, annealed_, exact)):
        rise = tighter - looser
        assert rise.mean() > -3 * rise.std() / math.sqrt(len(rise))
    assert elbo.mean() < annealed_.mean() - 0.1
    # exp(bound) averages p(x), so that a bound may lie above log p(x), but seldom by much.
    assert (annealed_ < exact + 0.3).all()
    assert (importance < exact + 0.3).all()
    assert np.abs(annealed_ - exact).mean() < 0.1
    assert measured.gap is not None
    assert 0.0 <= measured.gap.value + 3 * measured.gap.standard_error < 0.5
