"""MDPs from the transition tables of Gymnasium environments (FrozenLake, Taxi, CliffWalking).

The toy-text environments publish their whole dynamics as `env.unwrapped.P[state][action]`, a list
of `(probability, next_state, reward, terminated)`. Two things in it are easy to get wrong:

- A transition flagged `terminated` ends the episode: nothing is earned after it, whatever the
  table says about the state that it names. Where that state is only ever entered so, it becomes
  a terminal state, unless something says that it lives: it is entered without the flag too (Taxi
  names a state in which the ride could go on), episodes may begin there, or, where the table
  comes without a distribution of first states, its own row moves on or pays. Then the transition
  leads to one added terminal state, "end".
- Rows repeat successors; they are merged.

The time limit that `gymnasium.make` wraps around an environment truncates episodes; it is not
part of the process and is ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from likely.errors import InvalidData, InvalidSetting, MissingDependency
from likely.mdp.model.arrays import BoolArray, IntArray
from likely.mdp.model.layout import CLOCKWISE, GridLayout
from likely.mdp.model.problem import MDP
from likely.mdp.model.world import World

# By the name of the environment without its version, as the environments document them.
ACTION_NAMES = {
    "FrozenLake": ("left", "down", "right", "up"),
    "FrozenLake8x8": ("left", "down", "right", "up"),
    "CliffWalking": ("up", "right", "down", "left"),
    "CliffWalkingSlippery": ("up", "right", "down", "left"),
    "Taxi": ("south", "north", "east", "west", "pick up", "drop off"),
}

Table = Mapping[int, Mapping[int, Sequence[tuple[float, int, float, bool]]]]


def from_gymnasium(environment: Any, discount: float = 0.99) -> MDP:
    """The MDP of a Gymnasium environment with a transition table.

    Args:
        environment: a name such as "FrozenLake-v1", an environment, or its table alone:
            `{state: {action: [(probability, next_state, reward, terminated)]}}`.
        discount: in (0, 1].

    Raises:
        MissingDependency: a name was given and Gymnasium is not installed.
        InvalidSetting: Gymnasium does not know the name.
        InvalidData: the environment has no transition table.
    """
    if isinstance(environment, Mapping):
        return from_table(environment, discount)
    return world_from_gymnasium(environment, discount).mdp


def world_from_gymnasium(environment: Any, discount: float = 0.99) -> World:
    """As `from_gymnasium`, with the environment's name."""
    made = make_environment(environment) if isinstance(environment, str) else environment
    # A class of one's own may have only the table.
    bare = getattr(made, "unwrapped", made)
    known = getattr(getattr(made, "spec", None), "id", None)
    name = type(bare).__name__ if known is None else str(known)
    table = getattr(bare, "P", None)
    if not isinstance(table, Mapping):
        raise InvalidData(
            f"{name} has no transition table (env.unwrapped.P); expected a toy-text environment "
            "such as FrozenLake-v1; or describe the dynamics with MDP.from_step"
        )
    base = name.rsplit("-v", 1)[0]
    start = getattr(bare, "initial_state_distrib", None)
    mdp = from_table(table, discount, start, ACTION_NAMES.get(base))
    layout = _layout(bare, mdp)
    if made is not environment:
        made.close()
    return World(name, f"Gymnasium's {name}", mdp if layout is None else mdp.with_layout(layout))


def from_table(
    table: Table, discount: float, initial: Any = None, action_names: Sequence[str] | None = None
) -> MDP:
    """The MDP of a table `P[state][action] = [(probability, next_state, reward, terminated)]`.

    Args:
        table: for every state 0..S-1 a mapping of its actions.
        discount: in (0, 1].
        initial: [S] distribution of the first state, or None.
        action_names: for people.
    """
    states = len(table)
    if sorted(table) != list(range(states)):
        raise InvalidData(f"a table must have the states 0..{states - 1}, each once")
    start = None if initial is None else np.asarray(initial, dtype=np.float64)
    entries = [
        (s, a, p, int(t), float(r), bool(done))
        for s in range(states)
        for a in sorted(table[s])
        for p, t, r, done in table[s][a]
    ]
    source = np.array([e[0] for e in entries], dtype=np.int64)
    successor = np.array([e[3] for e in entries], dtype=np.int64)
    done = np.array([e[5] for e in entries], dtype=bool)
    possible = np.array([e[2] for e in entries], dtype=np.float64) > 0.0
    beyond = (successor < 0) | (successor >= states)
    if beyond.any():
        s, a, _, t, _, _ = entries[int(np.flatnonzero(beyond)[0])]
        raise InvalidData(f"state {s}, action {a}: successor {t} is not in 0..{states - 1}")
    moves = (successor != source) & ~done
    goes_on = np.zeros(states, dtype=bool)
    goes_on[source[possible & (moves | (np.array([e[4] for e in entries]) != 0.0))]] = True
    # Without a distribution any state whose row goes on may be the first.
    begins = goes_on if start is None else start > 0.0
    terminal = _terminal_states(source[possible], successor[possible], done[possible], begins)
    to_end = done & ~terminal[successor] & ~terminal[source]
    added = int(to_end.any())
    successor = np.where(to_end, states, successor)
    pairs = [(s, a) for s in range(states) for a in sorted(table[s])]
    if start is not None and added:
        start = np.append(start, 0.0)
    return MDP.from_pairs(
        np.searchsorted([s for s, _ in pairs], np.arange(states + 1 + added)),
        np.concatenate([[0], np.cumsum([len(table[s][a]) for s, a in pairs])]),
        successor,
        np.array([e[2] for e in entries], dtype=np.float64),
        None,
        discount,
        successor_reward=np.array([e[4] for e in entries], dtype=np.float64),
        pair_action=np.array([a for _, a in pairs], dtype=np.int64),
        terminal=np.append(terminal, True) if added else terminal,
        initial=start,
        action_names=action_names,
    )


def _terminal_states(
    source: IntArray,
    successor: IntArray,
    done: BoolArray,
    begins: BoolArray,
) -> BoolArray:
    """[S] states that are only ever entered by terminated transitions, where nothing `begins`."""
    terminal = np.zeros(len(begins), dtype=bool)
    terminal[successor[done]] = True
    terminal &= ~begins
    while True:
        # What a terminal state's own row says does not count: the episode is over there.
        alive = ~done & ~terminal[source]
        wrong = terminal.copy()
        wrong[:] = False
        wrong[successor[alive]] = True
        wrong &= terminal
        if not wrong.any():
            return terminal
        terminal &= ~wrong


def make_environment(name: str, **options: Any) -> Any:
    """`gymnasium.make(name, **options)`; see `from_gymnasium` for the errors."""
    try:
        import gymnasium
    except ImportError:
        raise MissingDependency(
            f"{name} needs Gymnasium, which is not installed: pip install gymnasium"
        ) from None
    try:
        return gymnasium.make(name, **options)
    except gymnasium.error.Error as error:
        line = str(error).strip().splitlines()[0]
        raise InvalidSetting(f"Gymnasium does not make {name}: {line}") from None


def _layout(bare: Any, mdp: MDP) -> GridLayout | None:
    """The grid of an environment whose states are its cells, row by row."""
    names = mdp.action_names or ()
    if sorted(names) != sorted(CLOCKWISE):
        return None
    moves = tuple(CLOCKWISE[name] for name in names)
    letters = getattr(bare, "desc", None)
    shape = tuple(getattr(bare, "shape", ())) if letters is None else np.shape(letters)
    if len(shape) != 2 or shape[0] * shape[1] != mdp.states:
        return None
    if letters is None:
        cells = np.where(mdp.terminal, "G", ".")
        if mdp.initial is not None:
            cells[mdp.initial > 0.0] = "S"
        cells = cells.reshape(shape)
    else:
        cells = np.asarray(letters).astype(str)
    symbols = ["".join(row).replace("F", ".") for row in cells]
    entering = None if letters is None else np.where(cells == "H", 0.0, np.nan)
    if entering is not None:  # Gymnasium's lakes pay 1 at the goal
        entering[cells == "G"] = 1.0
    return GridLayout.of(np.arange(mdp.states).reshape(shape), moves, symbols, entering=entering)
