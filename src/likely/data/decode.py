"""Many images into one array: decoded by threads, unreadable ones named, the rest divided."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import io
import os
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from likely.data.download import Progress
from likely.data.pixels import MAX_PIXELS, Bytes, Header, Unreadable, decoded, quiet, read_header
from likely.data.spec import Dataset, DataSpec, Split
from likely.data.store import Source
from likely.errors import InvalidData, InvalidSetting

PRESET_SIZES = (8, 28, 32, 64)
"""The sides for which every model has settings that work untuned."""

_BLOCK = 256
T = TypeVar("T")


class Skipped(NamedTuple):
    """An image that could not be read: its path below the folder, and why."""

    path: str
    reason: str


@dataclasses.dataclass(frozen=True)
class FolderReport:
    """Which files of a folder were read, skipped or ignored.

    Attributes:
        folder: that was read.
        read: number of images read.
        skipped: files that could not be read, in the order of their paths.
        ignored: number of files whose suffix says that they are no image, as .txt.
        remarks: further remarks, a sentence each.
    """

    folder: str
    read: int
    skipped: tuple[Skipped, ...]
    ignored: int = 0
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        total = self.read + len(self.skipped)
        text = f"{self.folder}: read {self.read} of {total} files"
        if self.ignored:
            text += f" ({self.ignored} more are no images by their suffix)"
        text += "".join(f"\n  {remark}" for remark in self.remarks)
        return text + "".join(f"\n  skipped {s.path}: {s.reason}" for s in self.skipped)


class FolderData(NamedTuple):
    """A folder of images: training set (with its `.validation`), test set, report."""

    train: Dataset
    test: Dataset
    report: FolderReport


@dataclasses.dataclass(frozen=True)
class Shaping:
    """What every image is made into.

    Attributes:
        size: (H, W); None for the preset nearest to the median of the shorter sides.
        channels: 1 (grey) or 3; None for 1 where every image is grey, else 3.
        max_pixels: files that announce more are not decoded.
    """

    size: tuple[int, int] | None = None
    channels: int | None = None
    max_pixels: int = MAX_PIXELS

    @classmethod
    def checked(
        cls, size: int | tuple[int, int] | None, channels: int | None, max_pixels: int
    ) -> Shaping:
        """From a user's settings; raises InvalidSetting."""
        if channels not in (None, 1, 3):
            raise InvalidSetting(f"channels must be 1 (grey) or 3 (colour), given {channels}")
        wanted = (size, size) if isinstance(size, int) else size
        if wanted is not None and (len(wanted) != 2 or not all(1 <= s <= 4096 for s in wanted)):
            raise InvalidSetting(f"size must be in [1, 4096] pixels, one or (H, W), given {size}")
        if max_pixels < 1:
            raise InvalidSetting(f"max_pixels must be at least 1, given {max_pixels}")
        return cls(wanted, channels, max_pixels)


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The encoded images.

    Attributes:
        home: what holds them, for messages.
        names: of each, for messages.
        get: (start, stop) to the paths or bytes of these.
    """

    home: str
    names: Sequence[str]
    get: Callable[[int, int], Sequence[Path | io.BytesIO]]


class Decoded(NamedTuple):
    """uint8 [N, C, H, W] on disk, the positions that these have in the inputs, the others."""

    values: Bytes
    kept: npt.NDArray[np.int64]
    skipped: list[Skipped]


def decode(
    inputs: Inputs,
    shaping: Shaping,
    scratch: Path,
    strict: bool = False,
    progress: Progress | None = None,
) -> Decoded:
    """Decode all inputs, two passes: the headers, which fix the shape, then the pixels.

    The array goes into the folder `scratch`; `progress` is told ("decode", done, total). `strict`
    refuses at the end of the pass that met an unreadable input.

    Raises:
        InvalidData: none is readable, or `strict` and one is not.
    """
    total = len(inputs.names)
    reasons: dict[int, str] = {}
    headers: list[Header] = []
    kept: list[int] = []
    workers = min(8, os.cpu_count() or 1)
    with (
        quiet(),
        concurrent.futures.ThreadPoolExecutor(workers) as pool,
        (scratch / "values").open("wb") as out,
    ):
        for start in range(0, total, _BLOCK):
            block = inputs.get(start, min(total, start + _BLOCK))
            answers = pool.map(
                lambda source: _tried(read_header, source, shaping.max_pixels), block
            )
            for position, answer in enumerate(answers, start):
                if isinstance(answer, Header):
                    headers.append(answer)
                else:
                    reasons[position] = answer
        _stop(inputs, reasons, strict, total)
        size, channels = _shape(headers, shaping)
        for start in range(0, total, _BLOCK):
            stop = min(total, start + _BLOCK)
            block = inputs.get(start, stop)
            todo = [p for p in range(start, stop) if p not in reasons]
            images = pool.map(
                lambda source: _tried(decoded, source, size, channels, shaping.max_pixels),
                [block[p - start] for p in todo],
            )
            for position, image in zip(todo, images, strict=True):
                if isinstance(image, str):
                    reasons[position] = image
                else:
                    out.write(image.tobytes())
                    kept.append(position)
            if progress is not None:
                progress("decode", stop, total)
    _stop(inputs, reasons, strict, total)
    shape = (len(kept), channels, *size)
    values = np.memmap(scratch / "values", np.uint8, "r", shape=shape)
    skipped = [Skipped(inputs.names[p], reasons[p]) for p in sorted(reasons)]
    return Decoded(values, np.array(kept, np.int64), skipped)


def _shape(headers: list[Header], shaping: Shaping) -> tuple[tuple[int, int], int]:
    size, channels = shaping.size, shaping.channels
    if size is None:
        middle = statistics.median(min(h.width, h.height) for h in headers)
        side = min(PRESET_SIZES, key=lambda preset: abs(preset - middle))
        size = (side, side)
    if channels is None:
        channels = 1 if all(header.grey for header in headers) else 3
    return size, channels


def _tried(read: Callable[..., T], *arguments: Any) -> T | str:
    """What a reader gives, or why it cannot."""
    try:
        return read(*arguments)
    except Unreadable as error:
        return str(error)


def _stop(inputs: Inputs, reasons: dict[int, str], strict: bool, total: int) -> None:
    """Refuse where nothing is left, or where anything is missing that must not be."""
    skipped = [Skipped(inputs.names[p], reasons[p]) for p in sorted(reasons)]
    if len(skipped) == total:
        first = skipped[0]
        raise InvalidData(
            f"{inputs.home}: none of {total} files is a readable image ({first.path}: "
            f"{first.reason})"
        )
    if strict and skipped:
        raise refused(inputs.home, skipped)


def refused(home: str, skipped: Sequence[Skipped]) -> InvalidData:
    """The error of `strict`: it names up to five of the unreadable files."""
    shown = "; ".join(f"{s.path}: {s.reason}" for s in skipped[:5])
    more = f"; and {len(skipped) - 5} more" if len(skipped) > 5 else ""
    return InvalidData(
        f"{home}: {len(skipped)} file(s) cannot be read: {shown}{more}. Remove them, or read "
        "without strict to skip them"
    )


def shared(
    values: npt.NDArray[Any], splits: Sequence[Split | None] | None, names: Sequence[str]
) -> str:
    """A remark where the same image lies in the training split and in another; "" where none."""
    if splits is None or len(set(splits)) < 2:
        return ""
    digests = [hashlib.blake2b(x.tobytes(), digest_size=16).digest() for x in values]
    trained = {
        d: i for i, (d, split) in enumerate(zip(digests, splits, strict=True)) if split == "train"
    }
    twice = [i for i, d in enumerate(digests) if splits[i] != "train" and d in trained]
    if not twice:
        return ""
    first = twice[0]
    count = f"{len(twice)} {'images' if len(twice) > 1 else 'image'}"
    return (
        f"{count} of the test or validation split can be found in the training split too, as "
        f"{names[first]} = {names[trained[digests[first]]]}"
    )


def divided(
    name: str,
    values: npt.NDArray[Any],
    splits: Sequence[Split | None] | None,
    labels: npt.NDArray[np.int64] | None,
    classes: tuple[str, ...],
    preprocessing: tuple[str, ...],
    notes: dict[str, Any],
    files: Sequence[str] | None = None,
) -> Source:
    """Decoded examples, uint8 [N, C, H, W], as the source of a stored data set.

    `splits` has that of each example where the user made splits, and is None to hold out by a fixed
    seed; `labels` are int64 [N], -1 for the examples of a split without labels, or None; `files`
    are the paths that they were read from.
    """

    def part(split: Split) -> Dataset | None:
        rows = np.arange(len(values)) if splits is None else np.flatnonzero(owners == split)
        if not len(rows):
            return None
        first, last = int(rows[0]), int(rows[-1]) + 1
        mine = values[first:last] if last - first == len(rows) else values[rows]
        spec = DataSpec(
            name, values.shape[1:], 256, split, preprocessing, len(rows), "", classes
        )  # the digest is taken where the split is written
        numbers = None if labels is None or labels[rows].min() < 0 else labels[rows]
        return Dataset(spec, mine, numbers, origins=None if origins is None else origins[rows])

    origins = None if files is None else np.array([path.encode() for path in files])
    owners = np.array(splits or [])
    train = part("train")
    if train is None:
        raise InvalidData(f"{name}: no readable training image")
    if splits is None:
        return Source(train, notes=notes)
    return Source(train, part("test"), part("validation"), notes)
