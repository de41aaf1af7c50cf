"""PRISM's and Storm's explicit files: `.tra` (transitions), `.lab` (labels), rewards.

The forms (PRISM manual, "Explicit model files"; Storm's explicit parser), states and choices
counted from 0, `#` starting a comment:

    model.tra    PRISM: a header "states choices transitions", Storm: a header "mdp" or none;
                 then lines "state choice successor probability [action]".
                 A Markov chain has lines "state successor probability".
    model.lab    PRISM: a first line 0="init" 1="done", then lines "state: 0 1".
                 Storm: #DECLARATION, names, #END, then lines "state name name".
    rewards      "state reward" (.srew), "state choice reward", or
                 "state choice successor reward" (.trew), each with PRISM's optional header.

A header of counts is recognised by having fewer columns than the lines that follow (for .srew:
by its first number, which is no state of the model). State rewards are added to every choice of
the state, transition rewards are folded into the expected reward of the choice.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from likely.errors import InvalidData
from likely.files import TooLarge, allow, read_text, reading
from likely.mdp.model.arrays import BoolArray, FloatArray, IntArray

_PRISM_LABEL = re.compile(r'(\d+)\s*=\s*"([^"]*)"')


@dataclasses.dataclass(frozen=True, eq=False)
class ExplicitModel:
    """The rows of a `.tra` file with labels and rewards.

    Attributes:
        pair_ptr: [S + 1] choices of state s are rows pair_ptr[s]:pair_ptr[s + 1].
        indptr, indices, probability: CSR rows, one a choice.
        reward: [choices] expected reward of each choice, zero without a reward file.
        actions: [choices] the action's name, empty where the file gives none.
        labels: name to [S] truth values.
        choice_reward: [choices] the part of `reward` that is not of transitions.
        move_reward: [transitions] rewards of transitions.
    """

    pair_ptr: IntArray
    indptr: IntArray
    indices: IntArray
    probability: FloatArray
    reward: FloatArray
    actions: tuple[str, ...]
    labels: dict[str, BoolArray]
    choice_reward: FloatArray | None = None
    move_reward: FloatArray | None = None

    @property
    def states(self) -> int:
        """Number of states."""
        return len(self.pair_ptr) - 1


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """The words of each line that says something, with line numbers from 1."""
    text = read_text(path, "an explicit model")
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split("#", 1)[0].split()
        if words:
            rows.append((number, words))
    if not rows:
        raise InvalidData(f"{path}: the file is empty")
    return rows


def _fail(path: Path, line: int, message: str) -> InvalidData:
    return InvalidData(f"{path}, line {line}: {message}")


def _index(path: Path, line: int, word: str, what: str) -> int:
    if not (word.isascii() and word.isdecimal() and len(word) < 19):
        raise _fail(path, line, f'expected a {what}, a whole number from 0, given "{word[:40]}"')
    return int(word)


def _real(path: Path, line: int, word: str, what: str) -> float:
    try:
        value = float(word)
    except ValueError:
        raise _fail(path, line, f'expected a {what}, given "{word}"') from None
    if not np.isfinite(value):
        raise _fail(path, line, f"expected a finite {what}, given {word}")
    return value


def _counts(
    path: Path, rows: list[tuple[int, list[str]]]
) -> tuple[list[int], list[tuple[int, list[str]]]]:
    """PRISM's header of counts, if there is one, and the rest: it is narrower than the data."""
    number, first = rows[0]
    if len(rows) > 1 and len(first) < len(rows[1][1]) and all(word.isdigit() for word in first):
        return [_index(path, number, word, "count") for word in first], rows[1:]
    return [], rows


def _read_transitions(
    path: Path,
) -> tuple[list[tuple[int, int, int, float]], list[str], int, list[int]]:
    """(state, choice, successor, probability) entries, action names, states, line numbers."""
    rows = _lines(path)
    if rows[0][1][0] in ("mdp", "dtmc"):
        rows = rows[1:]
        counts: list[int] = []
    else:
        counts, rows = _counts(path, rows)
    if not rows:
        raise InvalidData(f"{path}: there are no transitions")
    chain = len(counts) == 2 or (not counts and len(rows[0][1]) == 3)
    entries: list[tuple[int, int, int, float]] = []
    actions: list[str] = []
    numbers: list[int] = []
    for line, words in rows:
        if chain:
            words = [words[0], "0", *words[1:]]
        if len(words) not in (4, 5):
            form = (
                "state successor probability"
                if chain
                else ("state choice successor probability [action]")
            )
            raise _fail(path, line, f'expected "{form}", given "{" ".join(words)}"')
        state = _index(path, line, words[0], "state")
        choice = _index(path, line, words[1], "choice")
        successor = _index(path, line, words[2], "successor")
        chance = _real(path, line, words[3], "probability")
        if not 0.0 <= chance <= 1.0 + 1e-9:
            raise _fail(path, line, f"a probability must lie in [0, 1], given {words[3]}")
        if counts and max(state, successor) >= counts[0]:
            raise _fail(
                path,
                line,
                f"state {max(state, successor)} is beyond the {counts[0]} states of the header",
            )
        entries.append((state, choice, successor, chance))
        actions.append(words[4] if len(words) == 5 else "")
        numbers.append(line)
    if len(counts) in (2, 3) and counts[-1] != len(entries):
        raise InvalidData(
            f"{path}: the header counts {counts[-1]} transitions, the file has {len(entries)}"
        )
    states = counts[0] if counts else 1 + max(max(e[0], e[2]) for e in entries)
    if states > len(entries):
        told = "the header counts" if counts else "the largest number makes"
        raise TooLarge(
            f"{path}: {told} {states} states, the file has {len(entries)} transitions; every state "
            "needs one at least (a state that ends the episode leads to itself)"
        )
    return entries, actions, states, numbers


def read_labels(path: str | Path, states: int) -> dict[str, BoolArray]:
    """Read a `.lab` file of PRISM or Storm: the states that carry each label, [S] each."""
    path = Path(path)
    with reading(path):
        return _read_labels(path, states)


def _read_labels(path: Path, states: int) -> dict[str, BoolArray]:
    text = read_text(path, "labels")
    lines = [(i, line.strip()) for i, line in enumerate(text.splitlines(), start=1)]
    lines = [(i, line) for i, line in lines if line]
    if not lines:
        raise InvalidData(f"{path}: the file is empty; expected labels")
    if lines[0][1] == "#DECLARATION":
        ends = [k for k, (_, line) in enumerate(lines) if line == "#END"]
        if not ends:
            raise _fail(path, lines[0][0], "#DECLARATION has no #END")
        declared = " ".join(line for _, line in lines[1 : ends[0]]).split()
        names = {name: name for name in declared}
        body = lines[ends[0] + 1 :]
    else:
        pairs = _PRISM_LABEL.findall(lines[0][1])
        if not pairs:
            raise _fail(path, lines[0][0], 'expected 0="init" 1="name" ..., or #DECLARATION')
        names = dict(pairs)
        body = lines[1:]
    size = len(text) + 4 * states  # the model's own file has a line per state
    allow(path, size, states * len(set(names.values())), f"{len(names)} labels of {states} states")
    labels = {name: np.zeros(states, dtype=bool) for name in names.values()}
    for number, line in body:
        words = line.replace(":", " ", 1).split()
        if not words:
            raise _fail(path, number, 'expected a state and its labels, given ":"')
        state = _index(path, number, words[0], "state")
        if state >= states:
            raise _fail(path, number, f"state {state} is beyond the {states} states of the model")
        for word in words[1:]:
            if word not in names:
                raise _fail(path, number, f'the label "{word}" is not declared')
            labels[names[word]][state] = True
    return labels


def _read_rewards(
    path: Path, keys: dict[tuple[int, int], int], model: ExplicitModel
) -> tuple[FloatArray, FloatArray]:
    """[choices], [transitions] what one reward file adds to each choice and to each move."""
    _, rows = _counts(path, _lines(path))
    if len(rows[0][1]) == 2 and rows[0][1][0] == str(model.states):
        rows = rows[1:]  # "states entries": no state has this number, so it is a header
    added, moves = np.zeros(len(model.reward)), np.zeros(len(model.indices))
    for line, words in rows:
        if not 2 <= len(words) <= 5:
            raise _fail(path, line, f"expected 2 to 5 columns, given {len(words)}")
        reward = _real(path, line, words[3] if len(words) == 5 else words[-1], "reward")
        state = _index(path, line, words[0], "state")
        if state >= model.states:
            raise _fail(path, line, f"state {state} is beyond the {model.states} states")
        if len(words) == 2:
            added[model.pair_ptr[state] : model.pair_ptr[state + 1]] += reward
            continue
        choice = _index(path, line, words[1], "choice")
        row = keys.get((state, choice))
        if row is None:
            raise _fail(path, line, f"state {state} has no choice {choice}")
        if len(words) == 3:
            added[row] += reward
            continue
        successor = _index(path, line, words[2], "successor")
        start, stop = model.indptr[row], model.indptr[row + 1]
        there = start + np.flatnonzero(model.indices[start:stop] == successor)
        if len(there) == 0:
            raise _fail(
                path, line, f"choice {choice} of state {state} does not lead to {successor}"
            )
        moves[there] += reward
    return added, moves


def read_explicit(
    transitions: str | Path, labels: str | Path | None = None, rewards: Sequence[str | Path] = ()
) -> ExplicitModel:
    """Read an explicit model.

    Args:
        transitions: the `.tra` file.
        labels: the `.lab` file.
        rewards: reward files, whose rewards are added up.

    Raises:
        InvalidData: one line that names the file, the line and what was expected there.
    """
    path = Path(transitions)
    with reading(path):
        model, keys = _read_model(path)
    if labels is not None:
        model = dataclasses.replace(model, labels=read_labels(labels, model.states))
    total, moves = model.reward, np.zeros(len(model.indices))
    for file in map(Path, rewards):
        with reading(file):
            added, of_moves = _read_rewards(file, keys, model)
            total, moves = total + added, moves + of_moves
    row = np.repeat(np.arange(len(total)), np.diff(model.indptr))
    mass = np.bincount(row, model.probability, len(total))
    folded = np.bincount(row, model.probability * moves, len(total)) / np.maximum(mass, 1e-300)
    return dataclasses.replace(model, reward=total + folded, choice_reward=total, move_reward=moves)


def _read_model(path: Path) -> tuple[ExplicitModel, dict[tuple[int, int], int]]:
    """The rows of a `.tra` file, and the row of each (state, choice)."""
    entries, names, states, numbers = _read_transitions(path)
    order = sorted(range(len(entries)), key=lambda i: entries[i][:3])
    keys: dict[tuple[int, int], int] = {}
    actions: list[str] = []
    row_states: list[int] = []
    indices: list[int] = []
    probability: list[float] = []
    indptr = [0]
    for i in order:
        state, choice, successor, chance = entries[i]
        if (state, choice) not in keys:
            if indices:
                indptr.append(len(indices))
            keys[state, choice] = len(row_states)
            row_states.append(state)
            actions.append(names[i])
        elif names[i] != actions[-1]:
            raise _fail(
                path,
                numbers[i],
                f"choice {choice} of state {state} is called "
                f'"{names[i]}" here and "{actions[-1]}" before',
            )
        indices.append(successor)
        probability.append(chance)
    indptr.append(len(indices))
    pair_ptr = np.searchsorted(np.array(row_states), np.arange(states + 1)).astype(np.int64)
    model = ExplicitModel(
        pair_ptr,
        np.array(indptr, dtype=np.int64),
        np.array(indices, dtype=np.int64),
        np.array(probability),
        np.zeros(len(row_states)),
        tuple(actions),
        {},
    )
    return model, keys
