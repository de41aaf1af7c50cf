"""Forecasts: known quantiles, the clock that goes on, what is compared with what."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

import likely
from likely import models
from likely.ask import Guarantee
from likely.cli import main
from likely.data.sequences import Sequences, from_sequences
from likely.data.sequences.like import read_like
from likely.errors import InvalidData, InvalidSetting
from likely.evaluate.sequences.forecast import QUANTILES, forecast
from likely.report.forecast import forecast_figure


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_quantiles_of_an_autoregression() -> None:
    """h steps ahead: mean 0.9^h x, variance sum of 0.81^i."""
    series = np.zeros(4000)
    noise = rng(1).standard_normal(4000)
    for t in range(1, 4000):
        series[t] = 0.9 * series[t - 1] + noise[t]
    train, test = from_sequences([np.round(series, 1)], name="ar1", time_step="hour")
    model = models.StateSpace(train.spec, latent=1, seed=0)
    model.start_at(train)
    drawn = forecast(model, test, horizon=6, at=100, draws=1500)
    assert drawn.draws.shape == (1500, 6, 1)
    last = drawn.past[-1, 0]
    assert np.array_equal(drawn.truth[:, 0], cast(Sequences, test).numbers(0)[1024 + 100 :][:6, 0])
    for h in (1, 3, 6):
        spread = np.sqrt((0.81 ** np.arange(h)).sum())
        wanted = 0.9**h * last + spread * np.array([-1.6449, -0.6745, 0, 0.6745, 1.6449])
        assert drawn.quantiles[:, h - 1, 0] == pytest.approx(wanted, abs=0.25)
    assert len(QUANTILES) == len(drawn.quantiles)
    assert 0 <= drawn.covered <= 1
    end = forecast(model, test, horizon=3, at=800, draws=2)
    assert np.isnan(end.truth).all()
    assert np.isnan(end.covered)
    assert end.rows()[0]["truth"] is None
    for wrong in ({"at": 801}, {"series": 1}):
        with pytest.raises(InvalidSetting):
            forecast(model, test, **wrong)
    assert likely.answers(model)["forecast"].guarantee is Guarantee.EXACT


def test_the_clock_and_covariates_go_on() -> None:
    """A wave of the clock alone: its forecast keeps the phase of the split."""
    hours = np.arange(600)
    day = np.round(30 * np.cos(hours * (2 * np.pi / 24) + 1))
    wave = day + rng(2).integers(0, 2, 600)
    train, test = from_sequences([wave], name="days", clock=(24,), split=(350, 100))
    model = models.VAR(train.spec, lags=2, components=1)
    model.start_at(train)
    drawn = forecast(model, test, horizon=48, at=5, draws=20)
    middle = drawn.quantiles[2, :, 0]
    assert np.corrcoef(middle, drawn.truth[:, 0])[0, 1] > 0.98
    known, known_test = from_sequences(
        [wave], name="days", covariates=[day], covariate_names=("day",), split=(350, 100)
    )
    told = models.VAR(known.spec, lags=1, components=1)
    told.start_at(known)
    drawn = forecast(told, known_test, horizon=48, at=5, draws=20)
    assert np.abs(drawn.quantiles[2, :, 0] - drawn.truth[:, 0]).max() <= 2
    with pytest.raises(InvalidData, match="covariates day of steps after the end"):
        forecast(told, known_test, horizon=48, at=120)


def test_rolls_are_drawn_as_rolls(tmp_path: Path) -> None:
    rolls = [(rng(i).random((12, 20)) < 0.2).astype(np.uint8) for i in range(8)]
    kinds = {f"x{k}": "binary" for k in range(20)}
    train, test = from_sequences(rolls, kinds=kinds, name="rolls")  # type: ignore[arg-type]
    model = models.HMM(train.spec, states=2)
    model.start_at(train)
    figure = forecast_figure(forecast(model, test, horizon=4, draws=5), "rolls")
    assert [axes.get_ylabel() for axes in figure.axes] == ["key"] * 3


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "var")
    assert main(["fit", "var", "--data", "regimes", "--lags", "1", "--out", run, "--json"]) == 0
    capsys.readouterr()
    table, plot = tmp_path / "f.csv", tmp_path / "var" / "samples" / "forecast.png"
    words = ["forecast", run, "--horizon", "4", "--at", "9", "-n", "20", "--series", "2"]
    assert main([*words, "-o", str(table), "--plot"]) == 0
    said = capsys.readouterr().out
    assert "after 9 of its steps; 20 draws of var, exact" in said
    rows = list(csv.DictReader(table.open()))
    assert len(rows) == 8
    assert (rows[0]["step"], rows[0]["column"], rows[1]["column"]) == ("9", "mode", "level")
    assert rows[0]["likeliest"] in ("calm", "rising", "storm")
    assert float(rows[1]["q05"]) <= float(rows[1]["q95"])
    assert plot.read_bytes()[:4] == b"\x89PNG"
    assert main([*words, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["guarantee"], len(record["rows"])) == ("exact", 8)
    assert main(["forecast", run, "--at", "900"]) == 2
    assert "steps: given --at 900" in capsys.readouterr().err
    with torch.no_grad():
        model = cast(models.VAR, likely.load(run).model)
        again = forecast(model, likely.load(run).test, horizon=4, at=9, draws=20, series=2)
    assert again.rows() == record["rows"]


def test_gaps_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "hmm")
    fit = ["fit", "hmm", "--data", "regimes", "--states", "3", "--bins", "8", "--steps", "2"]
    assert main([*fit, "--out", run, "--json"]) == 0
    capsys.readouterr()
    model = cast(models.HMM, likely.load(run).model)
    rows = ["series,t,mode,level"]
    names, level = model.spec.columns[0].names, model.spec.columns[1]
    for series in ("b", "a"):
        for t in range(9):
            mode = "" if t == 3 and series == "a" else names[t % 3]
            number = "" if t in (3, 5) and series == "a" else f"{level.numbers(150 + t):.10g}"
            rows.append(f"{series},{t},{mode},{number}")
    file, table, plot = tmp_path / "mine.csv", tmp_path / "g.csv", tmp_path / "g.png"
    file.write_text("\n".join(rows) + "\n")
    words = ["complete", run, str(file), "--series", "1", "-n", "30"]
    assert main([*words, "-o", str(table), "--plot", str(plot)]) == 0
    said = capsys.readouterr().out
    assert "3 values missing in steps 3 to 5" in said
    assert "exact: forward filtering, backward sampling" in said
    out = list(csv.DictReader(table.open()))
    assert [(row["step"], row["column"]) for row in out] == [
        ("3", "mode"), ("3", "level"), ("5", "level")
    ]  # fmt: skip
    assert out[0]["likeliest"] in names
    assert plot.read_bytes()[:4] == b"\x89PNG"
    # Named steps of what is known: the truth is beside them, and its nats.
    assert main([*words[:-4], "--series", "0", "--steps", "2:4", "-n", "9", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [row["step"] for row in record["rows"]] == [2, 2, 3, 3]
    assert [e["quantity"] for e in record["estimates"]] == ["nll-observed", "nll-missing", "nll"]
    read = read_like(file, model.spec)
    assert read[0].tolist()[4] == [1, 154]
    assert read.spec.missing == 3
    for change, says in (
        ((f"{names[0]},{level.numbers(150):.10g}", "rain,1"), "column mode, row 0"),
        ((f",{level.numbers(152):.10g}", ",1e9"), "row 2: 1000000000 is not on the lattice"),
        (("b,1,", "b,0,"), "row 1: column t does not ascend"),
        (("mode", "kind"), "no column mode"),
    ):
        broken = tmp_path / "broken.csv"
        broken.write_text(file.read_text().replace(*change, 1))
        assert main(["complete", run, str(broken)]) == 2
        assert says in capsys.readouterr().err
    assert main([*words[:-4], "--series", "0"]) == 2
    assert "nothing is missing in series 0" in capsys.readouterr().err
    assert main([*words, "--rows", "0:1"]) == 2
    assert "--rows is of images" in capsys.readouterr().err
