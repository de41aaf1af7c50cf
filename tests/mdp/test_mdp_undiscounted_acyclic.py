"""Undiscounted problems without cycles: backward recursion in rational arithmetic is the truth."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from undiscounted_reference import rows_of

from likely.mdp import MDP, Solution, reach, total_reward
from likely.mdp.undiscounted import total

STATES, TERMINAL = 40, 3
QUESTIONS = ("reachability", "total", "until")
DIGITS = (-1234567.890123, -0.1, 0.0, 1e-290, 1 / 3, 98765.4321)


def levels(seed: int, rewards: tuple[float, ...], back: bool) -> tuple[MDP, list[int]]:
    """States in a hidden order, successors first, the first few terminal.

    With `back`, the last states of the order go round, so that a cycle is met late.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(STATES)
    place = np.argsort(order)
    pair_ptr, indptr, indices, weights, reward = [0], [0], [], [], []
    for s in range(STATES):
        before = order[: place[s]]
        for action in range(0 if place[s] < TERMINAL else 1 + int(rng.integers(3))):
            moves = rng.choice(before, min(len(before), 1 + int(rng.integers(3))), replace=False)
            if back and action == 0 and place[s] == STATES - 2:
                moves = np.append(moves[:2], order[-1])
            if back and action == 0 and place[s] == STATES - 1:
                moves = np.append(moves[:1], order[-2])
            indices += moves.tolist()
            weights += rng.dirichlet(np.ones(len(moves))).tolist()
            indptr.append(len(indices))
            reward.append(float(rng.choice(rewards)))
        pair_ptr.append(len(indptr) - 1)
    terminal = order[:TERMINAL].tolist()
    mdp = MDP.from_pairs(pair_ptr, indptr, indices, weights, reward, 1.0, terminal=terminal)
    return mdp, order.tolist()


def asked(
    question: str, objective: str, order: list[int]
) -> tuple[Callable[..., Solution], dict[str, Any]]:
    """The function that answers, and what it is given."""
    if question == "total":
        return total_reward, {"objective": objective}
    target = order[:TERMINAL] if question == "until" else [order[0], order[TERMINAL]]
    answer = total_reward if question == "until" else reach
    return answer, {"objective": objective, "target": target}


@pytest.mark.parametrize("objective", ["max", "min"])
@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("seed", range(6))
def test_one_backup_of_each_state(
    seed: int, question: str, objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mdp, order = levels(seed, DIGITS, back=False)
    answer, options = asked(question, objective, order)
    by_components = answer(mdp, tolerance=1e-30, max_seconds=1e9, **options)
    monkeypatch.setattr(total, "_merge", None)  # needed for problems with cycles alone
    solution = answer(mdp, tolerance=1e-30, **options)
    rows, pick = rows_of(mdp), max if objective == "max" else min
    goal = set(options.get("target", ()))
    truth: dict[int, Fraction] = {}
    for s in order:
        worth = [
            (Fraction(0) if question == "reachability" else reward)
            + sum(p * truth[t] for t, p in moves.items())
            for reward, moves in rows[s]
        ]
        truth[s] = pick(worth) if worth else Fraction(0)
        if s in goal:
            truth[s] = Fraction(question == "reachability")
        low, high = Fraction(float(solution.lower[s])), Fraction(float(solution.upper[s]))
        assert low <= truth[s] <= high
        assert high - low <= Fraction(1e-12) * 2_000_000
        if worth and s not in goal:
            assert abs(worth[int(solution.policy[s])] - truth[s]) <= high - low
        else:
            assert low == high
    assert np.all(solution.lower <= by_components.upper)
    assert np.all(by_components.lower <= solution.upper)
    if question == "reachability":
        assert solution.lower.min() >= 0.0
        assert solution.upper.max() <= 1.0


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("seed", range(4))
def test_what_never_pays_or_never_costs_keeps_its_sign(seed: int, sign: float) -> None:
    mdp, _ = levels(seed, (0.0, 0.0, sign * 0.1, sign * 1e-300), back=False)
    for objective in ("max", "min"):
        solution = total_reward(mdp, objective=objective)
        assert (sign * solution.lower).min() >= 0.0
        assert (sign * solution.upper).min() >= 0.0


@pytest.mark.parametrize("objective", ["max", "min"])
@pytest.mark.parametrize("question", QUESTIONS)
def test_a_cycle_met_late_leaves_nothing_behind(
    question: str, objective: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    search, by_components = total._without_cycles, []

    def checked(case: Any, outcome: Any, limits: Any) -> bool:
        if search(case, outcome, limits):
            return True
        by_components.append(case)
        for name in ("lower", "upper", "chosen"):
            assert np.array_equal(getattr(outcome, name), getattr(total._Outcome(case), name))
        return False

    monkeypatch.setattr(total, "_without_cycles", checked)
    cyclic = 0
    for seed in range(16):
        mdp, order = levels(seed, (-1.0, -0.1), back=True)
        answer, options = asked(question, objective, order)
        by_components.clear()
        searched = answer(mdp, **options)
        if not by_components:  # the graph has decided the states that go round
            continue
        cyclic += 1
        unsearched = answer(mdp, max_seconds=1e9, **options)
        for name in ("lower", "upper", "policy"):
            assert np.array_equal(getattr(searched, name), getattr(unsearched, name))
        assert searched.iterations == unsearched.iterations
    assert cyclic >= 4
