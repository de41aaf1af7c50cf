"""Models of sequences: what each must do, known answers, and defects that `verify` finds."""

from __future__ import annotations

import json
import math
import runpy
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

import likely
from likely import data, models, runs
from likely.ask import Guarantee
from likely.cli import main
from likely.data.sequences import Sequences, SequenceSpec, from_sequences, regimes_log_prob
from likely.data.sequences.spec import MISSING
from likely.density import SequenceDensity, State, Steps
from likely.density.sequence.bins import cdf, log_mass
from likely.density.sequence.neighbours import Neighbours, Traces
from likely.errors import InvalidData, InvalidSetting, ProofFailed, Unanswerable
from likely.evaluate.sequences.ahead import steps_ahead
from likely.evaluate.sequences.gap import fill_gap
from likely.evaluate.sequences.nats import step_nats
from likely.evaluate.sequences.odd import stretches
from likely.models import SEQUENCE_MODELS
from likely.verify import verify

SMALL = {"hidden": 8, "step_hidden": 6, "components": 2, "window": 12, "before": 4}
OF_BODIES = {"layers": 2, "heads": 2, "reach": 5}  # of some
NEIGHBOURS = {("gru", "keys"): 2, ("transformer", "keys"): 9}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def mixed() -> tuple[Sequences, Sequences]:
    """Every kind of column, missing values, a clock and classes; lengths differ."""
    series = []
    for i in range(18):
        t = np.arange(6 + i)
        noise = rng(i).standard_normal((3, len(t)))
        numbers = np.stack([t % 2, t % 4, np.round(noise[0], 1), noise[1], noise[2] * 90 % 360], 1)
        numbers[3, 2] = np.nan
        series.append(numbers)
    return from_sequences(
        series, columns=("on", "kind", "level", "wave", "wind"), kinds={"wind": "angle"},
        labels=[i % 2 for i in range(18)], clock=(4,), name="mixed",
    )  # fmt: skip


def keys() -> tuple[Sequences, Sequences]:
    rolls = [(rng(i).random((10 + i, 7)) < 0.3).astype(np.uint8) for i in range(12)]
    return from_sequences(rolls, kinds={f"x{k}": "binary" for k in range(7)}, name="keys")


SETS = {"mixed": mixed, "keys": keys}


def built(name: str, kind: str, **changes: Any) -> tuple[SequenceDensity, Sequences, Sequences]:
    """A small model with lively weights, started at its data."""
    train, test = SETS[kind]()
    fields = SEQUENCE_MODELS[name].settings.__dataclass_fields__
    wanted = {
        key: value for key, value in {**OF_BODIES, **SMALL, **changes}.items() if key in fields
    }
    if "conditional" in fields:
        wanted.setdefault("conditional", kind == "mixed")
    if (name, kind) in NEIGHBOURS:
        wanted.setdefault("neighbours", NEIGHBOURS[name, kind])
    model = cast(SequenceDensity, runs.build(name, train.spec, wanted))
    model.start_at(train)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.eval(), train, test


EXACT = [n for n, e in SEQUENCE_MODELS.items() if issubclass(e.load(), SequenceDensity)]
CASES = [(name, kind) for name in EXACT for kind in SETS]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_every_proof_passes(name: str, kind: str) -> None:
    model, train, test = built(name, kind)
    proofs = verify(model, test, train=train, quick=True)
    assert proofs.passed, str(proofs)
    assert {"no future leak", "no padding is scored", "the sampler is teacher forcing"} <= {
        proof.name for proof in proofs.proofs
    }


def test_neighbours_move_with_the_keys() -> None:
    near = Neighbours(12, 3, reach=2).double()
    with torch.no_grad():
        near.out.weight.normal_(generator=torch.Generator().manual_seed(0))
    state, x = torch.ones(1, 3, dtype=torch.float64), torch.zeros(2, 6, 12, dtype=torch.int64)
    x[0, :, 4:7] = x[1, :, 5:8] = torch.from_numpy(rng().integers(0, 2, (6, 3)))
    traces = Traces(12).double()
    before = traces(x, traces.begin(2))[:, -1]
    logits = near(state, before, x[:, -1])
    assert torch.allclose(logits[0, :-1], logits[1, 1:], atol=1e-12)
    assert float(logits[0, 1:10].detach().std()) > 0.01
    assert torch.equal(logits[0, :2], logits[0, 9:11])  # out of reach of what is on
    with pytest.raises(InvalidSetting, match="leave it at 0"):
        models.GRU(mixed()[0].spec, neighbours=2)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_samples_are_a_function_of_the_seed(name: str, kind: str) -> None:
    model, _, _ = built(name, kind)
    context = torch.arange(5) % 2 if model.classes else None
    before = torch.random.get_rng_state()
    x = model.train().sample(5, seed=1, context=context, steps=9)
    assert model.training
    assert torch.equal(before, torch.random.get_rng_state())
    assert x.shape == (5, 9, len(model.spec.columns))
    levels = torch.tensor([c.levels for c in model.spec.columns])
    assert bool(((x >= 0) & (x < levels)).all())
    assert torch.equal(x, model.eval().sample(5, seed=1, context=context, steps=9))
    assert not torch.equal(x, model.sample(5, seed=2, context=context, steps=9))
    # However many and however long, in double precision: a product of matrices is rounded by how
    # many rows it has, and a column of three million levels shows that of float32.
    whole = model.double().sample(5, seed=1, context=context, steps=9)
    assert torch.equal(whole[:2, :4], model.sample(
        2, seed=1, context=None if context is None else context[:2], steps=4
    ))  # fmt: skip
    after = model.forecast(x, 3, draws=2, context=1 if model.classes else None)
    assert after.shape == (5, 2, 3, x.shape[2])


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_run_comes_back_with_the_same_likelihood(name: str, kind: str, tmp_path: Path) -> None:
    model, train, test = built(name, kind)
    runs.save(tmp_path / "run", model, train)
    again = cast(SequenceDensity, likely.load(tmp_path / "run").model)
    assert again.spec == model.spec
    batch = test.batch(slice(0, 3))
    x, context = torch.from_numpy(batch.x), model.batch_context(batch)
    assert torch.equal(model.log_prob(x, context), again.log_prob(x, again.batch_context(batch)))
    assert model.log_prob(x, context).dtype == torch.float64


@pytest.mark.parametrize("name", EXACT)
def test_what_is_declared(name: str) -> None:
    model, _, test = built(name, "keys")
    answers = likely.answers(model)
    assert answers["likelihood"].guarantee is Guarantee.EXACT
    assert answers["sample"].guarantee is Guarantee.EXACT
    for query in ("conditional", "features", "reconstruct"):
        assert answers[query].guarantee is Guarantee.NONE
    with pytest.raises(Unanswerable, match="no code of the whole sequence"):
        likely.ask(model, "features", torch.zeros(1, 1, 7, dtype=torch.int64))
    estimate = likely.nats(model, test)
    assert estimate.unit == "nats/step"
    assert estimate.n == test.spec.steps
    assert estimate.value == pytest.approx(step_nats(model, test).value)
    with pytest.raises(InvalidData, match="expected integers"):
        model.log_prob(torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(InvalidSetting, match="takes no context"):
        model.sample(1, context=1)
    with pytest.raises(InvalidSetting, match="steps must be at least 1"):
        model.sample(1, steps=0)


@torch.no_grad()
def test_missing_values_are_marginalised() -> None:
    """p(x with a gap in the last column) is the sum over what may be there."""
    model, train, _ = built("gru", "keys")
    x = torch.from_numpy(train.batch(slice(0, 1)).x)[:, :1]
    gap, whole = x.clone(), x.repeat(2, 1, 1)
    gap[:, 0, -1] = MISSING
    whole[:, 0, -1] = torch.arange(2)
    total = model.log_prob(whole).logsumexp(0)
    assert float(model.log_prob(gap)[0]) == pytest.approx(float(total), abs=1e-6)


@pytest.mark.parametrize("family", ["logistic", "student-t"])
def test_bins_are_those_of_the_distribution(family: Any) -> None:
    law = scipy.stats.logistic if family == "logistic" else scipy.stats.t(4)
    edges = torch.tensor([-1e6, -3e3, -50.0, -2.0, -0.1, 0.0, 1e-6, 0.3, 9.0, 400.0, 1e5]).double()
    low, high = edges[:-1], edges[1:]
    upper = law.sf(low.numpy()) - law.sf(high.numpy())
    lower = law.cdf(high.numpy()) - law.cdf(low.numpy())
    wanted = np.where(low > 0, upper, lower)
    mass = log_mass(low, high, family, high - low)
    kept = wanted > 1e-250
    assert np.allclose(mass.exp().numpy()[kept], wanted[kept], rtol=1e-6, atol=0)
    assert np.allclose(cdf(edges, family).numpy(), law.cdf(edges.numpy()), rtol=1e-9)
    ends = torch.tensor([-math.inf, 0.4]).double(), torch.tensor([0.4, math.inf]).double()
    assert float(log_mass(*ends, family, ends[1] - ends[0]).logsumexp(0)) == pytest.approx(
        0, abs=1e-12
    )
    narrow = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    width = torch.full_like(narrow, 1e-9)
    log_mass(narrow, narrow + width, family, width).sum().backward()  # type: ignore[no-untyped-call]
    assert narrow.grad is not None
    assert bool(narrow.grad.isfinite().all())


def test_long_sequences_are_read_in_pieces() -> None:
    train, _ = from_sequences([rng().integers(0, 3, 6000)], name="long")
    model = models.GRU(train.spec, **SMALL).double().eval()
    x = torch.from_numpy(train[0])[None]
    with torch.no_grad():
        whole = model.per_step(x, piece=10_000)
        assert torch.equal(whole, model.per_step(x, piece=700))
    assert whole.shape == (1, 3600)


# -- known answers ---------------------------------------------------------------------------


def test_the_entropy_rate_of_an_autoregression() -> None:
    """log sigma + 1/2 log(2 pi e), as a density of numbers without a lattice."""
    noise = 0.5 * rng(3).standard_normal(4000)
    series = np.zeros(4000)
    for t in range(1, 4000):
        series[t] = 0.8 * series[t - 1] + noise[t]
    train, test = from_sequences([series], name="ar1")
    assert train.spec.columns[0].kind == "continuous"
    model = models.GRU(train.spec, hidden=8, step_hidden=8, components=2, head="logistic")
    settings = likely.FitSettings(
        steps=70, batch_size=8, learning_rate=0.02, validate_every=35, ema=0.9, warmup=5
    )
    fitted = likely.fit(model, train, settings=settings, progress=False)
    scored = step_nats(cast(SequenceDensity, fitted.model), test)
    truth = math.log(0.5) + 0.5 * math.log(2 * math.pi * math.e)
    drawn = -scipy.stats.norm(0, 0.5).logpdf(noise[-test.spec.steps :]).mean()
    assert abs(drawn - truth) < 0.05
    assert drawn - 0.01 < scored.value < drawn + 0.06
    assert scored.blocks == "blocks of 96 steps"


@pytest.mark.parametrize("length", [1, 2])
@pytest.mark.parametrize("name", SEQUENCE_MODELS)
def test_sequences_of_a_step_or_two_are_fitted(name: str, length: int) -> None:
    train, test = from_sequences([rng(i).integers(0, 50, (length, 2)) / 2 for i in range(30)])
    fields = SEQUENCE_MODELS[name].settings.__dataclass_fields__
    model = runs.build(name, train.spec, {k: v for k, v in SMALL.items() if k in fields})
    settings = likely.FitSettings(steps=1, batch_size=8, warmup=0)
    fitted = likely.fit(model, train, settings=settings, progress=False).model
    assert cast(SequenceDensity, fitted).sample(2, seed=0).shape == (2, length, 2)
    if name != "recurrent-gan":
        assert np.isfinite(step_nats(cast(SequenceDensity, fitted), test).value)


def test_the_density_is_that_of_the_numbers_that_are_known() -> None:
    """A change of unit moves the nats of a step by the numbers that are known of it, no others."""
    noise = rng(4).standard_normal((90, 2))
    noise[rng(5).random(noise.shape) < 0.4] = np.nan
    known = np.isfinite(noise[-18:]).sum(1)
    measured = []
    for unit in (1.0, 1000.0):
        train, test = from_sequences([unit * noise], name="noise")
        model = models.StateSpace(train.spec, latent=1, seed=0)
        model.start_at(train)
        odd = stretches(model, test, window=6, draws=5)
        filled = fill_gap(model, test, steps=(3, 9), draws=2)
        measured.append({
            "step": (step_nats(model, test).value, known.mean()),
            "window": (odd.nats, known.reshape(3, 6).sum(1)),
            "expected": (odd.expected, known.reshape(3, 6).sum(1)),
            "ahead": (steps_ahead(model, test, train, ahead=(1,)).nats[0], known),
            "observed": (filled.estimates[0].value, known.sum() - known[3:9].sum()),
        })  # fmt: skip
    for name, (before, count) in measured[0].items():
        after, _ = measured[1][name]
        assert after - before == pytest.approx(count * math.log(1000), abs=1e-3), name


def test_no_model_beats_the_law_that_drew_the_data() -> None:
    train, test = data.load("regimes")
    model = models.GRU(train.spec, hidden=16, step_hidden=16)
    settings = likely.FitSettings(steps=20, batch_size=16, learning_rate=0.01, ema=0.0)
    likely.fit(model, train, settings=settings, progress=False)
    scored = step_nats(model, test)
    truth = -regimes_log_prob(cast(Sequences, test))
    excess = scored.nats - truth
    assert excess.sum() > 0
    assert scored.value < 4.0  # equally likely levels have 6.4
    assert np.isfinite(scored.standard_error)
    assert scored.less(scored) == (0.0, 0.0)


# -- defects ---------------------------------------------------------------------------------


class SeesItself(models.GRU):
    """The state that predicts x_t has read x_t."""

    def scan(self, steps: Steps, state: State) -> tuple[Tensor, State]:
        inputs = self._inputs(steps.x, steps.known, steps.context)
        output, body = self.advance(inputs, state[2:])
        last = torch.cat([state[0][:, None], steps.x[:, :-1]], 1)
        from likely.density.sequence.within_step import Past

        past = Past(torch.cat([output, inputs], -1).flatten(0, 1), last.flatten(0, 1),
                    steps.known.flatten(0, 1))  # fmt: skip
        each = self.step.log_prob(past, steps.x.flatten(0, 1), steps.known.flatten(0, 1))
        return each.view_as(steps.scored) * steps.scored, (
            steps.x[:, -1],
            steps.known[:, -1],
            *body,
        )


class ScoresPadding(models.GRU):
    def steps(self, x: Tensor, context: Tensor | int | None = None) -> Steps:
        steps = super().steps(x, context)
        return steps._replace(
            scored=torch.ones_like(steps.scored), known=torch.ones_like(steps.known)
        )


class ForgetsAtBorders(models.GRU):
    def scan(self, steps: Steps, state: State) -> tuple[Tensor, State]:
        return super().scan(steps, self.begin(len(steps.x)))


@pytest.mark.parametrize(
    ("kind", "proof"),
    [
        (SeesItself, "each conditional sums to one"),
        (ScoresPadding, "no padding is scored"),
        (ForgetsAtBorders, "the state is kept over pieces"),
    ],
)
def test_defects_are_found(kind: type[models.GRU], proof: str) -> None:
    honest, train, test = built("gru", "keys", neighbours=0)
    model = kind(train.spec, honest.settings)
    model.load_state_dict(honest.state_dict())
    proofs = verify(model, test, train=train, quick=True)
    assert not proofs[proof].passed
    assert not proofs.passed
    with pytest.raises(ProofFailed):
        likely.nats(model, test)


def test_scales_from_the_test_period_are_found() -> None:
    model, train, test = built("gru", "mixed")
    whole = Sequences(**{**vars(train), "values": np.concatenate([train.values, test.values]),
        "offsets": np.array([*train.offsets, len(train.values) + len(test.values)]),
        "spec": SequenceSpec.from_json({**train.spec.to_json(), "n": len(train) + 1}),
        "lead": np.zeros(len(train) + 1, np.int64), "start": np.zeros(len(train) + 1, np.int64),
        "labels": None})  # fmt: skip
    model.start_at(whole)
    proofs = verify(model, test, train=train, quick=True)
    assert [proof.name for proof in proofs.failed] == ["scales are those of the training set"]


# -- the command -----------------------------------------------------------------------------


def test_fit_evaluate_verify_and_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "gru")
    small = ["--hidden", "8", "--step-hidden", "8", "--window", "40"]
    fit = ["fit", "gru", "--data", "regimes", "--steps", "6", "--out", run, "--json", *small]
    assert main(fit) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["finished"]
    assert main(["evaluate", run, "--json", "--split", "validation"]) == 0
    report = json.loads(capsys.readouterr().out)
    first = report["evaluations"]["validation"]["estimates"][0]
    assert (first["unit"], first["n"]) == ("nats/step", 2004)
    assert first["value"] == pytest.approx(said["best_validation_nats"], rel=1e-5)
    assert main(["verify", run, "--quick", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["passed"]
    table = tmp_path / "s.csv"
    sample = ["sample", run, "-n", "2", "--steps", "7", "-o", str(table), "--json"]
    assert main([*sample, "--npy", str(tmp_path / "s.npy")]) == 0
    capsys.readouterr()
    rows = table.read_text().splitlines()
    assert rows[0] == "series,t,mode,level"
    assert len(rows) == 15
    assert np.load(tmp_path / "s.npy").shape == (2, 7, 2)
    assert main(["sample", run, "--mean"]) == 2
    assert "for images" in capsys.readouterr().err
    assert main(["fit", "vae", "--data", "regimes", "--out", str(tmp_path / "v")]) == 2
    assert "holds sequences" in capsys.readouterr().err
    assert main(["fit", "gru", "--data", "digits", "--out", str(tmp_path / "v")]) == 2
    assert "takes sequences" in capsys.readouterr().err


def test_the_example_reads_a_table(tmp_path: Path) -> None:
    path = Path(__file__).parents[2] / "examples" / "own_series.py"
    names = runpy.run_path(str(path))
    table = names["house"](tmp_path / "house.csv")
    assert 0 < names["main"](str(table), 4) < 12
    assert table.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert len(path.read_text().splitlines()) <= 40


def test_a_fit_resumes_bit_for_bit(tmp_path: Path) -> None:
    train, _ = keys()
    weights = []
    for parts in ((6,), (3, 6)):
        out = tmp_path / f"{len(parts)}"
        for steps in parts:
            model = models.GRU(train.spec, **SMALL, dropout=0.3, transpose=1, neighbours=2)
            likely.fit(
                model, train, settings=likely.FitSettings(
                    steps=steps, batch_size=4, schedule="constant", warmup=0
                ), out=out, progress=False,
            )  # fmt: skip
        weights.append(model.state_dict())
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name
