"""Odd stretches: p-values that are uniform for the model's own data, and a stretch that is odd."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

from likely.cli import main
from likely.data.sequences import Sequences, from_sequences
from likely.errors import InvalidSetting
from likely.evaluate.sequences.odd import stretches
from tiny_sequences import tiny


def drawn(name: str, changed: bool = False) -> Sequences:
    x = tiny()[name].sample(34, steps=22, seed=5).numpy().astype(np.uint8)
    if changed:
        x[3, 8:16] = 1 - x[3, 8:16]
    train, _ = from_sequences(
        list(x), kinds={"x0": "binary", "x1": "binary"}, name="tiny", split=(32, 1)
    )
    return train


@pytest.mark.parametrize("name", ["hmm", "gru"])
def test_p_values_of_the_models_own_draws_are_uniform(name: str) -> None:
    model = tiny()[name]
    result = stretches(model, drawn(name), window=8, draws=19)
    assert len(result.p) == 32 * 3  # the last has 6 steps
    assert scipy.stats.kstest(result.p, "uniform").pvalue > 0.01
    total = sum(float(part.sum()) for part in result.per_step)
    x = torch.from_numpy(drawn(name).batch(slice(None)).x)
    assert total == pytest.approx(-float(model.log_prob(x).detach().sum()), rel=1e-6)
    assert result.nats.sum() == pytest.approx(total)
    assert np.abs(result.excess.mean()) < 4 / np.sqrt(len(result.p))


def test_a_stretch_that_is_odd_comes_first() -> None:
    model = tiny()["gru"]
    result = stretches(model, drawn("gru", changed=True), window=8, draws=19)
    first = result.rows()[0]
    assert (first["series"], first["first"], first["last"]) == (3, 8, 15)
    assert first["p"] <= 0.05
    assert first["excess"] > 3
    with pytest.raises(InvalidSetting, match="windows of 0 steps"):
        stretches(model, drawn("gru"), window=0)


def test_a_file_is_scored_with_its_times(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "level.csv"
    hours = np.arange("2024-01-01T00", "2024-01-05T08", dtype="datetime64[h]")
    level = np.sin(np.arange(len(hours)) / 4).round(1)
    level[90:94] = [0.9, -0.9, 0.9, -0.9]
    lines = [f"{str(h).replace('T', ' ')}:00:00,{v}" for h, v in zip(hours, level, strict=True)]
    file.write_text("\n".join(["date,level", *lines]) + "\n")
    run = str(tmp_path / "var")
    fit = ["fit", "var", "--data", str(file), "--lags", "4", "--rounds", "1"]
    assert main([*fit, "--out", run, "--json"]) == 0
    capsys.readouterr()
    table, plot = tmp_path / "s.csv", tmp_path / "odd.png"
    words = ["score", run, str(file), "--window", "8", "--draws", "9", "--shown", "3"]
    assert main([*words, "-o", str(table), "--plot", str(plot), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["windows"] == 13
    oddest = record["stretches"][0]
    assert oddest["from"] <= "2024-01-04 19:00:00" <= oddest["to"]
    assert len(table.read_text().splitlines()) == 1 + len(hours)
    assert plot.read_bytes()[:4] == b"\x89PNG"
    assert main([*words[:2], "test", "--window", "8"]) == 0
    assert "windows of 8" in capsys.readouterr().out
    assert main([*words, "--regret"]) == 2
    assert "are of images" in capsys.readouterr().err
