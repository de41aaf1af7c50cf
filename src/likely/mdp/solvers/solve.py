"""`solve`: the discounted criterion, by any method.

The other criteria are functions beside it: `reach`, `total_reward`, `average_reward` and
`backward_induction`, with the parameters that each heeds; `criterion=` calls them by name.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from likely.errors import InvalidData, InvalidSetting, nearest
from likely.mdp.kernels import threads as threading
from likely.mdp.model import checks
from likely.mdp.model.arrays import Array
from likely.mdp.model.problem import MDP, is_discounting
from likely.mdp.model.solution import Progress, Solution, sentence
from likely.mdp.model.world import Problem, World

if TYPE_CHECKING:
    from likely.mdp.discounted.task import Limits, Task
    from likely.mdp.model.matrix_free import MatrixFree

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
# The function of `likely.mdp` for each criterion.
CRITERIA = {
    "discounted": "solve",
    "finite-horizon": "backward_induction",
    "total": "total_reward",
    "reachability": "reach",
    "average": "average_reward",
}

NOT_SETTINGS = ("problem", "criterion", "question")

# What each method understands; an unknown option is an error.
OPTIONS = {
    "gauss-seidel": ("order",),
    "anderson": ("depth",),
    "modified-policy-iteration": ("sweeps",),
    "inexact-policy-iteration": ("krylov", "alpha"),
}


def solve(
    problem: Problem | MatrixFree,
    tolerance: float = 1e-6,
    method: str = "auto",
    *,
    criterion: str = "discounted",
    objective: str = "max",
    start: npt.ArrayLike | None = None,
    max_iterations: int | None = None,
    max_seconds: float | None = None,
    callback: Callable[[Progress], object] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = 60.0,
    precision: str = "float64",
    threads: int | None = None,
    options: dict[str, Any] | None = None,
    **question: Any,
) -> Solution:
    """The best expected discounted sum of rewards, to a certified error.

        V*(s) = max_a [r(s, a) + discount sum_s' p(s' | s, a) V*(s')],  discount < 1

    Args:
        problem: an `MDP`, a `World`, or a `MatrixFree` whose rows are generated.
        tolerance: the true sup-norm error |V - V*| to reach, in units of reward. Not a
            difference of iterates.
        method: a key of `METHODS`; "auto" picks stopping rule, order and start by the problem.
        criterion: a key of `CRITERIA`; any other than "discounted" calls its function, so that
            `solve(problem, criterion="total", target=[3])` is `total_reward(problem, target=[3])`.
        objective: "max" or "min" of the sum.
        start: [S] start value.
        max_iterations, max_seconds: stop early; the bounds hold nevertheless.
        callback: called with `Progress` whenever bounds are known; a true return value stops.
        checkpoint: a file that is written every `checkpoint_seconds` and at the end. If it
            exists, the solve continues from it.
        precision: "float64", or "float32" for sweeps in half the memory traffic. The bounds are
            computed in float64 and include what float32 lost.
        threads: threads for backups; default OMP_NUM_THREADS, else all cores.
        options: for the method, as {"order": "goals"} for "gauss-seidel".
        question: what the function of another criterion takes besides, as `target` or `horizon`.

    Returns:
        A `Solution`: value, lower, upper and policy are [S]. After Ctrl-C it holds what is known
        so far.

    Raises:
        InvalidSetting: an unknown name or an impossible combination; a discount of 1, with the
            function to call instead.
        InvalidData: a start value or checkpoint that does not fit the problem.

    Source: Bellman, "Dynamic Programming", 1957; Puterman, "Markov Decision Processes", 1994,
    chapter 6, https://doi.org/10.1002/9780470316887
    """
    checks.choice("criterion", criterion, CRITERIA)
    if criterion != "discounted" or question:
        return _of_criterion(criterion, problem, question | {
            "tolerance": tolerance, "method": method, "objective": objective, "start": start,
            "max_iterations": max_iterations, "max_seconds": max_seconds, "callback": callback,
            "checkpoint": checkpoint, "checkpoint_seconds": checkpoint_seconds,
            "precision": precision, "threads": threads, "options": options,
        })  # fmt: skip
    checks.asked(tolerance, objective, max_iterations, max_seconds)
    checks.choice("method", method, METHODS)
    checks.choice("precision", precision, ("float64", "float32"))
    _check_options(method, options)
    _check_discount(problem)
    if isinstance(problem, World):
        problem = problem.mdp
    from likely.mdp.discounted.task import Limits
    from likely.mdp.model.checkpoints import Checkpoint, identity_of

    sign = 1.0 if objective == "max" else -1.0
    task = _task(problem, tolerance, sign, start, precision, threads, options or {})
    kept = None
    if checkpoint is not None:
        identity = {"states": problem.states, "discount": problem.discount}
        if isinstance(problem, MDP):
            identity = identity_of(problem, criterion="discounted", objective=objective)
        kept = Checkpoint(checkpoint, checkpoint_seconds, identity)
    limits = Limits(max_iterations, max_seconds, callback, kept)
    return _discounted(problem, task, method, limits, sign, precision)


def _of_criterion(criterion: str, problem: Any, settings: dict[str, Any]) -> Solution:
    """The call of a criterion's function; a setting that it would not heed is refused."""
    function = getattr(importlib.import_module("likely.mdp"), CRITERIA[criterion])
    defaults = inspect.signature(solve).parameters
    takes = [n for n in inspect.signature(function).parameters if n not in NOT_SETTINGS]
    heeded = {}
    for name, value in settings.items():
        default = defaults[name].default if name in defaults else inspect.Parameter.empty
        if name in takes and function is not solve:
            heeded[name] = value
        elif not (value is default or (np.isscalar(value) and value == default)):
            raise InvalidSetting(
                f'{name}={value!r}: the criterion "{criterion}" (mdp.{CRITERIA[criterion]}) takes '
                f"no {name}; {nearest(name, takes)}"
            )
    missing = [
        name
        for name, parameter in list(inspect.signature(function).parameters.items())[1:]
        if parameter.default is parameter.empty and name not in heeded
    ]
    if missing:
        raise InvalidSetting(f'criterion="{criterion}" needs {missing[0]}=...')
    solution: Solution = function(problem, **heeded)
    return solution


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
    function: Callable[[Task], Iterator[None]] = getattr(
        importlib.import_module(f"likely.mdp.discounted.{module}"), name
    )
    return function


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
        first = np.asarray(start, dtype=np.float64)
        if first.shape != value.shape or not bool(np.isfinite(first).all()):
            raise InvalidData(
                f"start of shape {first.shape}: expected finite numbers [{problem.states}]"
            )
        with np.errstate(over="ignore"):  # a start that float32 cannot hold ends the solve
            value[:] = sign * first
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


def _labels(mdp: MDP, rows: Array) -> Array:
    """[S] action labels of chosen pairs; -1 where there is none."""
    if not mdp.pairs:
        return np.full(mdp.states, -1, dtype=np.int64)
    policy = mdp.pair_action[rows].astype(np.int64 if mdp.states < 1 << 20 else np.int32)
    policy[rows < 0] = -1
    return np.asarray(policy)


def _mapped(rows: Array, pair_map: Array) -> Array:
    mapped = pair_map[rows]
    mapped[rows < 0] = -1
    return np.asarray(mapped)


def _check_options(method: str, options: dict[str, Any] | None) -> None:
    known = OPTIONS.get(method, ())
    for key in options or {}:
        if key not in known:
            hint = nearest(key, known) if known else "it has none"
            raise InvalidSetting(f'method "{method}" has no option "{key}"; {hint}')


def _check_discount(problem: Problem | MatrixFree) -> None:
    """Refuse a discount of 1 with the call that answers the problem."""
    rows = problem if not isinstance(problem, World) else problem.mdp
    if is_discounting(rows.discount):
        return
    asked = problem.question if isinstance(problem, World) else None
    if asked is not None:
        hint = "mdp.answer(problem, problem.question)"
    elif bool(rows.terminal.any()):
        hint = "mdp.total_reward(problem)"
    else:
        hint = "mdp.average_reward(problem)"
    raise InvalidSetting(
        f"discount {rows.discount}: mdp.solve is for a discount below 1; call {hint}, or give a "
        "discount by with_discount (for a number of steps there is mdp.backward_induction, for "
        "the probability of reaching states mdp.reach)"
    )
