"""Cassandra's `.POMDP` and `.MDP` text format, where the state is fully observed.

The format (A. Cassandra, "POMDP file format", pomdp.org): a preamble (`discount`, `values`,
`states`, `actions`, `observations`, `start`) and then statements `T:` (transition
probabilities), `O:` (observation probabilities) and `R:` (rewards), each for one entry, one row
or a whole matrix, with `*` for "all" and with later statements overriding earlier ones. A
number in place of a name is an index from 0.

What is made of it is a Markov decision process:

    r(s, a) = sum_s' P(s' | s, a) sum_o O(o | s', a) R(a, s, s', o).

A file whose observations hide the state is refused, unless the *underlying* MDP is asked for:
its optimal value is an upper bound on what any policy can reach that sees observations only.

Deviations: rows of text have few digits, so a row that sums to one within 1e-5 is divided by its
sum (TagAvoid's rows are off by 1e-6); a row that is further off is an error. `reset` rows
(restart from the start distribution) are read as in pomdp-solve.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from pathlib import Path

import numpy as np

from likely.errors import InvalidData, nearest
from likely.files import allow, reading
from likely.mdp.files.cassandra_model import CassandraModel, RewardStatement
from likely.mdp.model.arrays import FloatArray

KEYWORDS = ("discount", "values", "states", "actions", "observations", "start")
ROW_TOLERANCE = 1e-5

# Bytes that a name, an empty row and an entry of a row take.
NAME, ROW, ENTRY = 200, 200, 100

_TOKEN = re.compile(r":|[^\s:]+")


@dataclasses.dataclass(frozen=True)
class Token:
    """A word of the file and its line, counted from 1."""

    text: str
    line: int


class _Reader:
    """One pass over the words of a file."""

    def __init__(self, text: str, source: str) -> None:
        self.source, self.size = source, len(text)
        self.entries = 0  # of all the rows together
        self.tokens = [
            Token(word, number)
            for number, line in enumerate(text.splitlines(), start=1)
            for word in _TOKEN.findall(line.split("#", 1)[0])
        ]
        self.position = 0
        self.discount = 0.0
        self.sign = 1.0
        self.names: dict[str, tuple[str, ...]] = {}
        self.index: dict[str, dict[str, int]] = {}
        self.start: FloatArray | None = None
        self.rows: list[list[dict[int, float]]] = []
        self.row_lines: dict[tuple[int, int], int] = {}
        self.observe = np.zeros((0, 0, 0))
        self.rewards: list[RewardStatement] = []

    # --- words -----------------------------------------------------------------------------

    def fail(self, message: str, line: int | None = None) -> InvalidData:
        if line is None:
            at = min(self.position, len(self.tokens) - 1)
            line = self.tokens[at].line if self.tokens else 1
        return InvalidData(f"{self.source}, line {line}: {message}")

    def peek(self, ahead: int = 0) -> str:
        at = self.position + ahead
        return self.tokens[at].text if at < len(self.tokens) else ""

    def take(self, expected: str) -> str:
        word = self.peek()
        if not word:
            raise self.fail(f"the file ends where {expected} was expected")
        self.position += 1
        return word

    def colon(self) -> None:
        if self.peek() != ":":
            raise self.fail(f'expected ":", given "{self.peek()}"')
        self.position += 1

    def number(self, expected: str) -> float:
        word = self.take(expected)
        try:
            value = float(word)
        except ValueError:
            self.position -= 1
            raise self.fail(f'expected {expected}, given "{word}"') from None
        if not np.isfinite(value):
            raise self.fail(f"expected {expected}, a finite number, given {word}")
        return value

    def numbers(self, count: int, expected: str) -> FloatArray:
        return np.array([self.number(f"{expected} ({i + 1} of {count})") for i in range(count)])

    def starts_statement(self) -> bool:
        word = self.peek()
        return not word or (
            word in (*KEYWORDS, "T", "O", "R") and self.peek(1) in (":", "include", "exclude")
        )

    def which(self, kind: str) -> int | None:
        """An index of a state, action or observation; None for `*`."""
        word = self.take(f"a name of {kind}")
        if word == "*":
            return None
        known = self.index.get(kind)
        if known is None:
            self.position -= 1
            raise self.fail(f'"{kind}:" must come before it is used')
        if word in known:
            return known[word]
        index = self.whole(word, len(known))
        if index is not None:
            return index
        self.position -= 1
        hint = nearest(word, known) if len(known) <= 50 else f"there are {len(known)}"
        raise self.fail(f'unknown name "{word}" among the {kind}; {hint}')

    def room(self, count: int, each: int, what: str) -> None:
        """Refuse what this file has no right to, before memory is given to it."""
        allow(self.source, self.size, count * each, what)

    def whole(self, word: str, most: int) -> int | None:
        """A whole number from 0 and below `most`; None where the word is something else."""
        if not (word.isascii() and word.isdecimal() and len(word) < 19):
            return None
        return int(word) if int(word) < most else None

    # --- preamble --------------------------------------------------------------------------

    def preamble(self, key: str) -> None:
        line = self.tokens[self.position - 1].line
        if key == "start" and self.peek() in ("include", "exclude"):
            self.start_list(self.take("include or exclude"))
            return
        self.colon()
        if key == "discount":
            self.discount = self.number("the discount")
            if not 0.0 <= self.discount <= 1.0:
                raise self.fail(f"the discount must lie in [0, 1], given {self.discount}", line)
        elif key == "values":
            word = self.take("reward or cost")
            if word not in ("reward", "cost"):
                raise self.fail(f'values must be "reward" or "cost", given "{word}"', line)
            self.sign = 1.0 if word == "reward" else -1.0
        elif key == "start":
            self.start_distribution()
        else:
            self.name_list(key)

    def name_list(self, kind: str) -> None:
        words: list[str] = []
        while not self.starts_statement():
            words.append(self.take(f"the {kind}"))
        count = self.whole(words[0], 10**18) if len(words) == 1 else None
        if count:
            self.room(count, NAME, f"{kind}: {count}")
            words = [str(i) for i in range(count)]
        if not words:
            raise self.fail(f"{kind} needs a count or a list of names")
        if len(set(words)) != len(words):
            twice = next(a for a, b in itertools.pairwise(sorted(words)) if a == b)
            raise self.fail(f'the name "{twice}" occurs twice among the {kind}')
        if self.rows or kind in self.names:
            before = "before the first statement" if self.rows else "once"
            raise self.fail(f'"{kind}:" must come {before}')
        self.names[kind] = tuple(words)
        self.index[kind] = {word: i for i, word in enumerate(words)}

    def start_distribution(self) -> None:
        count = len(self.names.get("states", ()))
        if not count:
            raise self.fail('"states:" must come before "start:"')
        if self.peek() == "uniform":
            self.position += 1
            self.start = np.full(count, 1.0 / count)
            return
        line = self.tokens[min(self.position, len(self.tokens) - 1)].line
        words: list[str] = []
        while not self.starts_statement():
            words.append(self.take("the start"))
        if len(words) == count and all(re.fullmatch(r"[-+0-9.eE]+", w) for w in words):
            self.position -= count
            start = self.numbers(count, "a probability")
            if (start < 0).any() or abs(start.sum() - 1.0) > 1e-3:
                raise self.fail(
                    f"the start distribution must be >= 0 and sum to 1, it sums to {start.sum():g}",
                    line,
                )
            self.start = start / start.sum()
            return
        self.position -= len(words)
        self.start_members(len(words), include=True)

    def start_list(self, word: str) -> None:
        self.colon()
        count = 0
        while not self.starts_statement():
            self.position += 1
            count += 1
        self.position -= count
        self.start_members(count, include=word == "include")

    def start_members(self, count: int, include: bool) -> None:
        total = len(self.names.get("states", ()))
        member = np.zeros(total, dtype=bool)
        for _ in range(count):
            state = self.which("states")
            member[slice(None) if state is None else state] = True
        if not include:
            member = ~member
        if not member.any():
            raise self.fail("the start names no state")
        self.start = member / member.sum()

    # --- statements ------------------------------------------------------------------------

    def ready(self) -> None:
        """The tables exist once the preamble is known."""
        if self.rows:
            return
        for kind in ("states", "actions"):
            if kind not in self.names:
                raise self.fail(f'"{kind}:" must come before the first statement')
        states, actions = len(self.names["states"]), len(self.names["actions"])
        observed = len(self.names.get("observations", ()))
        self.room(
            states * actions,
            ROW + 8 * observed,
            f"{states} states, {actions} actions and {observed} observations",
        )
        self.rows = [[{} for _ in range(states)] for _ in range(actions)]
        self.observe = np.zeros((actions, states, len(self.names.get("observations", ()))))

    def transition(self) -> None:
        self.colon()
        action = self.which("actions")
        if self.peek() != ":":
            self.matrix(action)
            return
        self.colon()
        state = self.which("states")
        if self.peek() != ":":
            self.row(action, state)
            return
        self.colon()
        successor = self.which("states")
        probability = self.number("a probability")
        if not 0.0 <= probability <= 1.0 + ROW_TOLERANCE:
            raise self.fail(
                f"a probability must lie in [0, 1], given {probability:g}",
                self.tokens[self.position - 1].line,
            )
        acted, left = self.members(action, "actions"), self.members(state, "states")
        if probability > 0.0:
            self.grow(len(acted) * len(left) * len(self.members(successor, "states")))
        for a in acted:
            for s in left:
                row = self.rows[a][s]
                self.row_lines[a, s] = self.tokens[self.position - 1].line
                if probability == 0.0 and successor is None:
                    row.clear()
                    continue
                for t in self.members(successor, "states"):
                    if probability == 0.0:
                        row.pop(t, None)
                    else:
                        row[t] = probability

    def grow(self, count: int) -> None:
        """Make room for this many more entries of rows; many statements may give the same ones."""
        states = len(self.names["states"])
        self.entries = min(self.entries + count, len(self.names["actions"]) * states * states)
        self.room(self.entries, ENTRY, f"{self.entries} transitions")

    def members(self, which: int | None, kind: str) -> range:
        return range(len(self.names[kind])) if which is None else range(which, which + 1)

    def named_row(self, word: str, state: int) -> dict[int, float]:
        if word == "identity":
            return {state: 1.0}
        if word == "reset":
            if self.start is None:
                raise self.fail('"reset" needs a "start:" in the preamble')
            return {int(s): float(self.start[s]) for s in np.flatnonzero(self.start)}
        count = len(self.names["states"])
        return dict.fromkeys(range(count), 1.0 / count)

    def matrix(self, action: int | None) -> None:
        states = range(len(self.names["states"]))
        if self.peek() in ("uniform", "identity"):
            word = self.take("a matrix")
            for s in states:
                self.set_row(action, s, self.named_row(word, s))
            return
        for s in states:
            self.set_row(action, s, self.given_row())

    def given_row(self) -> dict[int, float]:
        values = self.numbers(len(self.names["states"]), "a probability")
        if (values < 0.0).any():
            raise self.fail("a probability is negative", self.tokens[self.position - 1].line)
        return {int(t): float(values[t]) for t in np.flatnonzero(values)}

    def row(self, action: int | None, state: int | None) -> None:
        word = self.peek()
        if word in ("uniform", "reset"):
            self.position += 1
            values = self.named_row(word, 0)
        else:
            values = self.given_row()
        for s in self.members(state, "states"):
            self.set_row(action, s, values)

    def set_row(self, action: int | None, state: int, row: dict[int, float]) -> None:
        self.grow(len(self.members(action, "actions")) * len(row))
        for a in self.members(action, "actions"):
            self.rows[a][state] = dict(row)
            self.row_lines[a, state] = self.tokens[self.position - 1].line

    def observation(self) -> None:
        self.colon()
        action = self.which("actions")
        count = len(self.names.get("observations", ()))
        if not count:
            raise self.fail('"observations:" must come before the first "O:"')
        states = len(self.names["states"])
        acted = self.members(action, "actions")
        if self.peek() != ":":
            if self.peek() in ("uniform", "identity"):
                word = self.take("a matrix")
                if word == "identity" and count != states:
                    raise self.fail("identity needs as many observations as states")
                self.observe[acted] = 1.0 / count if word == "uniform" else np.eye(states)
            else:
                matrix = self.numbers(states * count, "a probability")
                self.observe[acted] = matrix.reshape(states, count)
            return
        self.colon()
        seen_in = self.members(self.which("states"), "states")
        block = np.ix_(acted, seen_in)
        if self.peek() != ":":
            if self.peek() == "uniform":
                self.position += 1
                self.observe[block] = 1.0 / count
            else:
                self.observe[block] = self.numbers(count, "a probability")
            return
        self.colon()
        seen = self.which("observations")
        probability = self.number("a probability")
        self.observe[np.ix_(acted, seen_in, self.members(seen, "observations"))] = probability

    def reward(self) -> None:
        self.colon()
        action = self.which("actions")
        self.colon()
        state = self.which("states")
        observed = len(self.names.get("observations", ()))
        width = max(1, observed)
        if self.peek() != ":":
            values = self.numbers(len(self.names["states"]) * width, "a reward")
            shaped = values.reshape(len(self.names["states"]), width)
            self.rewards.append(RewardStatement(action, state, None, None, shaped))
            return
        self.colon()
        successor = self.which("states")
        seen: int | None = None
        if self.peek() == ":":
            self.colon()
            seen = self.which("observations")
            values = self.numbers(1, "a reward").reshape(1, 1)
        elif observed:
            values = self.numbers(observed, "a reward").reshape(1, observed)
        else:
            values = self.numbers(1, "a reward").reshape(1, 1)
        self.rewards.append(RewardStatement(action, state, successor, seen, values))

    # --- the whole -------------------------------------------------------------------------

    def read(self) -> CassandraModel:
        if not self.tokens:
            raise InvalidData(f"{self.source}: the file is empty; expected a POMDP or MDP")
        while self.position < len(self.tokens):
            word = self.take("a statement")
            if word in KEYWORDS:
                self.preamble(word)
            elif word in ("T", "O", "R"):
                self.ready()
                {"T": self.transition, "O": self.observation, "R": self.reward}[word]()
            else:
                self.position -= 1
                hint = nearest(word, (*KEYWORDS, "T", "O", "R"))
                raise self.fail(
                    f'expected a statement (discount:, T:, R:, ...), given "{word}"; {hint}'
                )
        self.ready()
        self.check_rows()
        width = len(self.names.get("observations", ())) if self.rewards else 1
        self.room(self.entries, ENTRY + 24 * width, f"{self.entries} transitions with rewards")
        states = len(self.names["states"])
        start = np.full(states, 1.0 / states) if self.start is None else self.start
        return CassandraModel(
            self.discount,
            self.sign,
            self.names["states"],
            self.names["actions"],
            self.names.get("observations", ()),
            start,
            self.rows,
            self.observe,
            self.rewards,
        )

    def check_rows(self) -> None:
        for a, by_state in enumerate(self.rows):
            for s, row in enumerate(by_state):
                total = sum(row.values())
                if abs(total - 1.0) > ROW_TOLERANCE:
                    name = f"T: {self.names['actions'][a]} : {self.names['states'][s]}"
                    line = self.row_lines.get((a, s))
                    if line is None:
                        raise InvalidData(
                            f"{self.source}: {name} is never given; every action needs its "
                            "successors in every state"
                        )
                    raise self.fail(f"{name} sums to {total:.9g}, expected 1", line)
        if "observations" in self.names:
            self.check_observations()

    def check_observations(self) -> None:
        totals = self.observe.sum(axis=2)  # [A, S']
        wrong = ~(abs(totals - 1.0) <= ROW_TOLERANCE) | (self.observe < 0.0).any(axis=2)
        if wrong.any():
            a, s = np.argwhere(wrong)[0]
            name = f"O: {self.names['actions'][a]} : {self.names['states'][s]}"
            raise InvalidData(
                f"{self.source}: {name} sums to {totals[a, s]:.9g} or is negative; expected the "
                "probabilities of the observations, which sum to 1"
            )
        self.observe /= totals[:, :, None]


def parse_cassandra(text: str, source: str = "<text>") -> CassandraModel:
    """Read the text of a `.POMDP` or `.MDP` file.

    Raises:
        InvalidData: one line that names the file, the line and what was expected there.
    """
    with reading(source):
        return _Reader(text, source).read()


def read_cassandra(path: str | Path) -> CassandraModel:
    """Read a `.POMDP` or `.MDP` file; see `parse_cassandra`."""
    path = Path(path)
    with reading(path):
        text = path.read_text(encoding="utf-8", errors="replace")
    return parse_cassandra(text, str(path))
