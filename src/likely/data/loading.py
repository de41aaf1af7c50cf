"""`load`: read any kind of data set."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from likely.data.arrays import from_file
from likely.data.catalogue import CATALOGUE
from likely.data.download import Progress
from likely.data.labels import unseen
from likely.data.prepare import Binarize, check_settings, prepared
from likely.data.registry import named
from likely.data.sequences.catalogue import SEQUENCES
from likely.data.sequences.files import SUFFIXES, is_sequences
from likely.data.sequences.loading import load_sequences
from likely.data.spec import Dataset
from likely.errors import InvalidData, InvalidSetting, nearest, whole

_ARRAYS = (".npy", ".npz")


class SkippedFiles(UserWarning):
    """Some files of a folder could not be read, or there is a remark; the message names all."""


class UnseenClasses(UserWarning):
    """Classes have test or validation examples but no training example; the message names them."""


def load(
    source: str | os.PathLike[str],
    *,
    binarize: Binarize | None = None,
    levels: int | None = None,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    strict: bool = False,
    image: str | None = None,
    label: str | None = None,
    time: str | None = None,
    series: str | None = None,
    columns: tuple[str, ...] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Dataset, Dataset]:
    """Read a data set.

    Args:
        source: a name (`likely.data.catalogue` and `likely.data.sequences.catalogue` list them), or
            the path of a folder of images, of an .npy or .npz file, of a Hugging Face `datasets`
            folder or of parquet files; of sequences, of a .csv, .mat or .ts file, of an .npz that
            says how long they are, or of a parquet table where `time`, `series` or `columns` are
            given. A name takes precedence over a path of the same spelling; write "./mnist" for a
            folder called mnist.
        binarize: "static" (mnist only: Larochelle's file, the published benchmark), "dynamic"
            (Bernoulli draws of the intensities, again in each epoch) or "threshold" (at 1/2).
        levels: requantise to this many levels; for arrays, the number of levels.
        size: side, or (H, W), of images from a folder, in pixels; side of "shapes", 28 or 32.
        channels: 1 or 3, of images from a folder, or of "shapes".
        strict: refuse a folder with an unreadable file, instead of skipping the file with a
            `SkippedFiles` warning.
        image: column of the images in parquet files and Hugging Face folders.
        label: column of the labels in them.
        time: column of a table of sequences that orders the steps; by default one called time,
            date or the like.
        series: column of such a table that tells its series apart.
        columns: of such a table that are read, in the order in which a model predicts them.
        seed: of the draws of binarize="dynamic", not negative.
        progress: called with (what, done, total) while files are downloaded or decoded.

    Returns:
        Training set and test set; `train.validation` is held out for every choice.

    Raises:
        InvalidSetting: an unknown name or an impossible setting.
        InvalidData: data that cannot be read; the message says what to do.
        MissingDependency: an optional library is needed; the message names it.

    >>> train, test = load("digits")
    >>> len(train), len(train.validation), len(test)
    (1250, 250, 297)
    """
    levels = None if levels is None else whole("levels", levels)
    channels = None if channels is None else whole("channels", channels)
    if isinstance(size, tuple | list):
        size = tuple(whole("size", side) for side in size)  # type: ignore[assignment]
    elif size is not None:
        size = whole("size", size)
    seed = whole("seed", seed)
    check_settings(binarize, levels)
    if not 0 <= seed < 1 << 63:
        raise InvalidSetting(f"seed must be in [0, 2^63), given {seed}")
    if not isinstance(strict, bool):
        raise InvalidSetting(f"strict: expected True or False, given {strict!r}")
    if not isinstance(source, str | os.PathLike):
        raise InvalidSetting(
            f"a data set is a name or a path, given {type(source).__name__}; "
            "data.from_array takes an array"
        )
    name = str(os.fspath(source))
    pictured = {"image": image, "label": label}
    options = {"size": size, "channels": channels, "strict": strict, **pictured}
    table = {"time": time, "series": series, "columns": columns}
    coded = {"binarize": binarize, "levels": levels, "seed": seed}
    origin = recorded(name, {**coded, **options, **table})
    path = Path(name).expanduser()
    tabular = any(value is not None for value in table.values())
    if name in SEQUENCES or (name not in CATALOGUE and path.exists() and (
        is_sequences(path) or (tabular and path.suffix.lower() == ".parquet")
    )):  # fmt: skip
        for setting, value in {**coded, **options}.items():
            if value not in (None, False, 0):
                raise InvalidSetting(f"{setting} is for images; {name} holds sequences")
        parts = load_sequences(name, time=time, series=series, columns=columns)
        for part in (parts[0], parts[0].validation, parts[1]):
            assert part is not None
            part.source = origin
        return parts
    if tabular:
        raise InvalidSetting(f"time, series and columns are of tables of sequences; {name} is none")
    static = binarize == "static" and name == "mnist"
    if name in CATALOGUE:
        drawn = CATALOGUE[name].layout == "drawn"
        _refuse_options(name, options | ({"size": None, "channels": None} if drawn else {}))
        train, test = named(name, static=static, progress=progress, size=size, channels=channels)
    elif not path.exists():
        raise _unknown(name)
    elif path.is_dir() or path.suffix.lower() == ".parquet":
        # Imported here because named data sets do without Pillow.
        from likely.data.huggingface import from_huggingface, is_huggingface
        from likely.data.images import from_folder

        shaping: dict[str, Any]
        shaping = {"size": size, "channels": channels, "strict": strict, "progress": progress}
        if is_huggingface(path):
            data = from_huggingface(path, levels=levels, image=image, label=label, **shaping)
        else:
            _refuse_options(str(path), pictured)
            data = from_folder(path, **shaping)
        if data.report.skipped or data.report.remarks:
            warnings.warn(str(data.report), SkippedFiles, stacklevel=2)
        train, test = data.train, data.test
    elif path.suffix.lower() in _ARRAYS:
        _refuse_options(name, options)
        train, test = from_file(path, None if binarize else levels)
        levels = None
    else:
        raise InvalidData(
            f"{name} is a file of an unknown kind; expected a folder of images, .npy, .npz or "
            ".parquet, or sequences in .csv, .mat, .ts or .npz"
        )
    _warn_of_unseen_classes(train, test)
    if not static:
        train = prepared(train, binarize, levels, seed)
        test = prepared(test, binarize, levels, seed)
    for part in (train, train.validation, test):
        if part is not None:
            part.source = origin
    return train, test


def recorded(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `load` as a file keeps them, good in any working directory; set ones alone."""
    if name not in CATALOGUE and name not in SEQUENCES:
        name = str(Path(name).expanduser().resolve())
    kept = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in options.items()
        if value is not None and value is not False and (key, value) != ("seed", 0)
    }
    return {"name": name, **kept}


def _warn_of_unseen_classes(train: Dataset, test: Dataset) -> None:
    for part in (train.validation, test):
        names = [] if part is None else unseen(train, part)
        if part is not None and names:
            warnings.warn(
                f"{train.spec.name}: the class {', '.join(names[:10])}"
                f"{', ...' * (len(names) > 10)} occurs in the {part.spec.split} examples and in "
                "no training example: a conditional model cannot learn it",
                UnseenClasses,
                stacklevel=3,
            )


def _refuse_options(name: str, options: Mapping[str, object]) -> None:
    """Refuse what only folders of images, or only tables, can do."""
    for setting, value in options.items():
        if value is None or value is False:
            continue
        if setting in ("image", "label"):
            raise InvalidSetting(
                f'{setting}="{value}" names a column of parquet files or a Hugging Face folder; '
                f"{name} has none"
            )
        raise InvalidSetting(f"{setting} is for folders of images; {name} has its own shape")


def _unknown(name: str) -> InvalidSetting:
    if "/" in name or name.lower().endswith((*_ARRAYS, ".parquet", *SUFFIXES)):
        return InvalidSetting(f"there is no file or folder {name}")
    return InvalidSetting(
        f'no data set and no file or folder is called "{name}": '
        f"{nearest(name, [*CATALOGUE, *SEQUENCES])}"
    )
