"""RBM: Z by sums and by annealing, the sign of its error, its gradient, planted defects."""

from __future__ import annotations

import importlib
import itertools
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad, softplus

import likely
from fit_cases import differing, end_of, fit_case, model_of, stop_at, training_data
from likely.ask import Guarantee, answers, likelihood
from likely.data.spec import DataSpec
from likely.heads import invert
from likely.models.boltzmann.rbm import RBM, schedule
from likely.models.boltzmann.settings import RBMSettings
from likely.noise import Noise
from likely.runs import RunDirectory
from likely.training.objectives import ContrastiveDivergence, Step, default_objective
from likely.verify import verify
from likely.verify.subject import all_images

# The package has a function of its name.
LIKELIHOOD = importlib.import_module("likely.ask.likelihood")
SMALL = DataSpec("small", (1, 2, 3), 2)
IMAGE = DataSpec("image", (1, 6, 6), 2)
GREY = DataSpec("grey", (1, 2, 2), 4)


def built(
    spec: DataSpec = SMALL, hidden: int = 4, scale: float = 0.5, kind: type[RBM] = RBM
) -> RBM:
    model = kind(spec, RBMSettings(hidden=hidden, chains=8))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)
        model.frequencies += 0.3 * torch.randn(model.frequencies.shape, generator=generator)
        model.offset.uniform_(0.2, 0.6, generator=generator)
    return model.double().eval().requires_grad_(False)


def exact_log_z(model: RBM) -> float:
    """By the sum over all images."""
    return float((-model.free_energy(all_images(model.spec.shape, model.spec.levels))).logsumexp(0))


def exact_samples(model: RBM, n: int) -> Tensor:
    x = all_images(model.spec.shape, model.spec.levels)
    log_p = -model.free_energy(x)
    return x[invert((log_p - log_p.logsumexp(0)).expand(n, -1), Noise("exact").uniform(n))]


# -- Z ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [SMALL, GREY])
def test_z_is_the_sum_over_images_and_over_hidden_states(spec: DataSpec) -> None:
    model = built(spec)
    log_z = model.log_partition(Noise(0), temperatures=2, chains=1)
    assert log_z.exact
    assert log_z.value == pytest.approx(exact_log_z(model), abs=1e-9)
    total = likelihood(model, all_images(spec.shape, spec.levels)).exp().sum()
    assert float(total) == pytest.approx(1.0)


def test_a_larger_sum_agrees_with_hidden_units_that_do_nothing() -> None:
    """6 x 6 pixels: too many images to list, 2^14 hidden states in several parts."""
    model = built(IMAGE, hidden=13)
    wide = built(IMAGE, hidden=14)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            grown = pad(value, (0, 1)) if name in ("weight", "hidden_bias") else value
            wide.state_dict()[name].copy_(grown)
    one, two = (m.log_partition(Noise(0), temperatures=2, chains=1) for m in (model, wide))
    assert two.value - one.value == pytest.approx(math.log(2.0), abs=1e-9)


@pytest.mark.parametrize("spec", [SMALL, GREY])
@pytest.mark.parametrize("temperatures", [3, 6, 11])
def test_annealed_weights_have_the_mean_z_and_straddle_its_logarithm(
    spec: DataSpec, temperatures: int
) -> None:
    model, n = built(spec, scale=1.0), 20_000
    log_z = exact_log_z(model)
    forward = model.log_weights(Noise(1), temperatures=temperatures, chains=n) - log_z
    start = exact_samples(model, n)
    backward = model.log_weights(Noise(2), temperatures=temperatures, chains=n, start=start) - log_z
    for weights in (forward.exp(), (-backward).exp()):
        assert abs(float(weights.mean()) - 1) < 5 * float(weights.std()) / math.sqrt(n)
    error = 5 * max(float(forward.std()), float(backward.std())) / math.sqrt(n)
    assert float(forward.mean()) < error
    assert float(backward.mean()) > -error


def test_more_temperatures_narrow_the_interval() -> None:
    model, n = built(scale=1.5), 4000
    start, gaps = exact_samples(model, n), []
    for temperatures in (4, 16, 64):
        low = model.log_weights(Noise(1), temperatures=temperatures, chains=n).mean()
        high = model.log_weights(Noise(2), temperatures=temperatures, chains=n, start=start).mean()
        gaps.append(float(high - low))
    assert gaps == sorted(gaps, reverse=True)
    assert 0 < gaps[-1] < 0.3 * gaps[0]


def test_the_schedule_rises_from_zero_to_one() -> None:
    betas = schedule(1000)
    assert (betas[0], betas[-1], len(betas)) == (0.0, 1.0, 1000)
    assert all(a < b for a, b in itertools.pairwise(betas))


def test_an_annealed_likelihood_is_printed_as_a_lower_bound_on_the_nll(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(LIKELIHOOD, "LONG", (60, 20))
    data = training_data()
    few = fit_case("rbm", None, steps=4).model
    many = model_of("rbm-wide")
    exact, annealed = likely.nats(few, data), likely.nats(many, data)
    assert exact.relation.value == "="
    assert "2^6 hidden states" in exact.about
    assert annealed.relation.value == ">="
    assert "60 temperatures" in annealed.about
    assert annealed.standard_error > 0
    assert answers(many)["likelihood"].guarantee is Guarantee.BOUND
    assert "too high" in answers(many)["likelihood"].reason
    assert answers(many)["sample"].guarantee is Guarantee.APPROXIMATE
    assert many.sample(3).shape == (3, *data.spec.shape)  # type: ignore[attr-defined]


# -- its gradient ----------------------------------------------------------------------------


def test_the_gradient_is_that_of_the_likelihood_and_zero_at_equilibrium() -> None:
    """Data and chains both from p: no weight is moved, on average."""
    model, n = built(GREY), 60_000
    model.requires_grad_(True)
    x = exact_samples(model, n)
    objective = ContrastiveDivergence(k=2, persistent=False)
    players = objective.players(model)
    loss = objective.loss(Step(model, players, "model", x, None, Noise(3), 0))
    for gradient in torch.autograd.grad(loss.value.mean(), list(model.parameters())):
        assert float(gradient.abs().max()) < 6 * math.sqrt(2 / n)
    # Elsewhere it is that of -log p(x), known from all images.
    blank = torch.zeros(1, 1, 2, 2, dtype=torch.int64)
    every = all_images(GREY.shape, 4)
    nll = model.free_energy(blank).mean() + (-model.free_energy(every)).logsumexp(0)
    wanted = torch.autograd.grad(nll, list(model.parameters()))
    gap = model.free_energy(blank).mean() - model.free_energy(x).mean()
    for a, b in zip(torch.autograd.grad(gap, list(model.parameters())), wanted, strict=True):
        assert float((a - b).abs().max()) < 6 / math.sqrt(n)


def test_persistent_chains_go_on_and_others_start_at_the_data() -> None:
    model = built()
    x = torch.zeros(5, 1, 2, 3, dtype=torch.int64)
    before = model.chains.clone()
    model.negative(x, 1, Noise(0), persistent=False)
    assert torch.equal(model.chains, before)
    ends = model.negative(x, 1, Noise(0), persistent=True)
    assert torch.equal(model.chains.long(), ends.flatten(1))
    assert not torch.equal(model.chains, before)


@pytest.mark.parametrize("case", ["rbm", "rbm-wide"])
def test_a_fit_resumes_bit_for_bit_with_its_chains(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LIKELIHOOD, "QUICK", (20, 5))
    fit_case(case, tmp_path / "whole")
    fit_case(case, tmp_path / "parts", progress=stop_at(4))
    assert fit_case(case, tmp_path / "parts").finished
    assert differing(end_of(tmp_path / "whole"), end_of(tmp_path / "parts")) == []


@pytest.mark.parametrize(("hidden", "which"), [(6, "best"), (30, "last")])
def test_annealed_validations_do_not_choose_the_weights(
    hidden: int, which: str, tmp_path: Path
) -> None:
    """They err by more than they differ; where Z is summed, the best weights are kept."""
    settings = likely.FitSettings(
        steps=6, batch_size=16, learning_rate=3.0, optimizer="sgd", schedule="constant", warmup=0,
        clip=0.0, ema=0.0, validate_every=1,
    )  # fmt: skip
    model = RBM(training_data().spec, RBMSettings(hidden=hidden, chains=8))
    run = likely.fit(model, training_data(), settings=settings, out=tmp_path, progress=False)
    values = [record["validation"] for record in run.metrics if "validation" in record]
    assert min(values) < values[-1]  # the rate is far too high
    kept = int(RunDirectory(tmp_path).weights()[1]["step"])
    assert kept == (1 + values.index(min(values)) if which == "best" else 6)
    assert f"; {which} validation" in str(run)


def test_a_fit_raises_the_likelihood() -> None:
    data = training_data()
    model = model_of("rbm")
    assert default_objective(model) == ContrastiveDivergence()
    model.start_at(data)
    before = likely.nats(model, data)
    settings = likely.FitSettings(steps=150, batch_size=50, learning_rate=0.02, ema=0.9)
    likely.fit(model, data, settings=settings, progress=False)
    assert likely.nats(model, data).value < before.value - 3


# -- planted defects -------------------------------------------------------------------------


class MovesFirst(RBM):
    """The weight is updated after the move."""

    def log_weights(
        self, noise: Noise, *, temperatures: int, chains: int, start: Tensor | None = None
    ) -> Tensor:
        table, bias = self._plain()
        base = pad(self.frequencies, (1, 0))
        zeros = torch.zeros(chains, len(base), dtype=base.dtype)
        betas = schedule(temperatures)
        flat = self._pixels_given(base, zeros, noise) if start is None else start.flatten(1)
        betas = betas if start is None else betas[::-1]
        total = torch.zeros(chains, dtype=torch.float64)
        for before, beta in itertools.pairwise(betas):
            flat = self._moved(flat, (1 - beta) * base + beta * table, bias, beta, noise)
            scores = flat.double() / (self.spec.levels - 1) @ self.weight + bias
            total += softplus(beta * scores).sum(1) - softplus(before * scores).sum(1)
            entries = (table - base).expand(chains, -1, -1).gather(2, flat.unsqueeze(-1))
            total += (beta - before) * entries.sum((1, 2))
        of_base = base.logsumexp(1).sum() + self.hidden * math.log(2.0)
        return of_base + (total if start is None else -total)


class WrongSign(RBM):
    """The pixels' biases enter the chain with the wrong sign."""

    def _pixels_given(self, table: Tensor, scores: Tensor, noise: Noise) -> Tensor:
        return super()._pixels_given(-table, scores, noise)


class WithoutHiddenBase(RBM):
    """The hidden units of the first density, 2^H states, are forgotten."""

    def log_weights(
        self, noise: Noise, *, temperatures: int, chains: int, start: Tensor | None = None
    ) -> Tensor:
        values = super().log_weights(noise, temperatures=temperatures, chains=chains, start=start)
        return values - self.hidden * math.log(2.0)


class UncentredEnergy(RBM):
    """The energy forgets the offset of the hidden units."""

    def energy(self, x: Tensor, h: Tensor) -> Tensor:
        return super().energy(x, h + 0.5)


@pytest.mark.parametrize(
    ("kind", "proof"),
    [
        (MovesFirst, "annealed weights average to Z"),
        (WrongSign, "a step of the chain leaves p as it is"),
        (WithoutHiddenBase, "annealed weights average to Z"),
        (UncentredEnergy, "the free energy sums over the hidden units"),
    ],
)
def test_planted_defects_are_caught(kind: type[RBM], proof: str) -> None:
    right, wrong = (verify(built(kind=k, scale=1.0), quick=True) for k in (RBM, kind))
    assert right.passed, str(right)
    assert not wrong[proof].passed, str(wrong)
