"""Damaged files: whatever is cut, doubled or replaced, the answer is an MDP or one clear line."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from likely.errors import LikelyError
from likely.mdp import worlds
from likely.mdp.files.loading import load
from likely.mdp.model.world import World

GRID = "; maze\ndiscount: 0.9\nslip: 1/10\nC = back -9\nJ = jump b 2\n\n#S.C\n.#J.\nb..G\n"
CASSANDRA = (
    "discount: 0.9\nvalues: reward\nstates: a b\nactions: stay go\nobservations: x y\n"
    "start: 0.5 0.5\nT: stay identity\nT: go : a\n0.25 0.75\nT: go : b : a 1.0\n"
    "O: * identity\nR: * : a : * : * 1\nR: go : b : a : x 5\n"
)
TRA = "3 4 6\n0 0 0 0.5\n0 0 1 0.5\n0 1 2 1\n1 0 1 1\n2 0 1 0.5\n2 0 2 0.5\n"
LAB = '0="init" 1="done"\n0: 0\n1: 1\n'
REWARD = "3 4 2\n0 0 1 8\n0 1 2 3\n"

WORDS = st.sampled_from(
    [
        "-1",
        "0",
        "2",
        "1e999",
        "nan",
        "inf",
        ":",
        "*",
        "T",
        "R:",
        "#",
        "\u2192",
        "=",
        "jump",
        "99999",
    ]
)


@st.composite
def damaged(draw: st.DrawFn, text: str) -> str:
    """A text after up to three accidents."""
    for _ in range(draw(st.integers(1, 3))):
        lines = text.splitlines() or [""]
        at = draw(st.integers(0, len(lines) - 1))
        words = lines[at].split() or [""]
        word = draw(st.integers(0, len(words) - 1))
        accident = draw(st.sampled_from(["drop line", "double", "cut", "replace", "drop word"]))
        if accident == "drop line":
            del lines[at]
        elif accident == "double":
            lines.insert(at, lines[at])
        elif accident == "cut":
            lines = [*lines[:at], lines[at][: draw(st.integers(0, len(lines[at])))]]
        elif accident == "replace":
            words[word] = draw(WORDS)
            lines[at] = " ".join(words)
        else:
            del words[word]
            lines[at] = " ".join(words)
        text = "\n".join(lines) + "\n"
    return text


def attempt(path: Path, options: dict[str, Any]) -> World | None:
    """The world, or None after one clear line."""
    said = ""
    try:
        return load(path, **options)
    except LikelyError as error:
        said = str(error)
    assert said
    assert "\n" not in said
    return None


def check(files: dict[str, str], options: dict[str, Any]) -> None:
    """The first file is read as a world."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        world = attempt(Path(folder) / next(iter(files)), options)
    if world is None:
        return
    sums = np.add.reduceat(world.mdp.probability, world.mdp.indptr[:-1])
    assert np.abs(sums - 1.0).max() < 1e-9
    assert np.isfinite(world.mdp.reward).all()
    assert 0.0 < world.mdp.discount <= 1.0


@settings(max_examples=60, deadline=None)
@given(damaged(GRID))
def test_damaged_grids(text: str) -> None:
    check({"g.txt": text}, {})


@settings(max_examples=60, deadline=None)
@given(damaged(CASSANDRA))
def test_damaged_cassandra(text: str) -> None:
    check({"m.pomdp": text}, {"underlying": True})


@settings(max_examples=60, deadline=None)
@given(damaged(TRA), damaged(LAB), damaged(REWARD))
def test_damaged_explicit(tra: str, lab: str, reward: str) -> None:
    check({"m.tra": tra, "m.lab": lab, "m.trew": reward}, {"target": "done"})


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([".npz", ".txt", ".tra", ".pomdp", ".grid"]))
def test_noise(noise: bytes, kind: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"noise{kind}"
        path.write_bytes(noise)
        attempt(path, {})


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1), st.integers(0, 255), st.booleans())
def test_damaged_npz(place: float, byte: int, cut: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.npz"
        worlds.build("inventory").mdp.save(path)
        data = bytearray(path.read_bytes())
        at = min(int(place * len(data)), len(data) - 1)
        data[at] = byte
        path.write_bytes(data[:at] if cut else data)
        attempt(path, {})
