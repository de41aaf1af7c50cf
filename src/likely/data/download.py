"""Resumable, verified downloads.

The bytes go to `NAME.part`; a later call resumes there (HTTP Range, RFC 9110 section 14). The file
is renamed atomically once its SHA-256 agrees. Standard library only.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import os
import queue
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from likely import __version__
from likely.errors import InvalidData

Progress = Callable[[str, int, int | None], None]
"""Called with (what, done, total or None), in bytes for downloads, in files for folders."""

_CHUNK = 1 << 18


class _Permanent(Exception):
    """A response that would be the same next time."""


class _OutOfTime(Exception):
    """The overall limit is reached."""


class _Clock:
    """What time is left.

    A socket's timeout restarts with every byte; a wait by this clock ends at the overall limit
    at the latest.
    """

    def __init__(self, timeout: float, limit: float) -> None:
        self.timeout = timeout
        self._end = time.monotonic() + limit

    def left(self) -> float:
        """Seconds to the limit; raises _OutOfTime where there are none."""
        seconds = self._end - time.monotonic()
        if seconds <= 0:
            raise _OutOfTime
        return seconds

    def wait(self) -> float:
        """Seconds that the next bytes may take."""
        return min(self.timeout, self.left())


def _opened(request: urllib.request.Request, clock: _Clock) -> http.client.HTTPResponse:
    """The answer to a request, read by the clock."""
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    wait = clock.wait()

    def open_it() -> None:
        try:
            answers.put(urllib.request.urlopen(request, timeout=wait))
        except BaseException as error:
            answers.put(error)

    # Headers drip in behind urlopen, out of reach: a thread waits for them, and can be left.
    threading.Thread(target=open_it, daemon=True).start()
    try:
        answer = answers.get(timeout=clock.left())
    except queue.Empty:
        raise _OutOfTime from None
    if isinstance(answer, BaseException):
        raise answer
    assert isinstance(answer, http.client.HTTPResponse)
    answer.fp = io.BufferedReader(_Timed(answer.fp, clock))
    return answer


class _Timed(io.RawIOBase):
    """The bytes of a socket, each read within what the clock allows."""

    def __init__(self, stream: io.BufferedReader, clock: _Clock) -> None:
        self._stream, self._clock = stream, clock
        self._socket: socket.socket | None = getattr(stream.raw, "_sock", None)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        wait = self._clock.wait()
        if self._socket is not None:
            self._socket.settimeout(wait)
        return self._stream.readinto1(buffer)

    def close(self) -> None:
        self._stream.close()
        super().close()


class _CannotWrite(Exception):
    """The disk, not the network, failed: trying again would not help."""


def download(
    urls: Sequence[str],
    target: Path,
    *,
    sha256: str,
    size: int | None = None,
    progress: Progress | None = None,
    attempts: int = 4,
    pause: float = 1.0,
    timeout: float = 30.0,
    limit: float = 3600.0,
) -> Path:
    """Fetch a file, or continue fetching it; returns `target`.

    Args:
        urls: address and mirrors of the same file, tried in order; http or https.
        target: where it is put; its folder is made.
        sha256: of the whole file, hexadecimal.
        size: in bytes, where known: an answer of another size is refused before it is stored.
        progress: called after each block.
        attempts: tries for each address; a break in the transfer continues where it stopped.
        pause: seconds before the second try, doubled for each further one.
        timeout: seconds without a byte after which a try is given up.
        limit: seconds after which all is given up, tries, pauses and the wait for another process
            included, however steadily a few bytes drip in.

    Raises:
        InvalidData: no address gave the file, or its checksum is wrong (nothing is kept then), or
            the folder cannot be written. What arrived of an unfinished file stays in `.part`.
    """
    part = target.with_name(target.name + ".part")
    reasons: list[str] = []
    clock = _Clock(timeout, limit)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.with_name(target.name + ".lock"), clock):
            if target.is_file():  # another process fetched it while this one waited
                return target
            for url in urls:
                reason = _fetch(url, part, sha256, size, progress, attempts, pause, clock)
                if reason is None:
                    part.replace(target)
                    return target
                reasons.append(f"{url}: {reason}")
    except _OutOfTime as error:
        have = part.stat().st_size if part.is_file() else 0
        raise InvalidData(
            f"{target.name} did not arrive within {limit:g} s ({have} bytes did, and are kept); "
            "run the same again to resume, or fetch the file by other means"
        ) from error
    except (OSError, _CannotWrite) as error:
        raise InvalidData(
            f"cannot write {target}: {error}; make room or set LIKELY_CACHE to a folder that can "
            "be written (what arrived so far is kept)"
        ) from error
    raise InvalidData(f"could not be downloaded ({'; '.join(reasons)})")


def _fetch(
    url: str,
    part: Path,
    sha256: str,
    size: int | None,
    progress: Progress | None,
    attempts: int,
    pause: float,
    clock: _Clock,
) -> str | None:
    """Complete `part` from one address. Returns None, or the reason why not."""
    reason = "no attempt was made"
    for attempt in range(attempts):
        if attempt:
            time.sleep(min(pause * 2 ** (attempt - 1), clock.left()))
        resumed = part.is_file() and part.stat().st_size > 0
        try:
            _transfer(url, part, size, progress, clock)
        except _Permanent as error:
            return str(error)
        except TimeoutError:
            clock.left()
            reason = f"no answer within {clock.timeout:g} s"
            continue
        except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
            clock.left()
            reason = _plain(error)
            if isinstance(error, urllib.error.URLError) and isinstance(
                error.reason, socket.gaierror
            ):
                return reason  # no name service: offline, so trying again is only waiting
            continue
        with part.open("rb") as stream:
            actual = hashlib.file_digest(stream, "sha256").hexdigest()
        if actual == sha256:
            return None
        part.unlink()
        reason = f"its SHA-256 is {actual}, expected {sha256}; nothing was kept"
        if not resumed:  # a resumed file may mix two versions: fetch it whole once more
            return reason
    return reason


def _transfer(
    url: str, part: Path, size: int | None, progress: Progress | None, clock: _Clock
) -> None:
    """One request: append to `part` what it lacks. Raises where the transfer is not complete."""
    if not url.startswith(("http://", "https://")):
        raise _Permanent("only http and https addresses are fetched")
    have = part.stat().st_size if part.is_file() else 0
    if size is not None and have >= size:
        if have == size:
            return
        part.unlink()
        have = 0
    headers = {"User-Agent": f"likely/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        request = urllib.request.Request(url, headers=headers)
        answer = _opened(request, clock)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # our part is not a beginning of what the server has
            part.unlink(missing_ok=True)
            raise ConnectionError("the server refused to resume; starting again") from error
        if error.code in (408, 425, 429) or error.code >= 500:
            raise ConnectionError(f"the server answered {error.code} {error.reason}") from error
        raise _Permanent(f"the server answered {error.code} {error.reason}") from error
    with answer:
        resumes = answer.status == 206 and _start_of(answer.headers.get("Content-Range")) == have
        if answer.status == 206 and not resumes:
            part.unlink(missing_ok=True)
            raise ConnectionError("the server resumed at another place; starting again")
        have = have if resumes else 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length is not None and length.isdigit() else size
        if size is not None and total != size:
            raise _Permanent(f"the server announces {total} bytes, expected {size}")
        try:
            out = part.open("ab" if resumes else "wb")
        except OSError as error:
            raise _CannotWrite(error.strerror or str(error)) from error
        with out:
            _copy(answer, out, have, total, part.name.removesuffix(".part"), progress)


def _copy(
    answer: http.client.HTTPResponse,
    out: IO[bytes],
    have: int,
    total: int | None,
    name: str,
    progress: Progress | None,
) -> None:
    """Copy the body; what arrived before a break stays. Raises where it is too short or long."""
    while block := answer.read1(_CHUNK):  # what is there, so that a break keeps it
        have += len(block)
        if total is not None and have > total:
            raise _Permanent(f"the server sent more than the {total} bytes it should")
        _write(out, block)
        if progress is not None:
            progress(name, have, total)
    _write(out, b"")
    if total is not None and have < total:
        raise ConnectionError(f"the connection broke after {have} of {total} bytes")


def _write(out: IO[bytes], block: bytes) -> None:
    """Write a block; with an empty one, make sure that all are on the disk."""
    try:
        out.write(block)
        if not block:
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        raise _CannotWrite(error.strerror or str(error)) from error


def _start_of(content_range: str | None) -> int | None:
    """First byte of "bytes 100-199/200"; None where the header is missing or malformed."""
    first = (content_range or "").removeprefix("bytes ").partition("-")[0]
    return int(first) if first.isdigit() else None


def _plain(error: Exception) -> str:
    """A network error in words."""
    if isinstance(error, urllib.error.URLError):
        return f"no connection ({error.reason})"
    if isinstance(error, http.client.IncompleteRead):
        return f"the connection broke after {len(error.partial)} bytes of a block"
    return str(error) or type(error).__name__


@contextlib.contextmanager
def _locked(path: Path, clock: _Clock) -> Iterator[None]:
    """Hold a lock file, so that two processes never append to one `.part`."""
    try:
        import fcntl
    except ImportError:  # not POSIX: two simultaneous downloads are then up to the user
        yield
        return
    while True:
        stream = path.open("w")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(stream.fileno()), path.stat()):
                    break  # else its last holder removed it just now
        except BlockingIOError:
            time.sleep(min(0.1, clock.left()))
        except BaseException:
            stream.close()
            raise
        stream.close()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        stream.close()
