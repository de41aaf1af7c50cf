"""Value iteration and its relatives: plain, Gauss-Seidel, prioritized, Anderson, elimination.

All start anywhere and converge because T is a contraction in the sup norm; all stop by the
span bounds that `Task.check` gives, never by the difference of iterates.
"""
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from likely.errors import InvalidSetting
from likely.mdp.discounted.task import Task
from likely.mdp.kernels import graph
from likely.mdp.kernels import stored as kernels
from likely.mdp.kernels.engine import NATURAL, NO_ORDER, Order, StoredEngine
from likely.mdp.model.arrays import Array
from likely.mdp.model.problem import MDP


def value_iteration(task: Task) -> Iterator[None]:
    """v <- T v (Bellman 1957). The check is the backup, so an iteration costs one pass."""
    while True:
        task.check()
        yield
        np.add(task.value, task.top, out=task.value, casting="same_kind")
        task.fresh = False


def gauss_seidel(task: Task) -> Iterator[None]:
    """Backups in place, self-loops solved, sweeps to and fro.

    The option `order` is "alternate" (default), "forward", "backward" or "goals" (by distance to
    the goals, see `graph.towards_goals`).
    """
    order = task.options.get("order", "alternate")
    forward, backward = NATURAL, Order(NO_ORDER, NO_ORDER, -1)
    if order == "goals":
        if task.mdp is None:
            raise InvalidSetting('order="goals" needs stored rows; expected "alternate"')
        forward = backward = graph.towards_goals(task.mdp, task.mdp.reward)
    elif order in ("forward", "backward"):
        forward = backward = forward if order == "forward" else backward
    elif order != "alternate":
        raise InvalidSetting(
            f'order="{order}" is unknown; expected "alternate", "forward", "backward", "goals"'
        )
    task.start_below()
    count = 0
    while True:
        low, high, *_ = task.engine.sweep(task.value, task.best, forward if count % 2 else backward)
        task.changed(1.0)
        count += 1
        # A check costs a sweep. It pays where the change says that the bounds may be met, and
        # now and then for the trace.
        if max(high, 0.0) - min(low, 0.0) <= 2.0 * task.target_span or count % 20 == 0:
            task.check()
        yield


def prioritized_sweeping(task: Task) -> Iterator[None]:
    """Back up the state of largest Bellman error first (Moore and Atkeson 1993).

    An iteration is as many single-state backups as there are states.
    """
    mdp = _stored(task, "prioritized-sweeping")
    pointer, source = graph.predecessor_lists(mdp.pair_ptr, mdp.indptr, mdp.indices, mdp.states)
    while True:
        task.check()
        yield
        done = kernels_prioritized(mdp, task, pointer, source)
        task.changed(done / max(1, mdp.states))


def kernels_prioritized(mdp: MDP, task: Task, pointer: Array, source: Array) -> int:
    """One run of the priority queue; number of state backups."""
    from likely.mdp.kernels.prioritized import run

    return int(
        run(mdp.rows, task.value, task.top, pointer, source, mdp.states, 0.25 * task.target_span)
    )


def anderson(task: Task) -> Iterator[None]:
    """Anderson-accelerated value iteration, safeguarded.

    The next value is the combination of the last five T v that minimises the combined residual
    (Walker and Ni 2011; for MDPs, Geist and Scherrer 2018). It is kept only if its true residual
    is smaller than that of the plain step would be guaranteed to be; else the plain step is
    taken, so the method is never slower than value iteration by more than the rejected checks.
    """
    depth = int(task.options.get("depth", 5))
    values: list[Array] = []
    residuals: list[Array] = []
    task.check()
    yield
    while True:
        values.append(task.value.copy())
        residuals.append(0.5 * (task.floor + task.top))
        del values[:-depth], residuals[:-depth]
        bound = np.abs(residuals[-1]).max() * task.engine.discount
        plain = values[-1] + residuals[-1]
        accepted = False
        if len(values) > 1:
            task.value[:] = _combine(values, residuals)
            task.value[task.engine.terminal] = 0.0
            task.check()
            worst = max(abs(task.residual.low), abs(task.residual.high))
            accepted = bool(np.isfinite(task.error)) and worst <= bound
        if not accepted:
            if len(values) > 1:
                del values[:-1], residuals[:-1]
            task.value[:] = plain
            task.check()
        yield


def _combine(values: list[Array], residuals: list[Array]) -> Array:
    newest = residuals[-1]
    steps = np.stack([newest - r for r in residuals[:-1]], axis=1)  # [S, depth - 1]
    try:
        weights, *_ = np.linalg.lstsq(steps, newest, rcond=1e-10)
    except np.linalg.LinAlgError:  # differences beyond the range of the numbers
        return values[-1] + newest
    mixed = values[-1] + newest
    for weight, v, r in zip(weights, values[:-1], residuals[:-1], strict=True):
        mixed -= weight * ((values[-1] + newest) - (v + r))
    return mixed


def action_elimination(task: Task) -> Iterator[None]:
    """Value iteration that drops actions proven not to be optimal (MacQueen 1967).

    Pair (s, a) cannot be optimal if upper(s, a) = q + discount B / (1 - discount) is below the
    lower bound of v*(s). The rows that are left are stored again whenever a third has gone.
    """
    mdp = _stored(task, "action-elimination")
    left = np.arange(mdp.pairs)
    while True:
        task.check()
        yield
        engine = task.engine
        assert isinstance(engine, StoredEngine)
        rows = engine.exact_rows
        q = np.empty(len(rows.reward))
        kernels.q_values(rows, task.value, q, 0, len(q))
        task.backups += 1.0
        low, high = task.shifts
        owner = np.repeat(np.arange(mdp.states), np.diff(rows.pair_ptr.view(mdp.indptr.dtype)))
        largest = float(abs(task.value).max(initial=0.0))
        size = abs(task.value[owner]) + abs(q) + largest + abs(low) + abs(high)
        width = float(np.diff(rows.indptr.view(mdp.indptr.dtype)).max(initial=0)) + 12.0
        slack = (width * kernels.UNIT + 2.0 * engine.defects[0]) * size + engine.defects[1]
        keep = q + high + slack >= (task.value + task.floor + low)[owner]
        np.add(task.value, task.top, out=task.value, casting="same_kind")
        task.fresh = False
        if keep.sum() <= 2 * len(keep) // 3:
            left = left[keep]
            _shrink(task, mdp, left)


def _shrink(task: Task, mdp: MDP, left: Array) -> None:
    """Continue with the pairs `left` of `mdp` only."""
    owner = mdp.pair_state[left]
    rows = mdp.transition[left]
    kind = mdp.indptr.dtype
    counts = np.bincount(owner, minlength=mdp.states)
    small = dataclasses.replace(
        mdp,
        pair_ptr=np.concatenate([[0], np.cumsum(counts)]).astype(kind),
        indptr=rows.indptr.astype(kind),
        indices=rows.indices.astype(mdp.indices.dtype),
        probability=rows.data,
        reward=mdp.reward[left],
        pair_action=mdp.pair_action[left],
        successor_reward=None,
    )
    pieces = len(task.engine.pieces) if isinstance(task.engine, StoredEngine) else 1
    task.engine = StoredEngine(small, small.reward, small.discount, pieces)
    task.pair_map = left
    task.best[:] = -1


def _stored(task: Task, method: str) -> MDP:
    if task.mdp is None:
        raise InvalidSetting(
            f'method="{method}" needs stored rows; use problem.stored(), or method="auto"'
        )
    return task.mdp
