"""Ctrl-C during a solve: alone it gives bounds, inside something larger it ends the whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from mdp_examples import TIGER

from likely import mdp, world
from likely.cli import main
from likely.mdp.beliefs import bounds
from likely.mdp.discounted import task
from likely.mdp.draw.comparison import converge
from likely.mdp.kernels.engine import StoredEngine
from likely.mdp.undiscounted import zero_gain


@pytest.fixture
def solves(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Each solve of a discounted problem gets Ctrl-C at its first step; one entry each."""
    drive, begun = task.drive, list[int]()

    def interrupted(solved: task.Task) -> Iterator[None]:
        begun.append(1)
        if begun:
            raise KeyboardInterrupt
        yield

    monkeypatch.setattr(task, "drive", lambda solved, _, limits: drive(solved, interrupted, limits))
    return begun


LOG = world.collect("cartpole", n=60, seed=0)
LARGER: dict[str, Callable[[], Any]] = {
    "a comparison of methods": lambda: converge(mdp.load("frozen-lake", discount=0.9).mdp, 1e-6),
    "a plan on a grid": lambda: world.plan(world.fit(LOG), (3, 3, 3, 3)),
    "a plan on codes": lambda: world.codes_plan(LOG),
    "a plan on neighbours": lambda: world.neighbours_plan(LOG),
    "a plan on kernels": lambda: world.kernel_plan(LOG),
}


@pytest.mark.parametrize("name", LARGER)
def test_it_ends_what_the_solve_is_a_part_of(name: str, solves: list[int]) -> None:
    with pytest.raises(KeyboardInterrupt):
        LARGER[name]()
    assert len(solves) == 1


@pytest.mark.parametrize("at", [1, 2, 9, 40])
def test_the_bounds_on_beliefs_before_it_hold(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the middle of a backup from above, after the corner has moved and the gains have not."""
    path, backup = tmp_path / "tiger.pomdp", bounds.Above.backup
    path.write_text(TIGER)
    calls: list[int] = []

    def interrupted(above: bounds.Above, belief: Any) -> bool:
        calls.append(1)
        if len(calls) == at:
            above.corner = above.corner - 1e3
            raise KeyboardInterrupt
        return backup(above, belief)

    monkeypatch.setattr(bounds.Above, "backup", interrupted)
    assert main(["mdp", "beliefs", str(path), "--json"]) == 130
    told = capsys.readouterr()
    record = json.loads(told.out)
    assert record["lower"] <= 1.933440 <= record["upper"]
    assert record["status"].startswith("interrupted after")
    assert told.err.splitlines()[-1] == "likely: interrupted"
    calls.clear()
    solved = mdp.solve_beliefs(mdp.POMDP.from_file(path), 1e-3)
    assert solved.interrupted
    start = solved.pomdp.start[None]
    assert (solved.below(start)[0], solved.above(start)[0]) == (solved.lower, solved.upper)


def test_it_ends_the_command_that_plays_the_best_policy(
    solves: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["mdp", "simulate", "frozen-lake", "--policy", "optimal"]) == 130
    assert capsys.readouterr() == ("", "likely: interrupted\n")


def test_a_plan_that_was_there_is_kept(
    tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pole"
    assert main(["world", "fit", "cartpole", "--transitions", "50", "--out", str(out)]) == 0
    words = ["world", "plan", str(out), "--grid", "3x3x3x3", "--episodes", "2"]
    assert main(words) == 0
    before = (out / "plan.npz").read_bytes()
    capsys.readouterr()
    request.getfixturevalue("solves")
    assert main(words) == 130
    assert capsys.readouterr() == ("", "likely: interrupted\n")
    assert (out / "plan.npz").read_bytes() == before


def test_a_solve_alone_prints_and_writes_its_bounds_and_says_130(
    solves: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "lake.npz"
    assert main(["mdp", "solve", "frozen-lake", "--out", str(out), "--json"]) == 130
    printed = capsys.readouterr()
    assert json.loads(printed.out)["outcome"] == "interrupted"
    assert printed.err == "likely: interrupted\n"
    assert out.is_file()


def test_it_is_not_taken_for_bounds_on_a_cycle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a cycle pays is decided by a solve within; half of one decides nothing."""

    residual, calls = StoredEngine.residual, list[int]()

    def interrupted(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return residual(*arguments)

    monkeypatch.setattr(StoredEngine, "residual", interrupted)
    part = [0, 1]
    moves: list[list[zero_gain.Row]] = [
        [(Fraction(-1), {1: Fraction(1)})],
        [(Fraction(-1), {0: Fraction(1)})],
    ]
    with pytest.raises(KeyboardInterrupt):
        zero_gain._average(part, moves)
