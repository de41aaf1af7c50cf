"""The built-in worlds by name: grids, grids in text, Gymnasium, textbook problems."""

from __future__ import annotations

from typing import TYPE_CHECKING

from likely._lazy import lazy

if TYPE_CHECKING:
    from likely.mdp.worlds.catalogue import CLIFF as CLIFF
    from likely.mdp.worlds.catalogue import FROZEN_LAKE as FROZEN_LAKE
    from likely.mdp.worlds.catalogue import FROZEN_LAKE_8X8 as FROZEN_LAKE_8X8
    from likely.mdp.worlds.catalogue import GRIDWORLD_5X5 as GRIDWORLD_5X5
    from likely.mdp.worlds.catalogue import MAZE as MAZE
    from likely.mdp.worlds.catalogue import REGISTRY as REGISTRY
    from likely.mdp.worlds.catalogue import SMALL_GRIDWORLD as SMALL_GRIDWORLD
    from likely.mdp.worlds.catalogue import Entry as Entry
    from likely.mdp.worlds.catalogue import build as build
    from likely.mdp.worlds.catalogue import describe as describe
    from likely.mdp.worlds.catalogue import names as names

_NAMES = (
    "REGISTRY",
    "CLIFF",
    "Entry",
    "FROZEN_LAKE",
    "FROZEN_LAKE_8X8",
    "GRIDWORLD_5X5",
    "MAZE",
    "SMALL_GRIDWORLD",
    "build",
    "describe",
    "names",
)
__getattr__, __dir__, __all__ = lazy(__name__, dict.fromkeys(_NAMES, "catalogue"))
