"""Plots of values, policies and convergence; matplotlib is imported on first use.

Every function takes arrays and a path, writes the picture atomically, and returns the
path. Nothing here solves anything.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from likely.files.figures import INK, PAPER, new_figure, save_figure
from likely.mdp.model.arrays import BoolArray, FloatArray
from likely.mdp.model.layout import GridLayout
from likely.mdp.model.policies import greedy_pairs
from likely.mdp.model.problem import MDP
from likely.mdp.model.solution import Solution
from likely.mdp.model.world import Problem, layout_of, stored

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

# Cells in a row up to which numbers and arrows are drawn; beyond it only colour is legible.
NUMBERS_UP_TO = 14
ARROWS_UP_TO = 40

WALL = "#3e4c59"
END = "#d9dee3"


@dataclasses.dataclass(frozen=True, eq=False)
class Convergence:
    """How one method came to its answer.

    Attributes:
        name: of the method.
        backups: [points] Bellman backups of single states so far, per state (sweeps).
        seconds: [points] wall-clock time so far.
        bound: [points] certified bound on the error of the value, sup norm.
    """

    name: str
    backups: FloatArray
    seconds: FloatArray
    bound: FloatArray


def short_number(value: float) -> str:
    """A value in at most about five characters."""
    if not math.isfinite(value):
        return "-∞" if value < 0 else "∞"
    if value == 0.0:
        return "0"
    # An exact integer that a solver returns is off by rounding.
    if abs(value - round(value)) < 1e-9 and 1.0 <= abs(round(value)) < 1e4:
        return f"{value:.0f}"
    size = abs(value)
    if size >= 1e4 or size < 1e-3:
        return f"{value:.0e}"
    digits = 1 if size >= 10.0 else 2 if size >= 1.0 else 3
    return f"{value:.{digits}f}"


def colours() -> Colormap:
    """Pale to blue, the higher the bluer; never so dark that text on it suffers."""
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap

    stops = colormaps["YlGnBu"](np.linspace(0.02, 0.74, 64))
    return LinearSegmentedColormap.from_list("value", stops)


def draw_cells(
    axes: Axes,
    layout: GridLayout,
    value: ArrayLike,
    limits: tuple[float, float] | None = None,
    numbers: bool = True,
    palette: str | Colormap | None = None,
    size: float | None = None,
) -> Any:
    """Paint each cell by its value, with walls, letters and (where they fit) numbers.

    A cell that ends the episode is grey and shows the reward of entering it: its value is 0.
    """
    grid = layout.on_grid(value)  # [rows, columns]
    rows, columns = layout.shape
    ends = ending(layout)
    grid[ends] = np.nan
    finite = grid[np.isfinite(grid)]
    low, high = limits or (
        (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    )
    if high <= low:
        low, high = low - 0.5, high + 0.5
    axes.set_facecolor(WALL)
    image = axes.imshow(
        np.ma.masked_invalid(grid),
        cmap=colours() if palette is None else palette,
        vmin=low,
        vmax=high,
    )
    # Without the major ticks: a minor tick that falls on one would be dropped.
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xticks(np.arange(-0.5, columns), minor=True)
    axes.set_yticks(np.arange(-0.5, rows), minor=True)
    axes.tick_params(which="both", length=0, labelbottom=False, labelleft=False)
    if max(rows, columns) <= ARROWS_UP_TO:
        axes.grid(which="minor", color=PAPER, linewidth=1.5)
    for spine in axes.spines.values():
        spine.set_visible(False)
    small = max(rows, columns) <= NUMBERS_UP_TO
    if size is None:
        size = 9.0 if max(rows, columns) <= 8 else 6.5
    for row, column in np.argwhere(ends):
        from matplotlib.patches import Rectangle

        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1.0, 1.0, facecolor=END, zorder=0.5))
    for row in range(rows if small else 0):
        for column in range(columns):
            if layout.state[row, column] < 0:
                continue
            number = grid[row, column]
            shade = INK if ends[row, column] or not _dark(image, number) else PAPER
            if ends[row, column] and layout.entering is not None:
                reward = float(layout.entering[row, column])
                axes.text(
                    column, row, f"{reward:+g}" if reward else "0", ha="center", va="center",
                    fontsize=size, fontweight="bold", color=INK,
                )  # fmt: skip
            elif numbers:
                axes.text(
                    column,
                    row,
                    short_number(float(number)),
                    ha="center",
                    va="center",
                    fontsize=size,
                    color=shade,
                )
            letter = layout.symbols[row][column]
            if letter not in ". ":
                axes.text(
                    column - 0.42,
                    row - 0.42,
                    letter,
                    ha="left",
                    va="top",
                    fontsize=0.7 * size,
                    color=shade,
                    alpha=0.75,
                )
    return image


def ending(layout: GridLayout) -> BoolArray:
    """[rows, columns] cells that end the episode and say what entering them pays."""
    if layout.entering is None:
        return np.zeros(layout.shape, dtype=bool)
    return np.isfinite(layout.entering)


def _dark(image: Any, number: float) -> bool:
    red, green, blue, _ = image.cmap(image.norm(number))
    return bool(0.299 * red + 0.587 * green + 0.114 * blue < 0.55)


def draw_arrows(
    axes: Axes,
    mdp: MDP,
    layout: GridLayout,
    greedy: BoolArray,
    colour: str = INK,
    offset: float = 0.0,
) -> None:
    """Draw an arrow for each marked pair [pairs] that has a direction; ties draw several."""
    if max(layout.shape) > ARROWS_UP_TO or not layout.moves:
        return
    place = np.full((mdp.states, 2), np.nan)  # x, y of each state's cell
    inside = np.argwhere(layout.state >= 0)
    place[layout.state[inside[:, 0], inside[:, 1]]] = inside[:, ::-1]
    pairs = np.flatnonzero(greedy)
    moves = layout.transposed_moves()[np.asarray(mdp.pair_action)[pairs]]
    start = place[np.asarray(mdp.pair_state)[pairs]]
    several = np.bincount(np.asarray(mdp.pair_state)[pairs], minlength=mdp.states)
    alone = (several == 1)[np.asarray(mdp.pair_state)[pairs]]
    keep = np.isfinite(moves).all(axis=1) & np.isfinite(start).all(axis=1)
    moves, start, alone = moves[keep], start[keep], alone[keep]
    # A single arrow is centred on its cell; the arrows of a tie start from the middle.
    length = np.where(alone, 0.56, 0.36)[:, None]
    tail = start - np.where(alone, 0.5, 0.0)[:, None] * length * moves + [0.0, offset]
    axes.quiver(
        tail[:, 0], tail[:, 1], *(length * moves).T, angles="xy", scale_units="xy", scale=1.0,
        color=colour, width=0.05, units="xy", headwidth=4.0, headlength=4.4,
        headaxislength=4.0, zorder=3,
    )  # fmt: skip


def _draw_policy(
    axes: Axes, mdp: MDP, layout: GridLayout, value: ArrayLike, size: float | None = None,
    objective: str = "max",
) -> None:  # fmt: skip
    """The greedy arrows of a value on blank cells, terminal cells shaded."""
    shade = np.where(mdp.terminal, 1.0, 0.0)
    draw_cells(axes, layout, shade, (0.0, 4.0), numbers=False, palette="Greys", size=size)
    axes.grid(which="minor", color="#cbd2d9", linewidth=1.0)
    draw_arrows(axes, mdp, layout, greedy_pairs(mdp, value, objective=objective))


def heat_map(
    path: str | Path, problem: Problem, value: ArrayLike | Solution, title: str = "",
    objective: str = "max",
) -> Path:  # fmt: skip
    """Values as colours and numbers, the greedy policy as arrows beside them.

    Args:
        path: of the picture (.png, .pdf or .svg).
        problem: an `MDP` with a layout, or a `World`.
        value: [S], or a `Solution`.
        title: above it.
        objective: "max" or "min", of the policy; that of a `Solution` is its own.
    """
    mdp, layout = stored(problem), layout_of(problem)
    if isinstance(value, Solution):
        objective = str(value.about["objective"])
        value = value.shown()
    rows, columns = layout.shape
    arrows = bool(layout.moves) and max(rows, columns) <= ARROWS_UP_TO
    wide = columns >= 2 * rows and columns > 6  # one panel above the other
    across, down = (1, 2) if arrows and wide else (2 if arrows else 1, 1)
    side = 0.62 if max(rows, columns) <= NUMBERS_UP_TO else 6.0 / max(rows, columns)
    size = 9.5 if max(rows, columns) <= NUMBERS_UP_TO else None
    figure = new_figure(
        max(3.5, across * columns * side + 1.3), max(1.6, down * (rows * side + 0.4) + 0.3)
    )
    left = figure.add_subplot(down, across, 1)
    image = draw_cells(left, layout, value, size=size)
    left.set_title("value", fontsize=10, color=INK)
    if layout.row_name:
        left.set_ylabel(layout.row_name, fontsize=9)
        left.set_xlabel(layout.column_name, fontsize=9)
    if arrows:
        right = figure.add_subplot(down, across, 2)
        _draw_policy(right, mdp, layout, value, size, objective)
        right.set_title("greedy policy", fontsize=10, color=INK)
    if rows > 1:
        figure.colorbar(image, ax=left, shrink=0.85, pad=0.02)
    return save_figure(figure, path, title)


def sweeps_figure(
    path: str | Path, problem: Problem, values: Sequence[tuple[str, ArrayLike]], title: str = ""
) -> Path:
    """The lecture's figure: V_k on the left, the policy greedy in V_k on the right, by rows.

    Args:
        path: of the picture.
        problem: an `MDP` with a layout, or a `World`.
        values: (label, [S] value) of each row, as ("k = 3", V_3).
        title: above it all.
    """
    mdp, layout = stored(problem), layout_of(problem)
    rows, columns = layout.shape
    across = 1 if len(values) <= 3 else 2
    down = -(-len(values) // across)
    cell = min(0.55, 3.2 / max(rows, columns))
    figure = new_figure(
        across * (2 * columns * cell + 0.9), down * (rows * cell + 0.34) + (0.4 if title else 0.0)
    )
    every = np.concatenate([np.asarray(value, dtype=np.float64) for _, value in values])
    every = every[np.isfinite(every)]
    limits = (float(every.min()), float(every.max()))
    grid = figure.add_gridspec(down, 2 * across)
    for i, (label, value) in enumerate(values):
        # Down the columns first, as the eye follows the iteration.
        row, column = i % down, 2 * (i // down)
        left = figure.add_subplot(grid[row, column])
        draw_cells(left, layout, value, limits)
        left.set_title(label, fontsize=9.5, color=INK, loc="left", pad=3)
        right = figure.add_subplot(grid[row, column + 1])
        _draw_policy(right, mdp, layout, value)
        if i % down == 0:
            right.set_title("greedy policy", fontsize=9.5, color=INK, loc="left", pad=3)
    return save_figure(figure, path, title)


def convergence(path: str | Path, methods: Sequence[Convergence], title: str = "") -> Path:
    """Error bound against sweeps and against seconds, one line a method."""
    from matplotlib import colormaps

    figure = new_figure(9.6, 3.9)
    left, right = figure.subplots(1, 2, sharey=True)
    palette = colormaps["tab10"].colors  # type: ignore[attr-defined]
    styles = ("-", "--", "-.", ":")
    for i, method in enumerate(methods):
        known = np.isfinite(method.bound) & (method.bound > 0.0)
        look = {
            "color": palette[i % 10],
            "linestyle": styles[(i // 10) % 4],
            "linewidth": 1.7,
            "marker": "o" if known.sum() <= 25 else "",
            "markersize": 3.0,
            "label": method.name,
        }
        left.plot(np.maximum(method.backups[known], 0.5), method.bound[known], **look)
        right.plot(np.maximum(method.seconds[known], 1e-6), method.bound[known], **look)
    for axes, label in ((left, "backups per state (sweeps)"), (right, "seconds")):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel(label, fontsize=9)
        axes.grid(color="#e4e7eb", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    left.set_ylabel("certified bound on |V - V*|", fontsize=9)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, frameon=False, loc="outside right center")
    return save_figure(figure, path, title)


def line_plot(
    path: str | Path,
    value: ArrayLike,
    action: ArrayLike,
    labels: tuple[str, str, str],
    title: str = "",
    states: Sequence[str] | None = None,
    actions: Sequence[str] | None = None,
) -> Path:
    """Value and action of states in a row (the gambler's capital), one above the other.

    Args:
        path: of the picture.
        value, action: [S] each; NaN where there is none.
        labels: names of the state axis, the value and the action.
        title: above it all.
        states: [S] names on the state axis; left out where there are more than 30.
        actions: names on the action axis, of the actions 0, 1, ...
    """
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(6.4, 4.4)
    upper, lower = figure.subplots(2, 1, sharex=True)
    shown = np.asarray(value, dtype=np.float64)
    few = len(shown) <= 30
    upper.plot(
        np.arange(len(shown)), shown, color="#2166ac", linewidth=1.6, marker="o" if few else "",
        markersize=4.0,
    )  # fmt: skip
    upper.set_ylabel(labels[1], fontsize=9)
    chosen = np.asarray(action, dtype=np.float64)
    if few:  # points, for an action 0 would be an invisible bar
        lower.plot(np.arange(len(chosen)), chosen, "s", color="#41b6c4", markersize=6.0)
    else:
        lower.bar(np.arange(len(chosen)), chosen, color="#41b6c4", width=0.9)
    lower.set_ylabel(labels[2], fontsize=9)
    lower.set_xlabel(labels[0], fontsize=9)
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    lower.yaxis.set_major_locator(MaxNLocator(integer=True))
    if states is not None and few:
        lower.set_xticks(np.arange(len(states)), states)
        if sum(map(len, states)) > 70:
            lower.tick_params(axis="x", rotation=45)
    if actions is not None and len(actions) <= 12:
        lower.set_yticks(np.arange(len(actions)), actions)
        lower.set_ylim(-0.5, len(actions) - 0.5)
    for axes in (upper, lower):
        axes.grid(color="#e4e7eb", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    return save_figure(figure, path, title)
