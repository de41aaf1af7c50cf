"""Arrays as data sets: in memory, `.npy` (memory-mapped) and `.npz`. Nothing is ever unpickled."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from likely.data.labels import coded, united
from likely.data.layout import SPLIT_WORDS, split_of_file, words_of
from likely.data.readers import check_header, read_npz, reading
from likely.data.spec import (
    Dataset,
    DataSpec,
    IntArray,
    Split,
    completed,
    digest_of,
    train_and_test,
)
from likely.data.store import Source, key_of, stamp, stored
from likely.errors import InvalidData, InvalidSetting, whole
from likely.settings import converted

Layout = Literal["auto", "channels-first", "channels-last"]

_LARGE = 1 << 28  # bytes; a larger .npy is split on disk, not in memory
_BLOCK = 4096
_DATA_WORDS = frozenset(("x", "image", "images", "data", "values", "set"))
_LABEL_WORDS = frozenset(("y", "label", "labels", "target", "targets"))
_WHOLE_KEYS = ("images", "x", "data", "values", "arr_0")
_WHOLE_LABEL_KEYS = ("labels", "label", "y", "targets", "target")


def from_array(
    x: npt.NDArray[Any],
    levels: int | None = None,
    labels: npt.ArrayLike | None = None,
    *,
    name: str = "array",
    split: Split = "train",
    layout: Layout = "auto",
    classes: Sequence[object] = (),
    context: npt.NDArray[Any] | None = None,
) -> Dataset:
    """An array in memory, or a memory map, as a data set. A map of bytes is not copied.

    Args:
        x: booleans, integers in [0, levels), or floating-point intensities in [0, 1].
            [N, H, W] are grey images; [N, C, H, W] and [N, H, W, C] images with C of 1 or 3;
            [N, D] vectors.
        levels: number of integer levels. Needed for floating-point intensities, which become
            round(x * (levels - 1)); by default 2 for booleans, 256 for uint8, 65536 for uint16.
        labels: class of each example, [N] integers, booleans or strings, or None. They are kept
            as positions in `spec.classes`, the names of the labels that occur.
        name: of the data set.
        split: which split these examples are; see `train_and_test` for data in one piece.
        layout: where the channels of [N, ., ., .] are; "auto" takes the axis of length 1 or 3.
        classes: names of the classes in the order wanted, as `train.spec.classes` for a test set;
            those that occur by default. Integer labels are positions in names that are no
            numbers.
        context: what each example comes with and a model may be conditioned on: vectors [N, K],
            or maps [N, K, H, W] over the pixels; finite numbers.

    Raises:
        InvalidData: another type or shape, a value outside the levels, or one that is not finite;
            the message names the first such index.

    >>> from_array(np.zeros((5, 8, 8), np.uint8), levels=2).spec.shape
    (1, 8, 8)
    """
    if levels is not None:
        levels = whole("levels", levels)
        if not 2 <= levels <= 65536:
            raise InvalidSetting(f"levels must be in [2, 65536], given {levels}")
    converted("layout", layout, Layout)
    converted("split", split, Split)
    x = _shaped(_plain(x, "values", name), name, layout)
    steps: tuple[str, ...] = ()
    if x.dtype == np.bool_:
        values, levels = _integers(x.view(np.uint8), 2 if levels is None else levels, name)
    elif np.issubdtype(x.dtype, np.integer):
        values, levels = _integers(x, levels, name)
    elif np.issubdtype(x.dtype, np.floating):
        values, levels = _quantised(x, levels, name)
        steps = (f"round(x * {levels - 1})",)
    else:
        raise InvalidData(
            f"{name}: expected booleans, integers or floating-point numbers, given {x.dtype}"
        )
    numbers, names = None, tuple(map(str, classes))
    if labels is not None:
        numbers, names = coded(_plain(labels, "labels", name), len(x), classes, name)
    contexts = None
    if context is not None:
        contexts = _contexts(_plain(context, "contexts", name), len(x), name)
    if contexts is not None:
        steps = (*steps, f"context={digest_of(contexts)[:12]}")
    n, digest, shape = (
        len(values),
        digest_of(values),
        () if contexts is None else contexts.shape[1:],
    )
    spec = DataSpec(name, values.shape[1:], levels, split, steps, n, digest, names, shape)
    return Dataset(spec, values, numbers, contexts=contexts)


def _plain(x: npt.ArrayLike, what: str, name: str) -> npt.NDArray[Any]:
    """An array of numpy itself; what a masked array hides is no data."""
    if np.ma.is_masked(x):
        raise InvalidData(
            f"{name}: some {what} are masked; leave these examples out, or say by x.filled(...) "
            "what stands in their place"
        )
    return np.asarray(x)


def _shaped(x: npt.NDArray[Any], name: str, layout: Layout) -> npt.NDArray[Any]:
    """[N, C, H, W] or [N, D]: a view, never a copy."""
    if x.ndim not in (2, 3, 4) or 0 in x.shape:
        raise InvalidData(
            f"{name}: expected [N, D], [N, H, W], [N, C, H, W] or [N, H, W, C] with no side of 0, "
            f"given shape {x.shape}"
        )
    if x.ndim == 3:
        return x[:, None]
    if x.ndim == 2:
        return x
    if layout == "auto":
        layout = "channels-first" if x.shape[1] in (1, 3) else "channels-last"
    axis = 1 if layout == "channels-first" else 3
    if x.shape[axis] not in (1, 3):
        raise InvalidData(
            f"{name}: expected 1 or 3 channels, [N, C, H, W] or [N, H, W, C], given {x.shape}"
        )
    return x if axis == 1 else np.moveaxis(x, 3, 1)


def _integers(x: npt.NDArray[Any], levels: int | None, name: str) -> tuple[IntArray, int]:
    if levels is None:
        levels = {"uint8": 256, "uint16": 65536}.get(x.dtype.name)
        if levels is None:
            raise InvalidData(
                f"{name}: give levels, the number of values that a dimension can take, because "
                f"{x.dtype} does not say it (the largest value here is {x.max()})"
            )
    wanted = np.dtype(np.uint8 if levels <= 256 else np.uint16)
    out = x if x.dtype == wanted else np.empty(x.shape, wanted)
    for start in range(0, len(x), _BLOCK):
        block = x[start : start + _BLOCK]
        if block.min() < 0 or block.max() >= levels:
            raise InvalidData(
                f"{name}: {_first(block, (block < 0) | (block >= levels), start)}, expected "
                f"integers in [0, {levels}); give the levels that the data has"
            )
        if out is not x:
            out[start : start + _BLOCK] = block
    return out, levels


def _quantised(x: npt.NDArray[Any], levels: int | None, name: str) -> tuple[IntArray, int]:
    out = np.empty(x.shape, np.uint8 if levels is None or levels <= 256 else np.uint16)
    for start in range(0, len(x), _BLOCK):
        block = x[start : start + _BLOCK]
        wrong = ~((block >= 0) & (block <= 1))  # also where it is not a number
        if wrong.any():
            raise InvalidData(
                f"{name}: {_first(block, wrong, start)}, expected finite intensities in [0, 1]; "
                "divide by the largest possible value, or give integers"
            )
        if levels is not None:
            out[start : start + _BLOCK] = np.rint(block.astype(np.float64) * (levels - 1))
    if levels is None:
        raise InvalidData(
            f"{name}: floating-point intensities have no levels; give levels (as 256, or 2 to "
            "threshold at 1/2) to make them integers"
        )
    return out, levels


def _contexts(context: npt.NDArray[Any], n: int, name: str) -> npt.NDArray[np.float32]:
    if context.ndim not in (2, 4) or len(context) != n or context.dtype.kind not in "biuf":
        raise InvalidData(
            f"{name}: expected a context for each of {n} examples, [N, K] or [N, K, H, W] numbers, "
            f"given {context.dtype} of shape {context.shape}"
        )
    contexts = context.astype(np.float32)
    if not np.isfinite(contexts).all():
        raise InvalidData(f"{name}: the context holds values that are not finite")
    return contexts


def _first(block: npt.NDArray[Any], wrong: npt.NDArray[np.bool_], start: int) -> str:
    """The first wrong value of a block that begins at `start`, and its index."""
    row, *rest = np.argwhere(wrong)[0]
    return f"value {block[row, *rest]} at index [{', '.join(map(str, (start + row, *rest)))}]"


def from_file(
    path: str | os.PathLike[str], levels: int | None = None, layout: Layout = "auto"
) -> tuple[Dataset, Dataset]:
    """Read an .npy or .npz file.

    An .npy file holds all examples in one piece, and is memory-mapped where it is large. An .npz
    file holds `train`, `test` and, if there is one, `validation` (also as `x_train`, ...), or all
    in one piece as `images`, `x` or `data`; labels are `train_labels`, ... (also `y_train`, ...),
    or `labels` or `y`. What is not split is split by fixed seeds.

    Args:
        path: of the file.
        levels: as in `from_array`.
        layout: as in `from_array`.

    Returns:
        Training set, whose `.validation` is held out of it, and test set.

    Raises:
        InvalidData: damaged, or holding something else; Python objects are never loaded.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise InvalidData(f"{file} is not a file")
    name = file.name.removesuffix(file.suffix)
    if file.suffix.lower() == ".npz":
        return _from_npz(file, name, levels, layout)
    with reading(file), file.open("rb") as stream:
        shape, dtype = check_header(stream, str(file), file.stat().st_size)
        if dtype.kind not in "biuf" or 0 in shape or not shape:
            raise InvalidData(f"{file}: expected an array of numbers, given {dtype} {shape}")
        x = np.load(file, mmap_mode="r", allow_pickle=False)
    if math.prod(shape) * dtype.itemsize <= _LARGE:
        whole = from_array(np.array(x), levels, name=str(file), layout=layout)
        return _parts(file, _named(whole, name, rows=True))
    key = key_of("array", stamp(file), levels, layout)

    def build(_: Path) -> Source:
        whole = from_array(x, levels, name=str(file), layout=layout)
        return Source(_named(whole, name, rows=True))

    return stored(key, build)[:2]


def _parts(file: Path, data: Dataset) -> tuple[Dataset, Dataset]:
    """Training and test set of data in one piece; too few examples are said of the file."""
    with reading(file):
        return train_and_test(data)


def _from_npz(file: Path, name: str, levels: int | None, layout: Layout) -> tuple[Dataset, Dataset]:
    arrays = read_npz(file)
    keys, label_keys = _split_keys(file, list(arrays))
    lower = {key.lower(): key for key in arrays}
    whole = next((lower[key] for key in _WHOLE_KEYS if key in lower), None)
    if whole is None and len(arrays) == 1 and not keys:
        whole = next(iter(arrays))
    if ("train" in keys) == (whole is not None) or (whole is not None and keys):
        raise InvalidData(
            f"{file} holds {', '.join(arrays) or 'no array'}; expected either train (and test, "
            "validation), or all examples in one piece as images"
        )
    if whole is not None:
        labels = next((arrays[lower[k]] for k in _WHOLE_LABEL_KEYS if k in lower), None)
        title = f"{file}, {whole}"
        data = from_array(arrays[whole], levels, labels, name=title, layout=layout)
        return _parts(file, _named(data, name, rows=True))
    parts: dict[Split, Dataset] = {}
    for split, key in keys.items():
        labels = arrays.get(label_keys.get(split, ""))
        title = f"{file}, {key}"
        parts[split] = from_array(
            arrays[key], levels, labels, name=title, split=split, layout=layout
        )
    with reading(file):
        return completed(united({k: _named(part, name) for k, part in parts.items()}))


def _split_keys(file: Path, names: list[str]) -> tuple[dict[Split, str], dict[Split, str]]:
    """The arrays of examples and of labels by split, as "x_train", "TEST" and "dev_labels".

    Raises:
        InvalidData: two arrays for one, or a split that only arrays of other names mention.
    """
    data: dict[Split, str] = {}
    labels: dict[Split, str] = {}
    others: list[str] = []
    for name in names:
        meaning = split_of_file(name)
        words = {word for word in words_of(name) if word not in SPLIT_WORDS}
        owner = labels if words and words <= _LABEL_WORDS else data
        if meaning is None:
            continue
        if meaning == "unclear" or not words <= (_LABEL_WORDS if owner is labels else _DATA_WORDS):
            others.append(name)
        elif meaning in owner:
            raise InvalidData(
                f"{file}: {owner[meaning]} and {name} both name the {meaning} split; keep one"
            )
        else:
            owner[meaning] = name
    for name in others:
        meaning = split_of_file(name)
        if data and (meaning == "unclear" or meaning not in data):
            raise InvalidData(
                f"{file}: {name} names a split beside {', '.join(data.values())}; call examples "
                "train, validation and test (or x_train, ...), labels train_labels (y_train, ...)"
            )
    return data, labels


def _named(data: Dataset, name: str, rows: bool = False) -> Dataset:
    """The same under the name of the file alone (the longer one is for error messages).

    With `rows` each example says which row of the file it is.
    """
    spec = dataclasses.replace(data.spec, name=name)
    return dataclasses.replace(data, spec=spec, origins=np.arange(len(data)) if rows else None)
