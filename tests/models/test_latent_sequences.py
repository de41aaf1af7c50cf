"""Models of sequences with latents: bounds against a likelihood that is known, and defects."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from test_sequence_models import SETS, SMALL
from torch import Tensor

import likely
from likely import models, runs
from likely.ask import Guarantee
from likely.cli import main
from likely.data.sequences import Sequences, from_sequences
from likely.data.sequences.spec import MISSING, unscored
from likely.data.spec import DataSpec
from likely.density import DiagonalGaussian, LatentSequence, State, Steps
from likely.errors import ProofFailed
from likely.estimate import Relation
from likely.evaluate.sequences.calibration import calibration
from likely.noise import Noise
from likely.settings import FitSettings
from likely.training.loop import fit
from likely.training.objectives import Step
from likely.verify import verify

CASES = [("srnn", "mixed"), ("vrnn", "keys")]


class LinearGaussian(LatentSequence):
    """z_1 ~ N(0, P), z_t = a z_t-1 + w, y_t = c z_t + v: log p of the numbers by Kalman's filter.

    q is the prior, or what is best without looking ahead: p(z_t | z_t-1, y_t).
    """

    def __init__(self, spec: DataSpec, kalman: models.StateSpace, informed: bool) -> None:
        super().__init__(spec, 1)
        self.informed = informed
        self.kalman = kalman
        k = kalman.double()
        self.a, self.c = float(k.transition), float(k.readout)
        self.process = math.hypot(float(k.process_root), math.sqrt(1e-9))
        self.begins = math.hypot(float(k.first_root), math.sqrt(1e-9))
        self.noise = float(k._variance().sqrt())
        self.offset, self.scale = float(k.mean), float(k.deviation)
        self.base = float(k.offset)

    def numbers(self, x: Tensor) -> Tensor:
        return (x.double() - self.offset) / self.scale - self.base

    def first(self, n: int) -> tuple[State, State]:
        zero = torch.zeros(n, 1, 1, dtype=torch.float64)
        return (), (zero, torch.ones_like(zero))

    def ahead(self, steps: Steps) -> Tensor:
        return self.numbers(steps.x) * steps.known  # as if the mean were seen where nothing is

    def read(
        self, last: Tensor, known: Tensor, context: Tensor | None, body: State
    ) -> tuple[State, State]:
        return (), ()

    def transition(self, now: State, chain: State) -> tuple[DiagonalGaussian, Tensor]:
        before, is_first = chain
        scale = torch.where(is_first > 0, self.begins, self.process)
        return DiagonalGaussian(self.a * before, scale.log().expand_as(before)), before

    def proposal(self, prior: DiagonalGaussian, hidden: Tensor, ahead: Tensor) -> DiagonalGaussian:
        if not self.informed:
            return DiagonalGaussian(prior.mean, prior.log_scale + 0.0 * ahead)
        precision = (-2 * prior.log_scale).exp()
        seen = (self.c / self.noise) ** 2
        mean = (prior.mean * precision + self.c * ahead / self.noise**2) / (precision + seen)
        return DiagonalGaussian(mean, -0.5 * (precision + seen).log())

    def chained(self, hidden: Tensor, z: Tensor) -> State:
        return z, torch.zeros_like(z)

    def emission(self, now: State, hidden: Tensor, z: Tensor) -> Tensor:
        return z

    def score(
        self, output: Tensor, last: Tensor, last_known: Tensor, x: Tensor, known: Tensor
    ) -> Tensor:
        far = (self.numbers(x) - self.c * output) / self.noise
        each = -0.5 * far.square() - math.log(self.noise * self.scale) - 0.5 * math.log(2 * math.pi)
        return (each * known).sum(1)

    def draw_columns(
        self, output: Tensor, last: Tensor, last_known: Tensor, uniform: Tensor
    ) -> Tensor:
        raise AssertionError("nothing is drawn here")


def linear_gaussian(informed: bool) -> tuple[LinearGaussian, Tensor, float]:
    """A model, a sequence [1, T, 1], and its log p."""
    series = [
        20 + 6 * torch.randn(30, generator=torch.Generator().manual_seed(i)) for i in range(4)
    ]
    train, _ = from_sequences([s.round().numpy() for s in series], name="walk")
    kalman = models.StateSpace(train.spec, latent=1, seed=3)
    with torch.no_grad():
        kalman.first_root.fill_(1.2)
        kalman.readout.fill_(0.9)
        x = kalman.sample(1, seed=5, steps=12)
        return LinearGaussian(train.spec, kalman, informed), x, float(kalman.log_density(x))


@pytest.mark.parametrize("informed", [False, True])
@torch.no_grad()
def test_the_bounds_are_below_the_kalman_likelihood_and_close_in(informed: bool) -> None:
    model, x, exact = linear_gaussian(informed)
    many = x.expand(1500, -1, -1)
    elbo = model.elbo(many, Noise(0))
    gaps, errors = [], []
    for particles in (1, 4, 16):
        log_p = model.fivo(many, Noise(particles), particles=particles)
        gaps.append(exact - float(log_p.mean()))
        errors.append(float(log_p.std()) / math.sqrt(len(many)))
        ratio = (log_p - exact).exp()  # the estimate of p(x) has no bias
        if particles > 1:
            assert abs(float(ratio.mean()) - 1) < 5 * float(ratio.std()) / math.sqrt(len(many))
    assert abs(exact - float(elbo.mean()) - gaps[0]) < 6 * errors[0]  # one particle: the ELBO
    assert gaps[0] > gaps[1] + 3 * errors[0] > gaps[2] + 3 * errors[0]
    assert gaps[2] > -4 * errors[2]
    assert gaps[2] < gaps[1] / 2.5  # about as 1 / N


@torch.no_grad()
def test_a_step_that_is_not_known_weighs_in_the_filter() -> None:
    """q of a step of which nothing is known is not its prior: particles are weighed there, too."""
    model, x, _ = linear_gaussian(informed=True)
    x[0, 4:6] = MISSING
    kalman = model.kalman
    exact = kalman.per_step(x)[0, 6:]
    given = torch.from_numpy(unscored(x[:, :6].numpy()))
    bound = model.fivo_per_step(torch.cat([given, x[:, 6:]], 1), Noise(0), particles=20_000)
    assert float((bound[0, 6:] - exact).abs().max()) < 0.05
    assert float(bound[0, :6].abs().max()) == 0
    # What a forecast begins with, too.
    before = model._several(model.begin(1), 20_000)
    after = model.state_after(model.steps(x[:, :6]), before, Noise(1))
    drawn = model.spread(after, 20_000, Noise(2))[-2]
    ahead = kalman.state_after(kalman.steps(x[:, :6]))
    assert float(model.a * drawn.mean()) == pytest.approx(float(ahead[0]), abs=0.05)


@torch.no_grad()
def test_what_is_given_and_not_known_is_filtered_without_what_comes_after_it() -> None:
    """Else the bound would not pay for what q knows of the scored steps."""
    model, _, _ = built("srnn", "keys")
    x = model.sample(1, seed=0, steps=8)
    x[:, :3] = torch.from_numpy(unscored(np.full_like(x[:, :3].numpy(), MISSING)))
    other = x.clone()
    other[:, 3:] = 1 - x[:, 3:]
    first, second = (model.ahead(model.steps(each))[:, :3] for each in (x, other))
    assert torch.equal(first, second)


def built(name: str, kind: str, **changes: Any) -> tuple[LatentSequence, Sequences, Sequences]:
    """A small model with lively weights, started at its data."""
    train, test = SETS[kind]()
    sizes = {**SMALL, "latent": 3, "conditional": kind == "mixed", **changes}
    model = cast(LatentSequence, runs.build(name, train.spec, sizes))
    model.start_at(train)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.eval(), train, test


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_the_proofs_and_the_verbs(name: str, kind: str, tmp_path: Path) -> None:
    model, train, test = built(name, kind)
    context = torch.arange(5) % 2 if model.classes else None
    x = model.sample(5, seed=1, context=context, steps=9)
    assert torch.equal(x, model.sample(5, seed=1, context=context, steps=9))
    fewer = None if context is None else context[:2]
    assert torch.equal(x[:2, :4], model.sample(2, seed=1, context=fewer, steps=4))
    after = model.forecast(x, 3, draws=2, context=1 if model.classes else None)
    assert after.shape == (5, 2, 3, x.shape[2])
    answers = likely.answers(model)
    assert answers["likelihood"].guarantee is Guarantee.BOUND
    assert answers["forecast"].guarantee is Guarantee.APPROXIMATE
    for query in ("conditional", "features", "reconstruct", "compress", "complete", "posterior"):
        assert answers[query].guarantee is Guarantee.NONE
    proofs = verify(model, test, train=train, quick=True)
    assert proofs.passed, str(proofs)
    elbo, fivo = (likely.nats(model, test, importance_samples=k, proofs=proofs) for k in (None, 8))
    assert (elbo.relation, fivo.relation) == (Relation.UPPER, Relation.UPPER)
    assert elbo.unit == "nats/step"
    assert elbo.n == test.spec.steps
    assert "8 particles" in fivo.about
    assert fivo.value < elbo.value + 0.1
    runs.save(tmp_path / "run", model, train)
    again = cast(LatentSequence, likely.load(tmp_path / "run").model)
    assert likely.nats(again, test, proofs=proofs).value == elbo.value
    asked = likely.ask(model, "likelihood", x, context, importance_samples=4)
    assert torch.equal(asked, model.fivo(x, Noise("likelihood", 0), context, 4))


def test_forecasts_of_the_next_step_are_held_against_what_came() -> None:
    model, train, test = built("srnn", "mixed")
    measured = calibration(model, test, train, steps=6, draws=9)
    assert measured.pit.shape == (6, 2)
    again = calibration(model, test, train, steps=6, draws=9)
    assert np.array_equal(measured.crps, again.crps, equal_nan=True)


def test_given_steps_tell_nothing_of_scored_ones() -> None:
    """q of a step that is given does not read what is scored."""
    model, train, _ = built("srnn", "keys")
    x = torch.from_numpy(train[0])[None]
    x[:, :5] = -2 - x[:, :5]
    changed = x.clone()
    changed[:, 5:] = 1 - changed[:, 5:]
    with torch.no_grad():
        ahead, other = (model.ahead(model.steps(each)) for each in (x, changed))
        assert torch.equal(ahead[:, :5], other[:, :5])
        assert not torch.equal(ahead[:, 5:], other[:, 5:])
        assert float(model.elbo_terms(x, Noise(0)).kl[:, :5].abs().sum()) == 0.0


# -- defects -----------------------------------------------------------------------------------


class PriorSeesTheStep(models.VRNN):
    """The prior is given x_t, as q is."""

    def read(
        self, last: Tensor, known: Tensor, context: Tensor | None, body: State
    ) -> tuple[State, State]:
        following = torch.cat([last[:, 1:], last[:, -1:]], 1)
        seen = torch.cat([known[:, 1:], known[:, -1:]], 1)
        return super().read(following, seen, context, body)


class ForgetsTheProposal(models.VRNN):
    """A weight without log q: what is called a bound exceeds log p."""

    def proposal(self, prior: DiagonalGaussian, hidden: Tensor, ahead: Tensor) -> DiagonalGaussian:
        q = super().proposal(prior, hidden, ahead)
        return Flattering(q.mean, q.log_scale)


class Flattering(DiagonalGaussian):
    def log_prob(self, z: Tensor) -> Tensor:
        return super().log_prob(z) - 0.5


class ScoresPadding(models.SRNN):
    def steps(self, x: Tensor, context: Tensor | int | None = None) -> Steps:
        steps = super().steps(x, context)
        everything = torch.ones_like(steps.scored)
        return steps._replace(scored=everything, known=torch.ones_like(steps.known))


class ForgetsAtBorders(models.SRNN):
    def read(
        self, last: Tensor, known: Tensor, context: Tensor | None, body: State
    ) -> tuple[State, State]:
        return super().read(last, known, context, self.first(len(last))[0])


@pytest.mark.parametrize(
    ("kind", "proof"),
    [
        (PriorSeesTheStep, "no future leak"),
        (ForgetsTheProposal, "ELBO <= FIVO <= log p(x)"),
        (ScoresPadding, "no padding is scored"),
        (ForgetsAtBorders, "the state is kept over pieces"),
    ],
)
def test_defects_are_found(kind: type[LatentSequence], proof: str) -> None:
    name = "srnn" if issubclass(kind, models.SRNN) else "vrnn"
    honest, train, test = built(name, "keys")
    model = cast(Any, kind)(train.spec, honest.settings)
    model.load_state_dict(honest.state_dict())
    proofs = verify(model, test, train=train, quick=True)
    assert not proofs[proof].passed
    with pytest.raises(ProofFailed):
        likely.nats(model, test, proofs=proofs)


# -- the fit and the command ---------------------------------------------------------------------


def test_fit_evaluate_verify_sample_and_forecast(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "srnn")
    small = ["--hidden", "8", "--step-hidden", "8", "--window", "40", "--latent", "2"]
    fit = ["fit", "srnn", "--data", "regimes", "--steps", "4", "--out", run, *small]
    assert main([*fit, "--objective-warmup", "3"]) == 0
    said = capsys.readouterr()
    assert "kl" in said.err
    assert "validation <=" in said.out
    assert "series.csv" in said.out
    asked = ["--split", "validation", "--importance-samples", "2", "--no-sample-metrics", "--json"]
    assert main(["evaluate", run, *asked]) == 0
    report = json.loads(capsys.readouterr().out)["evaluations"]["validation"]
    numbers = [(e["quantity"], e["relation"], e["unit"]) for e in report["estimates"]]
    assert numbers[:2] == [("nll", "<=", "nats/step"), ("nll", "<=", "bits/value")]
    assert numbers[2:5] == [*numbers[:2], ("rate", "~", "nats/step")]
    assert "posterior collapse: the KL of q(z|x) to the prior is" in report["notes"][1]
    assert "nats a step, so the code says nothing about x" in report["notes"][1]
    assert main(["complete", run, "--steps", "2:4"]) == 2
    assert "an integral over z" in capsys.readouterr().err
    assert main(["score", run, "test"]) == 2
    assert "no exact log p of each step" in capsys.readouterr().err
    assert main(["sample", run, "-n", "2", "--steps", "7"]) == 0
    assert main(["forecast", run, "--horizon", "3", "--at", "6", "--draws", "4", "--json"]) == 0
    assert '"guarantee": "approximate"' in capsys.readouterr().out


def test_a_warm_up_weighs_the_loss_and_not_what_is_logged() -> None:
    model, train, _ = built("vrnn", "keys")
    x = torch.from_numpy(train.batch(slice(0, 4)).x)
    objective = likely.SequenceBound(warmup=10, first_weight=0.0)
    losses = []
    for number in (0, 9):
        step = Step(model, {}, "model", x, None, Noise(0), number)
        losses.append(objective.loss(step))
    early, late = (loss.terms for loss in losses)
    assert torch.equal(early["negative_elbo"], late["negative_elbo"])
    assert torch.allclose(losses[1].value, late["negative_elbo"])
    assert torch.allclose(losses[0].value, early["distortion"] + 0.1 * early["kl"])
    step = Step(model, {}, "model", x, None, Noise(0), 0)
    particles = likely.SequenceBound(particles=4).loss(step)
    assert float(particles.value.detach().mean()) < float(late["negative_elbo"].mean()) + 0.3


def test_a_fit_by_particles_is_validated_by_particles() -> None:
    model, train, _ = built("vrnn", "keys")
    train.validation = train
    settings = FitSettings(steps=1, batch_size=4, validate_every=1, ema=0.0, precision="float32")
    run = fit(model, train, likely.SequenceBound(particles=8), settings)
    assert len(train) <= 256  # one part of a validation
    x = torch.from_numpy(train.batch(slice(0, len(train))).x)
    with torch.no_grad():
        bound = -model.fivo(x, Noise("validation", 0), None, 8).sum() / train.units(len(train))
    assert run.metrics[-1]["validation"] == pytest.approx(float(bound), rel=1e-5)
