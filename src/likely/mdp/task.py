"""One discounted solve in progress: the value, its certified error, and when to stop.

A method is a generator. It improves `task.value` and yields once an iteration; everything else
(limits, trace, callback, checkpoint, Ctrl-C, the final bounds) is written here, once. A method
has no other memory than the value, so a checkpoint is the value.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from likely.mdp.checkpoints import Checkpoint
from likely.mdp.engine import Engine, Residual, value_shifts
from likely.mdp.problem import MDP
from likely.mdp.solution import Progress, TracePoint

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
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
        error: certified sup-norm error after `check`.
        fresh: whether the bounds belong to the present `value`.
        backups: work so far, in backups of all pairs.
    """

    def __init__(
        self, engine: Engine, mdp: MDP | None, tolerance: float, value: Array,
        options: dict[str, Any],
    ) -> None:  # fmt: skip
        self.engine = engine
        self.mdp = mdp
        self.tolerance = tolerance
        self.options = options
        self.value = value
        states = engine.states
        self.floor = np.empty(states)
        self.top = np.empty(states)
        self.best: Array = np.full(states, -1, dtype=engine.best_type)
        self.residual = Residual(-math.inf, math.inf, 0.0)
        self.shifts = (-math.inf, math.inf)
        self.error = math.inf
        self.fresh = False
        self.backups = 0.0
        self.iterations = 0
        self.began = time.perf_counter()
        self.seconds_before = 0.0
        self.trace: list[TracePoint] = []
        self.pair_map: Array | None = None  # rows of the original problem, if some were dropped
        self._best_error = math.inf
        self._stale = 0

    # The largest residual span, and the largest |residual|, that meet the tolerance.
    @property
    def target_span(self) -> float:
        """Span of T v - v at which the bounds meet the tolerance."""
        return 2.0 * self.tolerance * (1.0 - self.engine.discount) / self.engine.discount

    def check(self) -> None:
        """One backup: greedy policy, rigorous residual, certified error of `value`."""
        self.residual = self.engine.residual(self.value, self.floor, self.top, self.best)
        self.shifts = value_shifts(self.engine, self.residual)
        low, high = self.shifts
        # Ten parts in 10^10 stand for the rounding of the last addition, done in `finish`.
        self.error = 0.5 * (high - low + self.residual.gap) * (1.0 + 1e-9)
        self.fresh = True
        self.backups += 1.0

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
        return self.seconds_before + time.perf_counter() - self.began

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
        """Value, lower and upper at the present value."""
        if not self.fresh:
            self.check()
        lower, upper = self.floor, self.top
        self.engine.finish(self.value, lower, upper, *self.shifts)
        self.fresh = False  # floor and top now hold bounds
        middle = lower + upper
        middle *= 0.5
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
                if task.error <= task.tolerance or task.at_rounding():
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
    if limits.checkpoint is not None:
        save_checkpoint(limits.checkpoint, task)
    return "converged" if task.error <= task.tolerance else outcome


def save_checkpoint(checkpoint: Checkpoint, task: Task) -> None:
    """Write the value and the counters."""
    value = np.asarray(task.value, dtype=np.float64)
    checkpoint.save({"value": value}, task.iterations, task.backups, task.seconds, task.trace)


def resume(checkpoint: Checkpoint, task: Task) -> None:
    """Continue from a checkpoint, if the file exists; it must be of the same problem."""
    found = checkpoint.load({"value": task.value.shape})
    if found is None:
        return
    task.value[:] = found.arrays["value"]
    task.iterations, task.backups = found.iterations, found.backups
    task.seconds_before, task.trace = found.seconds, found.trace
