"""Line charts as inline SVG: no plotting library, no request, colours from the page.

Colours are CSS variables (--series-1 ... --series-6, --grid, --muted), so that one drawing serves
a light and a dark page.
"""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from likely.files.inline import Shown, fragment, line

WIDTH, HEIGHT = 520, 240
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 12, 34
POINTS = 400  # points per line at most
COLOURS = 6
# Records of a run that are no curve of the loss.
NOT_CURVES = ("step", "learning_rate", "seconds", "epoch")
# The records of a loss that has a unit, and title and records of the other charts that are shared.
LOSSES = ("nll", "negative_elbo", "negative_importance_bound", "distortion", "kl", "validation")
CHARTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Loss", LOSSES),
    ("Loss of both players", ("generator_loss", "discriminator_loss")),
    ("Logits of the discriminator", ("real_logit", "fake_logit")),
    ("Accuracy of the discriminator", ("discriminator_accuracy",)),
)
GRADIENTS = "gradient_norm"


@dataclasses.dataclass(frozen=True)
class Series:
    """One line: y over x; values that are not finite are left out."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclasses.dataclass(frozen=True)
class Panel:
    """One chart: lines that share an axis.

    Attributes:
        title: what is drawn.
        series: the lines, one for each player of a GAN.
        x_label, y_label: with units.
        cut: off what lies above all that comes after the first twentieth, of steps and points.
    """

    title: str
    series: tuple[Series, ...]
    x_label: str = "step"
    y_label: str = ""
    cut: bool = True


def panels_from_metrics(metrics: Iterable[Mapping[str, float]], unit: str) -> tuple[Panel, ...]:
    """Charts of the records of a run (`Run.metrics`, one mapping a log line with "step").

    Losses share a chart with the validation, the two players of a GAN share one, and so
    do the gradient norms; any other record has its own chart.

    Args:
        metrics: records; a name may be missing in some of them.
        unit: of the losses and the validation, as "nats per example".
    """
    lines: dict[str, tuple[list[float], list[float]]] = {}
    for record in metrics:
        for name, value in record.items():
            if name not in NOT_CURVES:
                x, y = lines.setdefault(name, ([], []))
                x.append(float(record["step"]))
                y.append(float(value))
    norms = tuple(name for name in lines if name.startswith(GRADIENTS))
    charts = [*CHARTS, ("Gradient norm", norms)]
    known = {name for _, names in charts for name in names}
    charts.extend((name, (name,)) for name in lines if name not in known)
    return tuple(
        Panel(
            title,
            tuple(Series(n, *lines[n]) for n in names if n in lines),
            y_label=unit if names == LOSSES else "",
        )
        for title, names in charts
        if any(n in lines for n in names)
    )


def curves(title: str, metrics: Iterable[Mapping[str, float]], unit: str) -> Shown:
    """The charts of a run's records, side by side; `unit` is that of the losses."""
    charts = "".join(
        f"<div><b>{html.escape(panel.title)}</b>{line_chart(panel)}</div>"
        for panel in panels_from_metrics(metrics, unit)
    )
    return Shown(f"curves of {title}", fragment(line(title), f'<div class="charts">{charts}</div>'))


def line_chart(panel: Panel) -> str:
    """The chart as one SVG element, about 520 x 240, that scales with the page.

    The y axis of a panel that is cut spans what happens after the first twentieth of the steps and
    of the points of each line, so that a high start does not flatten the rest.
    """
    lines = []
    for series in panel.series:
        pairs = zip(series.x, series.y, strict=True)
        finite = [(x, y) for x, y in pairs if math.isfinite(x) and math.isfinite(y)]
        lines += [(series, finite)] if finite else []
    title = html.escape(panel.title)
    if not lines:
        return f'<p class="muted">{title}: nothing was recorded.</p>'
    x_low = min(points[0][0] for _, points in lines)
    x_high = max(points[-1][0] for _, points in lines)
    start = x_low + (x_high - x_low) / 20.0
    later = [
        y
        for _, points in lines
        for number, (x, y) in enumerate(points)
        if not panel.cut or x >= start or number >= len(points) // 20
    ]
    y_low, y_high = min(later), max(later)
    # A line that started below the later range would be cut at the bottom: show it.
    y_low = min([y_low, *(y for _, points in lines for _, y in points)])
    room = (y_high - y_low) * 0.06 or max(abs(y_high), 1.0) * 0.05
    y_low, y_high = y_low - room, y_high + room
    x_span = (x_high - x_low) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - x_low) / x_span * (WIDTH - LEFT - RIGHT)
        # What is cut stays near the picture, so that coordinates stay short.
        y = min(y, y_high + (y_high - y_low))
        down = TOP + (y_high - y) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)
        return across, down

    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">',
        f'<svg x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}" '
        f'height="{HEIGHT - TOP - BOTTOM}" viewBox="{LEFT} {TOP} {WIDTH - LEFT - RIGHT} '
        f'{HEIGHT - TOP - BOTTOM}">',  # an inner svg cuts what lies outside it
    ]
    for number, (_, points) in enumerate(lines):
        path = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in _thinned(points))
        colour = f"var(--series-{number % COLOURS + 1})"
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.7"/>'
        )
        if len(points) == 1:
            across, down = place(*points[0])
            parts.append(f'<circle cx="{across:.1f}" cy="{down:.1f}" r="3" fill="{colour}"/>')
    parts.append("</svg>")
    parts.extend(_axes(panel, (x_low, x_high), (y_low, y_high), place))
    parts.append("</svg>")
    return "".join(parts) + _legend([s for s, _ in lines])


def _axes(
    panel: Panel,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    place: Callable[[float, float], tuple[float, float]],
) -> Iterator[str]:
    for tick in ticks(*y_range):
        _, down = place(x_range[0], tick)
        yield (
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{down:.1f}" y2="{down:.1f}" '
            'stroke="var(--grid)"/>'
            f'<text x="{LEFT - 7}" y="{down + 3.5:.1f}" text-anchor="end">{tick:g}</text>'
        )
    for tick in ticks(*x_range):
        across, _ = place(tick, y_range[0])
        yield (
            f'<text x="{across:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">'
            f"{_short(tick)}</text>"
        )
    yield (
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" text-anchor="middle">'
        f"{html.escape(panel.x_label)}</text>"
    )
    if panel.y_label:
        middle = (TOP + HEIGHT - BOTTOM) / 2
        yield (
            f'<text transform="translate(11 {middle}) rotate(-90)" text-anchor="middle">'
            f"{html.escape(panel.y_label)}</text>"
        )


def _legend(series: Sequence[Series]) -> str:
    items = "".join(
        f'<span><i style="background:var(--series-{number % COLOURS + 1})"></i>'
        f"{html.escape(line.name)}</span>"
        for number, line in enumerate(series)
    )
    return f'<div class="legend">{items}</div>'


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) in [low, high], at most `most` of them.

    >>> ticks(0.0, 950.0)
    [0.0, 200.0, 400.0, 600.0, 800.0]
    """
    if not high > low:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for factor in (1, 2, 5, 10, 20):
        step = factor * power
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            return [round(i * step, 12) + 0.0 for i in range(first, last + 1)]
    return [low, high]


def _short(tick: float) -> str:
    return f"{tick / 1000:g}k" if abs(tick) >= 10_000 else f"{tick:g}"


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most about POINTS points: the mean of each run of neighbours, the ends kept."""
    size = math.ceil(len(points) / POINTS)
    if size == 1:
        return points
    runs = [points[start : start + size] for start in range(0, len(points), size)]
    means = [(sum(x for x, _ in run) / len(run), sum(y for _, y in run) / len(run)) for run in runs]
    return [points[0], *means, points[-1]]
