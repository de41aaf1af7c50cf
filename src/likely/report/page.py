"""The HTML of a report: sections, tables and style, all inline and all values escaped."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from likely.ask import QUERIES, Guarantee
from likely.data.spec import DataSpec
from likely.estimate import Verdict
from likely.evaluate.compare import Column, ComparisonTable, Missing, ModelResult, PairVerdict
from likely.files.charts import line_chart
from likely.files.inline import COLOURS
from likely.files.sheets import data_uri, grid_sheet, neighbour_sheet, sample_sheet
from likely.report.tables import (
    FLOOR_NAME,
    data_words,
    groups,
    label,
    legend,
    number,
    several_fingerprints,
    typeset,
)

if TYPE_CHECKING:
    from PIL import Image

    from likely.report.report import ModelReport, Report

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
RELOAD = '<meta http-equiv="refresh" content="5">'
GLANCE = 25
SHOWN_SAMPLES = 64
SHOWN_NEIGHBOURS = 12

BADGES = {
    Guarantee.EXACT: ("exact", "good"),
    Guarantee.BOUND: ("bound", "fair"),
    Guarantee.APPROXIMATE: ("approximate", "fair"),
    Guarantee.NONE: ("no answer", "none"),
}


def render(report: Report) -> str:
    """The whole page as one string."""
    title = _text(report.title)
    pending = ""
    if report.pending:
        pending = (
            f'<section class="pending"><h2>Still fitting: {_text(", ".join(report.pending))}</h2>'
            "<p>This page is written again whenever a model is done, and reloads itself until all "
            "are.</p></section>"
        )
    data = ""
    if report.training_images is not None:
        shown = report.training_images
        if isinstance(shown, bytes):
            sheet = _figure(shown, f"Training data of {report.train.name}")
        else:
            shown = shown[:SHOWN_SAMPLES]
            caption = f"{len(shown)} training images of {report.train.name}"
            sheet = _figure(sample_sheet(shown, report.train.levels), caption)
        data = f"<section><h2>The data</h2>{sheet}</section>"
    body = "\n".join(
        (
            _header(report),
            pending,
            _glance(report),
            _comparison(report.comparison),
            _verdicts(report.comparison),
            _answers(report.comparison),
            *(
                _model(i, model, report.levels(model), stem)
                for i, (model, stem) in enumerate(zip(report.models, stems(report), strict=True))
            ),
            data,
            _footer(report),
        )
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_text(POLICY)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"{RELOAD if report.pending else ''}"
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _text(value: Any) -> str:
    return html.escape(str(value))


def _figure(image: Image.Image | bytes, caption: str) -> str:
    if isinstance(image, bytes):  # a PNG that was plotted: it may be scaled smoothly
        source = "data:image/png;base64," + base64.b64encode(image).decode("ascii")
        return (
            f'<figure><img class="plotted" src="{source}" alt="{_text(caption)}">'
            f"<figcaption>{_text(caption)}</figcaption></figure>"
        )
    return (
        f'<figure><img src="{data_uri(image)}" alt="{_text(caption)}" width="{image.width}" '
        f'height="{image.height}"><figcaption>{_text(caption)}</figcaption></figure>'
    )


def _data_line(spec: DataSpec) -> str:
    return f"{_text(spec)} <code>{_text(spec.fingerprint)}</code>"


def _header(report: Report) -> str:
    names = "".join(
        f'<a href="#model-{place}"><b>{_text(model.result.name)}</b>'
        f"<span>{_text(model.result.kind)}</span></a>"
        for place, model in enumerate(report.models)
    )
    data = "".join(
        f"<p>{_data_line(train)}<br>{_data_line(test)}</p>"
        for train, test in ((report.train, report.test), *report.others)
    )
    return f'<header><h1>{_text(report.title)}</h1>{data}<nav class="cards">{names}</nav></header>'


def _glance(report: Report) -> str:
    """A few samples of every model side by side, beside training images."""
    sheets = []
    if report.training_images is not None:
        sheets.append((FLOOR_NAME, report.training_images, report.train.levels))
    sheets += [
        (model.result.name, model.samples, report.levels(model))
        for model in report.models
        if model.samples is not None
    ]
    figures = "".join(
        _figure(
            images
            if isinstance(images, bytes)
            else sample_sheet(images[:GLANCE], levels, columns=5),
            name,
        )
        for name, images, levels in sheets
    )
    wide = " plots" if any(isinstance(images, bytes) for _, images, _ in sheets) else ""
    return f'<section><h2>At a glance</h2><div class="glance{wide}">{figures}</div></section>'


# -- the table --------------------------------------------------------------------------------


def _comparison(table: ComparisonTable) -> str:
    if not table.results:
        return ""
    clusters = table.clusters()
    tables = []
    for results, columns in clusters:
        if len(clusters) > 1:
            tables.append(f"<h3 class=data>{_text(data_words(results, columns))}</h3>")
        tables.append(_numbers(table, results, columns))
    return (
        f"<section><h2>Comparison</h2>{''.join(tables)}"
        f'<p class="muted">{_text(legend(table))}</p></section>'
    )


def _numbers(table: ComparisonTable, results: list[ModelResult], columns: list[Column]) -> str:
    """The table of the models that were evaluated on the same data."""
    head = "".join(f"<th>{_text(r.name)}<span>{_text(r.kind)}</span></th>" for r in results)
    floors = any(table.floor_of(column) for column in columns)
    if floors:
        head += f'<th class="floor">{_text(FLOOR_NAME)}<span>floor</span></th>'
    width = len(results) + 1 + floors
    rows = []
    for heading, members in groups(columns):
        rows.append(f'<tr class="group"><th colspan="{width}">{_text(heading)}</th></tr>')
        for column in members:
            name = _text(label(column))
            if several_fingerprints(columns, column):
                name += f" <code>{_text(column.fingerprint)}</code>"
            best = table.best(column)
            cells = []
            for result in results:
                cell = table.cells[result.name, column]
                if isinstance(cell, Missing):
                    cells.append(
                        f'<td class="missing" title="{_text(cell.reason)}">{_text(cell.label)}</td>'
                    )
                else:
                    style = ' class="best"' if result.name == best else ""
                    about = _text(f"n = {cell.n}. {cell.about}")
                    cells.append(f'<td{style} title="{about}">{_text(number(cell))}</td>')
            floor = table.floor_of(column)
            if floors:
                shown = _text(number(floor)) if floor else ""
                cells.append(f'<td class="floor">{shown}</td>')
            rows.append(f"<tr><th>{name}</th>{''.join(cells)}</tr>")
    return (
        f'<div class="wide"><table class="numbers"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _verdicts(table: ComparisonTable) -> str:
    rows = []
    for _, columns in groups(table.columns):
        for title in dict.fromkeys(column.title for column in columns):
            items = [_verdict(v) for v in table.verdicts if v.title == title]
            items.extend(
                f'<li><span class="badge none">{_text(cell.label)}</span> '
                f"{_text(result.name)}: {_text(cell.reason)}</li>"
                for column in columns
                if column.title == title
                for result in table.results
                if isinstance(cell := table.cells[result.name, column], Missing) and cell.reason
            )
            if items:
                rows.append(f"<tr><th>{_text(title)}</th><td><ul>{''.join(items)}</ul></td></tr>")
    if not rows:
        return ""
    return (
        "<section><h2>Verdicts</h2>"
        '<p class="muted">The order is partial. A bound decides only in the direction that it '
        "bounds; a gap below the sampling error (95 %) decides nothing.</p>"
        f'<table class="verdicts"><tbody>{"".join(rows)}</tbody></table></section>'
    )


def _verdict(verdict: PairVerdict) -> str:
    kind = verdict.comparison.verdict
    word, style = ("better", "good") if verdict.decided else (kind.value, "fair")
    if kind is Verdict.INCOMPARABLE:
        style = "none"
    reason = _text(typeset(verdict.comparison.reason))
    relation = "is better than" if verdict.decided else "and"
    paired = " <em>(paired)</em>" if verdict.paired and verdict.decided else ""
    return (
        f'<li><span class="badge {style}">{word}</span> <b>{_text(verdict.left)}</b> {relation} '
        f"<b>{_text(verdict.right)}</b>: {reason}{paired}</li>"
    )


def _answers(table: ComparisonTable) -> str:
    asked = [
        query
        for name, query in QUERIES.items()
        if any(name in result.answers for result in table.results)
    ]
    if not asked:
        return ""
    head = "".join(f"<th>{_text(result.name)}</th>" for result in table.results)
    rows = []
    for query in asked:
        cells = []
        for result in table.results:
            answer = result.answers.get(query.name)
            if answer is None:
                cells.append("<td></td>")
                continue
            word, style = BADGES[answer.guarantee]
            cells.append(
                f'<td><span class="badge {style}">{word}</span>'
                f"<small>{_text(answer.reason)}</small></td>"
            )
        rows.append(f"<tr><th>{_text(query.title)}</th>{''.join(cells)}</tr>")
    return (
        "<section><h2>What each model can and cannot answer</h2>"
        f'<div class="wide"><table class="answers"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></section>"
    )


# -- models -----------------------------------------------------------------------------------


def stems(report: Report) -> list[str]:
    """Of each model, what the names of its files begin with; equal ones are numbered."""
    out: list[str] = []
    for model in report.models:
        stem, number = clean(model.result.name), 2
        while stem in ("training", *out):
            stem, number = f"{clean(model.result.name)}-{number}", number + 1
        out.append(stem)
    return out


def clean(text: str) -> str:
    """A text as part of the name of a file."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "model"


def _model(place: int, model: ModelReport, levels: int, stem: str) -> str:
    name, kind = model.result.name, model.result.kind
    parts = [f'<section id="model-{place}"><h2>{_text(name)} <small>{_text(kind)}</small></h2>']
    if model.summary:
        parts.append(f"<p>{_text(model.summary)}</p>")
    facts = []
    if model.parameters is not None:
        facts.append(f"{model.parameters:,} parameters")
    if model.seconds is not None:
        facts.append(f"fitted in {_duration(model.seconds)}")
    if model.status:
        facts.append(model.status)
    if facts:
        parts.append(f'<p class="muted">{_text(" · ".join(facts))}</p>')
    if model.notes:
        parts.append(f"<ul>{''.join(f'<li>{_text(note)}</li>' for note in model.notes)}</ul>")
    figures = []
    if isinstance(model.samples, bytes):
        figures.append(_figure(model.samples, "What it draws, not chosen"))
    elif model.samples is not None:
        shown = model.samples[:SHOWN_SAMPLES]
        caption = f"The first {len(shown)} samples, none chosen"
        figures.append(_figure(sample_sheet(shown, levels), caption))
    if model.sounds:
        links = " or ".join(
            f'<a href="sounds/{stem}{suffix}">{_text(stem + suffix)}</a>' for suffix in model.sounds
        )
        figures.append(f"<p>The first of them to listen to: {links}</p>")
    for caption, images in model.sheets.items():
        figures.append(_figure(grid_sheet(images, levels), caption))
    charts = "".join(
        f"<figure><h3>{_text(panel.title)}</h3>{line_chart(panel)}</figure>"
        for panel in model.panels
    )
    parts.append(f'<div class="pair"><div>{"".join(figures)}</div><div>{charts}</div></div>')
    for pairs in model.neighbours:
        near = neighbour_sheet(
            pairs.samples[:SHOWN_NEIGHBOURS], pairs.neighbours[:SHOWN_NEIGHBOURS], levels
        )
        caption = f"Samples, and their nearest training images in {pairs.space} (yellow frames)"
        parts.append(_figure(near, caption))
    parts += [_figure(picture, caption) for caption, picture in model.pictures.items()]
    if model.settings:
        rows = "".join(
            f"<tr><th>{_text(key)}</th><td>{_text(value)}</td></tr>"
            for key, value in _flat(model.settings)
        )
        parts.append(f"<details><summary>Settings</summary><table>{rows}</table></details>")
    parts.append("</section>")
    return "".join(parts)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _duration(seconds: float) -> str:
    if seconds < 90.0:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _footer(report: Report) -> str:
    facts: list[tuple[str, Any]] = [
        *([("features", report.extractor)] if report.extractor else []),
        *(
            (f"{role} data", f"{spec.name}, fingerprint {spec.fingerprint}")
            for pair in ((report.train, report.test), *report.others)
            for role, spec in zip(("training", "test"), pair, strict=True)
        ),
    ]
    facts.extend(_flat(report.environment))
    if report.command:
        facts.append(("command", report.command))
    if report.created:
        facts.append(("made", report.created))
    rows = "".join(f"<tr><th>{_text(k)}</th><td>{_text(v)}</td></tr>" for k, v in facts)
    return (
        f"<section><h2>How this was made</h2><table>{rows}</table>"
        '<p class="muted">report.json beside this file carries the same numbers.</p></section>'
    )


STYLE = (
    f"{COLOURS}\n"
    + """
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 8px; letter-spacing: -0.01em; }
h2 { font-size: 20px; margin: 0 0 12px; }
h2 small { font-weight: 400; font-size: 14px; color: var(--muted); margin-left: 6px; }
h3 { font-size: 14px; margin: 0 0 2px; }
header p { color: var(--muted); margin: 0 0 16px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 20px 22px; margin: 18px 0; }
code { font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; color: var(--muted); }
.muted, figcaption { color: var(--muted); font-size: 13px; }
.cards { display: flex; flex-wrap: wrap; gap: 10px; }
.cards a { border: 1px solid var(--line); background: var(--card); border-radius: 10px;
  padding: 8px 14px; color: inherit; text-decoration: none; }
.cards a:hover { border-color: var(--accent); }
.cards span, thead th span { display: block; font-weight: 400; font-size: 12px;
  color: var(--muted); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: 6px 10px; border-bottom: 1px solid var(--line);
  vertical-align: top; }
tbody th { font-weight: 500; }
tr:last-child > * { border-bottom: 0; }
.numbers td, .numbers thead th { text-align: right; font-variant-numeric: tabular-nums;
  white-space: nowrap; }
.numbers .group th { padding-top: 16px; font-size: 12px; letter-spacing: 0.04em;
  color: var(--muted); text-transform: uppercase; }
.numbers .best { font-weight: 650; color: var(--good); background: var(--good-back); }
.numbers .missing { color: var(--none); font-style: italic; }
.numbers .floor { color: var(--muted); }
.answers { table-layout: fixed; min-width: 700px; }
.answers thead th:first-child { width: 15%; }
.answers small { display: block; color: var(--muted); font-size: 12.5px; margin-top: 2px; }
.data { margin: 22px 0 4px; }
.pending { border-color: var(--fair); background: var(--fair-back); }
.pending h2 { color: var(--fair); }
.pending p { margin: 0; }
.badge { display: inline-block; padding: 0 8px; border-radius: 99px; font-size: 12px;
  line-height: 19px; font-weight: 600; }
.badge.good { color: var(--good); background: var(--good-back); }
.badge.fair { color: var(--fair); background: var(--fair-back); }
.badge.none { color: var(--none); background: var(--none-back); }
.verdicts > tbody > tr > th { width: 19%; }
.verdicts ul { list-style: none; margin: 0; padding: 0; }
.verdicts li { padding: 1px 0 1px 96px; text-indent: -96px; }
.verdicts .badge { width: 88px; text-align: center; text-indent: 0; padding: 0;
  margin-right: 4px; }
.verdicts b { font-weight: 600; }
.glance { display: grid; gap: 16px; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); }
.glance.plots { grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); }
.glance img { width: 100%; }
.glance figure { margin: 0; }
.glance figcaption { font-weight: 600; color: var(--ink); text-align: center; }
.pair { display: grid; grid-template-columns: fit-content(60%) minmax(0, 1fr); gap: 28px; }
@media (max-width: 820px) { .pair { grid-template-columns: minmax(0, 1fr); } }
figure { margin: 0 0 16px; }
img { display: block; max-width: 100%; height: auto; border-radius: 8px;
  image-rendering: pixelated; }
img.plotted { image-rendering: auto; }
a { color: var(--accent); }
figcaption { margin-top: 5px; }
.chart { display: block; width: 100%; max-width: 580px; height: auto; }
.chart text { font: 11px system-ui, sans-serif; fill: var(--muted); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 14px; font-size: 12.5px;
  color: var(--muted); padding-left: 58px; }
.legend i { display: inline-block; width: 14px; height: 3px; border-radius: 2px;
  margin-right: 5px; vertical-align: middle; }
details { margin-top: 10px; }
summary { cursor: pointer; color: var(--accent); font-size: 14px; }
details table, section > table { margin-top: 6px; font-size: 13px; }
details th, section > table th { width: 240px; color: var(--muted); }
@media print { section { break-inside: avoid; } }
"""
)
