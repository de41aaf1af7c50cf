"""Sequences as files: bit for bit, as long as the likelihood says; a flipped bit is found."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from torch import Tensor

import likely
from likely import models
from likely.ask import Guarantee, compress, decompress
from likely.ask.codec import over_time
from likely.cli import main
from likely.data.sequences import from_sequences
from likely.data.sequences.spec import MISSING, PADDING, unscored
from likely.density import SequenceDensity
from likely.errors import InvalidData, InvalidSetting
from tiny_sequences import tiny


def series(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((12 + seed, 3))
    noise[:, 0] = np.round(noise[:, 0].cumsum(), 1)
    noise[:, 2] = noise[:, 2] > 0
    noise[5, 0] = np.nan
    return noise


def walks() -> tuple[SequenceDensity, Tensor]:
    """A lattice, numbers of many digits and a switch; one value missing in each."""
    train, _ = from_sequences([series(i) for i in range(5)], name="walks", clock=(4,))
    model = models.GRU(train.spec, hidden=6, step_hidden=5, components=2).eval()
    model.start_at(train)
    return model, torch.from_numpy(train.batch(slice(None)).x)


@torch.no_grad()
def test_a_file_is_as_long_as_the_likelihood_and_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x = walks()
    assert likely.answers(model)["compress"].guarantee is Guarantee.EXACT
    assert {PADDING, MISSING} <= set(x.flatten().tolist())
    whole = compress(model, x)
    assert torch.equal(decompress(model, whole.content).x, x)
    claimed = -float(model.log_prob(x).sum()) / math.log(2)
    assert whole.claimed == pytest.approx(claimed, rel=1e-6)
    assert abs(whole.stream - claimed) < 64 * whole.blocks + 1e-3 * claimed
    given = x.clone()
    given[:, :8] = torch.from_numpy(unscored(x[:, :8].numpy()))
    assert compress(model, given).claimed == pytest.approx(claimed, rel=1e-6)  # written, too
    # In small pieces of time, two sequences side by side.
    monkeypatch.setattr(over_time, "IN_MEMORY", 40_000)
    pieces = compress(model, x, block=2)
    assert pieces.blocks > 4
    back = decompress(model, pieces.content)
    assert torch.equal(back.x, x)
    other = models.GRU(model.spec, hidden=6, step_hidden=5, components=2)
    with pytest.raises(InvalidSetting, match="with weights"):
        decompress(other, pieces.content)
    for place in np.linspace(0, len(pieces.content) - 1, 7).astype(int):
        broken = bytearray(pieces.content)
        broken[place] ^= 16
        with pytest.raises(InvalidData):
            decompress(model, bytes(broken))


@torch.no_grad()
def test_long_streams_cost_no_more_than_a_thousandth_over_the_claim() -> None:
    model = tiny()["hmm"]
    x = model.sample(40, steps=60, seed=1)
    done = compress(model, x)
    assert torch.equal(decompress(model, done.content).x, x)
    assert done.stream - done.claimed < 1e-3 * done.claimed + 64


def test_files_come_back_bit_for_bit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fit = ["fit", "hmm", "--data", "regimes", "--states", "3", "--bins", "8", "--steps", "1"]
    assert main([*fit, "--out", "hmm", "--json"]) == 0
    columns = likely.load("hmm").model.spec.columns  # type: ignore[attr-defined]
    names, level = columns[0].names, columns[1]
    rows = ["note;reading;level;mode;who"]
    for series_name in ("b", "a"):
        for t in range(6):
            mode = "" if t == 3 else names[t % 3]
            number = "NA" if t == 4 else f"{level.numbers(150 + t):.3f}"
            rows.append(f"wet;{t};{number};{mode};{series_name}")
    rows[3] = rows[3].replace("wet", "dry")
    rows.append(f" ;6;{level.numbers(151):.6f};{names[0]};a")
    text = "\r\n".join(rows) + "\n\n"
    Path("mine.csv").write_bytes(text.encode())
    named = ["--time-column", "reading", "--series-column", "who"]
    assert main(["compress", "hmm", "mine.csv", "-o", "mine.likely", *named]) == 0
    said = capsys.readouterr().out
    assert "names, times and how the numbers are printed" in said
    assert main(["decompress", "mine.likely", "-o", "again.csv"]) == 0
    assert Path("again.csv").read_bytes() == text.encode()
    # Arrays: names, types and values.
    rolls = [(np.random.default_rng(i).random((5 + i, 3)) < 0.4).astype(np.uint8) for i in range(4)]
    cells = {f"{part}data": np.empty((1, 2), object) for part in ("train", "valid", "test")}
    for part in cells.values():
        part[0, :] = rolls[:2]
    scipy.io.savemat("rolls.mat", cells)
    assert main(["fit", "hmm", "--data", "rolls.mat", "--states", "2", "--steps", "1", "--out",
                 "keys", "--json"]) == 0  # fmt: skip
    capsys.readouterr()
    assert main(["compress", "keys", "rolls.mat", "-o", "rolls.likely", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["values"] == 3 * (5 + 6) * 3
    assert main(["decompress", "rolls.likely", "-o", "back.mat"]) == 0
    back = scipy.io.loadmat("back.mat")
    for name, part in cells.items():
        assert all(np.array_equal(a, b) for a, b in zip(back[name][0], part[0], strict=True))
    numbers = np.concatenate(rolls[:2])
    arrays = {"x": numbers.astype(np.float32), "len": np.array([5, 6]), "y": np.array(["u", "v"])}
    np.savez("rolls.npz", **arrays)  # type: ignore[arg-type]
    assert main(["compress", "keys", "rolls.npz", "-o", "npz.likely"]) == 0
    assert main(["decompress", "npz.likely", "-o", "back.npz"]) == 0
    with np.load("back.npz") as archive:
        assert {k: (v.dtype, v.tolist()) for k, v in archive.items()} == {
            k: (v.dtype, v.tolist()) for k, v in arrays.items()
        }
    capsys.readouterr()
    Path("quoted.csv").write_text(text.replace("wet", '"wet"'))
    assert main(["compress", "hmm", "quoted.csv", "-o", "q.likely"]) == 2
    assert "cells in quotes" in capsys.readouterr().err
    assert main(["decompress", "mine.likely", "-o", "x.csv", "--run", "keys"]) == 2
    assert "weights" in capsys.readouterr().err
