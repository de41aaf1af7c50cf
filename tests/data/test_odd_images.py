"""88 odd, rare and broken image files: each is read right, or named with a reason.

`expected.json` says what Pillow itself does with each. What "right" means is computed here a
second time, without the library's code: PNG files by a decoder of our own (zlib and numpy), raw
TIFF and PNM from their bytes, the others from Pillow's plain decoding with the alpha arithmetic
in numpy, and photographs that show the same picture against one another.
"""

from __future__ import annotations

import json
import resource
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from likely.data import read_image
from likely.data.pixels import Unreadable

pytestmark = pytest.mark.data


@pytest.fixture
def odd(real_data: Path) -> Path:
    return real_data / "odd_images"


@pytest.fixture
def expected(odd: Path) -> list[dict]:
    return json.loads((odd / "expected.json").read_text())["files"]


def png_over_white(content: bytes) -> np.ndarray | None:
    """Decode a PNG, [H, W, 3] in [0, 255] over white; None for an interlaced one."""
    position, chunks = 8, {}
    while position + 8 <= len(content):
        length, name = struct.unpack(">I4s", content[position : position + 8])
        body = content[position + 8 : position + 8 + length]
        chunks[name] = chunks.get(name, b"") + body if name == b"IDAT" else body
        position += 12 + length
    width, height, depth, kind, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    if interlaced:
        return None
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    row_bytes = (width * samples * depth + 7) // 8
    step = max(1, samples * depth // 8)
    data = zlib.decompressobj().decompress(chunks[b"IDAT"])
    rows = np.zeros((height + 1, row_bytes + step), np.int64)
    for y in range(1, height + 1):
        start = (y - 1) * (row_bytes + 1)
        line = data[start + 1 : start + 1 + row_bytes]
        for x in range(row_bytes):
            left, up, corner = rows[y, x], rows[y - 1, x + step], rows[y - 1, x]
            guess = left + up - corner
            near = sorted((left, up, corner), key=lambda v: abs(guess - v))[0]
            add = (0, left, up, (left + up) // 2, near)[data[start]]
            rows[y, x + step] = (line[x] + add) % 256
    raw = rows[1:, step:].astype(np.uint8)
    if depth == 16:
        values = raw.reshape(height, -1, 2).astype(np.int64) @ [256, 1]
    elif depth == 8:
        values = raw.astype(np.int64)
    else:
        bits = np.unpackbits(raw, axis=1)[:, : width * samples * depth]
        values = bits.reshape(height, -1, depth).astype(np.int64) @ (1 << np.arange(depth)[::-1])
    values = values.reshape(height, width, samples)
    top = 2**depth - 1
    clear = chunks.get(b"tRNS")
    alpha = np.ones((height, width, 1))
    if kind == 3:
        palette = np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3).astype(float)
        opacity = np.full(256, 255)
        opacity[: len(clear or b"")] = list(clear or b"")
        colour, alpha = palette[values[..., 0]], opacity[values] / 255
    else:
        colour = values[..., : samples - (kind in (4, 6))] / top * 255
        if kind in (4, 6):
            alpha = values[..., -1:] / top
        elif clear:
            key = np.array(struct.unpack(f">{len(clear) // 2}H", clear))
            alpha = 1.0 - (values == key).all(-1, keepdims=True)
    return np.broadcast_to(colour * alpha + 255 * (1 - alpha), (height, width, 3))


def plain_over_white(path: Path) -> np.ndarray:
    """Pillow's plain decoding of the first frame, alpha in numpy, [H, W, 3]."""
    with Image.open(path) as image:
        image.load()
        layers = np.asarray(image.convert("RGBA"), np.float64)
    alpha = layers[..., 3:] / 255
    return layers[..., :3] * alpha + 255 * (1 - alpha)


def raw_shades(name: str, content: bytes) -> np.ndarray | None:
    """Deep files without compression, from their bytes alone, in [0, 255]."""
    if name.endswith("12bit.cropped.tif"):
        with Image.open(name) as image:  # only for where the strips are
            offsets, counts = image.tag_v2[273], image.tag_v2[279]
        packed = b"".join(content[o : o + c] for o, c in zip(offsets, counts, strict=True))
        a, b, c = np.frombuffer(packed, np.uint8).reshape(-1, 3).astype(int).T
        values = np.stack([a << 4 | b >> 4, (b & 15) << 8 | c], 1).reshape(100, 100)
        return values / 4095 * 255
    if name.endswith(("16bit.cropped.tif", "uint16_1_4660.tif")):
        with Image.open(name) as image:
            offsets, counts, size = image.tag_v2[273], image.tag_v2[279], image.size
        packed = b"".join(content[o : o + c] for o, c in zip(offsets, counts, strict=True))
        order = "<u2" if content[:2] == b"II" else ">u2"
        return np.frombuffer(packed, order).reshape(size[::-1]) / 65535 * 255
    if name.endswith(("16_bit_binary.pgm", "hopper_16bit.pgm")):
        header, _, body = content.partition(b"\n65535\n")
        width, height = map(int, header.split()[-2:])
        return np.frombuffer(body[: 2 * width * height], ">u2").reshape(height, width) / 257
    return None


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """EXIF orientation on [H, W, ...]."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    flips = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}.get(orientation, ())
    return np.flip(pixels, flips) if flips else pixels


def test_every_odd_file_is_read_right_or_named(odd: Path, expected: list[dict]):
    read = named = compared = 0
    for record in expected:
        path = odd / record["file"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if record["pillow"] != "ok":
                with pytest.raises(Unreadable) as caught:
                    read_image(path)
                assert len(str(caught.value)) > 8, record
                named += 1
                continue
            pixels = read_image(path, channels=3).transpose(1, 2, 0).astype(float)
            content = path.read_bytes()
            wanted = raw_shades(str(path), content)
            if wanted is None and content[:8] == b"\x89PNG\r\n\x1a\n":
                wanted = png_over_white(content)
                compared += wanted is not None
            if wanted is None:
                assert record["mode"] not in ("I", "I;16"), record
                wanted = plain_over_white(path)
            wanted = wanted if wanted.ndim == 3 else np.stack([wanted] * 3, 2)
            wanted = turned(wanted, record.get("exif_orientation", 1))
        assert pixels.shape == wanted.shape, record
        assert np.abs(pixels - wanted).max() <= 1.01, record
        read += 1
    assert (read, named) == (63, 25)
    assert compared == 24  # those that the decoder above has read


def test_the_same_picture_is_the_same_however_it_was_stored(odd: Path):
    folder = odd / "pillow"
    original = read_image(folder / "hopper_8bit.ppm").astype(float)
    for name in ("hopper.png", "hopper.jpg", "hopper.webp", "hopper.gif"):
        assert np.abs(read_image(folder / name) - original).mean() < 12, name
    grey = read_image(folder / "hopper_8bit.ppm", channels=1).astype(float)
    for name in ("hopper_16bit.pgm", "hopper_gray.jpg"):
        assert np.abs(read_image(folder / name, channels=1) - grey).mean() < 12, name
    upright = read_image(folder / "hopper_orientation_2.jpg").astype(float)
    for orientation in range(3, 9):
        other = read_image(folder / f"hopper_orientation_{orientation}.jpg")
        assert np.abs(other - upright).mean() < 4, orientation
    inks = read_image(folder / "pil_sample_cmyk.jpg").astype(float)
    light = read_image(folder / "pil_sample_rgb.jpg").astype(float)
    assert np.corrcoef(inks.ravel(), light.ravel())[0, 1] > 0.95
    assert (
        read_image(odd / "made_here" / "jpeg_named.png") == read_image(folder / "hopper.jpg")
    ).all()


def test_the_folder_as_a_whole_stays_within_100_mb(odd: Path, tmp_path: Path):
    """Peak resident memory of a process that reads all, above what its imports take."""
    program = f"""
import resource
from likely.data import from_folder
import likely.data.pixels
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
report = from_folder({str(odd)!r}).report
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(report.read, len(report.skipped), report.ignored, (after - before) // 1024)
"""
    limit = 2**31  # of address space: a bomb that was given its memory would end here

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    out = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=limited,
    )
    read, skipped, ignored, megabytes = map(int, out.stdout.split())
    assert (read, skipped, ignored) == (63, 25, 2)
    assert megabytes < 100
