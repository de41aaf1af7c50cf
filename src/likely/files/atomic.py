"""Atomic file writes, and the removal of temporary files that killed writers left behind.

A file is written under a temporary name in the same folder, flushed to disk, and renamed. The
writer holds a lock on its temporary file, which the system releases however the process ends: a
temporary file without a lock is abandoned, and the next write in that folder removes it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

ENDING = ".likely.tmp"
_numbers = itertools.count()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path that becomes `path` when the block ends without an error.

    Raises:
        OSError: the folder or the file cannot be written; what was there before is kept.
    """
    remove_abandoned(path.parent)
    temporary, handle = _created(path)
    try:
        yield temporary
        # The block may have put another file there; it is that file which must be on the disk.
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        os.close(handle)
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_abandoned(folder: Path) -> None:
    """Remove temporary files of processes that were killed while writing to this folder."""
    for path in folder.glob(f".*{ENDING}"):
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_RDWR)
            try:
                if _locked(handle, wait=False):
                    path.unlink()
            finally:
                os.close(handle)


def _created(path: Path) -> tuple[Path, int]:
    """A new locked file beside `path`, as readable as any new file, and its descriptor."""
    while True:
        name = f".{path.name[:60]}.{os.getpid()}-{next(_numbers)}{ENDING}"
        temporary = path.with_name(name)
        try:
            handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        except FileExistsError:  # of a process with our number: in another container, or dead
            continue
        _locked(handle, wait=True)
        if temporary.exists():
            return temporary, handle
        os.close(handle)  # removed as abandoned between its creation and its lock


def _locked(handle: int, *, wait: bool) -> bool:
    """Lock an open file; False if another process holds it or the system has no locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _sync_folder(folder: Path) -> None:
    """Flush a rename to the disk, where the system can (not on Windows)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
