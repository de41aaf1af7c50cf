"""Constructors of `MDP`: everything ends in CSR rows that are checked once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from likely.errors import InvalidData, InvalidSetting, nearest
from likely.mdp.model import checks
from likely.mdp.model.arrays import Array, BoolArray, FloatArray
from likely.mdp.model.problem import MDP, frozen, smallest_int

IntArray = Array
UNIT = 2.0**-53  # relative error of one operation
ROUNDED = 16.0 * UNIT  # distance from one of a sum that stands for one


class Marks(NamedTuple):
    """What constructors are told of states and actions beside the rows; see `MDP.from_pairs`."""

    terminal: npt.ArrayLike | None
    initial: npt.ArrayLike | None
    state_names: Iterable[str] | None
    action_names: Iterable[str] | None


def from_pairs(
    pair_ptr: npt.ArrayLike,
    indptr: npt.ArrayLike,
    indices: npt.ArrayLike,
    probability: npt.ArrayLike,
    reward: npt.ArrayLike | None,
    discount: float,
    *,
    marks: Marks,
    pair_action: npt.ArrayLike | None,
    successor_reward: npt.ArrayLike | None,
    missing: str = "refuse",
    row_tolerance: float = 1e-9,
) -> MDP:
    """See `MDP.from_pairs`."""
    checks.discount(discount)
    if missing not in ("refuse", "terminate"):
        raise InvalidSetting(
            f'missing="{missing}" is unknown; {nearest(missing, ["refuse", "terminate"])}'
        )
    pairs_of, rows, columns = (
        _integers(a, n)
        for a, n in ((pair_ptr, "pair_ptr"), (indptr, "indptr"), (indices, "indices"))
    )
    weights = np.ascontiguousarray(probability, dtype=np.float64)
    if weights.shape != columns.shape:
        raise InvalidData(
            f"probability has shape {weights.shape}, indices have {columns.shape}; must agree"
        )
    action_numbers = None if pair_action is None else _integers(pair_action, "pair_action")
    checks.structure(pairs_of, rows, columns, action_numbers)
    # A pointer is only worth its memory once it is known to be one.
    labels: IntArray = (
        np.arange(len(rows) - 1) - np.repeat(pairs_of[:-1], np.diff(pairs_of))
        if action_numbers is None
        else action_numbers
    )
    names = (
        _names(marks.state_names, len(pairs_of) - 1, "state"),
        _names(marks.action_names, None, "action"),
    )
    ended = _terminal(marks.terminal, len(pairs_of) - 1)
    checks.successors(pairs_of, rows, columns, labels, names)
    checks.probabilities(pairs_of, rows, weights, labels, names)
    checks.distinct(pairs_of, labels, names)
    expected, parts = _rewards(reward, successor_reward, len(rows) - 1, len(columns))
    pieces = _Pieces(pairs_of, rows, columns, weights, expected, labels, parts, ended)
    pieces.drop_terminal_pairs()
    checks.dangling(pieces.pair_ptr, pieces.terminal, names[0])
    pieces.fold(row_tolerance)
    checks.rewards(pieces.reward, pieces.pair_ptr, pieces.pair_action, *names)
    pieces.merge()
    start = initial_of(marks.initial, len(pairs_of) - 1)
    appended = pieces.complete_rows(missing, row_tolerance, names)
    if appended:
        names = (None if names[0] is None else (*names[0], "end"), names[1])
        start = None if start is None else np.append(start, 0.0)
    return pieces.freeze(float(discount), start, names)


class _Pieces:
    """The arrays of an MDP while they are brought into canonical form."""

    def __init__(
        self,
        pair_ptr: IntArray,
        indptr: IntArray,
        indices: IntArray,
        probability: FloatArray,
        reward: FloatArray,
        pair_action: IntArray,
        successor_reward: FloatArray | None,
        terminal: BoolArray,
    ) -> None:
        self.pair_ptr, self.indptr, self.indices = pair_ptr, indptr, indices
        self.probability, self.reward, self.pair_action = probability, reward, pair_action
        self.successor_reward, self.terminal = successor_reward, terminal
        self.longest = 0  # successors of a row before repeated ones are merged
        self.merged = False
        self.sums: FloatArray | None = None  # of the rows, where they are known exactly
        self.row_defect, self.reward_defect = 0.0, 0.0

    def drop_terminal_pairs(self) -> None:
        """Terminal states have no pairs."""
        counts = np.diff(self.pair_ptr)
        if not bool((counts[self.terminal] > 0).any()):
            return
        keep = np.repeat(~self.terminal, counts)  # [pairs]
        entries = np.repeat(keep, np.diff(self.indptr))  # [transitions]
        self.indptr = np.concatenate([[0], np.cumsum(np.diff(self.indptr)[keep])])
        self.indices, self.probability = self.indices[entries], self.probability[entries]
        self.reward, self.pair_action = self.reward[keep], self.pair_action[keep]
        if self.successor_reward is not None:
            self.successor_reward = self.successor_reward[entries]
        self.pair_ptr = np.concatenate([[0], np.cumsum(np.where(self.terminal, 0, counts))])

    def fold(self, tolerance: float) -> None:
        """Take rewards of transitions into the expected reward, with the row as it is meant.

        That is the row divided by its sum, unless the rest of a short row ends the episode. Sums
        have twice the precision of float64, so that large rewards may cancel; what even they
        lose is `reward_defect`.
        """
        lengths = np.diff(self.indptr)
        self.longest = int(lengths.max(initial=0))
        huge = float(self.probability.max(initial=0.0)) > 2.0**500  # refused by `complete_rows`
        if self.successor_reward is None or not len(lengths) or huge:
            return
        parts = self.successor_reward
        largest = float(np.abs(parts).max(initial=0.0))
        if not math.isfinite(largest):
            self._fold_not_finite(parts, lengths)
            return
        # A power of two, by which rewards of any size are scaled without rounding.
        scale = math.ldexp(1.0, min(max(math.frexp(largest)[1], -1021), 1023))
        scaled = parts / scale
        high, low = _row_sums(*_products(self.probability, scaled), lengths)
        mass, rest = _row_sums(self.probability, np.zeros_like(self.probability), lengths)
        self.sums = mass + rest
        # Within the tolerance a row is rescaled; `complete_rows` refuses or completes others.
        even = (lengths == 0) | (self.sums - 1.0 < -tolerance)
        mass, rest = np.where(even, 1.0, mass), np.where(even, 0.0, rest)
        ratio = high / mass
        product, error = _products(ratio, mass)
        ratio = ratio + (((high - product) - error) + (low - ratio * rest)) / mass
        pair = np.repeat(np.arange(len(lengths)), lengths)
        size = np.bincount(pair, self.probability * abs(scaled), len(lengths)) / mass
        levels = self.longest.bit_length() + 8.0
        lost = levels * levels * 4.0 * UNIT * UNIT * float(size.max(initial=0.0))
        self.reward_defect = (lost + self.longest * 2.0**-1070) * scale
        if bool(self.reward.any()):
            # Both kinds of reward: their sum rounds once more.
            folded = ratio * scale
            self.successor_reward = parts + np.repeat(self.reward, lengths)
            self.reward_defect += 2.0 * UNIT * float((abs(folded) + abs(self.reward)).max())
            self.reward = self.reward + folded
        else:
            self.reward = ratio * scale

    def _fold_not_finite(self, parts: FloatArray, lengths: IntArray) -> None:
        """Let the check of the rewards name the pair."""
        wrong = np.repeat(np.arange(len(lengths)), lengths)[~np.isfinite(parts)]
        self.reward = self.reward.copy()
        self.reward[wrong] = parts[~np.isfinite(parts)]

    def merge(self) -> None:
        """Sort each row, merge repeated successors, drop zeros.

        Repeated successors are how Gymnasium's tables come; Gauss-Seidel with solved
        self-loops is wrong when a row keeps them.
        """
        from scipy import sparse

        shape = (len(self.indptr) - 1, len(self.pair_ptr) - 1)
        rows = sparse.csr_array((self.probability, self.indices, self.indptr), shape=shape)
        zeros = len(self.probability) > 0 and float(self.probability.min()) == 0.0
        if rows.has_canonical_format and not zeros:
            return
        rows = rows.copy()
        self.merged = True
        parts = None
        if self.successor_reward is not None:
            mass = self.probability * self.successor_reward
            parts = sparse.csr_array((mass, rows.indices.copy(), rows.indptr.copy()), shape=shape)
            parts.sum_duplicates()
        rows.sum_duplicates()
        keep = rows.data > 0.0
        if parts is not None:
            mass = np.asarray(parts.data)[keep]
            self.successor_reward = mass / rows.data[keep]
        rows.eliminate_zeros()
        self.indptr, self.indices, self.probability = rows.indptr, rows.indices, rows.data

    def complete_rows(
        self, missing: str, tolerance: float, names: tuple[checks.Names, checks.Names]
    ) -> bool:
        """Check and rescale the row sums; True if a terminal state was appended."""
        from scipy import sparse

        shape = (len(self.indptr) - 1, len(self.pair_ptr) - 1)
        rows = sparse.csr_array((self.probability, self.indices, self.indptr), shape=shape)
        sums = rows @ np.ones(shape[1]) if self.sums is None else self.sums  # [pairs]
        defect = sums - 1.0
        wrong = (np.abs(defect) > tolerance) if missing == "refuse" else (defect > tolerance)
        if bool(wrong.any()):
            pair = int(np.flatnonzero(wrong)[0])
            place = checks.where(pair, self.pair_ptr, self.pair_action, *names)
            hint = '; missing="terminate" lets the rest end the episode' if sums[pair] < 1.0 else ""
            raise InvalidData(f"{place}: probabilities sum to {sums[pair]:.12g}, not 1{hint}")
        short = np.flatnonzero(defect < -tolerance)
        if len(short):
            self._append_end(short, -defect[short])
            sums[short] = 1.0
        # A row sum is only known to a few units of rounding; nothing smaller is worth a rescale.
        uneven = np.abs(sums - 1.0) > ROUNDED
        # The rounding of the sum, of merging repeated successors, and of the division.
        rounding = (self.longest - 1) * (2 if self.merged else 1) * UNIT * (1.0 + 1e-6)
        if bool(uneven.any()):
            self.probability = self.probability / np.repeat(
                np.where(uneven, sums, 1.0), np.diff(self.indptr)
            )
            sums[uneven] = 1.0
            # Numbers below 2^-1022 have fewer digits.
            smallest = max(float(self.probability.min(initial=1.0)), 2.0**-1074)
            rounding += 2.0 * UNIT + 2.0**-1074 / smallest
        self.row_defect = float(np.abs(sums - 1.0).max(initial=0.0)) + max(rounding, 0.0)
        return len(short) > 0

    def _append_end(self, short: IntArray, mass: FloatArray) -> None:
        end = len(self.pair_ptr) - 1
        at = self.indptr[short + 1]
        self.indices = np.insert(self.indices.astype(np.int64), at, end)
        self.probability = np.insert(self.probability, at, mass)
        if self.successor_reward is not None:
            # The mass that ends the episode carries no reward of its own.
            self.successor_reward = np.insert(self.successor_reward, at, 0.0)
        longer = np.zeros(len(self.indptr), dtype=np.int64)
        longer[short + 1] = 1
        self.indptr = self.indptr + np.cumsum(longer)
        self.pair_ptr = np.append(self.pair_ptr, self.pair_ptr[-1])
        self.terminal = np.append(self.terminal, True)

    def freeze(
        self, discount: float, initial: FloatArray | None, names: tuple[checks.Names, checks.Names]
    ) -> MDP:
        """The finished, read-only MDP."""
        largest = max(len(self.indices), len(self.pair_ptr))
        index = np.int32 if largest <= np.iinfo(np.int32).max else np.int64
        label = smallest_int(int(self.pair_action.max()) if len(self.pair_action) else 0)
        if names[1] is not None and len(self.pair_action):
            top = int(self.pair_action.max())
            if top >= len(names[1]):
                raise InvalidData(f"{len(names[1])} action names, but action {top} is used")
        parts = self.successor_reward
        return MDP(
            pair_ptr=frozen(self.pair_ptr.astype(index, copy=False)),
            indptr=frozen(self.indptr.astype(index, copy=False)),
            indices=frozen(self.indices.astype(index, copy=False)),
            probability=frozen(self.probability),
            reward=frozen(self.reward),
            discount=discount,
            terminal=frozen(self.terminal),
            pair_action=frozen(self.pair_action.astype(label, copy=False)),
            row_defect=self.row_defect,
            reward_defect=self.reward_defect,
            initial=None if initial is None else frozen(initial),
            successor_reward=None if parts is None else frozen(parts),
            state_names=names[0],
            action_names=names[1],
        )


def from_arrays(
    transition: npt.ArrayLike,
    reward: npt.ArrayLike,
    discount: float,
    *,
    layout: str,
    available: npt.ArrayLike | None,
    marks: Marks,
) -> MDP:
    """See `MDP.from_arrays`."""
    if layout not in ("ass", "sas"):
        raise InvalidSetting(
            f'layout="{layout}" is unknown; expected "ass" for [A, S, S] or "sas" for [S, A, S]'
        )
    dense = np.asarray(transition, dtype=np.float64)
    gain = np.asarray(reward, dtype=np.float64)
    if dense.ndim != 3:
        raise InvalidData(f"transitions have shape {dense.shape}, expected three dimensions")
    if gain.shape == dense.shape:
        gain = gain if layout == "sas" else gain.transpose(1, 0, 2)
    dense = dense if layout == "sas" else dense.transpose(1, 0, 2)  # [S, A, S]
    states, actions = dense.shape[0], dense.shape[1]
    if dense.shape[2] != states:
        raise InvalidData(
            f"transitions of layout {layout} have {states} states and {dense.shape[2]} "
            "successors; the last and the state dimension must agree"
        )
    usable = np.ones((states, actions), dtype=bool)
    if available is not None:
        usable = np.asarray(available, dtype=bool)
        if usable.shape != (states, actions):
            raise InvalidData(f"available has shape {usable.shape}, expected [S, A]")
    rows = dense[usable]  # [pairs, S], a copy
    pair, successor = np.nonzero(rows)
    expected, parts = None, None
    if gain.shape == (states, actions, states):
        parts = gain[usable][pair, successor]
    elif gain.shape == (states, actions):
        expected = gain[usable]
    elif gain.shape == (states,):
        expected = np.broadcast_to(gain[:, None], (states, actions))[usable]
    else:
        raise InvalidData(
            f"rewards have shape {gain.shape}, expected [{states}], [{states}, {actions}] or the "
            "shape of the transitions"
        )
    return from_pairs(
        np.concatenate([[0], np.cumsum(usable.sum(axis=1))]),
        np.concatenate([[0], np.cumsum(np.bincount(pair, minlength=len(rows)))]),
        successor,
        rows[pair, successor],
        expected,
        discount,
        pair_action=np.nonzero(usable)[1],
        successor_reward=parts,
        marks=marks,
    )


def from_sparse(
    transition: Sequence[Any],
    reward: Any,
    discount: float,
    marks: Marks,
) -> MDP:
    """See `MDP.from_sparse`."""
    from scipy import sparse

    matrices = [sparse.csr_array(matrix) for matrix in transition]
    if not matrices:
        raise InvalidData("no transition matrices; expected one [S, S] an action")
    states, actions = matrices[0].shape[0], len(matrices)
    for action, matrix in enumerate(matrices):
        if matrix.shape != (states, states):
            raise InvalidData(f"action {action}: matrix {matrix.shape}, expected [S, S]")
    stacked = sparse.vstack(matrices, format="csr")  # [A * S, S], action-major
    by_state = np.arange(actions * states).reshape(actions, states).T.ravel()
    usable = np.diff(stacked.indptr)[by_state] > 0
    order = by_state[usable]
    rows = stacked[order]
    listed = isinstance(reward, (list, tuple)) and all(sparse.issparse(r) for r in reward)
    expected, parts = None, None
    if listed:
        parts = _on_moves([sparse.csr_array(r) for r in reward], matrices, order, rows)
    else:
        gain = np.asarray(reward, dtype=np.float64)
        if gain.shape == (states,):
            gain = np.broadcast_to(gain[:, None], (states, actions))
        if gain.shape != (states, actions):
            raise InvalidData(
                f"rewards have shape {gain.shape}, expected [{states}] or [{states}, {actions}]"
            )
        expected = gain.ravel()[usable]
    return from_pairs(
        np.concatenate([[0], np.cumsum(usable.reshape(states, actions).sum(axis=1))]),
        rows.indptr,
        rows.indices,
        rows.data,
        expected,
        discount,
        pair_action=np.tile(np.arange(actions), states)[usable],
        successor_reward=parts,
        marks=marks,
    )


def _on_moves(reward: list[Any], transition: list[Any], order: IntArray, rows: Any) -> FloatArray:
    """The entries of reward matrices at the places that `rows`, the matrices in `order`, hold."""
    from scipy import sparse

    shapes = [r.shape for r in reward]
    if shapes != [t.shape for t in transition]:
        raise InvalidData(
            f"reward matrices have shapes {shapes}, expected those of the transitions"
        )
    gains = sparse.vstack(reward, format="csr")[order]
    gains.sum_duplicates()
    width = rows.shape[1]

    def places(matrix: Any) -> IntArray:
        row = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr))
        return np.asarray(row * width + matrix.indices)

    known, wanted = places(gains), places(rows)
    at = np.minimum(np.searchsorted(known, wanted), max(len(known) - 1, 0))
    if not len(known):
        return np.zeros(len(wanted))
    return np.where(known[at] == wanted, np.asarray(gains.data, dtype=np.float64)[at], 0.0)


def _integers(values: npt.ArrayLike, name: str) -> IntArray:
    array = np.ascontiguousarray(values)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        raise InvalidData(
            f"{name} has shape {array.shape} and type {array.dtype}; expected integers in one row"
        )
    if array.dtype.kind == "u" or not array.size:
        array = array.astype(np.int64)
    return array


def _names(names_or_none: Iterable[str] | None, count: int | None, what: str) -> checks.Names:
    if names_or_none is None:
        return None
    names = tuple(str(name) for name in names_or_none)
    if count is not None and len(names) != count:
        raise InvalidData(f"{len(names)} {what} names for {count} {what}s")
    return names


def _terminal(terminal: npt.ArrayLike | None, states: int) -> BoolArray:
    mask = np.zeros(states, dtype=np.bool_)
    if terminal is None:
        return mask
    return mask_of(terminal, states, "terminal")


def mask_of(states_or_mask: npt.ArrayLike, states: int, name: str) -> BoolArray:
    """A set of states, given as a mask [S] or as a list of states, as a mask [S]."""
    array = np.asarray(states_or_mask)
    if array.dtype == np.bool_:
        if array.shape != (states,):
            raise InvalidData(f"{name} mask has shape {array.shape}, expected [{states}]")
        return np.array(array)
    mask = np.zeros(states, dtype=np.bool_)
    if array.size:
        if array.dtype.kind not in "iu" or int(array.min()) < 0 or int(array.max()) >= states:
            raise InvalidData(f"{name}: expected a mask or states in 0..{states - 1}")
        mask[array.ravel()] = True
    return mask


def initial_of(initial: npt.ArrayLike | None, states: int) -> FloatArray | None:
    """The distribution [S] of the first state, given as one or as a state."""
    if initial is None:
        return None
    array = np.asarray(initial)
    start = np.zeros(states)
    if array.ndim == 0:
        if array.dtype.kind not in "iu" or not 0 <= int(array) < states:
            raise InvalidData(f"initial state {initial}: expected an integer in 0..{states - 1}")
        start[int(array)] = 1.0
        return start
    start = array.astype(np.float64)
    total = float(start.sum()) if start.shape == (states,) else float("nan")
    if not (abs(total - 1.0) <= 1e-9 and float(start.min()) >= 0.0):
        raise InvalidData(
            f"initial distribution of shape {array.shape} sums to {total}; expected shape "
            f"[{states}], nonnegative, sum 1"
        )
    # A sum is only known to a few units of rounding; nothing smaller is worth a rescale.
    return start / total if abs(total - 1.0) > ROUNDED else start


def _rewards(
    reward: npt.ArrayLike | None,
    successor_reward: npt.ArrayLike | None,
    pairs: int,
    transitions: int,
) -> tuple[FloatArray, FloatArray | None]:
    """The reward [pairs] (0 where there is none) and that of each transition, if any."""
    if reward is None and successor_reward is None:
        raise InvalidData("no rewards; give reward [pairs] or successor_reward [transitions]")
    expected = np.zeros(pairs)
    if reward is not None:
        expected = np.ascontiguousarray(reward, dtype=np.float64)
        if expected.shape != (pairs,):
            raise InvalidData(f"reward has shape {expected.shape}, expected [{pairs}] (pairs)")
    if successor_reward is None:
        return expected, None
    parts = np.ascontiguousarray(successor_reward, dtype=np.float64)
    if parts.shape != (transitions,):
        raise InvalidData(
            f"successor_reward has shape {parts.shape}, expected [{transitions}] (transitions)"
        )
    return expected, parts


def _products(a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    """a b without error, as a sum of two numbers (Veltkamp 1968, Dekker 1971); |a|, |b| < 2^990."""
    product = a * b
    pieces = []
    for x in (a, b):
        wide = 134217729.0 * x  # 2^27 + 1
        upper = wide - (wide - x)
        pieces += [upper, x - upper]
    a1, a2, b1, b2 = pieces
    return product, ((a1 * b1 - product) + a1 * b2 + a2 * b1) + a2 * b2


def _row_sums(
    high: FloatArray, low: FloatArray, lengths: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Sums [rows] of high + low over consecutive rows, as pairs of numbers (Knuth 1969).

    Neighbours in a row are added until one pair of numbers is left of each.
    """
    while len(lengths) and int(lengths.max()) > 1:
        starts = np.cumsum(lengths) - lengths
        halves = (lengths + 1) // 2
        row = np.repeat(np.arange(len(lengths)), halves)
        place = 2 * (np.arange(len(row)) - np.repeat(np.cumsum(halves) - halves, halves))
        left = starts[row] + place
        alone = place + 1 >= lengths[row]
        right = np.where(alone, left, left + 1)
        a, b = high[left], np.where(alone, 0.0, high[right])
        total = a + b
        other = total - a
        low = low[left] + np.where(alone, 0.0, low[right])
        low += (a - (total - other)) + (b - other)
        high, lengths = total, halves
    full = lengths > 0
    sums, rests = np.zeros(len(lengths)), np.zeros(len(lengths))
    sums[full], rests[full] = high, low
    return sums, rests
