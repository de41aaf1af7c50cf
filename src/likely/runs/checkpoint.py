"""Atomic file writes and the run-directory lock.

A file is written under a temporary name in the same folder, flushed to disk, and renamed. A full
disk, an unwritable folder or a killed process leaves the previous file intact. Tensors are stored
as safetensors; no pickle is read or written.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from likely.errors import LikelyError
from likely.files import CheckpointError as CheckpointError
from likely.files import parse_json, reading
from likely.files import write_bytes as write_bytes

CHECKSUM = "sha256"


class Occupied(LikelyError, OSError):
    """Another process is writing to this run directory."""


@contextlib.contextmanager
def sole_writer(directory: Path) -> Iterator[None]:
    """Lock a run directory; the system releases the lock however the process ends.

    Temporary files that a killed process left behind are removed.

    Raises:
        Occupied: another fit writes there.
        CheckpointError: the directory cannot be made or written.
    """
    path = directory / ".lock"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise CheckpointError(
            f"cannot write to {directory}: {error.strerror or error}; give a directory that can "
            "be written"
        ) from error
    with file:
        if not _locked(file.fileno()):
            file.seek(0)
            raise Occupied(
                f"another fit (process {file.read().strip() or 'unknown'}) is writing to "
                f"{directory}; wait for it, or give another directory"
            )
        # The process id is only for the other process's message: a full disk must not stop us here.
        with contextlib.suppress(OSError):
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        for left_over in directory.glob(".*.tmp"):
            left_over.unlink(missing_ok=True)
        yield


def _locked(handle: int) -> bool:
    """Lock an open file without waiting; also True if the file system has no locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True


def write_json(path: Path, value: Any) -> None:
    """Write JSON, indented, keys in the order given; NaN is refused."""
    write_bytes(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """What `write_json` writes."""
    return (json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()


def as_json(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as JSON gives it back: tuples are lists."""
    return {key: list(v) if isinstance(v, tuple) else v for key, v in record.items()}


def read_json(path: Path, remedy: str = "restore it from a copy") -> Any:
    """Read JSON, or say which file is missing or broken, and the remedy."""
    with _reading(path, remedy):
        return parse_json(path.read_bytes())


def _reading(path: Path, remedy: str) -> contextlib.AbstractContextManager[None]:
    """Error boundary of every file of a run."""
    return reading(
        path, what="damaged", remedy=remedy, kind=CheckpointError, opening="cannot read "
    )


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
    """Write named tensors and a few strings; equal content gives equal bytes.

    The file contains a checksum of both, which `read_tensors` verifies.
    """
    plain = _plain(tensors)
    strings = {**about, CHECKSUM: _checksum(plain, about)}
    write_bytes(path, _in_order(tensors_to_bytes(plain, strings)))


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of named tensors, wherever they are."""
    return _checksum(_plain(tensors), {})


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors in the memory order of their dimensions."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _checksum(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> str:
    """SHA-256 of names, types, shapes and values of the tensors, and of the strings."""
    sha = hashlib.sha256(json.dumps(sorted(about.items())).encode())
    for name, tensor in sorted(tensors.items()):
        sha.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _in_order(content: bytes) -> bytes:
    """The same safetensors file with the strings sorted; the library's order changes by run."""
    stop = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:stop])
    header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of eight
    return len(text).to_bytes(8, "little") + text + content[stop:]


def read_tensors(
    path: Path, remedy: str = "restore it from a copy"
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read what `write_tensors` wrote: (tensors, strings).

    Raises:
        CheckpointError: missing, damaged, or changed since it was written; ends with the remedy.
            Older files without a checksum are accepted.
    """
    with _reading(path, remedy):
        with safe_open(path, framework="pt") as file:
            # Copied out of the file's memory map: the file may be replaced or cut while we run.
            names = file.keys()
            tensors = {name: file.get_tensor(name).clone() for name in names}
            about = dict(file.metadata() or {})
        written = about.pop(CHECKSUM, None)
        if written is not None and written != _checksum(tensors, about):
            raise ValueError("its content has changed since it was written (the checksum differs)")
    return tensors, about


def read_strings(path: Path, remedy: str = "restore it from a copy") -> dict[str, str]:
    """Only the strings of a file of tensors, which is quick; the checksum is not verified."""
    with _reading(path, remedy), safe_open(path, framework="pt") as file:
        return {key: text for key, text in (file.metadata() or {}).items() if key != CHECKSUM}


def flatten(groups: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """{"group": {"name": tensor}} to {"group.name": tensor}; group names hold no dot."""
    return {f"{g}.{name}": t for g, named in groups.items() for name, t in named.items()}


def unflatten(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """What `flatten` flattened."""
    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        group, _, name = key.partition(".")
        groups.setdefault(group, {})[name] = tensor
    return groups
