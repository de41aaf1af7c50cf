"""Solutions: a policy, and an interval that contains the optimal value."""

from __future__ import annotations

import dataclasses
import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from likely.mdp.model.arrays import Array, FloatArray


@dataclasses.dataclass(frozen=True)
class TracePoint:
    """The state of a solve after some iterations.

    Attributes:
        iteration: iterations of the method so far.
        backups: work so far, in backups of all state-action pairs.
        seconds: wall-clock time since the solve began.
        error: certified bound on the sup-norm error of the value at this point.
    """

    iteration: int
    backups: float
    seconds: float
    error: float


@dataclasses.dataclass(frozen=True)
class Progress:
    """What a callback sees: the newest trace point and the current value [S] (a copy)."""

    point: TracePoint
    value: FloatArray


@dataclasses.dataclass(frozen=True, eq=False)
class Solution:
    """A solved (or partly solved) Markov decision process.

    Attributes:
        policy: [S] action label of each state, -1 where there is nothing to choose; [H, S] for a
            finite horizon.
        value: [S] within `error` of the truth; [H + 1, S] for a finite horizon. Of a discounted
            solve that converged, one backup of it (`certify`) proves the tolerance.
        lower, upper: like `value`. The optimal value lies between them, state by state, with
            floating-point rounding included, also when the solve was stopped early. For a
            discounted maximisation `lower` also bounds the value of `policy` from below (for a
            minimisation, `upper` from above).
        iterations: iterations of the method.
        outcome: "converged", "iterations", "time", "interrupted", "stopped", "rounding" or
            "overflow" (values beyond the range of the numbers; bounds may be infinite).
        status: the outcome as a sentence.
        trace: certified error against work and time.
        about: method, criterion and other settings that a reader needs.
        gain: [S] average reward a step, for the average-reward criterion; else None.
        q: [pairs] r + discount P value, state-action values at `value`; None for criteria that
            have none. Computed on first use; `q_table` gives it as [S, A].

    A solution is also a policy: `evaluate`, `simulate` and `certify` take it.
    """

    policy: Array
    value: FloatArray
    lower: FloatArray
    upper: FloatArray
    iterations: int
    outcome: str
    status: str
    trace: tuple[TracePoint, ...]
    about: dict[str, Any]
    gain: FloatArray | None = None
    _problem: Any = dataclasses.field(default=None, repr=False)

    @property
    def converged(self) -> bool:
        """Whether the true error is known to be within the tolerance."""
        return self.outcome == "converged"

    @property
    def error(self) -> float:
        """Certified bound on max |value - V*|: the largest distance to an end of the interval."""
        return widest(self.value, self.lower, self.upper)

    @property
    def q(self) -> FloatArray | None:
        """[pairs] state-action values r + discount P value."""
        if self._problem is None or self.value.ndim != 1:
            return None
        from likely.mdp.model.operators import state_action_values

        return state_action_values(self._problem, self.value)

    def q_table(self, missing: float = np.nan) -> FloatArray | None:
        """[S, A] `q` by state and action label, `missing` where an action is not available."""
        from likely.mdp.model.operators import table_of

        return None if self.q is None else table_of(self._problem, self.q, missing)

    def shown(self) -> FloatArray:
        """`value` for people: 0 where the bounds allow it and are narrow beside the values."""
        known = np.abs(self.value[np.isfinite(self.value)])
        with np.errstate(invalid="ignore"):
            narrow = self.upper - self.lower <= 1e-4 * float(known.max(initial=0.0))
        return np.where((self.lower <= 0.0) & (self.upper >= 0.0) & narrow, 0.0, self.value)

    def uninterrupted(self) -> Solution:
        """Itself, for what is not to be built on a solve that Ctrl-C ended.

        Raises:
            KeyboardInterrupt: Ctrl-C did.
        """
        if self.outcome == "interrupted":
            raise KeyboardInterrupt
        return self

    def __str__(self) -> str:
        return self.status

    def __repr__(self) -> str:
        return self.status


def value_array(value: npt.ArrayLike | Solution) -> FloatArray:
    """A value as an array: that of a `Solution`, or numbers."""
    return np.asarray(value.value if isinstance(value, Solution) else value, dtype=np.float64)


def widest(value: FloatArray, lower: FloatArray, upper: FloatArray) -> float:
    """The largest distance from a value to an end of its interval; never nan.

    Where both ends agree there is no uncertainty, even if they are infinite; where one of them
    alone is as infinite as the value, nothing is known.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        reach = np.maximum(upper - value, value - lower)
    reach = np.where(upper == lower, 0.0, np.nan_to_num(reach, nan=np.inf, posinf=np.inf))
    return float(reach.max(initial=0.0)) * (1.0 + 2.0**-52)  # the difference was rounded


def at_most(bound: float, digits: int = 3) -> str:
    """An upper bound as text of so many digits, rounded up so that it still holds.

    >>> at_most(0.0012301), at_most(-2 / 3, 4), at_most(float("inf"))
    ('0.00124', '-0.6666', 'inf')
    """
    return _rounded(bound, digits, ROUND_CEILING)


def at_least(bound: float, digits: int = 3) -> str:
    """A lower bound as text of so many digits, rounded down."""
    return _rounded(bound, digits, ROUND_FLOOR)


def _rounded(bound: float, digits: int, direction: str) -> str:
    if math.isfinite(bound):
        bound = float(Context(digits, direction).create_decimal(Decimal(bound)))
    return f"{bound + 0.0:.{digits}g}"


def sentence(outcome: str, error: float, tolerance: float, iterations: int, seconds: float) -> str:
    """The status of a solve, for a person."""
    heads = {
        "converged": "converged",
        "iterations": "stopped at the iteration limit",
        "time": "stopped at the time limit",
        "interrupted": "interrupted",
        "stopped": "stopped by the callback",
        "rounding": "stopped where rounding limits the bounds",
        "overflow": "stopped: values exceed the range of floating-point numbers",
    }
    unit = "iteration" if iterations == 1 else "iterations"
    text = (
        f"{heads[outcome]} after {iterations} {unit} and {seconds:.3g} s; "
        f"|V - V*| <= {at_most(error)}"
    )
    if outcome != "converged":
        text += f" (tolerance: {tolerance:.3g}); the bounds hold nevertheless"
    return text
