"""Records of a run: metrics.jsonl without times, timing.jsonl with them, TensorBoard events.

Each line is a record. The two files may be ahead of the last checkpoint; a resumed run drops
the records of steps that it will repeat, so that metrics.jsonl ends byte for byte like that of an
uninterrupted run.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import warnings
from pathlib import Path
from typing import Any

from likely.errors import MissingDependency
from likely.files import parse_json, reading
from likely.runs import checkpoint


class ForeignLines(UserWarning):
    """A log contains lines that are not records; the message names the file and the first one."""


METRICS, TIMING = "metrics.jsonl", "timing.jsonl"


class Journal:
    """Where records go.

    Attributes:
        records: all of them so far, also those of earlier parts of a resumed run.
    """

    def __init__(self, directory: Path | None, *, writes: bool, tensorboard: bool) -> None:
        """Open a journal; nothing is written yet, and nothing at all unless it `writes`.

        Raises:
            MissingDependency: TensorBoard is wanted and not installed.
        """
        self.records: list[dict[str, float]] = []
        self._read_from = directory
        self._folder = directory if writes else None
        self._events: Any = None
        self._writer_class: Any = None
        if tensorboard and writes:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise MissingDependency(
                    "tensorboard=true needs TensorBoard: pip install tensorboard"
                ) from error
            self._writer_class = SummaryWriter

    def start(self) -> None:
        """Begin empty files."""
        if self._folder is not None:
            for name in (METRICS, TIMING):
                checkpoint.write_bytes(self._folder / name, b"")
        self._open_events(0)

    def resume(self, step: int) -> None:
        """Keep the records up to `step`, drop the later ones."""
        if self._folder is not None:
            for name in (METRICS, TIMING):
                kept = read_lines(self._folder / name, step)
                text = "".join(json.dumps(record) + "\n" for record in kept)
                checkpoint.write_bytes(self._folder / name, text.encode())
        if self._read_from is not None:
            self.records = read_lines(self._read_from / METRICS, step)
        self._open_events(step)

    def write(self, record: dict[str, float], seconds: float) -> None:
        """Add a record.

        Raises:
            CheckpointError: it cannot be written; what was written before is kept.
        """
        self.records.append(record)
        step = int(record["step"])
        if self._folder is not None:
            _append(self._folder / METRICS, json.dumps(record))
            clock = {"step": step, "seconds": round(seconds, 3)}
            _append(self._folder / TIMING, json.dumps(clock))
        if self._events is not None:
            for name, value in record.items():
                self._events.add_scalar(name, value, step)

    def sync(self) -> None:
        """Flush the records to the disk, before a checkpoint counts on them."""
        if self._folder is None:
            return
        for name in (METRICS, TIMING):
            with contextlib.suppress(OSError), (self._folder / name).open("rb") as file:
                os.fsync(file.fileno())

    def close(self) -> None:
        """Close TensorBoard's file."""
        if self._events is not None:
            self._events.close()

    def _open_events(self, step: int) -> None:
        if self._writer_class is not None:
            # Events after the step that is resumed are hidden: they will be written again.
            self._events = self._writer_class(self._folder or "runs", purge_step=step + 1)


def read_lines(path: Path, until: float = math.inf) -> list[dict[str, float]]:
    """The whole records up to a step.

    A truncated last line (after a kill or a full disk) is dropped. Any other line that is not a
    record is dropped with a warning: it must not prevent the fit from resuming.

    Raises:
        CheckpointError: the file cannot be read.
    """
    with reading(path, kind=checkpoint.CheckpointError):
        content = path.read_bytes() if path.exists() else b""
    *lines, rest = content.split(b"\n")
    records, foreign = [], []
    for number, line in enumerate([*lines, rest], start=1):
        record = _record(line)
        if record is not None and record["step"] <= until:
            records.append(record)
        elif record is None and line.strip() and number <= len(lines):
            foreign.append(number)
    if foreign:
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        warnings.warn(
            f"{path}, line {foreign[0]}{more}: no record of a fit; left out", ForeignLines, 2
        )
    return records


def _record(line: bytes) -> dict[str, float] | None:
    """The numbers of a line by their names; None where it is no record."""
    try:
        record = parse_json(line.decode())
    except ValueError:
        return None
    if not isinstance(record, dict) or "step" not in record:
        return None
    numbers = all(type(value) in (int, float) for value in record.values())
    return record if numbers and math.isfinite(record["step"]) else None


def _append(path: Path, line: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise checkpoint.CheckpointError(
            f"cannot write {path}: {error.strerror or error}; the last checkpoint is kept. Make "
            "room and run the same command again"
        ) from error
