"""Pictures of plans: V over two variables, and where the transitions were."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from likely.errors import InvalidSetting
from likely.files.figures import INK, new_figure, save_figure
from likely.mdp.draw.plots import colours
from likely.world.planning import Plan
from likely.world.trajectories import Trajectories

SIDE = 121  # points a side of a picture


def values_figure(
    path: str | Path,
    plans: Sequence[tuple[str, Plan]],
    log: Trajectories | None = None,
    variables: tuple[int, int] | None = None,
    title: str = "",
) -> Path:
    """V of plans side by side in the same colours, over two variables; the others at the middle.

    Args:
        plans: (label, plan) of each panel, all of one task.
        log: its states are drawn as dots on the first panel, those where an episode ended as
            crosses.
        variables: numbers of the variables across and up; by default the first two, of tasks with
            more the two last.
    """
    task = plans[0][1].model.task
    across, up = variables or (
        (0, 1) if task.dimensions == 2 else (task.dimensions - 2, task.dimensions - 1)
    )
    if not (0 <= across < task.dimensions and 0 <= up < task.dimensions) or across == up:
        raise InvalidSetting(
            f"variables {across} and {up}: expected two different ones of 0..{task.dimensions - 1}"
        )
    low, high = np.array(task.low), np.array(task.high)
    mesh = np.meshgrid(
        np.linspace(low[across], high[across], SIDE), np.linspace(low[up], high[up], SIDE)
    )
    states = np.tile((low + high) / 2, (SIDE * SIDE, 1))
    states[:, across], states[:, up] = mesh[0].ravel(), mesh[1].ravel()
    pictures = [plan.value(states).reshape(SIDE, SIDE) for _, plan in plans]
    least, most = min(p.min() for p in pictures), max(p.max() for p in pictures)
    figure = new_figure(3.6 * len(plans) + 0.6, 3.2 + 0.3 * bool(title))
    panels = []
    for i, ((label, _), picture) in enumerate(zip(plans, pictures, strict=True)):
        axes = figure.add_subplot(1, len(plans), i + 1)
        panels.append(axes)
        extent = (low[across], high[across], low[up], high[up])
        image = axes.imshow(picture, origin="lower", extent=extent, aspect="auto", cmap=colours(),
                            vmin=least, vmax=most)  # fmt: skip
        axes.contour(*mesh, picture, levels=8, colors=INK, linewidths=0.4, alpha=0.5)
        axes.set_title(label, fontsize=10, color=INK)
        axes.set_xlabel(task.variables[across], fontsize=8.5)
        axes.tick_params(labelsize=7.5, labelleft=i == 0)
        if i == 0:
            axes.set_ylabel(task.variables[up], fontsize=8.5)
            if log is not None:
                seen, after = task.states_of(log)
                axes.plot(seen[:, across], seen[:, up], ".", color="#d64545", markersize=1.5)
                ended = after[log.terminated]
                axes.plot(ended[:, across], ended[:, up], "x", color="#610316", markersize=4)
        axes.set_xlim(low[across], high[across])
        axes.set_ylim(low[up], high[up])
    bar = figure.colorbar(image, ax=panels, pad=0.015, shrink=0.9)
    bar.set_label("V", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return save_figure(figure, path, title)
