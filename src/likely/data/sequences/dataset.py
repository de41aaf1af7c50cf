"""Sequences of different lengths, kept end to end, and the windows of them that a fit reads."""

from __future__ import annotations

import dataclasses
import hashlib
import operator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from likely.data.sequences.spec import (
    GIVEN_MISSING,
    MISSING,
    PADDING,
    SequenceSpec,
    clock_features,
    unscored,
)
from likely.data.spec import Batch, Condition, Dataset, IntArray, Split, digest_of
from likely.errors import InvalidData, InvalidSetting

if TYPE_CHECKING:
    from likely.files.inline import Shown


@dataclasses.dataclass(repr=False, eq=False)
class Sequences(Dataset):
    """Integer-coded sequences with their specification.

    It reads as an array of sequences: `len(data)`, `data[0]` (int64 [T, K]), `for x in data`.
    `batch` pads to the longest: integers in [0, levels), `PADDING` after the end, `MISSING` for
    what is not known, and -2 - v for a value v that is given and not scored (`GIVEN_MISSING` for
    one that is not known).

    Attributes:
        values: all steps of all sequences, int32 [sum T, K].
        offsets: where each sequence begins, int64 [N + 1], ascending from 0.
        lead: steps at the start of each sequence that are given and not scored, int64 [N]: what
            came before a split by time.
        start: place of the first step of each sequence on the clock, int64 [N].
        covariates: of each step, float32 [sum T, C], or None.
    """

    offsets: npt.NDArray[np.int64] = dataclasses.field(
        default_factory=lambda: np.zeros(1, np.int64)
    )
    lead: npt.NDArray[np.int64] = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    start: npt.NDArray[np.int64] = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    covariates: npt.NDArray[np.float32] | None = None

    spec: SequenceSpec
    together: ClassVar[int] = 16

    def __post_init__(self) -> None:
        spec, n = self.spec, self.spec.n
        levels = np.array([column.levels for column in spec.columns])
        if self.values.dtype != np.int32 or self.values.shape[1:] != spec.shape:
            raise InvalidData(
                f"{spec.name}: expected int32 values of {spec.shape[0]} columns, given "
                f"{self.values.dtype} {self.values.shape}"
            )
        if not len(self.lead):
            self.lead = np.zeros(n, np.int64)
        if not len(self.start):
            self.start = np.zeros(n, np.int64)
        lengths = np.diff(self.offsets)
        whole = len(lengths) == n and len(self.values) == self.offsets[-1]
        if not whole or (lengths <= self.lead).any():
            raise InvalidData(
                f"{spec.name}: {n} sequences need {n + 1} ascending offsets that end at "
                f"{len(self.values)}, and at least one step each"
            )
        wrong = (self.values != MISSING) & ((self.values < 0) | (self.values >= levels))
        if wrong.any():
            step, column = np.argwhere(wrong)[0]
            raise InvalidData(
                f"{spec.name}: {self.values[step, column]} in column {spec.columns[column].name} "
                f"is not in [0, {levels[column]})"
            )
        if self.labels is not None and self.labels.shape != (n,):
            raise InvalidData(f"{spec.name}: expected {n} labels, given {self.labels.shape}")
        wanted = (len(self.values), len(spec.covariates))
        if spec.covariates and (self.covariates is None or self.covariates.shape != wanted):
            raise InvalidData(f"{spec.name}: expected covariates of shape {wanted}")

    def __getitem__(self, index: Any) -> IntArray:
        """The sequence at a number, its lead included, int64 [T, K]; padded, those of a slice."""
        if isinstance(index, slice | np.ndarray | list):
            return self.batch(index if isinstance(index, slice) else np.asarray(index)).x
        index = operator.index(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.spec.name} has {len(self)} sequences, no number {index}")
        index %= len(self)
        return self.values[self.offsets[index] : self.offsets[index + 1]].astype(np.int64)

    @property
    def x(self) -> IntArray:
        """All sequences, padded, int64 [N, longest, K]."""
        return self.batch(slice(None)).x

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Scored steps of each sequence, [N]."""
        return np.diff(self.offsets) - self.lead

    def numbers(self, index: int) -> npt.NDArray[np.float64]:
        """A sequence in the units of its columns, [T, K]; NaN where a value is missing."""
        x = self[index]
        columns = [c.numbers(x[:, k]) for k, c in enumerate(self.spec.columns)]
        return np.stack(columns, 1)

    def __repr__(self) -> str:
        s = self.spec
        return f"Sequences({s}, fingerprint={s.fingerprint})"

    def _repr_html_(self) -> str:
        from likely.files.inline import fragment, line

        lattices = "; ".join(f"{c.name}: {c.words}" for c in self.spec.columns[:8])
        return fragment(line(self.spec), line(lattices, muted=True), self._charts(4, 2))

    def show(self, n: int = 6, *, columns: int | None = 2) -> Shown:
        """The first sequences as curves, or as rolls where every column is a key.

        A notebook shows it, and `.save("file.html")` writes it. Curves are in the units of the
        columns, of which the first six are drawn.

        Args:
            n: how many.
            columns: pictures per row.
        """
        from likely.files.inline import Shown, fragment, line

        return Shown(
            f"sequences of {self.spec.name}", fragment(line(self.spec), self._charts(n, columns))
        )

    def _charts(self, n: int, columns: int | None) -> str:
        from likely.files.charts import COLOURS, Panel, Series, line_chart
        from likely.files.sheets import data_uri, show

        kinds = {column.kind for column in self.spec.columns}
        keys, charts = kinds == {"binary"} and len(self.spec.columns) > COLOURS, []
        for index in range(min(n, len(self))):
            name = f"sequence {index}"
            if keys:
                roll = np.nan_to_num(self.numbers(index)).T[None, None, ::-1].astype(np.int64)
                charts.append(f'<img src="{data_uri(show(roll, 2))}" alt="{name}: keys over time">')
                continue
            numbers = self.numbers(index)
            lines = [Series(c.name, range(len(numbers)), numbers[:, k].tolist())
                     for k, c in enumerate(self.spec.columns[:COLOURS])]  # fmt: skip
            charts.append(line_chart(Panel(name, tuple(lines), self.spec.time_step, cut=False)))
        width = "" if columns is None else f' style="max-width:{400 * columns}px"'
        return f'<div class="charts"{width}>{"".join(f"<div>{c}</div>" for c in charts)}</div>'

    def fingerprint_given(self, condition: Condition) -> str:
        """Twelve hexadecimal digits of the sequences and of what log p of them is given."""
        if not condition:
            return self.spec.fingerprint
        if condition == "label" and self.labels is None:
            raise InvalidData(f"{self.spec.name} ({self.spec.split}) has no label")
        column = self.labels if condition == "label" else self.covariates
        plain = np.zeros(0) if column is None else column
        text = f"{self.spec.fingerprint} {condition} {digest_of(plain)}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def batch(self, index: npt.NDArray[np.int64] | slice, epoch: int = 0) -> Batch:
        """Whole sequences, padded to the longest: x int64 [B, T, K]; `epoch` changes nothing.

        `context` holds covariates and places on the clock, float32 [B, T, C], or is None.
        """
        index = self._positions(index)
        first, stop = self.offsets[index], self.offsets[index + 1]
        return self.cut(index, first, stop, first + self.lead[index])

    def cut(
        self,
        index: npt.NDArray[np.int64],
        first: npt.NDArray[np.int64],
        stop: npt.NDArray[np.int64],
        scored: npt.NDArray[np.int64],
    ) -> Batch:
        """Steps [first, stop) of `values` for each row, those before `scored` as given, padded."""
        longest = int((stop - first).max(initial=1))
        place = first[:, None] + np.arange(longest)  # [B, T]
        inside = place < stop[:, None]
        place = np.where(inside, place, 0)
        x = self.values[place].astype(np.int64)  # [B, T, K]
        x = np.where((place < scored[:, None])[..., None], unscored(x), x)
        x[~inside] = PADDING
        context = None
        if self.spec.context_dimensions:
            parts = [] if self.covariates is None else [self.covariates[place]]
            clock = place - self.offsets[index, None] + self.start[index, None]
            context = np.concatenate([*parts, clock_features(clock, self.spec.clock)], -1)
        label = None if self.labels is None else self.labels[index]
        return Batch(x, label, index, context)

    def units(self, count: int) -> int:
        """Scored steps of the first `count` sequences."""
        return int(self.lengths[:count].sum())

    def pixel_mean(self, limit: int = 10_000) -> npt.NDArray[np.float64]:
        """Mean of each column over the steps that are known, [K]."""
        del limit
        known = self.values >= 0
        return np.asarray((self.values * known).sum(0) / known.sum(0).clip(1))

    def take(self, index: npt.NDArray[np.int64] | slice, split: Split | None = None) -> Sequences:
        """The sequences at `index` as a data set of their own (with its own fingerprint)."""
        index = self._positions(index)
        rows = [np.arange(self.offsets[i], self.offsets[i + 1]) for i in index]
        place = np.concatenate(rows) if rows else np.zeros(0, np.int64)
        values = np.ascontiguousarray(self.values[place])
        lead, lengths = self.lead[index], np.array([len(r) for r in rows], np.int64)
        spec = dataclasses.replace(
            self.spec,
            n=len(index),
            split=split or self.spec.split,
            digest=digest_of(values),
            steps=int((lengths - lead).sum()),
            longest=int((lengths - lead).max(initial=0)),
            missing=int((values == MISSING).sum()),
        )
        return dataclasses.replace(
            self,
            spec=spec,
            values=values,
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            lead=lead,
            start=self.start[index],
            covariates=None if self.covariates is None else self.covariates[place],
            labels=None if self.labels is None else self.labels[index],
            validation=None,
            source=None,
        )


class Windows(Sequences):
    """Windows of the sequences that a fit reads: each sequence cut into pieces of equal length.

    A piece is preceded by up to `before` steps that are given and not scored, so that no state
    begins in the middle of a sequence; every step of the data is scored once an epoch.
    Where cuts are depends on the epoch. With `transpose` = s a window of music is moved by a
    number of semitones drawn from -s..s, as far as all its notes stay in range.

    Raises:
        InvalidSetting: no steps in a window, or numbers that would be moved as if they were notes.
    """

    def __init__(self, data: Sequences, length: int, before: int, transpose: int = 0) -> None:
        if length < 1 or before < 0 or transpose < 0:
            raise InvalidSetting(f"windows of {length} steps after {before}: expected 1 or more")
        columns = data.spec.columns
        if transpose and {c.kind for c in columns} not in ({"binary"}, {"categorical"}):
            words = " and ".join(dict.fromkeys(column.words for column in columns))
            raise InvalidSetting(
                f"transpose={transpose} is of music, binary keys or categorical pitches; the "
                f"columns here are {words}: leave it at 0"
            )
        super().__init__(**{f.name: getattr(data, f.name) for f in dataclasses.fields(Sequences)})
        self.length, self.before, self.transpose = length, before, transpose
        counts = -(-data.lengths // length)  # of windows
        self.sequence = np.repeat(np.arange(len(counts)), counts)  # of each window
        self.number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        self.counts = counts

    def __len__(self) -> int:
        return len(self.sequence)

    def batch(self, index: npt.NDArray[np.int64] | slice, epoch: int = 0) -> Batch:
        """Windows, padded; a function of (index, epoch)."""
        index = self._positions(index)
        i, number = self.sequence[index], self.number[index]
        # Equal pieces, the first one shortened by what the epoch draws for the sequence.
        shift = np.array([_draw(self.length, epoch, int(s), 0) for s in i])
        begin, stop = self.offsets[i] + self.lead[i], self.offsets[i + 1]
        slack = self.counts[i] * self.length - self.lengths[i]  # the last piece may be short
        shift = np.minimum(shift, slack)
        scored = np.maximum(begin + number * self.length - shift, begin)
        last = np.minimum(begin + (number + 1) * self.length - shift, stop)
        batch = self.cut(i, np.maximum(scored - self.before, self.offsets[i]), last, scored)
        if self.transpose:
            for row, (sequence, piece) in enumerate(zip(i, number, strict=True)):
                drawn = _draw(2 * self.transpose + 1, epoch, int(sequence), int(piece) + 1)
                batch.x[row] = transposed(batch.x[row], drawn - self.transpose, self.spec)
        return batch


def transposed(x: npt.NDArray[Any], semitones: int, spec: SequenceSpec) -> npt.NDArray[Any]:
    """Music moved by semitones, or as it is where a note would leave the range.

    Binary columns are keys, side by side; a categorical column is a voice: 0 silent, then pitches.
    """
    known = (x <= -2) & (x > MISSING)
    value = np.where(known, -2 - x, x.clip(min=MISSING))  # what is given, as what is scored
    if all(column.kind == "binary" for column in spec.columns):
        lost = value[:, -semitones:] if semitones > 0 else value[:, :-semitones]
        if not semitones or (lost > 0).any():
            return x
        moved = np.roll(value, semitones, 1)
        moved = np.where(value == PADDING, PADDING, moved)
    else:
        note = value > 0
        moved = np.where(note, value + semitones, value)
        top = np.array([column.levels for column in spec.columns])
        if (note & ((moved < 1) | (moved >= top))).any():
            return x
    lead = (known | (x == GIVEN_MISSING)).any(1, keepdims=True)
    return np.where(lead, unscored(moved), moved)


def _draw(below: int, *key: int) -> int:
    """A whole number in [0, below), a function of the key."""
    words = np.array([key[0] << 32 | key[1], key[2]], np.uint64)
    return int(np.random.Philox(key=words).random_raw()) % below
