"""Readers of published formats: what is right is read, what is damaged is named."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from likely.data.readers import read_amat, read_cifar, read_idx, read_mosaic, read_npz
from likely.errors import InvalidData

IMAGES = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    header = struct.pack(">HBB", 0, kind, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


@pytest.mark.parametrize("zipped", [True, False])
def test_idx_is_read(tmp_path: Path, zipped: bool):
    file = tmp_path / ("a.gz" if zipped else "a")
    file.write_bytes(gzip.compress(idx(IMAGES)) if zipped else idx(IMAGES))
    assert (read_idx(file, (None, 4, 3)) == IMAGES).all()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not an IDX file"),
        (b"\x1f\x8b nothing", "not an IDX file"),
        (idx(IMAGES, kind=13), "type 0xd"),
        (idx(IMAGES[0]), "holds an array 4 x 3, expected N x 4 x 3"),
        (idx(IMAGES[:, :, :2]), "holds an array 5 x 4 x 2"),
        (idx(IMAGES)[:-1], "announces 60 bytes but holds 59"),
        (idx(IMAGES) + b"x", "announces 60 bytes but holds 61"),
        (b"\0\0\x08\x03\0\0", "holds an array"),
    ],
)
def test_a_wrong_idx_is_named(tmp_path: Path, content: bytes, reason: str):
    file = tmp_path / "a"
    file.write_bytes(content)
    with pytest.raises(InvalidData, match=reason) as caught:
        read_idx(file, (None, 4, 3))
    assert str(file) in str(caught.value)


def test_an_idx_that_announces_terabytes_is_refused_before_allocation(tmp_path: Path):
    file = tmp_path / "a.gz"
    file.write_bytes(gzip.compress(struct.pack(">HBB3I", 0, 8, 3, 2**32 - 1, 4, 3)))
    with pytest.raises(InvalidData, match="announces 51539607540 bytes but holds 0"):
        read_idx(file, (None, 4, 3))


@pytest.mark.parametrize("cut", [1, 9, 40])
def test_a_truncated_gzip_is_named(tmp_path: Path, cut: int):
    file = tmp_path / "a.gz"
    file.write_bytes(gzip.compress(idx(IMAGES))[:-cut])
    with pytest.raises(InvalidData, match="truncated") as caught:
        read_idx(file, (None, 4, 3))
    assert str(file) in str(caught.value)


def test_a_flipped_bit_in_a_gzip_is_found(tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 256, IMAGES.shape, dtype=np.uint8)
    whole = gzip.compress(idx(noise))
    for position in range(20, len(whole) - 8, 7):
        file = tmp_path / "a.gz"
        damaged = bytearray(whole)
        damaged[position] ^= 4
        file.write_bytes(damaged)
        with pytest.raises(InvalidData):
            read_idx(file, (None, 4, 3))


def test_npz_is_read_and_python_objects_are_refused(tmp_path: Path):
    np.savez_compressed(tmp_path / "a.npz", x=IMAGES, y=np.arange(3))
    arrays = read_npz(tmp_path / "a.npz")
    assert (arrays["x"] == IMAGES).all()
    assert arrays["y"].tolist() == [0, 1, 2]
    np.savez(tmp_path / "b.npz", x=np.array([{}], dtype=object))
    with pytest.raises(InvalidData, match="Python objects"):
        read_npz(tmp_path / "b.npz")


def test_an_npz_that_announces_more_than_it_holds_is_refused_before_allocation(tmp_path: Path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (10**13,)}
    )
    file = tmp_path / "a.npz"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header.getvalue() + b"some")
    with pytest.raises(InvalidData, match="announces 10000000000128 bytes"):
        read_npz(file)


def test_an_npz_whose_directory_lies_with_it_is_refused_too(tmp_path: Path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (3 * 10**9,)}
    )
    file = tmp_path / "a.npz"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header.getvalue() + bytes(1000))
    size = struct.pack("<I", len(header.getvalue()) + 1000)
    lie = struct.pack("<I", len(header.getvalue()) + 3 * 10**9)
    assert file.read_bytes().count(size) == 2  # in the local header and in the directory
    file.write_bytes(file.read_bytes().replace(size, lie))
    with pytest.raises(InvalidData, match="compressed bytes can hold"):
        read_npz(file)


@pytest.mark.parametrize("content", [b"", b"no archive at all", b"PK\x03\x04 half"])
def test_a_damaged_npz_is_named(tmp_path: Path, content: bytes):
    file = tmp_path / "a.npz"
    file.write_bytes(content)
    with pytest.raises(InvalidData, match=r"a\.npz: damaged"):
        read_npz(file)


def test_amat_text_is_read(tmp_path: Path):
    bits = np.random.default_rng(0).integers(0, 2, (7, 5), dtype=np.uint8)
    file = tmp_path / "a.amat"
    file.write_text("".join(" ".join(map(str, row)) + "\n" for row in bits))
    assert (read_amat(file, 7, 5) == bits).all()
    with pytest.raises(InvalidData, match="70 bytes, expected 80"):
        read_amat(file, 8, 5)
    for wrong in ("2 ", "0,", "0\n"):
        file.write_text(wrong + file.read_text()[2:])
        with pytest.raises(InvalidData, match="something else"):
            read_amat(file, 7, 5)
    file.write_text("0 1 0 1 0 " * 7)
    with pytest.raises(InvalidData, match="something else"):
        read_amat(file, 7, 5)


def test_cifar_binary_is_read():
    records = np.random.default_rng(0).integers(0, 256, (10_000, 3073), dtype=np.uint8)
    records[:, 0] %= 10
    images, labels = read_cifar(io.BytesIO(records.tobytes()), "a")
    assert (labels == records[:, 0]).all()
    assert (images[17, 2, 31] == records[17, -32:]).all()
    with pytest.raises(InvalidData, match="30730001 bytes or more"):
        read_cifar(io.BytesIO(records.tobytes() + b"x"), "a")
    records[3, 0] = 10
    with pytest.raises(InvalidData, match="label 10"):
        read_cifar(io.BytesIO(records.tobytes()), "a")


def test_a_mosaic_is_cut_row_by_row(tmp_path: Path):
    tiles = np.random.default_rng(0).integers(0, 256, (6, 3, 4, 4), dtype=np.uint8)
    rows = [
        np.concatenate([tile.transpose(1, 2, 0) for tile in row], 1)
        for row in (tiles[:3], tiles[3:])
    ]
    file = tmp_path / "a.webp"
    Image.fromarray(np.concatenate(rows)).save(file, lossless=True)
    assert (read_mosaic(file, 2, 3, 4) == tiles).all()
    with pytest.raises(InvalidData, match="12 x 8 pixels, expected 8 x 12"):
        read_mosaic(file, 3, 2, 4)
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(InvalidData, match=r"a\.webp: damaged"):
        read_mosaic(file, 2, 3, 4)
