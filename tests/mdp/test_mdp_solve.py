"""`solve`: stopping, resuming, interrupting, options, errors."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mdp_examples import random_mdp

import likely.mdp
from likely.errors import InvalidData, InvalidSetting
from likely.mdp import (
    CRITERIA,
    MDP,
    METHODS,
    Progress,
    Solution,
    World,
    average_reward,
    backward_induction,
    bellman_expectation,
    certify,
    evaluate,
    greedy,
    grid,
    reach,
    simulate,
    solve,
    total_reward,
    worlds,
)
from likely.mdp.kernels import stored
from likely.mdp.model.world import Question


@pytest.fixture(scope="module")
def mdp() -> MDP:
    return random_mdp(60, 3, 4, 0.95, terminal=2)


@pytest.fixture(scope="module")
def truth(mdp: MDP) -> np.ndarray:
    return solve(mdp, 1e-11, "policy-iteration").value


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_reaches_the_true_error(mdp: MDP, truth: np.ndarray, method: str) -> None:
    solution = solve(mdp, 1e-8, method)
    assert solution.converged
    assert np.abs(solution.value - truth).max() <= 1e-8
    assert certify(mdp, solution.value).error <= 1.1e-8 / (1 - mdp.discount)
    assert evaluate(mdp, solution.policy).lower.min() <= solution.upper.max()
    assert bool((evaluate(mdp, solution.policy).value >= truth - 1e-7).all())
    assert solution.trace[-1].error <= 1e-8
    assert "converged" in solution.status


@pytest.mark.parametrize("method", sorted(METHODS))
def test_minimising_is_maximising_the_negative(mdp: MDP, method: str) -> None:
    low = solve(mdp, 1e-8, method, objective="min")
    high = solve(mdp.with_reward(-mdp.reward), 1e-8, method)
    assert np.allclose(low.value, -high.value, atol=2e-8)
    assert np.array_equal(low.lower, -high.upper)
    assert bool((low.lower <= low.value).all())
    assert certify(mdp, low.value, objective="min").error < 1e-6


def test_q_is_the_one_step_look_ahead(mdp: MDP, truth: np.ndarray) -> None:
    solution = solve(mdp, 1e-10)
    assert solution.q is not None
    best = np.maximum.reduceat(solution.q, mdp.pair_ptr[:-1][~mdp.terminal])
    assert np.abs(best - truth[~mdp.terminal]).max() < 1e-9


@pytest.mark.parametrize("method", ["value-iteration", "gauss-seidel", "anderson"])
def test_stopping_early_is_a_status_and_the_bounds_hold(
    mdp: MDP, truth: np.ndarray, method: str
) -> None:
    solution = solve(mdp, 1e-10, method, max_iterations=3)
    assert solution.iterations == 3
    assert solution.outcome == "iterations"
    assert "iteration limit" in solution.status
    assert not solution.converged
    assert bool((solution.lower <= truth).all())
    assert bool((truth <= solution.upper).all())
    assert solve(mdp, 1e-10, method, max_seconds=0.0).outcome == "time"


def test_a_callback_sees_progress_and_may_stop(mdp: MDP) -> None:
    seen: list[Progress] = []

    def watch(progress: Progress) -> bool:
        seen.append(progress)
        return len(seen) == 4

    solution = solve(mdp, 1e-10, "value-iteration", callback=watch)
    assert solution.outcome == "stopped"
    assert [p.point.iteration for p in seen] == [1, 2, 3, 4]
    assert seen[0].value.tolist() == [0.0] * mdp.states
    errors = [p.point.error for p in seen]
    assert errors == sorted(errors, reverse=True)


def test_ctrl_c_returns_what_is_known(mdp: MDP, truth: np.ndarray) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.point.iteration == 5:
            raise KeyboardInterrupt

    solution = solve(mdp, 1e-10, "value-iteration", callback=interrupt)
    assert solution.outcome == "interrupted"
    assert bool((solution.lower <= truth).all())
    assert bool((truth <= solution.upper).all())
    assert solution.error < solve(mdp, 1e-10, "value-iteration", max_iterations=2).error


def test_ten_iterations_are_five_and_five(mdp: MDP, tmp_path: Path) -> None:
    path = tmp_path / "solve.npz"
    whole = solve(mdp, 1e-10, "value-iteration", max_iterations=11)
    first = solve(mdp, 1e-10, "value-iteration", max_iterations=6, checkpoint=path)
    assert first.iterations == 6
    # The sixth iteration checked the value after five backups; resuming checks it again.
    second = solve(mdp, 1e-10, "value-iteration", max_iterations=12, checkpoint=path)
    assert np.array_equal(second.value, whole.value)
    assert np.array_equal(second.lower, whole.lower)
    assert [p.iteration for p in second.trace] == [*range(1, 7), *range(7, 13)]
    finished = solve(mdp, 1e-10, "value-iteration", checkpoint=path)
    assert finished.converged
    other = random_mdp(60, 3, 4, 0.95, seed=1, terminal=2)
    with pytest.raises(InvalidData, match="another problem"):
        solve(other, checkpoint=path)
    path.write_bytes(b"half a file")
    with pytest.raises(InvalidData, match="not a checkpoint"):
        solve(mdp, checkpoint=path)


QUESTIONS: dict[str, dict[str, object]] = {
    "finite-horizon": {"horizon": 12},
    "average": {},
    "total": {"target": [0, 1], "objective": "min"},
    "reachability": {"target": [3]},
}


@pytest.mark.parametrize("criterion", QUESTIONS)
def test_every_criterion_goes_on_from_its_checkpoint(criterion: str, tmp_path: Path) -> None:
    ends = 0 if criterion == "average" else 2
    actions = 1 if criterion == "reachability" else 3  # with more, the graph decides all
    mdp = random_mdp(61, actions, 4, 1.0, seed=5, terminal=ends)
    asked, path = QUESTIONS[criterion], tmp_path / "solve.npz"

    answer = getattr(likely.mdp, CRITERIA[criterion])
    precise = {} if criterion == "finite-horizon" else {"tolerance": 1e-9}

    def solved(**limits: object) -> Solution:
        solution: Solution = answer(mdp, **precise, **asked, **limits)
        return solution

    truth = solved()
    assert truth.converged
    few = 1 if criterion == "total" else 3  # policies are improved in great steps
    part = solved(max_iterations=few, checkpoint=path)
    assert not part.converged
    assert part.iterations == few
    # Bounds hold for any stopping time.
    slack = 1e-8 * (1.0 + np.abs(truth.value))
    assert bool((part.lower <= truth.value + slack).all())
    assert bool((part.upper >= truth.value - slack).all())
    if criterion == "finite-horizon":
        assert np.array_equal(part.value[9:], truth.value[9:])
        assert bool(np.isfinite(part.lower).all())
    whole = solved(max_iterations=2 * few)
    second = solved(max_iterations=2 * few, checkpoint=path)
    assert second.iterations == whole.iterations
    assert np.array_equal(second.value, whole.value)
    assert solved(checkpoint=path).converged
    with pytest.raises(InvalidData, match="another problem"):
        answer(random_mdp(61, actions, 4, 1.0, seed=6, terminal=ends), checkpoint=path, **asked)
    # The bounds in a checkpoint are believed, so its problem must agree to the last number.
    swapped, elsewhere = mdp.probability.copy(), mdp.indices.copy()
    swapped[:2] = swapped[1::-1]
    elsewhere[0] = max(set(range(mdp.states)) - set(elsewhere[:4].tolist()))
    for change in ({"probability": swapped}, {"indices": elsewhere}):
        with pytest.raises(InvalidData, match="another problem"):
            answer(dataclasses.replace(mdp, **change), checkpoint=path, **asked)
    if criterion != "average":
        with pytest.raises(InvalidData, match="another problem"):
            average_reward(mdp, checkpoint=path)


def test_float32_bounds_account_for_float32(mdp: MDP, truth: np.ndarray) -> None:
    solution = solve(mdp, 1e-9, "value-iteration", precision="float32")
    assert solution.outcome == "rounding"
    assert 1e-9 < solution.error < 1e-2
    assert bool((solution.lower <= truth).all())
    assert bool((truth <= solution.upper).all())
    assert solve(mdp, 1e-3, "value-iteration", precision="float32").converged


def test_float32_sweeps_read_float32_wherever_rows_are_copied() -> None:
    """Half the memory traffic, and the kernels that the other methods have compiled."""
    solve(worlds.build("slippery-grid", 0.99, [30, 30]), 1e-2, "frontier", precision="float32")
    for kernel in (stored.sweep, stored.march):
        single = [str(s[0]) for s in kernel.signatures if "Array(float32" in str(s[1:])]
        assert single
        assert all("array(float32, 1d, C), readonly array(float64" in s for s in single)


def test_a_tolerance_below_rounding_ends_and_says_so() -> None:
    mdp = random_mdp(20, 3, 3, 0.9999, scale=1e12)
    solution = solve(mdp, 1e-6, "policy-iteration")
    assert solution.outcome == "rounding"
    assert solution.error < 1e-8 * 1e16
    assert "rounding" in solution.status


def test_threads_give_the_same_numbers() -> None:
    mdp = random_mdp(3000, 4, 6, 0.99)
    one = solve(mdp, 1e-8, "modified-policy-iteration", threads=1)
    three = solve(mdp, 1e-8, "modified-policy-iteration", threads=3)
    assert np.array_equal(one.value, three.value)
    assert np.array_equal(one.policy, three.policy)


def test_a_start_value_is_used(mdp: MDP, truth: np.ndarray) -> None:
    warm = solve(mdp, 1e-8, "value-iteration", start=truth)
    assert warm.iterations == 1
    with pytest.raises(InvalidData, match="start of shape"):
        solve(mdp, start=np.zeros(3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "valu-iteration"}, 'did you mean "value-iteration"'),
        ({"tolerance": 0.0}, "expected a positive number"),
        ({"objective": "best"}, "valid: max, min"),
        ({"precision": "float16"}, "float64"),
        ({"options": {"order": "goals"}}, 'method "auto" has no option "order"'),
        ({"method": "gauss-seidel", "options": {"ordr": 1}}, 'did you mean "order"'),
        ({"method": "gauss-seidel", "options": {"order": "up"}}, 'order="up" is unknown'),
        ({"threads": 0}, "threads: expected a whole number from 1"),
        ({"tolerance": np.nan}, "expected a positive number"),
    ],
)
def test_wrong_settings_are_named(mdp: MDP, arguments: dict, message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        solve(mdp, **arguments)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_negative_limits_are_refused(criterion: str) -> None:
    """So too `answer`, which hands them on."""
    problem = random_mdp(5, 2, 2, 0.9, terminal=1)
    question = {"reachability": {"target": [0]}, "finite-horizon": {"horizon": 3}}
    for limit in (
        {"max_iterations": -1},
        {"max_seconds": -1.0},
        {"max_seconds": np.nan},
    ):
        with pytest.raises(InvalidSetting, match=rf"{next(iter(limit))}.*: expected a"):
            solve(problem, criterion=criterion, **limit, **question.get(criterion, {}))


def test_a_discount_of_one_is_refused_with_the_call_that_answers(mdp: MDP) -> None:
    with pytest.raises(InvalidSetting, match=r"call mdp\.average_reward\(problem\)"):
        solve(random_mdp(5, 2, 2, 1.0))
    world = worlds.build("small-gridworld")
    with pytest.raises(InvalidSetting, match=r"call mdp\.total_reward\(problem\)"):
        solve(world)
    assert total_reward(world).value[:4] == pytest.approx([0, -1, -2, -3])
    target = np.array([True, False])
    asked = World("asked", "", random_mdp(2, 1, 1, 1.0), question=Question("total", "min", target))
    with pytest.raises(InvalidSetting, match=r"call mdp\.answer\(problem, problem\.question\)"):
        solve(asked)
    with pytest.raises(InvalidSetting, match="discount below 1"):
        certify(mdp.with_discount(1.0), np.zeros(mdp.states))


def test_a_world_is_solved_as_its_mdp() -> None:
    lake = worlds.build("frozen-lake")
    assert np.array_equal(solve(lake).value, solve(lake.mdp).value)
    value = np.arange(16.0)
    assert np.array_equal(greedy(lake, value), greedy(lake.mdp, value))
    assert np.array_equal(
        bellman_expectation(lake, value, "left"), bellman_expectation(lake.mdp, value, "left")
    )
    with pytest.raises(InvalidSetting, match="str: expected stored rows, an MDP or a World"):
        total_reward("frozen-lake")  # type: ignore[arg-type]
    with pytest.raises(InvalidSetting, match="stored"):
        average_reward(grid(3, 3, goals=[8], discount=0.9))  # type: ignore[arg-type]


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_function_takes_what_it_heeds_and_is_like_the_others(criterion: str) -> None:
    answer = getattr(likely.mdp, CRITERIA[criterion])
    heeded = list(inspect.signature(answer).parameters)
    shared = ["problem", "objective", "max_iterations", "max_seconds", "checkpoint"]
    assert [name for name in heeded if name in shared] == shared
    assert ("method" in heeded) == (criterion == "discounted")
    assert ("target" in heeded) == (criterion in ("total", "reachability"))
    assert ("horizon" in heeded) == (criterion == "finite-horizon")
    about = inspect.getdoc(answer) or ""
    for part in ("Args:", "Returns:", "Raises:", "Source:", "https://doi.org/"):
        assert part in about
    for name in heeded:
        assert name in ("checkpoint_seconds",) or f" {name}" in about, name


def test_a_criterion_by_name_is_its_function() -> None:
    maze = worlds.build("slippery-grid", size=(5, 5)).mdp.with_discount(1.0)
    calls = {
        "total": (total_reward(maze, 1e-7), {}),
        "reachability": (reach(maze, [24], 1e-7), {"target": [24]}),
        "average": (average_reward(maze, 1e-7), {}),
    }
    for criterion, (direct, rest) in calls.items():
        named = solve(maze, 1e-7, criterion=criterion, **rest)
        assert named.status.split(" and ")[0] == direct.status.split(" and ")[0]
        for part in ("lower", "upper", "policy"):
            assert np.array_equal(getattr(named, part), getattr(direct, part)), criterion
    three = solve(maze, criterion="finite-horizon", horizon=3)
    assert np.array_equal(three.value, backward_induction(maze, 3).value)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"criterion": "totl"}, 'did you mean "total"'),
        ({"criterion": "total", "targt": [3]}, 'did you mean "target"'),
        ({"criterion": "total", "method": "anderson"}, "takes no method"),
        ({"criterion": "reachability"}, "needs target="),
        ({"horizon": 3}, "takes no horizon"),
    ],
)
def test_a_setting_that_a_criterion_does_not_heed_is_refused(
    settings: dict[str, Any], match: str
) -> None:
    with pytest.raises(InvalidSetting, match=match):
        solve(worlds.build("frozen-lake").mdp, **settings)


@pytest.mark.parametrize("order", ["alternate", "forward", "backward", "goals"])
def test_orders_change_the_work_and_not_the_answer(order: str) -> None:
    corridor = grid(1, 200, goals=[199], discount=0.99, slip=0.0).stored()
    solution = solve(corridor, 1e-9, "gauss-seidel", options={"order": order})
    steps = np.arange(199, -1, -1)
    assert np.abs(solution.value + (1 - 0.99**steps) / 0.01).max() < 1e-9
    if order in ("backward", "goals"):
        assert solution.iterations <= 3
    if order == "forward":
        assert solution.iterations > 100


def test_a_problem_without_choices_or_states_to_solve() -> None:
    ended = MDP.from_pairs([0, 0], [0], [], [], [], 0.9, terminal=[0])
    solution = solve(ended)
    assert solution.value.tolist() == [0.0]
    assert solution.policy.tolist() == [-1]
    assert solution.converged


def test_importing_is_light() -> None:
    code = (
        "import sys, likely.mdp; from likely.mdp import MDP, solve, certify; "
        "assert callable(solve) and callable(certify); "
        "assert not {'torch', 'numba', 'scipy', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_certificate_of_generated_rows_asks_for_stored_ones() -> None:
    with pytest.raises(InvalidSetting, match="stored"):
        certify(grid(3, 3, goals=[8], discount=0.9), np.zeros(9))  # type: ignore[arg-type]


def test_a_solve_that_converges_writes_its_checkpoint(mdp: MDP, tmp_path: Path) -> None:
    path = tmp_path / "solve.npz"
    assert solve(mdp, 1e-8, checkpoint=path).converged
    again = solve(mdp, 1e-8, "value-iteration", checkpoint=path)
    assert again.converged
    assert again.trace[-2].error <= 1e-8, "the value that had converged is where it went on"


def students() -> MDP:
    """Study pays later, rest pays now; the last state has only rest."""
    return MDP.from_arrays(
        [[[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]], np.eye(3)],
        [[-1.0, 0.0], [-1.0, 0.0], [0.0, 2.0]], 0.9,
        available=[[True, True], [True, True], [False, True]],
        state_names=["new", "half", "done"], action_names=["study", "rest"],
    )  # fmt: skip


def test_action_values_are_a_table_of_states_and_actions() -> None:
    mdp = students()
    best = solve(mdp, 1e-9)
    table = best.q_table()
    assert table is not None
    assert table[:2].max(axis=1) == pytest.approx(best.value[:2], abs=1e-8)
    assert np.isnan(table[2, 0])
    assert table[2, 1] == pytest.approx(20.0, abs=1e-8)
    assert best.q_table(missing=-np.inf).argmax(axis=1).tolist() == best.policy.tolist()  # type: ignore[union-attr]
    resting = evaluate(mdp, "rest")
    assert resting.q_table()[0].tolist() == pytest.approx([-1.0, 0.0])
    undiscounted = total_reward(worlds.build("small-gridworld")).q_table()
    assert undiscounted is not None
    assert np.nanmax(undiscounted[1]) == pytest.approx(-1.0)


def test_a_solution_and_names_of_actions_are_policies() -> None:
    mdp = students()
    best = solve(mdp, 1e-9)
    assert evaluate(mdp, best).value == pytest.approx(best.value, abs=1e-8)
    named = evaluate(mdp, ["study", "study", "rest"])
    assert np.array_equal(named.value, evaluate(mdp, best.policy).value)
    assert simulate(mdp, best, 5, seed=1).returns.tolist() == (
        simulate(mdp, ["study", "study", "rest"], 5, seed=1).returns.tolist()
    )
    assert certify(mdp, best).error == certify(mdp, best.value).error
    with pytest.raises(InvalidData, match='policy "sleep" is unknown; valid: rest, study, uniform'):
        evaluate(mdp, "sleep")
    with pytest.raises(InvalidData, match="2 names of actions for 3 states"):
        evaluate(mdp, ["study", "rest"])
    with pytest.raises(InvalidData, match="in done, which has only"):
        evaluate(mdp, "study")
    with pytest.raises(InvalidData, match="depends on the step"):
        evaluate(mdp, backward_induction(mdp, 3))


def test_reprs_are_the_sentence_for_a_person() -> None:
    mdp = students()
    best = solve(mdp)
    for answer in (best, evaluate(mdp, best), simulate(mdp, best, 3)):
        assert repr(answer) == str(answer)
        assert len(repr(answer)) < 200


def test_a_value_of_zero_is_shown_as_zero() -> None:
    best = solve(worlds.build("frozen-lake-8x8"), 1e-6)
    near = (best.lower <= 0.0) & (best.upper >= 0.0)
    assert bool(near.any())
    assert bool((best.shown()[near] == 0.0).all())
    assert np.array_equal(best.shown()[~near], best.value[~near])
    wide = solve(worlds.build("frozen-lake-8x8"), 1e-6, "value-iteration", max_iterations=2)
    assert np.array_equal(wide.shown()[~near], wide.value[~near])
