"""Pictures of forecasts and of gaps: fan charts of numbers, a roll of many keys."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from likely.evaluate.sequences.forecast import Forecast
from likely.files.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from likely.data.sequences.spec import Column

BLUE, INK, RED = "#2b5fb8", "#33373f", "#b3263f"
MOST = 8  # columns with a panel each
MOST_AROUND = 200  # known steps beside the drawn ones

Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class _View:
    """What is drawn: some steps before, the drawn ones, some after; [W], [W, K], [5, W, K]."""

    steps: npt.NDArray[np.int64]
    known: Floats
    bands: Floats
    truth: Floats
    mean: Floats
    first: Floats


def _view(forecast: Forecast, around: int | None) -> _View:
    horizon, width = forecast.draws.shape[1:]
    around = min(MOST_AROUND, 2 * horizon) if around is None else around
    past = forecast.past[len(forecast.past) - min(around, len(forecast.past)) :]
    none = np.empty((0, width))
    after = none if forecast.after is None else forecast.after[:around]
    missing = forecast.missing
    drawn = np.ones((horizon, width), bool) if missing is None else missing
    inside = np.where(drawn, np.nan, forecast.truth)
    numbers = np.stack(
        [c.numbers(forecast.draws[0, :, k]) for k, c in enumerate(forecast.spec.columns)], 1
    )
    # Bands begin and end at what is known.
    sides = [np.broadcast_to(part, (5, *part.shape)) for part in (past, after)]
    bands = np.concatenate([sides[0], forecast.quantiles, sides[1]], 1)
    begin = 1 if missing is None else forecast.at
    return _View(
        np.arange(begin - len(past), begin + horizon + len(after)),
        np.concatenate([past, inside, after]),
        bands,
        np.concatenate([past * np.nan, np.where(drawn, forecast.truth, np.nan), after * np.nan]),
        np.concatenate([past, forecast.mean, after]),
        np.concatenate([past, numbers, after]),
    )


def forecast_figure(forecast: Forecast, title: str, around: int | None = None) -> Figure:
    """A fan for each column, or a roll where many columns are binary.

    Args:
        forecast: what was drawn: what follows, or a gap.
        title: of the figure.
        around: known steps that are shown, before and after; by default twice as many as drawn.
    """
    columns = forecast.spec.columns
    view = _view(forecast, around)
    where = f"{forecast.spec.time_step}s ahead"
    if forecast.missing is not None:
        where = f"{forecast.spec.time_step}s of the series"
    if len(columns) > MOST and all(c.kind == "binary" for c in columns):
        figure = _roll(forecast, view, where)
    else:
        shown = columns[:MOST]
        across = 1 if len(shown) < 3 else 2
        down = math.ceil(len(shown) / across)
        figure = new_figure(6.4 * across, 1.9 * down + 0.8)
        panels = figure.subplots(down, across, squeeze=False, sharex=True).flatten()
        for k, column in enumerate(shown):
            _fan(panels[k], view, k, column, forecast.missing is None)
        for panel in panels[len(shown) :]:
            panel.set_axis_off()
        for panel in panels[max(0, len(shown) - across) : len(shown)]:
            panel.set_xlabel(where, fontsize=9)
            panel.tick_params(labelbottom=True)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8.5,
                      frameon=False)  # fmt: skip
    if title:
        figure.suptitle(title, fontsize=11, color=INK)
    return figure


def _fan(axes: Axes, view: _View, k: int, column: Column, ahead: bool) -> None:
    low, lower, middle, upper, high = view.bands[:, :, k]
    drawn = ~np.isfinite(view.known[:, k])
    beside = drawn.copy()  # and the known steps next to it
    beside[1:] |= drawn[:-1]
    beside[:-1] |= drawn[1:]
    axes.plot(view.steps, view.known[:, k], color=INK, linewidth=1.1, label="known")
    axes.fill_between(view.steps, low, high, where=beside, color=BLUE, alpha=0.18, linewidth=0,
                      label="5 to 95 %")  # fmt: skip
    axes.fill_between(view.steps, lower, upper, where=beside, color=BLUE, alpha=0.32, linewidth=0,
                      label="25 to 75 %")  # fmt: skip
    axes.plot(view.steps, np.where(beside, middle, np.nan), color=BLUE, linewidth=1.6,
              label="median")  # fmt: skip
    if np.isfinite(view.truth[:, k]).any():
        name = "what followed" if ahead else "the truth"
        axes.plot(view.steps, view.truth[:, k], color=RED, linewidth=1.1, linestyle=(0, (4, 1.5)),
                  label=name)  # fmt: skip
    for border in view.steps[1:][drawn[1:] & ~drawn[:-1]]:
        axes.axvline(border - 0.5, color=INK, linewidth=0.6, alpha=0.5)
    axes.set_title(column.name, fontsize=9.5, loc="left", color=INK)
    axes.tick_params(labelsize=8)
    axes.margins(x=0.01)
    axes.grid(alpha=0.25, linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if column.names:
        axes.set_yticks(column.numbers(range(len(column.names))), column.names)


def _roll(forecast: Forecast, view: _View, where: str) -> Figure:
    """Keys up, steps across: what is known and what is true; the shares of the draws."""
    truth = np.where(np.isfinite(view.known), view.known, view.truth)
    parts = [("the truth", truth),
             (f"the share of {len(forecast.draws)} draws", view.mean),
             ("the first draw", view.first)]  # fmt: skip
    heard = np.flatnonzero(np.nan_to_num(np.concatenate([p for _, p in parts])).any(0))
    low, high = (heard.min(), heard.max() + 1) if len(heard) else (0, truth.shape[1])
    figure = new_figure(9.6, 6.6)
    panels = figure.subplots(len(parts), 1, sharex=True)
    drawn = ~np.isfinite(view.known).all(1)
    edges = np.flatnonzero(np.diff(drawn.astype(int)))
    for axes, (name, keys) in zip(panels, parts, strict=True):
        axes.imshow(
            np.nan_to_num(keys).T[low:high], origin="lower", aspect="auto", cmap="Blues", vmin=0,
            vmax=1, interpolation="nearest",
            extent=(view.steps[0] - 0.5, view.steps[-1] + 0.5, low - 0.5, high - 0.5),
        )  # fmt: skip
        for edge in edges:
            axes.axvline(view.steps[edge] + 0.5, color=RED, linewidth=1.0)
        axes.set_title(name, fontsize=9.5, loc="left", color=INK)
        axes.set_ylabel("key", fontsize=9)
        axes.tick_params(labelsize=8)
    panels[-1].set_xlabel(where, fontsize=9)
    return figure
