"""Kernels bound to one problem: what every solver calls, for stored and for generated rows.

Solvers never touch CSR arrays. They use an engine's `residual` (a backup with rigorous bounds),
`sweep` (Gauss-Seidel) and `policy_rows` (the same under a fixed policy). So each method is
written once and runs on both forms.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple, Protocol

import numpy as np

from likely.mdp.kernels import generated, threads
from likely.mdp.kernels import stored as kernels
from likely.mdp.kernels.rows import Rows, System
from likely.mdp.model.arrays import Array, BoolArray, FloatArray
from likely.mdp.model.matrix_free import MatrixFree
from likely.mdp.model.problem import MDP, frozen

NO_ORDER: Array = np.zeros(0, dtype=np.uint32)


@dataclasses.dataclass(frozen=True)
class Residual:
    """Rigorous bounds on T v - v: everything that value bounds need.

    Attributes:
        low, high: bounds on the extremes over states; 0 is included where a state is terminal.
        gap: largest rounding uncertainty of one state.
    """

    low: float
    high: float
    gap: float


@dataclasses.dataclass(frozen=True)
class Order:
    """An order to visit states in. `forward` [S] empty means 0, 1, ...; `step` is 1 or -1."""

    forward: Array
    rank: Array
    step: int = 1


NATURAL = Order(NO_ORDER, NO_ORDER)


class Swept(NamedTuple):
    """What a sweep changed.

    Attributes:
        low, high: min and max change of a value.
        front, rear: least and largest place in the order whose change was more than `still`;
            rear is -1 where there is none.
    """

    low: float
    high: float
    front: int
    rear: int


class PolicySweeps(Protocol):
    """Backups under a fixed policy, on vectors in the numbering that `enter` gives."""

    def enter(self, value: Array) -> Array:
        """`value` in sweep order; the same array where the order is natural."""

    def leave(self, swept: Array, value: Array) -> None:
        """Write a vector in sweep order back to `value`."""

    def sweep(self, value: Array) -> tuple[float, float]:
        """One Gauss-Seidel sweep in place; min and max change."""

    def windows(self, value: Array, stride: int, window: int, places: tuple[int, int]) -> None:
        """Gauss-Seidel over a window of `window` rows that advances by `stride`, in place.

        Each row is swept window / stride times before the front has moved past it. `places` is
        the part of the order to work on.
        """

    def backup(self, value: Array, out: Array) -> tuple[float, float]:
        """out = T_policy value; min and max change."""


class Engine(Protocol):
    """The operations of a solver."""

    states: int
    transitions: int
    discount: float
    terminal: BoolArray
    best_type: type[np.signedinteger[Any]]

    def residual(self, value: Array, floor: FloatArray, top: FloatArray, best: Array) -> Residual:
        """One backup with bounds; `best` becomes greedy."""

    def contraction(self) -> tuple[float, float]:
        """The discount times the least and the largest possible row sum."""

    def sweep(
        self, value: Array, best: Array, order: Order,
        places: tuple[int, int] | None = None, still: float = 0.0,
    ) -> Swept:  # fmt: skip
        """One Gauss-Seidel sweep in place, over all states or over `places` of the order."""

    def march(self, value: Array, best: Array, order: Order) -> None:
        """A start value by one pass in the order, successors ahead closed as if the move stayed.

        `best` holds -1 before and the greedy choice of that pass after it.
        """

    def policy_rows(
        self, best: Array, order: Order, folded: bool, reuse: Any = None
    ) -> PolicySweeps:
        """The rows of the policy `best`, self-loops solved when `folded`.

        `reuse`, made with the same order and folding, may be brought up to date instead.
        """

    def finish(
        self, value: Array, floor: FloatArray, top: FloatArray, low: float, high: float
    ) -> float:
        """Residual bounds to value bounds, in place; the widest interval."""


def value_shifts(engine: Engine, residual: Residual) -> tuple[float, float]:
    """What the states visited after the first step can add, at least and at most.

    gamma low / (1 - gamma) and gamma high / (1 - gamma) (MacQueen 1966, Porteus 1971), with the
    discount widened by the row sums, and rounded outwards.
    """
    small, large = engine.contraction()
    narrow, wide = small / (1.0 - small), large / (1.0 - large)
    low = residual.low * (wide if residual.low < 0.0 else narrow)
    high = residual.high * (wide if residual.high > 0.0 else narrow)
    # What overflows is rounded towards the truth.
    low, high = min(low, kernels.LARGEST), max(high, -kernels.LARGEST)
    slack = 8.0 * kernels.UNIT
    return low - slack * abs(low), high + slack * abs(high)


def widened(discount: float, defect: float) -> tuple[float, float]:
    """The discount times the least and the largest sum of a row, both below 1.

    Rows that are divided by their exact sum have the discount itself, so it is used where the
    stored rows, taken as they are, would not contract.
    """
    if defect == 0.0:
        return discount, discount
    large = discount * (1.0 + defect) + 4.0 * kernels.UNIT
    if large >= 1.0:
        return discount, discount
    return max(0.0, discount * (1.0 - defect) - 4.0 * kernels.UNIT), large


class StoredEngine:
    """Kernels over the CSR rows of an `MDP`."""

    def __init__(
        self, mdp: MDP, reward: FloatArray, discount: float, thread_count: int,
        probability: Array | None = None,
    ) -> None:  # fmt: skip
        self.states = mdp.states
        self.transitions = mdp.transitions
        self.discount = discount
        # All read-only: numba compiles a kernel once more for arrays that may be written to.
        self.terminal = frozen(mdp.terminal)
        self.best_type = np.int32 if mdp.pairs < 2**31 else np.int64
        unsigned = np.uint32 if mdp.indices.dtype == np.int32 else np.uint64
        self.index_type = mdp.indices.dtype
        pair_ptr, indptr, indices = (
            frozen(a.view(unsigned)) for a in (mdp.pair_ptr, mdp.indptr, mdp.indices)
        )
        self.exact_rows = Rows(
            pair_ptr, indptr, indices, frozen(mdp.probability), frozen(reward), discount
        )
        self.rows = self.exact_rows
        if probability is not None:
            self.rows = self.exact_rows._replace(probability=frozen(probability))
        # Plain tuples are quicker to call with; see `likely.mdp.kernels.rows`.
        self._exact, self._swept = tuple(self.exact_rows), tuple(self.rows)
        self.defects = mdp.row_defect, mdp.reward_defect
        self.pieces = threads.ranges(mdp.states, thread_count)
        self.settled: Array = np.zeros(0, dtype=np.bool_)
        self.second: FloatArray = np.zeros(0)

    def residual(self, value: Array, floor: FloatArray, top: FloatArray, best: Array) -> Residual:
        """See `Engine`. Always float64 with the exact probabilities."""
        bounds, elimination = (floor, top), (self.settled, self.second)

        def part(start: int, stop: int) -> Any:
            return kernels.residual(
                self._exact, self.defects, value, bounds, best, elimination, start, stop
            )

        parts = threads.run(part, self.pieces)
        return Residual(
            min(p[0] for p in parts), max(p[1] for p in parts), max(p[2] for p in parts)
        )

    def begin_elimination(self) -> None:
        """From now on `eliminate` may settle states, whose other actions are then left out."""
        self.settled = np.zeros(self.states, dtype=np.bool_)
        self.second = np.full(self.states, np.inf)

    def end_elimination(self) -> None:
        """Back up every action again: `best` may be changed by others from now on."""
        self.settled, self.second = np.zeros(0, dtype=np.bool_), np.zeros(0)

    def eliminate(self, value: Array, floor: FloatArray, shifts: tuple[float, float]) -> float:
        """Settle states by the newest residual; the fraction of settled states."""
        count = kernels.settle_states(
            self.rows.pair_ptr, value, floor, self.second, self.settled, *shifts
        )
        return float(count) / max(1, self.states)

    def contraction(self) -> tuple[float, float]:
        return widened(self.discount, self.defects[0])

    def sweep(
        self, value: Array, best: Array, order: Order,
        places: tuple[int, int] | None = None, still: float = 0.0,
    ) -> Swept:  # fmt: skip
        walk = _walk(order, places or (0, self.states))
        return Swept(*kernels.sweep(self._swept, value, best, order.forward, *walk, still))

    def march(self, value: Array, best: Array, order: Order) -> None:
        kernels.march(self._swept, self.terminal, value, best, order.forward)

    def backup(self, value: Array, out: Array, best: Array) -> tuple[float, float]:
        """out = T value; min and max change."""

        def part(start: int, stop: int) -> Any:
            return kernels.backup(self._swept, value, out, best, start, stop)

        parts = threads.run(part, self.pieces)
        return min(p[0] for p in parts), max(p[1] for p in parts)

    def policy_rows(
        self, best: Array, order: Order, folded: bool, reuse: PolicyRows | None = None
    ) -> PolicyRows:
        """See `Engine`. `reuse`, made with the same order and folding, is brought up to date."""
        if reuse is not None and len(reuse.previous):
            self._gather(best, reuse)
            return reuse
        exact = np.zeros(self.states + 1, dtype=self.index_type)
        self._count(kernels.count_chosen, exact, order, best)
        roomy = np.zeros_like(exact)
        self._count(kernels.count_rows, roomy, order)
        # With room for the longest action, rows stay where they are when the policy changes.
        # Not where one action is much longer than the others.
        movable = int(roomy[-1]) <= 1.3 * int(exact[-1]) + 64
        row_ptr = roomy if movable else exact
        size = int(row_ptr[-1])
        previous = np.full(self.states if movable else 0, -1, dtype=self.best_type)
        columns = np.empty(size, dtype=self.rows.indices.dtype)
        weights = np.empty(size, dtype=self.rows.probability.dtype)
        rows = PolicyRows(
            row_ptr, columns, weights, np.empty(self.states), order, folded, previous, self.pieces
        )
        self._gather(best, rows)
        return rows

    def _count(self, kernel: Any, counts: Array, order: Order, *best: Array) -> None:
        threads.run(
            lambda start, stop: kernel(
                self.rows.pair_ptr, self.rows.indptr, *best, order.forward, counts, start, stop
            ),
            self.pieces,
        )
        np.cumsum(counts, dtype=counts.dtype, out=counts)

    def _gather(self, best: Array, rows: PolicyRows) -> None:
        threads.run(
            lambda start, stop: kernels.gather(
                self._swept, best, rows.previous, rows.order.forward, rows.order.rank, rows.folded,
                rows.system, start, stop,
            ),
            self.pieces,
        )  # fmt: skip

    def finish(
        self, value: Array, floor: FloatArray, top: FloatArray, low: float, high: float
    ) -> float:
        return _finish(self.pieces, self.terminal, value, floor, top, low, high)


@dataclasses.dataclass(frozen=True)
class PolicyRows:
    """v = constants + weights v[columns], one row per state, discount included."""

    row_ptr: Array
    columns: Array
    weights: Array
    constants: FloatArray
    order: Order
    folded: bool
    previous: Array
    pieces: list[tuple[int, int]]

    @functools.cached_property
    def system(self) -> System:
        """What the kernels take; `row_ptr` is unsigned there."""
        unsigned = self.row_ptr.view(self.columns.dtype)
        return unsigned, self.columns, self.weights, self.constants

    def enter(self, value: Array) -> Array:
        """`value` in sweep order."""
        return value[self.order.forward] if len(self.order.forward) else value

    def leave(self, swept: Array, value: Array) -> None:
        """Write a vector in sweep order back to `value`."""
        if len(self.order.forward):
            value[self.order.forward] = swept
        elif swept is not value:
            value[:] = swept

    def sweep(self, value: Array) -> tuple[float, float]:
        """One Gauss-Seidel sweep in place; min and max change."""
        states = len(self.constants)
        step = self.order.step
        first, last = (0, states) if step > 0 else (states - 1, -1)
        low, high = kernels.policy_sweep(self.system, value, first, last, step)
        return low, high

    def windows(self, value: Array, stride: int, window: int, places: tuple[int, int]) -> None:
        kernels.policy_windows(self.system, value, stride, window, *places)

    def backup(self, value: Array, out: Array) -> tuple[float, float]:
        """out = T_policy value; min and max change."""

        def part(start: int, stop: int) -> Any:
            return kernels.policy_backup(self.system, value, out, start, stop)

        parts = threads.run(part, self.pieces)
        return min(p[0] for p in parts), max(p[1] for p in parts)


class GeneratedEngine:
    """Kernels over the generated rows of a `MatrixFree`; `best` holds action labels."""

    def __init__(self, problem: MatrixFree, thread_count: int) -> None:
        self.problem = problem
        self.states = problem.states
        self.transitions = problem.states * problem.actions * problem.width
        self.discount = problem.discount
        self.terminal = problem.terminal
        self.best_type = np.int8 if problem.actions <= 128 else np.int32
        self.worst = 0.0
        self.pieces = threads.ranges(problem.states, thread_count)
        self._rows = (problem.row, tuple(problem.rows))

    def residual(self, value: Array, floor: FloatArray, top: FloatArray, best: Array) -> Residual:
        """See `Engine`."""

        def part(start: int, stop: int) -> Any:
            return generated.residual(*self._rows, value, floor, top, best, start, stop)

        parts = threads.run(part, self.pieces)
        self.worst = max(self.worst, *(p[3] for p in parts))
        return Residual(
            min(p[0] for p in parts), max(p[1] for p in parts), max(p[2] for p in parts)
        )

    def contraction(self) -> tuple[float, float]:
        return widened(self.discount, self.worst)

    def sweep(
        self, value: Array, best: Array, order: Order,
        places: tuple[int, int] | None = None, still: float = 0.0,
    ) -> Swept:  # fmt: skip
        walk = _walk(order, places or (0, self.states))
        return Swept(*generated.sweep(*self._rows, value, best, order.forward, *walk, still))

    def march(self, value: Array, best: Array, order: Order) -> None:
        generated.march(*self._rows, value, best, order.forward)

    def policy_rows(
        self, best: Array, order: Order, folded: bool, reuse: GeneratedPolicy | None = None
    ) -> GeneratedPolicy:
        """See `Engine`. Nothing is kept, so there is nothing to reuse."""
        return GeneratedPolicy(self._rows, best.copy(), order, self.pieces)

    def finish(
        self, value: Array, floor: FloatArray, top: FloatArray, low: float, high: float
    ) -> float:
        return _finish(self.pieces, self.terminal, value, floor, top, low, high)


@dataclasses.dataclass(frozen=True)
class GeneratedPolicy:
    """Sweeps under a policy whose rows are generated again each time, natural numbering."""

    rows: tuple[Any, ...]
    best: Array
    order: Order
    pieces: list[tuple[int, int]]

    def enter(self, value: Array) -> Array:
        """The array itself: generated rows stay in natural numbering."""
        return value

    def leave(self, swept: Array, value: Array) -> None:
        """Write back."""
        if swept is not value:
            value[:] = swept

    def sweep(self, value: Array) -> tuple[float, float]:
        """One Gauss-Seidel sweep in place; min and max change."""
        order, states = self.order, len(self.best)
        first, last = (0, states) if order.step > 0 else (states - 1, -1)
        low, high = generated.policy_sweep(
            *self.rows, value, self.best, order.forward, first, last, order.step
        )
        return low, high

    def windows(self, value: Array, stride: int, window: int, places: tuple[int, int]) -> None:
        generated.policy_windows(
            *self.rows, value, self.best, self.order.forward, stride, window, *places
        )

    def backup(self, value: Array, out: Array) -> tuple[float, float]:
        """out = T_policy value; min and max change."""

        def part(start: int, stop: int) -> Any:
            return generated.policy_backup(*self.rows, value, self.best, out, start, stop)

        parts = threads.run(part, self.pieces)
        return min(p[0] for p in parts), max(p[1] for p in parts)


def _walk(order: Order, places: tuple[int, int]) -> tuple[int, int, int]:
    """Start, stop and step of a sweep over places of an order."""
    first, last = places
    return (first, last, 1) if order.step > 0 else (last - 1, first - 1, -1)


def _finish(
    pieces: list[tuple[int, int]], terminal: Array, value: Array, floor: FloatArray,
    top: FloatArray, low: float, high: float,
) -> float:  # fmt: skip
    parts = threads.run(
        lambda start, stop: kernels.finish(terminal, value, floor, top, low, high, start, stop),
        pieces,
    )
    return float(max(parts))
