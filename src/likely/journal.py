"""The records of a run: metrics.jsonl without a clock, timing.jsonl with it, TensorBoard's events.

A record is a line, appended as it is made. The two files may run ahead of the last checkpoint;
a resumed run drops what it will do again, so that metrics.jsonl ends byte for byte as that of
a run that was never stopped.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from likely import checkpoint
from likely.errors import MissingDependency

METRICS, TIMING = "metrics.jsonl", "timing.jsonl"


class Journal:
    """Where records go.

    Attributes:
        records: all of them so far, also those of earlier parts of a resumed run.
    """

    def __init__(self, directory: Path | None, *, writes: bool, tensorboard: bool) -> None:
        """Open a journal; nothing is written yet.

        Args:
            directory: of the run, or None to keep the records in memory only.
            writes: whether this process writes files (the first of a team does).
            tensorboard: also write events for TensorBoard.

        Raises:
            MissingDependency: TensorBoard is wanted and not installed.
        """
        self.records: list[dict[str, float]] = []
        self._read_from = directory
        self._folder = directory if writes else None
        self._events: Any = None
        self._writer_class = _summary_writer() if tensorboard and writes else None

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


def read_lines(path: Path, until: int) -> list[dict[str, float]]:
    """The whole records up to a step; a line cut short by a kill or a full disk is dropped."""
    records = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    except (OSError, UnicodeDecodeError) as error:
        raise checkpoint.CheckpointError(f"cannot read {path}: {error}") from error
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record["step"] <= until:
            records.append(record)
    return records


def _append(path: Path, line: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise checkpoint.CheckpointError(
            f"cannot write {path}: {error.strerror or error}; the last checkpoint is kept. Make "
            "room and run the same command again"
        ) from error


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingDependency(
            "tensorboard=true needs the extra: pip install 'likely[tensorboard]'"
        ) from error
    return SummaryWriter
