"""The method "auto": a cheap look at the problem's shape, then a race that is decided by counting.

The shape picks the method that goes first (see `_first`). From there on only measured progress
counts: how far the certified error has fallen for so many backups tells how many are still needed.
When that is more than has been spent, the others are tried from the value reached: exact evaluation
of the policy, if its cost, which is bounded before it is paid, is small beside what the forecast
says; then a Krylov method and plain sweeps in turn, each with a budget that doubles, the better one
first. Work is counted in backups, never in seconds, so the same problem is solved the same way on
every machine and in every run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from likely.mdp.discounted import direct
from likely.mdp.discounted.frontier import frontier
from likely.mdp.discounted.policy_iteration import (
    inexact_policy_iteration,
    modified_policy_iteration,
)
from likely.mdp.discounted.task import Task
from likely.mdp.kernels import graph
from likely.mdp.kernels import stored as kernels
from likely.mdp.kernels.engine import NATURAL, NO_ORDER, Order, StoredEngine
from likely.mdp.kernels.krylov import RESTART, step_cost
from likely.mdp.model.problem import MDP

Method = Callable[[Task], Iterator[None]]

SMALL = 10_000  # transitions up to which a call from Python weighs as much as sweeps
CALL = 300_000  # transitions backed up in the time of a few dozen calls from Python
GLANCE = 3_000_000  # transitions backed up in milliseconds, before anything is compared
TRIAL = 30.0  # backups before the first forecast
HOPELESS = 90.0  # backups after which a forecast of four times as many ends the first trial
CHEAP = 30.0  # backups that plain sweeps must be feared to take before a probe is worth it
AGAIN = 5.0  # times the allowance for an evaluation that did not suffice, before another look
EASY = 500.0  # backups that an evaluation may cost before anything else has been tried


def auto(task: Task) -> Iterator[None]:
    """See the module's docstring."""
    mdp = task.mdp
    if mdp is None:
        yield from _named(task, "frontier", frontier(task))
        return
    ends = bool(mdp.terminal.any())
    if ends and mdp.transitions <= SMALL:
        yield from _named(task, "settle", settle(task))
    if mdp.transitions == mdp.pairs:
        # One successor a pair: the value of a policy is known after a pass along its paths.
        chosen = mdp.pairs > mdp.states
        order = _order(mdp) if chosen else NATURAL
        pairs = 4 * chosen
        if ends and order is not NATURAL:
            # An evaluation costs so little that two checks are enough, and few sweeps afterwards.
            yield from _watched(task, "frontier", frontier, Forecast(task), TRIAL, checks=2)
            pairs = 1
        yield from _named(task, "policy-iteration", swept(task, order, pairs=pairs))
        return
    if ends:
        yield from _named(task, "gauss-seidel", once_through(task))
    steps, width = graph.reach(mdp)
    mixing = steps <= 6
    deep = width < 12.0 and not mixing and _corridor(mdp)
    # At the very most:
    sweeps = -math.log(max(1e-300, min(0.1, task.target_span))) / (1.0 - mdp.discount)
    if ends and deep and sweeps > EASY:
        yield from _named(task, "policy-iteration", swept(task, NATURAL, EASY * mdp.transitions))
    if not (ends or deep or mixing) and sweeps * mdp.states > CHEAP * mdp.pairs:
        yield from _named(task, "gauss-seidel", probed(task))
    methods = _racing(ends, deep, mixing, mdp.discount)
    name = next(iter(methods))
    rates = dict.fromkeys(methods, math.inf)
    # Where a backup takes microseconds, so many are tried first that a switch does not weigh.
    budget = max(2.0 * TRIAL if mixing else TRIAL, GLANCE / mdp.transitions if mixing else 0.0)
    early = HOPELESS if mixing else math.inf
    patience, level = 8, int(ends)
    step = step_cost(mdp.states, mdp.transitions * mdp.states // mdp.pairs) / mdp.transitions
    least = 4.0 * RESTART * step  # what the Krylov method needs, if it is lucky
    refused = 0.0  # the allowance that did not suffice for an exact evaluation
    while True:
        forecast = Forecast(task)
        # With an end, sweeps are no match for a Krylov method: it gets the time to settle.
        krylov = 8.0 if ends and mixing else 3.0
        trial = _watched(task, name, methods[name], forecast, budget, least * mixing, krylov, early)
        yield from trial
        early = math.inf
        # An evaluation may cost what was spent so far or more, less where moves lead anywhere.
        allowance = mdp.transitions * task.backups * (0.5 if mixing else 4.0)
        cost, elimination = 0.0, None
        if allowance > AGAIN * refused:
            assert isinstance(task.engine, StoredEngine)
            rows = task.engine.policy_rows(task.best, NATURAL, False)
            cost, elimination = direct.analysis(rows, allowance)
            cost /= mdp.transitions
            task.backups += cost if elimination is None else 0.3 * cost
            refused = allowance if elimination is None else 0.0
        if elimination is not None:
            if deep and 3.0 * cost < forecast.remaining():
                yield from _named(task, "policy-iteration", marched(task))
                deep = False
            # A policy that is nearly right needs few evaluations: as much goes to that as three.
            else:
                yield from _watched(task, name, methods[name], forecast, max(budget, 3.0 * cost))
            run = swept(task, NATURAL, 3.0 * allowance, level, patience)
            yield from _named(task, "policy-iteration", run)
            patience *= 2
        # A Krylov method is faster later, once the policy is settled.
        rates[name] = forecast.rate * (
            2.0 if mixing and name == "inexact-policy-iteration" else 1.0
        )
        if mixing or elimination is not None:
            name = max(methods, key=rates.__getitem__)
        budget *= 1.5


def _racing(ends: bool, deep: bool, mixing: bool, discount: float) -> dict[str, Method]:
    """The methods that race, the one that suits the shape first."""
    sweeps: dict[str, Method] = {"modified-policy-iteration": modified_policy_iteration}
    krylov: dict[str, Method] = {"inexact-policy-iteration": inexact_policy_iteration}
    outwards: dict[str, Method] = {"frontier": frontier}
    if mixing:
        # No order helps. Without an end the span falls fast, whatever the discount; with one,
        # the slow mode is left to a Krylov method.
        return krylov | sweeps if ends and discount > 0.95 else sweeps | krylov
    return outwards | sweeps | krylov if ends or deep else sweeps | outwards | krylov


def _corridor(mdp: MDP) -> bool:
    """Whether the way to the goals is as long as in a corridor, too long for sweeps to cover."""
    goals = graph.outward(mdp, mdp.reward)
    return goals is not None and 5 * goals[2] > mdp.states


class Forecast:
    """How much work a method still needs, from how the error fell for the work that it did.

    Attributes:
        points: (backups, log of the certified error) at the checks so far.
    """

    def __init__(self, task: Task) -> None:
        self.target = math.log(task.tolerance)
        self.points: list[tuple[float, float]] = []

    def add(self, task: Task) -> None:
        """Record a check."""
        if 0.0 < task.error < math.inf:
            self.points.append((task.backups, math.log(task.error)))

    @property
    def rate(self) -> float:
        """Fall of the log error for each backup, over the later half of the work."""
        if len(self.points) < 2:
            return 0.0
        last = self.points[-1]
        middle = 0.5 * (self.points[0][0] + last[0])
        early = max((p for p in self.points[:-1] if p[0] <= middle), default=self.points[0])
        return (early[1] - last[1]) / max(1e-9, last[0] - early[0])

    @property
    def falling(self) -> bool:
        """Whether the last check found the least error so far."""
        return all(self.points[-1][1] <= error for _, error in self.points)

    def remaining(self) -> float:
        """Backups until the tolerance."""
        if not self.points:
            return math.inf
        rate = self.rate
        return (self.points[-1][1] - self.target) / rate if rate > 0.0 else math.inf


def _watched(
    task: Task, name: str, method: Method, forecast: Forecast, budget: float, least: float = 0.0,
    krylov: float = 3.0, early: float = math.inf, checks: int = 3,
) -> Iterator[None]:  # fmt: skip
    """Run a method for its budget, and then for as long as the end is about as near as its begin.

    Or nearer than `least`, the work of the others at least; a Krylov method, while it is nearer
    than `krylov` times its begin. The forecast is believed after so many `checks`. After `early`
    backups, an end four times as far as that begin is enough to stop before the budget.
    """
    begun = task.backups
    run = method(task)
    task.options["chosen"] = f"auto ({name})"
    for _ in run:
        if task.fresh:
            forecast.add(task)
        yield
        spent = task.backups - begun
        # Once the policy is settled, a Krylov method is faster than it was.
        patience = krylov if name == "inexact-policy-iteration" else 1.0
        if spent < budget:
            patience = 4.0 * patience if spent >= early and forecast.falling else math.inf
        if len(forecast.points) >= checks and forecast.remaining() > max(patience * spent, least):
            break
    run.close()  # type: ignore[attr-defined]


def _named(task: Task, name: str, steps: Iterator[None]) -> Iterator[None]:
    task.options["chosen"] = f"auto ({name})"
    yield from steps


def settle(task: Task) -> Iterator[None]:
    """Everything in one kernel call: Python is only entered again for the check.

    Ends, with the tolerance met or not, when calls from Python do not weigh any more.
    """
    engine = task.engine
    assert isinstance(engine, StoredEngine)
    start_low(task)
    target = 0.3 * task.target_span
    left = CALL
    while left > 0:
        limit = 4 + left // (2 * engine.transitions + 1)
        sweeps, backups, _ = kernels.settle(engine.rows, task.value, task.best, target, limit)
        left -= int(backups) * engine.transitions // max(1, len(engine.rows.reward))
        task.iterations += sweeps - 1  # the driver counts the last one
        task.changed(backups / max(1, len(engine.rows.reward)))
        task.check()
        yield
        target *= 0.5


def once_through(task: Task) -> Iterator[None]:
    """A sweep back and one forth, which solve what has no way back; else the value stays."""
    engine = task.engine
    value, best = task.value.copy(), task.best.copy()
    start_low(task)
    engine.sweep(task.value, task.best, Order(NO_ORDER, NO_ORDER, -1))
    again = engine.sweep(task.value, task.best, NATURAL)
    task.backups += 2.0
    if max(again.high, -again.low) <= 0.75 * task.target_span:
        task.check()
        yield
    else:
        task.value[:], task.best[:] = value, best


def probed(task: Task) -> Iterator[None]:
    """Four sweeps to and fro, and more while the changes say that a few more will do.

    Ends with the value that it began with where they do not.
    """
    engine = task.engine
    assert isinstance(engine, StoredEngine)
    value, best = task.value.copy(), task.best.copy()
    start_low(task)
    back = Order(NO_ORDER, NO_ORDER, -1)
    changes: list[float] = []
    target = max(task.target_span, 1e-300)
    while len(changes) < 24:
        engine.sweep(task.value, task.best, back)
        done = engine.sweep(task.value, task.best, NATURAL)
        task.changed(2.0)
        changes.append(max(done.high, -done.low, 1e-300))
        if changes[-1] <= target:
            task.check()
            yield
        if len(changes) > 1:
            rate = math.log(changes[-2] / changes[-1])
            if math.log(max(changes[-1] / target, 1.0)) > 18.0 * rate:
                break
    task.value[:], task.best[:] = value, best
    task.fresh = False


def swept(
    task: Task, order: Order = NATURAL, allowance: float = math.inf, pairs: int = 1,
    patience: int = 1 << 30,
) -> Iterator[None]:  # fmt: skip
    """Policy iteration whose improvement is `pairs` of sweeps to and fro: they carry a change far.

    Sweeps in place need values whose level is right, as it is where episodes end and after an
    exact evaluation; else 0 of them leave the greedy policy as it is.

    Ends where a policy cannot be evaluated for `allowance` (see `direct.evaluation`), and after
    `patience` evaluations where the changes of the policy have not halved in the last four.
    """
    engine = task.engine
    assert isinstance(engine, StoredEngine)
    back = Order(order.forward, order.rank, -order.step)
    if pairs:
        start_low(task)
    previous = task.best.copy()
    changes: list[int] = []
    batches = 3 if pairs > 1 else 0  # that may converge without any evaluation
    while True:
        still = False
        for _ in range(pairs):
            before = task.best.copy()
            there = engine.sweep(task.value, task.best, back)
            again = engine.sweep(task.value, task.best, order)
            task.changed(2.0)
            change = max(there.high, -there.low, again.high, -again.low)
            still = change <= 0.75 * task.target_span or bool((task.best == before).all())
            if still:
                break
        task.check()
        yield
        batches -= 1
        if batches > 0 and not still:
            continue
        changes.append(int((task.best != previous).sum()))
        if len(changes) > max(patience, 4) and changes[-1] > 0.5 * changes[-5]:
            return
        previous = task.best.copy()
        rows = engine.policy_rows(task.best, NATURAL, False)
        value, cost = direct.evaluation(rows, allowance)
        task.backups += cost / engine.transitions
        if value is None:
            return
        if bool(np.isfinite(value).all()):
            np.copyto(task.value, value, casting="same_kind")
        else:  # singular up to rounding, or beyond the range of the numbers: a plain backup
            np.add(task.value, task.top, out=task.value, casting="same_kind")
        task.fresh = False
        if pairs:
            task.check()
            yield


def marched(task: Task) -> Iterator[None]:
    """The best of the policies that pass the largest value on in one direction, state by state.

    An improvement moves the border between two regions by a few states, so along a corridor policy
    iteration takes as many as there are states. A march carries a reward from one end to the
    other. The policies of the marches there and back and of the present value are evaluated, and
    in each state the action of the best is taken, which is no worse than any of them anywhere.
    """
    engine = task.engine
    assert isinstance(engine, StoredEngine)
    states = np.arange(engine.states, dtype=engine.index_type)
    policies = [task.best.copy()]
    for order in (NATURAL, graph.explicit(states[::-1].copy())):
        best = np.full_like(task.best, -1)
        engine.march(np.zeros(engine.states), best, order)
        policies.append(best)
    highest, chosen = np.full(engine.states, -np.inf), policies[0].copy()
    for best in policies:
        value, cost = direct.evaluation(engine.policy_rows(best, NATURAL, False))
        task.changed(cost / engine.transitions + 1.0)
        if value is not None and bool(np.isfinite(value).all()):
            better = value > highest
            highest[better], chosen[better] = value[better], best[better]
    if bool(np.isfinite(highest).all()):
        np.copyto(task.value, highest, casting="same_kind")
    task.check()
    yield


def start_low(task: Task) -> None:
    """Unless a start was given, start at a value that no state can fall below.

    From below, Gauss-Seidel values only rise, and a move that stays in place looks as bad as it
    is.
    """
    engine = task.engine
    if task.iterations > 0 or bool(task.value.any()):
        return
    assert isinstance(engine, StoredEngine)
    kernels.reward_only(engine.rows, task.value, task.best)
    task.best[:] = -1
    least = min(0.0, float(task.value.min(initial=0.0)))
    task.value[:] = least / (1.0 - engine.discount)
    task.value[engine.terminal] = 0.0


def _order(mdp: MDP) -> Order:
    """The natural order where states are numbered by place, or where no order helps."""
    states = np.arange(0, mdp.states, max(1, mdp.states // 1000))
    ends = np.minimum(mdp.indptr[mdp.pair_ptr[states]], mdp.transitions - 1)
    jumps = np.abs(mdp.indices[ends].astype(np.int64) - states)
    near = np.sort(jumps)[len(jumps) // 2] <= 16.0 + 4.0 * math.sqrt(mdp.states)
    if near or graph.mixes_fast(mdp, 12):
        return NATURAL
    goals = graph.outward(mdp, mdp.reward)
    return NATURAL if goals is None else graph.explicit(goals[0])
