"""MDPs whose rows are generated, not stored.

`MatrixFree` holds a compiled function

    row(state, action, parameters, successors, probabilities) -> (count, reward)

that writes the `count` successors of a pair and returns its expected reward; count 0 means that
the state does not have the action. Successors of one row must be distinct. Nothing of size
[transitions] is ever kept, so 10^7 states cost a few vectors. `stored()` writes the same rows
into an `MDP`.

`grid(...)` is the slippery grid world of the textbooks in this form.
"""
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from likely.errors import InvalidData
from likely.mdp import checks
from likely.mdp.kernels import UNIT
from likely.mdp.problem import MDP, _frozen

_sweep: Any = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "reassoc"})
_exact: Any = njit(nogil=True, cache=True, error_model="numpy")

# How a row function should be compiled. Inlined, and without numba's reference counts, which
# would cost six times as much as the row itself; so it must not allocate arrays.
_ROW_OPTIONS: dict[str, Any] = {
    "cache": True,
    "error_model": "numpy",
    "forceinline": True,
    "_nrt": False,
}
row_function: Any = njit(**_ROW_OPTIONS)


@dataclasses.dataclass(frozen=True, eq=False)
class MatrixFree:
    """An MDP given by a compiled row function (see the module's docstring).

    Attributes:
        states: number of states S.
        actions: number of action labels A; labels are 0..A-1 in every state.
        width: largest number of successors of a row.
        row: function that generates a row, compiled with `row_function` (or `numba.njit`).
        parameters: tuple of arrays and numbers handed to `row`.
        discount: in (0, 1].
        terminal: [S] bool.
    """

    states: int
    actions: int
    width: int
    row: Any
    parameters: tuple[Any, ...]
    discount: float
    terminal: npt.NDArray[np.bool_]

    def __post_init__(self) -> None:
        checks.discount(self.discount)
        if self.terminal.shape != (self.states,):
            raise InvalidData(f"terminal has shape {self.terminal.shape}, expected [S]")
        bad = validate(
            self.row, self.parameters, self.actions, self.width, self.terminal, self.states
        )
        if bad >= 0:
            raise InvalidData(
                f"state {bad // self.actions}, action {bad % self.actions}: the generated row is "
                "not a distribution over distinct states with a finite reward, or the state has "
                "no action at all"
            )

    def with_discount(self, discount: float) -> MatrixFree:
        """The same process under another discount."""
        return dataclasses.replace(self, discount=float(discount))

    def stored(self) -> MDP:
        """The same MDP with its rows stored."""
        pairs, transitions = count_all(
            self.row, self.parameters, self.actions, self.width, self.terminal, self.states
        )
        index = np.int32 if transitions <= np.iinfo(np.int32).max else np.int64
        pair_ptr = np.zeros(self.states + 1, dtype=index)
        indptr = np.zeros(pairs + 1, dtype=index)
        indices = np.empty(transitions, dtype=index)
        probability = np.empty(transitions)
        reward = np.empty(pairs)
        action = np.empty(pairs, dtype=np.int8 if self.actions <= 128 else np.int32)
        write_all(
            self.row, self.parameters, self.actions, self.width, self.terminal,
            pair_ptr, indptr, indices, probability, reward, action,
        )  # fmt: skip
        return MDP.from_pairs(
            pair_ptr, indptr, indices, probability, reward, self.discount,
            pair_action=action, terminal=self.terminal,
        )  # fmt: skip


@_exact
def validate(row, parameters, actions, width, terminal, states):
    """The first pair (state * actions + action) whose row is wrong, or -1."""
    successors = np.empty(width, dtype=np.int64)
    weights = np.empty(width)
    for state in range(states):
        if terminal[state]:
            continue
        some = False
        for action in range(actions):
            count, reward = row(state, action, parameters, successors, weights)
            if count == 0:
                continue
            some = True
            good = np.isfinite(reward) and count <= width
            total = 0.0
            for k in range(count):
                total += weights[k]
                good = good and weights[k] >= 0.0 and 0 <= successors[k] < states
                for j in range(k):
                    good = good and successors[j] != successors[k]
            if not good or not abs(total - 1.0) <= 1e-12:
                return state * actions + action
        if not some:
            return state * actions
    return -1


@_exact
def count_all(row, parameters, actions, width, terminal, states):
    """Number of pairs and of transitions."""
    successors = np.empty(width, dtype=np.int64)
    weights = np.empty(width)
    pairs, transitions = 0, 0
    for state in range(states):
        if terminal[state]:
            continue
        for action in range(actions):
            count, _ = row(state, action, parameters, successors, weights)
            if count:
                pairs += 1
                transitions += count
    return pairs, transitions


@_exact
def write_all(
    row, parameters, actions, width, terminal,
    pair_ptr, indptr, indices, probability, reward, label,
):  # fmt: skip
    """Write every row, sorted by successor, into CSR arrays of the right size."""
    successors = np.empty(width, dtype=np.int64)
    weights = np.empty(width)
    pair, at = 0, 0
    for state in range(terminal.shape[0]):
        if not terminal[state]:
            for action in range(actions):
                count, gain = row(state, action, parameters, successors, weights)
                if not count:
                    continue
                for k in range(count):  # insertion sort: rows are short
                    j = at + k
                    while j > at and indices[j - 1] > successors[k]:
                        indices[j], probability[j] = indices[j - 1], probability[j - 1]
                        j -= 1
                    indices[j], probability[j] = successors[k], weights[k]
                at += count
                reward[pair] = gain
                label[pair] = action
                pair += 1
                indptr[pair] = at
        pair_ptr[state + 1] = pair


@_sweep
def sweep(
    row, parameters, actions, width, terminal, discount, value, best, order, start, stop, step
):
    """Gauss-Seidel backups in place, self-loops solved; returns min and max change."""
    low, high = np.inf, -np.inf
    successors = np.empty(width, dtype=np.int64)
    weights = np.empty(width)
    ordered = order.shape[0] > 0
    for i in range(start, stop, step):
        state = np.int64(order[i]) if ordered else np.int64(i)
        if terminal[state]:
            continue
        old = np.int64(best[state])
        chosen, top = old, -np.inf
        for action in range(actions):
            count, reward = row(state, action, parameters, successors, weights)
            if not count:
                continue
            total, loop = 0.0, 0.0
            for k in range(count):
                if successors[k] == state:
                    loop = weights[k]
                else:
                    total += weights[k] * value[np.uint64(successors[k])]
            q = reward + discount * total
            if loop > 0.0:
                q /= 1.0 - discount * loop
            if q > top or (q == top and action == old):
                top, chosen = q, np.int64(action)
        change = top - value[state]
        value[state] = top
        best[state] = chosen
        low, high = min(low, change), max(high, change)
    return low, high


@_sweep
def policy_sweep(row, parameters, width, terminal, discount, value, best, order, start, stop, step):
    """Gauss-Seidel in place under the policy `best` of action labels."""
    low, high = np.inf, -np.inf
    successors = np.empty(width, dtype=np.int64)
    weights = np.empty(width)
    ordered = order.shape[0] > 0
    for i in range(start, stop, step):
        state = np.int64(order[i]) if ordered else np.int64(i)
        if terminal[state]:
            continue
        count, reward = row(state, np.int64(best[state]), parameters, successors, weights)
        total, loop = 0.0, 0.0
        for k in range(count):
            if successors[k] == state:
                loop = weights[k]
            else:
                total += weights[k] * value[np.uint64(successors[k])]
        change = (reward + discount * total) / (1.0 - discount * loop) - value[state]
        value[state] += change
        low, high = min(low, change), max(high, change)
    return low, high


@_exact
def residual(
    row, parameters, actions, width, terminal, discount, value, floor, top, best, start, stop
):
    """As `kernels.residual`, the row defects found row by row; also returns the largest."""
    low, high, gap = np.inf, -np.inf, 0.0
    kept = 1.0 - discount
    worst = 0.0
    successors = np.empty(width, dtype=np.int64)
    weights = np.empty(width)
    for state in range(start, stop):
        if terminal[state]:
            floor[state] = 0.0
            top[state] = 0.0
            low, high = min(low, 0.0), max(high, 0.0)
            continue
        here = np.float64(value[state])
        drift = kept * here
        old = np.int64(best[state])
        chosen, chosen_d, chosen_error = np.int64(-1), -np.inf, 0.0
        old_d, old_error = -np.inf, 0.0
        ceiling = -np.inf
        for action in range(actions):
            count, reward = row(state, action, parameters, successors, weights)
            if not count:
                continue
            total, size, mass = 0.0, 0.0, 0.0
            for k in range(count):
                term = weights[k] * (value[np.uint64(successors[k])] - here)
                total += term
                size += abs(term)
                mass += weights[k]
            d = reward + discount * total - drift
            defect = abs(mass - 1.0) + count * UNIT
            worst = max(worst, defect)
            error = (count + 7.0) * UNIT * (abs(reward) + discount * size + abs(drift))
            error += discount * defect * abs(here) + 1e-300
            ceiling = max(ceiling, d + error)
            if d > chosen_d:
                chosen, chosen_d, chosen_error = np.int64(action), d, error
            if action == old:
                old_d, old_error = d, error
        if old_d + old_error >= chosen_d - chosen_error:
            chosen, chosen_d, chosen_error = old, old_d, old_error
        best[state] = chosen
        floor[state] = chosen_d - chosen_error
        top[state] = ceiling
        low, high = min(low, floor[state]), max(high, ceiling)
        gap = max(gap, ceiling - floor[state])
    return low, high, gap, worst


# ----------------------------------------------------------------------- the slippery grid
@row_function
def _grid_row(state, action, parameters, successors, weights):
    """Move as intended, or to one of the two sides; blocked moves stay.

    Written without loops: this is called for every pair in every sweep.
    """
    blocked, columns, side, step_reward, entry = parameters
    cells = blocked.shape[0]
    x = np.int64(np.uint32(state) % np.uint32(columns))
    up = state - columns if state >= columns else np.int64(-1)
    down = state + columns if state + columns < cells else np.int64(-1)
    left = state - 1 if x > 0 else np.int64(-1)
    right = state + 1 if x + 1 < columns else np.int64(-1)
    if action == 0:
        ahead, one, other = up, left, right
    elif action == 1:
        ahead, one, other = right, up, down
    elif action == 2:
        ahead, one, other = down, left, right
    else:
        ahead, one, other = left, up, down
    count = 0
    stay = 0.0
    gain = step_reward
    straight = 1.0 - 2.0 * side
    paid = entry.shape[0] > 0
    if ahead >= 0 and not blocked[np.uint64(ahead)]:
        successors[count] = ahead
        weights[count] = straight
        gain += straight * entry[ahead] if paid else 0.0
        count += 1
    else:
        stay += straight
    if side > 0.0:
        if one >= 0 and not blocked[np.uint64(one)]:
            successors[count] = one
            weights[count] = side
            gain += side * entry[one] if paid else 0.0
            count += 1
        else:
            stay += side
        if other >= 0 and not blocked[np.uint64(other)]:
            successors[count] = other
            weights[count] = side
            gain += side * entry[other] if paid else 0.0
            count += 1
        else:
            stay += side
    if stay > 0.0:
        successors[count] = state
        weights[count] = stay
        count += 1
    return count, gain


def grid(
    rows: int,
    columns: int,
    *,
    goals: npt.ArrayLike,
    discount: float,
    slip: float = 0.2,
    step_reward: float = -1.0,
    blocked: npt.ArrayLike | None = None,
    entry_reward: npt.ArrayLike | None = None,
) -> MatrixFree:
    """A slippery grid world: up, right, down, left = 0, 1, 2, 3; cells row by row.

    A move goes ahead with probability 1 - slip and to either side with slip / 2; a move off the
    grid or into a blocked cell stays. Blocked cells are terminal states that nothing enters.

    Args:
        goals: cells that end the episode.
        slip: in [0, 1).
        step_reward: paid for every move.
        blocked: [rows * columns] bool.
        entry_reward: [rows * columns] paid on entering a cell, beside `step_reward`.
    """
    if not (rows >= 1 and columns >= 1 and 0.0 <= slip < 1.0):
        raise InvalidData(f"grid of {rows} x {columns} with slip {slip}: expected >= 1 and [0, 1)")
    cells = rows * columns
    if cells >= 2**32:
        raise InvalidData(f"grid of {rows} x {columns}: expected fewer than 2^32 cells")
    wall = np.zeros(cells, dtype=np.bool_)
    if blocked is not None:
        wall = np.ascontiguousarray(blocked, dtype=np.bool_).ravel()
    entry = np.zeros(0)
    if entry_reward is not None:
        entry = np.ascontiguousarray(entry_reward, dtype=np.float64).ravel()
    if wall.shape != (cells,) or (entry_reward is not None and entry.shape != (cells,)):
        raise InvalidData(f"blocked and entry_reward need {cells} cells")
    from likely.mdp.build import mask_of

    terminal = mask_of(goals, cells, "goals") | wall
    parameters = (_frozen(wall), columns, slip / 2.0, float(step_reward), _frozen(entry))
    return MatrixFree(cells, 4, 4, _grid_row, parameters, discount, _frozen(terminal))
