"""Figures of matplotlib, which is imported on first use."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from likely.errors import InvalidSetting
from likely.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAPER, INK = "#ffffff", "#1f2933"
DPI = 130
PICTURES = (".png", ".pdf", ".svg")


def write_atomically(path: str | Path, write: Callable[[Path], None]) -> Path:
    """Let `write` fill a temporary file beside `path`, then move it there."""
    target = Path(path)
    if not target.parent.is_dir():
        raise InvalidSetting(f"{target}: the folder {target.parent} does not exist")
    with replacing(target) as temporary:
        write(temporary)
    return target


def new_figure(width: float, height: float) -> Figure:
    """A figure that needs no display and leaves pyplot's global state alone."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor=PAPER, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def figure_png(figure: Figure) -> bytes:
    """A figure as the content of a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI)
    return file.getvalue()


def save_figure(figure: Figure, path: str | Path, title: str = "") -> Path:
    """Write a figure, with a title above it, atomically as .png, .pdf or .svg; returns the path."""
    if title:
        figure.suptitle(title, fontsize=11, color=INK)
    suffix = Path(path).suffix.lower()
    if suffix not in PICTURES:
        raise InvalidSetting(f'{path}: pictures are .png, .pdf or .svg, given "{suffix}"')
    return write_atomically(
        path, lambda temporary: figure.savefig(temporary, dpi=DPI, format=suffix[1:])
    )
