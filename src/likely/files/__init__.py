"""What all readers and writers of files share: one boundary, one limit, one way to write.

- `reading` is the boundary: whatever a damaged file makes a parser do, the caller gets one
  `LikelyError` that names the file and, where known, the field.
- `allow` is the limit: what a file of a few bytes announces must not take gigabytes. A file may
  ask for 256 MiB and a hundred times its own size; the environment variable LIKELY_FILE_LIMIT
  (bytes, also as 8G) allows more. Each reader asks before it allocates.
- `replacing` writes: a file is whole or as it was before, whatever happens.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from likely.errors import InvalidData, InvalidSetting, LikelyError
from likely.files import atomic

LIMIT = "LIKELY_FILE_LIMIT"
ALWAYS = 256 << 20  # bytes that any file may ask for
FACTOR = 100  # and this many times its own size: more than any data we met, in a compressed file

NUMBERS = "biuf"


class CheckpointError(LikelyError, OSError):
    """A file that cannot be written, or a file of a run that cannot be read; it says why."""


class TooLarge(InvalidData):
    """A file announces more than it can hold, or more than it may take."""


# -- reading ----------------------------------------------------------------------------------


@contextlib.contextmanager
def reading(
    path: str | os.PathLike[str],
    field: str = "",
    *,
    what: str = "damaged or truncated",
    remedy: str = "",
    kind: type[LikelyError] = InvalidData,
    opening: str = "",
) -> Iterator[None]:
    """Turn whatever goes wrong with a file inside the block into one error that names it.

    Errors of ours that name the file already pass as they are; others get its name put in front.

    Args:
        path: of the file, or what stands for it.
        field: of the file, as "header", for the message.
        what: what the file is then said to be.
        remedy: what to do, after a semicolon.
        kind: the class of the error.
        opening: of the message about a damaged file.
    """
    name = f"{path}, {field}" if field else str(path)
    end = f"; {remedy}" if remedy else ""
    try:
        yield
    except (InvalidData, InvalidSetting, CheckpointError) as error:
        if str(path) in str(error):
            raise
        # Of a data file the error itself says what to do; of a run's, the caller knows.
        raise kind(f"{name}: {error}{end if kind is CheckpointError else ''}") from error
    except LikelyError:
        raise
    except MemoryError as error:
        raise TooLarge(f"{name}: too large for the memory of this machine") from error
    except Exception as error:  # decoders raise anything at all when bytes are damaged
        gone = isinstance(error, FileNotFoundError)
        if gone or (isinstance(error, OSError) and error.errno is not None):  # the system's
            reason = "no such file" if gone else str(getattr(error, "strerror", error))
            raise kind(f"cannot read {name}: {reason}{end}") from error
        raise kind(f"{opening}{name}: {what} ({_reason(error)}){end}") from error


def _reason(error: Exception) -> str:
    """A foreign exception in a few words on one line."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is no UTF-8"
    text = " ".join(str(error).split())
    if isinstance(error, KeyError):
        return f"there is no {text}"
    return text[:200] or type(error).__name__


def read_text(path: Path, what: str = "text") -> str:
    """A file of UTF-8 text.

    Raises:
        InvalidData: it cannot be read, or holds other bytes; names the first of them.
    """
    with reading(path):
        content = path.read_bytes()
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InvalidData(
            f"{path}, line {line}: is not a text file in UTF-8 (byte {content[error.start]:#04x}); "
            f"expected {what}: save it as UTF-8"
        ) from None


def parse_json(text: str | bytes) -> Any:
    """JSON; whatever is wrong with it is a ValueError."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def record_of(value: Any, *keys: str, what: str = "an object") -> dict[str, Any]:
    """A JSON object that has these keys.

    Raises:
        InvalidData: something else; the message names the missing key. `reading` adds the file.
    """
    if not isinstance(value, dict):
        kind = "null" if value is None else _KINDS.get(type(value), type(value).__name__)
        raise InvalidData(f"expected {what} {{...}}, given {kind}")
    for key in keys:
        if key not in value:
            raise InvalidData(f'"{key}" is missing')
    return value


_KINDS = {list: "a list", str: "text", bool: "a truth value", int: "a number", float: "a number"}


# -- the limit ---------------------------------------------------------------------------------


def limit(held: int) -> int:
    """Bytes of memory that a file of `held` bytes may ask for.

    Raises:
        InvalidSetting: LIKELY_FILE_LIMIT is no number of bytes.
    """
    text = os.environ.get(LIMIT, "").strip()
    if not text:
        return ALWAYS + FACTOR * held
    scale = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}.get(text[-1].upper(), 1)
    digits = text if scale == 1 else text[:-1].rstrip()
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 20):
        raise InvalidSetting(f'{LIMIT}="{text}": expected bytes, as 8G or 4000000000')
    return max(ALWAYS + FACTOR * held, int(digits) * scale)


def allow(path: str | os.PathLike[str], held: int, wanted: int, what: str) -> None:
    """Refuse what a file of `held` bytes announces, before it is given `wanted` bytes of memory.

    `what` is so large, as "states: 300000000".

    Raises:
        TooLarge: names the file, what it announces, and how to allow it.
    """
    most = limit(held)
    if wanted > most:
        raise TooLarge(
            f"{path}: {what} would take {_amount(wanted)}, and a file of {_amount(held)} may take "
            f"{_amount(most)}; it is damaged, or else allow more by {LIMIT}={-(-wanted >> 30)}G"
        )


def _amount(count: int) -> str:
    for unit, size in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20)):
        if count >= size:
            return f"{count / size:.3g} {unit}" if count < 1000 << 40 else f"{count / size:.1e} TiB"
    return f"{count:,} bytes"


# -- arrays ------------------------------------------------------------------------------------


def read_npz(path: Path, kinds: str = NUMBERS + "cUS") -> dict[str, npt.NDArray[Any]]:
    """All arrays of an .npz file; each header is checked before memory is given to its array.

    Args:
        path: of the file.
        kinds: of numpy types that are read.

    Raises:
        InvalidData: damaged, holding Python objects, or announcing more than its bytes can hold.
    """
    size = path.stat().st_size
    arrays: dict[str, npt.NDArray[Any]] = {}
    with zipfile.ZipFile(path) as archive:
        members = [m for m in archive.infolist() if m.filename.endswith(".npy")]
        for member in members:
            packed = member.compress_type != zipfile.ZIP_STORED
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise InvalidData(f"{path}: {member.filename} is compressed in an unknown way")
            if member.compress_size > size:
                raise TooLarge(
                    f"{path}: {member.filename} announces {member.compress_size} bytes in a file "
                    f"of {size}"
                )
            # DEFLATE shrinks by less than a factor of 1,032.
            most = 1032 * member.compress_size + 1024 if packed else member.compress_size
            if member.file_size > most:
                raise TooLarge(
                    f"{path}: {member.filename} announces {member.file_size} bytes, more than its "
                    f"{member.compress_size} compressed bytes can hold"
                )
        allow(path, size, sum(member.file_size for member in members), "what it expands to")
        for member in members:
            name = f"{path}: {member.filename}"
            with archive.open(member) as stream:
                _, dtype = check_header(stream, name, member.file_size)
            if dtype.kind not in kinds:
                raise InvalidData(f"{name}: expected numbers, given {dtype}")
            with reading(name), archive.open(member) as stream:
                arrays[member.filename[:-4]] = np.lib.format.read_array(stream, allow_pickle=False)
    return arrays


def check_header(
    stream: IO[bytes] | Any, name: str, length: int
) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type that an .npy header announces, checked against the file's length in bytes.

    Raises:
        InvalidData: no .npy, Python objects inside, or a length that does not agree.
    """
    with reading(name, "header"):
        major, _ = np.lib.format.read_magic(stream)
        if major not in (1, 2):
            raise InvalidData(
                f"{name}: .npy format version {major} is not supported, save it again"
            )
        form = np.lib.format
        read = form.read_array_header_1_0 if major == 1 else form.read_array_header_2_0
        shape, _, dtype = read(stream)
    if dtype.hasobject:
        raise InvalidData(
            f"{name}: holds Python objects, which are never loaded (they can run code); "
            "save it as an array of numbers"
        )
    if any(side < 0 for side in shape) or (dtype.itemsize == 0 and 0 not in shape):
        raise InvalidData(f"{name}: announces {dtype} of shape {shape}; it is damaged")
    expected = stream.tell() + math.prod(shape) * dtype.itemsize
    if expected != length:
        raise TooLarge(
            f"{name}: announces {expected} bytes {shape} but holds {length}; it is truncated or "
            "damaged"
        )
    return shape, dtype


# -- writing -----------------------------------------------------------------------------------


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path that becomes `path` when the block ends without an error.

    Raises:
        CheckpointError: it cannot be written; what was there before is kept.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.replacing(path) as temporary:
            yield temporary


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system says of a full disk or a closed folder into one error.

    Raises:
        CheckpointError: names the file and what to do.
    """
    try:
        yield
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(
            f"cannot write {path}: {error.strerror or error}; what was there before is kept. "
            "Make room or choose another directory, and run the same command again"
        ) from error


def refuse_unwritable(path: Path) -> None:
    """Find out before the work begins whether a file can be written; nothing is left behind.

    Raises:
        CheckpointError: its folder, or the nearest one above it, cannot be written.
    """
    if path.is_dir():
        raise CheckpointError(f"cannot write {path}: it is a folder; give the name of a file")
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    with writing(path), tempfile.TemporaryFile(dir=folder):
        pass


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_array(path: Path, values: npt.NDArray[Any]) -> None:
    """Write an .npy file atomically."""
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    write_bytes(path, buffer.getvalue())
