"""Pictures of forecasts: fan charts of numbers, a roll of many keys."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from likely.evaluate.sequences.forecast import Forecast
from likely.files.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from likely.data.sequences.spec import Column

BLUE, INK, RED = "#2b5fb8", "#33373f", "#b3263f"
MOST = 8  # columns with a panel each


def forecast_figure(forecast: Forecast, title: str, before: int | None = None) -> Figure:
    """A fan for each column, or a roll where many columns are binary.

    Args:
        forecast: what was drawn.
        title: of the figure.
        before: known steps that are shown; by default twice the horizon.
    """
    columns = forecast.spec.columns
    horizon = forecast.draws.shape[1]
    past = forecast.past[-(2 * horizon if before is None else before) :]
    if len(columns) > MOST and all(c.kind == "binary" for c in columns):
        figure = _roll(forecast, past)
    else:
        shown = columns[:MOST]
        across = 1 if len(shown) < 3 else 2
        down = math.ceil(len(shown) / across)
        figure = new_figure(6.4 * across, 1.9 * down + 0.8)
        panels = figure.subplots(down, across, squeeze=False, sharex=True).flatten()
        for k, column in enumerate(shown):
            _fan(panels[k], forecast, past, k, column)
        for panel in panels[len(shown) :]:
            panel.set_axis_off()
        for panel in panels[max(0, len(shown) - across) : len(shown)]:
            panel.set_xlabel(f"{forecast.spec.time_step}s ahead", fontsize=9)
            panel.tick_params(labelbottom=True)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8.5,
                      frameon=False)  # fmt: skip
    figure.suptitle(title, fontsize=11, color=INK)
    return figure


def _fan(axes: Axes, forecast: Forecast, past: np.ndarray, k: int, column: Column) -> None:
    ahead = np.arange(1, forecast.draws.shape[1] + 1)
    low, lower, middle, upper, high = forecast.quantiles[:, :, k]
    axes.plot(np.arange(1 - len(past), 1), past[:, k], color=INK, linewidth=1.1, label="known")
    axes.fill_between(ahead, low, high, color=BLUE, alpha=0.18, linewidth=0, label="5 to 95 %")
    axes.fill_between(ahead, lower, upper, color=BLUE, alpha=0.32, linewidth=0, label="25 to 75 %")
    axes.plot(ahead, middle, color=BLUE, linewidth=1.6, label="median")
    if np.isfinite(forecast.truth[:, k]).any():
        axes.plot(ahead, forecast.truth[:, k], color=RED, linewidth=1.1, linestyle=(0, (4, 1.5)),
                  label="what followed")  # fmt: skip
    axes.axvline(0.5, color=INK, linewidth=0.6, alpha=0.5)
    axes.set_title(column.name, fontsize=9.5, loc="left", color=INK)
    axes.tick_params(labelsize=8)
    axes.margins(x=0.01)
    axes.grid(alpha=0.25, linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if column.names:
        axes.set_yticks(column.numbers(range(len(column.names))), column.names)


def _roll(forecast: Forecast, past: np.ndarray) -> Figure:
    """Keys up, steps across: what is known and what followed; the shares of the draws."""
    share = forecast.mean
    parts = [("known, then what followed", np.concatenate([past, forecast.truth])),
             (f"known, then the share of {len(forecast.draws)} draws",
              np.concatenate([past, share])),
             ("known, then the first draw", np.concatenate([past, forecast.draws[0]]))]  # fmt: skip
    heard = np.flatnonzero(np.nan_to_num(np.concatenate([p for _, p in parts])).any(0))
    low, high = (heard.min(), heard.max() + 1) if len(heard) else (0, past.shape[1])
    figure = new_figure(9.6, 6.6)
    panels = figure.subplots(len(parts), 1, sharex=True)
    for axes, (name, keys) in zip(panels, parts, strict=True):
        axes.imshow(
            np.nan_to_num(keys).T[low:high], origin="lower", aspect="auto", cmap="Blues", vmin=0,
            vmax=1, interpolation="nearest",
            extent=(-len(past) + 0.5, share.shape[0] + 0.5, low - 0.5, high - 0.5),
        )  # fmt: skip
        axes.axvline(0.5, color=RED, linewidth=1.0)
        axes.set_title(name, fontsize=9.5, loc="left", color=INK)
        axes.set_ylabel("key", fontsize=9)
        axes.tick_params(labelsize=8)
    panels[-1].set_xlabel(f"{forecast.spec.time_step}s ahead", fontsize=9)
    return figure
