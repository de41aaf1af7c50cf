"""Pictures of the oddest stretches of sequences: what was there, and what each step cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from likely.data.sequences.dataset import Sequences
from likely.evaluate.sequences.odd import Stretches
from likely.files.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, RED, GREY = "#33373f", "#b3263f", "#9aa3b2"
PALETTE = ("#2b5fb8", "#d1792b", "#3c8d5a", "#7d4ea8", "#b3263f", "#3aa0a8", "#8a6d3b", "#6b7280")
MOST = len(PALETTE)  # columns of numbers that are drawn


def stretches_figure(data: Sequences, result: Stretches, title: str, shown: int = 3) -> Figure:
    """The oddest windows: the columns around each, and the nats of its steps.

    Args:
        data: that was scored.
        result: of it.
        title: of the figure.
        shown: windows, each with as many steps before and after it.
    """
    order = result.order[: max(1, shown)]
    figure = new_figure(9.6, 3.0 * len(order) + 0.7)
    panels = figure.subplots(
        2 * len(order), 1, squeeze=False, height_ratios=[2.2, 1.0] * len(order)
    ).flatten()
    for place, w in enumerate(order):
        series, first, stop = int(result.series[w]), int(result.first[w]), int(result.stop[w])
        length, lead = int(data.lengths[series]), int(data.lead[series])
        wide = stop - first
        begin, end = max(0, first - wide), min(length, stop + wide)
        steps = np.arange(begin, end)
        values, nats = panels[2 * place], panels[2 * place + 1]
        _values(values, data, series, lead, steps)
        if place and values.get_legend() is not None:
            values.get_legend().remove()
        expected = float(result.expected[w]) / wide
        cost = result.per_step[series][begin:end]
        inside = (steps >= first) & (steps < stop)
        nats.bar(steps, cost, width=0.85, color=np.where(inside, RED, GREY))
        nats.plot([first - 0.5, stop - 0.5], [expected, expected], color=INK, linewidth=1.2)
        nats.set_ylabel("nats", fontsize=8.5)
        for axes in (values, nats):
            axes.set_xlim(begin - 0.5, end - 0.5)
            axes.axvspan(first - 0.5, stop - 0.5, color=RED, alpha=0.07, linewidth=0)
            axes.tick_params(labelsize=8)
            for side in ("top", "right"):
                axes.spines[side].set_visible(False)
        values.tick_params(labelbottom=False)
        values.set_title(
            f"series {series}, {data.spec.time_step}s {first:,} to {stop - 1:,}: "
            f"{float(result.nats[w]) / wide:.2f} nats a step, the model's own cost "
            f"{expected:.2f}; p = {result.p[w]:.3f}",
            fontsize=9.5, loc="left", color=INK,
        )  # fmt: skip
    panels[-1].set_xlabel(f"{data.spec.time_step}s of the series; black: what the model's own "
                          "continuations cost", fontsize=9)  # fmt: skip
    figure.suptitle(title, fontsize=11, color=INK)
    return figure


def _values(axes: Axes, data: Sequences, series: int, lead: int, steps: np.ndarray) -> None:
    columns = data.spec.columns
    numbers = data.numbers(series)[lead + steps[0] : lead + steps[-1] + 1]
    if len(columns) > MOST and all(column.kind == "binary" for column in columns):
        heard = np.flatnonzero(np.nan_to_num(numbers).any(0))
        low, high = (heard.min(), heard.max() + 1) if len(heard) else (0, len(columns))
        axes.imshow(
            np.nan_to_num(numbers).T[low:high], origin="lower", aspect="auto", cmap="Blues",
            vmin=0, vmax=1, interpolation="nearest",
            extent=(steps[0] - 0.5, steps[-1] + 0.5, low - 0.5, high - 0.5),
        )  # fmt: skip
        axes.set_ylabel("key", fontsize=8.5)
        return
    known = np.where(data.values >= 0, data.values, np.nan)
    for k, column in enumerate(columns[:MOST]):
        # All columns on one scale: the deviations of the data.
        middle, spread = np.nanmean(known[:, k]), max(float(np.nanstd(known[:, k])), 1e-9)
        scaled = ((numbers[:, k] - column.offset) / column.step - middle) / spread
        axes.plot(steps, scaled, color=PALETTE[k], linewidth=1.1, label=column.name,
                  drawstyle="default" if len(column.names) == 0 else "steps-mid")  # fmt: skip
    axes.set_ylabel("deviations", fontsize=8.5)
    axes.legend(fontsize=7.5, frameon=False, ncols=MOST, loc="upper left")
