"""Grid worlds of any size, built by array operations: one way to make them all.

A `GridPlan` describes the cells; `build_grid` turns it into the CSR rows of an `MDP` without a
Python loop over cells, so a 1000 x 1000 grid takes seconds. The four moves are up, right, down
and left, clockwise. A move goes where it points with probability 1 - 2 slip and to either side
with probability `slip`; a move into a wall or off the grid stays. Outcomes that end in the same
cell are merged, their rewards averaged.

Rewards: every move earns `step`; a blocked one earns `bump` instead; entering a cell adds its
`enter` reward. A cell with a `jump` sends every action to its target for `jump_reward` alone. A
cell with `back_to_start` cannot be stood on: entering it leads to the start cell.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from likely.errors import InvalidData, InvalidSetting
from likely.mdp.model.arrays import BoolArray, FloatArray, IntArray
from likely.mdp.model.layout import CLOCKWISE, GridLayout
from likely.mdp.model.problem import MDP


@dataclasses.dataclass(eq=False)
class GridPlan:
    """What each cell of a grid [rows, columns] does; every array has that shape.

    Attributes:
        wall: cells that hold no state.
        end: terminal cells.
        enter: reward added when a move enters the cell.
        back_to_start: cells that send whoever enters to the start.
        jump: flat number (row * columns + column) of the cell that every action leads to, -1
            where moves are ordinary.
        jump_reward: reward of a jump.
        start: start cells.
        slip: probability of slipping to each side, in [0, 1/2].
        step, bump: rewards of a move and of a blocked move.
        discount: in (0, 1].
        moves: directions of the actions by name, (row step, column step).
        symbols: one string a row, for pictures.
    """

    wall: BoolArray
    end: BoolArray
    enter: FloatArray
    back_to_start: BoolArray
    jump: IntArray
    jump_reward: FloatArray
    start: BoolArray
    slip: float = 0.0
    step: float = 0.0
    bump: float | None = None
    discount: float = 1.0
    moves: dict[str, tuple[int, int]] = dataclasses.field(default_factory=lambda: dict(CLOCKWISE))
    symbols: tuple[str, ...] | None = None

    @classmethod
    def empty(cls, rows: int, columns: int) -> GridPlan:
        """A grid without walls, ends or rewards."""
        if rows < 1 or columns < 1:
            raise InvalidSetting(
                f"a grid needs at least one row and one column, given {rows} x {columns}"
            )
        shape = (rows, columns)
        no = np.zeros(shape, dtype=bool)
        return cls(
            no,
            no.copy(),
            np.zeros(shape),
            no.copy(),
            np.full(shape, -1, dtype=np.int64),
            np.zeros(shape),
            no.copy(),
        )


def build_grid(plan: GridPlan, name: str) -> MDP:
    """The MDP of a plan with its layout; states are numbered row by row, walls left out.

    Raises:
        InvalidData: a jump into a wall, or cells that lead back to a start that is not unique.
    """
    if not 0.0 <= plan.slip <= 0.5:
        raise InvalidSetting(f"slip is a probability for each side, in [0, 1/2]: {plan.slip}")
    held = ~plan.wall & ~plan.back_to_start  # cells that are states
    count = int(held.sum())
    if count == 0:
        raise InvalidData(f"{name}: the grid has no free cell")
    state = np.full(plan.wall.shape, -1, dtype=np.int64)
    state[held] = np.arange(count)
    lands: NDArray[np.signedinteger] = _landing(plan, state, name)
    if count < 2**31:
        lands = lands.astype(np.int32)

    flat = np.flatnonzero(held)
    sources = flat[~plan.end.ravel()[flat]]
    parts = [_moves(plan, lands, sources, direction) for direction in plan.moves.values()]
    chances = np.array([1.0 - 2.0 * plan.slip, plan.slip, plan.slip])
    possible = chances > 0.0
    outcomes = int(possible.sum())
    successor = np.stack([s[:, possible] for s, _ in parts], axis=1)  # [sources, 4, outcomes]
    reward = np.stack([r[:, possible] for _, r in parts], axis=1)
    probability = np.broadcast_to(chances[possible], reward.shape)
    pairs = np.zeros(count, dtype=np.int64)
    pairs[state.ravel()[sources]] = len(plan.moves)
    rows = len(sources) * len(plan.moves)
    certain = bool((reward == reward[..., :1]).all())  # the reward is known from (s, a)
    initial = None
    if plan.start.any():
        initial = np.where(plan.start, 1.0 / plan.start.sum(), 0.0)[held]
    mdp = MDP.from_pairs(
        np.concatenate([[0], np.cumsum(pairs)]),
        np.arange(rows + 1) * outcomes,
        successor.ravel(),
        probability.ravel(),
        reward[..., 0].ravel() if certain else None,
        plan.discount,
        successor_reward=None if certain else reward.ravel(),
        pair_action=np.tile(np.arange(len(plan.moves)), len(sources)),
        terminal=plan.end[held],
        initial=initial,
        action_names=tuple(plan.moves),
    )
    entering = np.where(plan.end, plan.enter, np.nan)
    layout = GridLayout.of(state, tuple(plan.moves.values()), plan.symbols, entering=entering)
    return mdp.with_layout(layout)


def _landing(plan: GridPlan, state: IntArray, name: str) -> IntArray:
    """[cells] the state that a move into each cell ends in, -1 for a wall."""
    lands = state.ravel().copy()
    if plan.back_to_start.any():
        starts = state[plan.start]
        if len(starts) != 1 or starts[0] < 0:
            raise InvalidData(
                f"{name}: cells lead back to the start, so there must be exactly one start cell; "
                f"there are {len(starts)}"
            )
        lands[plan.back_to_start.ravel()] = starts[0]
    jumps = plan.jump[plan.jump >= 0]
    if (lands[jumps] < 0).any():
        raise InvalidData(f"{name}: a jump leads into a wall")
    return lands


def _moves(
    plan: GridPlan,
    lands: NDArray[np.signedinteger],
    sources: IntArray,
    direction: tuple[int, int],
) -> tuple[NDArray[np.signedinteger], FloatArray]:
    """One action from every source: [sources, 3] successors and rewards, ahead and sideways."""
    rows, columns = plan.wall.shape
    row, column = np.divmod(sources, columns)
    down, right = direction
    bump = plan.step if plan.bump is None else plan.bump
    enter = plan.enter.ravel()
    successor = np.empty((len(sources), 3), dtype=lands.dtype)
    reward = np.empty((len(sources), 3))
    outcomes = ((down, right), (-right, down), (right, -down))
    for k, (d_row, d_column) in enumerate(outcomes):
        to_row, to_column = row + d_row, column + d_column
        inside = (to_row >= 0) & (to_row < rows) & (to_column >= 0) & (to_column < columns)
        cell = np.where(inside, to_row * columns + to_column, sources)
        blocked = ~inside | (lands[cell] < 0)
        successor[:, k] = lands[np.where(blocked, sources, cell)]
        reward[:, k] = np.where(blocked, bump, plan.step + enter[cell])
    jump = plan.jump.ravel()[sources]
    jumps = jump >= 0
    if jumps.any():
        successor[jumps] = lands[jump[jumps]][:, None]
        reward[jumps] = plan.jump_reward.ravel()[sources[jumps]][:, None]
    return successor, reward


def slippery_grid(rows: int, columns: int, slip: float = 0.1, discount: float = 0.99) -> MDP:
    """An open grid of any size: -1 per step until the bottom right corner, slipping sideways.

    Args:
        rows, columns: size in cells.
        slip: probability of slipping to each side of the chosen direction.
        discount: in (0, 1].

    Returns:
        The MDP of rows * columns states, 4 actions and at most 3 successors, with its layout.
    """
    plan = GridPlan.empty(rows, columns)
    plan.end[-1, -1] = True
    plan.start[0, 0] = True
    plan.slip, plan.step, plan.discount = slip, -1.0, discount
    if rows * columns <= 10_000:
        lines = [[" "] * columns for _ in range(rows)]
        lines[0][0], lines[-1][-1] = "S", "G"
        plan.symbols = tuple("".join(line) for line in lines)
    return build_grid(plan, "slippery grid")
