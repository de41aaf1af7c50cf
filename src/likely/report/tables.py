"""The comparison in the terminal, and the words for quantities.

A comparison has many quantities and few models, so each column of `ComparisonTable` is printed as
a row. Rich is imported only when a table is drawn.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from likely.estimate import Estimate, Relation
from likely.evaluate.compare import Column, ComparisonTable, Missing, ModelResult
from likely.evaluate.quantities import (
    CODES,
    GROUPS,
    QUANTITIES,
    words,
)

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.table import Table
    from rich.text import Text

FLOOR_NAME = "training data"

OTHER = "Other"

WIDE = 100_000  # columns of a terminal that any grid fits

SIGNS = {Relation.EXACT: "=", Relation.UPPER: "≤", Relation.LOWER: "≥", Relation.APPROXIMATE: "≈"}

LEGEND = (
    "↓ lower is better, ↑ higher is better. = exact, ≤ the truth is at most this, ≥ at least, "
    "≈ an estimate without a bound. ± one standard error. The best number is marked only if it "
    "is significantly better than all others of its row (95 %). "
    f'"{FLOOR_NAME}" is the floor: what they score as if they were samples.'
)

STEPS = (
    "Of sequences: nats per step are the micro average over all steps, every step scored, the "
    "first included; ± from whole sequences or long blocks, differences paired by these."
)


def legend(table: ComparisonTable) -> str:
    """What the signs of a table say."""
    return f"{LEGEND} {STEPS}" if _of_steps(table) else LEGEND


def _of_steps(table: ComparisonTable) -> bool:
    return any(column.unit == "nats/step" for column in table.columns)


def label(column: Column, short: bool = False) -> str:
    """The quantity in words with unit and direction, as "negative log-likelihood [nats] ↓"."""
    unit = f" [{column.unit}]" if column.unit else ""
    arrow = {True: " ↓", False: " ↑", None: ""}[column.lower_is_better]
    return words(column.quantity, short) + unit + arrow


def number(estimate: Estimate) -> str:
    """The number with its relation and standard error, without the unit: "≤ 84.80 ± 0.25"."""
    plain = str(dataclasses.replace(estimate, unit=""))
    return plain.replace(estimate.relation.value, SIGNS[estimate.relation], 1).replace("+-", "±")


def _compact(estimate: Estimate) -> str:
    """`number` without spaces, so that more of them fit side by side."""
    return number(estimate).replace(" ", "")


def typeset(text: str) -> str:
    """Plain signs of a sentence as their mathematical ones: "<= 84.8 +- 0.2" to "≤ 84.8 ± 0.2"."""
    for plain, sign in (("+-", "±"), ("<= ", "≤ "), (">= ", "≥ "), ("~ ", "≈ ")):
        text = text.replace(plain, sign)
    return text


def groups(columns: Iterable[Column]) -> list[tuple[str, list[Column]]]:
    """The columns under their headings, in reading order."""
    columns = list(columns)
    known = [(heading, tuple(q.name for q in group)) for heading, group in GROUPS.items()]
    others = dict.fromkeys(c.quantity for c in columns if c.quantity not in QUANTITIES)
    sections = []
    for heading, quantities in (*known, (OTHER, tuple(others))):
        members = [c for quantity in quantities for c in columns if c.quantity == quantity]
        if members:
            sections.append((heading, members))
    return sections


def data_words(results: Sequence[ModelResult], columns: Sequence[Column]) -> str:
    """What some models were evaluated on: in words, or its fingerprint."""
    known = (str(result.data) for result in results if result.data is not None)
    return next(known, f"data {columns[0].fingerprint}" if columns else "no numbers")


def several_fingerprints(columns: Iterable[Column], column: Column) -> bool:
    """Whether another column has the same quantity and unit, so that the fingerprint must show."""
    return any(other != column and other.title == column.title for other in columns)


def terminal_table(table: ComparisonTable) -> TerminalTable:
    """The comparison for `rich.console.Console.print`; no number is ever cut."""
    return TerminalTable(table)


class TerminalTable:
    """A grid for the models of each data; models that do not fit side by side go below.

    Kinds of two words, as "explicit, tractable", take two lines.
    """

    def __init__(self, table: ComparisonTable) -> None:
        self._table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        from rich.measure import Measurement
        from rich.text import Text

        wide = options.update(max_width=WIDE)

        def fits(grid: Table) -> bool:
            return Measurement.get(console, wide, grid).maximum <= options.max_width

        clusters = self._table.clusters()
        for results, columns in clusters:
            if len(clusters) > 1:
                yield Text(data_words(results, columns), style="bold")
            sides = [(result.name, result.kind.split(" ", 1)) for result in results]
            cells = {
                (result.name, column): _cell(self._table, result.name, column)
                for result in results
                for column in columns
            }
            if any(self._table.floor_of(column) for column in columns):
                # A model may be called floor, too: no name is empty.
                sides.append(("", FLOOR_NAME.split(" ", 1)))
                cells |= {("", column): _floor(self._table, column) for column in columns}
            yield from _blocks(groups(columns), sides, cells, fits)
        if _of_steps(self._table):
            yield Text(STEPS, style="dim")
        elif any(heading == CODES for heading, _ in groups(self._table.columns)):
            yield Text("rate + distortion = negative ELBO, an upper bound on the NLL", style="dim")


def _blocks(
    parts: list[tuple[str, list[Column]]],
    sides: list[tuple[str, list[str]]],
    cells: Mapping[tuple[str, Column], Text],
    fits: Callable[[Table], bool],
) -> Iterator[Table]:
    """Grids of as many models as fit beside the names of the quantities."""
    columns = [column for _, members in parts for column in members]
    names = {column: f"  {label(column, short=True)}" for column in columns}
    for column in columns:
        if several_fingerprints(columns, column):
            names[column] += f" (data {column.fingerprint})"
    block: list[tuple[str, list[str]]] = []
    for side in sides:
        if block and not fits(_grid(parts, [*block, side], names, cells)):
            yield _grid(parts, block, names, cells)
            block = []
        block.append(side)
    yield _grid(parts, block, names, cells)


def _grid(
    parts: list[tuple[str, list[Column]]],
    sides: list[tuple[str, list[str]]],
    names: Mapping[Column, str],
    cells: Mapping[tuple[str, Column], Text],
) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    # Text, never markup: a model may be called anything. In a narrow terminal the names of the
    # quantities take several lines, the numbers never.
    grid = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    grid.add_column("", overflow="fold")
    for name, kind in sides:
        heading = Text(name or "floor", style="" if name else "dim")
        heading.append("\n" + "\n".join(kind), style="not bold dim")
        grid.add_column(heading, justify="right", no_wrap=True, overflow="fold")
    for heading_text, columns in parts:
        rows = [column for column in columns if any(cells[n, column].plain for n, _ in sides)]
        if rows:
            grid.add_row(Text(_short(heading_text), style="bold cyan"))
        for column in rows:
            grid.add_row(Text(names[column]), *(cells[name, column] for name, _ in sides))
    return grid


def _short(heading: str) -> str:
    """Without what stands in brackets."""
    return heading.partition(" (")[0]


def _cell(table: ComparisonTable, name: str, column: Column) -> Text:
    from rich.text import Text

    cell = table.cells[name, column]
    if isinstance(cell, Missing):
        return Text(cell.label, style="dim italic")
    return Text(_compact(cell), style="bold green" if name == table.best(column) else "")


def _floor(table: ComparisonTable, column: Column) -> Text:
    from rich.text import Text

    floor = table.floor_of(column)
    return Text(_compact(floor) if floor else "", style="dim")
