"""MDPs whose rows are generated, not stored.

`MatrixFree` holds a compiled function

    row(state, action, parameters, successors, probabilities) -> (count, reward)

that writes the `count` successors of a pair and returns its expected reward; count 0 means that
the state does not have the action. A row may name a successor more than once, also with
probability 0: its probabilities add. Nothing of size [transitions] is ever kept, so 10^7 states
cost a few vectors. `stored()` writes the same rows into an `MDP`. The kernels are in
`generated.py`.

`grid(...)` is the slippery grid world of the textbooks in this form.
"""
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from likely.errors import InvalidData, whole
from likely.mdp.kernels import generated
from likely.mdp.kernels.rows import Generator
from likely.mdp.kernels.stored import UNIT
from likely.mdp.model import checks
from likely.mdp.model.arrays import BoolArray
from likely.mdp.model.problem import MDP, frozen

# How a row function should be compiled. Inlined, and without numba's reference counts, which
# would cost six times as much as the row itself; so it must not allocate arrays. Written without
# loops and with a constant count, it compiles to a few instructions per row.
_ROW_OPTIONS: dict[str, Any] = {
    "cache": True,
    "error_model": "numpy",
    "forceinline": True,
    "_nrt": False,
}


def row_function(function: Any) -> Any:
    """Compile a function that generates a row of a `MatrixFree` (a decorator).

    Args:
        function: `(state, action, parameters, successors, probabilities) -> (count, reward)`; it
            writes the successors and their probabilities into the two arrays.
    """
    return njit(**_ROW_OPTIONS)(function)


@dataclasses.dataclass(frozen=True, eq=False)
class MatrixFree:
    """An MDP given by a compiled row function (see the module's docstring).

    Attributes:
        states: number of states S.
        actions: number of action labels A; labels are 0..A-1 in every state.
        width: largest count of a row.
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
    terminal: BoolArray

    def __post_init__(self) -> None:
        checks.discount(self.discount)
        if self.terminal.shape != (self.states,):
            raise InvalidData(f"terminal has shape {self.terminal.shape}, expected [S]")
        if not 1 <= self.width <= generated.WIDEST:
            raise InvalidData(f"width {self.width}: expected 1 to {generated.WIDEST} successors")
        # With room to spare, so that a count beyond the width is noticed, not suffered.
        roomy = self.rows._replace(slots=generated.slots(4 * self.width))
        bad = generated.validate(self.row, roomy, self.width)
        if bad >= 0:
            raise InvalidData(
                f"state {bad // self.actions}, action {bad % self.actions}: the generated row is "
                "not a distribution over states with a finite reward, or the state has no action "
                "at all"
            )

    @property
    def rows(self) -> Generator:
        """What every kernel of `generated.py` takes beside `row`."""
        return Generator(
            self.parameters,
            generated.slots(self.width),
            generated.labels(self.actions),
            self.actions,
            self.terminal,
            self.discount,
        )

    def with_discount(self, discount: float) -> MatrixFree:
        """The same process under another discount."""
        return dataclasses.replace(self, discount=float(discount))

    def stored(self) -> MDP:
        """The same MDP with its rows stored."""
        pairs, transitions = generated.count_all(self.row, self.rows)
        index = np.int32 if transitions <= np.iinfo(np.int32).max else np.int64
        pair_ptr = np.zeros(self.states + 1, dtype=index)
        indptr = np.zeros(pairs + 1, dtype=index)
        indices = np.empty(transitions, dtype=index)
        probability = np.empty(transitions)
        reward = np.empty(pairs)
        action = np.empty(pairs, dtype=np.int8 if self.actions <= 128 else np.int32)
        generated.write_all(
            self.row, self.rows, pair_ptr, indptr, indices, probability, reward, action
        )
        stored = MDP.from_pairs(
            pair_ptr,
            indptr,
            indices,
            probability,
            reward,
            self.discount,
            pair_action=action,
            terminal=self.terminal,
        )
        # Repeated successors were added up.
        rounding = 2.0 * self.width * UNIT
        return dataclasses.replace(stored, row_defect=stored.row_defect + rounding)


# ----------------------------------------------------------------------- the slippery grid
@row_function
def _grid_row(state, action, parameters, successors, weights):
    """Move as intended, or to one of the two sides; blocked moves stay.

    Three successors whatever is blocked, and selections instead of branches.
    """
    blocked, columns, cells, side, step_reward, entry = parameters
    x = np.int64(np.uint32(state) % np.uint32(columns))
    up = state - columns if state >= columns else state
    down = state + columns if state + columns < cells else state
    left = state - 1 if x > 0 else state
    right = state + 1 if x + 1 < columns else state
    if blocked.shape[0] > 0:
        up = state if blocked[np.uint64(up)] else up
        down = state if blocked[np.uint64(down)] else down
        left = state if blocked[np.uint64(left)] else left
        right = state if blocked[np.uint64(right)] else right
    vertical = action % 2 == 0
    first_side = left if vertical else up
    other = right if vertical else down
    ahead = (up if action == 0 else down) if vertical else (right if action == 1 else left)
    straight = 1.0 - 2.0 * side
    successors[0], weights[0] = ahead, straight
    successors[1], weights[1] = first_side, side
    successors[2], weights[2] = other, side
    gain = step_reward
    if entry.shape[0] > 0:
        gain += straight * entry[np.uint64(ahead)] if ahead != state else 0.0
        gain += side * entry[np.uint64(first_side)] if first_side != state else 0.0
        gain += side * entry[np.uint64(other)] if other != state else 0.0
    return 3, gain


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
    rows, columns = whole("rows", rows, 1), whole("columns", columns, 1)
    if not 0.0 <= slip < 1.0:
        raise InvalidData(f"slip {slip}: expected a number in [0, 1)")
    cells = rows * columns
    if cells >= 2**32:
        raise InvalidData(f"grid of {rows} x {columns}: expected fewer than 2^32 cells")
    wall = np.zeros(0, dtype=np.bool_)
    if blocked is not None:
        wall = np.ascontiguousarray(blocked, dtype=np.bool_).ravel()
    entry = np.zeros(0)
    if entry_reward is not None:
        entry = np.ascontiguousarray(entry_reward, dtype=np.float64).ravel()
    cell_arrays = [
        part for part, asked in ((wall, blocked), (entry, entry_reward)) if asked is not None
    ]
    if any(part.shape != (cells,) for part in cell_arrays):
        raise InvalidData(f"blocked and entry_reward need {cells} cells")
    from likely.mdp.model.build import mask_of

    terminal = mask_of(goals, cells, "goals")
    if blocked is not None:
        terminal = terminal | wall
    parameters = (frozen(wall), columns, cells, slip / 2.0, float(step_reward), frozen(entry))
    return MatrixFree(cells, 4, 3, _grid_row, parameters, discount, frozen(terminal))
