"""`likely mdp`: what it prints, what it writes, and one clear line for each mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mdp_examples import TIGER
from PIL import Image

from likely.cli import main
from likely.cli.mdp import ACTIONS, EXAMPLE, EXAMPLES
from likely.cli.mdp.actions import _frames
from likely.cli.mdp.answers import at_start, plain
from likely.cli.mdp.terminal import interval
from likely.mdp import worlds

Capture = pytest.CaptureFixture[str]


def run(arguments: Sequence[str]) -> int:
    return main(["mdp", *arguments])


def answer(capsys: Capture, *arguments: str) -> dict[str, Any]:
    assert run([*arguments, "--json"]) == 0
    out = capsys.readouterr()
    assert out.err == ""
    record: dict[str, Any] = json.loads(out.out)
    return record


def complaint(capsys: Capture, *arguments: str) -> str:
    assert run(arguments) == 2
    out = capsys.readouterr()
    assert out.out == ""
    assert out.err.count("\n") == 1
    assert out.err.startswith("likely: error: ")
    return out.err


def test_solve_as_json(capsys: Capture) -> None:
    found = answer(capsys, "solve", "frozen-lake", "--discount", "0.99", "--tolerance", "1e-8")
    assert (found["states"], found["discount"], found["outcome"]) == (16, 0.99, "converged")
    assert found["error_bound"] <= 1e-8
    assert found["value"][0] == pytest.approx(0.542026, abs=5e-7)
    assert found["lower"][0] <= found["value"][0] <= found["upper"][0]
    assert found["start"]["value"] == found["value"][0]
    assert found["policy"][5] == -1


def test_solve_for_people(capsys: Capture) -> None:
    assert run(["solve", "frozen-lake", "--method", "policy-iteration"]) == 0
    out = capsys.readouterr().out
    assert "16 states (5 terminal), 44 state-action pairs" in out
    assert "converged after" in out
    assert "|V - V*| <=" in out
    assert "from the start: V* in [0.5420" in out
    assert "greedy policy" in out
    assert out.count("↑") >= 4
    assert "0.54203" in out


def test_states_without_a_grid_are_a_table(capsys: Capture) -> None:
    assert run(["solve", "inventory"]) == 0
    out = capsys.readouterr().out
    assert "stock 0" in out
    assert "order 3" in out
    assert run(["solve", "garnet", "--size", "50x3x4", "--seed", "1"]) == 0
    assert "... and 30 more states" in capsys.readouterr().out


def test_finite_horizon_is_putermans_inventory(capsys: Capture) -> None:
    found = answer(capsys, "solve", "inventory", "--horizon", "3", "--discount", "1")
    assert [16 * v for v in found["value"][0]] == [67, 129, 194, 227]
    assert run(["solve", "inventory", "--horizon", "3", "--discount", "1"]) == 0
    assert "4.1875" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["solution.npz", "solution.json"])
def test_a_solution_is_written_and_certified(capsys: Capture, tmp_path: Path, name: str) -> None:
    path = str(tmp_path / name)
    solved = answer(capsys, "solve", "frozen-lake", "--out", path)
    checked = answer(capsys, "certify", "frozen-lake", "--value", path)
    # The value that is saved proves the default tolerance by itself.
    assert checked["error_bound"] <= 1e-6
    played = answer(capsys, "simulate", "frozen-lake", "--policy", path, "--episodes", "2000")
    assert played["interval"][0] <= solved["start"]["value"] <= played["interval"][1]
    same = answer(capsys, "evaluate", "frozen-lake", "--policy", path)
    assert same["values"][0]["value"][0] == pytest.approx(solved["value"][0], abs=1e-5)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_the_arrows_of_a_minimum_are_those_of_its_policy(capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "row.txt"
    path.write_text("discount: 0.9\nstep: -1\n\nS.G\n...\n")
    assert run(["solve", str(path), "--objective", "min"]) == 0
    first = capsys.readouterr().out.splitlines()[-2]
    # Beside the goal every way but into it is as bad as can be; into it ends the cost.
    assert first.split()[-2:] == ["←↑↓", "G"]


def test_a_minimum_is_certified_as_one(capsys: Capture, tmp_path: Path) -> None:
    path = str(tmp_path / "solution.npz")
    answer(capsys, "solve", "forest", "--objective", "min", "--out", path)
    checked = answer(capsys, "certify", "forest", "--objective", "min", "--value", path)
    assert (checked["objective"], checked["error_bound"] <= 1e-6) == ("min", True)
    wrong = answer(capsys, "certify", "forest", "--value", path)
    assert (wrong["objective"], wrong["error_bound"] > 1.0) == ("max", True)


def test_a_wrong_value_gets_a_wide_bound(capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "guess.json"
    path.write_text(json.dumps({"value": [0.0] * 16}))
    checked = answer(capsys, "certify", "frozen-lake", "--value", str(path))
    assert checked["error_bound"] >= 0.8  # V* is 0.86 beside the goal
    assert run(["certify", "frozen-lake", "--value", str(path)]) == 0
    assert "acting greedily in V loses at most" in capsys.readouterr().out


def test_the_lectures_figure(capsys: Capture, tmp_path: Path) -> None:
    arguments = ["evaluate", "small-gridworld", "--policy", "uniform", "--sweeps", "0,1,2,3,10,inf"]
    found = answer(capsys, *arguments)
    assert [row["sweeps"] for row in found["values"]] == ["0", "1", "2", "3", "10", "inf"]
    assert found["values"][3]["value"][:4] == [0, -2.4375, -2.9375, -3]
    assert found["values"][5]["value"][:4] == pytest.approx([0, -14, -20, -22])
    figure = tmp_path / "figure.png"
    assert run([*arguments, "--plot", str(figure)]) == 0
    out = capsys.readouterr().out
    for text in ("k = 0", "k = 10", "k = ∞", "-8.9673", "-22", "←↑→↓"):
        assert text in out
    with Image.open(figure) as picture:
        assert picture.width > 800


def test_counted_states_are_drawn_as_contours(capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "jack.png"
    assert run(["solve", "jacks-car-rental", "--size", "6", "--plot", str(path)]) == 0
    with Image.open(path) as picture:
        assert picture.width > picture.height  # the policy beside the value
    assert "move 0" in capsys.readouterr().out


def test_an_action_is_a_policy(capsys: Capture) -> None:
    found = answer(capsys, "evaluate", "seven-states", "--policy", "left")
    assert found["values"][0]["value"] == pytest.approx([10, 5, 2.5, 1.25, 0.625, 0.3125, 10.15625])


def test_methods_agree_and_are_drawn(capsys: Capture, tmp_path: Path) -> None:
    plot = tmp_path / "methods.png"
    found = answer(
        capsys, "methods", "frozen-lake", "--methods", "value-iteration,policy-iteration",
        "--plot", str(plot),
    )  # fmt: skip
    assert [m["method"] for m in found["methods"]] == ["value-iteration", "policy-iteration"]
    for method in found["methods"]:
        assert method["error_bound"][-1] <= 1e-6
        assert method["sweeps"] == sorted(method["sweeps"])
    assert found["methods"][1]["sweeps"][-1] < found["methods"][0]["sweeps"][-1]
    assert plot.is_file()
    assert run(["methods", "forest", "--methods", "gauss-seidel"]) == 0
    assert "gauss-seidel" in capsys.readouterr().out


def test_animation(capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    found = answer(capsys, "animate", "frozen-lake", "--out", str(path), "--frames", "6")
    with Image.open(path) as picture:
        assert picture.n_frames == found["frames"] <= 7


def test_frames_start_one_by_one_and_end_at_the_end() -> None:
    assert _frames(4, 10) == [0, 1, 2, 3]
    shown = _frames(1000, 20)
    assert shown[:10] == list(range(10))
    assert shown[-1] == 999
    assert len(shown) <= 21


def test_list(capsys: Capture) -> None:
    found = answer(capsys, "list")
    assert [world["name"] for world in found["worlds"]] == list(worlds.names())
    assert run(["list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in worlds.names())


def test_files(capsys: Capture, tmp_path: Path) -> None:
    grid = tmp_path / "grid.txt"
    grid.write_text("discount: 0.9\nstep: -1\n\nS..\n.#G\n")
    assert answer(capsys, "solve", str(grid))["value"][0] == pytest.approx(-1 - 0.9)
    (tmp_path / "m.tra").write_text("0 0 1 1\n1 0 1 1\n")
    (tmp_path / "m.srew").write_text("0 3\n")
    tra = str(tmp_path / "m.tra")
    assert answer(capsys, "solve", tra, "--discount", "0.5")["value"] == pytest.approx([3, 0])
    lake = tmp_path / "lake.npz"
    worlds.build("frozen-lake").mdp.save(lake)
    assert answer(capsys, "solve", str(lake))["states"] == 16


def test_gymnasium_names(capsys: Capture) -> None:
    pytest.importorskip("gymnasium")
    found = answer(capsys, "solve", "Taxi-v4", "--discount", "0.99")
    assert found["states"] == 501
    assert max(found["value"]) == pytest.approx(20.0, abs=1e-6)


def test_early_stops_keep_their_bounds(capsys: Capture) -> None:
    found = answer(
        capsys, "solve", "frozen-lake-8x8", "--method", "value-iteration", "--max-iterations", "5"
    )  # fmt: skip
    assert found["outcome"] == "iterations"
    assert found["lower"][0] <= 0.414640 <= found["upper"][0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "the action comes first, as `likely mdp solve frozen-lake"),
        ("sovle frozen-lake", 'unknown action "sovle": did you mean "solve"?'),
        ("--discout 0.9", 'unknown option "--discout": did you mean "--discount"?'),
        ("--discount 0.9", "the action comes first, as `likely mdp solve frozen-lake"),
        ("solve --discout 0.9", 'unknown option "--discout": did you mean "--discount"?'),
        ("solve frozen-lake --objective mix", '"mix" is not known: did you mean "min"?'),
        ("solve frozen-lake --horizon 2 --criterion total", "--horizon is for the finite-horizon"),
        ("solve frozen-lake --criterion finite-horizon", "needs --horizon STEPS"),
        ("solve cliff --criterion discounted", "needs a discount below 1 (--discount 0.99)"),
        ("solve cliff --labels a.lab", "labels: cliff has no such setting"),
        ("solve cliff maze", '"maze" is one argument too many'),
        ("solve", "WORLD is missing"),
        ("solve frozen-lak", 'did you mean "frozen-lake"'),
        ("solve frozen-lake --discount 1.5", r'expected a discount in (0, 1], given "1.5"'),
        ("solve frozen-lake --discount x", r'expected a discount in (0, 1], given "x"'),
        ("solve frozen-lake --tolerance 0", 'expected a number above 0, given "0"'),
        ("solve frozen-lake --method magic", 'method="magic" is unknown'),
        ("solve frozen-lake --criterion best", 'criterion="best" is unknown'),
        ("solve frozen-lake --size 3x3", "expected nothing: its size is fixed"),
        ("solve slippery-grid --size 3by3", "as 100x100"),
        ("solve frozen-lake --unknown 3", 'unknown option "--unknown"'),
        ("solve absent.txt", "absent.txt: no such file"),
        ("solve frozen-lake --out a.csv", "expected a file ending in .npz or .json"),
        ("solve frozen-lake --plot no/a.png", "the folder no does not exist"),
        ("solve NoLake-v1", "Gymnasium does not make NoLake-v1"),
        ("evaluate frozen-lake --policy lefd", 'unknown policy "lefd"; did you mean "left"'),
        ("evaluate frozen-lake --sweeps 1,two", 'whole numbers and "inf"'),
        ("evaluate frozen-lake --by luck", 'method="luck" is unknown'),
        ("methods frozen-lake --methods vi", 'unknown method "vi"'),
        ("methods small-gridworld", "give one below 1"),
        ("certify frozen-lake --value absent.npz", "absent.npz: no such file"),
        ("animate garnet --out a.gif", "animations are for grid worlds"),
        ("animate frozen-lake --out a.png", "expected a file ending in .gif"),
        ("simulate frozen-lake --start 99", "a state 0..15, given 99"),
        ("simulate frozen-lake --confidence 2", "between 0 and 1"),
    ],
)
def test_mistakes_are_one_line(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in complaint(capsys, *arguments.split())
    assert list(tmp_path.iterdir()) == []


def test_a_malformed_file_is_named_with_its_line(capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "model.tra"
    path.write_text("0 0 1 half\n")
    assert "model.tra, line 1: expected a probability" in complaint(capsys, "solve", str(path))
    value = tmp_path / "v.json"
    value.write_text(json.dumps({"value": [1, 2]}))
    said = complaint(capsys, "certify", "frozen-lake", "--value", str(value))
    assert "the value has shape [2], the world has 16 states" in said
    value.write_text("junk")
    assert "is not JSON" in complaint(capsys, "certify", "frozen-lake", "--value", str(value))


@pytest.mark.parametrize(
    "command", ["solve", "evaluate", "methods", "simulate", "certify", "list", "animate"]
)
def test_every_command_has_help_with_an_example(capsys: Capture, command: str) -> None:
    assert run([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert "examples:" in out
    assert f"likely mdp {command}" in out
    assert "--json" in out


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from likely.cli import main; main(['mdp', '-h']);"
        "main(['mdp', 'solve', '-h']);"
        "heavy = {'torch', 'numba', 'numpy', 'scipy', 'matplotlib', 'rich'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


def test_json_has_no_infinities(capsys: Capture) -> None:
    listed = plain(np.array([1.0, np.inf, np.nan]))
    assert listed == [1.0, None, None]
    assert plain(np.array([1, 2])) == [1, 2]


def test_printed_intervals_are_rounded_outwards() -> None:
    for low, high in ((1 / 3, 2 / 3), (-2 / 3, -1 / 3), (1e12 / 3, 2e12 / 3), (0.5, 0.5)):
        left, right = (float(x) for x in interval(low, high)[1:-1].split(", "))
        assert low - 1e-8 * abs(low) <= left <= low
        assert high <= right <= high + 1e-8 * abs(high)
    assert interval(0.0, float("inf")) == "[0, ∞]"
    assert interval(0.5, 0.5) == "[0.5, 0.5]"


def test_average_reward(capsys: Capture) -> None:
    """The forest's average is 3.24: it stands 0.81 of the years, 4 each."""
    found = answer(capsys, "solve", "forest", "--criterion", "average")
    assert found["gain"] == pytest.approx([3.24] * 3, abs=1e-6)
    assert run(["solve", "forest", "--criterion", "average"]) == 0
    assert "average reward a step, over all starts: [3.2" in capsys.readouterr().out


def test_a_target_is_reached_with_the_best_probability(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "m.tra").write_text(
        "0 0 1 0.25\n0 0 2 0.75\n0 1 1 0.5\n0 1 2 0.5\n1 0 1 1\n2 0 2 1\n"
    )
    (tmp_path / "m.lab").write_text('0="init" 1="done"\n0: 0\n1: 1\n')
    model = str(tmp_path / "m.tra")
    best = answer(capsys, "solve", model, "--target", "done")
    assert best["start"]["value"] == pytest.approx(0.5)
    least = answer(capsys, "solve", model, "--target", "done", "--objective", "min")
    assert least["start"]["value"] == pytest.approx(0.25)
    said = complaint(capsys, "solve", model, "--target", "done", "--method", "anderson")
    assert "--method is for the discounted criterion" in said


def test_a_terminal_without_arrows_gets_letters() -> None:
    program = [sys.executable, "-m", "likely", "mdp", "evaluate", "small-gridworld"]
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [*program, "--sweeps", "3"], env=ascii_only, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert "<^" in done.stdout
    assert "v" in done.stdout.split("greedy policy")[1]


def test_a_reader_that_leaves_is_no_error() -> None:
    program = f"{sys.executable} -m likely mdp list | head -n 1"
    done = subprocess.run(program, shell=True, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.startswith("world")


def test_undiscounted_worlds_are_solved_for_their_total_reward(capsys: Capture) -> None:
    found = answer(capsys, "solve", "small-gridworld")
    assert found["about"]["criterion"] == "total"
    assert found["value"][:4] == pytest.approx([0, -1, -2, -3])


def test_a_time_limit_and_a_checkpoint(capsys: Capture, tmp_path: Path) -> None:
    grid = ["solve", "slippery-grid", "--size", "40x40", "--method", "value-iteration"]
    stopped = answer(capsys, *grid, "--max-seconds", "1e-9")
    assert stopped["outcome"] == "time"
    path = tmp_path / "run.npz"
    part = answer(capsys, *grid, "--max-iterations", "9", "--checkpoint", str(path))
    assert part["outcome"] == "iterations"
    assert path.is_file()
    rest = answer(capsys, *grid, "--checkpoint", str(path))
    whole = answer(capsys, *grid)
    assert rest["outcome"] == whole["outcome"] == "converged"
    assert rest["value"] == pytest.approx(whole["value"], abs=2e-6)
    assert part["lower"][0] <= whole["value"][0] <= part["upper"][0]


def test_infinite_values_elsewhere_do_not_spoil_the_start() -> None:
    mdp = worlds.build("two-arms", size=[1]).mdp
    assert at_start(mdp, np.array([np.inf, 0.5, -np.inf])) == 0.5


def test_every_example_of_the_help_runs(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["solve", "frozen-lake", "--out", "solution.npz"]) == 0
    (tmp_path / "Tiger.pomdp").write_text(TIGER)
    lines = (EXAMPLE + "".join(EXAMPLES.values())).strip().splitlines()
    assert {line.split()[2] for line in lines} == set(ACTIONS)
    for line in lines:
        less = ["--methods", "value-iteration"] if " methods " in line else []
        less += ["--frames", "3"] if " animate " in line else []
        assert main([*line.split()[1:], *less]) == 0, line
        assert capsys.readouterr().err == ""


def test_a_solution_file_holds_the_action_values(capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "solution.npz"
    record = answer(capsys, "solve", "frozen-lake", "--out", str(path))
    table = np.load(path)["q"]
    assert table.shape == (16, 4)
    assert record["q"][5] == [None] * 4  # a hole
    assert table[0].max() == pytest.approx(record["value"][0], abs=1e-6)
