"""Property tests: the intervals are true, whatever the method, and whenever it was stopped."""

from __future__ import annotations

import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mdp_examples import random_mdp

from likely.mdp import (
    MDP,
    METHODS,
    average_reward,
    backward_induction,
    bellman_optimality,
    certify,
    evaluate,
    solve,
    total_reward,
)
from likely.mdp.discounted.linear_program import solve_program
from likely.mdp.model.solution import at_least, at_most

DISCOUNTS = st.sampled_from([0.3, 0.9, 0.99, 0.9999])
SCALES = st.sampled_from([1e-6, 1.0, 1e6, 1e12])


@st.composite
def problems(draw: st.DrawFn) -> MDP:
    states = draw(st.integers(2, 12))
    return random_mdp(
        states,
        draw(st.integers(1, 4)),
        draw(st.integers(1, 4)),
        draw(DISCOUNTS),
        seed=draw(st.integers(0, 2**32 - 1)),
        terminal=draw(st.integers(0, min(2, states - 1))),
        scale=draw(SCALES),
    )


def exact(mdp: MDP) -> np.ndarray:
    """V* in extended precision: the best policy by enumeration of improvements."""
    kept = np.longdouble(mdp.discount)
    p = mdp.transition.toarray().astype(np.longdouble)
    r = mdp.reward.astype(np.longdouble)
    rows = np.array([mdp.pair_ptr[s] for s in range(mdp.states)])
    live = np.flatnonzero(~mdp.terminal)
    while True:
        matrix = np.eye(mdp.states, dtype=np.longdouble)
        right = np.zeros(mdp.states, dtype=np.longdouble)
        matrix[live] -= kept * p[rows[live]]
        right[live] = r[rows[live]]
        value = np.linalg.solve(matrix.astype(float), right.astype(float)).astype(np.longdouble)
        for _ in range(4):  # iterative refinement in extended precision
            value += np.linalg.solve(matrix.astype(float), (right - matrix @ value).astype(float))
        q = r + kept * (p @ value)
        changed = False
        for s in live:
            span = slice(mdp.pair_ptr[s], mdp.pair_ptr[s + 1])
            best = int(np.argmax(q[span])) + mdp.pair_ptr[s]
            if q[best] > q[rows[s]] + 1e-16 * (1 + abs(q[best])):
                rows[s] = best
                changed = True
        if not changed:
            return value


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mdp=problems(), method=st.sampled_from(sorted(METHODS)), sweeps=st.integers(1, 40))
def test_bounds_hold_after_any_number_of_iterations(mdp: MDP, method: str, sweeps: int) -> None:
    truth = exact(mdp)
    # The truth itself is known to about 1e-19 relative, amplified by the conditioning.
    size = float(np.abs(mdp.reward).max()) / (1.0 - mdp.discount)
    slack = 1e-17 * size / (1.0 - mdp.discount)
    solution = solve(mdp, 1e-9 * size, method, max_iterations=sweeps)
    assert bool((solution.lower <= truth + slack).all())
    assert bool((truth - slack <= solution.upper).all())
    assert np.abs(solution.value - truth).max() <= solution.error * (1 + 1e-12) + slack
    if solution.converged:
        assert solution.error <= 1e-9 * size


def circle(discount: float = 0.9999) -> MDP:
    """Two states that lead to each other: the span of T v - v falls by the discount alone."""
    return MDP.from_pairs([0, 1, 2], [0, 1, 2], [1, 0], [1.0, 1.0], [0.1, 0.6], discount)


@settings(max_examples=15, deadline=None)
@given(mdp=problems())
@example(mdp=circle())
def test_methods_agree_and_contain_the_linear_program(mdp: MDP) -> None:
    size = float(np.abs(mdp.reward).max()) / (1.0 - mdp.discount)
    # The first call of a kernel compiles it, so what must converge has no limit.
    fast = ("auto", "policy-iteration", "linear-programming", "inexact-policy-iteration")
    solutions = {
        m: solve(mdp, 1e-7 * size, m, max_seconds=None if m in fast else 0.4)
        for m in METHODS
        if m != "prioritized-sweeping" or mdp.discount < 0.999
    }
    lower = np.max([s.lower for s in solutions.values()], axis=0)
    upper = np.min([s.upper for s in solutions.values()], axis=0)
    assert bool((lower <= upper).all())
    program = solve_program(mdp)
    # HiGHS works to 1e-7 of the scaled constraints, which the discount amplifies.
    room = 2e-7 * float(np.abs(mdp.reward).max()) / (1.0 - mdp.discount) * mdp.states
    for solution in solutions.values():
        assert bool((solution.lower <= program + room).all())
        assert bool((program <= solution.upper + room).all())
    for name in fast:
        assert solutions[name].converged, (name, solutions[name].status)


@settings(max_examples=60, deadline=None)
@given(
    mdp=problems(), seed=st.integers(0, 1000),
    size=st.sampled_from([0.0, 1.0, 1e8]), objective=st.sampled_from(["max", "min"]),
)  # fmt: skip
def test_a_certificate_holds_for_any_value(
    mdp: MDP, seed: int, size: float, objective: str
) -> None:
    value = size * np.random.default_rng(seed).standard_normal(mdp.states)
    value[mdp.terminal] = 0.0
    certificate = certify(mdp, value, objective=objective)
    sign = 1.0 if objective == "max" else -1.0
    truth = sign * exact(mdp.with_reward(sign * mdp.reward))
    slack = 1e-17 * float(np.abs(truth).max()) / (1.0 - mdp.discount)
    assert bool((certificate.lower <= truth + slack).all())
    assert bool((truth - slack <= certificate.upper).all())
    assert np.abs(value - truth).max() <= certificate.error + slack


@settings(max_examples=40, deadline=None)
@given(mdp=problems(), sweeps=st.integers(1, 30))
def test_the_policy_is_as_good_as_the_lower_bound_says(mdp: MDP, sweeps: int) -> None:
    solution = solve(mdp, 1e-12, "value-iteration", max_iterations=sweeps)
    achieved = evaluate(mdp, solution.policy)
    assert bool((achieved.upper >= solution.lower).all())
    loss = certify(mdp, np.where(mdp.terminal, 0.0, solution.value)).policy_loss
    assert float((solution.upper - achieved.lower).max()) >= 0.0
    assert loss >= -1e-30


@settings(max_examples=30, deadline=None)
@given(mdp=problems())
def test_contraction_and_monotonicity(mdp: MDP) -> None:
    rng = np.random.default_rng(0)
    scale = float(np.abs(mdp.reward).max())
    v, w = scale * rng.standard_normal((2, mdp.states))
    gap = np.abs(bellman_optimality(mdp, v) - bellman_optimality(mdp, w)).max()
    assert gap <= mdp.discount * np.abs(v - w).max() * (1 + 1e-12)
    high = np.maximum(v, w)
    assert bool((bellman_optimality(mdp, high) >= bellman_optimality(mdp, v)).all())


def test_value_iteration_converges_at_exactly_the_discount() -> None:
    # One absorbing state that pays 1: the error is discount^k / (1 - discount) exactly.
    mdp = MDP.from_arrays(np.ones((1, 1, 1)), np.ones(1), 0.9)
    value, errors = np.zeros(1), []
    for _ in range(30):
        value = bellman_optimality(mdp, value)
        errors.append(10.0 - value[0])
    ratios = np.array(errors[1:]) / errors[:-1]
    assert np.allclose(ratios, 0.9, atol=1e-10)


@pytest.mark.parametrize("discount", [0.9, 0.999])
def test_bounds_shrink_to_the_tolerance_and_not_by_luck(discount: float) -> None:
    mdp = random_mdp(50, 3, 3, discount, terminal=1)
    wide = solve(mdp, 1e-2, "value-iteration")
    narrow = solve(mdp, 1e-8, "value-iteration")
    assert wide.converged
    assert narrow.converged
    assert narrow.iterations > wide.iterations
    assert bool((wide.lower <= narrow.upper).all())
    assert bool((narrow.lower <= wide.upper).all())
    # A bound that is never within a factor of a hundred of the truth would be no use.
    assert np.abs(wide.value - narrow.value).max() > 1e-4


@pytest.mark.parametrize("seed", range(12))
def test_a_bound_that_is_printed_holds(seed: int) -> None:
    """Printed numbers have few digits; they are rounded up, not to the nearest."""
    mdp = random_mdp(6, 2, 3, 0.9, seed=seed, terminal=1)
    solution = solve(mdp, 1e-3, "value-iteration", max_iterations=seed + 1)
    for answer in (
        solution,
        certify(mdp, solution),
        evaluate(mdp, "uniform", "sweeps", sweeps=seed),
        backward_induction(mdp, 40),
        average_reward(mdp, max_iterations=seed + 1),
        total_reward(mdp.with_reward(-np.abs(mdp.reward)), max_iterations=seed + 1),
    ):
        line = str(answer)
        assert Fraction(re.findall(r"\| <= ([-+.e\d]+)", line)[0]) >= Fraction(answer.error), line


@given(st.floats(-1e300, 1e300, allow_subnormal=False), st.integers(1, 15))
def test_rounding_for_print_is_outwards_and_by_less_than_a_digit(bound: float, digits: int) -> None:
    above, below = Fraction(at_most(bound, digits)), Fraction(at_least(bound, digits))
    assert below <= Fraction(bound) <= above
    assert above - below <= abs(Fraction(bound)) * Fraction(10) ** (1 - digits)
