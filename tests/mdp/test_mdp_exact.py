"""The bounds contain the truth in rational arithmetic: all criteria, methods and precisions.

The random problems mix what may go wrong: rows that are a little off, rewards that cancel, huge
and tiny numbers, discounts next to 1, terminal states, solves that are cut short. The directed
ones are built so that one term of the bounds decides; each names its term.
"""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

import mdp_exact
import numpy as np
import pytest
from mdp_exact import Stated, outside

from likely.mdp import (
    MDP,
    METHODS,
    average_reward,
    backward_induction,
    certify,
    evaluate,
    reach,
    solve,
    total_reward,
)
from likely.mdp.model.matrix_free import MatrixFree, row_function

DISCOUNTS = (1e-3, 0.5, 0.9, 0.999, 1.0 - 1e-9, 1.0 - 2.0**-53)
SCALES = (1.0, 1.0, 1e12, 1e300, 1e-300, 5e-324)


def stated(seed: int, discount: float | None = None, ends: bool = False) -> Stated:
    """A random problem of 2 to 4 states; with `ends` every row may end the episode."""
    rng = np.random.default_rng(seed)
    states, actions = int(rng.integers(2, 5)), int(rng.integers(1, 3))
    terminal = (states - 1,) if ends or rng.random() < 0.3 else ()
    tolerance = 1e-2 if rng.random() < 0.3 else 1e-9
    scale = SCALES[rng.integers(len(SCALES))]
    rows, gains, rewards = [], [], []
    for _ in range(states):
        rows.append([_row(rng, states, ends, tolerance) for _ in range(actions)])
        gains.append([[_number(rng, scale) for _ in row] for row in rows[-1]])
        rewards.append([_number(rng, scale) for _ in range(actions)])
    if rng.random() < 0.3:  # large rewards that cancel
        for state in range(states):
            for row, gain in zip(rows[state], gains[state], strict=True):
                rest = sum(p * r for (p, _), r in zip(row[:-1], gain, strict=False))
                if row[-1][0] > 0.01 and math.isfinite(rest / row[-1][0]):
                    gain[-1] = -rest / row[-1][0]
    kind = rng.integers(3)
    return Stated(
        rows, None if kind == 1 else rewards,
        DISCOUNTS[rng.integers(len(DISCOUNTS))] if discount is None else discount,
        None if kind == 0 else gains, terminal, tolerance,
    )  # fmt: skip


def _row(
    rng: np.random.Generator, states: int, ends: bool, tolerance: float
) -> list[tuple[float, int]]:
    count = int(rng.integers(1, 4))
    kind = rng.integers(4)
    if kind == 0:
        weights = rng.dirichlet(np.ones(count))
    elif kind == 1:
        weights = np.array([0.1, 0.2, 0.7])[:count]
    elif kind == 2:
        weights = np.full(count, 1.0 / count)
    else:
        weights = np.array([1e-300, 0.25, 0.75])[:count]
    weights = weights / weights.sum()
    if rng.random() < 0.3:
        weights = weights * (1.0 + 0.9 * tolerance * rng.uniform(-1.0, 1.0))
    row = [(float(p), int(t)) for p, t in zip(weights, rng.integers(0, states, count), strict=True)]
    if ends:
        row = [(0.75 * p, t) for p, t in row] + [(0.25, states - 1)]
    return row


def _number(rng: np.random.Generator, scale: float) -> float:
    return float(scale * rng.integers(-3, 4)) if scale < 1e-310 else float(scale * rng.normal())


def check(solution, truth: list[Fraction], about: object) -> None:
    """The interval holds the truth, and `error` the distance of the value from it."""
    wrong = outside(solution.lower, solution.upper, truth)
    assert not wrong, (about, wrong)
    assert np.isfinite(solution.value).all(), about
    assert bool(
        (solution.lower <= solution.value).all() and (solution.value <= solution.upper).all()
    )
    if math.isfinite(solution.error):
        for v, t in zip(solution.value, truth, strict=True):
            assert abs(Fraction(float(v)) - t) <= Fraction(solution.error), about


# ------------------------------------------------------------------------------ discounted
@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("method", sorted(METHODS))
def test_discounted_bounds_hold_whatever_the_method_and_whenever_it_stops(
    method: str, precision: str
) -> None:
    for seed in range(12):
        problem = stated(seed + 1000 * sorted(METHODS).index(method))
        sign = 1 if seed % 2 else -1
        truth = mdp_exact.optimal(problem.exact(sign), Fraction(problem.discount))
        truth = [sign * v for v in truth]
        mdp = problem.mdp()
        start = None
        if seed % 3 == 0:
            start = np.random.default_rng(seed).normal(size=mdp.states) * 10.0 ** (seed % 7)
        for limits in (
            {"max_iterations": 0}, {"max_iterations": 1}, {"max_iterations": 2},
            {"max_seconds": 1e-9}, {"max_iterations": 200},
        ):  # fmt: skip
            scale = float(np.abs(mdp.reward).max())
            solution = solve(
                mdp, max(1e-9 * scale, 1e-320), method, precision=precision, start=start,
                objective="max" if sign > 0 else "min", **limits,
            )  # fmt: skip
            check(solution, truth, (method, precision, seed, limits, solution.status))


def test_certificates_of_any_value_hold_and_so_does_the_loss_of_its_greedy_policy() -> None:
    for seed in range(60):
        problem = stated(seed)
        rng = np.random.default_rng(seed)
        mdp, discount = problem.mdp(), Fraction(problem.discount)
        pairs = problem.exact()
        truth = mdp_exact.optimal(pairs, discount)
        value = rng.normal(size=mdp.states) * 10.0 ** rng.integers(-3, 9)
        if seed % 2:  # the truth, rounded
            value = np.array([_nearest(v) for v in truth])
        value[mdp.terminal] = 0.0
        certificate = certify(mdp, value)
        assert not outside(certificate.lower, certificate.upper, truth), seed
        reach = max(abs(Fraction(float(v)) - t) for v, t in zip(value, truth, strict=True))
        assert certificate.error == math.inf or reach <= Fraction(certificate.error), seed
        choice = [
            None if not actions else
            max(actions, key=lambda pair: mdp_exact.q_value(pair, _rational(value), discount))
            for actions in pairs
        ]  # fmt: skip
        attained = mdp_exact.chain_value(choice, discount)
        lost = max(t - v for t, v in zip(truth, attained, strict=True))
        assert certificate.policy_loss == math.inf or lost <= Fraction(certificate.policy_loss)


def _nearest(v: Fraction) -> float:
    return float(max(min(v, Fraction(1e308)), Fraction(-1e308)))


def _rational(value: np.ndarray) -> list[Fraction]:
    return [Fraction(float(v)) for v in value]


@pytest.mark.parametrize("objective", ["max", "min"])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_what_converged_is_proven_by_one_backup_of_its_value(
    objective: str, precision: str
) -> None:
    from likely.mdp import worlds

    lake = worlds.build("frozen-lake").mdp.with_discount(0.99)
    tolerance = 1e-6 if precision == "float64" else 1e-3
    checked = 0
    for method in sorted(METHODS):
        for mdp in (lake, stated(5, 0.9).mdp(), stated(11, 0.9, ends=True).mdp()):
            scale = max(1e-290, float(np.abs(mdp.reward).max()))
            if precision == "float32" and not 1e-30 < scale < 1e30:
                continue
            solution = solve(
                mdp, tolerance * scale, method, objective=objective, precision=precision
            )
            if solution.converged:
                checked += 1
                error = certify(mdp, solution.value, objective=objective).error
                assert error <= tolerance * scale, (method, solution.status)
    assert checked >= len(METHODS)


# -------------------------------------------------------------- each term of the discounted bounds
def cycle(seed: int, discount: float = 0.999) -> Stated:
    """Three states in a circle; large rewards that nearly cancel once round it."""
    pay = 1e6 * np.random.default_rng(seed).random(3)
    pay[2] = -pay[0] - pay[1] + 0.1
    rows = [[[(1.0, 1)]], [[(1.0, 2)]], [[(1.0, 0)]]]
    return Stated(rows, [[float(r)] for r in pay], discount)


def hold_at(mdp: MDP | MatrixFree, value: np.ndarray, truth: list[Fraction], about: object) -> None:
    """Both bounds from one backup of `value`, by the kernels and by `certify`, hold the truth."""
    solution = solve(mdp, 1e-320, "value-iteration", start=value, max_iterations=0)
    wrong = outside(solution.lower, solution.upper, truth)
    assert not wrong, ("kernel", about, wrong)
    if isinstance(mdp, MDP):
        certificate = certify(mdp, value)
        wrong = outside(certificate.lower, certificate.upper, truth)
        assert not wrong, ("certify", about, wrong)


def rounded(truth: list[Fraction]) -> np.ndarray:
    return np.array([float(v) for v in truth])


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_rounding_of_one_backup(precision: str) -> None:
    """(k + 8) u: the sum of large numbers that nearly cancel.

    All states are off by the same, so the interval is as narrow as the rounding lets it be.
    """
    for seed in range(60):
        problem = cycle(seed)
        truth = mdp_exact.optimal(problem.exact(), Fraction(problem.discount))
        mdp = problem.mdp()
        value = rounded(truth) + 1e-3
        hold_at(mdp, value, truth, seed)
        solution = solve(
            mdp, 1e-320, "value-iteration", start=value, precision=precision, max_iterations=3
        )
        check(solution, truth, seed)


def merged(copies: int) -> Stated:
    """Many small probabilities of one successor: their sum drifts away from the stated one.

    State 0 has the value 0, so that only the moves carry weight; the discount is small, so that
    the other states' uncertainty does not hide that of state 0.
    """
    row = [(1.0 / copies / 2.0, 1)] * copies + [(0.5, 2)]
    return Stated([[row], [[(1.0, 1)]], [[(1.0, 2)]]], [[0.0], [1e9], [-1e9]], 1e-3)


@pytest.mark.parametrize("copies", [3000, 7000])
def test_rows_that_are_meant_and_rows_that_are_stored(copies: int) -> None:
    """The row defect, relative to the moves: repeated successors add up with rounding."""
    problem = merged(copies)
    truth = mdp_exact.optimal(problem.exact(), Fraction(problem.discount))
    hold_at(problem.mdp(), rounded(truth), truth, copies)


@pytest.mark.parametrize("literal", [False, True])
@pytest.mark.parametrize("excess", [-12, 12])
def test_rows_a_few_units_from_one(literal: bool, excess: int) -> None:
    """Divided by their sum, or as they are: the defect times |v|, and the widened discount."""
    half = 0.5 + excess * 2.0**-54
    row = [(half, 0), (half, 1)]
    problem = Stated([[row], [row]], [[1.0], [1.0]], 0.999, literal=literal)
    truth = mdp_exact.optimal(problem.exact(), Fraction(problem.discount))
    other = dataclasses.replace(problem, literal=not literal)
    middle = mdp_exact.optimal(other.exact(), Fraction(problem.discount))
    for sign in (1.0, -1.0):
        mdp = problem.mdp().with_reward([sign, sign])
        mine = [int(sign) * v for v in truth]
        for value in (np.zeros(2), sign * rounded(truth), sign * rounded(middle)):
            hold_at(mdp, value, mine, (literal, excess, sign))


def test_numbers_below_the_smallest_normal_one() -> None:
    """The absolute term: products that underflow have no relative error."""
    tiny = 5e-324
    problem = Stated(
        [[[(0.5, 1), (0.5, 2)]], [[(1.0, 1)]], [[(1.0, 2)]]], [[0.0], [tiny], [tiny]], 0.5
    )
    truth = mdp_exact.optimal(problem.exact(), Fraction(1, 2))
    mdp = problem.mdp()
    for value in (np.zeros(3), np.array([0.0, 3 * tiny, tiny]), np.array([tiny, 0.0, 3 * tiny])):
        hold_at(mdp, value, truth, value)
    last = np.array([0.0, 3 * tiny, tiny])
    found = backward_induction(mdp, 3, final_value=last)
    exact = mdp_exact.induction(problem.exact(), Fraction(1, 2), _rational(last), 3)
    for time in range(4):
        assert not outside(found.lower[time], found.upper[time], exact[time])


def cancelling(scale: float = 1.0) -> Stated:
    """Rewards of transitions, found by search, that cancel to 3e-23: far below one rounding."""
    p = (
        0.026541702931574408, 0.19363757635638837, 0.46574107232441536, 0.25113974387290416,
        0.06293990451471768,
    )  # fmt: skip
    r = (
        2.474458901069711e-05, 0.5359629558483044, 1.2098422191336615, 0.17294119288027135,
        -11.2915462677943,
    )  # fmt: skip
    return Stated([[[(x, 0) for x in p]]], None, 0.99, [[[scale * x for x in r]]])


@pytest.mark.parametrize("scale", [1.0, 2.0**40, 2.0**1000, 2.0**-1000])
def test_rewards_of_transitions_that_cancel(scale: float) -> None:
    """What folding loses: the expected reward is far below one rounding of its parts."""
    problem = cancelling(scale)
    truth = mdp_exact.optimal(problem.exact(), Fraction(problem.discount))
    mdp = problem.mdp()
    for value in (np.zeros(1), rounded(truth)):
        hold_at(mdp, value, truth, scale)
    found = backward_induction(mdp, 2)
    exact = mdp_exact.induction(problem.exact(), Fraction(0.99), [Fraction(0)], 2)
    for time in range(3):
        assert not outside(found.lower[time], found.upper[time], exact[time])


# -------------------------------------------------------------------------- finite horizon
@pytest.mark.parametrize("objective", ["max", "min"])
def test_finite_horizon_bounds_hold_and_for_times_that_were_not_reached(objective: str) -> None:
    sign = 1 if objective == "max" else -1
    for seed in range(60):
        problem = stated(seed, 1.0 if seed % 3 else None)
        rng = np.random.default_rng(seed)
        mdp = problem.mdp()
        last = rng.normal(size=mdp.states) * 10.0 ** rng.integers(-2, 6)
        discount, steps = Fraction(problem.discount), 4
        start = [sign * v for v in _rational(last)]
        truth = mdp_exact.induction(problem.exact(sign), discount, start, steps)
        for limit in (None, 0, 1, 2):
            found = backward_induction(
                mdp, steps, final_value=last, objective=objective, max_iterations=limit
            )
            for time in range(steps + 1):
                mine = [sign * v for v in truth[time]]
                wrong = outside(found.lower[time], found.upper[time], mine)
                assert not wrong, (seed, limit, time, wrong)
            assert np.isfinite(found.value).all()


def test_a_horizon_that_was_cut_before_a_large_final_value() -> None:
    """max(most, final): a terminal state keeps its final value at every time."""
    problem = Stated([[[(1.0, 1)]], [[(1.0, 1)]]], [[1.0], [0.0]], 0.5, terminal=(1,))
    last = np.array([0.0, 1000.0])
    found = backward_induction(problem.mdp(), 4, final_value=last, max_iterations=0)
    for time in range(4):
        assert found.lower[time, 0] <= 501.0 <= found.upper[time, 0]


def test_a_horizon_rounds_at_every_step() -> None:
    """One step rounds by a few units; with rows of one successor nothing else widens the bounds."""
    for seed in range(30):
        problem = cycle(seed, 1.0)
        truth = mdp_exact.induction(problem.exact(), Fraction(1), [Fraction(0)] * 3, 6)
        found = backward_induction(problem.mdp(), 6)
        for time in range(7):
            assert not outside(found.lower[time], found.upper[time], truth[time]), (seed, time)


def test_a_horizon_passes_errors_on() -> None:
    """A tenth added a thousand times drifts by more than the rounding of one step."""
    problem = Stated([[[(1.0, 0)]]], [[0.1]], 1.0)
    found = backward_induction(problem.mdp(), 1000)
    for time in range(1001):
        truth = [(1000 - time) * Fraction(0.1)]
        assert not outside(found.lower[time], found.upper[time], truth), time


@pytest.mark.parametrize("copies", [3000, 7000])
def test_a_horizon_and_rows_that_are_meant(copies: int) -> None:
    problem = dataclasses.replace(merged(copies), reward=[[0.0]] * 3, discount=1.0)
    last = np.array([0.0, 1e9, -1e9])
    truth = mdp_exact.induction(problem.exact(), Fraction(1), _rational(last), 2)
    found = backward_induction(problem.mdp(), 2, final_value=last)
    for time in range(3):
        assert not outside(found.lower[time], found.upper[time], truth[time])


# ------------------------------------------------------------------------- average reward
@pytest.mark.parametrize("objective", ["max", "min"])
def test_bounds_on_the_gain(objective: str) -> None:
    sign = 1 if objective == "max" else -1
    for seed in range(40):
        problem = stated(seed, 1.0)
        problem.terminal = ()
        for state in problem.rows:  # all policies come back to state 0
            for a, row in enumerate(state):
                state[a] = [(0.75 * p, t) for p, t in row] + [(0.25, 0)]
        if problem.gain is not None:
            problem.gain = [[[*row, 0.0] for row in state] for state in problem.gain]
        problem.row_tolerance = 1e-2
        truth = sign * mdp_exact.gain(problem.exact(sign))
        mdp = problem.mdp()
        for limit in (0, 1, 2, 300):
            found = average_reward(mdp, 1e-300, objective=objective, max_iterations=limit)
            wrong = outside(found.lower, found.upper, [truth] * mdp.states)
            assert not wrong, (seed, limit, wrong, found.status)


def test_the_gain_of_rewards_that_nearly_cancel() -> None:
    for seed in range(100):
        problem = cycle(seed, 1.0)
        truth = mdp_exact.gain(problem.exact())
        found = average_reward(problem.mdp(), 1e-300, max_iterations=3000)
        assert not outside(found.lower, found.upper, [truth] * 3), seed


# ---------------------------------------------------------------------------- undiscounted
@pytest.mark.parametrize("objective", ["max", "min"])
def test_bounds_on_probabilities_of_reaching(objective: str) -> None:
    """Interval iteration rounds every backup outwards; policies are proven by one check."""
    sign = 1 if objective == "max" else -1
    for seed in range(40):
        problem = stated(seed, 1.0, ends=True)
        problem.row_tolerance = 1e-2
        target = {0}
        truth = mdp_exact.reached(problem.exact(), target, sign)
        mdp = problem.mdp()
        for limit in ({}, {"max_iterations": 1}, {"max_iterations": 2}, {"max_iterations": 300}):
            found = reach(mdp, [0], 1e-300, objective=objective, **limit)
            wrong = outside(found.lower, found.upper, truth)
            assert not wrong, (seed, limit, wrong, found.status)


@pytest.mark.parametrize("objective", ["max", "min"])
def test_bounds_on_total_rewards_of_problems_that_end(objective: str) -> None:
    sign = 1 if objective == "max" else -1
    for seed in range(40):
        problem = stated(seed, 1.0, ends=True)
        problem.row_tolerance = 1e-2
        truth = [sign * v for v in mdp_exact.optimal(problem.exact(sign), Fraction(1))]
        mdp = problem.mdp()
        if np.abs(mdp.reward).max() < 1e-290:
            continue
        for limit in ({}, {"max_iterations": 1}, {"max_iterations": 2}, {"max_seconds": 1e-9}):
            found = total_reward(mdp, 1e-300, objective=objective, **limit)
            wrong = outside(found.lower, found.upper, truth)
            assert not wrong, (seed, limit, wrong, found.status)


def test_reaching_in_thirds() -> None:
    """The slack of a backup: 1/3 is rounded, and so is every sum of thirds."""
    for count in range(2, 12):
        third = 1.0 / 3.0
        rows = [[[(third, s), (third, s + 1), (third, count + 1)]] for s in range(count)]
        rows += [[[(1.0, count)]], [[(1.0, count + 1)]]]
        problem = Stated(rows, [[0.0]] * (count + 2), 1.0, terminal=(count, count + 1))
        truth = mdp_exact.reached(problem.exact(), {count}, 1)
        for limit in (None, 500):
            found = reach(problem.mdp(), [count], 1e-300, max_iterations=limit)
            assert not outside(found.lower, found.upper, truth), (count, limit)


# ------------------------------------------------------------------------------ prediction
@pytest.mark.parametrize("method", ["direct", "sweeps", "gauss-seidel", "gmres", "bicgstab"])
@pytest.mark.parametrize("discounted", [True, False])
def test_bounds_on_the_value_of_a_policy(method: str, discounted: bool) -> None:
    for seed in range(15):
        problem = stated(seed, 0.9 if discounted else 1.0, ends=not discounted)
        problem.row_tolerance = 1e-2
        rng = np.random.default_rng(seed)
        mdp, pairs = problem.mdp(), problem.exact()
        counts = [len(actions) for actions in pairs]
        shares = [[1.0 / c] * c if c else [] for c in counts]
        if seed % 2:
            drawn = [rng.dirichlet(np.ones(c)) if c else [] for c in counts]
            shares = [[float(x) for x in row] for row in drawn]
        chain = mdp_exact.mixed(pairs, [[Fraction(x) for x in row] for row in shares])
        truth = mdp_exact.chain_value(chain, Fraction(problem.discount))
        weights = np.array([x for row in shares for x in row])
        policy = "uniform" if not seed % 2 else weights
        steps = {"sweeps": 40} if method in ("sweeps", "gauss-seidel") else {}
        found = evaluate(mdp, policy, method, tolerance=1e-9, **steps)
        wrong = outside(found.lower, found.upper, truth)
        assert not wrong, (seed, wrong, found.status)
        assert np.isfinite(found.value).all()


@pytest.mark.parametrize("discount", [0.999, 1.0])
def test_actions_whose_rewards_cancel_in_the_mixture(discount: float) -> None:
    """Mixing pairs of large rewards rounds by more than the reward that is left."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        count = 5
        pay = rng.normal(size=count) * 1e9
        pay[-1] = -pay[:-1].sum() + 1e-3
        stay = [[(0.999, 0), (0.001, 1)]] * count
        problem = Stated([stay, [[(1.0, 1)]]], [[float(r) for r in pay], [0.0]], discount,
                         terminal=(1,))  # fmt: skip
        mdp = problem.mdp()
        for policy, shares in (
            ("uniform", [Fraction(1)] * count), (w := rng.dirichlet(np.ones(count)), _rational(w))
        ):  # fmt: skip
            chain = mdp_exact.mixed(problem.exact(), [shares, []])
            truth = mdp_exact.chain_value(chain, Fraction(discount))
            found = evaluate(mdp, policy)
            assert not outside(found.lower, found.upper, truth), seed


@pytest.mark.parametrize("literal", [False, True])
def test_weights_of_a_policy_that_miss_one(literal: bool) -> None:
    """Divided by their sum, or as they are: relative to what is mixed, and to the value."""
    loop = [[(1.0, 0)]] * 2
    for excess in (-4e-10, 4e-10):
        shares = [0.5 + excess, 0.5]
        for pay, discount in (([1e9, -1e9], 0.9), ([1.0, 1.0], 0.9), ([1.0, 1.0], 1e-3)):
            problem = Stated([loop], [pay], discount)
            chain = mdp_exact.mixed(problem.exact(), [_rational(np.array(shares))], literal)
            truth = mdp_exact.chain_value(chain, Fraction(discount))
            for value in (np.zeros(1), rounded(truth), np.array([10.0])):
                found = certify(problem.mdp(), value, np.array(shares))
                assert not outside(found.lower, found.upper, truth), (literal, excess, pay, value)


# -------------------------------------------------------------------------- generated rows
@row_function
def _table_row(state, action, parameters, successors, weights):  # type: ignore[no-untyped-def]
    target, probability, reward, width = parameters
    for k in range(width):
        successors[k] = target[state, action, k]
        weights[k] = probability[state, action, k]
    return width, reward[state, action]


def generated(target: np.ndarray, probability: np.ndarray, reward: np.ndarray, discount: float):
    states, actions, width = target.shape
    parameters = (target, probability, reward, width)
    return MatrixFree(states, actions, width, _table_row, parameters, discount,
                      np.zeros(states, dtype=np.bool_))  # fmt: skip


def test_bounds_of_generated_rows() -> None:
    for seed in range(40):
        rng = np.random.default_rng(seed)
        states, actions, width = 3, 2, 3
        target = rng.integers(0, states, (states, actions, width))
        probability = rng.dirichlet(np.ones(width), (states, actions))
        reward = rng.normal(size=(states, actions)) * 10.0 ** rng.integers(-300, 300)
        discount = DISCOUNTS[seed % len(DISCOUNTS)]
        if seed % 2:  # rewards that nearly cancel on a cycle
            target[:] = (np.arange(states)[:, None, None] + 1) % states
            reward = np.array(cycle(seed).reward) * np.ones((states, actions))
            discount = 0.999
        rows = [
            [
                [(float(p), int(t)) for p, t in zip(probability[s, a], target[s, a], strict=True)]
                for a in range(actions)
            ]
            for s in range(states)
        ]
        problem = Stated(rows, reward.tolist(), discount)
        truth = mdp_exact.optimal(problem.exact(), Fraction(discount))
        matrix_free = generated(target, probability, reward, discount)
        for value in (np.zeros(states), np.clip(rounded(truth) + 1e-3, -1e300, 1e300)):
            solution = solve(matrix_free, 1e-320, "value-iteration", start=value, max_iterations=0)
            check(solution, truth, (seed, "at", value))
        for limit in (1, 2, 60):
            solution = solve(matrix_free, 1e-300, max_iterations=limit)
            check(solution, truth, (seed, limit, solution.status))
            stored = solve(matrix_free.stored(), 1e-300, max_iterations=limit)
            check(stored, truth, (seed, limit, stored.status))


def free(problem: Stated) -> MatrixFree:
    """The rows generated instead of stored, padded with successors of probability 0."""
    rows = problem.rows
    shape = (len(rows), len(rows[0]), max(len(row) for state in rows for row in state))
    target, probability = np.zeros(shape, dtype=np.int64), np.zeros(shape)
    for s, a in np.ndindex(shape[:2]):
        for k, (p, t) in enumerate(rows[s][a]):
            probability[s, a, k], target[s, a, k] = p, t
    return generated(target, probability, np.array(problem.reward), problem.discount)


def test_each_term_of_the_bounds_of_generated_rows() -> None:
    for seed in range(60):  # the rounding of a backup
        problem = cycle(seed)
        truth = mdp_exact.optimal(problem.exact(), Fraction(problem.discount))
        hold_at(free(problem), rounded(truth) + 1e-3, truth, seed)
    # Rows that miss one by less than is refused: relative to the moves, ...
    rows = [[[(0.5 + 4e-13, 1), (0.5, 2)]], [[(1.0, 1)]], [[(1.0, 2)]]]
    problem = Stated(rows, [[0.0], [1e9], [1e9]], 1e-3)
    truth = mdp_exact.optimal(problem.exact(), Fraction(problem.discount))
    hold_at(free(problem), rounded(truth), truth, "relative")
    for literal in (False, True):  # ... and as they are
        row = [(0.5 + 4e-13, 0), (0.5, 1)]
        problem = Stated([[row], [row]], [[1.0], [1.0]], 0.999, literal=literal)
        truth = mdp_exact.optimal(problem.exact(), Fraction(problem.discount))
        for value in (np.zeros(2), np.full(2, 1000.0), rounded(truth)):
            hold_at(free(problem), value, truth, literal)
    tiny = 5e-324  # products that underflow
    rows = [[[(0.5, 1), (0.5, 2)]], [[(1.0, 1)]], [[(1.0, 2)]]]
    problem = Stated(rows, [[0.0], [tiny], [tiny]], 0.5)
    truth = mdp_exact.optimal(problem.exact(), Fraction(1, 2))
    for value in (np.array([0.0, 3 * tiny, tiny]), np.array([tiny, 0.0, 3 * tiny])):
        hold_at(free(problem), value, truth, "tiny")


def test_both_kinds_of_rewards_that_cancel() -> None:
    """A reward of the pair and one of its moves round once more where they are added."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        pay = float(rng.random())
        gain = [1e9 * pay * 1.1, 1e9 * pay * (1.0 - 0.03 / 0.7)]
        problem = Stated([[[(0.3, 0), (0.7, 0)]]], [[1e-7 - 1e9 * pay]], 0.99, [[gain]])
        truth = mdp_exact.optimal(problem.exact(), Fraction(problem.discount))
        hold_at(problem.mdp(), np.zeros(1), truth, seed)
