"""The comparison in the terminal, and the words for quantities.

A comparison has many quantities and few models, so each column of `ComparisonTable` is printed as
a row. Rich is imported only when a table is drawn.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from likely.estimate import Estimate, Relation
from likely.evaluate.compare import Column, ComparisonTable, Missing
from likely.evaluate.quantities import COPYING, GROUPS, LIKELIHOOD, QUANTITIES, SAMPLES, words

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "FLOOR_NAME",
    "LEGEND",
    "groups",
    "label",
    "number",
    "several_fingerprints",
    "terminal_table",
    "typeset",
]

FLOOR_NAME = "training images"

OTHER = "Other"
# Headings where there is little room.
SHORT_HEADINGS = {
    LIKELIHOOD: "Likelihood",
    SAMPLES: "Samples",
    COPYING: "Copying",
}

SIGNS = {
    Relation.EXACT: "=",
    Relation.UPPER: "≤",
    Relation.LOWER: "≥",
    Relation.APPROXIMATE: "≈",
}

LEGEND = (
    "↓ lower is better, ↑ higher is better. = exact, ≤ the truth is at most this, ≥ at least, "
    "≈ an estimate without a bound. ± one standard error. The best number is marked only if it "
    "is significantly better than all others of its row (95 %). "
    f'"{FLOOR_NAME}" is the floor: what training images score as if they were samples.'
)


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
    """`number` without spaces: four of them fit a terminal of 80 columns."""
    return number(estimate).replace(" ", "")


def typeset(text: str) -> str:
    """Plain signs of a sentence as their mathematical ones: "<= 84.8 +- 0.2" to "≤ 84.8 ± 0.2"."""
    for plain, sign in (("+-", "±"), ("<= ", "≤ "), (">= ", "≥ "), ("~ ", "≈ ")):
        text = text.replace(plain, sign)
    return text


def groups(table: ComparisonTable) -> list[tuple[str, list[Column]]]:
    """The columns under their headings, in reading order."""
    known = [(heading, tuple(q.name for q in group)) for heading, group in GROUPS.items()]
    others = dict.fromkeys(c.quantity for c in table.columns if c.quantity not in QUANTITIES)
    sections = []
    for heading, quantities in (*known, (OTHER, tuple(others))):
        columns = [c for quantity in quantities for c in table.columns if c.quantity == quantity]
        if columns:
            sections.append((heading, columns))
    return sections


def several_fingerprints(table: ComparisonTable, column: Column) -> bool:
    """Whether another column has the same quantity and unit, so that the fingerprint must show."""
    return any(other != column and other.title == column.title for other in table.columns)


def terminal_table(table: ComparisonTable) -> Table:
    """The comparison for `rich.console.Console.print`."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    # Text, never markup: a model may be called anything.
    grid = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    grid.add_column("", no_wrap=True)
    for result in table.results:
        heading = Text(result.name)
        heading.append(f"\n{result.kind}", style="not bold dim")
        grid.add_column(heading, justify="right")
    if table.floor:
        heading = Text("floor", style="dim")
        heading.append(f"\n{FLOOR_NAME}", style="not bold dim")
        grid.add_column(heading, justify="right")
    for heading_text, columns in groups(table):
        shown = SHORT_HEADINGS.get(heading_text, heading_text)
        grid.add_row(Text(shown, style="bold cyan"))
        for column in columns:
            name = label(column, short=True)
            if several_fingerprints(table, column):
                name += f" (data {column.fingerprint})"
            row = [Text(f"  {name}")]
            best = table.best(column)
            for result in table.results:
                cell = table.cells[result.name, column]
                if isinstance(cell, Missing):
                    row.append(Text(cell.label, style="dim italic"))
                else:
                    style = "bold green" if result.name == best else ""
                    row.append(Text(_compact(cell), style=style))
            floor = table.floor_of(column)
            if table.floor:
                row.append(Text(_compact(floor) if floor else "", style="dim"))
            grid.add_row(*row)
    return grid
