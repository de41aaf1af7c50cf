"""Checkpoints of long solves: one `.npz`, replaced as a whole, resumed only by its own problem."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from likely.errors import InvalidData
from likely.files import (
    NUMBERS,
    CheckpointError,
    parse_json,
    read_npz,
    reading,
    record_of,
    refuse_unwritable,
)
from likely.mdp.model.arrays import Array
from likely.mdp.model.problem import MDP, write_npz
from likely.mdp.model.solution import TracePoint

FORMAT = "likely.mdp.checkpoint"


class UnwrittenCheckpoint(UserWarning):
    """A checkpoint of a solve cannot be written; the last one that could is kept."""


@dataclasses.dataclass(frozen=True)
class Resumed:
    """What a checkpoint holds.

    Attributes:
        arrays: the state of the method, by name.
        iterations: made so far.
        backups: work so far.
        seconds: spent so far.
        trace: so far.
    """

    arrays: dict[str, Array]
    iterations: int
    backups: float
    seconds: float
    trace: list[TracePoint]


class Checkpoint:
    """A file that a solve keeps up to date.

    Args:
        path: of the file; its folder must exist.
        every: seconds between two writings.
        identity: what a file must agree on to be resumed (`identity_of`).
    """

    def __init__(
        self, path: str | os.PathLike[str], every: float, identity: dict[str, Any]
    ) -> None:
        self.path, self.every, self.identity = Path(path), every, identity
        if self.path.parent.is_dir():
            refuse_unwritable(self.path)
        self._saved = time.perf_counter()

    def due(self) -> bool:
        """Whether it is time to write again."""
        return time.perf_counter() - self._saved >= self.every

    def save(
        self, arrays: Mapping[str, Array], iterations: int, backups: float, seconds: float,
        trace: Iterable[TracePoint],
    ) -> None:  # fmt: skip
        """Write the state and the counters, atomically.

        A disk that is full by then costs the checkpoint, with a warning, and not the solve.
        """
        header = {
            "format": FORMAT, "version": 3, "identity": self.identity, "iterations": iterations,
            "backups": backups, "seconds": seconds, "digest": digest_of(arrays),
            "trace": [dataclasses.astuple(point) for point in trace],
        }  # fmt: skip
        written = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
        try:
            write_npz(self.path, {**arrays, "header": written})
        except CheckpointError as error:
            warnings.warn(f"{error}; the solve continues", UnwrittenCheckpoint, stacklevel=2)
        self._saved = time.perf_counter()

    def load(self, shapes: Mapping[str, tuple[int, ...]]) -> Resumed | None:
        """What the file holds, None where there is no file.

        Args:
            shapes: of the arrays that may be there.

        Raises:
            InvalidData: the file is broken, or of another problem or criterion.
        """
        if not self.path.exists():
            return None
        with reading(self.path, what="not a checkpoint of a solve"):
            arrays = read_npz(self.path, NUMBERS)
            fields = ("format", "identity", "iterations", "backups", "seconds", "trace", "digest",
                      "version")  # fmt: skip
            header = record_of(parse_json(bytes(arrays.pop("header"))), *fields, what="a header")
            same = header["format"] == FORMAT and header["version"] == 3
            whole = header["digest"] == digest_of(arrays) and int(header["iterations"]) >= 0
            identity = header["identity"]
            counters = (
                int(header["iterations"]), float(header["backups"]), float(header["seconds"]),
            )  # fmt: skip
            trace = [TracePoint(int(k), *map(float, rest)) for k, *rest in header["trace"]]
            for name, array in arrays.items():
                if np.isnan(array).any():
                    raise InvalidData(f"{name} holds what is not a number")
        fits = all(array.shape == shapes.get(name) for name, array in arrays.items())
        if not same or identity != self.identity or not fits:
            raise InvalidData(
                f"{self.path}: this checkpoint belongs to another problem ({identity}); delete it "
                "or give another path"
            )
        if not whole:
            raise InvalidData(
                f"{self.path}: this checkpoint was damaged or changed after it was written; "
                "delete it or give another path"
            )
        return Resumed(arrays, *counters, trace)


def digest_of(arrays: Mapping[str, Array]) -> str:
    """Of the names, types, shapes and numbers of some arrays."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(array.data)
    return digest.hexdigest()


def checkpoint_of(
    path: str | os.PathLike[str] | None, every: float, mdp: MDP, criterion: str, objective: str,
    horizon: int | None = None, **arrays: Array | None,
) -> Checkpoint | None:  # fmt: skip
    """The checkpoint of an undiscounted solve, None where no file is asked for."""
    if path is None:
        return None
    present = {name: array for name, array in arrays.items() if array is not None}
    identity = identity_of(
        mdp, criterion=criterion, objective=objective, horizon=horizon, **present
    )
    return Checkpoint(path, every, identity)


def identity_of(mdp: MDP, **asked: Any) -> dict[str, Any]:
    """What tells one problem and question from another.

    Args:
        mdp: the problem.
        asked: criterion, objective, horizon; arrays (a target) by their digest.
    """
    arrays = {
        name: getattr(mdp, name)
        for name in ("pair_ptr", "indptr", "indices", "probability", "reward", "terminal")
    }
    return {
        "states": mdp.states, "discount": mdp.discount, "transitions": mdp.transitions,
        "rounding": [mdp.row_defect, mdp.reward_defect], "arrays": digest_of(arrays),
        **{
            name: hashlib.sha256(value.tobytes()).hexdigest()
            if isinstance(value, np.ndarray)
            else value
            for name, value in asked.items()
        },
    }  # fmt: skip
