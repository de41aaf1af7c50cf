"""Files of sequences coded by the columns that a model was built for.

A new table is not asked for its own lattice: its numbers are placed on that of the model's data, in
the order of the file, all of them, without a split.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from likely.data.sequences import files
from likely.data.sequences.dataset import Sequences
from likely.data.sequences.spec import MISSING, Column, SequenceSpec
from likely.data.sequences.splits import known_of, words_of
from likely.data.spec import digest_of
from likely.errors import InvalidData, InvalidSetting, nearest

# A number may be off its level by so much of a step, or by what those of the model's data were.
OFF = 0.02


def code(column: Column, values: npt.NDArray[np.generic], what: str) -> npt.NDArray[np.int64]:
    """Integers of numbers or words in a column, int64 [T]; `MISSING` where there is none.

    Raises:
        InvalidData: a value that is off the column's lattice or range, or no name of its.
    """
    out = np.full(len(values), MISSING, np.int64)
    if column.names:
        words = words_of(values)
        place = {name: number for number, name in enumerate(column.names)}
        for at in np.flatnonzero(words != ""):
            if words[at] not in place:
                raise InvalidData(f"{what}, row {at}: {nearest(words[at], column.names)}")
            out[at] = place[words[at]]
        return out
    try:
        numbers = values.astype(np.float64)
    except ValueError as error:
        raise InvalidData(f"{what}: expected numbers ({error})") from error
    known = known_of(numbers, what)
    level = (numbers[known] - column.offset) / column.step
    if column.kind == "angle":
        level = level % column.levels
    whole = np.rint(level).astype(np.int64)
    allowed = max(OFF, 1.5 * column.residual / column.step)
    off = (np.abs(level - whole) > allowed) & (column.kind != "continuous")
    whole = whole % column.levels if column.kind == "angle" else whole
    wrong = off | (whole < 0) | (whole >= column.levels)
    if wrong.any():
        row = int(np.flatnonzero(known)[np.argmax(wrong)])
        top = column.offset + column.step * (column.levels - 1)
        raise InvalidData(
            f"{what}, row {row}: {numbers[row]:.10g} is not on the lattice of the model's data, "
            f"from {column.offset:.6g} to {top:.6g} in steps of {column.step:.6g}"
        )
    out[known] = whole
    return out


def read_like(
    path: Path, spec: SequenceSpec, *, time: str | None = None, series: str | None = None
) -> Sequences:
    """All sequences of a file, in its order, coded by the columns of `spec`.

    Args:
        path: a table (.csv, .csv.gz, .tsv, .parquet), .npz (x and len, or train_x, ...) or .mat.
        spec: of the data that a model was built for.
        time: column of a table with the time of each step; one of a usual name by default. Times
            must ascend; of hours and days they tell the place on the clock.
        series: column of a table that tells its series apart; one called "series" by default.

    Raises:
        InvalidData: columns that are lacking, values off their lattice, times out of order.
    """
    name = path.name.lower()
    start, covariates = np.zeros(1, np.int64), None
    if name.endswith((".csv", ".csv.gz", ".tsv", ".parquet")):
        table = files.read_table(path)
        wanted = [*(c.name for c in spec.columns), *spec.covariates]
        for column in wanted:
            if column not in table:
                raise InvalidData(f"{path}: no column {column}: {nearest(column, table)}")
        parts = rows_of(table, path, wanted, time, series)
        start = _start(table, path, wanted, time, spec, parts)
        arrays = [np.stack([table[c.name][rows].astype(object) for c in spec.columns], 1)
                  for rows in parts]  # fmt: skip
        if spec.covariates:
            rows = np.concatenate(parts)
            covariates = np.stack([table[c][rows] for c in spec.covariates], 1).astype(np.float32)
    elif time or series:
        raise InvalidSetting(f"time and series columns are of tables; {path.name} is none")
    elif name.endswith(".mat"):
        arrays = [roll for part in files.rolls(path) for roll in part]
    elif name.endswith(".npz"):
        arrays = [each for part in files.parts_of_npz(path) for each in part]
    else:
        raise InvalidSetting(f"{path}: expected a table (.csv, .tsv, .parquet), .npz or .mat")
    width = len(spec.columns)
    arrays = [a[:, None] if a.ndim == 1 else a for a in arrays]
    if not arrays or any(a.shape[1] != width or not len(a) for a in arrays):
        raise InvalidData(f"{path}: expected sequences of {width} columns, as {spec.name}")
    whole = np.concatenate(arrays)
    coded = [code(c, whole[:, k], f"{path}, column {c.name}") for k, c in enumerate(spec.columns)]
    values = np.stack(coded, 1).astype(np.int32)
    lengths = [len(a) for a in arrays]
    coded_as = dataclasses.replace(
        spec, name=path.name.partition(".")[0], n=len(arrays), split="test", classes=(),
        digest=digest_of(values), steps=len(values), longest=max(lengths), rule="the whole file",
        missing=int((values == MISSING).sum()),
    )  # fmt: skip
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Sequences(
        coded_as,
        values,
        offsets=offsets,
        start=np.broadcast_to(start, len(arrays)).copy(),
        covariates=covariates,
    )


def times(
    path: Path, spec: SequenceSpec, *, time: str | None = None, series: str | None = None
) -> list[list[str]] | None:
    """The time of each step of each sequence of a table, as it is written; None without one."""
    if not path.name.lower().endswith((".csv", ".csv.gz", ".tsv", ".parquet")):
        return None
    table = files.read_table(path)
    taken = [*(c.name for c in spec.columns), *spec.covariates]
    time = time or files.time_column(table, taken)
    if time is None:
        return None
    rows = rows_of(table, path, taken, time, series)
    return [[str(value) for value in table[time][part]] for part in rows]


def rows_of(
    table: files.Table, path: Path, taken: Sequence[str], time: str | None, series: str | None
) -> list[npt.NDArray[np.int64]]:
    """Rows of each series, in the order of the file."""
    rows = np.arange(len(next(iter(table.values()))))
    series = series or ("series" if "series" in table and "series" not in taken else None)
    if series is not None and series not in table:
        raise InvalidSetting(f"{path}: no column {series}: {nearest(series, table)}")
    groups = [rows]
    if series is not None:
        _, first, of = np.unique(table[series], return_index=True, return_inverse=True)
        groups = [np.flatnonzero(of == g) for g in np.argsort(first)]
    time = time or files.time_column(table, taken)
    if time is not None:
        moments = files.moments(table[time], f"{path}, column {time}")
        for group in groups:
            if (np.diff(moments[group]) <= 0).any():
                row = int(group[1:][np.argmax(np.diff(moments[group]) <= 0)])
                raise InvalidData(
                    f"{path}, row {row}: column {time} does not ascend; sort the table, or name "
                    "the column that tells its series apart (--series-column)"
                )
    return groups


def _start(
    table: files.Table, path: Path, taken: Sequence[str], time: str | None, spec: SequenceSpec,
    parts: Sequence[npt.NDArray[np.int64]],
) -> npt.NDArray[np.int64]:  # fmt: skip
    """Place of the first row of each series on the clock, where times are dates."""
    time = time or files.time_column(table, taken)
    if not spec.clock or time is None or table[time].dtype.kind not in "UOM":
        return np.zeros(len(parts), np.int64)
    moments = files.moments(table[time], f"{path}, column {time}")
    seconds = 86400 / spec.clock[0]
    for rows in parts:
        apart = np.diff(moments[rows])
        off = np.abs(apart - seconds * np.rint(apart / seconds)) > 1e-3 * seconds
        if off.any():
            raise InvalidData(
                f"{path}, row {int(rows[1:][np.argmax(off)])}: {apart[np.argmax(off)]:g} seconds "
                f"after the one before; a step of the model's data is {seconds:g} seconds"
            )
    first = np.array([moments[rows[0]] for rows in parts]).round().astype(np.int64)
    return np.asarray(first * spec.clock[0] // 86400 % spec.clock[0])
