"""The picture of a classification with few labels: accuracy, confusion, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from likely.estimate import Estimate, confidence_width
from likely.evaluate.scores import Scores
from likely.files.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# One colour for each method, the same in every part of the picture.
COLOURS = ("#2b5fb8", "#17805a", "#64707f", "#d1661b", "#9b3fa8", "#b3263f", "#0f8a96", "#8a6d1f")


class ScoredMethod(Protocol):
    """A method with the scores of all its draws."""

    @property
    def scores(self) -> Scores:
        """Summed over the draws."""


class ScoredFraction(Protocol):
    """All methods at one number of labels."""

    @property
    def share(self) -> str:
        """How many labels, as "10 labels a class"."""

    @property
    def labelled(self) -> int:
        """Labelled examples in all."""

    @property
    def methods(self) -> Mapping[str, ScoredMethod]:
        """By name."""

    def accuracy(self, name: str) -> Estimate:
        """In percent."""


def classification_figure(
    model: str, fractions: Sequence[ScoredFraction], titles: Mapping[str, str]
) -> Figure:
    """Accuracy by number of labels, and of the first method confusion and calibration.

    Args:
        model: name of the encoder's model.
        fractions: in the order of their labels.
        titles: of the methods by name.
    """
    figure = new_figure(13.0, 4.4)
    axes = figure.subplots(1, 3, gridspec_kw={"width_ratios": (1.7, 1.0, 1.0)})
    shown = fractions[0]
    if len(fractions) == 1:
        _bars(axes[0], shown, titles)
    else:
        _curves(axes[0], fractions, titles)
    best = next(iter(shown.methods))
    _confusion(axes[1], shown.methods[best].scores)
    axes[1].set_title(f"{titles[best]}, {shown.share}", fontsize=10)
    _reliability(axes[2], shown, titles)
    axes[2].set_title(f"calibration, {shown.share}", fontsize=10)
    figure.suptitle(f"Classifiers from few labels, encoder of {model}", fontsize=12)
    return figure


def _interval(estimate: Estimate) -> float:
    """Half the width of the 95 % interval over the draws; 0 where there is one draw."""
    return estimate.standard_error * confidence_width(estimate.n) if estimate.n > 1 else 0.0


def _bars(axes: Axes, fraction: ScoredFraction, titles: Mapping[str, str]) -> None:
    names = list(fraction.methods)[::-1]
    colours = dict(zip(fraction.methods, COLOURS, strict=False))
    for place, name in enumerate(names):
        estimate = fraction.accuracy(name)
        axes.errorbar(
            estimate.value, place, xerr=_interval(estimate), fmt="o", color=colours[name], capsize=4
        )
        axes.annotate(
            f"{estimate.value:.1f}", (estimate.value, place), (0, 7), textcoords="offset points",
            ha="center", fontsize=8,
        )  # fmt: skip
    errors = (100 * fraction.methods[name].scores.calibration_error for name in names)
    words = [
        f"{titles[name]}\ncalibration error {error:.1f} %"
        for name, error in zip(names, errors, strict=True)
    ]
    axes.set_yticks(range(len(names)), words, fontsize=8)
    axes.set_ylim(-0.6, len(names) - 0.3)
    axes.set_xlabel("accuracy [%], mean and 95 % interval over draws")
    axes.grid(axis="x", alpha=0.3)


def _curves(axes: Axes, fractions: Sequence[ScoredFraction], titles: Mapping[str, str]) -> None:
    names = list(dict.fromkeys(name for fraction in fractions for name in fraction.methods))
    for name, colour in zip(names, COLOURS, strict=False):
        scored = [(f.labelled, f.accuracy(name)) for f in fractions if name in f.methods]
        axes.errorbar(
            [labelled for labelled, _ in scored],
            [estimate.value for _, estimate in scored],
            yerr=[_interval(estimate) for _, estimate in scored],
            marker="o", markersize=4, capsize=3, linewidth=1.4, color=colour, label=titles[name],
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlabel("labelled examples in all")
    axes.set_ylabel("accuracy [%], mean and 95 % interval")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _confusion(axes: Axes, scores: Scores) -> None:
    share = scores.confusion / np.maximum(1, scores.confusion.sum(1, keepdims=True))
    axes.imshow(share, cmap="Blues", vmin=0.0, vmax=1.0)
    classes = len(share)
    if classes <= 12:
        for row in range(classes):
            for column in range(classes):
                percent = round(100 * share[row, column])
                if percent:
                    colour = "white" if share[row, column] > 0.5 else "#1f2933"
                    axes.text(
                        column, row, str(percent), ha="center", va="center", fontsize=7,
                        color=colour,
                    )  # fmt: skip
        axes.set_xticks(range(classes))
        axes.set_yticks(range(classes))
    axes.set_xlabel("predicted class [% of the true class]")
    axes.set_ylabel("true class")


def _reliability(axes: Axes, fraction: ScoredFraction, titles: Mapping[str, str]) -> None:
    axes.plot([0, 1], [0, 1], color="#9aa1ad", linewidth=1, linestyle="--")
    for (name, method), colour in zip(fraction.methods.items(), COLOURS, strict=False):
        if name == "nearest":  # always certain
            continue
        filled = method.scores.binned[method.scores.binned[:, 0] > 0]
        n, confidence, right = filled.T
        axes.plot(confidence / n, right / n, marker=".", color=colour, linewidth=1.2)
    axes.set_xlabel("confidence")
    axes.set_ylabel("accuracy")
    axes.grid(alpha=0.3)
