"""Numbers over time as `Sequences`: columns coded on their lattice, split by time or by sequence.

Windows are never shuffled between the splits: a single series is cut at two moments, several are
divided as wholes. What came before a cut is given to the later part and scored in the earlier one.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from likely.data.sequences.dataset import Sequences
from likely.data.sequences.lattice import find_lattice
from likely.data.sequences.spec import KINDS, MISSING, Column, Kind, SequenceSpec
from likely.data.spec import TEST_SEED, Split, digest_of, hold_out, validation_size
from likely.errors import InvalidData, InvalidSetting, nearest

Numbers = npt.NDArray[Any]

# Steps before a split by time that the later part is given.
LEAD = 1024
# Whole numbers with so few values have no order that a model must know.
FEW = 24
_SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def from_sequences(
    series: Sequence[npt.ArrayLike],
    *,
    name: str = "sequences",
    columns: Sequence[str] = (),
    kinds: Mapping[str, Kind] | None = None,
    labels: npt.ArrayLike | None = None,
    covariates: Sequence[npt.ArrayLike] = (),
    covariate_names: Sequence[str] = (),
    time_step: str = "step",
    clock: tuple[int, ...] = (),
    start: int = 0,
    split: tuple[int, int] | None = None,
) -> tuple[Sequences, Sequences]:
    """Arrays in memory as sequences.

    Args:
        series: a sequence each, numbers or words [T, K] or [T]; lengths may differ. NaN (or an
            empty word) is missing.
        name: of the data.
        columns: their names.
        kinds: of columns by name, where the data does not say it: {"direction": "angle"}, in
            degrees.
        labels: class of each sequence, [N].
        covariates: numbers of each step that are known beforehand, [T, C] for each sequence.
        covariate_names: theirs; c0, c1 and so on by default.
        time_step: what a step is, as "hour".
        clock: periods in steps that a model is told its place in, as (24,).
        start: place of the first step on the clock.
        split: (training, validation) steps of a single series, or sequences of several in their
            order; the others are the test set. By default three fifths and a fifth of a single
            series; of several a sixth each is held out by a fixed seed.

    Returns:
        Training set, whose `.validation` is held out, and test set.

    Raises:
        InvalidData: shapes that do not fit together, or too few steps to split.
        InvalidSetting: a kind that the values of a column do not have.

    >>> train, test = from_sequences([np.arange(50) % 5])
    >>> train.spec.columns[0].words, train.spec.rule
    ('categorical, 5 values', 'by time: 30, 10 and 10 steps')
    """
    arrays = [_matrix(each, name) for each in series]
    if not arrays or any(a.shape[1] != arrays[0].shape[1] or not len(a) for a in arrays):
        raise InvalidData(f"{name}: expected sequences of at least a step and equal columns")
    width = arrays[0].shape[1]
    names = tuple(columns) or tuple(f"x{k}" for k in range(width))
    if len(names) != width or len(set(names)) != width:
        raise InvalidData(f"{name}: {len(names)} names for {width} columns: {', '.join(names)}")
    unknown = [c for c in kinds or {} if c not in names]
    if unknown:
        raise InvalidSetting(f"{name}: no column is called {unknown[0]}; {', '.join(names)} are")
    whole = np.concatenate(arrays)
    coded = [
        coded_column(whole[:, k], column, (kinds or {}).get(column))
        for k, column in enumerate(names)
    ]
    values = np.stack([v for _, v in coded], 1).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum([len(a) for a in arrays])]).astype(np.int64)
    n, positions = len(arrays), None
    classes: tuple[str, ...] = ()
    if labels is not None:
        wanted = np.asarray(labels)
        if wanted.shape != (n,):
            raise InvalidData(f"{name}: expected {n} labels, given {wanted.shape}")
        names_of, positions = np.unique(wanted, return_inverse=True)
        classes = tuple(map(str, names_of))
    known = None
    if len(covariates):
        told = [_matrix(each, name) for each in covariates]
        if [len(each) for each in told] != [len(each) for each in arrays]:
            raise InvalidData(f"{name}: expected covariates [T, C] of each sequence, as long as it")
        known = np.concatenate(told).astype(np.float32)
        if not np.isfinite(known).all():
            raise InvalidData(f"{name}: a covariate is missing; covariates must be known")
        covariate_names = covariate_names or [f"c{k}" for k in range(known.shape[1])]
    spec = SequenceSpec(
        name,
        (width,),
        max(column.levels for column, _ in coded),
        n=n,
        digest=digest_of(values),
        classes=classes,
        columns=tuple(column for column, _ in coded),
        steps=len(values),
        longest=int(np.diff(offsets).max()),
        time_step=time_step,
        missing=int((values == MISSING).sum()),
        clock=tuple(clock),
        covariates=tuple(covariate_names),
    )
    data = Sequences(
        spec, values, positions, offsets=offsets, start=np.full(n, start), covariates=known
    )
    return by_time(data, split) if n == 1 else by_sequence(data, split)


def _matrix(values: npt.ArrayLike, name: str) -> Numbers:
    array = np.asarray(values)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.dtype.kind not in "biufUO":
        raise InvalidData(f"{name}: expected numbers or words [T, K], given {array.dtype} "
                          f"{array.shape}")  # fmt: skip
    return array


def known_of(numbers: npt.NDArray[np.float64], what: str) -> npt.NDArray[np.bool_]:
    """Where numbers are known, which is where they are not NaN.

    Raises:
        InvalidData: an infinite number, which is neither a value nor a missing one.
    """
    infinite = np.isinf(numbers)
    if infinite.any():
        raise InvalidData(
            f"{what}, row {int(np.argmax(infinite))}: an infinite number; leave empty (NaN) what "
            "is missing"
        )
    return np.asarray(~np.isnan(numbers))


def coded_column(
    values: Numbers, name: str, kind: Kind | None = None
) -> tuple[Column, npt.NDArray[np.int64]]:
    """A column and its integers, int64 [T]; `MISSING` where a number is no number."""
    if kind is not None and kind not in KINDS:
        raise InvalidSetting(f"{name}: {nearest(kind, KINDS)} (kind of a column)")
    if values.dtype.kind == "O" and not any(isinstance(v, str) for v in values):
        try:
            values = values.astype(np.float64)  # beside a column of words
        except (TypeError, ValueError) as error:
            raise InvalidData(f"{name}: expected numbers or words ({error})") from error
    if values.dtype.kind in "UO":
        words = words_of(values)
        known = words != ""
        names, position = np.unique(words[known], return_inverse=True)
        integers = np.full(len(words), MISSING, np.int64)
        integers[known] = position
        size = max(2, len(names))
        word_kind: Kind = "binary" if size == 2 else "categorical"
        if kind not in (None, "categorical", word_kind):
            raise InvalidSetting(f"{name}: a column of {len(names)} words is not {kind}")
        return Column(name, word_kind, size, names=tuple(map(str, names))), integers
    if kind == "binary" and values.dtype.kind in "bu" and values.max(initial=0) <= 1:
        return Column(name, kind, 2), values.astype(np.int64)
    numbers = values.astype(np.float64)
    known = known_of(numbers, name)
    if kind == "angle":
        lattice = find_lattice(numbers)
        step = lattice.step if lattice.exact and lattice.step >= 1 else 1.0
        levels = max(2, round(360.0 / step))
        turned = np.rint(numbers[known] / (360.0 / levels)).astype(np.int64) % levels
        column = Column(name, "angle", levels, 0.0, 360.0 / levels, lattice.residual)
        return column, _placed(known, turned)
    lattice = find_lattice(numbers)
    integers = lattice.integers(numbers[known])
    whole = lattice.exact and lattice.step == round(lattice.step)
    if kind is None and lattice.exact and lattice.levels <= 2:
        kind = "binary"
    elif kind is None and whole and lattice.levels <= FEW:
        kind = "categorical"
    if kind in ("binary", "categorical", "lattice") and not lattice.exact:
        raise InvalidSetting(f"{name}: numbers without a lattice are not {kind}")
    if kind in ("binary", "categorical"):
        levels = max(2, lattice.levels)
        column = Column(name, kind, levels, lattice.offset, lattice.step, lattice.residual)
        return column, _placed(known, integers)
    # Room on both sides: the range of the file is no bound of what may come.
    span = lattice.levels
    column = Column(
        name,
        kind or ("lattice" if lattice.exact else "continuous"),
        3 * span,
        lattice.offset - span * lattice.step,
        lattice.step,
        lattice.residual,
    )
    return column, _placed(known, integers + span)


def words_of(values: npt.NDArray[Any]) -> npt.NDArray[np.str_]:
    """Words without blanks at their ends, [T]; empty where there is None or NaN."""
    return np.array(["" if v is None or v != v else str(v).strip() for v in values])


def _placed(known: npt.NDArray[np.bool_], values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    integers = np.full(len(known), MISSING, np.int64)
    integers[known] = values
    return integers


def by_time(data: Sequences, split: tuple[int, int] | None = None) -> tuple[Sequences, Sequences]:
    """A single series cut at two moments; the later parts are given what came before."""
    total = len(data.values)
    first, second = split or (total * 3 // 5, total // 5)
    cuts = (0, first, first + second, total)
    if min(np.diff(cuts)) < 1:
        raise InvalidData(
            f"{data.spec.name}: {total} steps cannot be split into {first}, {second} and "
            f"{total - first - second}"
        )
    sizes = [b - a for a, b in itertools.pairwise(cuts)]
    rule = f"by time: {sizes[0]:,}, {sizes[1]:,} and {sizes[2]:,} steps"
    parts = [_period(data, cuts[i], cuts[i + 1], name, rule) for i, name in enumerate(_SPLITS)]
    train, train.validation, test = parts
    return train, test


def _period(data: Sequences, begin: int, stop: int, split: Split, rule: str) -> Sequences:
    """Steps [begin, stop) of a single series, after as many as are given."""
    lead = min(begin, LEAD)
    first = begin - lead
    values = np.ascontiguousarray(data.values[first:stop])
    spec = dataclasses.replace(
        data.spec,
        split=split,
        rule=rule,
        digest=digest_of(values),
        steps=stop - begin,
        longest=stop - begin,
        missing=int((values[lead:] == MISSING).sum()),
    )
    return dataclasses.replace(
        data,
        spec=spec,
        values=values,
        offsets=np.array([0, stop - first]),
        lead=np.array([lead]),
        start=data.start + first,
        covariates=None if data.covariates is None else data.covariates[first:stop],
    )


def by_sequence(
    data: Sequences, split: tuple[int, int] | None = None
) -> tuple[Sequences, Sequences]:
    """Whole sequences, divided by a fixed seed, or in their order where counts are given."""
    n = len(data)
    if split is None:
        size = max(1, validation_size(n))
        if n < 3:
            raise InvalidData(f"{data.spec.name}: {n} sequences cannot be split in three")
        rest, test = hold_out(n, size, TEST_SEED)
        stay, kept = hold_out(len(rest), size)
        index = [rest[stay], rest[kept], test]
        rule = "by sequence, at random by a fixed seed"
    else:
        cuts = (0, split[0], split[0] + split[1], n)
        index = [np.arange(a, b) for a, b in itertools.pairwise(cuts)]
        rule = "by sequence, as published"
    if min(map(len, index)) < 1:
        raise InvalidData(f"{data.spec.name}: {n} sequences cannot be split into {split} and rest")
    whole = dataclasses.replace(data, spec=dataclasses.replace(data.spec, rule=rule))
    train, train.validation, test_part = (
        whole.take(part, name) for part, name in zip(index, _SPLITS, strict=True)
    )
    return train, test_part
