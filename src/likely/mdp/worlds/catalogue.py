"""The built-in worlds, by name: textbook examples, and random problems of any size.

    >>> from likely.mdp import worlds
    >>> world = worlds.build("small-gridworld")
    >>> world.mdp.states, world.layout.shape
    (16, (4, 4))

A world is an `MDP` with a name and a line about it. `names()` lists them, `describe()`
gives the line that `likely mdp list` prints.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from likely.errors import InvalidSetting, nearest, whole
from likely.mdp.model.problem import MDP
from likely.mdp.model.world import World
from likely.mdp.worlds import classic, garnet, grids, gridtext

SMALL_GRIDWORLD = """
step: -1
T = end 0

T...
....
....
...T
"""

GRIDWORLD_5X5 = """
discount: 0.9
bump: -1
A = jump a 10
B = jump b 5

.A.B.
.....
...b.
.....
.a...
"""

MAZE = """
step: -0.04
slip: 1/10
+ = end 1
- = end -1

...+
.#.-
S...
"""

CLIFF = """
; -100 on the way back to the start: the step's -1 and 99 more
step: -1
C = back -99
G = end 0

............
............
............
SCCCCCCCCCCG
"""

FROZEN_LAKE = """
discount: 0.99
slip: 1/3
actions: left down right up

SFFF
FHFH
FFFH
HFFG
"""

FROZEN_LAKE_8X8 = """
discount: 0.99
slip: 1/3
actions: left down right up

SFFFFFFF
FFFFFFFF
FFFHFFFF
FFFFFHFF
FFFHFFFF
FHHFFFHF
FHFFHFHF
FFFHFFFG
"""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A line of the registry.

    Attributes:
        about: one line for people.
        builder: makes the problem from the numbers of its size; takes `discount` and, if it is
            random, `seed`.
        size: names and defaults of the numbers that `build(size=...)` takes.
        random: whether a seed decides.
    """

    about: str
    builder: Callable[..., MDP]
    size: tuple[tuple[str, int], ...] = ()
    random: bool = False


def _text(text: str) -> Callable[..., MDP]:
    return lambda discount=None: gridtext.from_grid(text, discount, "built-in world")


REGISTRY: dict[str, Entry] = {
    "small-gridworld": Entry(
        "4 x 4 grid, -1 per step, two terminal corners (Sutton and Barto, example 4.1)",
        _text(SMALL_GRIDWORLD),
    ),
    "gridworld-5x5": Entry(
        "5 x 5 grid with two jumps, discount 0.9 (Sutton and Barto, example 3.5)",
        _text(GRIDWORLD_5X5),
    ),
    "maze-4x3": Entry(
        "4 x 3 maze, -0.04 per step, slips sideways (Russell and Norvig, chapter 17)", _text(MAZE)
    ),
    "cliff": Entry("4 x 12 cliff walk (Sutton and Barto, example 6.6)", _text(CLIFF)),
    "frozen-lake": Entry(
        "4 x 4 slippery lake with holes, reward 1 at the goal", _text(FROZEN_LAKE)
    ),
    "frozen-lake-8x8": Entry("8 x 8 slippery lake with holes", _text(FROZEN_LAKE_8X8)),
    "slippery-grid": Entry(
        "open grid of any size, -1 per step, slips sideways with 0.1 each",
        grids.slippery_grid,
        (("rows", 20), ("columns", 20)),
    ),
    "jacks-car-rental": Entry(
        "two car rental locations, cars moved overnight (Sutton and Barto, example 4.2)",
        classic.jacks_car_rental,
        (("capacity", 20),),
    ),
    "gambler": Entry(
        "stake on a coin (heads 0.4) until 0 or 100 (Sutton and Barto, example 4.3)",
        classic.gambler,
        (("goal", 100),),
    ),
    "seven-states": Entry("chain of seven states with rewards 5 and 10 at its ends", classic.chain),
    "two-arms": Entry(
        "two-arm chain on which a small change does not mean a small error",
        classic.two_arms,
        (("length", 15),),
    ),
    "forest": Entry("forest management: wait or cut, with fires", classic.forest, (("ages", 3),)),
    "inventory": Entry(
        "stochastic inventory control (Puterman, section 3.2)",
        classic.inventory,
        (("capacity", 3),),
    ),
    "garnet": Entry(
        "random MDP (Garnet) of any size",
        garnet.garnet,
        (("states", 1000), ("actions", 4), ("successors", 5)),
        random=True,
    ),
}


def names() -> tuple[str, ...]:
    """The names of the built-in worlds."""
    return tuple(REGISTRY)


def describe(name: str) -> str:
    """One line about a world, with its default size."""
    entry = _entry(name)
    if not entry.size:
        return entry.about
    sizes = " x ".join(f"{value} {what}" for what, value in entry.size)
    return f"{entry.about}; default size {sizes}"


def build(
    name: str, discount: float | None = None, size: Sequence[int] | None = None, seed: int = 0
) -> World:
    """Make a built-in world.

    Args:
        name: one of `names()`.
        discount: in (0, 1]; None takes the world's own.
        size: the numbers that the world's `describe` line names; None takes its defaults.
        seed: for the random worlds.

    Raises:
        InvalidSetting: an unknown name (with the nearest valid one) or an impossible size.
    """
    entry = _entry(name)
    numbers = tuple(value for _, value in entry.size) if size is None else tuple(size)
    if len(numbers) != len(entry.size):
        expected = ", ".join(what for what, _ in entry.size) or "nothing: its size is fixed"
        raise InvalidSetting(f"{name}: size {list(numbers)} given, expected {expected}")
    for number, (what, _) in zip(numbers, entry.size, strict=True):
        whole(f"{name}: {what}", number)
    options: dict[str, Any] = {"seed": whole("seed", seed, 0)} if entry.random else {}
    if discount is not None:
        options["discount"] = discount
    return World(name, entry.about, entry.builder(*numbers, **options))


def _entry(name: str) -> Entry:
    if name not in REGISTRY:
        raise InvalidSetting(f'unknown world "{name}"; {nearest(name, REGISTRY)}')
    return REGISTRY[name]
