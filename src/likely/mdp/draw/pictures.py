"""The two pictures that need more than one solve: Jack's policies, and sweeps in motion."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from likely.errors import InvalidSetting
from likely.files.figures import INK, new_figure, save_figure, write_atomically
from likely.mdp.draw import plots
from likely.mdp.model.arrays import BoolArray, FloatArray
from likely.mdp.model.layout import GridLayout
from likely.mdp.model.policies import greedy_pairs
from likely.mdp.model.problem import MDP
from likely.mdp.model.world import Problem, layout_of, stored

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import Image


def policy_contours(
    path: str | Path,
    layout: GridLayout,
    policies: Sequence[tuple[str, ArrayLike]],
    value: ArrayLike | None = None,
    unit: str = "",
    title: str = "",
) -> Path:
    """Policies whose actions are numbers, as coloured steps with their borders drawn.

    Args:
        path: of the picture.
        layout: states in a rectangle; its axes are counted from 0 at the lower left.
        policies: (label, [S] number that the action stands for) of each panel.
        value: [S] drawn in one more panel.
        unit: of the action, for the colour bar.
        title: above it all.
    """
    from matplotlib import colormaps
    from matplotlib.colors import BoundaryNorm

    panels = len(policies) + (value is not None)
    across = min(3, panels)
    down = -(-panels // across)
    figure = new_figure(3.1 * across + 0.7, 2.75 * down + (0.8 if down > 1 else 0.2))
    every = np.concatenate([np.asarray(p, dtype=np.float64) for _, p in policies])
    low, high = int(every.min()), int(every.max())
    reach = max(abs(low), abs(high), 1)
    norm = BoundaryNorm(np.arange(-reach - 0.5, reach + 1.0), colormaps["RdBu_r"].N)
    painted = []  # the panels of policies, which the colour bar is about
    for i, (label, policy) in enumerate(policies):
        axes = figure.add_subplot(down, across, i + 1)
        grid = layout.on_grid(policy)
        painted.append(axes)
        image = axes.imshow(grid, cmap="RdBu_r", norm=norm, origin="lower")
        _borders(axes, grid)
        for action in np.unique(grid[np.isfinite(grid)]):
            row, column, room = _inside(grid == action)
            if room < 1.9:
                continue  # too narrow for a number; the colour says it
            shade = "white" if abs(action) > 0.6 * reach else INK
            axes.text(
                column,
                row,
                f"{action:+.0f}" if action else "0",
                ha="center",
                va="center",
                fontsize=8.5,
                color=shade,
            )
        _axes_of(axes, layout, label, left=i % across == 0, bottom=i // across == down - 1)
    if value is not None:
        axes = figure.add_subplot(down, across, panels)
        grid = layout.on_grid(value)
        axes.imshow(grid, cmap=plots.colours(), origin="lower")
        lines = axes.contour(grid, levels=8, colors=INK, linewidths=0.6)
        axes.clabel(lines, fontsize=6.5, fmt="%.0f")
        _axes_of(axes, layout, "value", left=(panels - 1) % across == 0, bottom=True)
        painted += [axes] if down > 1 else []  # the bar stands below them all
    place = {"location": "bottom", "shrink": 0.5, "aspect": 40} if down > 1 else {"shrink": 0.8}
    ticks = np.arange(-reach, reach + 1, max(1, reach // 8))
    bar = figure.colorbar(image, ax=painted, pad=0.015, ticks=ticks, **place)
    bar.minorticks_off()
    bar.set_label(unit, fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return save_figure(figure, path, title)


def _axes_of(axes: Axes, layout: GridLayout, title: str, left: bool, bottom: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, fontsize=10, color=INK)
    axes.tick_params(labelsize=7.5, labelleft=left, labelbottom=bottom)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    if left:
        axes.set_ylabel(layout.row_name, fontsize=8.5)
    if bottom:
        axes.set_xlabel(layout.column_name, fontsize=8.5)


def _borders(axes: Axes, grid: FloatArray) -> None:
    """Lines between neighbouring cells whose actions differ: the contours of a step function."""
    segments = [
        [(c + 0.5, r - 0.5), (c + 0.5, r + 0.5)]
        for r, c in np.argwhere(grid[:, 1:] != grid[:, :-1])
    ] + [[(c - 0.5, r + 0.5), (c + 0.5, r + 0.5)] for r, c in np.argwhere(grid[1:] != grid[:-1])]
    from matplotlib.collections import LineCollection

    axes.add_collection(LineCollection(segments, colors=INK, linewidths=0.8))


def _inside(mask: BoolArray) -> tuple[int, int, float]:
    """The cell of a region that is furthest from its border, and how far, for a label."""
    from scipy.ndimage import distance_transform_edt

    padded = np.pad(mask, 1)
    depth = distance_transform_edt(padded)[1:-1, 1:-1]
    deepest = np.argwhere(depth >= depth.max() - 1e-9)
    middle = np.argwhere(mask).mean(axis=0)
    row, column = deepest[int(np.argmin(((deepest - middle) ** 2).sum(axis=1)))]
    return int(row), int(column), float(depth.max())


def animate(
    path: str | Path,
    problem: Problem,
    values: Sequence[ArrayLike],
    labels: Sequence[str],
    frames_per_second: float = 4.0,
    title: str = "",
) -> Path:
    """An animated GIF of sweeps on a grid world: values fill in, the greedy arrows turn.

    Args:
        path: ends in .gif.
        problem: an `MDP` with a layout, or a `World`.
        values: [S] of each frame; the last one stays on for two seconds.
        labels: above each frame.
        frames_per_second: speed.
        title: before each label.
    """
    from PIL import Image as Pillow

    if Path(path).suffix.lower() != ".gif":
        raise InvalidSetting(f'{path}: an animation is a .gif, given "{Path(path).suffix}"')
    if len(values) == 0 or len(values) != len(labels):
        raise InvalidSetting("an animation needs at least one frame and a label for each")
    if not frames_per_second > 0.0:
        raise InvalidSetting(f"frames per second must be positive, given {frames_per_second}")
    mdp, layout = stored(problem), layout_of(problem)
    every = np.stack([np.asarray(v, dtype=np.float64) for v in values])
    limits = (float(every.min()), float(every.max()))
    frames = [
        _frame(mdp, layout, value, limits, f"{title}  {label}".strip())
        for value, label in zip(every, labels, strict=True)
    ]
    # One palette for all frames, from all of them, so that colours do not flicker.
    sample = Pillow.new("RGB", (frames[0].width, sum(f.height for f in frames)))
    for i, frame in enumerate(frames):
        sample.paste(frame, (0, i * frame.height))
    palette = sample.quantize(colors=256, method=Pillow.Quantize.MAXCOVERAGE)
    still = [f.quantize(palette=palette, dither=Pillow.Dither.NONE) for f in frames]
    pause = max(20, round(1000.0 / frames_per_second))
    durations = [pause] * (len(still) - 1) + [2000]

    def write(temporary: Path) -> None:
        still[0].save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=still[1:],
            duration=durations,
            loop=0,
            optimize=True,
            disposal=1,
        )

    return write_atomically(path, write)


def _frame(
    mdp: MDP,
    layout: GridLayout,
    value: FloatArray,
    limits: tuple[float, float],
    label: str,
) -> Image.Image:
    from PIL import Image as Pillow

    rows, columns = layout.shape
    side = min(0.6, 5.0 / max(rows, columns))
    figure = new_figure(max(2.6, columns * side + 0.2), rows * side + 0.45)
    axes = figure.add_subplot()
    with_numbers = max(rows, columns) <= 8
    plots.draw_cells(axes, layout, value, limits, numbers=False)
    offset = -0.1 if with_numbers else 0.0
    plots.draw_arrows(axes, mdp, layout, greedy_pairs(mdp, value), offset=offset)
    if with_numbers:
        for row, column in np.argwhere((layout.state >= 0) & ~plots.ending(layout)):
            axes.text(
                column,
                row + 0.46,
                plots.short_number(value[layout.state[row, column]]),
                ha="center",
                va="bottom",
                fontsize=6.5,
                color=INK,
            )
    axes.set_title(label, fontsize=9.5, color=INK)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    buffer.seek(0)
    return Pillow.open(buffer).convert("RGB")
