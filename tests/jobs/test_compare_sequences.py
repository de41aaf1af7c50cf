"""Comparisons of sequences: relations, paired differences, pictures and sounds."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from likely import models
from likely.data import load
from likely.data.sequences import Sequences, from_sequences
from likely.errors import InvalidSetting
from likely.estimate import Relation, Verdict
from likely.evaluate.sequences.nats import step_nats
from likely.jobs.compare import CompareSettings, compare, models_for
from likely.jobs.compare_sequences import of_each_kind

job = importlib.import_module("likely.jobs.compare")
measuring = importlib.import_module("likely.jobs.evaluate")
FEW = CompareSettings(importance_samples=2)
SMALL = {"hidden": 4, "step_hidden": 4}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proofs and the calibration at their length have tests of their own."""
    monkeypatch.setattr(job, "verify", functools.partial(job.verify, quick=True))
    few = functools.partial(measuring.calibration, steps=10, draws=9)
    monkeypatch.setattr(measuring, "calibration", few)


def first(data: Sequences, count: int) -> Sequences:
    """Its first sequences."""
    spec = dataclasses.replace(data.spec, n=count)
    stop = int(data.offsets[count])
    return Sequences(spec, data.values[:stop], offsets=data.offsets[: count + 1])


def rolls() -> tuple[Sequences, Sequences]:
    random = np.random.default_rng(0)
    series = [(random.random((20, 3)) < 0.4).astype(np.uint8) for _ in range(60)]
    names = [f"key {60 + k}" for k in range(3)]
    kinds = dict.fromkeys(names, "binary")
    return from_sequences(series, columns=names, kinds=kinds, time_step="quarter")  # type: ignore[arg-type]


def test_models_of_every_kind_stand_in_one_report(tmp_path: Path) -> None:
    train, test = load("regimes")
    assert isinstance(train, Sequences)
    assert isinstance(test, Sequences)
    train, test = first(train, 24), first(test, 14)
    hmm = models.HMM(train.spec, states=3)
    gru = models.GRU(train.spec, **SMALL)
    srnn = models.SRNN(train.spec, **SMALL, latent=2)
    gan = models.RecurrentGAN(train.spec, hidden=4)
    for model in (hmm, gru, srnn, gan):
        model.start_at(train)
        model.eval()
    report = compare(hmm, gru, srnn, gan, data=(train, test), out=tmp_path, settings=FEW)
    table = report.comparison
    column = next(c for c in table.columns if (c.quantity, c.unit) == ("nll", "nats/step"))
    cells = [table.cells[name, column] for name in ("HMM", "GRU", "SRNN")]
    assert [cell.relation for cell in cells] == [Relation.EXACT, Relation.EXACT, Relation.UPPER]
    assert table.cells["RecurrentGAN", column].label == "no density"

    # The paired difference is that of the blocks.
    exact = sorted([step_nats(hmm, test), step_nats(gru, test)], key=lambda scored: scored.value)
    value, error = exact[1].less(exact[0])
    row = next(c for c in table.columns if c.quantity == "nll-difference")
    differences = [table.cells[name, row] for name in ("HMM", "GRU")]
    assert max(d.value for d in differences) == pytest.approx(value, rel=1e-9)
    assert max(d.standard_error for d in differences) == pytest.approx(error, rel=1e-9)
    assert min(d.value for d in differences) == 0.0
    assert table.cells["SRNN", row].relation is Relation.UPPER
    pairs = {frozenset((v.left, v.right)): v for v in table.verdicts if v.column == column}
    assert pairs[frozenset(("HMM", "GRU"))].paired
    # A bound that is not below an exact number decides nothing.
    if cells[2].value > min(cells[0].value, cells[1].value):
        best = "HMM" if cells[0].value < cells[1].value else "GRU"
        verdict = pairs[frozenset((best, "SRNN"))]
        assert verdict.comparison.verdict is Verdict.UNDECIDED
    errors = {f"{name}-error" for name in ("autocorrelation", "spectrum", "run-length")}
    assert {e.quantity for e in table.floor} == {"window-energy", *errors}
    assert all(e.relation is Relation.APPROXIMATE and e.standard_error > 0 for e in table.floor)

    page = (tmp_path / "report.html").read_text()
    # Draws and forecasts; a GAN continues nothing.
    assert page.count('class="plotted"') >= 2 * 4 + 3 + 1
    assert "micro average over all steps" in page
    record = json.loads((tmp_path / "report.json").read_text())
    assert [m["name"] for m in record["models"]] == ["HMM", "GRU", "SRNN", "RecurrentGAN"]
    assert (tmp_path / "sheets" / "recurrentgan.png").read_bytes()[:4] == b"\x89PNG"
    assert not (tmp_path / "sounds").exists()


def test_music_is_written_to_be_heard(tmp_path: Path) -> None:
    train, test = rolls()
    model = models.HMM(train.spec, states=2)
    model.start_at(train)
    compare(model.eval(), data=(train, test), out=tmp_path, settings=FEW)
    assert (tmp_path / "sounds" / "hmm.mid").read_bytes()[:4] == b"MThd"
    assert (tmp_path / "sounds" / "hmm.wav").read_bytes()[:4] == b"RIFF"
    assert 'href="sounds/hmm.wav"' in (tmp_path / "report.html").read_text()


def test_names_are_checked_before_anything_is_fitted() -> None:
    train, _ = load("regimes")
    assert models_for(train, ()) == ("hmm", "var", "gru", "srnn", "recurrent-gan")
    assert "var" not in of_each_kind(rolls()[0].spec)
    with pytest.raises(InvalidSetting, match='did you mean "tcn"'):
        models_for(train, ("tcnn",))
    with pytest.raises(InvalidSetting, match="vae is a model of images"):
        models_for(train, ("hmm", "vae"))
    with pytest.raises(InvalidSetting, match="gru is a model of sequences"):
        models_for(load("digits")[0], ("gru",))
