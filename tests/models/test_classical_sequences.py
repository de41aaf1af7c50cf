"""Classical models of sequences against known answers: enumeration, dense Gaussians, EM."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

import likely
from likely import models
from likely.cli import main
from likely.data.sequences import Sequences, from_sequences
from likely.data.sequences.spec import MISSING
from likely.density.sequence import bins
from likely.density.sequence.bins import Components
from likely.evaluate.sequences.nats import step_nats
from likely.training.objectives import ExpectationMaximization, default_objective


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def chains() -> Sequences:
    """Two columns, a category and a number of many levels, a value missing; lengths differ."""
    series = []
    for i in range(12):
        mode = np.cumsum(rng(i).random(8 + i) < 0.2) % 3
        level = np.round(mode + 0.3 * rng(i + 50).standard_normal(len(mode)), 2)
        series.append(np.stack([mode, level], 1))
    series[0][2, 1] = np.nan
    return from_sequences(series, columns=("mode", "level"), name="chains")[0]


@torch.no_grad()
def test_the_forward_algorithm_is_the_sum_over_all_paths() -> None:
    data = chains()
    model = models.HMM(data.spec, states=3, bins=5, seed=1).double()
    model.start_at(data)
    for p in model.parameters():
        p += 0.3 * torch.rand(p.shape, generator=torch.Generator().manual_seed(0)) * p.mean()
    x = torch.from_numpy(data.batch(np.arange(1, 4)).x)[:, :4]
    x[1, 2, 0], x[2, 1] = MISSING, MISSING
    start, moves, _ = model._logs()
    known, value = x >= 0, x.clamp(min=0)
    emissions = model._emissions(model._logs()[2], value, known)  # [3, 4, S]
    total = torch.full((3,), -math.inf, dtype=torch.float64)
    for path in itertools.product(range(3), repeat=4):
        log_p = start[path[0]] + sum(moves[a, b] for a, b in itertools.pairwise(path))
        log_p = log_p + sum(emissions[:, t, s] for t, s in enumerate(path))
        total = torch.logaddexp(total, log_p)
    assert torch.allclose(model.log_prob(x), total, rtol=0, atol=1e-10)
    for k, column in enumerate(data.spec.columns):  # every level of a column, in every state
        level = torch.zeros(column.levels, 2, dtype=torch.int64)
        level[:, k] = torch.arange(column.levels)
        alone = torch.zeros_like(level, dtype=torch.bool)
        alone[:, k] = True
        sums = model._emissions(model._logs()[2], level, alone).exp().sum(0)
        assert torch.allclose(sums, torch.ones_like(sums), atol=1e-12)


def _steps_of_em(model: models.HMM, x: Tensor, count: int) -> list[float]:
    """Mean log p of the data before each step of EM, plus log p of the weights over N."""
    values = []
    for _ in range(count):
        model.zero_grad()
        log_p, match = model.expectation(x)
        match.mean().backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            logs = model._logs()
            sizes = [model.settings.states] * 2
            prior = sum((log.sum() / size) for log, size in zip(logs[:2], sizes, strict=True))
            widths = torch.tensor([float(b) for b in model.bins for _ in range(b)])
            prior = float(prior + (logs[2] / widths).sum()) * model.settings.smoothing
            values.append(float(log_p.mean()) + prior / float(model.examples))
            for p in model.parameters():
                assert p.grad is not None
                p -= p.grad
    return values


@pytest.mark.parametrize("smoothing", [0.0, 1.0])
def test_em_never_goes_down(smoothing: float) -> None:
    data = chains()
    model = models.HMM(data.spec, states=3, bins=5, smoothing=smoothing).double()
    model.start_at(data)
    x = torch.from_numpy(data.batch(slice(None)).x)
    values = _steps_of_em(model, x, 12)
    assert min(np.diff(values)) > -1e-9
    assert values[-1] > values[0] + 1
    # What is given and not scored is known to EM as the rest is.
    given = x.clone()
    given[:, :2] = torch.where(x[:, :2] >= 0, -2 - x[:, :2], x[:, :2])
    assert torch.equal(model.expectation(given)[0], model.expectation(x)[0])
    assert isinstance(default_objective(model), ExpectationMaximization)


def test_the_entropy_rate_of_an_autoregression_by_var() -> None:
    """log sigma + 1/2 log(2 pi e), of numbers without a lattice, and the coefficients."""
    noise = 0.5 * rng(3).standard_normal((6000, 2))
    noise[:, 1] += 0.8 * noise[:, 0]
    series = np.zeros((6000, 2))
    for t in range(1, 6000):
        series[t] = 0.8 * series[t - 1] + noise[t]
    train, test = from_sequences([series], name="var1")
    model = models.VAR(train.spec, lags=2)
    model.start_at(train)
    scored = step_nats(model, test)
    truth = 2 * (math.log(0.5) + 0.5 * math.log(2 * math.pi * math.e))
    assert scored.value == pytest.approx(truth, abs=4 * scored.standard_error)
    assert scored.standard_error < 0.03
    # Column 1 of the first: 0.8 of the noise beside it, in standardised units.
    sizes = [float(model.deviation[k]) * train.spec.columns[k].step for k in range(2)]
    within = float(model._within().detach()[1, 0])
    assert within == pytest.approx(0.8 * sizes[0] / sizes[1], abs=0.03)


def test_heavy_tails_are_fitted() -> None:
    noise = rng(5).standard_t(4, 5000) * 0.3
    train, test = from_sequences([np.round(noise, 2)], name="tails")
    model = models.VAR(train.spec, lags=1, components=1)
    model.start_at(train)
    levels = 0.3 / train.spec.columns[0].step
    assert float(model.log_scale.detach().exp()[0, 0] * model.deviation[0]) == pytest.approx(
        levels, rel=0.1
    )
    known = -scipy.stats.t(4, scale=0.3).logpdf(noise[-test.spec.steps :]).mean()
    assert step_nats(model, test).value == pytest.approx(
        known - math.log(train.spec.columns[0].step), abs=0.02
    )


@torch.no_grad()
def test_the_kalman_filter_is_the_dense_gaussian() -> None:
    series = [np.cumsum(rng(i).standard_normal((9, 2)), 0) for i in range(6)]
    train, _ = from_sequences(series, name="walks")
    model = models.StateSpace(train.spec, latent=3, seed=2).double()
    model.start_at(train)
    model.transition += 0.1 * torch.randn(3, 3, generator=torch.Generator().manual_seed(1))
    x = torch.from_numpy(train.batch(slice(0, 3)).x)[:, :6]
    a, c = model.transition, model.readout
    covariance = model.begin(1)[1][0]
    root = model.process_root.tril()
    latent = torch.zeros(18, 18, dtype=torch.float64)  # of z_1..6
    for t in range(6):
        latent[3 * t : 3 * t + 3, 3 * t : 3 * t + 3] = covariance
        across = covariance
        for later in range(t + 1, 6):
            across = a @ across
            latent[3 * later : 3 * later + 3, 3 * t : 3 * t + 3] = across
            latent[3 * t : 3 * t + 3, 3 * later : 3 * later + 3] = across.T
        covariance = a @ covariance @ a.T + root @ root.T + 1e-9 * torch.eye(3)
    read = torch.block_diag(*[c] * 6)
    dense = read @ latent @ read.T + torch.diag(model._variance().repeat(6))
    scale = model.deviation.repeat(6)
    law = torch.distributions.MultivariateNormal(
        model.mean.repeat(6) + scale * model.offset[:, 0].repeat(6), scale[:, None] * dense * scale
    )
    exact = law.log_prob(x.flatten(1).double())
    assert torch.allclose(model.log_density(x.double()), exact, rtol=0, atol=1e-7)
    # Fine levels: the probability of an integer is the density there.
    assert torch.allclose(model.log_prob(x), exact, rtol=0, atol=1e-3)
    # What is missing is summed over: the marginal of the joint distribution.
    gap = x.clone()
    gap[:, 2] = MISSING
    gap[:, 4, 0] = MISSING
    kept = (gap >= 0)[0].flatten()
    part = torch.distributions.MultivariateNormal(
        law.mean[kept], law.covariance_matrix[kept][:, kept]
    )
    wanted = part.log_prob(x.flatten(1)[:, kept].double())
    assert torch.allclose(model.log_prob(gap), wanted, rtol=0, atol=1e-3)
    # Draws of it are from the conditional Gaussian.
    drawn = model.completions(gap[:1], torch.ones(6, dtype=torch.bool), 20_000)
    assert drawn.exact
    rest = law.covariance_matrix[~kept][:, kept] @ torch.linalg.inv(part.covariance_matrix)
    mean = law.mean[~kept] + rest @ (x[0].flatten()[kept] - part.mean)
    spread = law.covariance_matrix[~kept][:, ~kept]
    spread = spread - rest @ law.covariance_matrix[kept][:, ~kept]
    values = drawn.images[0].flatten(1)[:, ~kept].double()
    root = torch.linalg.inv(torch.linalg.cholesky(spread))
    white = (values - mean) @ root.T
    assert float(white.mean(0).abs().max()) < 4 / math.sqrt(20_000)
    assert float((torch.cov(white.T) - torch.eye(3)).abs().max()) < 0.04


@pytest.mark.parametrize("family", ["gaussian", "student-t", "logistic"])
def test_bins_sum_to_one_and_are_inverted(family: bins.Family) -> None:
    mixture = Components(
        torch.tensor([0.3, 0.7], dtype=torch.float64).log(),
        torch.tensor([4.2, 90.0]).double(),
        torch.tensor([0.1, 5.0]).double(),
    )
    levels = 40  # most of the second component is beyond the highest
    column = bins.Bins(levels, mixture, family)
    log_p = column.log_prob(torch.arange(levels))
    assert float(log_p.logsumexp(0)) == pytest.approx(0, abs=1e-12)
    uniform = torch.linspace(0.0005, 0.9995, 1000, dtype=torch.float64)
    drawn = column.quantile(uniform)
    edges = log_p.exp().cumsum(0)
    assert torch.equal(drawn, torch.searchsorted(edges, uniform, right=True))
    law = scipy.stats.norm if family == "gaussian" else scipy.stats.logistic
    if family != "student-t":
        low, high = torch.tensor([-30.0, 8.0, 30.0]).double(), torch.tensor([-29.0, 8.5, 31.0])
        tail = bins.log_mass(low, high.double(), family, high.double() - low)
        wanted = law.logsf(np.array([29.0, 8.0, 30.0]))
        wanted += np.log1p(-np.exp(law.logsf(np.array([30.0, 8.5, 31.0])) - wanted))
        assert np.allclose(tail.numpy(), wanted, rtol=1e-9)


@pytest.mark.parametrize("family", ["logistic", "student-t", "gaussian"])
def test_narrow_bins_lose_no_digits(family: Any) -> None:
    """Of a column that is nearly continuous a bin is a billionth of the spread."""
    laws = {"logistic": scipy.stats.logistic, "student-t": scipy.stats.t(4)}
    law = laws.get(family, scipy.stats.norm)
    middle = torch.tensor([-600.0, -9.0, -0.3, 0.0, 1.7, 25.0]).double()
    for width in (1e-9, 1e-5):
        w = torch.full_like(middle, width)
        mass = bins.log_mass(middle - w / 2, middle + w / 2, family, w)
        wanted = law.logpdf(middle.numpy()) + math.log(width)
        assert np.allclose(mass.numpy(), wanted, rtol=0, atol=1e-11 if width < 1e-6 else 2e-6)


def test_a_fit_of_an_hmm_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "hmm")
    fit = ["fit", "hmm", "--data", "regimes", "--states", "6", "--bins", "12", "--steps", "3"]
    assert main([*fit, "--out", run, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    losses = [record["nll"] for record in likely.load(run).metrics if "nll" in record]
    assert losses == sorted(losses, reverse=True)
    assert said["best_validation_nats"] < 5.0
    model = cast(models.HMM, likely.load(run).model)
    drawn = model.forecast(torch.from_numpy(likely.load(run).test.batch(slice(0, 1)).x), 3, draws=2)
    assert drawn.shape == (1, 2, 3, 2)


def test_state_space_goes_on_by_gradient() -> None:
    level = np.cumsum(rng(1).standard_normal(120))
    noisy = np.round(level + 2 * rng(2).standard_normal(120), 1)
    train, _ = from_sequences([noisy], name="level")
    model = models.StateSpace(train.spec, latent=2)
    model.start_at(train)
    started = step_nats(model, train).value
    # Steps of a tenth with noise: innovations of a standard deviation of 2.56 at best.
    assert started == pytest.approx(math.log(25.6) + 1.419, abs=0.25)
    with torch.no_grad():
        model.log_scale += 1.0
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    x = torch.from_numpy(train.batch(slice(None)).x)
    values = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = -model.log_prob(x).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        values.append(float(loss.detach()))
    assert values[-1] < values[0] - 1
