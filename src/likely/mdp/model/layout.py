"""Where states lie on paper: the geometry that pictures of a world need, and nothing else.

An `MDP` has no geometry. A grid world has one, and so has a problem whose state is a pair of
counts (Jack's cars). `GridLayout` says which state sits in which cell and which way an action
points; the solver never sees it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from likely.errors import InvalidData
from likely.mdp.model.arrays import Array, FloatArray, IntArray

# The four moves of a grid, clockwise, as (row step, column step): the order of our own worlds.
CLOCKWISE = {"up": (-1, 0), "right": (0, 1), "down": (1, 0), "left": (0, -1)}

ARROWS = {(-1, 0): "↑", (0, 1): "→", (1, 0): "↓", (0, -1): "←"}


@dataclasses.dataclass(frozen=True, eq=False)
class GridLayout:
    """States in a rectangle.

    Attributes:
        state: [rows, columns] state of each cell, -1 for a wall.
        symbols: one string a row, the letter that a picture may draw in each cell; a full stop
            or a space draws nothing.
        moves: for each action its direction as (row step, column step), or None where an action
            has no direction; an empty tuple where no action has one.
        row_name, column_name: axis titles of a picture, empty for a plain grid.
        entering: [rows, columns] reward of entering a cell that ends the episode, which pictures
            show there; NaN elsewhere. None where it is not known.
    """

    state: IntArray
    symbols: tuple[str, ...]
    moves: tuple[tuple[int, int] | None, ...]
    row_name: str = ""
    column_name: str = ""
    entering: FloatArray | None = None

    @classmethod
    def of(
        cls,
        state: ArrayLike,
        moves: Sequence[tuple[int, int] | None] = (),
        symbols: Sequence[str] | None = None,
        row_name: str = "",
        column_name: str = "",
        entering: ArrayLike | None = None,
    ) -> GridLayout:
        """A layout from a rectangle of state numbers; missing symbols are blank."""
        cells = np.array(state, dtype=np.int64)
        if cells.ndim != 2 or cells.size == 0:
            raise InvalidData(
                f"a grid layout needs a rectangle of states [rows, columns], given shape "
                f"{cells.shape}"
            )
        rows, columns = cells.shape
        drawn = tuple(symbols) if symbols is not None else (" " * columns,) * rows
        if len(drawn) != rows or any(len(line) != columns for line in drawn):
            raise InvalidData(
                f"the symbols of a grid layout must be {rows} strings of {columns} characters"
            )
        cells.setflags(write=False)
        paid = None if entering is None else np.broadcast_to(entering, cells.shape).astype(float)
        return cls(cells, drawn, tuple(moves), row_name, column_name, paid)

    def parts(self) -> tuple[dict[str, Array], list[Any]]:
        """What a file keeps: arrays by name, and the rest as JSON has it."""
        arrays: dict[str, Array] = {"layout": self.state}
        if self.entering is not None:
            arrays["layout_entering"] = self.entering
        return arrays, [self.symbols, self.moves, self.row_name, self.column_name]

    @classmethod
    def of_parts(cls, arrays: Mapping[str, Array], rest: Sequence[Any]) -> GridLayout:
        """The layout that `parts` took apart."""
        symbols, moves, row_name, column_name = rest
        directions = [None if move is None else (int(move[0]), int(move[1])) for move in moves]
        return cls.of(
            arrays["layout"],
            directions,
            [str(line) for line in symbols],
            str(row_name),
            str(column_name),
            arrays.get("layout_entering"),
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        rows, columns = self.state.shape
        return rows, columns

    def on_grid(self, values: ArrayLike, wall: float = np.nan) -> FloatArray:
        """Per-state numbers laid out on the grid: [S] -> [rows, columns], walls filled."""
        flat = np.asarray(values, dtype=np.float64)
        grid = np.full(self.state.shape, wall)  # [rows, columns]
        inside = self.state >= 0
        grid[inside] = flat[self.state[inside]]
        return grid

    def arrow(self, action: int) -> str:
        """The arrow of an action, or an empty string where it has no direction."""
        if not 0 <= action < len(self.moves):
            return ""
        move = self.moves[action]
        return "" if move is None else ARROWS.get(move, "")

    def transposed_moves(self) -> FloatArray:
        """[actions, 2] directions as (x to the right, y downwards), NaN where there is none."""
        rows = [(np.nan, np.nan) if m is None else (m[1], m[0]) for m in self.moves]
        return np.array(rows, dtype=np.float64).reshape(len(self.moves), 2)
