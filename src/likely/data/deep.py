"""Pixels of more than 8 bits, and the kinds of TIFF that a decoder would read silently wrong.

Pillow has no 16-bit colour: of each value it keeps the high byte. Told that the file has the other
byte order, it keeps the low byte, so that two decodings give the values whole.
"""

from __future__ import annotations

import re
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin

from likely.errors import InvalidData

Shades = npt.NDArray[np.float32]

# TIFF 6.0 tags
_SUBFILE, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 258, 259, 262
_SAMPLES, _PLANAR, _EXTRA, _SAMPLE_FORMAT, _SUBSAMPLING = 277, 284, 338, 339, 530
_SIXTEEN = re.compile(r"(LA|RGB|RGBA|RGBa|RGBX|CMYK);16([LBN])")
_SWAPPED = {"L": "B", "B": "L", "N": "B" if np.little_endian else "L"}


class Unreadable(InvalidData):
    """This file is no image that can be read; the message is the reason alone."""


def raw_mode(image: Image.Image) -> str:
    """How the pixels are stored, as Pillow calls it; to be asked before it decodes them."""
    tiles = getattr(image, "tile", None)
    if not tiles:
        return ""
    arguments = tiles[0][3]
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def is_sixteen(image: Image.Image) -> bool:
    """True for colour, or grey with alpha, of 16 bits a value."""
    return image.format in ("PNG", "TIFF") and _SIXTEEN.fullmatch(raw_mode(image)) is not None


def sixteen_bit_planes(high: Image.Image, low: Image.Image) -> list[Image.Image]:
    """The planes of a 16-bit image in mode F, values in [0, 255], over white.

    `high` and `low` are the same file, opened twice and not yet decoded.
    """
    key = high.info.get("transparency")
    match = _SIXTEEN.fullmatch(raw_mode(high))
    assert match is not None
    kind, order = match.groups()
    if kind == "LA":  # in a PNG: four bytes per pixel, as of 8-bit RGBA
        _redirect(high, "RGBA")
        high.load()
        values = [_joined(high, i, high, i + 1) for i in (0, 2)]
    else:
        plain = "RGBA" if kind == "RGBa" else kind
        _redirect(high, f"{plain};16{order}")
        _redirect(low, f"{plain};16{_SWAPPED[order]}")
        high.load()
        low.load()
        values = [_joined(high, i, low, i) for i in range(len(high.getbands()))]
    if kind in ("RGB", "RGBX") and isinstance(key, tuple):
        clear = np.logical_and.reduce([v == k for v, k in zip(values, key, strict=True)])
        values = [np.where(clear, np.uint16(65535), v) for v in values]
    if kind == "CMYK":
        paper = 1 - _unit(values[3])
        return [Image.fromarray(255 * (1 - _unit(ink)) * paper) for ink in values[:3]]
    if kind in ("LA", "RGBA", "RGBa"):
        alpha = _unit(values[-1])
        inks = values[:-1]
        weights = 1 if kind == "RGBa" else alpha  # premultiplied already
        return [
            Image.fromarray(255 * np.minimum(_unit(ink) * weights + 1 - alpha, 1)) for ink in inks
        ]
    return [Image.fromarray(255 * _unit(value)) for value in values]


def _joined(high: Image.Image, i: int, low: Image.Image, j: int) -> npt.NDArray[np.uint16]:
    """The bytes of two channels as one value."""
    values = np.asarray(high.getchannel(i)).astype(np.uint16)
    values <<= 8
    values |= np.asarray(low.getchannel(j))
    return values


def _unit(values: npt.NDArray[np.uint16]) -> Shades:
    return np.multiply(values, np.float32(1 / 65535), dtype=np.float32)


def _redirect(image: Image.Image, mode: str) -> None:
    """Have the pixels decoded as if they were stored in another way."""
    tiles = []
    for tile in image.tile:  # type: ignore[attr-defined]
        arguments = tile[3]
        changed = (mode, *arguments[1:]) if isinstance(arguments, tuple) else mode
        tiles.append(tile._replace(args=changed))
    image.tile = tiles  # type: ignore[attr-defined]


def scaled(image: Image.Image) -> Image.Image:
    """Deep, signed or floating-point grey as mode F in [0, 255], by the real depth of the file."""
    values = np.asarray(image)
    if image.mode == "I" and image.format not in ("PNG", "PPM", "TIFF"):
        raise Unreadable(f"32-bit pixels in {image.format}, which does not say their range")
    bits, signed, inverted = (16 if image.mode != "F" else 32), False, False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        bits = int(tags.get(_BITS, (bits,))[0])
        signed = is_signed(image)
        inverted = tags.get(_PHOTOMETRIC) == 0  # WhiteIsZero
    if image.mode == "F":
        white = 1.0
        if not np.isfinite(values).all():
            raise Unreadable("floating-point pixels that are not finite")
    else:
        white = float(2 ** (bits - 1 if signed else bits) - 1)
        if bits == 32 and not signed:
            values = values.view(np.uint32)  # Pillow keeps the bits in a signed type
        if bits == 8:
            values = values.view(np.int8)
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > white:
        raise Unreadable(
            f"pixels from {low:g} to {high:g} where its type promises 0 to {white:g}; "
            "rescale it, or give the array as .npy"
        )
    shades = values.astype(np.float32) * np.float32(255.0 / white)
    if inverted:
        shades = np.float32(255.0) - shades
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        shades[values == transparent] = 255.0
    return Image.fromarray(shades)


def is_signed(image: Image.Image) -> bool:
    """True for a TIFF of signed integers."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return False
    return int(image.tag_v2.get(_SAMPLE_FORMAT, (1,))[0]) == 2


def refuse_tiff(image: TiffImagePlugin.TiffImageFile) -> None:
    """Raise Unreadable for what Pillow opens and decodes to other pixels than the file has."""
    tags = image.tag_v2
    samples, bits = int(tags.get(_SAMPLES, 1)), tags.get(_BITS, (1,))
    plain = image.mode in ("L", "P", "RGB", "CMYK") and tags.get(_PHOTOMETRIC) != 0
    plain = plain or (image.mode == "RGBA" and tags.get(_EXTRA) == (2,))
    if tags.get(_PLANAR) == 2 and not (plain and set(bits) == {8}):
        raise Unreadable(
            f"a TIFF of {samples} separate plane(s) of {max(bits)} bits ({image.mode}); save it "
            "with interleaved channels"
        )
    whole = tuple(tags.get(_SUBSAMPLING, (2, 2))) == (1, 1)
    if image.mode == "YCbCr" and not whole and tags.get(_COMPRESSION) not in (6, 7):
        raise Unreadable("a TIFF of subsampled YCbCr without JPEG compression; save it as RGB")
    if int(tags.get(_SUBFILE, 0)) & 1:
        raise Unreadable("a TIFF whose first page is a reduced copy; save the full page alone")


def refuse_few_bits(stream: BinaryIO) -> None:
    """Raise Unreadable for a JPEG 2000 of fewer than 8 bits: Pillow takes its white for a grey."""
    place = stream.tell()
    stream.seek(0)
    header = stream.read(1 << 16)
    stream.seek(place)
    start = header.find(b"\xff\x4f\xff\x51") + 2  # start of the codestream, then its SIZ marker
    if start < 2 or len(header) < start + 40:
        return
    count = int.from_bytes(header[start + 38 : start + 40], "big")
    for precision in header[start + 40 : start + 40 + 3 * count : 3]:
        bits = (precision & 0x7F) + 1
        if bits < 8:
            raise Unreadable(f"a JPEG 2000 of {bits} bits a value; save it as PNG")
