"""What the commands say and write of sequences: tables, pictures, MIDI, sound."""

from __future__ import annotations

import argparse
import csv
import io
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from likely.cli.output import say, say_json
from likely.cli.saved import labels_for, path_of
from likely.errors import InvalidSetting

if TYPE_CHECKING:
    import numpy.typing as npt

    from likely.density import SequenceDensity
    from likely.runs.saved import SavedRun

SUFFIXES = (".csv", ".png", ".mid", ".wav")
# Options of `likely sample` that images alone have.
OF_IMAGES = {"mean": False, "truncation": None, "progressive": None, "temperature": 1.0,
             "method": "auto", "columns": None, "gif": None, "like": None}  # fmt: skip


def sample(options: argparse.Namespace, saved: SavedRun, model: SequenceDensity) -> int:
    """`likely sample` of a run of sequences: a table, and the integers."""
    import numpy as np

    from likely.files import refuse_unwritable
    from likely.runs import checkpoint
    from likely.training.progress import duration

    for name, nothing in OF_IMAGES.items():
        if getattr(options, name) != nothing:
            raise InvalidSetting(f"--{name} is for images; {saved.name} draws sequences")
    suffix = Path(options.out).suffix.lower() if options.out else ".csv"
    if suffix not in SUFFIXES:
        raise InvalidSetting(f"--out {options.out}: expected a name that ends in "
                             f"{', '.join(SUFFIXES)}")  # fmt: skip
    out = path_of(options.out, suffix, "--out")
    array = path_of(options.npy, ".npy", "--npy")
    out = out or saved.directory / "samples" / f"seed-{options.seed}.csv"
    for path in (out, array):
        if path is not None:
            refuse_unwritable(path)
    context = labels_for_sequences(model, options.number, options.label)
    began = time.monotonic()
    steps = options.steps or model.spec.longest
    x = model.sample(options.number, seed=options.seed, context=context, steps=steps)
    seconds = time.monotonic() - began
    integers = x.cpu().numpy()
    checkpoint.write_bytes(out, content(suffix, saved.name, model, integers, options.seed))
    if array is not None:
        buffer = io.BytesIO()
        np.save(buffer, integers.astype(np.int32), allow_pickle=False)
        checkpoint.write_bytes(array, buffer.getvalue())
    if options.json:
        record: dict[str, Any] = {
            "run": str(saved.directory), "model": saved.name, "n": options.number, "steps": steps,
            "seed": options.seed, "columns": [c.name for c in model.spec.columns],
            "file": str(out), "array": None if array is None else str(array),
            "seconds": round(seconds, 3),
        }  # fmt: skip
        say_json(record)
        return 0
    written = " and ".join(str(path) for path in (out, array) if path is not None)
    say(f"{options.number} sequences of {steps} steps from {saved.name} in {duration(seconds)}: "
        f"{written}")  # fmt: skip
    return 0


def content(
    suffix: str, name: str, model: SequenceDensity, x: npt.NDArray[Any], seed: int
) -> bytes:
    """What a file of that ending holds of sequences [n, T, K]."""
    from likely.data.sequences import music

    series, spec = list(x), model.spec
    if suffix == ".mid":
        return music.midi(series, spec)
    if suffix == ".wav":
        return music.sound(series, spec)
    if suffix == ".png":
        return music.picture(series, spec, f"{name} on {spec.name}: seed {seed}, not chosen")
    return table(model, x).encode()


def labels_for_sequences(model: SequenceDensity, n: int, label: str | None) -> Any:
    """Classes to draw with: the one asked for, or all in turn; None for an unconditional run."""
    if model.spec.covariates:
        raise InvalidSetting(
            f"this run is given covariates ({', '.join(model.spec.covariates)}), which the command "
            "cannot take; draw in Python: likely.load(DIR).model.sample(n, context=numbers)"
        )
    shape, model.context_shape = model.context_shape, ()
    try:
        return labels_for(model, n, label)
    finally:
        model.context_shape = shape


def table(model: SequenceDensity, x: npt.NDArray[Any]) -> str:
    """Sequences [n, T, K] as rows of a table in the units of their columns."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["series", "t", *(column.name for column in model.spec.columns)])
    for series, rows in enumerate(x):
        for t, row in enumerate(rows):
            cells = [
                c.names[v] if c.names else f"{c.offset + c.step * v:.10g}"
                for c, v in zip(model.spec.columns, row.tolist(), strict=True)
            ]
            writer.writerow([series, t, *cells])
    return text.getvalue()
