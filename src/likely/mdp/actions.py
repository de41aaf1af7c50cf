"""What each `likely mdp` command does, once its arguments are read."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from likely.errors import InvalidSetting, LikelyError, nearest
from likely.mdp import plots, terminal, worlds
from likely.mdp.certify import certify
from likely.mdp.evaluate import evaluate
from likely.mdp.inputs import policy_of, value_of, world_of
from likely.mdp.policies import expectation_sweeps, greedy_pairs, optimality_sweeps
from likely.mdp.problem import MDP, write_npz
from likely.mdp.simulate import simulate
from likely.mdp.solution import Solution
from likely.mdp.solve import METHODS, solve
from likely.mdp.worlds import World

# Values of more states than this are left out of --json; --out has them all.
JSON_STATES = 100_000


def _say(console: Console, text: str, style: str = "") -> None:
    """A line of text, never read as rich's markup."""
    console.print(Text(text, style=style), soft_wrap=True)


def _print_json(record: dict[str, Any]) -> None:
    print(json.dumps(record, allow_nan=False))


def _plain(array: NDArray[Any]) -> list[Any]:
    """An array as JSON: infinities and NaN, which JSON has not, become null."""
    if array.dtype.kind == "f":
        blank = np.where(np.isfinite(array), array, np.nan).astype(object)
        blank[~np.isfinite(array)] = None
        listed: list[Any] = blank.tolist()
        return listed
    whole: list[Any] = array.tolist()
    return whole


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _facts(world: World) -> dict[str, Any]:
    mdp = world.mdp
    return {
        "world": world.name,
        "states": mdp.states,
        "pairs": mdp.pairs,
        "transitions": mdp.transitions,
        "terminal_states": int(mdp.terminal.sum()),
        "discount": mdp.discount,
    }


def _heading(console: Console, world: World) -> None:
    mdp = world.mdp
    _say(console, f"{world.name}: {world.about}", "bold")
    ends = int(mdp.terminal.sum())
    _say(
        console,
        f"{mdp.states} states ({ends} terminal), {mdp.pairs} state-action pairs, "
        f"{mdp.transitions} transitions, discount {mdp.discount:g}",
    )
