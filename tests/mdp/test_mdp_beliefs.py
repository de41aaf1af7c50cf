"""Beliefs: known answers, other code for the same number, and bounds that never cross."""

from __future__ import annotations

import json
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from mdp_examples import TIGER

from likely import mdp
from likely.cli import main
from likely.errors import InvalidData, InvalidSetting
from likely.mdp.beliefs.bounds import Above

HEARD = 0.85


def tiger(discount: float) -> mdp.POMDP:
    """Listen, or open one of two doors; behind one is the tiger."""
    stay, new = np.eye(2), np.full((2, 2), 0.5)
    hear = np.array([[HEARD, 1 - HEARD], [1 - HEARD, HEARD]])
    return mdp.POMDP.from_arrays(
        [stay, new, new], [hear, new, new], [[-1, -1], [-100, 10], [10, -100]], discount, [0.5, 0.5]
    )


def by_lattice(discount: float, reach: int = 12) -> float:
    """The same by another way: beliefs after k more hearings left than right, as an MDP."""
    k = np.arange(-reach, reach + 1)
    left = 1.0 / (1.0 + ((1 - HEARD) / HEARD) ** k.astype(float))
    states, middle = len(k), reach
    rows, pay = np.zeros((states, 3, states)), np.zeros((states, 3))
    for s in range(states):
        hears = left[s] * HEARD + (1 - left[s]) * (1 - HEARD)
        rows[s, 0, min(s + 1, states - 1)] += hears
        rows[s, 0, max(s - 1, 0)] += 1 - hears
        rows[s, 1:, middle] = 1.0
        pay[s] = [-1, -100 * left[s] + 10 * (1 - left[s]), 10 * left[s] - 100 * (1 - left[s])]
    lattice = mdp.MDP.from_arrays(rows, pay, discount, layout="sas")
    return float(mdp.solve(lattice, tolerance=1e-9).value[middle])


@pytest.mark.parametrize(("discount", "known"), [(0.95, 19.371368), (0.75, 1.933439)])
def test_the_tiger_has_its_known_value(discount: float, known: float) -> None:
    width = 1e-2 if discount > 0.9 else 1e-5  # bench/pomdp.py goes to 1e-6
    solved = mdp.solve_beliefs(tiger(discount), width)
    assert solved.upper - solved.lower <= width
    assert solved.lower - 1e-6 <= known <= solved.upper + 1e-6
    assert by_lattice(discount) == pytest.approx(known, abs=1e-6)
    assert "converged" in str(solved)
    assert [solved.choose(b) for b in ([0.5, 0.5], [0.01, 0.99], [0.99, 0.01])] == [0, 1, 2]


def test_the_bounds_hold_at_every_belief_and_move_inwards() -> None:
    beliefs = np.column_stack([np.linspace(0, 1, 101), np.linspace(1, 0, 101)])
    below, above = np.full(101, -np.inf), np.full(101, np.inf)
    for trials in (0, 1, 3, 8):
        solved = mdp.solve_beliefs(tiger(0.95), 1e-6, max_trials=trials)
        assert (solved.below(beliefs) <= solved.above(beliefs)).all()
        assert (solved.below(beliefs) >= below - 1e-9).all()
        assert (solved.above(beliefs) <= above + 1e-9).all()
        below, above = solved.below(beliefs), solved.above(beliefs)
    fine = mdp.solve_beliefs(tiger(0.95), 1e-2)
    assert (below <= fine.above(beliefs)).all()
    assert (above >= fine.below(beliefs)).all()


def expectimax(
    problem: mdp.POMDP, belief: list[Fraction], steps: int, ends: tuple[Fraction, Fraction]
) -> tuple[Fraction, Fraction]:
    """An interval of V*(belief) in rational arithmetic: `ends` after so many steps."""
    if steps == 0:
        return sum(belief) * ends[0], sum(belief) * ends[1]
    options = []
    for a in range(problem.actions):
        low = high = sum(b * Fraction(r) for b, r in zip(belief, problem.reward[a], strict=True))
        moved = [
            sum(b * Fraction(row[t]) for b, row in zip(belief, problem.transition[a], strict=True))
            for t in range(problem.states)
        ]
        for o in range(problem.observations):
            after = [p * Fraction(row[o]) for p, row in zip(moved, problem.observe[a], strict=True)]
            least, most = expectimax(problem, after, steps - 1, ends)
            low += Fraction(problem.discount) * least
            high += Fraction(problem.discount) * most
        options.append((low, high))
    return max(low for low, _ in options), max(high for _, high in options)


@pytest.mark.parametrize("seed", range(40))
def test_rounding_is_in_the_bounds(seed: int) -> None:
    """Against rational arithmetic, where both bounds meet but for rounding."""
    random = np.random.default_rng(seed)
    states, actions, seen = (int(n) for n in random.integers(1, (4, 3, 3)))
    discount, start = (0.3, 0.1, 0.05)[seed % 3], random.dirichlet(np.ones(states))
    pay = random.normal(size=(actions, states)) * 10.0 ** int(random.integers(-2, 5))
    problem = mdp.POMDP.from_arrays(
        random.dirichlet(0.5 * np.ones(states), (actions, states)),
        random.dirichlet(np.ones(seen), (actions, states)), pay, discount, start,
    )  # fmt: skip
    solved = mdp.solve_beliefs(problem, 1e-14 * abs(pay).max(), max_trials=20)
    ends = tuple(Fraction(r) / (1 - Fraction(discount)) for r in (pay.min(), pay.max()))
    low, high = expectimax(problem, [Fraction(b) for b in problem.start], 4, ends)
    assert solved.lower <= high
    assert solved.upper >= low
    assert solved.lower <= solved.upper <= solved.lower + 1e-3 * abs(pay).max() + float(high - low)


def test_a_search_ends_where_rounding_limits_its_bounds() -> None:
    solved = mdp.solve_beliefs(tiger(0.75), 1e-15, max_seconds=None)
    assert "rounding limits the bounds" in str(solved)
    assert 0.0 < solved.upper - solved.lower < 1e-8


def test_a_corner_is_bounded_by_a_belief_near_it_and_how_near() -> None:
    """Nothing is paid at the corner, and 1e-12 of a state that costs 1e9 a step beside it."""
    problem = mdp.POMDP.from_arrays(
        [np.eye(2)], np.ones((1, 2, 1)), [[-1e9, 0.0]], 0.5, [1e-12, 1 - 1e-12]
    )
    above = Above(problem)
    above.corner[1] = above.informed[0, 1] = 1.0  # bounds that are not tight
    improved = [above.backup(problem.start) for _ in range(200)]
    assert improved[0]
    assert not improved[-1]
    assert 0.0 <= above(np.array([[0.0, 1.0]]))[0] < 1.0
    assert abs(above(problem.start[None])[0]) < 0.003  # -2e-3, and rounding of 1e9


def test_a_state_that_is_seen_is_an_mdp() -> None:
    lake = mdp.load("frozen-lake", discount=0.9).mdp
    rows = np.zeros((4, 16, 16))
    rows[:, lake.terminal, lake.terminal] = 0.0
    for s in range(16):
        if lake.terminal[s]:
            rows[:, s, s] = 1.0
    rows[lake.pair_action, lake.pair_state] = lake.transition.toarray()
    pay = np.zeros((4, 16))
    pay[lake.pair_action, lake.pair_state] = lake.reward
    seen = mdp.POMDP.from_arrays(rows, np.stack([np.eye(16)] * 4), pay, 0.9, lake.initial)
    solved = mdp.solve_beliefs(seen, 1e-4)
    value = mdp.solve(lake, tolerance=1e-9).value[0]
    assert solved.lower - 1e-9 <= value <= solved.upper + 1e-9
    assert solved.upper - solved.lower <= 1e-4
    blind = mdp.POMDP.from_arrays(rows, np.ones((4, 16, 1)), pay, 0.9, lake.initial)
    hidden = mdp.solve_beliefs(blind, 1e-4, max_trials=10)
    assert hidden.lower < 0.9 * value  # what is not seen costs
    assert hidden.upper <= solved.upper + 1e-6


def test_the_policy_earns_what_the_lower_bound_says() -> None:
    problem, noise = tiger(0.75), np.random.default_rng(0)
    solved = mdp.solve_beliefs(problem, 1e-3)
    earned = []
    for _ in range(200):
        belief, state, total = problem.start, noise.integers(2), 0.0
        for step in range(20):
            action = solved.choose(belief)
            total += 0.75**step * problem.reward[action, state]
            state = noise.choice(2, p=problem.transition[action][state])
            seen = noise.choice(2, p=problem.observe[action, state])
            joint = (belief @ problem.transition[action]) * problem.observe[action][:, seen]
            belief = joint / joint.sum()
        earned.append(total)
    error = np.std(earned) / np.sqrt(200)
    assert solved.lower - 4 * error <= np.mean(earned) <= solved.upper + 4 * error


def test_what_is_no_problem_is_said() -> None:
    with pytest.raises(InvalidSetting, match="discount below 1"):
        tiger(1.0)
    with pytest.raises(InvalidData, match=r"a row sums to 0\.5"):
        mdp.POMDP.from_arrays([[[0.5]]], [[[1.0]]], [[0.0]], 0.9, [1.0])
    with pytest.raises(InvalidData, match="observe has"):
        mdp.POMDP.from_arrays([[[1.0]]], [[1.0]], [[0.0]], 0.9, [1.0])
    with pytest.raises(InvalidSetting, match="tolerance"):
        mdp.solve_beliefs(tiger(0.9), 0.0)
    with pytest.raises(InvalidSetting, match="max_trials: expected a whole number from 0"):
        mdp.solve_beliefs(tiger(0.9), 1.0, max_trials=-1)
    with pytest.raises(InvalidData, match="exceed the range"):
        mdp.solve_beliefs(mdp.POMDP.from_arrays([[[1.0]]], [[[1.0]]], [[1e307]], 0.99, [1.0]))
    with pytest.raises(InvalidData, match="a distribution over 2"):
        mdp.solve_beliefs(tiger(0.9), 1.0).choose([0.5, 0.6])


def test_the_command_gives_the_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tiger.pomdp"
    path.write_text(TIGER)
    assert main(["mdp", "beliefs", str(path), "--tolerance", "1e-4"]) == 0
    told = capsys.readouterr().out
    assert "<= V* <=" in told
    assert [line.split() for line in told.splitlines()[-2:]] == [
        ["hear-left", "0.5", "listen"], ["hear-right", "0.5", "listen"]
    ]  # fmt: skip
    assert main(["mdp", "beliefs", str(path), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["lower"] <= 1.933440 <= record["upper"] + 1e-6
    assert record["first_action"] == "listen"
    assert record["then"][1] == {
        "observation": "hear-right",
        "probability": 0.5,
        "action": "listen",
    }
    path.write_text(TIGER.replace("start: uniform", "start: 0.85 0.15"))
    assert main(["mdp", "beliefs", str(path), "--json"]) == 0
    then = json.loads(capsys.readouterr().out)["then"]
    assert [(e["observation"], e["action"]) for e in then] == [
        ("hear-left", "open-right"), ("hear-right", "listen")
    ]  # fmt: skip
    assert [e["probability"] for e in then] == pytest.approx([0.745, 0.255])
    assert main(["mdp", "solve", str(path)]) == 2
    assert "likely mdp beliefs" in capsys.readouterr().err
    assert main(["mdp", "beliefs", str(tmp_path / "nothing.pomdp")]) == 2
    assert "no such file" in capsys.readouterr().err


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "lower", "upper"), [("Hallway", 0.8942, 1.2173), ("Hallway2", 0.2419, 0.9255)]
)
def test_hallways_lie_between_bounds(name: str, lower: float, upper: float) -> None:
    """Those of a longer search (bench/pomdp.py) overlap with those of a short one."""
    path = Path(os.environ["LIKELY_DATA"]) / "mdp" / "pomdp" / f"{name}.pomdp"
    if not path.is_file():
        pytest.skip("the file is not there")
    solved = mdp.solve_beliefs(mdp.POMDP.from_file(path), 0.01, max_trials=1, max_seconds=3.0)
    assert solved.lower <= upper
    assert solved.upper >= lower
    assert solved.lower < solved.upper
