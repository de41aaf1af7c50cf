"""Readers of published file formats: IDX, packed bits, amat text, CIFAR binary, image mosaics.

Each checks what a file announces before memory is given to it, and turns a damaged file into
one error that names it.
"""

from __future__ import annotations

import contextlib
import gzip
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from likely import files
from likely.errors import InvalidData
from likely.files import check_header as check_header

Bytes = npt.NDArray[np.uint8]


def reading(path: Path) -> contextlib.AbstractContextManager[None]:
    """Turn what decoders raise at damaged files into one error that names the file."""
    return files.reading(path, remedy="remove it and fetch it again")


def read_idx(path: Path, shape: tuple[int | None, ...]) -> Bytes:
    """An IDX file of unsigned bytes, plain or gzip, uint8 [*shape]; None is a side of any length.

    Raises:
        InvalidData: damaged, or of another type or shape. Nothing is allocated before the announced
            shape agrees with `shape` and with the length of the file.
    """
    zipped = path.suffix == ".gz"
    with reading(path), gzip.open(path) if zipped else path.open("rb") as stream:
        magic = stream.read(4)
        if len(magic) < 4 or magic[:2] != b"\0\0":
            raise InvalidData(f"{path}: not an IDX file (it begins with {magic.hex(' ')})")
        if magic[2] != 8:
            raise InvalidData(f"{path}: IDX type {magic[2]:#x}, expected 0x8 (unsigned bytes)")
        header = stream.read(4 * magic[3])
        sides = struct.unpack(f">{len(header) // 4}I", header[: len(header) // 4 * 4])
        if len(sides) != len(shape) or any(
            w is not None and w != s for w, s in zip(shape, sides, strict=True)
        ):
            wanted = " x ".join("N" if w is None else str(w) for w in shape)
            announced = " x ".join(map(str, sides))
            raise InvalidData(f"{path}: holds an array {announced}, expected {wanted}")
        count = math.prod(sides)
        held = (_gzip_length(path) if zipped else path.stat().st_size) - 4 - len(header)
        if held != count % (1 << 32):
            raise InvalidData(
                f"{path}: announces {count} bytes but holds {held}; it is truncated or damaged: "
                "remove it and fetch it again"
            )
        files.allow(path, path.stat().st_size, count, "what it expands to")
        data = stream.read(count)
        if len(data) != count or stream.read(1):
            raise InvalidData(f"{path}: announces {count} bytes but does not hold exactly these")
    return np.frombuffer(data, np.uint8).reshape(sides)


def _gzip_length(path: Path) -> int:
    """Uncompressed length modulo 2^32 from the last four bytes of a gzip file (RFC 1952)."""
    with path.open("rb") as stream:
        stream.seek(-4, 2)
        return int(struct.unpack("<I", stream.read(4))[0])


def read_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    """All arrays of an .npz file, each checked against its compressed length before it is read.

    Raises:
        InvalidData: damaged, holding Python objects, or announcing more than its bytes can hold.
    """
    with reading(path):
        return files.read_npz(path)


def read_amat(path: Path, rows: int, columns: int) -> Bytes:
    """A text file of `rows` lines of 0 and 1 with single spaces between, [rows, columns]."""
    expected = rows * columns * 2
    with reading(path):
        length = path.stat().st_size
        if length != expected:
            raise InvalidData(
                f"{path}: {length} bytes, expected {expected} ({rows} lines of {columns} bits)"
            )
        text = np.fromfile(path, np.uint8).reshape(rows, columns, 2)
    bits = text[..., 0] - ord("0")
    line_ends = text[:, -1, 1] == ord("\n")
    if bits.max() > 1 or not line_ends.all() or (text[:, :-1, 1] != ord(" ")).any():
        raise InvalidData(f"{path}: holds something else than lines of 0 and 1")
    return np.ascontiguousarray(bits)


def read_cifar(stream: Any, name: str) -> tuple[Bytes, Bytes]:
    """CIFAR-10's binary format: 10,000 records of a label and 3 x 32 x 32 bytes.

    Returns:
        Images uint8 [10000, 3, 32, 32] and labels uint8 [10000].
    """
    length = 10_000 * 3073
    data = stream.read(length + 1)
    if len(data) != length:
        raise InvalidData(f"{name}: {len(data)} bytes or more, expected {length}")
    records = np.frombuffer(data, np.uint8).reshape(10_000, 3073)
    labels = records[:, 0].copy()
    if labels.max() > 9:
        raise InvalidData(f"{name}: holds label {labels.max()}, expected 0 to 9")
    return records[:, 1:].reshape(-1, 3, 32, 32), labels


def read_mosaic(path: Path, rows: int, columns: int, side: int) -> Bytes:
    """A picture of rows x columns RGB images, row by row, [rows * columns, 3, side, side]."""
    from PIL import Image

    with reading(path), Image.open(path) as picture:
        if picture.size != (columns * side, rows * side):
            raise InvalidData(
                f"{path}: {picture.size[0]} x {picture.size[1]} pixels, "
                f"expected {columns * side} x {rows * side}"
            )
        pixels = np.asarray(picture.convert("RGB"))
    tiles = pixels.reshape(rows, side, columns, side, 3).transpose(0, 2, 4, 1, 3)
    return np.ascontiguousarray(tiles).reshape(rows * columns, 3, side, side)
