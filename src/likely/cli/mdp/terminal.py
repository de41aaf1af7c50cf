"""What `likely mdp` prints for people: grids with arrows, tables of states, one-line facts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from likely.mdp.draw.plots import short_number
from likely.mdp.model.layout import GridLayout
from likely.mdp.model.policies import greedy_pairs
from likely.mdp.model.problem import MDP
from likely.mdp.model.solution import at_least, at_most

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

# Grids wider than this are summarised: a terminal has about 100 columns.
WIDEST_GRID = 14
# States listed in a table; the rest are in --json and in files.
LISTED_STATES = 20

# Pale to blue, as in the pictures: (red, green, blue) at the ends.
PALE, BLUE = (255, 253, 207), (44, 110, 178)


def signed(value: float) -> str:
    """A value in at most nine characters, whole numbers without a point."""
    if not math.isfinite(value):
        return "-∞" if value < 0 else "∞"
    if abs(value - round(value)) < 5e-10 and abs(value) < 1e6:
        return f"{round(value):d}"
    if 1e-3 <= abs(value) < 1e5:
        return f"{value:.5g}"
    return f"{value:.2e}"


def interval(low: float, high: float, digits: int = 9, scale: float = 0.0) -> str:
    """An interval printed with this many digits, rounded outwards so that it still holds.

    Ends that are tiny beside `scale` are rounded to 0 or to a millionth of a millionth of it.

    >>> interval(0.12345678949, 0.12345678951)
    '[0.123456789, 0.12345679]'
    >>> interval(-1e-299, 1e-299, scale=50.0), interval(1e-299, 2.0, scale=50.0)
    ('[-1e-11, 1e-11]', '[0, 2]')
    """
    least = 10.0 ** (math.floor(math.log10(scale)) - 12) if 0.0 < scale < math.inf else 0.0
    if abs(low) < least:
        low = -least if low < 0.0 else 0.0
    if abs(high) < least:
        high = least if high > 0.0 else 0.0
    ends = [
        rounded(end, digits) if math.isfinite(end) else signed(end)
        for end, rounded in ((low, at_least), (high, at_most))
    ]
    return f"[{ends[0]}, {ends[1]}]"


def fits(layout: GridLayout) -> bool:
    """Whether a world is shown cell by cell: a grid with directions that is narrow enough."""
    return max(layout.shape) <= WIDEST_GRID and any(move is not None for move in layout.moves)


def value_grid(layout: GridLayout, value: NDArray[np.float64]) -> Table:
    """The values of a grid, each on a background that tells its size."""
    from rich.table import Table
    from rich.text import Text

    grid = layout.on_grid(value)
    numbers = grid[np.isfinite(grid)]
    low, high = (float(numbers.min()), float(numbers.max())) if len(numbers) else (0.0, 1.0)
    table = Table(show_header=False, box=None, padding=0, pad_edge=False)
    columns = layout.shape[1]
    write = signed if layout.shape[1] <= 6 else short_number
    texts = [["" if math.isnan(number) else write(number) for number in row] for row in grid]
    width = max(len(text) for row in texts for text in row) + 2
    for _ in range(columns):
        table.add_column(justify="center", width=width, no_wrap=True)
    for row, row_numbers in zip(texts, grid, strict=True):
        cells: list[Text] = []
        for text, number in zip(row, row_numbers, strict=True):
            known = high > low and math.isfinite(number)
            share = (number - low) / (high - low) if known else 0.0
            style = "white on grey27" if math.isnan(number) else _shade(share)
            cells.append(Text(text.center(width), style=style))
        table.add_row(*cells)
    return table


def _shade(share: float) -> str:
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(PALE, BLUE, strict=True))
    ink = "black" if share < 0.6 else "white"
    return f"{ink} on rgb({red},{green},{blue})"


def arrow_grid(mdp: MDP, layout: GridLayout, greedy: NDArray[np.bool_]) -> Table:
    """The marked actions of each cell as arrows; walls are blocks, ends are their letter."""
    from rich.table import Table
    from rich.text import Text

    arrows: dict[int, str] = {}
    for pair in np.flatnonzero(greedy):
        state = int(np.searchsorted(mdp.pair_ptr, pair, side="right")) - 1
        arrows[state] = arrows.get(state, "") + layout.arrow(int(mdp.pair_action[pair]))
    arrows = {state: "".join(sorted(text)) for state, text in arrows.items()}  # clockwise
    width = max([len(text) for text in arrows.values()] + [1]) + 2
    table = Table(show_header=False, box=None, padding=0, pad_edge=False)
    rows, columns = layout.shape
    for _ in range(columns):
        table.add_column(justify="center", width=width, no_wrap=True)
    for row in range(rows):
        cells: list[Text] = []
        for column in range(columns):
            state = int(layout.state[row, column])
            letter = layout.symbols[row][column].strip(". ") or "·"
            if state < 0:
                cells.append(Text("█" * width, style="grey27"))
            elif mdp.terminal[state]:
                cells.append(Text(letter.center(width), style="bold"))
            else:
                cells.append(Text(arrows.get(state, letter).center(width)))
        table.add_row(*cells)
    return table


def grid_of(
    console: Console, mdp: MDP, layout: GridLayout, value: NDArray[np.float64],
    label: str = "value", objective: str = "max",
) -> None:  # fmt: skip
    """Print values beside the arrows of the policy that is greedy in them, or above them."""
    from rich.table import Table
    from rich.text import Text

    values = value_grid(layout, value)
    arrows = arrow_grid(mdp, layout, greedy_pairs(mdp, value, objective=objective))
    width = sum(console.measure(part).maximum for part in (values, arrows)) + 6
    both = Table(show_header=False, box=None, padding=(0, 3, 0, 0), pad_edge=False)
    title, policy = Text(label, style="bold"), Text("greedy policy", style="bold")
    beside = [(title, policy), (values, arrows)]
    below = [(title,), (values,), (policy,), (arrows,)]
    for row in beside if width <= console.width else below:
        both.add_row(*row)
    console.print(both)


def state_table(
    mdp: MDP,
    value: NDArray[np.float64],
    lower: NDArray[np.float64] | None = None,
    upper: NDArray[np.float64] | None = None,
    policy: NDArray[np.int64] | None = None,
) -> Table:
    """The first states with value, bounds and action."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("state")
    table.add_column("value", justify="right")
    if lower is not None and upper is not None:
        table.add_column("between", justify="right")
    if policy is not None:
        table.add_column("action")
    known = np.abs(value[np.isfinite(value)])
    scale = float(known.max(initial=0.0))
    for state in range(min(mdp.states, LISTED_STATES)):
        row = [mdp.state_name(state), signed(float(value[state]))]
        if lower is not None and upper is not None:
            row.append(interval(float(lower[state]), float(upper[state]), scale=scale))
        if policy is not None:
            action = int(policy[state])
            row.append("(end)" if action < 0 else mdp.action_name(action))
        table.add_row(*row)
    return table


def rest(mdp: MDP) -> str:
    """The line below a table that does not list every state, or nothing."""
    left = mdp.states - LISTED_STATES
    return f"... and {left} more states (--json or --out has them all)" if left > 0 else ""
