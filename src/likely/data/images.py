"""A folder of images as a data set: every file is read correctly or reported with the reason."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL

from likely.data.decode import (
    FolderData,
    FolderReport,
    Inputs,
    Shaping,
    Skipped,
    decode,
    divided,
    refused,
    shared,
)
from likely.data.download import Progress
from likely.data.layout import Folders, arranged
from likely.data.pixels import MAX_PIXELS, Unreadable, quiet, read_header
from likely.data.store import Source, key_of, stamp, stored
from likely.errors import InvalidData

# Suffixes that are known not to be images; anything else is tried, whatever its name.
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
    Sub-folders called `train`, `validation` and `test` (see `likely.data.layout`) give the splits;
    what is lacking is held out by a fixed seed. Single files beside them are left out and named;
    splits that are not clear are refused. Links are followed. The decoded images are kept in the
    cache and memory-mapped; they are decoded again when any file changes.

    Args:
        path: of the folder.
        size: side, or (H, W); by default the preset (8, 28, 32, 64) nearest to the median of the
            images' shorter sides.
        channels: 1 (grey) or 3 (red, green, blue); by default 1 where every image is grey.
        strict: refuse the folder if any file cannot be read or is in no split, or a link leads
            nowhere, instead of skipping it.
        max_pixels: files that announce more are skipped before they are decoded.
        progress: called with ("decode", files done, files in all).

    Raises:
        InvalidData: no folder, fewer than 3 readable images, splits that are not clear, or `strict`
            and a file that cannot be read.
    """
    folder = Path(path).expanduser()
    shaping = Shaping.checked(size, channels, max_pixels)
    files, empty, skips, ignored = _listed(folder)
    names = [_printable(file.relative_to(folder)) for file in files]

    def readable(position: int) -> bool:
        with quiet(), contextlib.suppress(Unreadable):
            read_header(files[position], max_pixels)
            return True
        return False

    parents = [Path(name).parts[:-1] for name in names]
    splits_at = arranged(str(folder), parents, empty, readable)
    skips += _left_out(names, splits_at.left_out)
    kept_names = [name for i, name in enumerate(names) if i not in splits_at.left_out]
    rows = [i for i in range(len(files)) if i not in splits_at.left_out]
    if strict and skips:
        raise refused(str(folder), skips)
    name = folder.resolve().name
    settings = (shaping.size, channels, max_pixels, PIL.__version__)
    stamps = [(names[i], *stamp(files[i])) for i in rows]
    key = key_of("folder", name, settings, stamps, splits_at.splits)
    paths = [files[i] for i in rows]
    inputs = Inputs(str(folder), kept_names, lambda start, stop: paths[start:stop])

    def build(scratch: Path) -> Source:
        values, kept, skipped = decode(inputs, shaping, scratch, strict, progress)
        read = [rows[position] for position in kept]
        splits = None if splits_at.splits is None else [splits_at.splits[i] for i in read]
        for split in splits_at.expected:
            if splits is not None and split not in splits:
                raise InvalidData(f"{folder}: no image of the {split} split is readable")
        labels, classes, note = _labels([splits_at.classes[i] for i in read])
        steps = (f"fit={values.shape[2]}x{values.shape[3]}",)
        named = [names[i] for i in read]
        remarks = [note, shared(values, splits, named)]
        notes = {"skipped": skipped, "remarks": [remark for remark in remarks if remark]}
        return divided(name, values, splits, labels, classes, steps, notes, named)

    train, test, notes = stored(key, build)
    unread = tuple(sorted([*skips, *(Skipped(*entry) for entry in notes["skipped"])]))
    if strict and unread:
        raise refused(str(folder), unread)
    count = len(rows) - len(notes["skipped"])
    report = FolderReport(str(folder), count, unread, ignored, tuple(notes["remarks"]))
    return FolderData(train, test, report)


def _printable(path: Path) -> str:
    """Names that are no UTF-8 in a form that can be printed and stored."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _left_out(names: list[str], reasons: dict[int, str]) -> list[Skipped]:
    """What is in no split, a line per file, or per folder of more than five."""
    folders: dict[str, list[int]] = {}
    for position in reasons:
        folders.setdefault(str(Path(names[position]).parent), []).append(position)
    lines = []
    for folder, positions in folders.items():
        if len(positions) > 5:
            text = reasons[positions[0]].replace("lies", "lie", 1)
            lines.append(Skipped(f"{folder}/", f"{len(positions)} files {text}"))
        else:
            lines += [Skipped(names[i], reasons[i]) for i in positions]
    return lines


def _listed(folder: Path) -> tuple[list[Path], list[Folders], list[Skipped], int]:
    """What a folder holds, links followed, each folder once.

    The files that may be images, sorted by path; the folders that hold none; links that lead
    nowhere or in a circle; the number of files that are no images by their suffix.
    """
    if not folder.is_dir():
        raise InvalidData(f"{folder} is not a folder")
    files: list[Path] = []
    visited: list[Path] = []
    skips: list[Skipped] = []
    ignored = 0
    above = {(s.st_dev, s.st_ino) for s in (p.stat() for p in folder.resolve().parents)}
    seen: dict[tuple[int, int], Path] = {}
    todo, links = [folder], list[Path]()
    while todo or links:
        place = todo.pop() if todo else links.pop(0)  # links last: a folder has its own name
        try:
            status = place.stat()
            mark = (status.st_dev, status.st_ino)
            if mark in seen or mark in above:
                other = _printable(seen[mark].relative_to(folder)) if mark in seen else "a parent"
                reason = f"a link to a folder that is read as {other}"
                if mark in above or seen[mark] in (folder, *place.parents):
                    reason = "a link to a folder that holds it"
                skips.append(Skipped(_printable(place.relative_to(folder)) + "/", reason))
                continue
            seen[mark] = place
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError as error:
            raise InvalidData(f"cannot list {error.filename}: {error.strerror}") from error
        visited.append(place)
        for entry in entries:
            path = Path(entry.path)
            if entry.name.startswith((".", "__MACOSX")):
                continue
            if entry.is_dir(follow_symlinks=False) or (entry.is_symlink() and path.is_dir()):
                (links if entry.is_symlink() else todo).append(path)
            elif path.suffix.lower() in _COMPANIONS:
                ignored += 1
            elif entry.is_symlink() and not path.exists():
                target = _printable(path.readlink())
                skips.append(
                    Skipped(_printable(path.relative_to(folder)), f"a broken link to {target}")
                )
            else:
                files.append(path)
        links.sort()
    if not files:
        detail = f"; {skips[0].path}: {skips[0].reason}" if skips else ""
        raise InvalidData(
            f"{folder} holds no image" + f" ({ignored} other files)" * bool(ignored) + detail
        )
    files.sort(key=lambda file: file.relative_to(folder).as_posix())
    filled = {parent for file in files for parent in file.parents}
    empty = [p for p in visited if p not in filled]
    return files, [Path(_printable(p.relative_to(folder))).parts for p in empty], skips, ignored


def _labels(parents: list[Folders]) -> tuple[npt.NDArray[np.int64] | None, tuple[str, ...], str]:
    """Class of each image from its first sub-folder; none unless all have one and two differ.

    Labels or None, names of the classes, and a remark where files beside folders cost them.
    """
    while all(parents) and len({parts[0] for parts in parents}) == 1:
        parents = [parts[1:] for parts in parents]
    classes = tuple(sorted({parts[0] for parts in parents if parts}))
    loose = sum(not parts for parts in parents)
    if len(classes) < 2 or loose:
        note = f"no labels: {loose} images lie beside the folders {', '.join(classes[:5])}"
        return None, (), note if len(classes) > 1 else ""
    number = {name: i for i, name in enumerate(classes)}
    return np.array([number[parts[0]] for parts in parents], np.int64), classes, ""
