"""Hugging Face `datasets` folders and parquet files, through that library (an optional extra).

Images are taken undecoded and read by `likely.data.pixels`, so that a damaged or oversized one
is treated as in any folder. Nothing is fetched: the files have to be on this machine.
"""

from __future__ import annotations

import importlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
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
)
from likely.data.download import Progress
from likely.data.layout import SPLIT_WORDS as SPLIT_NAMES
from likely.data.pixels import MAX_PIXELS
from likely.data.places import cache_folder
from likely.data.spec import Dataset, Split, completed
from likely.data.store import Source, key_of, stamp, stored
from likely.errors import InvalidData, InvalidSetting, MissingDependency, nearest


def is_huggingface(path: Path) -> bool:
    """True for what `Dataset.save_to_disk` wrote, a parquet file, or a folder of such files."""
    if path.is_dir():
        return (
            (path / "dataset_dict.json").is_file()
            or ((path / "dataset_info.json").is_file() and (path / "state.json").is_file())
            or bool(_parquet_files(path))
        )
    return path.suffix.lower() == ".parquet"


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
        image: column of the images; by default the first of the type Image, else of arrays.
        label: column of the classes; by default the first of the type ClassLabel.
        max_pixels: as in `from_folder`.
        progress: as in `from_folder`.

    Raises:
        MissingDependency: the library `datasets` is not installed.
        InvalidData: no such column, no readable image, or `strict` and one unreadable.
    """
    home = Path(path).expanduser()
    library = _library()
    shaping = Shaping.checked(size, channels, max_pixels)
    tables = _tables(home, library)
    first = next(iter(tables.values()))
    column = _image_column(first, image, home, library)
    classes_column = _label_column(first, label, library)
    name = home.resolve().name.removesuffix(".parquet")
    if not isinstance(first.features[column], library.Image):
        if size is not None or channels is not None:
            raise InvalidSetting(
                f'size and channels are for images; the column "{column}" of {home} holds arrays'
            )
        return _from_arrays(home, name, tables, column, classes_column, levels)

    raw = {s: t.cast_column(column, library.Image(decode=False)) for s, t in tables.items()}
    names = [f"{split}[{i}]" for split, table in raw.items() for i in range(len(table))]
    joined = library.concatenate_datasets([table.select_columns(column) for table in raw.values()])

    def get(start: int, stop: int) -> list[Path | io.BytesIO]:
        return [_encoded(record) for record in joined[start:stop][column]]

    def build(scratch: Path) -> Source:
        inputs = Inputs(str(home), names, get)
        values, kept, skipped = decode(inputs, shaping, scratch, strict, progress)
        labels, classes = _labels(tables, classes_column)
        splits = [split for split, table in tables.items() for _ in range(len(table))]
        return divided(
            name,
            values,
            [splits[position] for position in kept] if len(tables) > 1 else None,
            None if labels is None else labels[kept],
            classes,
            (f"fit={values.shape[2]}x{values.shape[3]}",),
            {"skipped": skipped},
        )

    files = sorted(file for file in home.rglob("*") if file.is_file()) if home.is_dir() else [home]
    settings = (shaping.size, channels, max_pixels, column, classes_column, PIL.__version__)
    train, test, notes = stored(
        key_of("huggingface", name, settings, [stamp(file) for file in files]), build
    )
    skipped = tuple(Skipped(*entry) for entry in notes["skipped"])
    if strict and skipped:
        raise refused(str(home), skipped)
    return FolderData(train, test, FolderReport(str(home), len(names) - len(skipped), skipped))


def _library() -> Any:
    try:
        library: ModuleType = importlib.import_module("datasets")
    except ImportError as error:
        raise MissingDependency(
            "Hugging Face folders and parquet files are read through the library datasets, which "
            "is not installed: pip install datasets"
        ) from error
    return library


def _parquet_files(folder: Path) -> list[Path]:
    """The parquet files of a folder, or of its sub-folder `data`, sorted."""
    found = sorted(folder.glob("*.parquet"))
    return found or sorted((folder / "data").glob("*.parquet"))


def _tables(home: Path, library: Any) -> dict[Split, Any]:
    """The tables by split; the whole is "train" where there is no split."""
    if not home.exists():
        raise InvalidData(f"{home} does not exist")
    files = _parquet_files(home) if home.is_dir() else [home]
    try:
        if files:
            groups: dict[str, list[str]] = {}
            for file in files:
                head = file.stem.split("-")[0].lower() if len(files) > 1 else "train"
                groups.setdefault(head if head in SPLIT_NAMES else "train", []).append(str(file))
            cache = str(cache_folder() / "huggingface")
            given: Mapping[str, Any] = {
                head: library.Dataset.from_parquet(paths, cache_dir=cache)
                for head, paths in groups.items()
            }
        else:
            loaded = library.load_from_disk(str(home))
            given = loaded if isinstance(loaded, Mapping) else {"train": loaded}
    # pyarrow's and the library's own exceptions for damaged files have no common base
    except Exception as error:
        raise InvalidData(f"{home}: cannot be read by the library datasets ({error})") from error
    tables: dict[Split, Any] = {}
    for head, table in given.items():
        split = SPLIT_NAMES.get(str(head).lower())
        if split is not None and len(table):
            tables[split] = table
    if "train" not in tables:
        raise InvalidData(
            f'{home} has the splits {", ".join(map(str, given))}; expected a "train" with examples'
        )
    return tables


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
    raise InvalidData(
        f"{home} has the columns {', '.join(features)}; none is of the type Image, Array2D or "
        "Array3D. Name the column of the images"
    )


def _label_column(table: Any, wanted: str | None, library: Any) -> str | None:
    features: Mapping[str, Any] = table.features
    if wanted is not None:
        if not isinstance(features.get(wanted), library.ClassLabel):
            raise InvalidSetting(f'no column "{wanted}" of the type ClassLabel')
        return wanted
    return next((n for n, f in features.items() if isinstance(f, library.ClassLabel)), None)


def _labels(
    tables: Mapping[Split, Any], column: str | None
) -> tuple[npt.NDArray[np.int64] | None, tuple[str, ...]]:
    """Labels of all tables one after another; -1 is the library's mark for "no label"."""
    if column is None:
        return None, ()
    labels = np.concatenate([np.array(table[column][:], np.int64) for table in tables.values()])
    if labels.min() < 0:
        return None, ()
    return labels, tuple(next(iter(tables.values())).features[column].names)


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
    levels: int | None,
) -> FolderData:
    """A column of numeric arrays, read into memory."""
    parts: dict[Split, Dataset] = {}
    for split, table in tables.items():
        x = np.asarray(table.with_format("numpy")[column][:])
        labels, classes = _labels({split: table}, label)
        parts[split] = from_array(x, levels, labels, name=name, split=split, classes=classes)
    n = sum(len(part) for part in parts.values())
    return FolderData(*completed(parts), FolderReport(str(home), n, ()))
