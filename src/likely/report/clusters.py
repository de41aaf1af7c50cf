"""Pictures of the structure of codes: maps, coloured by class and by cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from likely.evaluate.scores import Integers
from likely.evaluate.structure import Clustering, Map
from likely.files.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def structure_figure(
    title: str,
    maps: Sequence[Map],
    clusterings: Sequence[Clustering],
    labels: Integers | None,
    names: Sequence[str],
) -> Figure:
    """A column for each map; a row coloured by class, then one for each clustering."""
    rows: list[tuple[str, Integers, Sequence[str]]] = []
    if labels is not None:
        rows.append(("classes", labels, names or [str(c) for c in range(int(labels.max()) + 1)]))
    for clustering in clusterings:
        head = clustering.name
        if clustering.nmi is not None:
            head += f", NMI {clustering.nmi:.2f}, ARI {clustering.ari:.2f}"
        rows.append((head, clustering.members, ()))
    figure = new_figure(4.2 * max(1, len(maps)) + 1.0, 3.7 * len(rows) + 0.4)
    axes = figure.subplots(len(rows), max(1, len(maps)), squeeze=False)
    for row, (head, colours, legend) in enumerate(rows):
        for column, places in enumerate(maps):
            _scatter(axes[row, column], places, colours, head, legend if column == 0 else ())
    figure.suptitle(title, fontsize=12)
    return figure


def _scatter(axes: Axes, places: Map, colours: Integers, head: str, legend: Sequence[str]) -> None:
    from matplotlib import colormaps

    table = colormaps["tab10" if int(colours.max()) < 10 else "tab20"]
    for value in np.unique(colours):
        points = places.places[colours == value]
        label = legend[value] if value < len(legend) else None
        colour = table(int(value) % table.N)
        axes.scatter(points[:, 0], points[:, 1], s=5, linewidths=0, color=colour, label=label)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(f"{places.name} (trust {places.trustworthiness:.2f}): {head}", fontsize=9)
    if legend and len(legend) <= 20:
        axes.legend(fontsize=7, markerscale=2.5, loc="center right", bbox_to_anchor=(-0.02, 0.5))
