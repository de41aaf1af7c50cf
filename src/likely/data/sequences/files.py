"""Files of sequences: CSV and Parquet tables, .npz, piano rolls in .mat, and .ts of UCR and UEA."""

from __future__ import annotations

import csv
import gzip
import importlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from likely import files
from likely.data.readers import read_npz
from likely.data.sequences.dataset import Sequences
from likely.data.sequences.episodes import episodes, from_episodes, holds_episodes
from likely.data.sequences.splits import from_sequences
from likely.data.spec import hold_out, validation_size
from likely.errors import InvalidData, InvalidSetting, MissingDependency, nearest

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".mat", ".ts")
_TIME = ("time", "date", "datetime", "timestamp", "ds", "t")
SPLITS = (("train",), ("valid", "validation", "val"), ("test",))
_UNITS = {1: "second", 60: "minute", 3600: "hour", 86400: "day", 604800: "week"}
Series = list[npt.NDArray[Any]]
Table = dict[str, npt.NDArray[Any]]
Split = tuple[int, int] | None


def is_sequences(path: Path) -> bool:
    """Whether a file holds sequences; of an .npz, whether it has lengths or episodes."""
    name = path.name.lower()
    if name.endswith(".npz") and path.is_file():
        with files.reading(path), np.load(path, allow_pickle=False) as archive:
            names = archive.files
            return holds_episodes(names) or any(f"_{key}".endswith("_len") for key in names)
    return name.endswith(SUFFIXES)


def from_path(
    path: Path,
    *,
    time: str | None = None,
    series: str | None = None,
    columns: Sequence[str] | None = None,
) -> tuple[Sequences, Sequences]:
    """Training and test set of a file.

    Args:
        path: of it.
        time: column of a table that orders the steps; one of a usual name by default.
        series: column of a table that tells its series apart; one called "series" by default.
        columns: of a table that are read, in the order in which a model predicts them.
    """
    name = path.name.lower()
    stem = path.name.partition(".")[0]
    table = name.endswith((".csv", ".csv.gz", ".tsv", ".parquet"))
    if not table and (time or series or columns):
        raise InvalidSetting(f"time, series and columns are of tables; {path.name} is none")
    if table:
        return from_table(read_table(path), stem, time=time, series=series, columns=columns)
    if name.endswith(".mat"):
        return from_mat(path, stem)
    return from_ts(path) if name.endswith(".ts") else from_npz(path, stem)


def from_table(
    table: dict[str, npt.NDArray[Any]],
    name: str,
    *,
    time: str | None = None,
    series: str | None = None,
    columns: Sequence[str] | None = None,
    split: Split = None,
    clock: tuple[int, ...] | None = None,
) -> tuple[Sequences, Sequences]:
    """Named columns [rows]; see `from_path`. Hours and days get a clock of their own."""
    for column in (*(columns or ()), *filter(None, (time, series))):
        if column not in table:
            raise InvalidSetting(f"{name}: no column {column}: {nearest(column, table)}")
    time = time or time_column(table)
    if series is None and "series" in table and "series" not in (*(columns or ()), time):
        series = "series"
    chosen = list(columns or (c for c in table if c not in (time, series)))
    if not chosen:
        raise InvalidData(f"{name}: there is no column beside the time")
    rows = np.arange(len(next(iter(table.values()))))
    unit, start = "step", 0
    period: tuple[int, ...] = ()
    if time is not None:
        places = moments(table[time], f"{name}, column {time}")
        rows = np.argsort(places, kind="stable")
        steps = np.diff(places[rows]) if series is None else np.zeros(0)
        if len(steps) and (steps <= 0).any():
            raise InvalidData(
                f"{name}: column {time} has the same time twice; name the column that tells its "
                "series apart (series=..., --series-column)"
            )
        if len(steps) and steps.max() - steps.min() <= 1e-6 * steps.max():
            seconds = round(float(steps[0]))
            unit = _UNITS.get(seconds, f"{steps[0]:g} of {time}")
            if table[time].dtype.kind in "UOM" and seconds in (60, 600, 900, 1800, 3600):
                period = (86400 // seconds,)
                start = int(round(float(places[rows[0]])) // seconds) % period[0]
        elif len(steps):
            unit = f"row (steps of {time} from {steps.min():g} to {steps.max():g})"
    groups = [rows]
    if series is not None:
        _, of = np.unique(table[series][rows], return_inverse=True)
        groups = [rows[of == g] for g in range(of.max() + 1)]
    # Columns of numbers and of words side by side.
    arrays = [np.stack([table[c][g].astype(object) for c in chosen], 1) for g in groups]
    if all(table[c].dtype.kind in "biuf" for c in chosen):
        arrays = [array.astype(np.float64) for array in arrays]
    return from_sequences(
        arrays, name=name, columns=chosen, time_step=unit, start=start, split=split,
        clock=period if clock is None else clock,
    )  # fmt: skip


def moments(column: npt.NDArray[Any], what: str) -> npt.NDArray[np.float64]:
    """Times as numbers: seconds of dates."""
    if column.dtype.kind == "M":
        return np.asarray(column.astype("datetime64[ms]").astype(np.float64) / 1e3)
    if column.dtype.kind in "biuf":
        numbers = column.astype(np.float64)
    else:
        try:
            dates = np.array(
                [str(v).strip().replace(" ", "T", 1) for v in column], "datetime64[ms]"
            )
        except ValueError as error:
            raise InvalidData(
                f"{what}: {error}; expected numbers or dates as 2016-07-01 00:00:00"
            ) from error
        numbers = dates.astype(np.float64) / 1e3
    if not np.isfinite(numbers).all() or (numbers < -1e18).any():
        raise InvalidData(f"{what}: a time is missing in row {int(np.argmin(numbers))}")
    return numbers


def time_column(table: Table, taken: Sequence[str] = ()) -> str | None:
    """The column that orders the steps, by its name; None where there is none but `taken` ones."""
    return next((c for c in table if c.lower() in _TIME and c not in taken), None)


def read_table(path: Path) -> Table:
    """The columns of a table, CSV or Parquet."""
    return _parquet(path) if path.name.lower().endswith(".parquet") else read_csv(path)


def read_csv(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The columns of a table with a header: numbers where all cells are, else words."""
    with files.reading(path):
        raw = path.read_bytes()
        if path.name.endswith(".gz"):
            with gzip.open(io.BytesIO(raw)) as stream:
                files.allow(path, 100 * len(raw), 0, "text")
                raw = stream.read(100 * len(raw) + 1)
        text = raw.decode("utf-8-sig")
    delimiter = "\t" if path.suffix == ".tsv" else max(",;\t", key=text[:4096].count)
    rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if row]
    if len(rows) < 2:
        raise InvalidData(f"{path}: expected a header and rows of values")
    header = [cell.strip() for cell in rows[0]]
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(header):
            raise InvalidData(f"{path}, row {number}: {len(row)} cells, the header has "
                              f"{len(header)}")  # fmt: skip
    if len(set(header)) < len(header):
        raise InvalidData(f"{path}: two columns have the same name")
    columns = zip(*rows[1:], strict=True)
    return {name: _cells(cells) for name, cells in zip(header, columns, strict=True)}


def _cells(cells: Sequence[str]) -> npt.NDArray[Any]:
    """Numbers, NaN where a cell is empty; words where one is no number."""
    plain = [cell.strip() for cell in cells]
    empty = {"", "nan", "na", "null", "none", "?"}
    try:
        return np.array([np.nan if c.lower() in empty else float(c) for c in plain])
    except ValueError:
        return np.array(["" if c.lower() in empty else c for c in plain])


def _parquet(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The columns of a Parquet file, through the library pyarrow."""
    try:
        library = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise MissingDependency(
            "Parquet tables are read through the library pyarrow, which is not installed: "
            "pip install 'likely[parquet]'"
        ) from error
    with files.reading(path):
        table = library.read_table(path)
        out = {}
        for name in table.column_names:
            column = table[name].to_numpy()
            words = ["" if v is None else str(v) for v in column]
            out[name] = column if column.dtype.kind in "biufM" else _cells(words)
        return out


def from_mat(path: Path, name: str, time_step: str = "step") -> tuple[Sequences, Sequences]:
    """Piano rolls: cell arrays traindata, validdata and testdata of 0/1 matrices (T, keys)."""
    parts = rolls(path)
    every = [roll for part in parts for roll in part]
    keys = [f"key {21 + k}" for k in range(every[0].shape[1])]
    return from_sequences(
        every,
        name=name,
        columns=keys,
        kinds=dict.fromkeys(keys, "binary"),
        time_step=time_step,
        split=(len(parts[0]), len(parts[1])),
    )


def rolls(path: Path) -> list[Series]:
    """The training, validation and test rolls of a .mat file."""
    import scipy.io

    with files.reading(path):
        content = scipy.io.loadmat(path)
        parts = [content.get(f"{key}data") for key in ("train", "valid", "test")]
        if any(part is None for part in parts):
            raise InvalidData(f"{path}: expected traindata, validdata and testdata")
        cells = [[np.asarray(roll) for roll in np.ravel(part)] for part in parts]
        every = [roll for part in cells for roll in part]
        if any(roll.ndim != 2 or not np.isin(roll, (0, 1)).all() for roll in every):
            raise InvalidData(f"{path}: expected matrices (T, keys) of 0 and 1")
    return cells


def parts_of_npz(path: Path) -> list[Series]:
    """The sequences of an .npz file, all together or by split."""
    arrays = read_npz(path)
    if holds_episodes(arrays):
        return [list(episodes(arrays, str(path)))]
    if "len" in arrays and "x" in arrays:
        return [_series(arrays, "", path)]
    keys = [next((w for w in words if f"{w}_x" in arrays), None) for words in SPLITS]
    parts = [_series(arrays, f"{key}_", path) for key in keys if key is not None]
    if not parts:
        raise InvalidData(f"{path}: expected x and len, or train_x and train_len")
    return parts


def from_npz(path: Path, name: str) -> tuple[Sequences, Sequences]:
    """Flat arrays: `x` [sum T, K], `len` [N], `y` [N]; or train_x, train_len, ..., test_y.

    Or logged transitions of a controlled process.
    """
    arrays = read_npz(path)
    if holds_episodes(arrays):
        return from_episodes(arrays, name)
    if "len" in arrays and "x" in arrays:
        series = _series(arrays, "", path)
        return from_sequences(series, name=name, labels=arrays.get("y"))
    parts, labels = [], []
    for words in SPLITS:
        key = next((w for w in words if f"{w}_x" in arrays), None)
        parts.append([] if key is None else _series(arrays, f"{key}_", path))
        y = None if key is None else arrays.get(f"{key}_y")
        names = arrays.get("classes")
        labels += [] if y is None else [y if names is None else names[y]]
    if not parts[0]:
        raise InvalidData(f"{path}: expected x and len, or train_x and train_len")
    return published(parts, name, np.concatenate(labels) if labels else None)


def _series(arrays: dict[str, npt.NDArray[Any]], prefix: str, path: Path) -> Series:
    x, lengths = arrays[f"{prefix}x"], arrays.get(f"{prefix}len")
    if lengths is None or lengths.ndim != 1 or lengths.min(initial=1) < 1:
        raise InvalidData(f"{path}: expected {prefix}len, the steps of each sequence")
    if int(lengths.sum()) != len(x):
        raise InvalidData(f"{path}: {prefix}len adds up to {lengths.sum()}, {prefix}x has {len(x)}")
    return list(np.split(x, np.cumsum(lengths)[:-1]))


def published(
    parts: Sequence[Series], name: str, labels: npt.NDArray[Any] | None, time_step: str = "step"
) -> tuple[Sequences, Sequences]:
    """Training, validation and test sequences as a file has them; a missing part is held out."""
    train, validation, test = parts
    counts = len(train), len(validation)
    if not validation and test:
        # A sixth of the training sequences, by the fixed seed of every validation split.
        stay, kept = hold_out(len(train), max(1, validation_size(len(train))))
        order = np.concatenate([stay, kept])
        train = [train[i] for i in order]
        if labels is not None:
            labels = np.concatenate([labels[order], labels[len(order) :]])
        counts = len(stay), len(kept)
    every = [*train, *validation, *test]
    split = counts if test else None
    return from_sequences(every, name=name, labels=labels, split=split, time_step=time_step)


def from_ts(path: Path) -> tuple[Sequences, Sequences]:
    """NAME_TRAIN.ts with NAME_TEST.ts beside it, or one file that is split here."""
    stem, _, word = path.stem.rpartition("_")
    if word not in ("TRAIN", "TEST"):
        series, labels = _ts(path)
        return from_sequences(series, name=path.stem, labels=labels)
    pair = [path.with_name(f"{stem}_{w}.ts") for w in ("TRAIN", "TEST")]
    (train, first), (test, second) = map(_ts, pair)
    labels = None if first is None or second is None else np.concatenate([first, second])
    return published([train, [], test], stem, labels)


def _ts(path: Path) -> tuple[Series, npt.NDArray[Any] | None]:
    """Series [T, K] of a file and their classes: channels between colons, the class last."""
    lines = files.read_text(path, "a .ts file").splitlines()
    labelled, series, labels, inside = False, [], [], False
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if text.startswith("@"):
            words = text.lower().split()
            if words[0] == "@timestamps" and words[1:] == ["true"]:
                raise InvalidData(f"{path}: time stamps in .ts files are not read")
            labelled = labelled or (words[0] == "@classlabel" and words[1:2] == ["true"])
            inside = inside or words[0] == "@data"
            continue
        if not inside:
            raise InvalidData(f"{path}, line {number}: values before @data")
        channels = text.split(":")
        if labelled:
            labels.append(channels.pop())
        with files.reading(path, f"line {number}", what="expected numbers between commas"):
            rows = [[np.nan if v == "?" else float(v) for v in c.split(",")] for c in channels]
            series.append(np.array(rows).T)
    if not series:
        raise InvalidData(f"{path}: no series after @data")
    return series, np.array(labels) if labelled else None
