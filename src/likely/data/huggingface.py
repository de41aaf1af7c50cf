"""Hugging Face `datasets` folders and parquet files, through that library (an optional extra).

Images are taken undecoded and read by `likely.data.pixels`, so that a damaged or oversized one
is treated as in any folder. Nothing is fetched: the files have to be on this machine.
"""

from __future__ import annotations

import dataclasses
import importlib
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL

from likely.data.arrays import from_array
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
from likely.data.labels import coded, ordered, united
from likely.data.layout import (
    LEFT_OUT,
    SPLIT_WORDS,
    Meaning,
    assigned,
    split_of_file,
    splits_of_folders,
    words_of,
)
from likely.data.pixels import MAX_PIXELS
from likely.data.places import cache_folder
from likely.data.spec import Dataset, Split, completed
from likely.data.store import Source, key_of, stamp, stored
from likely.errors import InvalidData, InvalidSetting, MissingDependency, nearest

_PICTURES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".webp"))
_ORDER: tuple[Split, ...] = ("train", "validation", "test")
_LABEL_COLUMNS = ("label", "labels", "class", "target", "targets", "y")
_NAME_IT = 'image="NAME" of from_huggingface and load, --image-column NAME of the command'


def is_huggingface(path: Path) -> bool:
    """True for what `Dataset.save_to_disk` wrote, a parquet file, or a folder of such files.

    Parquet files further down than `data` count only where no pictures lie beside them.
    """
    if not path.is_dir():
        return path.suffix.lower() == ".parquet"
    if (path / "dataset_dict.json").is_file():
        return True
    if (path / "dataset_info.json").is_file() and (path / "state.json").is_file():
        return True
    files = _parquet_files(path)
    if any(file.parent in (path, path / "data") for file in files):
        return True
    return bool(files) and not any(f.suffix.lower() in _PICTURES for f in path.rglob("*"))


def from_huggingface(
    path: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    levels: int | None = None,
    strict: bool = False,
    image: str | None = None,
    label: str | None = None,
    max_pixels: int = MAX_PIXELS,
    progress: Progress | None = None,
) -> FolderData:
    """Read a `datasets` folder, a parquet file, or a folder of parquet files.

    Args:
        path: of the folder or file.
        size: as in `from_folder`.
        channels: as in `from_folder`.
        levels: of a column of arrays, as in `from_array`; images have 256.
        strict: as in `from_folder`.
        image: column of the images; by default the first of the type Image, else of arrays, else
            the one that holds encoded images.
        label: column of the classes; by default the first of the type ClassLabel, else of integers,
            booleans or strings and called label, labels, class, target, targets or y.
        max_pixels: as in `from_folder`.
        progress: as in `from_folder`.

    Raises:
        MissingDependency: the library `datasets` is not installed.
        InvalidData: splits that are not clear, no such column, no readable image, or `strict` and
            one unreadable.
    """
    home = Path(path).expanduser()
    try:
        library = importlib.import_module("datasets")
    except ImportError as error:
        raise MissingDependency(
            "Hugging Face folders and parquet files are read through the library datasets, which "
            "is not installed: pip install datasets"
        ) from error
    shaping = Shaping.checked(size, channels, max_pixels)
    tables, remarks = _tables(home, library)
    first = tables["train"]
    column = _image_column(first, image, home, library)
    for split, table in tables.items():
        if column not in table.features:
            raise InvalidData(
                f'{home}: its {split} split has no column "{column}", only '
                f"{', '.join(table.features)}"
            )
    classes_column = _label_column(first, label, home, library)
    name = home.resolve().name.removesuffix(".parquet")
    if not _holds_images(first.features[column], library):
        if size is not None or channels is not None:
            raise InvalidSetting(
                f'size and channels are for images; the column "{column}" of {home} holds arrays'
            )
        return _from_arrays(home, name, tables, column, classes_column, label is not None, levels)

    raw = {s: t.cast_column(column, library.Image(decode=False)) for s, t in tables.items()}
    names = [f"{split}[{i}]" for split, table in raw.items() for i in range(len(table))]
    joined = library.concatenate_datasets([table.select_columns(column) for table in raw.values()])

    def get(start: int, stop: int) -> list[Path | io.BytesIO]:
        return [_encoded(record) for record in joined[start:stop][column]]

    def build(scratch: Path) -> Source:
        inputs = Inputs(str(home), names, get)
        values, kept, skipped = decode(inputs, shaping, scratch, strict, progress)
        by_split, classes, more = _labels(tables, classes_column, label is not None, home)
        labels = np.concatenate([by_split[split] for split in tables]) if classes else None
        splits = [split for split, table in tables.items() for _ in range(len(table))]
        mine = [splits[position] for position in kept] if len(tables) > 1 else None
        for split in tables:
            if mine is not None and split not in mine:
                raise InvalidData(f"{home}: no image of the {split} split is readable")
        twice = shared(values, mine, [names[position] for position in kept])
        return divided(
            name,
            values,
            mine,
            None if labels is None else labels[kept],
            classes,
            (f"fit={values.shape[2]}x{values.shape[3]}",),
            {"skipped": skipped, "remarks": [*more, *([twice] if twice else [])]},
        )

    files = sorted(file for file in home.rglob("*") if file.is_file()) if home.is_dir() else [home]
    settings = (shaping.size, channels, max_pixels, column, classes_column, PIL.__version__)
    stamps = [(os.fsencode(file.relative_to(home)).hex(), *stamp(file)) for file in files]
    train, test, notes = stored(key_of("huggingface", name, settings, label, stamps), build)
    skipped = tuple(Skipped(*entry) for entry in notes["skipped"])
    if strict and skipped:
        raise refused(str(home), skipped)
    remarks += notes["remarks"]
    read = len(names) - len(skipped)
    return FolderData(train, test, FolderReport(str(home), read, skipped, 0, tuple(remarks)))


def _parquet_files(folder: Path) -> list[Path]:
    """The parquet files of a folder and below it, sorted; not what describes other files."""
    return sorted(
        file
        for file in folder.rglob("*.parquet")
        if file.name != "metadata.parquet"
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )


def grouped(home: Path, files: Sequence[Path]) -> tuple[dict[Split, list[Path]], list[str]]:
    """Parquet files by the split that their names, or the folders above them, say; and remarks.

    All are for "train" where no name says a split.

    Raises:
        InvalidData: some names say a split and others none, or files of several configurations.
    """
    groups: dict[str, list[Path]] = {}
    meanings: dict[str, Meaning] = {}
    silent: list[Path] = []
    places: set[str] = set()
    for file in files:
        above = file.relative_to(home).parts[:-1]
        said = [name for name in (file.stem, *reversed(above)) if split_of_file(name)]
        places.add("/".join(name for name in above if split_of_file(name) is None))
        if not said:
            silent.append(file)
            continue
        meaning = split_of_file(said[0])
        words = [word for word in words_of(said[0]) if word in SPLIT_WORDS]
        group = said[0] if meaning == "unclear" else words[0]
        meanings[group] = meaning
        groups.setdefault(group, []).append(file)
    if len(places) > 1:
        raise InvalidData(
            f"{home} holds several configurations: {', '.join(sorted(p or '.' for p in places))}; "
            "give the folder of one"
        )
    if not groups:
        return {"train": silent}, []
    splits = assigned(str(home), meanings)
    others = [f for f in silent if not any(word in LEFT_OUT for word in words_of(f.stem))]
    if others:
        raise InvalidData(
            f"{home}: {others[0].relative_to(home)} names no split, and others name "
            f"{', '.join(sorted(splits))}; put train, validation or test into its name, or move it "
            "away"
        )
    remarks = [f"left out: {file.relative_to(home)}, which is of no split" for file in silent]
    return {splits[group]: paths for group, paths in groups.items()}, remarks


def _tables(home: Path, library: Any) -> tuple[dict[Split, Any], list[str]]:
    """The tables by split, "train" where there is no split; and remarks."""
    if not home.exists():
        raise InvalidData(f"{home} does not exist")
    tables: dict[Split, Any]
    files = _parquet_files(home) if home.is_dir() else [home]
    by_split, remarks = grouped(home, files) if home.is_dir() else ({"train": files}, [])
    loaded = None
    # pyarrow's and the library's own exceptions for damaged files have no common base
    try:
        if files:
            cache = str(cache_folder() / "huggingface")
            tables = {
                split: library.Dataset.from_parquet(list(map(str, paths)), cache_dir=cache)
                for split, paths in by_split.items()
            }
        else:
            loaded = library.load_from_disk(str(home))
            tables = {} if isinstance(loaded, Mapping) else {"train": loaded}
    except Exception as error:
        raise InvalidData(f"{home}: cannot be read by the library datasets ({error})") from error
    if isinstance(loaded, Mapping):
        splits = assigned(str(home), splits_of_folders(map(str, loaded)) or dict.fromkeys(loaded))
        tables = {split: loaded[name] for name, split in splits.items()}
        remarks = [f"left out: {name}, which is no split" for name in loaded if name not in splits]
    for split, table in tables.items():
        if not len(table):
            raise InvalidData(f"{home}: the {split} split holds no example; fill it, or remove it")
    return {split: tables[split] for split in _ORDER if split in tables}, remarks


def _holds_images(feature: Any, library: Any) -> bool:
    """True for the type Image, and for what parquet files without types keep of one."""
    if isinstance(feature, library.Image):
        return True
    if isinstance(feature, Mapping):
        return "bytes" in feature and set(feature) <= {"bytes", "path"}
    return isinstance(feature, library.Value) and feature.dtype in ("binary", "large_binary")


def _image_column(table: Any, wanted: str | None, home: Path, library: Any) -> str:
    features: Mapping[str, Any] = table.features
    if wanted is not None:
        if wanted not in features:
            raise InvalidSetting(f'{home} has no column "{wanted}": {nearest(wanted, features)}')
        return wanted
    for kinds in ((library.Image,), (library.Array2D, library.Array3D)):
        for name, feature in features.items():
            if isinstance(feature, kinds):
                return name
    names = [name for name, feature in features.items() if _holds_images(feature, library)]
    if len(names) == 1:
        return names[0]
    which = f"{' and '.join(names)} may hold images" if names else "none is known to hold images"
    raise InvalidData(
        f"{home} has the columns {', '.join(features)}; {which}. Name the column: {_NAME_IT}"
    )


def _label_column(table: Any, wanted: str | None, home: Path, library: Any) -> str | None:
    features: Mapping[str, Any] = table.features

    def serves(name: str) -> bool:
        feature = features[name]
        if isinstance(feature, library.ClassLabel):
            return True
        kind = feature.dtype if isinstance(feature, library.Value) else ""
        return kind in ("bool", "string", "large_string") or kind.startswith(("int", "uint"))

    if wanted is not None:
        if wanted not in features:
            raise InvalidSetting(f'{home} has no column "{wanted}": {nearest(wanted, features)}')
        if not serves(wanted):
            raise InvalidSetting(
                f'{home}: the column "{wanted}" holds {features[wanted]}; labels are of the type '
                "ClassLabel, integers, booleans or strings"
            )
        return wanted
    typed = [n for n, f in features.items() if isinstance(f, library.ClassLabel)]
    return next((n for n in (*typed, *_LABEL_COLUMNS) if n in features and serves(n)), None)


def _labels(
    tables: Mapping[Split, Any], column: str | None, wanted: bool, home: Path
) -> tuple[dict[Split, npt.NDArray[np.int64]], tuple[str, ...], list[str]]:
    """Labels of each split by the names of all, -1 for those of a split without; names; remarks.

    The names are () where there are no labels. A column that the user named (`wanted`) may not lack
    one.
    """
    labels: dict[Split, npt.NDArray[np.int64]] = {}
    names: dict[Split, tuple[str, ...]] = {}
    remarks: list[str] = []
    for split, table in tables.items() if column is not None else ():
        entries = list(table[column][:]) if column in table.features else [None] * len(table)
        typed = getattr(table.features.get(column), "names", None)
        missing = sum(e is None or (typed is not None and e == -1) for e in entries)
        labels[split] = np.full(len(table), -1, np.int64)
        if missing == len(entries):
            remarks.append(f"the {split} split has no labels")
            continue
        try:
            if missing:
                raise InvalidData(
                    f"{home}: {missing} of {len(entries)} examples of the {split} split have no "
                    f'label in the column "{column}"; leave these examples out to use the labels'
                )
            title = f"{home}, {split}"
            if typed is None:
                labels[split], names[split] = coded(entries, len(entries), (), title)
            else:
                names[split] = tuple(typed)
                labels[split] = np.array(entries, np.int64)  # positions in the names
                low, high = labels[split].min(), labels[split].max()
                if low < 0 or high >= len(typed):
                    raise InvalidData(
                        f"{title}: labels from {low} to {high}, expected 0 to {len(typed) - 1}"
                    )
        except InvalidData as error:
            if wanted:
                raise
            return {}, (), [f"no labels: {error}"]
    different = set(names.values())
    if len(different) < 2:
        return labels, next(iter(different), ()), remarks
    classes = ordered(name for some in different for name in some)
    for split, some in names.items():
        table_of = np.array([classes.index(name) for name in some], np.int64)
        labels[split] = table_of[labels[split]]
    return labels, classes, remarks


def _encoded(record: Mapping[str, Any] | None) -> Path | io.BytesIO:
    """The encoded bytes of one image, or the path that it is kept at."""
    if record is None:
        return io.BytesIO()
    if record["bytes"] is not None:
        return io.BytesIO(record["bytes"])
    return Path(record["path"] or "")


def _from_arrays(
    home: Path,
    name: str,
    tables: Mapping[Split, Any],
    column: str,
    label: str | None,
    wanted: bool,
    levels: int | None,
) -> FolderData:
    """A column of numeric arrays, read into memory."""
    parts: dict[Split, Dataset] = {}
    labels, classes, remarks = _labels(tables, label, wanted, home)
    for split, table in tables.items():
        x = np.asarray(table.with_format("numpy")[column][:])
        part = from_array(x, levels, name=name, split=split)
        mine = labels.get(split)
        if mine is not None and mine.min() >= 0 and classes:
            spec = dataclasses.replace(part.spec, classes=classes)
            part = dataclasses.replace(part, spec=spec, labels=mine)
        parts[split] = part
    n = sum(len(part) for part in parts.values())
    report = FolderReport(str(home), n, (), 0, tuple(remarks))
    return FolderData(*completed(united(parts)), report)
