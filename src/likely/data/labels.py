"""Labels: positions in the names of the classes that occur.

Classes are identified by name ("7", "cat"), never by number alone, so that data sets whose labels
begin at 1, skip numbers or lack a class in one split still agree on the classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from likely.data.spec import Dataset, Split
from likely.errors import InvalidData, InvalidSetting, nearest

MAX_CLASSES = 65536
"""Labels of more different values than this are ids, not classes."""

Labels = npt.NDArray[np.int64]
_REMEDY = "leave such examples out, or give no labels"


def coded(
    labels: Any, n: int, classes: Sequence[object], name: str
) -> tuple[Labels, tuple[str, ...]]:
    """Labels as positions in the names of their classes.

    Args:
        labels: [n] integers of any size, booleans or strings.
        n: number of examples.
        classes: names, in the order wanted; () for those that occur, numbers in numerical order.
            Strings, and integers where all names are whole numbers, are found by name; other
            integers are positions in `classes`.
        name: of the data, for messages.

    Returns:
        Positions, int64 [n], and the names.

    Raises:
        InvalidData: other types, a missing label, or one that `classes` does not have.
        InvalidSetting: the names of `classes` are not different.
    """
    names = tuple(map(str, classes))
    if len(set(names)) < len(names):
        twice = next(entry for entry in names if names.count(entry) > 1)
        raise InvalidSetting(f'{name}: two classes are called "{twice}"; give each its own name')
    array = np.asarray(labels)
    if array.shape != (n,):
        raise InvalidData(f"{name}: expected {n} labels, one per example, given {array.shape}")
    if array.dtype.kind not in "iub":
        array = _plain(array, name)
    values, inverse = np.unique(array, return_inverse=True)
    if len(values) > MAX_CLASSES:
        raise InvalidData(
            f"{name}: {len(values)} different labels for {n} examples, more than {MAX_CLASSES}; "
            "these are ids, not classes: leave the labels out, or map them to classes"
        )
    present = values.tolist()
    if not names:
        if array.dtype.kind not in "US":
            _refuse_unlabelled(array, present, name)
        names = ordered(map(str, present))
    where = {entry: position for position, entry in enumerate(names)}
    by_name = array.dtype.kind == "U" or all(map(_is_whole, names))
    by_name = by_name or (array.dtype.kind == "b" and {"True", "False"} <= where.keys())
    table = np.empty(len(present), np.int64)
    for row, value in enumerate(present):
        position = where.get(str(value), -1) if by_name else int(value)
        if not 0 <= position < len(names):
            first = int(np.flatnonzero(inverse == row)[0])
            expected = nearest(str(value), names) if by_name else f"expected 0 to {len(names) - 1}"
            raise InvalidData(
                f"{name}: labels: {value} at index {first} is none of the {len(names)} classes; "
                f"{expected}"
            )
        table[row] = position
    return table[inverse.reshape(n)], names


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Different names in order: numerical where all are whole numbers, else alphabetical."""
    different = set(names)
    if all(map(_is_whole, different)):
        return tuple(sorted(different, key=int))
    return tuple(sorted(different))


def united(parts: dict[Split, Dataset]) -> dict[Split, Dataset]:
    """The same splits with one naming of the classes, that of all their labels."""
    namings = {part.spec.classes for part in parts.values() if part.spec.classes}
    if not namings:
        return parts
    classes = namings.pop() if len(namings) == 1 else ordered(n for some in namings for n in some)
    return {split: relabelled(part, classes) for split, part in parts.items()}


def relabelled(data: Dataset, classes: tuple[str, ...]) -> Dataset:
    """The same examples with their labels as positions in these names; its validation too.

    Raises:
        InvalidData: an example is of a class that is not among these.
    """
    spec, labels, validation = data.spec, data.labels, data.validation
    if validation is not None:
        validation = relabelled(validation, classes)
    if spec.classes == classes and validation is data.validation:
        return data
    if labels is not None and spec.classes and spec.classes != classes:
        numbers = np.asarray(labels)
        occurring = np.unique(numbers)
        where = {entry: position for position, entry in enumerate(classes)}
        names = [spec.classes[number] for number in occurring]
        unknown = [entry for entry in names if entry not in where]
        if unknown:
            raise InvalidData(
                f"{spec.name} ({spec.split}) has examples of the class {_quoted(unknown)}, which "
                f"is none of {_quoted(classes)}; leave these out, or give both the same classes"
            )
        table = np.array([where[entry] for entry in names], np.int64)
        labels = table[np.searchsorted(occurring, numbers)]
    spec = dataclasses.replace(spec, classes=classes)
    return dataclasses.replace(data, spec=spec, labels=labels, validation=validation)


def unseen(train: Dataset, other: Dataset) -> list[str]:
    """Classes with examples in another split and none for training."""
    if train.labels is None or other.labels is None or train.spec.classes != other.spec.classes:
        return []
    classes = train.spec.classes
    return [classes[i] for i in np.setdiff1d(other.labels, train.labels) if i < len(classes)]


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f", ... ({len(names)} in all)" if len(names) > 10 else "")


def _is_whole(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and str(int(text)) == text


def _plain(array: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """Strings, or integers of any size, of an array of another type; or the reason why not."""
    if array.dtype.kind == "f":
        wrong = np.flatnonzero(~np.isfinite(array))
        if len(wrong):
            raise InvalidData(
                f"{name}: labels: {array[wrong[0]]} at index {wrong[0]}; every example needs a "
                f"label: {_REMEDY}"
            )
    if array.dtype.kind not in "USTO":
        raise InvalidData(
            f"{name}: labels of the type {array.dtype}; expected integers, booleans or strings "
            "(as labels.astype(int) gives)"
        )
    entries = array.tolist()
    if array.dtype.kind == "S":
        entries = [entry.decode("utf-8", "backslashreplace") for entry in entries]
    kind: type = str if isinstance(entries[0], str) else int
    for index, entry in enumerate(entries):
        if entry is None or entry != entry or entry == "":
            raise InvalidData(
                f"{name}: labels: {entry!r} at index {index}; it needs a label: {_REMEDY}"
            )
        if not isinstance(entry, kind if kind is str else int | np.integer):
            raise InvalidData(
                f"{name}: labels: {entry!r} at index {index} is a {type(entry).__name__}; expected "
                "integers, booleans or strings, all of one type"
            )
    if kind is str:
        return np.array(entries, dtype=np.str_)
    return np.array([int(entry) for entry in entries], dtype=object)


def _refuse_unlabelled(array: npt.NDArray[Any], present: list[int], name: str) -> None:
    """-1 among numbers that count from 0 or 1 marks an example without a label."""
    if min(present) == -1 and array.dtype.kind in "iO" and present != [-1, 1]:
        first = int(np.flatnonzero(array == -1)[0])
        names = ", ".join(f'"{value}"' for value in present[:3])
        raise InvalidData(
            f"{name}: labels: -1 at index {first} marks an example without a label: {_REMEDY}; "
            f"where -1 is a class, name all: classes=({names}{', ...' * (len(present) > 3)})"
        )
