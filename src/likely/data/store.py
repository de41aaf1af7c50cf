"""Cache of decoded data: memory-mapped arrays that a second start opens at once.

A stored data set is a folder with one .npy file for each split, already in its final order, so
that a split is a plain memory map and never copied. The folder is created atomically; a killed
process leaves only a temporary folder, which a later one removes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from likely.data.places import cache_folder
from likely.data.spec import (
    TEST_SEED,
    VALIDATION_SEED,
    Dataset,
    DataSpec,
    IntArray,
    Split,
    digest_of,
    hold_out,
    validation_size,
)
from likely.errors import InvalidData

_FORMAT = 3  # raise it when the files below, or what is written into them, change meaning
_TEMPORARY = ".making-"


@dataclasses.dataclass(frozen=True)
class Source:
    """Decoded examples on their way into the store.

    Attributes:
        train: all that is not in the other two; its specification names the data set.
        test: the published test set, or None where one is to be held out.
        validation: the published validation set, or None where one is to be held out.
        notes: plain values kept beside the data and given back by `stored`.
    """

    train: Dataset
    test: Dataset | None = None
    validation: Dataset | None = None
    notes: dict[str, Any] = dataclasses.field(default_factory=dict)


def key_of(*parts: object) -> str:
    """A folder name for what these parts (plain values) determine."""
    text = json.dumps([_FORMAT, *parts], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def stamp(path: Path) -> tuple[str, int, int]:
    """What changes when a file changes: path, size, time of change."""
    status = path.stat()
    return str(path.resolve()), status.st_size, status.st_mtime_ns


def stored(key: str, build: Callable[[Path], Source]) -> tuple[Dataset, Dataset, dict[str, Any]]:
    """Open what is stored under a key; the first time, build and store it.

    Args:
        key: from `key_of`; everything that `build` depends on.
        build: gives the decoded examples; may put temporary files into the folder it is given.

    Returns:
        Training set (with its `.validation`) and test set as memory maps, and the notes.

    Raises:
        InvalidData: the cache cannot be written; nothing that was there is lost.
    """
    folder = cache_folder() / "prepared" / key
    dataset = _opened(folder)
    if dataset is not None:
        return dataset
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder.parent)
        temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=folder.parent))
    except OSError as error:
        raise _unwritable(folder.parent, error) from error
    try:
        scratch = temporary / "scratch"
        try:
            scratch.mkdir()
            _write(temporary, build(scratch))
            shutil.rmtree(scratch)
            dataset = _opened(folder)  # another process may have been quicker: use its own
            if dataset is None:
                shutil.rmtree(folder, ignore_errors=True)  # damaged
                temporary.rename(folder)
                dataset = _opened(folder)
        except OSError as error:
            raise _unwritable(folder.parent, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if dataset is None:
        raise InvalidData(f"{folder} was removed or changed while it was opened; try again")
    return dataset


def _unwritable(folder: Path, error: OSError) -> InvalidData:
    return InvalidData(
        f"cannot write the cache {folder}: {error.strerror or error}; make room, or set "
        "LIKELY_CACHE to a folder that can be written"
    )


def _sweep(parent: Path) -> None:
    """Remove what killed processes left more than a day ago."""
    for path in parent.glob(_TEMPORARY + "*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > 86_400:
                shutil.rmtree(path, ignore_errors=True)


def _write(folder: Path, source: Source) -> None:
    """Write the three splits and, last, the index that makes the folder valid."""
    rest = np.arange(len(source.train), dtype=np.int64)
    parts: dict[Split, tuple[Dataset, IntArray]] = {}
    split: Split
    name = source.train.spec.name
    for split, part, seed, least, what in (
        ("test", source.test, TEST_SEED, 3, "readable example(s); at least 3 are needed for "
         "training, validation and test"),
        ("validation", source.validation, VALIDATION_SEED, 2, "training example(s); at least 2 "
         "are needed for training and validation"),
    ):  # fmt: skip
        if part is not None:
            parts[split] = part, np.arange(len(part), dtype=np.int64)
            continue
        if len(rest) < least:
            raise InvalidData(f"{name}: {len(rest)} {what}")
        kept, held_out = hold_out(len(rest), max(1, validation_size(len(rest))), seed)
        parts[split] = source.train, rest[held_out]
        rest = rest[kept]
    parts["train"] = source.train, rest
    record = {
        split: _write_part(folder, split, data, positions)
        for split, (data, positions) in parts.items()
    }
    index = {"splits": record, "notes": source.notes}
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")


def _write_part(folder: Path, split: Split, data: Dataset, positions: IntArray) -> dict[str, Any]:
    """Write the examples at these positions, a block at a time, as one split."""
    path = folder / f"{split}.npy"
    shape = (len(positions), *data.spec.shape)
    header = {"descr": data.values.dtype.str, "fortran_order": False, "shape": shape}
    with path.open("wb") as out:
        # Plain writes, not a writable map: a full disk is then an error, not a dead process.
        np.lib.format.write_array_header_1_0(out, header)
        for start in range(0, len(positions), 1024):
            block = data.values[positions[start : start + 1024]]
            out.write(np.ascontiguousarray(block).tobytes())
        out.flush()
        os.fsync(out.fileno())
    if data.labels is not None:
        np.save(folder / f"{split}.labels.npy", data.labels[positions])
    if data.attributes:
        columns = np.stack([column[positions] for column in data.attributes.values()], axis=1)
        np.save(folder / f"{split}.attributes.npy", columns)
    if data.origins is not None:
        np.save(folder / f"{split}.origins.npy", data.origins[positions])
    values = np.load(path, mmap_mode="r", allow_pickle=False)
    spec = dataclasses.replace(data.spec, split=split, n=len(positions), digest=digest_of(values))
    return {
        "spec": spec.to_json(),
        "labels": data.labels is not None,
        "attributes": list(data.attributes),
        "origins": data.origins is not None,
        "stamp": stamp(path)[1:],
    }


def _opened(folder: Path) -> tuple[Dataset, Dataset, dict[str, Any]] | None:
    """Open a stored data set; None where it is missing, incomplete or changed since."""
    try:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        parts = {
            split: _opened_part(folder, split, record) for split, record in index["splits"].items()
        }
        train = parts["train"]
        train.validation = parts["validation"]
        return train, parts["test"], index["notes"]
    except Exception:  # damaged in whatever way: it is made again
        return None


def _opened_part(folder: Path, split: str, record: dict[str, Any]) -> Dataset:
    path = folder / f"{split}.npy"
    if list(stamp(path)[1:]) != record["stamp"]:
        raise ValueError(f"{path} changed since it was written")
    labels = origins = None
    attributes: dict[str, Any] = {}
    if record["labels"]:
        labels = np.load(folder / f"{split}.labels.npy", allow_pickle=False)
    if record["attributes"]:
        columns = np.load(folder / f"{split}.attributes.npy", allow_pickle=False)
        attributes = dict(zip(record["attributes"], columns.T, strict=True))
    if record["origins"]:
        origins = np.load(folder / f"{split}.origins.npy", mmap_mode="r", allow_pickle=False)
    values = np.load(path, mmap_mode="r", allow_pickle=False)
    return Dataset(DataSpec.from_json(record["spec"]), values, labels, attributes, origins=origins)
