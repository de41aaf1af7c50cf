"""`solve`: one entry for every method and criterion."""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from likely.errors import InvalidData, InvalidSetting, nearest
from likely.mdp.kernels import threads as threading
from likely.mdp.model.build import mask_of
from likely.mdp.model.problem import MDP, is_discounting
from likely.mdp.model.solution import Progress, Solution, sentence

if TYPE_CHECKING:
    from likely.mdp.discounted.task import Limits, Task
    from likely.mdp.model.matrix_free import MatrixFree

__all__ = ["CRITERIA", "METHODS", "solve"]

# Modules are imported when their method is asked for: the first needs numba, others HiGHS.
METHODS = {
    "auto": ("auto", "auto"),
    "value-iteration": ("value_iteration", "value_iteration"),
    "gauss-seidel": ("value_iteration", "gauss_seidel"),
    "prioritized-sweeping": ("value_iteration", "prioritized_sweeping"),
    "anderson": ("value_iteration", "anderson"),
    "action-elimination": ("value_iteration", "action_elimination"),
    "policy-iteration": ("policy_iteration", "policy_iteration"),
    "modified-policy-iteration": ("policy_iteration", "modified_policy_iteration"),
    "inexact-policy-iteration": ("policy_iteration", "inexact_policy_iteration"),
    "linear-programming": ("linear_program", "linear_programming"),
    "topological": ("topological", "topological"),
    "frontier": ("frontier", "frontier"),
}
CRITERIA = ("discounted", "finite-horizon", "total", "reachability", "average")

# What each method understands; an unknown option is an error.
OPTIONS = {
    "gauss-seidel": ("order",),
    "anderson": ("depth",),
    "modified-policy-iteration": ("sweeps",),
    "inexact-policy-iteration": ("krylov", "alpha"),
}


def solve(
    problem: MDP | MatrixFree,
    tolerance: float = 1e-6,
    method: str = "auto",
    *,
    criterion: str = "discounted",
    objective: str = "max",
    horizon: int | None = None,
    target: npt.ArrayLike | None = None,
    stay: npt.ArrayLike | None = None,
    start: npt.ArrayLike | None = None,
    max_iterations: int | None = None,
    max_seconds: float | None = None,
    callback: Callable[[Progress], object] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = 60.0,
    precision: str = "float64",
    threads: int | None = None,
    options: dict[str, Any] | None = None,
) -> Solution:
    """Solve a Markov decision process to a certified error.

    Args:
        problem: an `MDP`, or a `MatrixFree` whose rows are generated.
        tolerance: the true sup-norm error |V - V*| to reach, in units of reward. Not a
            difference of iterates.
        method: a key of `METHODS`; "auto" picks stopping rule, order and start by the problem.
        criterion: "discounted"; "finite-horizon" (needs `horizon`); "total" (undiscounted sum of
            rewards until a terminal or `target` state); "reachability" (probability of reaching
            `target`, through `stay` states only where given); "average" (reward a step).
        objective: "max" or "min" of the criterion.
        target, stay: masks [S] or lists of states.
        start: [S] start value for the discounted criterion.
        max_iterations, max_seconds: stop early; the bounds hold nevertheless.
        callback: called with `Progress` whenever bounds are known; a true return value stops.
        checkpoint: a file that is written every `checkpoint_seconds` and at the end. If it
            exists, the solve continues from it.
        precision: "float64", or "float32" for sweeps in half the memory traffic. The bounds are
            computed in float64 and include what float32 lost.
        threads: threads for backups; default OMP_NUM_THREADS, else all cores.
        options: for the method, as {"order": "goals"} for "gauss-seidel".

    Returns:
        A `Solution`. After Ctrl-C it holds what is known so far.

    Raises:
        InvalidSetting: an unknown name or an impossible combination.
        InvalidData: a start value or checkpoint that does not fit the problem.
    """
    _check_names(tolerance, method, criterion, objective, precision, options)
    _check_use(criterion, {
        "method": method != "auto", "start": start is not None, "callback": callback is not None,
        "checkpoint": checkpoint is not None, "precision": precision != "float64",
        "threads": threads is not None, "options": bool(options),
        "max_iterations": max_iterations is not None, "max_seconds": max_seconds is not None,
        "horizon": horizon is not None, "target": target is not None, "stay": stay is not None,
    })  # fmt: skip
    if criterion != "discounted":
        if not isinstance(problem, MDP):
            raise InvalidSetting(f'criterion="{criterion}" needs stored rows; use .stored()')
        return _other(
            problem, criterion, tolerance, objective, horizon, target, stay,
            max_iterations, max_seconds, checkpoint, checkpoint_seconds,
        )  # fmt: skip
    if not is_discounting(problem.discount):
        raise InvalidSetting(
            f"discount {problem.discount}: the discounted criterion needs a discount below 1; "
            'give one by problem.with_discount(...), or criterion="total", "reachability", '
            '"average" or "finite-horizon"'
        )
    from likely.mdp.discounted.task import Limits
    from likely.mdp.model.checkpoints import Checkpoint, identity_of

    sign = 1.0 if objective == "max" else -1.0
    task = _task(problem, tolerance, sign, start, precision, threads, options or {})
    kept = None
    if checkpoint is not None:
        identity = {"states": problem.states, "discount": problem.discount}
        if isinstance(problem, MDP):
            identity = identity_of(problem, criterion=criterion, objective=objective)
        kept = Checkpoint(checkpoint, checkpoint_seconds, identity)
    limits = Limits(max_iterations, max_seconds, callback, kept)
    return _discounted(problem, task, method, limits, sign, precision)


def _discounted(
    problem: MDP | MatrixFree, task: Task, method: str, limits: Limits, sign: float, precision: str
) -> Solution:
    from likely.mdp.discounted.task import drive, resume

    if limits.checkpoint is not None:
        resume(limits.checkpoint, task)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        outcome = drive(task, method_named(method), limits)
        seconds = task.seconds
        value, lower, upper = task.finish()
    if sign < 0.0:
        value, lower, upper = -value, -upper, -lower
    best = task.best
    if isinstance(problem, MDP):
        rows = best if task.pair_map is None else _mapped(best, task.pair_map)
        policy = _labels(problem, rows)
    else:
        policy = best
    solution = Solution(
        policy, value, lower, upper, task.iterations, outcome, "", tuple(task.trace),
        {
            "criterion": "discounted", "objective": "max" if sign > 0.0 else "min",
            "method": task.options.get("chosen", method), "tolerance": task.tolerance,
            "precision": precision, "backups": task.backups, "seconds": seconds,
        },
        None, problem if isinstance(problem, MDP) else None,
    )  # fmt: skip
    error = solution.error
    if outcome == "converged" and error > task.tolerance:
        outcome = "rounding"
    status = sentence(outcome, error, task.tolerance, task.iterations, seconds)
    return dataclasses.replace(solution, outcome=outcome, status=status)


def method_named(method: str) -> Callable[[Task], Iterator[None]]:
    """The generator function of a method."""
    module, name = METHODS[method]
    found: Callable[[Task], Iterator[None]] = getattr(
        importlib.import_module(f"likely.mdp.discounted.{module}"), name
    )
    return found


def _task(
    problem: MDP | MatrixFree,
    tolerance: float,
    sign: float,
    start: npt.ArrayLike | None,
    precision: str,
    thread_count: int | None,
    options: dict[str, Any],
) -> Task:
    from likely.mdp.discounted.task import Task
    from likely.mdp.kernels.engine import GeneratedEngine, StoredEngine

    value = np.zeros(problem.states, dtype=np.float32 if precision == "float32" else np.float64)
    if start is not None:
        given = np.asarray(start, dtype=np.float64)
        if given.shape != value.shape or not bool(np.isfinite(given).all()):
            raise InvalidData(
                f"start of shape {given.shape}: expected finite numbers [{problem.states}]"
            )
        with np.errstate(over="ignore"):  # a start that float32 cannot hold ends the solve
            value[:] = sign * given
    if not isinstance(problem, MDP):
        if sign < 0.0:
            raise InvalidSetting(
                'objective="min" needs stored rows, or a row function that negates'
            )
        count = threading.choose(thread_count, problem.states * problem.actions * problem.width)
        generated = GeneratedEngine(problem, count)
        value[problem.terminal] = 0.0
        return Task(generated, None, tolerance, value, options)
    count = threading.choose(thread_count, problem.transitions)
    mdp = problem if sign > 0.0 else problem.negated()
    if start is not None:
        value[problem.terminal] = 0.0
    rounded = None
    if precision == "float32":
        rounded = mdp.probability.astype(np.float32)
    engine = StoredEngine(mdp, mdp.reward, mdp.discount, count, rounded)
    return Task(engine, mdp, tolerance, value, options)


def _labels(mdp: MDP, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """[S] action labels of chosen pairs; -1 where there is none."""
    if not mdp.pairs:
        return np.full(mdp.states, -1, dtype=np.int64)
    policy = mdp.pair_action[rows].astype(np.int64 if mdp.states < 1 << 20 else np.int32)
    policy[rows < 0] = -1
    return np.asarray(policy)


def _mapped(rows: npt.NDArray[Any], pair_map: npt.NDArray[Any]) -> npt.NDArray[Any]:
    mapped = pair_map[rows]
    mapped[rows < 0] = -1
    return np.asarray(mapped)


def _check_names(
    tolerance: float,
    method: str,
    criterion: str,
    objective: str,
    precision: str,
    options: dict[str, Any] | None,
) -> None:
    if not tolerance > 0.0:
        raise InvalidSetting(f"tolerance {tolerance}: expected a positive number")
    for name, given, valid in (
        ("method", method, METHODS), ("criterion", criterion, CRITERIA),
        ("objective", objective, ("max", "min")), ("precision", precision, ("float64", "float32")),
    ):  # fmt: skip
        if given not in valid:
            raise InvalidSetting(f'{name}="{given}" is unknown; {nearest(given, valid)}')
    for key in options or {}:
        known = OPTIONS.get(method, ())
        if key not in known:
            hint = nearest(key, known) if known else "it has none"
            raise InvalidSetting(f'method "{method}" has no option "{key}"; {hint}')


def _check_use(criterion: str, given: dict[str, bool]) -> None:
    """Refuse what the criterion would not heed: a setting is never ignored in silence."""
    heeded = {
        "discounted": ("method", "start", "callback", "checkpoint", "precision", "threads",
                       "options", "max_iterations", "max_seconds"),
        "finite-horizon": ("horizon", "checkpoint", "max_iterations", "max_seconds"),
        "average": ("checkpoint", "max_iterations", "max_seconds"),
        "total": ("target", "checkpoint", "max_iterations", "max_seconds"),
        "reachability": ("target", "stay", "checkpoint", "max_iterations", "max_seconds"),
    }  # fmt: skip
    for name in [name for name, used in given.items() if used]:
        if name not in heeded[criterion]:
            where = " or ".join(f'"{key}"' for key, names in heeded.items() if name in names)
            raise InvalidSetting(
                f'{name}=... has no meaning for criterion="{criterion}"; it is for {where}'
            )


def _other(
    mdp: MDP,
    criterion: str,
    tolerance: float,
    objective: str,
    horizon: int | None,
    target: npt.ArrayLike | None,
    stay: npt.ArrayLike | None,
    max_iterations: int | None,
    max_seconds: float | None,
    checkpoint: str | os.PathLike[str] | None,
    checkpoint_seconds: float,
) -> Solution:
    from likely.mdp.model.checkpoints import Checkpoint, identity_of

    kept = None
    if checkpoint is not None:
        states = {
            name: mask_of(states, mdp.states, name)
            for name, states in (("target", target), ("stay", stay))
            if states is not None
        }
        identity = identity_of(
            mdp, criterion=criterion, objective=objective, horizon=horizon, **states
        )
        kept = Checkpoint(checkpoint, checkpoint_seconds, identity)
    if criterion == "finite-horizon":
        from likely.mdp.solvers.horizon import backward_induction

        if horizon is None:
            raise InvalidSetting('criterion="finite-horizon" needs horizon=..., a number of steps')
        return backward_induction(
            mdp, horizon, objective=objective, max_iterations=max_iterations,
            max_seconds=max_seconds, checkpoint=kept,
        )  # fmt: skip
    if criterion == "average":
        from likely.mdp.solvers.average import average_reward

        return average_reward(
            mdp, tolerance, objective=objective, max_iterations=max_iterations,
            max_seconds=max_seconds, checkpoint=kept,
        )  # fmt: skip
    from likely.mdp.undiscounted import total as undiscounted

    if criterion == "reachability":
        if target is None:
            raise InvalidSetting('criterion="reachability" needs target=..., a set of states')
        return undiscounted.reachability(
            mdp, target, tolerance, objective=objective, stay=stay,
            max_iterations=max_iterations, max_seconds=max_seconds, checkpoint=kept,
        )  # fmt: skip
    return undiscounted.total_reward(
        mdp, tolerance, objective=objective, target=target,
        max_iterations=max_iterations, max_seconds=max_seconds, checkpoint=kept,
    )  # fmt: skip
