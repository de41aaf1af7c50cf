"""Markov decision processes in rational arithmetic: what the bounds are held against.

A `Stated` problem keeps the floats that a constructor is given. Here they are rationals, taken
exactly; a row is divided by its exact sum (or, where the rest ends the episode, left as it is).
Nothing is shared with the library, and nothing is rounded.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from likely.mdp import MDP

Row = dict[int, Fraction]
Pair = tuple[Fraction, Row]  # expected reward, and the moves
Value = list[Fraction]


@dataclasses.dataclass
class Stated:
    """A problem as it is given: `rows[s][a]` is a list of (probability, successor).

    Attributes:
        reward: [S][A] r(s, a), or None.
        gain: rewards of transitions in the shape of `rows`, or None.
        literal: take the rows as they are instead of dividing them by their sum.
    """

    rows: list[list[list[tuple[float, int]]]]
    reward: list[list[float]] | None
    discount: float
    gain: list[list[list[float]]] | None = None
    terminal: tuple[int, ...] = ()
    row_tolerance: float = 1e-9
    missing: str = "refuse"
    literal: bool = False

    @property
    def states(self) -> int:
        return len(self.rows)

    def mdp(self) -> MDP:
        """Through the constructor that all others end in."""
        pairs = [row for state in self.rows for row in state]
        flat = [entry for row in pairs for entry in row]
        return MDP.from_pairs(
            np.cumsum([0] + [len(state) for state in self.rows]),
            np.cumsum([0] + [len(row) for row in pairs]),
            np.array([t for _, t in flat], dtype=np.int64),
            [p for p, _ in flat],
            None if self.reward is None else [r for state in self.reward for r in state],
            self.discount,
            successor_reward=None if self.gain is None else
            [r for state in self.gain for row in state for r in row],
            terminal=list(self.terminal), row_tolerance=self.row_tolerance, missing=self.missing,
        )  # fmt: skip

    def exact(self, sign: int = 1) -> list[list[Pair]]:
        """[S][A] the pairs in rationals, rewards times `sign`; none in terminal states."""
        return [
            [] if s in self.terminal else [self._pair(s, a, sign) for a in range(len(actions))]
            for s, actions in enumerate(self.rows)
        ]

    def _pair(self, s: int, a: int, sign: int) -> Pair:
        row = self.rows[s][a]
        total = sum((Fraction(p) for p, _ in row), Fraction(0))
        short = self.missing == "terminate" and float(total - 1) < -self.row_tolerance
        divide = Fraction(1) if short or self.literal else total
        moves: Row = {}
        expected = Fraction(self.reward[s][a]) if self.reward is not None else Fraction(0)
        for k, (p, t) in enumerate(row):
            share = Fraction(p) / divide
            if self.gain is not None:
                expected += share * Fraction(self.gain[s][a][k])
            moves[t] = moves.get(t, Fraction(0)) + share
        return sign * expected, moves


def solved(system: list[list[Fraction]], right: Sequence[Fraction]) -> Value:
    """Gauss and Jordan's elimination."""
    size = len(right)
    work = [[*row, r] for row, r in zip(system, right, strict=True)]
    for c in range(size):
        pivot = next(r for r in range(c, size) if work[r][c] != 0)
        work[c], work[pivot] = work[pivot], work[c]
        scale = work[c][c]
        work[c] = [x / scale for x in work[c]]
        for r in range(size):
            if r != c and work[r][c] != 0:
                factor = work[r][c]
                work[r] = [x - factor * y for x, y in zip(work[r], work[c], strict=True)]
    return [row[size] for row in work]


def chain_value(chain: list[Pair | None], discount: Fraction) -> Value:
    """v = r + discount P v; None marks a terminal state."""
    size = len(chain)
    system = [[Fraction(int(i == j)) for j in range(size)] for i in range(size)]
    right = [Fraction(0)] * size
    for s, pair in enumerate(chain):
        if pair is not None:
            right[s] = pair[0]
            for t, p in pair[1].items():
                system[s][t] -= discount * p
    return solved(system, right)


def q_value(pair: Pair, value: Value, discount: Fraction) -> Fraction:
    return pair[0] + discount * sum((p * value[t] for t, p in pair[1].items()), Fraction(0))


def optimal(pairs: list[list[Pair]], discount: Fraction) -> Value:
    """V* by exact policy iteration (every policy must end where the discount is 1)."""
    choice = [0] * len(pairs)
    while True:
        value = chain_value([p[c] if p else None for p, c in zip(pairs, choice, strict=True)],
                            discount)  # fmt: skip
        better = False
        for s, actions in enumerate(pairs):
            for a, pair in enumerate(actions):
                if q_value(pair, value, discount) > q_value(actions[choice[s]], value, discount):
                    choice[s], better = a, True
        if not better:
            return value


def mixed(
    pairs: list[list[Pair]], weights: list[list[Fraction]], literal: bool = False
) -> list[Pair | None]:
    """The chain of a stochastic policy, whose weights are divided by their sum (or are not)."""
    chain: list[Pair | None] = []
    for actions, shares in zip(pairs, weights, strict=True):
        if not actions:
            chain.append(None)
            continue
        total = Fraction(1) if literal else sum(shares, Fraction(0))
        gain, moves = Fraction(0), Row()
        for (reward, row), share in zip(actions, shares, strict=True):
            gain += share / total * reward
            for t, p in row.items():
                moves[t] = moves.get(t, Fraction(0)) + share / total * p
        chain.append((gain, moves))
    return chain


def induction(pairs: list[list[Pair]], discount: Fraction, last: Value, steps: int) -> list[Value]:
    """[H + 1][S] the values of backward induction, the first time first."""
    values = [list(last)]
    for _ in range(steps):
        values.insert(0, _step(pairs, discount, values[0], last))
    return values


def _step(pairs: list[list[Pair]], discount: Fraction, after: Value, last: Value) -> Value:
    return [
        max(q_value(pair, after, discount) for pair in actions) if actions else last[s]
        for s, actions in enumerate(pairs)
    ]


def gain(pairs: list[list[Pair]]) -> Fraction:
    """The best average reward of a problem all of whose policies have one recurrent class."""
    best: Fraction | None = None
    size = len(pairs)
    for choice in itertools.product(*(range(len(actions)) for actions in pairs)):
        # g + h = r + P h with h(0) = 0: the unknown of state 0 is g instead.
        system = [[Fraction(int(i == j)) for j in range(size)] for i in range(size)]
        right = [Fraction(0)] * size
        for s, c in enumerate(choice):
            right[s], row = pairs[s][c]
            for t, p in row.items():
                system[s][t] -= p
            system[s][0] = Fraction(1)
        value = solved(system, right)[0]
        best = value if best is None else max(best, value)
    assert best is not None
    return best


def reached(pairs: list[list[Pair]], target: set[int], sign: int) -> Value:
    """Probability of reaching `target`, the largest (sign 1) or least (-1) over all policies."""
    size = len(pairs)
    best: Value | None = None
    for choice in itertools.product(*(range(max(1, len(actions))) for actions in pairs)):
        moves = [pairs[s][c][1] if pairs[s] and s not in target else Row()
                 for s, c in enumerate(choice)]  # fmt: skip
        can = set(target)
        while True:
            more = {s for s in range(size) if s not in can and any(t in can for t in moves[s])}
            if not more:
                break
            can |= more
        chain: list[Pair | None] = []
        for s in range(size):
            if s in target:
                chain.append((Fraction(1), Row()))
            elif s not in can:
                chain.append(None)
            else:
                chain.append((Fraction(0), {t: p for t, p in moves[s].items() if t in can}))
        value = chain_value(chain, Fraction(1))
        best = (
            value
            if best is None
            else [sign * max(sign * a, sign * b) for a, b in zip(best, value, strict=True)]
        )
    assert best is not None
    return best


def outside(
    lower: NDArray[np.float64], upper: NDArray[np.float64], truth: Value
) -> list[tuple[int, float, float]]:
    """States whose truth is not in the interval, by how much, and how large it is."""
    wrong = []
    for s, v in enumerate(truth):
        low, high = float(lower[s]), float(upper[s])
        assert low == low, f"lower[{s}] is not a number"
        assert high == high, f"upper[{s}] is not a number"
        below = low != -np.inf and (low == np.inf or Fraction(low) > v)
        above = high != np.inf and (high == -np.inf or Fraction(high) < v)
        if below or above:
            miss = Fraction(low) - v if below else v - Fraction(high)
            wrong.append((s, float(miss), float(abs(v))))
    return wrong
