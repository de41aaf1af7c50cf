"""Files that are either whole or not there, and a lock on the directory that holds them.

A file is written under a temporary name in the same folder, flushed to the disk, and renamed.
A full disk, an unwritable folder or a killed process leaves what was there before. Tensors go
to safetensors; no pickle is ever read or written.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from likely import atomic
from likely.errors import LikelyError


class CheckpointError(LikelyError, OSError):
    """A file of a run that cannot be written or read; the message says which and why."""


class Occupied(LikelyError, OSError):
    """Another process is writing to this run directory."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path that becomes `path` when the block ends without an error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.replacing(path) as temporary:
            yield temporary
    except OSError as error:
        raise CheckpointError(
            f"cannot write {path}: {error.strerror or error}; what was there before is kept. "
            "Make room or choose another directory, and run the same command again"
        ) from error


@contextlib.contextmanager
def sole_writer(directory: Path) -> Iterator[None]:
    """Hold a run directory alone; the system lets go of it however the process ends.

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
        # Who holds it is for the other's message only: a full disk must not stop us here.
        with contextlib.suppress(OSError):
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        for left_over in directory.glob(".*.tmp"):
            left_over.unlink(missing_ok=True)
        yield


def _locked(handle: int) -> bool:
    """Lock an open file without waiting; True also where the file system knows no locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Write JSON, indented, keys in the order given; NaN is refused."""
    text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False)
    write_bytes(path, (text + "\n").encode())


def read_json(path: Path) -> Any:
    """Read JSON, or say which file is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
    """Write named tensors with a few strings beside them; equal content gives equal bytes."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, _in_order(tensors_to_bytes(plain, dict(about))))


def _in_order(content: bytes) -> bytes:
    """The same safetensors file with the strings sorted; the library's order changes by run."""
    stop = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:stop])
    header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of eight
    return len(text).to_bytes(8, "little") + text + content[stop:]


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read what `write_tensors` wrote: (tensors, strings)."""
    try:
        with safe_open(path, framework="pt") as file:
            # Copied out of the file's memory map: the file may be replaced or cut while we run.
            names = file.keys()
            tensors = {name: file.get_tensor(name).clone() for name in names}
            return tensors, dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"cannot read {path}: {error}; the file is broken: restore it from a copy, or delete "
            "it to start anew"
        ) from error


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
