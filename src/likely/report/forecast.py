"""Pictures of forecasts and of gaps: fans of numbers, shares of categories, a roll of keys."""

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
LEVELS = ("binary", "categorical")  # whose levels have no quantiles
LEAST_SHARE = 0.02  # of a level that a panel reaches to
MOST_NAMES = 12  # of levels beside a panel

Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class _View:
    """What is drawn: some steps before, the drawn ones, some after; [W], [W, K], [5, W, K]."""

    before: int
    steps: npt.NDArray[np.int64]
    known: Floats
    bands: Floats
    truth: Floats
    mean: Floats
    first: Floats

    @property
    def edges(self) -> Floats:
        """Where steps begin and end, [W + 1]."""
        return np.append(self.steps - 0.5, self.steps[-1] + 0.5)


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
        len(past),
        np.arange(begin - len(past), begin + horizon + len(after)),
        np.concatenate([past, inside, after]),
        bands,
        np.concatenate([past * np.nan, np.where(drawn, forecast.truth, np.nan), after * np.nan]),
        np.concatenate([past, forecast.mean, after]),
        np.concatenate([past, numbers, after]),
    )


def forecast_figure(forecast: Forecast, title: str, around: int | None = None) -> Figure:
    """A fan for each number, the shares of a category, or a roll where many columns are binary.

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
            if column.kind in LEVELS:
                _shares(panels[k], forecast, view, k)
            else:
                _fan(panels[k], view, k)
            _frame(panels[k], view, k, column, forecast.missing is None)
        for panel in panels[len(shown) :]:
            panel.set_axis_off()
        for panel in panels[max(0, len(shown) - across) : len(shown)]:
            panel.set_xlabel(where, fontsize=9)
            panel.tick_params(labelbottom=True)
        legends = [panel.get_legend_handles_labels() for panel in panels]
        named = {label: handle for handles, labels in legends
                 for handle, label in zip(handles, labels, strict=True)}  # fmt: skip
        figure.legend(named.values(), named, loc="outside lower center", ncols=3 * across,
                      fontsize=8.5, frameon=False)  # fmt: skip
    if title:
        figure.suptitle(title, fontsize=11, color=INK)
    return figure


def _fan(axes: Axes, view: _View, k: int) -> None:
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


def _shares(axes: Axes, forecast: Forecast, view: _View, k: int) -> None:
    """Levels up, steps across: the share of the draws that have it."""
    column, drawn = forecast.spec.columns[k], ~np.isfinite(view.known[:, k])
    levels, horizon = np.arange(column.levels), forecast.draws.shape[1]
    shares = np.full((len(view.steps), column.levels), np.nan)
    shares[view.before : view.before + horizon] = (forecast.draws[:, :, k, None] == levels).mean(0)
    shares[~drawn] = np.nan
    seen = (shares > LEAST_SHARE).any(0)
    numbers = np.asarray(column.numbers(levels), float)
    for line in (view.known[:, k], view.truth[:, k]):
        seen |= np.isin(numbers.round(9), line[np.isfinite(line)].round(9))
    low, high = np.flatnonzero(seen)[[0, -1]] if seen.any() else (0, column.levels - 1)
    half = (numbers[1] - numbers[0]) / 2
    axes.imshow(
        shares.T[low : high + 1], origin="lower", aspect="auto", cmap="Blues", vmin=0, vmax=1,
        interpolation="nearest", extent=(view.steps[0] - 0.5, view.steps[-1] + 0.5,
                                         numbers[low] - half, numbers[high] + half),
    )  # fmt: skip
    axes.stairs(view.known[:, k], view.edges, baseline=None, color=INK, linewidth=1.4,
                label="known")  # fmt: skip
    axes.fill_between([], [], [], color=BLUE, alpha=0.7, linewidth=0, label="share of the draws")


def _frame(axes: Axes, view: _View, k: int, column: Column, ahead: bool) -> None:
    """The truth, borders and names of a panel."""
    drawn, truth = ~np.isfinite(view.known[:, k]), view.truth[:, k]
    if np.isfinite(truth).any():
        name = "what followed" if ahead else "the truth"
        dashed = {"color": RED, "linewidth": 1.1, "linestyle": (0, (4, 1.5)), "label": name}
        if column.kind in LEVELS:
            axes.stairs(truth, view.edges, baseline=None, **dashed)  # type: ignore[arg-type]
        else:
            axes.plot(view.steps, truth, **dashed)  # type: ignore[arg-type]
    for border in view.steps[1:][drawn[1:] & ~drawn[:-1]]:
        axes.axvline(border - 0.5, color=INK, linewidth=0.6, alpha=0.5)
    axes.set_title(column.name, fontsize=9.5, loc="left", color=INK)
    axes.tick_params(labelsize=8)
    axes.margins(x=0.01)
    axes.grid(alpha=0.25, linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if column.names and len(column.names) <= MOST_NAMES:
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
