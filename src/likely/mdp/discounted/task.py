"""One discounted solve in progress: the value, its certified error, and when to stop.

A method is a generator. It improves `task.value` and yields once an iteration; everything else
(limits, trace, callback, checkpoint, Ctrl-C, the final bounds) is written here, once. A method
has no other memory than the value, so a checkpoint is the value.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from likely.errors import InvalidData
from likely.mdp.kernels import clock
from likely.mdp.kernels.engine import Engine, Residual, StoredEngine, value_shifts
from likely.mdp.kernels.stored import UNIT
from likely.mdp.model.arrays import Array, FloatArray
from likely.mdp.model.checkpoints import Checkpoint
from likely.mdp.model.problem import MDP
from likely.mdp.model.solution import Progress, TracePoint

Method = Callable[["Task"], Iterator[None]]

# Checks without any improvement of the bound after which a solve is at the end of its precision.
PATIENCE = 100


@dataclasses.dataclass
class Limits:
    """When to stop before the tolerance is met, and whom to tell."""

    max_iterations: int | None = None
    max_seconds: float | None = None
    callback: Callable[[Progress], object] | None = None
    checkpoint: Checkpoint | None = None


class Task:
    """The state that a method works on.

    Attributes:
        mdp: the stored problem with the sign of the objective applied, or None where rows are
            generated.
        engine: its kernels.
        value: [S] the current value; any finite vector is legal at any time.
        best: [S] pair (or action label) that is greedy in `value` after `check`.
        tolerance: the error that was asked for.
        goal: the error to work for; below the tolerance where the interval meets it but the
            value, by itself, does not.
        answer: [S] a value whose one backup proves the tolerance, once there is one.
        error: certified sup-norm error after `check`; infinite where values overflow.
        fresh: whether the bounds belong to the present `value`.
        backups: work so far, in backups of all pairs.
    """

    def __init__(
        self,
        engine: Engine,
        mdp: MDP | None,
        tolerance: float,
        value: Array,
        options: dict[str, Any],
    ) -> None:
        self.engine = engine
        self.mdp = mdp
        self.tolerance = self.goal = tolerance
        self.options = options
        self.value = value
        states = engine.states
        self.floor = np.empty(states)
        self.top = np.empty(states)
        self.best: Array = np.full(states, -1, dtype=engine.best_type)
        self.residual = Residual(-math.inf, math.inf, 0.0)
        self.shifts = (-math.inf, math.inf)
        self.error = math.inf
        self.answer: FloatArray | None = None
        self.fresh = False
        self.backups = 0.0
        self.iterations = 0
        self.began = clock.now()
        self.seconds_before = 0.0
        self.trace: list[TracePoint] = []
        self.pair_map: Array | None = None  # rows of the original problem, if some were dropped
        self._best_error = math.inf
        self._stale = 0

    # The largest residual span, and the largest |residual|, that meet the tolerance.
    @property
    def target_span(self) -> float:
        """Span of T v - v at which the bounds meet the tolerance."""
        return 2.0 * self.goal * (1.0 - self.engine.discount) / self.engine.discount

    def check(self) -> None:
        """One backup: greedy policy, rigorous residual, certified error of `value`."""
        self.residual = self.engine.residual(self.value, self.floor, self.top, self.best)
        self.shifts = value_shifts(self.engine, self.residual)
        low, high = self.shifts
        # Ten parts in 10^10 stand for the rounding of the last addition, done in `finish`.
        self.error = 0.5 * (high - low + self.residual.gap) * (1.0 + 1e-9)
        self.fresh = True
        self.backups += 1.0

    def prove(self) -> bool:
        """Look for a value that anyone can check: one whose one backup proves the tolerance.

        The middle of the interval is within the tolerance, but a backup of it need not show that.
        So it is backed up once more. If that does not do, the solve continues from it, with a
        tighter goal.
        """
        answer = self.value if self.value.dtype == np.float64 else self.value.astype(np.float64)
        np.add(self.floor, self.top, out=self.floor)
        self.floor *= 0.5
        answer += self.floor
        terminal = self.engine.terminal
        if bool(terminal.any()):
            answer[terminal] = 0.0
        else:  # nothing tells a common shift of all states from the truth but the bounds
            answer += 0.5 * self.shifts[0] + 0.5 * self.shifts[1]
        # All actions, also those that were found not to be optimal.
        engine, best = self.engine, self.best
        partly = isinstance(engine, StoredEngine) and (
            self.pair_map is not None or engine.settled.size
        )
        if partly:
            assert isinstance(engine, StoredEngine)
            assert self.mdp is not None
            pieces = len(engine.pieces)
            engine = StoredEngine(self.mdp, self.mdp.reward, self.mdp.discount, pieces)
            best = np.full_like(self.best, -1)
        residual = engine.residual(answer, self.floor, self.top, best)
        low, high = value_shifts(engine, residual)
        self.backups += 1.0
        error = max(residual.high + high, -(residual.low + low)) * (1.0 + 1e-9)
        error += 16.0 * UNIT * max(float(answer.max()), -float(answer.min()))
        if error <= self.tolerance:
            self.engine, self.best, self.answer = engine, best, answer
            self.pair_map = None if partly else self.pair_map
            self.residual, self.shifts, self.error = residual, (low, high), error
            return True
        self.goal *= min(0.5, max(0.1, 0.7 * self.tolerance / error))
        if answer is not self.value:
            np.copyto(self.value, answer, casting="same_kind")
        self.check()
        return False

    def start_below(self) -> None:
        """Unless a start was given, start at a value that no state can fall below.

        From below, Gauss-Seidel values only rise, and a move that stays in place looks as bad as
        it is; from above, every state first believes its unvisited neighbours.
        """
        if self.iterations > 0 or bool(self.value.any()):
            return
        self.check()  # at zero the residual is max_a r
        least = min(0.0, float(self.floor.min()))
        self.value[:] = least / (1.0 - self.engine.discount)
        self.value[self.engine.terminal] = 0.0
        self.best[:] = -1
        self.fresh = False

    def changed(self, backups: float) -> None:
        """The value has been changed with this much work."""
        self.fresh = False
        self.backups += backups

    @property
    def seconds(self) -> float:
        """Wall-clock time, resumed time included."""
        return self.seconds_before + clock.now() - self.began

    def at_rounding(self) -> bool:
        """Whether the bounds are as narrow as this precision makes them."""
        if self.residual.high - self.residual.low <= 2.0 * self.residual.gap:
            return True
        if self.error < self._best_error * (1.0 - 1e-12):
            self._best_error, self._stale = self.error, 0
        else:
            self._stale += 1
        if self._stale <= PATIENCE:
            return False
        # No progress for long is the end only where the values are too coarse for more: a
        # method may also make the bound wait.
        spacing = float(np.finfo(self.value.dtype).eps) * float(np.abs(self.value).max(initial=0.0))
        return self.residual.high - self.residual.low <= 64.0 * spacing

    def finish(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Value, lower and upper at the present value, or at the answer."""
        if self.answer is None and not self.fresh:
            self.check()
        if not math.isfinite(self.error):  # the backup of zero needs only the rewards
            self.value[:] = 0.0
            self.check()
        value: FloatArray = self.value if self.answer is None else self.answer
        lower, upper = self.floor, self.top
        self.engine.finish(value, lower, upper, *self.shifts)
        self.fresh = False  # floor and top now hold bounds
        if self.answer is not None:  # one backup away from the interval, maybe
            return value, np.minimum(lower, value, out=lower), np.maximum(upper, value, out=upper)
        middle = 0.5 * lower
        middle += 0.5 * upper
        endless = ~np.isfinite(middle)
        if bool(endless.any()):
            middle[endless] = np.clip(value[endless], lower[endless], upper[endless])
        return middle, lower, upper


def drive(task: Task, method: Method, limits: Limits) -> str:
    """Run a method until an outcome; returns its name (see `Solution.outcome`)."""
    outcome = "interrupted"
    ending = object()
    try:
        steps = method(task)
        while True:
            ended = next(steps, ending) is ending
            task.iterations += not ended
            if task.fresh:
                point = TracePoint(task.iterations, task.backups, task.seconds, task.error)
                task.trace.append(point)
                if limits.callback is not None and limits.callback(
                    Progress(point, np.array(task.value, dtype=np.float64))
                ):
                    outcome = "stopped"
                    break
                if not math.isfinite(task.error):
                    outcome = "overflow"
                    break
                if task.error <= task.goal and task.prove():
                    outcome = "converged"
                    break
                if task.at_rounding():
                    outcome = "rounding"
                    break
            if ended:
                outcome = "rounding"
                break
            if limits.max_iterations is not None and task.iterations >= limits.max_iterations:
                outcome = "iterations"
                break
            if limits.max_seconds is not None and task.seconds >= limits.max_seconds:
                outcome = "time"
                break
            if limits.checkpoint is not None and limits.checkpoint.due():
                save_checkpoint(limits.checkpoint, task)
    except KeyboardInterrupt:
        task.fresh = False
    if not task.fresh:
        task.check()
        task.trace.append(TracePoint(task.iterations, task.backups, task.seconds, task.error))
    if not math.isfinite(task.error):
        return "overflow"
    if outcome != "converged" and task.error <= task.goal and task.prove():
        outcome = "converged"
    if limits.checkpoint is not None:
        save_checkpoint(limits.checkpoint, task)
    return outcome


def save_checkpoint(checkpoint: Checkpoint, task: Task) -> None:
    """Write the value and the counters."""
    value = np.asarray(task.value if task.answer is None else task.answer, dtype=np.float64)
    checkpoint.save({"value": value}, task.iterations, task.backups, task.seconds, task.trace)


def resume(checkpoint: Checkpoint, task: Task) -> None:
    """Continue from a checkpoint, if the file exists; it must be of the same problem."""
    saved = checkpoint.load({"value": task.value.shape})
    if saved is None:
        return
    if "value" not in saved.arrays or not bool(np.isfinite(saved.arrays["value"]).all()):
        raise InvalidData(f"{checkpoint.path}: its value is not finite numbers; delete it")
    task.value[:] = saved.arrays["value"]
    task.value[task.engine.terminal] = 0.0
    task.iterations, task.backups = saved.iterations, saved.backups
    task.seconds_before, task.trace = saved.seconds, saved.trace
