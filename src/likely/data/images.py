"""A folder of images as a data set: every file is read right, or named with the reason."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL

from likely.data.decode import (
    SPLIT_NAMES,
    FolderData,
    FolderReport,
    Inputs,
    Shaping,
    Skipped,
    decode,
    divided,
    refused,
)
from likely.data.download import Progress
from likely.data.pixels import MAX_PIXELS
from likely.data.spec import Split
from likely.data.store import Source, key_of, stamp, stored
from likely.errors import InvalidData

# What lies beside images and is known to be none; anything else is tried, whatever its name.
_COMPANIONS = frozenset(
    {
        *(".cfg", ".csv", ".ini", ".json", ".jsonl", ".toml", ".tsv", ".xml", ".yaml", ".yml"),
        *(".doc", ".docx", ".htm", ".html", ".log", ".md", ".pdf", ".rst", ".txt", ".url"),
        *(".db", ".h5", ".mat", ".npy", ".npz", ".parquet", ".pkl"),
        *(".gz", ".tar", ".xz", ".zip"),
        *(".ipynb", ".js", ".py", ".sh"),
    }
)


def from_folder(
    path: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    strict: bool = False,
    max_pixels: int = MAX_PIXELS,
    progress: Progress | None = None,
) -> FolderData:
    """Read a folder of images, its sub-folders included, in the order of the paths.

    Every image is cropped around its centre and resized to one shape; see `likely.data.pixels`.
    Sub-folders give class labels where every image lies in one and there are at least two.
    Sub-folders called `train`, `validation` and `test`, where there are no others and there is
    `train`, give the splits; what is lacking is held out by a fixed seed. The decoded images are
    kept in the cache and memory-mapped; they are decoded again when any file changes.

    Args:
        path: of the folder.
        size: side, or (H, W); by default the preset (8, 28, 32, 64) nearest to the median of the
            images' shorter sides.
        channels: 1 (grey) or 3 (red, green, blue); by default 1 where every image is grey.
        strict: refuse the folder if any file cannot be read, instead of skipping the file.
        max_pixels: files that announce more are skipped before they are decoded.
        progress: called with ("decode", files done, files in all).

    Raises:
        InvalidData: no folder, fewer than 3 readable images, or `strict` and one unreadable.
    """
    folder = Path(path).expanduser()
    shaping = Shaping.checked(size, channels, max_pixels)
    files, ignored = _listed(folder)
    name = folder.resolve().name
    settings = (shaping.size, channels, max_pixels, PIL.__version__)
    key = key_of("folder", name, settings, [stamp(file) for file in files])
    # Names that are no UTF-8 are kept in a form that can be printed and stored.
    names = [os.fsencode(f.relative_to(folder)).decode("utf-8", "backslashreplace") for f in files]
    inputs = Inputs(str(folder), names, lambda start, stop: files[start:stop])

    def build(scratch: Path) -> Source:
        values, kept, skipped = decode(inputs, shaping, scratch, strict, progress)
        parents = [Path(names[position]).parts[:-1] for position in kept]
        splits = _splits(parents)
        if splits is not None:
            parents = [parts[1:] for parts in parents]
        labels, classes = _labels(parents)
        steps = (f"fit={values.shape[2]}x{values.shape[3]}",)
        return divided(name, values, splits, labels, classes, steps, {"skipped": skipped})

    train, test, notes = stored(key, build)
    skipped = tuple(Skipped(*entry) for entry in notes["skipped"])
    if strict and skipped:
        raise refused(str(folder), skipped)
    report = FolderReport(str(folder), len(files) - len(skipped), skipped, ignored)
    return FolderData(train, test, report)


def _listed(folder: Path) -> tuple[list[Path], int]:
    """The files that may be images, sorted by path, and the number of those ignored."""
    if not folder.is_dir():
        raise InvalidData(f"{folder} is not a folder")
    files: list[Path] = []
    ignored = 0

    def refuse(error: OSError) -> None:
        raise InvalidData(f"cannot list {error.filename}: {error.strerror}") from error

    for parent, inner, names in os.walk(folder, onerror=refuse):
        inner[:] = [name for name in inner if not name.startswith((".", "__MACOSX"))]
        for name in names:
            path = Path(parent, name)
            if name.startswith(".") or not path.is_file():
                continue
            if path.suffix.lower() in _COMPANIONS:
                ignored += 1
            else:
                files.append(path)
    if not files:
        raise InvalidData(f"{folder} holds no image" + f" ({ignored} other files)" * bool(ignored))
    return sorted(files, key=lambda file: file.relative_to(folder).as_posix()), ignored


def _splits(parents: list[tuple[str, ...]]) -> list[Split] | None:
    """Split of each image from its first sub-folder, where these are splits and no others."""
    if not all(parents):
        return None
    heads = {parts[0].lower() for parts in parents}
    if not heads <= SPLIT_NAMES.keys() or "train" not in {SPLIT_NAMES[head] for head in heads}:
        return None
    return [SPLIT_NAMES[parts[0].lower()] for parts in parents]


def _labels(
    parents: list[tuple[str, ...]],
) -> tuple[npt.NDArray[np.int64] | None, tuple[str, ...]]:
    """Class of each image from its first sub-folder; none unless all have one and two differ."""
    classes = tuple(sorted({parts[0] for parts in parents if parts}))
    if len(classes) < 2 or not all(parents):
        return None, ()
    number = {name: i for i, name in enumerate(classes)}
    return np.array([number[parts[0]] for parts in parents], np.int64), classes
