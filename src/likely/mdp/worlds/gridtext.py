"""Grid worlds drawn in plain text.

A file has settings first and the picture after them, for example

    ; Russell and Norvig's maze
    step: -0.04
    slip: 1/10
    + = end 1
    - = end -1

    ...+
    .#.-
    S...

Settings (`name: value`; a number may be a fraction such as 1/3):

    discount   in (0, 1], default 1
    step       reward of every move, default 0
    bump       reward of a move into a wall or off the grid, default the same as step
    slip       probability of slipping to each side of the chosen direction, default 0
    actions    order of the actions, default: up right down left

Symbols (`X = meaning`):

    X = end R       a terminal cell; entering it adds reward R
    X = reward R    entering it adds reward R
    X = back R      entering it leads back to the start cell and adds reward R
    X = jump Y R    every action there leads to the cell marked Y, with reward R

In the picture `.` and a space are free cells, `#` is a wall, `S` a start cell. Unless the file
says otherwise `G` means `end 1`, `H` means `end 0` and `F` is a free cell, as in Gymnasium's frozen
lakes. A line that starts with `;` is a comment.
"""

from __future__ import annotations

import dataclasses
import math
import re
from fractions import Fraction
from pathlib import Path

from likely.errors import InvalidData, nearest
from likely.files import allow, read_text, reading
from likely.mdp.model import checks
from likely.mdp.model.layout import CLOCKWISE
from likely.mdp.model.problem import MDP
from likely.mdp.worlds.grids import GridPlan, build_grid

SETTINGS = ("actions", "bump", "discount", "slip", "step")
MEANINGS = ("back", "end", "jump", "reward")

_SETTING = re.compile(r"^\s*([A-Za-z_]+)\s*:\s*(.*)$")
_SYMBOL = re.compile(r"^\s*(\S)\s+=\s+(.*)$")


@dataclasses.dataclass(frozen=True)
class Meaning:
    """What a symbol of the picture does."""

    kind: str
    reward: float
    target: str = ""
    line: int = 0


def read_grid(path: str | Path, discount: float | None = None) -> MDP:
    """Read a grid world from a text file; `discount` overrides the file's."""
    path = Path(path)
    text = read_text(path, "a grid drawn in text")
    return from_grid(text, discount, str(path))


def from_grid(text: str, discount: float | None = None, source: str = "<text>") -> MDP:
    """The MDP of a grid world drawn in text, with its layout (the form: the module's docstring).

    Args:
        text: settings and picture.
        discount: in (0, 1]; overrides the text's.
        source: what an error calls the text.

    Raises:
        InvalidData: one line that names the file, the line and what was expected there.

    >>> mdp = from_grid("step: -1\\n\\nS..\\n.#G")
    >>> mdp.states, mdp.layout.shape
    (5, (2, 3))
    """
    if discount is not None:
        checks.discount(discount)
    with reading(source):
        return _parsed(text, source, discount)


def _parsed(text: str, source: str, discount: float | None) -> MDP:
    header, picture = _split(text, source)
    settings: dict[str, tuple[str, int]] = {}
    meanings = {"G": Meaning("end", 1.0), "H": Meaning("end", 0.0)}
    for number, line in header:
        symbol, setting = _SYMBOL.match(line), _SETTING.match(line)
        if symbol:
            meanings[symbol[1]] = _meaning(symbol[2], source, number)
        elif setting:
            if setting[1] not in SETTINGS:
                raise _fail(
                    source,
                    number,
                    f'unknown setting "{setting[1]}"; {nearest(setting[1], SETTINGS)}',
                )
            settings[setting[1]] = (setting[2].strip(), number)
    plan = _plan(picture, meanings, source)
    for name in ("discount", "slip", "step", "bump"):
        if name in settings:
            setattr(plan, name, _number(settings[name][0], source, settings[name][1]))
    if "actions" in settings:
        plan.moves = _moves(*settings["actions"], source=source)
    if "slip" in settings and not 0.0 <= plan.slip <= 0.5:
        raise _fail(
            source,
            settings["slip"][1],
            f"slip is a probability for each side, in [0, 1/2]; given {plan.slip:g}",
        )
    if discount is not None:
        plan.discount = discount
    elif "discount" in settings and not 0.0 < plan.discount <= 1.0:
        raise _fail(
            source,
            settings["discount"][1],
            f"the discount must lie in (0, 1], given {plan.discount:g}",
        )
    return build_grid(plan, source)


def _fail(source: str, line: int, message: str) -> InvalidData:
    return InvalidData(f"{source}, line {line}: {message}")


def _split(text: str, source: str) -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
    """Header lines and picture lines, numbered from 1."""
    header: list[tuple[int, str]] = []
    picture: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith(";"):
            continue
        if not picture and (not line.strip() or _SETTING.match(line) or _SYMBOL.match(line)):
            header.append((number, line))
        else:
            picture.append((number, line))
    while picture and not picture[-1][1].strip():
        picture.pop()
    if not picture:
        raise InvalidData(f"{source}: there is no grid; expected rows of cells such as S..G")
    return header, picture


def _number(word: str, source: str, line: int) -> float:
    try:
        # Fraction("1e999999999") would write a thousand million digits.
        value = float(Fraction(word.strip())) if "/" in word else float(word)
        if not math.isfinite(value):
            raise ValueError
        return value
    except (ValueError, ArithmeticError):
        raise _fail(source, line, f'expected a number or a fraction, given "{word}"') from None


def _meaning(text: str, source: str, line: int) -> Meaning:
    words = text.split()
    if not words or words[0] not in MEANINGS:
        word = words[0] if words else ""
        raise _fail(source, line, f'unknown meaning "{word}"; {nearest(word, MEANINGS)}')
    wanted = 3 if words[0] == "jump" else 2
    if len(words) != wanted:
        form = "jump Y R" if words[0] == "jump" else f"{words[0]} R"
        raise _fail(source, line, f'expected "{form}", given "{text.strip()}"')
    target = words[1] if words[0] == "jump" else ""
    return Meaning(words[0], _number(words[-1], source, line), target, line)


def _moves(text: str, line: int, source: str) -> dict[str, tuple[int, int]]:
    words = text.split()
    if sorted(words) != sorted(CLOCKWISE):
        raise _fail(
            source, line, f'actions must list {" ".join(CLOCKWISE)} in some order, given "{text}"'
        )
    return {word: CLOCKWISE[word] for word in words}


def _plan(picture: list[tuple[int, str]], meanings: dict[str, Meaning], source: str) -> GridPlan:
    width = max(len(line.rstrip()) for _, line in picture)
    held = sum(len(line) + 1 for _, line in picture)
    allow(source, held, 64 * len(picture) * width, f"a grid of {len(picture)} x {width} cells")
    plan = GridPlan.empty(len(picture), width)
    targets = {m.target for m in meanings.values() if m.kind == "jump"}
    if "F" not in targets and "F" not in meanings:  # frozen, as Gymnasium draws its lakes
        picture = [(number, line.replace("F", ".")) for number, line in picture]
    places: dict[str, list[int]] = {}
    for row, (number, full) in enumerate(picture):
        line = full.rstrip()
        if len(line) < width and "." in "".join(text for _, text in picture):
            raise _fail(source, number, f"the row has {len(line)} cells, the longest has {width}")
        for column, symbol in enumerate(line.ljust(width)):
            places.setdefault(symbol, []).append(row * width + column)
            if symbol == "#":
                plan.wall[row, column] = True
            elif symbol == "S":
                plan.start[row, column] = True
            elif symbol not in ". " and symbol not in meanings and symbol not in targets:
                raise _fail(
                    source,
                    number,
                    f'unknown symbol "{symbol}" in column {column + 1}; say what it '
                    f'means above the grid, as "{symbol} = end 1"',
                )
    for symbol, meaning in meanings.items():
        cells = places.get(symbol, [])
        _apply(plan, meaning, cells, places, source)
    plan.symbols = tuple(line.rstrip().ljust(width) for _, line in picture)
    return plan


def _apply(
    plan: GridPlan, meaning: Meaning, cells: list[int], places: dict[str, list[int]], source: str
) -> None:
    if meaning.kind == "jump":
        goals = places.get(meaning.target, [])
        if len(goals) != 1:
            raise _fail(
                source,
                meaning.line,
                f'a jump needs exactly one cell marked "{meaning.target}", there are {len(goals)}',
            )
        plan.jump.flat[cells] = goals[0]
        plan.jump_reward.flat[cells] = meaning.reward
        return
    plan.enter.flat[cells] = meaning.reward
    if meaning.kind == "end":
        plan.end.flat[cells] = True
    elif meaning.kind == "back":
        plan.back_to_start.flat[cells] = True
