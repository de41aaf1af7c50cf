"""How the command gives its answers: lines for people, JSON for machines, files for later."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.text import Text

from likely.cli.mdp import terminal
from likely.errors import InvalidSetting
from likely.files import refuse_unwritable, write_bytes
from likely.mdp.draw import pictures, plots
from likely.mdp.model.policies import greedy_pairs
from likely.mdp.model.problem import MDP, write_npz
from likely.mdp.model.solution import Solution
from likely.mdp.model.world import World

# Values of more states than this are left out of --json; --out has them all.
JSON_STATES = 100_000


def say(console: Console, text: str, style: str = "") -> None:
    """A line of text, never read as rich's markup."""
    console.print(Text(text, style=style), soft_wrap=True)


def plain(array: NDArray[Any]) -> list[Any]:
    """An array as JSON: infinities and NaN, which JSON has not, become null."""
    if array.dtype.kind == "f":
        array = np.where(np.isfinite(array), array.astype(object), np.array(None))
    listed: list[Any] = array.tolist()
    return listed


def finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def facts(world: World) -> dict[str, Any]:
    mdp = world.mdp
    return {
        "world": world.name,
        "states": mdp.states,
        "pairs": mdp.pairs,
        "transitions": mdp.transitions,
        "terminal_states": int(mdp.terminal.sum()),
        "discount": mdp.discount,
    }


def heading(world: World) -> Console:
    """The console, with what the world is written on it."""
    console, mdp = Console(), world.mdp
    say(console, f"{world.name}: {world.about}", "bold")
    ends = int(mdp.terminal.sum())
    say(
        console,
        f"{mdp.states} states ({ends} terminal), {mdp.pairs} state-action pairs, "
        f"{mdp.transitions} transitions, discount {mdp.discount:g}",
    )
    return console


def check_target(path: str | None, endings: Sequence[str]) -> None:
    """Refuse a file that could not be written before any work is done."""
    if path is None:
        return
    target = Path(path)
    if target.suffix.lower() not in endings:
        raise InvalidSetting(f"{path}: expected a file ending in {' or '.join(endings)}")
    if not target.parent.is_dir():
        raise InvalidSetting(f"{path}: the folder {target.parent} does not exist")
    refuse_unwritable(target)


def at_start(mdp: MDP, value: NDArray[np.float64]) -> float:
    """Expectation of a value [S] over the initial distribution; infinite values elsewhere."""
    if mdp.initial is None:
        return float("nan")
    begins = mdp.initial > 0.0
    return float(mdp.initial[begins] @ value[begins])


def solution_record(world: World, solution: Solution, everything: bool) -> dict[str, Any]:
    """A solution as JSON."""
    record: dict[str, Any] = {
        **facts(world),
        "status": solution.status,
        "outcome": solution.outcome,
        "error_bound": finite(solution.error),
        "iterations": solution.iterations,
        "about": {key: value for key, value in solution.about.items() if _is_plain(value)},
    }
    if world.mdp.initial is not None:
        record["start"] = {
            name: finite(at_start(world.mdp, np.atleast_2d(getattr(solution, name))[0]))
            for name in ("value", "lower", "upper")
        }
    if everything:
        for name in ("value", "lower", "upper", "policy"):
            record[name] = plain(np.asarray(getattr(solution, name)))
        if solution.gain is not None:
            record["gain"] = plain(solution.gain)
        table = solution.q_table() if world.mdp.states * world.mdp.actions <= JSON_STATES else None
        if table is not None:
            record["q"] = plain(table)
    return record


def _is_plain(value: Any) -> bool:
    return isinstance(value, (str, int, bool)) or (isinstance(value, float) and np.isfinite(value))


def write_solution(path: str, world: World, solution: Solution) -> None:
    if Path(path).suffix.lower() == ".json":
        text = json.dumps(solution_record(world, solution, True), allow_nan=False)
        write_bytes(Path(path), f"{text}\n".encode())
        return
    names = ("value", "lower", "upper", "policy")
    arrays = {name: np.asarray(getattr(solution, name)) for name in names}
    table = solution.q_table()
    if table is not None:
        arrays["q"] = table
    write_npz(Path(path), arrays)


def draw(
    path: str, world: World, value: NDArray[np.float64], title: str, objective: str = "max"
) -> None:
    """The picture that suits a world.

    A heat map with arrows for a grid of cells, contours of the actions where the axes count
    things (Jack's cars), else values and actions over the states.
    """
    mdp, layout = world.mdp, world.layout
    greedy = np.flatnonzero(greedy_pairs(mdp, value, objective=objective))[::-1]
    action = np.full(mdp.states, np.nan)  # the first best action of each state
    action[np.asarray(mdp.pair_state)[greedy]] = _numbers(mdp)[mdp.pair_action[greedy]]
    if layout is not None and layout.row_name:
        policy = [("best action", action)]
        pictures.policy_contours(path, layout, policy, value, _unit(mdp), title)
    elif layout is not None and min(layout.shape) > 1:
        plots.heat_map(path, mdp, value, title, objective)
    else:
        shown = np.where(mdp.terminal, np.nan, value)
        named = None if _counted(mdp) else mdp.action_names
        labels = ("state", "value", _unit(mdp))
        plots.line_plot(path, shown, action, labels, title, mdp.state_names, named)


def _counted(mdp: MDP) -> list[float]:
    """[A] the number at the end of each action's name ("stake 25", "move -2"), or nothing."""
    numbers = [re.search(r"[-+]?\d+$", name) for name in mdp.action_names or ()]
    return [float(match[0]) for match in numbers if match] if all(numbers) else []


def _numbers(mdp: MDP) -> NDArray[np.float64]:
    """[A] the number in each action's name, else its label."""
    return np.array(_counted(mdp) or np.arange(float(mdp.actions)))


def _unit(mdp: MDP) -> str:
    """What the numbers of the actions count, as "move" or "stake"; else "action"."""
    words = {re.sub(r"\s*[-+]?\d+$", "", name) for name in mdp.action_names or ()}
    return words.pop() if len(words) == 1 else "action"


def show_values(
    console: Console,
    world: World,
    value: NDArray[np.float64],
    lower: NDArray[np.float64] | None = None,
    upper: NDArray[np.float64] | None = None,
    policy: NDArray[np.int64] | None = None,
    objective: str = "max",
) -> None:
    console.print()
    if world.layout is not None and terminal.fits(world.layout):
        terminal.grid_of(console, world.mdp, world.layout, value, objective=objective)
        return
    console.print(terminal.state_table(world.mdp, value, lower, upper, policy))
    left = terminal.rest(world.mdp)
    if left:
        say(console, left, "dim")
