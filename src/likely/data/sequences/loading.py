"""`load` of sequences: a named set or a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from likely.data.places import find, missing
from likely.data.readers import read_npz
from likely.data.sequences import files, made
from likely.data.sequences.catalogue import (
    FILES,
    HIGHEST_VOICE,
    LOWEST_VOICE,
    SEQUENCES,
    VOICES,
)
from likely.data.sequences.dataset import Sequences
from likely.data.sequences.splits import from_sequences
from likely.errors import InvalidData, InvalidSetting


def load_sequences(
    source: str,
    *,
    time: str | None = None,
    series: str | None = None,
    columns: Sequence[str] | None = None,
) -> tuple[Sequences, Sequences]:
    """Training set, with its `.validation`, and test set.

    Args:
        source: a name in `likely.data.sequences.catalogue`, or the path of a file.
        time, series, columns: of a table; see `likely.data.load`.
    """
    if source not in SEQUENCES:
        return files.from_path(Path(source).expanduser(), time=time, series=series, columns=columns)
    if time or series or columns:
        raise InvalidSetting(f"time, series and columns are of tables; {source} has its own")
    if source == "regimes":
        return made.regimes()
    entry, name = SEQUENCES[source], FILES[source]
    path = find(entry, name)
    if path is None:
        raise missing(entry, name, "it has no free download")
    if source == "chorales":
        train, test = _chorales(path)
    elif source == "etth1":
        # Twelve, four and four months, as in the papers on it; the rest is not used.
        table = {key: column[:14_400] for key, column in files.read_csv(path).items()}
        train, test = files.from_table(table, source, split=(8_640, 2_880))
    elif name.endswith(".mat"):
        train, test = files.from_mat(path, source, time_step="quarter")
    elif source == "ecg5000":
        arrays = read_npz(path)
        train, test = from_sequences(list(arrays["x"]), name=source, labels=arrays["y"])
    else:
        train, test = files.from_npz(path, source)
    return train, test


def _chorales(path: Path) -> tuple[Sequences, Sequences]:
    """Four voices on 16ths, 0 for silence and then pitches; the clock is that of the beat."""
    arrays = read_npz(path)
    parts = []
    for split in ("train", "valid", "test"):
        pitch, lengths = arrays.get(f"{split}_satb16"), arrays.get(f"{split}_satb16_len")
        if pitch is None or lengths is None or int(lengths.sum()) != len(pitch):
            raise InvalidData(f"{path}: expected {split}_satb16 and {split}_satb16_len")
        voices = np.where(pitch < 0, 0, pitch.astype(np.int64) - (LOWEST_VOICE - 1))
        parts.append(np.split(voices, np.cumsum(lengths)[:-1]))
    train, test = from_sequences(
        [x for part in parts for x in part],
        name="chorales",
        columns=VOICES,
        kinds=dict.fromkeys(VOICES, "categorical"),
        time_step="16th",
        clock=(4, 16),
        split=(len(parts[0]), len(parts[1])),
    )
    # One table of pitches for all voices, whatever each one sings.
    columns = tuple(
        dataclasses.replace(c, levels=HIGHEST_VOICE - LOWEST_VOICE + 2, offset=0.0, step=1.0)
        for c in train.spec.columns
    )
    if any(c.offset or c.step != 1 for c in train.spec.columns):
        raise InvalidData(f"{path}: the voices are not the published ones")
    for data in (train, train.validation, test):
        assert isinstance(data, Sequences)
        data.spec = dataclasses.replace(
            data.spec, columns=columns, levels=HIGHEST_VOICE - LOWEST_VOICE + 2
        )
    return train, test
