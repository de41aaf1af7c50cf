"""Policy iteration: exact (Howard 1960), modified (Puterman and Shin 1978), inexact with Krylov.

The greedy step keeps the old action wherever rounding cannot tell it from the best one, so ties
do not make policies cycle.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from likely.errors import InvalidSetting
from likely.mdp.discounted import direct
from likely.mdp.discounted.task import Task
from likely.mdp.kernels import stored as kernels
from likely.mdp.kernels.engine import NATURAL, GeneratedEngine, PolicyRows, StoredEngine
from likely.mdp.kernels.krylov import RESTART, gmres, step_cost
from likely.mdp.model.arrays import Array


def policy_iteration(task: Task) -> Iterator[None]:
    """Evaluate the greedy policy by a direct solve, improve, until nothing changes.

    Where the factors of a policy would fill the memory, which is known before they are made (see
    `direct`), the rest is left to `inexact_policy_iteration`.
    """
    previous: Array | None = None
    while True:
        task.check()
        yield
        if previous is not None and bool((task.best == previous).all()):
            # The policy is optimal; what is left is the error of the linear solve.
            np.add(task.value, task.top, out=task.value, casting="same_kind")
            task.fresh = False
            continue
        previous = task.best.copy()
        solved, cost = direct.evaluation(_rows(task))
        if solved is None:
            yield from inexact_policy_iteration(task)
            return
        if bool(np.isfinite(solved).all()):
            np.copyto(task.value, solved, casting="same_kind")
        else:  # singular up to rounding, or beyond the range of the numbers: a plain backup
            np.add(task.value, task.top, out=task.value, casting="same_kind")
        task.changed(cost / max(1, task.engine.transitions))


def modified_policy_iteration(task: Task) -> Iterator[None]:
    """A few sweeps under the greedy policy between improvements.

    The number of sweeps adapts: they end when the span of the change has fallen to a fiftieth,
    or is small enough for the tolerance, or after the option `sweeps` (default 200). States
    whose action is proven optimal are left out of later improvements (MacQueen 1967), so the
    last checks cost little more than a sweep.
    """
    limit = int(task.options.get("sweeps", 200))
    out = np.empty_like(task.value)
    share = policy_share(task)
    stored = task.engine if isinstance(task.engine, StoredEngine) else None
    rows: Any = None
    if stored is not None and not task.value.any():
        # The backup of zero is the largest reward: no transition has to be read.
        kernels.reward_only(stored.rows, task.value, task.best)
        rows = _rows(task)
        for _ in range(5):
            low, high = rows.backup(task.value, out)
            task.value, out = out, task.value
            task.changed(share)
    if stored is not None:
        stored.begin_elimination()
    try:
        while True:
            task.check()
            yield
            span = task.residual.high - task.residual.low
            stop = max(0.02 * span, 0.3 * task.target_span)
            if stored is not None:
                settled = stored.eliminate(task.value, task.floor, task.shifts)
                # Once every action is known, what is left is to evaluate.
                stop = stop if settled < 0.99 else 0.3 * task.target_span
                rows = _rows(task, rows)
            else:
                rows = task.engine.policy_rows(task.best, NATURAL, False)
            np.add(task.value, task.top, out=task.value, casting="same_kind")
            for _ in range(limit):
                low, high = rows.backup(task.value, out)
                task.value, out = out, task.value
                task.changed(share)
                if high - low <= stop:
                    break
    finally:
        if stored is not None:
            stored.end_elimination()


def inexact_policy_iteration(task: Task) -> Iterator[None]:
    """Policy evaluation by a Krylov method to a residual of `alpha` times the Bellman residual.

    Options: `krylov` "gmres" (default) or "bicgstab"; `alpha` (default 0.01). Where the Krylov
    method fails or makes the residual worse, plain sweeps (Richardson) are used instead.
    """
    krylov = task.options.get("krylov", "gmres")
    if krylov not in ("gmres", "bicgstab"):
        raise InvalidSetting(f'krylov="{krylov}" is unknown; expected "gmres" or "bicgstab"')
    alpha = float(task.options.get("alpha", 0.01))
    share = policy_share(task)
    cost = step_cost(task.engine.states, int(share * task.engine.transitions))
    cycles = 30 if task.options.get("chosen") is None else 4  # a racer's step ends soon
    while True:
        task.check()
        yield
        rows = _rows(task)
        matrix = direct.system(rows)
        start = task.value + task.top
        residual = rows.constants - matrix @ start
        norm = float(np.linalg.norm(residual))
        if 0.0 < norm < np.inf:
            if krylov == "gmres":
                step, count = gmres(rows.system, residual, alpha * norm, RESTART, cycles)
            else:
                step, count = _stabilised(matrix, residual, alpha * norm, RESTART * cycles)
            candidate = start + step
            task.backups += count * cost / max(1, task.engine.transitions)
            better = bool(np.isfinite(candidate).all()) and (
                np.abs(rows.constants - matrix @ candidate).max() <= np.abs(residual).max()
            )
            if better and float(np.abs(candidate).max()) <= np.finfo(task.value.dtype).max:
                task.value[:] = candidate
                task.changed(share)
                continue
        task.value[:] = start
        out = np.empty_like(task.value)
        for _ in range(20):
            rows.backup(task.value, out)
            task.value, out = out, task.value
        task.changed(20 * share)


def _stabilised(matrix: Any, right: Array, tolerance: float, limit: int) -> tuple[Array, int]:
    """BiCGSTAB from zero; the solution and the number of steps."""
    from scipy.sparse import linalg

    count = 0

    def counted(_: Any) -> None:
        nonlocal count
        count += 1

    step, _ = linalg.bicgstab(
        matrix, right, rtol=0.0, atol=tolerance, maxiter=limit, callback=counted
    )
    return step, count


def policy_share(task: Task) -> float:
    """Work of a backup under one policy, in backups of all pairs."""
    if task.mdp is None:
        assert isinstance(task.engine, GeneratedEngine)
        return 1.0 / task.engine.problem.actions
    return task.mdp.states / max(1, task.mdp.pairs)


def _rows(task: Task, reuse: PolicyRows | None = None) -> PolicyRows:
    if isinstance(task.engine, GeneratedEngine):
        raise InvalidSetting('this method needs stored rows; use problem.stored() or "auto"')
    assert isinstance(task.engine, StoredEngine)
    return task.engine.policy_rows(task.best, NATURAL, False, reuse)
