"""The examples of dynamic programming run, and their answers are right by other means."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_shortest_path_agrees_with_dijkstra(capsys: pytest.CaptureFixture[str]) -> None:
    example = runpy.run_path(str(EXAMPLES / "shortest_path.py"))
    path, length = example["route"]("Arad")
    assert path == ["Arad", "Sibiu", "Rimnicu Vilcea", "Pitesti", "Bucharest"]
    assert length == pytest.approx(418.0)
    for city in example["neighbours"]():
        if city != "Bucharest":
            assert example["route"](city)[1] == pytest.approx(example["dijkstra"](city))
    example["main"]()
    out = capsys.readouterr().out
    assert "agrees with Dijkstra" in out
    assert "DIFFERS" not in out


def test_knapsack_agrees_with_all_packings(capsys: pytest.CaptureFixture[str]) -> None:
    example = runpy.run_path(str(EXAMPLES / "knapsack.py"))
    taken, worth, states = example["pack"]()
    weights = {name: (weight, value) for name, weight, value in example["ITEMS"]}
    assert sum(weights[name][0] for name in taken) <= example["ROOM"]
    assert sum(weights[name][1] for name in taken) == pytest.approx(worth)
    assert worth == pytest.approx(example["brute_force"]())
    assert states < 2 ** len(weights) / 10
    example["main"]()
    assert "instead of 4096 packings" in capsys.readouterr().out


def test_gridworld_is_solved_simulated_and_painted(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    example = runpy.run_path(str(EXAMPLES / "gridworld.py"))
    value = example["main"](str(tmp_path / "island.png"))
    out = capsys.readouterr().out
    assert "converged" in out
    assert (tmp_path / "island.png").is_file()
    low, high = (float(x) for x in out.split("95 % confidence [")[1].split("]")[0].split(","))
    spread = high - low
    assert low - spread <= value <= high + spread


def test_examples_are_short() -> None:
    for name in ("shortest_path", "knapsack", "gridworld"):
        assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) <= 150
