"""Undiscounted bounds and policies against every deterministic policy in rational arithmetic."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from undiscounted_reference import best, of_policy, small_problem

from likely.errors import InvalidSetting
from likely.mdp import MDP, Solution, reach, total_reward
from likely.mdp.undiscounted import ssp_kernels as kernels

REWARDS = {
    "mixed": (-2.0, -1.0, 0.0, 0.0, 1.0),
    "costs": (-3.0, -1.0, 0.0, -0.5),
    "even": (-1.0, 0.0, 1.0),
    "digits": (-1234567.890123, -0.1, -98765.4321, 0.0),
}


def contains(solution: Solution, truth: list[object], sign: float) -> None:
    """The bounds hold at every state, in rational arithmetic, and meet within the tolerance."""
    for s, exact in enumerate(truth):
        low, high = float(solution.lower[s]), float(solution.upper[s])
        if isinstance(exact, float):
            assert low == high == exact, (s, low, high, exact)
        else:
            assert isinstance(exact, Fraction), s
            assert Fraction(low) <= exact <= Fraction(high), (s, low, high, float(exact))
            assert high - low <= 2e-6 * max(1.0, abs(float(exact))), (s, low, high)


def attained(mdp: MDP, solution: Solution, truth: list[object], target: set[int] | None,
             probability: bool) -> None:  # fmt: skip
    """The policy is worth what is claimed, up to the tolerance."""
    rows = mdp.pair_of(solution.policy)
    policy = {s: int(rows[s] - mdp.pair_ptr[s]) for s in range(mdp.states) if not mdp.terminal[s]}
    for s, (exact, own) in enumerate(
        zip(truth, of_policy(mdp, policy, target, probability), strict=True)
    ):
        if own is None and target is not None:
            own = float("inf")
        if isinstance(exact, float):
            assert own == exact, (s, exact, own, solution.policy)
        else:
            assert own is not None, (s, exact, solution.policy)
            assert abs(float(own) - float(exact)) <= 1e-5 * max(1.0, abs(float(exact))), (
                s, float(exact), own, solution.policy,
            )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1_000_000), objective=st.sampled_from(["max", "min"]),
    dyadic=st.booleans(),
)  # fmt: skip
def test_reachability_is_the_best_policy(seed: int, objective: str, dyadic: bool) -> None:
    mdp = small_problem(seed, (0.0,), dyadic=dyadic)
    target = set(np.random.default_rng(seed).choice(5, 1 + seed % 2, replace=False).tolist())
    truth = best(mdp, objective, target, True)
    solution = reach(mdp, sorted(target), objective=objective)
    contains(solution, truth, 1.0)
    attained(mdp, solution, truth, target, True)


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 1_000_000), objective=st.sampled_from(["max", "min"]),
    rewards=st.sampled_from(sorted(REWARDS)), dyadic=st.booleans(), aimed=st.booleans(),
)  # fmt: skip
def test_total_reward_is_the_best_policy(
    seed: int, objective: str, rewards: str, dyadic: bool, aimed: bool
) -> None:
    sign = 1.0 if objective == "max" else -1.0
    mdp = small_problem(seed, tuple(sign * r for r in REWARDS[rewards]), dyadic=dyadic)
    target = None
    if aimed:
        target = set(np.random.default_rng(seed).choice(5, seed % 3, replace=False).tolist())
    options = {} if target is None else {"target": sorted(target)}
    truth = best(mdp, objective, target)
    try:
        solution = total_reward(mdp, objective=objective, **options)
    except InvalidSetting as error:
        refused(mdp, objective, target, truth, str(error))
        return
    contains(solution, truth, sign)
    attained(mdp, solution, truth, target, False)
    if any(isinstance(exact, float) for exact in truth):
        assert "inf in" in solution.status


def refused(
    mdp: MDP, objective: str, target: set[int] | None, truth: list[object], message: str
) -> None:
    """A refusal is right: some cycle gains for ever, or no policy's sum settles."""
    from undiscounted_reference import Chain, gain, policies, reachable, rows_of

    sign = 1 if objective == "max" else -1
    rows, goal = rows_of(mdp), target or set()
    if "pays without end" in message:
        for policy in policies(mdp):
            chain: Chain = {s: rows[s][a] for s, a in policy.items() if s not in goal}
            for s in chain:
                members = reachable(chain, s)
                closed = all(t in chain and s in reachable(chain, t) for t in members)
                if closed and sign * gain(chain, sorted(members)) > 0:
                    return
        pytest.fail(f"refused although no cycle pays: {message}")
    assert "breaks even for ever" in message
    assert target is None
    # From some state all that is left is to break even for ever, or to lose without end.
    assert any(
        own is None and (exact is None or exact == -sign * float("inf"))
        for policy in policies(mdp)
        for own, exact in zip(of_policy(mdp, policy, None, False), truth, strict=True)
    )


def test_going_round_is_cheap_and_leaving_dear() -> None:
    # Value iteration from 0 would need a million sweeps to see that leaving is best.
    mdp = MDP.from_pairs([0, 1, 3, 3], [0, 1, 2, 3], [1, 0, 2], [1.0] * 3, [-0.1, -0.1, -1e5],
                         1.0, terminal=[2])  # fmt: skip
    solution = total_reward(mdp)
    assert solution.converged
    assert solution.policy.tolist() == [0, 1, -1]
    assert np.abs(solution.value - [-100000.1, -1e5, 0.0]).max() <= 1e-6


def test_what_the_target_could_do_is_not_looked_at() -> None:
    # 0 -> 1 for 1; the target 1 goes round for any reward, or leads into a cycle beyond it.
    for beyond in (-1.0, 0.0, 5.0):
        mdp = MDP.from_pairs([0, 1, 3, 4], [0, 1, 2, 3, 4], [1, 1, 2, 2], [1.0] * 4,
                             [1.0, beyond, beyond, beyond], 1.0)  # fmt: skip
        for objective in ("min", "max"):
            solution = total_reward(mdp, objective=objective, target=[1])
            assert solution.value.tolist() == [1.0, 0.0, np.inf]


def test_a_free_place_to_wait_beside_a_cycle_that_costs() -> None:
    # Wait at 0, or go to 1 for 1 and come back for -2.
    mdp = MDP.from_pairs([0, 2, 3], [0, 1, 2, 3], [0, 1, 0], [1.0] * 3, [0.0, 1.0, -2.0], 1.0)
    solution = total_reward(mdp)
    assert solution.value.tolist() == [0.0, -2.0]
    assert solution.policy.tolist() == [0, 0]


def test_cycles_that_break_even_are_gone_round_as_it_suits() -> None:
    # 0 -> 1 for 1, 1 -> 0 for -1; waiting is free at 1 only, so 0 is worth 1.
    mdp = MDP.from_pairs([0, 1, 3], [0, 1, 2, 3], [1, 0, 1], [1.0] * 3, [1.0, -1.0, 0.0], 1.0)
    assert np.abs(total_reward(mdp).value - [1.0, 0.0]).max() <= 1e-15
    # Without a place to wait the sum never settles.
    round_only = MDP.from_pairs([0, 1, 2], [0, 1, 2], [1, 0], [1.0] * 2, [1.0, -1.0], 1.0)
    with pytest.raises(InvalidSetting, match="breaks even for ever"):
        total_reward(round_only)
    # Until a target the cycle must be left, from its better side.
    out = MDP.from_pairs([0, 2, 4, 4], [0, 1, 2, 3, 4], [1, 2, 0, 2], [1.0] * 4,
                         [1.0, -3.0, -1.0, -3.0], 1.0, terminal=[2])  # fmt: skip
    best_way = total_reward(out.with_reward(-out.reward), objective="min", target=[2])
    assert np.abs(best_way.value - [2.0, 3.0, 0.0]).max() < 1e-9
    assert best_way.policy.tolist() == [0, 1, -1]


def test_what_folding_of_rewards_lost_is_paid_for() -> None:
    # With a reward known to 1e-3 only, ten steps are known to 1e-2.
    mdp = MDP.from_pairs([0, 1, 1], [0, 2], [0, 1], [0.9, 0.1], [-1e-4], 1.0, terminal=[1])
    loose = dataclasses.replace(mdp, reward_defect=1e-3)
    around = MDP.from_pairs(
        [0, 1, 2, 2], [0, 1, 3], [1, 0, 2], [1.0, 0.9, 0.1], [-1e-4, 0.0], 1.0, terminal=[2]
    )
    for problem in (loose, dataclasses.replace(around, reward_defect=1e-3)):
        solution = total_reward(problem)
        assert solution.lower[0] <= -0.001 - 0.0099
        assert solution.upper[0] >= -0.001 + 0.0099


def test_an_infinite_value_is_attained() -> None:
    # 0: (a) to the target, (b) to 1; 1: (a) to the target, (b) stays.
    mdp = MDP.from_pairs([0, 2, 4, 5], [0, 1, 2, 3, 4, 5], [2, 1, 2, 1, 2], [1.0] * 5,
                         [9.0, 0.0, 9.0, 0.0, 0.0], 1.0)  # fmt: skip
    most = total_reward(mdp, objective="max", target=[2])
    assert most.value.tolist() == [np.inf, np.inf, 0.0]
    assert most.policy[:2].tolist() == [1, 1]
    assert "V* is inf in 2 states (state 0, ...)" in most.status
    assert "may miss the target" in most.status


def test_an_empty_target_is_never_reached() -> None:
    mdp = small_problem(3, (-1.0, 0.0))
    for objective in ("max", "min"):
        solution = reach(mdp, [], objective=objective)
        assert solution.value.tolist() == [0.0] * mdp.states
        endless = total_reward(mdp, target=[], objective=objective)
        assert endless.value.tolist() == [np.inf] * mdp.states


@pytest.mark.parametrize("objective", ["max", "min"])
@pytest.mark.parametrize("seed", range(6))
def test_rounding_decides_and_is_paid_for(objective: str, seed: int) -> None:
    # Rewards of many digits, long loops: the value in floating point is off by many units, so
    # bounds without room for rounding miss the truth at some state.
    rng = np.random.default_rng(seed)
    states = 40
    indptr, indices, weights, reward = [0], [], [], []
    for s in range(states - 1):
        back = int(rng.integers(0, s + 1))
        p = float(rng.random() * 0.1 + 0.05)
        indices += [back, s + 1] if back != s + 1 else [s + 1]
        weights += [p, 1.0 - p]
        indptr.append(len(indices))
        reward.append(float(rng.random() * 1e9 / 3.0))
    mdp = MDP.from_pairs([*range(states), states - 1], indptr, indices, weights, reward,
                         1.0, terminal=[states - 1])  # fmt: skip
    truth = chain_value(mdp)
    solution = total_reward(mdp, 1e-30, objective=objective)
    for s in range(states):
        assert Fraction(float(solution.lower[s])) <= truth[s] <= Fraction(float(solution.upper[s]))
    assert solution.error <= 1e-9 * float(max(truth))
    acyclic = MDP.from_pairs(
        [*range(states), states - 1], list(range(states)), list(range(1, states)),
        [1.0] * (states - 1), reward, 1.0, terminal=[states - 1],
    )  # fmt: skip
    truth = chain_value(acyclic)
    solution = total_reward(acyclic, 1e-30, objective=objective)
    for s in range(states):
        assert Fraction(float(solution.lower[s])) <= truth[s] <= Fraction(float(solution.upper[s]))


def chain_value(mdp: MDP) -> list[Fraction]:
    from undiscounted_reference import expected, rows_of

    chain = {s: choices[0] for s, choices in enumerate(rows_of(mdp)) if choices}
    ends = {s: Fraction(0) for s in range(mdp.states) if mdp.terminal[s]}
    value = expected(chain, ends)
    return [value[s] for s in range(mdp.states)]


@pytest.mark.parametrize("direction", ["upper", "lower"])
def test_one_backup_proves_nothing_that_rounding_alone_says(direction: str) -> None:
    """A guess at the rounded backup: proven only where the exact backup is on its side, too."""
    rng = np.random.default_rng(0)
    wrong_side, proven = 0, 0
    for _ in range(300):
        weight, gain = rng.dirichlet(np.ones(6)) * 0.9, rng.normal(size=1)
        outside = np.append(0.0, rng.normal(size=6) * 10.0 ** rng.integers(-3, 4, 6))
        rows = (
            np.array([0, 1, 1, 1, 1, 1, 1, 1]), np.array([0, 6]), np.arange(1, 7), weight, gain,
        )  # fmt: skip
        exact = Fraction(float(gain[0])) + sum(
            Fraction(float(p)) * Fraction(float(v))
            for p, v in zip(weight, outside[1:], strict=True)
        )
        rounded = float(gain[0])
        for p, v in zip(weight, outside[1:], strict=True):
            rounded += p * v
        size = abs(gain[0]) + float((weight * abs(outside[1:])).sum())
        for room in (0.0, 1e-13 * size):
            guess = outside.copy()
            if direction == "upper":
                guess[0] = rounded + room
                claimed = kernels.prove_upper(rows, outside, guess, 0, 1, 16 * kernels.UNIT, 0.0)
                holds = exact <= Fraction(float(guess[0]))
            else:
                guess[0], picked = rounded - room, np.full(7, -1)
                claimed = kernels.prove_lower(
                    rows, outside, guess, picked, 0, 1, 16 * kernels.UNIT, 0.0
                )
                holds = exact >= Fraction(float(guess[0]))
            assert holds or not claimed
            wrong_side += not holds
            proven += bool(claimed)
    assert wrong_side > 50
    assert proven > 250
