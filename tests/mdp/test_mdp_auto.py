"""`auto` and what it stands on: exact evaluation whose cost is known before it is paid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mdp_examples import random_mdp

from likely.mdp import MDP, grid, solve
from likely.mdp.discounted import direct
from likely.mdp.discounted.policy_iteration import modified_policy_iteration
from likely.mdp.discounted.task import Task
from likely.mdp.kernels import krylov
from likely.mdp.kernels.engine import NATURAL, PolicyRows, StoredEngine
from likely.mdp.worlds.garnet import garnet


def functions(states: int, actions: int, discount: float, seed: int = 0, near: int = 0) -> MDP:
    """One successor a pair, anywhere or at most `near` places away."""
    rng = np.random.default_rng(seed)
    moves = rng.integers(0, states, (states, actions))
    if near:
        moves = (np.arange(states)[:, None] + rng.integers(-near, near + 1, moves.shape)) % states
    pairs = states * actions
    return MDP.from_pairs(
        np.arange(0, pairs + 1, actions), np.arange(pairs + 1), moves.ravel(), np.ones(pairs),
        rng.random(pairs), discount,
    )  # fmt: skip


def ring(states: int, discount: float) -> MDP:
    """One cycle through all states, numbered at random."""
    rng = np.random.default_rng(0)
    tour = rng.permutation(states)
    after = np.empty(states, dtype=np.int64)
    after[tour] = np.roll(tour, -1)
    steps = np.arange(states + 1)
    return MDP.from_pairs(steps, steps, after, np.ones(states), rng.random(states), discount)


def star(states: int, discount: float) -> MDP:
    """Every state leads to the hub or on to the next; the hub leads anywhere."""
    rng = np.random.default_rng(0)
    moves = np.stack([np.zeros(states, dtype=np.int64), (np.arange(states) + 1) % states], 1)
    moves[0] = [1, 2]
    steps = np.arange(states + 1)
    return MDP.from_pairs(
        steps, 2 * steps, moves.ravel(), np.full(2 * states, 0.5), rng.random(states), discount
    )


def endless(side: int, discount: float) -> MDP:
    """The slippery grid without a goal, rewards drawn at random."""
    mdp = grid(side, side, goals=[], discount=discount).stored()
    return mdp.with_reward(np.random.default_rng(0).random(mdp.pairs))


SHAPES = {
    "function": lambda d: functions(900, 3, d),
    "one function": lambda d: functions(900, 1, d),
    "near function": lambda d: functions(900, 3, d, near=4),
    "ring": lambda d: ring(900, d),
    "star": lambda d: star(900, d),
    "grid": lambda d: grid(30, 30, goals=[899], discount=d).stored(),
    "endless grid": lambda d: endless(30, d),
    "garnet": lambda d: garnet(700, 3, 3, d),
    "ends": lambda d: random_mdp(900, 3, 3, d, terminal=3),
}


def policy_rows(mdp: MDP, seed: int) -> PolicyRows:
    """The rows of a policy drawn at random."""
    rng = np.random.default_rng(seed)
    counts = np.diff(mdp.pair_ptr)
    best = mdp.pair_ptr[:-1] + (rng.random(mdp.states) * counts).astype(np.int64)
    best[counts == 0] = -1
    engine = StoredEngine(mdp, mdp.reward, mdp.discount, 1)
    return engine.policy_rows(best.astype(engine.best_type), NATURAL, False)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("discount", [0.5, 0.9999])
def test_an_exact_evaluation_is_exact(shape: str, discount: float) -> None:
    rows = policy_rows(SHAPES[shape](discount), 1)
    value, cost = direct.evaluation(rows)
    assert value is not None
    assert cost > 0.0
    truth = np.linalg.solve(direct.system(rows).toarray(), rows.constants)
    assert np.abs(value - truth).max() <= 1e-10 * np.abs(truth).max()


def eliminated(edges: np.ndarray, order: np.ndarray) -> int:
    """The elimination game on a dense pattern: entries below the diagonal of the factor."""
    pattern = edges.copy()
    fill = 0
    for place, state in enumerate(order):
        later = order[place + 1 :]
        meets = later[pattern[state, later]]
        fill += len(meets)
        pattern[np.ix_(meets, meets)] = True
    return fill


@pytest.mark.parametrize("shape", SHAPES)
def test_the_fill_that_is_foretold_is_the_fill(shape: str) -> None:
    rows = policy_rows(SHAPES[shape](0.9), 2)
    states = len(rows.constants)
    lists = direct.symmetric_pattern(rows.row_ptr, rows.columns, rows.weights, states)
    order, fill, _ = direct.minimum_degree(*lists, 10**7, 1e12)
    assert np.array_equal(np.sort(order), np.arange(states))
    edges = direct.system(rows).toarray() != 0.0
    edges |= edges.T
    np.fill_diagonal(edges, False)
    game = eliminated(edges, order)
    assert game <= fill
    if shape != "star":  # a hub is counted as if it met all others
        assert fill == game
    assert fill < 3 * eliminated(edges, np.random.default_rng(0).permutation(states)) + states


def test_what_is_not_affordable_is_known_before_it_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = policy_rows(garnet(3000, 2, 4, 0.99), 0)
    cost, order = direct.analysis(rows, 1e7)
    assert order is None
    assert cost <= 0.5e7
    assert direct.evaluation(rows, 1e7)[0] is None
    # Policy iteration goes on without factors.
    monkeypatch.setattr(direct, "LARGEST", 10_000)
    hopeless = garnet(600, 3, 4, 0.99)
    assert direct.evaluation(policy_rows(hopeless, 0))[0] is None
    assert solve(hopeless, 1e-8, "policy-iteration").converged


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("discount", [0.9, 0.9999])
def test_auto_agrees_with_policy_iteration_and_repeats_itself(shape: str, discount: float) -> None:
    mdp = SHAPES[shape](discount)
    first, again = solve(mdp, 1e-6), solve(mdp, 1e-6, max_seconds=1e6, threads=2)
    assert first.converged
    assert first.iterations == again.iterations
    assert first.about["backups"] == again.about["backups"]
    assert np.array_equal(first.value, again.value)
    truth = solve(mdp, 1e-6, "policy-iteration").value
    assert np.abs(first.value - truth).max() <= 2e-6


@pytest.mark.parametrize("shape", ["function", "one function", "near function", "ring"])
def test_one_successor_costs_the_same_at_every_discount(shape: str) -> None:
    """Paths are followed, so the work does not grow with 1 / (1 - discount)."""
    backups = [solve(SHAPES[shape](d), 1e-6).about["backups"] for d in (0.99, 0.9999)]
    assert backups[1] <= 2.0 * backups[0] + 100.0
    assert backups[1] < 500.0


@pytest.mark.parametrize("shape", ["near function", "grid", "endless grid", "garnet", "ends"])
def test_auto_takes_little_more_work_than_the_best_method(shape: str) -> None:
    mdp = SHAPES[shape](0.999)
    methods = ("gauss-seidel", "policy-iteration", "modified-policy-iteration", "frontier",
               "inexact-policy-iteration")  # fmt: skip
    best = min(
        found.about["backups"]
        for found in (solve(mdp, 1e-6, method, max_iterations=3000) for method in methods)
        if found.converged
    )
    # Counted, not timed; the constant is for the first look at so small a problem.
    assert solve(mdp, 1e-6).about["backups"] <= 1.5 * best + 120.0


def rarely_ends(states: int, discount: float, rare: float = 1e-4) -> MDP:
    """Random moves, and a rare one to the end: one slow mode."""
    rng = np.random.default_rng(0)
    moves = rng.integers(0, states, (states, 4, 6))
    moves[:, :, 0] = states - 1
    chance = (1.0 - rare) * rng.dirichlet(np.ones(5), (states, 4))
    chance = np.concatenate([np.full((states, 4, 1), rare), chance], axis=2)
    pairs = 4 * states
    return MDP.from_pairs(
        np.arange(0, pairs + 1, 4), np.arange(0, 6 * pairs + 1, 6), moves.ravel(),
        chance.ravel(), rng.random(pairs), discount, terminal=np.arange(states) == states - 1,
    )  # fmt: skip


@pytest.mark.parametrize("discount", [0.999, 0.9999])
def test_slow_modes_are_left_to_a_krylov_method(discount: float) -> None:
    mdp = rarely_ends(1000, discount)
    krylov = solve(mdp, 1e-6, "inexact-policy-iteration").about["backups"]
    assert solve(mdp, 1e-6).about["backups"] <= 1.1 * krylov + 20.0


def test_no_action_stays_eliminated_when_another_method_takes_over() -> None:
    mdp = garnet(300, 4, 3, 0.99)
    engine = StoredEngine(mdp, mdp.reward, mdp.discount, 1)
    task = Task(engine, mdp, 1e-6, np.zeros(mdp.states), {})
    run = modified_policy_iteration(task)
    next(run)
    next(run)
    assert len(engine.settled)
    run.close()  # type: ignore[attr-defined]
    assert not len(engine.settled)


def test_a_solve_by_auto_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    mdp = SHAPES["garnet"](0.9999)
    path = tmp_path / "solve.npz"
    part = solve(mdp, 1e-6, max_iterations=2, checkpoint=path)
    assert not part.converged
    whole = solve(mdp, 1e-6, checkpoint=path)
    assert whole.converged
    assert whole.iterations > part.iterations


def corridor(states: int, discount: float) -> MDP:
    """Left or right with slips; a small reward at one end and a large one at the other."""
    here = np.arange(states)
    left, right = np.maximum(here - 1, 0), np.minimum(here + 1, states - 1)
    table = np.zeros((states, 2, states))
    for action, (ahead, behind) in enumerate(((left, right), (right, left))):
        np.add.at(table, (here, action, ahead), 0.8)
        np.add.at(table, (here, action, behind), 0.1)
        np.add.at(table, (here, action, here), 0.1)
    reward = np.zeros((states, 2))
    reward[0], reward[-1] = 0.2, 1.0
    return MDP.from_arrays(table, reward, discount, layout="sas")


def wear(states: int, discount: float) -> MDP:
    """A machine that wears out, to be kept or replaced: no way back but to the start."""
    chance = np.array([0.3, 0.4, 0.2, 0.1])
    table = np.zeros((states, 2, states))
    for step, weight in enumerate(chance):
        here = np.arange(states)
        table[here, 0, np.minimum(here + step, states - 1)] += weight
        table[:, 1, step] += weight
    reward = np.stack([1.0 - np.arange(states) / states, np.full(states, -5.0)], axis=1)
    return MDP.from_arrays(table, reward, discount, layout="sas")


@pytest.mark.parametrize("discount", [0.99, 0.999, 0.9999])
def test_a_corridor_costs_a_few_evaluations_at_every_length(discount: float) -> None:
    """Policy iteration moves the border between the two ends by a state or so at a time."""
    backups = [solve(corridor(n, discount), 1e-6).about["backups"] for n in (300, 1200)]
    assert max(backups) < 600.0
    exact = solve(corridor(300, discount), 1e-6, "policy-iteration").value
    assert np.abs(solve(corridor(300, discount), 1e-6).value - exact).max() <= 2e-6


@pytest.mark.parametrize("discount", [0.9, 0.99, 0.9999])
def test_what_only_moves_on_is_found_by_a_few_sweeps(discount: float) -> None:
    mdp = wear(800, discount)
    best = min(
        found.about["backups"]
        for found in (
            solve(mdp, 1e-6, method, max_iterations=2000)
            for method in ("gauss-seidel", "policy-iteration", "modified-policy-iteration")
        )
        if found.converged
    )
    assert solve(mdp, 1e-6).about["backups"] <= 1.5 * best + 10.0


@pytest.mark.parametrize("shape", ["garnet", "endless grid", "star"])
def test_gmres_solves_and_takes_the_steps_of_a_reference(shape: str) -> None:
    from scipy.sparse import linalg

    rows = policy_rows(SHAPES[shape](0.99), 3)
    steps = 0

    def counted(_: object) -> None:
        nonlocal steps
        steps += 1

    matrix, right = direct.system(rows), rows.constants
    bound = 1e-6 * float(np.linalg.norm(right))
    reference, _ = linalg.gmres(
        matrix, right, rtol=0.0, atol=bound, restart=30, maxiter=9, callback=counted,
        callback_type="pr_norm",
    )  # fmt: skip
    solution, count = krylov.gmres(rows.system, right, bound, krylov.RESTART, 9)
    assert np.linalg.norm(right - matrix @ solution) <= max(
        1.01 * bound, 1.01 * float(np.linalg.norm(right - matrix @ reference))
    )
    assert abs(count - steps) <= 1


def test_no_value_is_left_subnormal() -> None:
    """They would slow every backup down by an order of magnitude, and mean nothing."""
    mdp = corridor(1500, 0.5)
    rich = np.zeros(mdp.pairs)
    rich[-2:] = 1.0
    for method in ("auto", "gauss-seidel", "frontier"):
        task_value = solve(mdp.with_reward(rich), 1e-12, method).value
        assert not ((task_value != 0.0) & (np.abs(task_value) < 1e-307)).any()
