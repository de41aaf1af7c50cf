"""One image file, whatever it is, as integers in [0, 256).

What is done, in order: the file is opened by its content (its name does not matter); its
announced size is checked before memory is given to it; it is decoded (the first frame of an
animation); 16-bit and floating-point pixels are scaled by their real depth; what is transparent
is laid over white; the orientation of its metadata is applied; it is cropped around its centre to
the wanted proportions and resized (bicubic with antialiasing), or only cropped where its scale
is right.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import stat
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, TiffImagePlugin, UnidentifiedImageError

from likely.errors import InvalidData

Bytes = npt.NDArray[np.uint8]

MAX_PIXELS = 1 << 26
"""Largest number of pixels that is decoded by default (8192 x 8192: at most about 1 GB)."""

# Formats that start other programs, are only stubs, or hold sound and text beside pictures.
_NEVER = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
_GREY = ("1", "L", "LA", "La", "I", "F")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF 6.0 tags
_one_large_at_a_time = threading.Lock()


class Unreadable(InvalidData):
    """This file is no image that can be read; the message is the reason alone."""


@dataclasses.dataclass(frozen=True)
class Header:
    """What a file announces, read without decoding it.

    Attributes:
        width: in pixels, before the orientation of the metadata is applied.
        height: in pixels.
        grey: True where every pixel is grey by the file's own colour model.
    """

    width: int
    height: int
    grey: bool


def read_image(
    path: Path | io.BytesIO,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Bytes:
    """Decode one file.

    Args:
        path: of the file, or its bytes.
        size: (H, W) wanted, or None for the image's own.
        channels: 1 or 3, or None for the image's own.
        max_pixels: more than this is refused before it is decoded.

    Returns:
        uint8 [C, H, W].

    Raises:
        Unreadable: the reason, without the name of the file.
    """
    with quiet():
        return decoded(path, size, channels, max_pixels)


def read_header(path: Path | io.BytesIO, max_pixels: int = MAX_PIXELS) -> Header:
    """Read what a file announces; to be called under `quiet`.

    Raises:
        Unreadable: no image, no pixel, or more than `max_pixels`.
    """
    with _opened(path, max_pixels) as image:
        return Header(*image.size, _is_grey(image))


def decoded(
    path: Path | io.BytesIO,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Bytes:
    """`read_image` for many threads; to be called under `quiet`."""
    with _opened(path, max_pixels) as image:
        large = image.width * image.height > 1 << 22
        # Many threads may decode; of large images only one, so that memory stays bounded.
        with _one_large_at_a_time if large else contextlib.nullcontext():
            if channels is None:
                channels = 1 if _is_grey(image) else 3
            if size is not None:  # a JPEG decodes at a fraction of its size, if that is enough
                image.draft(None, (3 * max(size), 3 * max(size)))
            image.load()
            turn = _TURNS.get(_orientation(image))
            flat = _flattened(image)
            if turn is not None:
                flat = flat.transpose(turn)
            if flat.mode == "RGB" and channels == 1:
                flat = flat.convert("L")
            if size is not None:
                flat = _fitted(flat, size)
            return _planes(np.asarray(flat), channels)


def _planes(pixels: npt.NDArray[np.generic], channels: int) -> Bytes:
    """[H, W] or [H, W, 3], bytes or shades in [0, 255], as uint8 [C, H, W]."""
    if pixels.dtype != np.uint8:  # of mode F
        pixels = np.clip(np.rint(pixels.astype(np.float32)), 0, 255).astype(np.uint8)
    planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    if channels == 3 and len(planes) == 1:
        planes = np.repeat(planes, 3, axis=0)
    return np.ascontiguousarray(planes, np.uint8)


@contextlib.contextmanager
def _opened(path: Path | io.BytesIO, max_pixels: int) -> Iterator[Image.Image]:
    """Open by content, refuse bombs, and turn whatever a decoder raises into a reason."""
    Image.init()
    formats = [name for name in Image.ID if name not in _NEVER]
    try:
        with contextlib.ExitStack() as stack:
            if isinstance(path, Path):
                status = path.stat()
                if not stat.S_ISREG(status.st_mode):
                    raise Unreadable("not a regular file")
                if status.st_size == 0:
                    raise Unreadable("empty file (0 bytes)")
                stream: io.BufferedReader | io.BytesIO = stack.enter_context(path.open("rb"))
            else:
                stream = path
            image = stack.enter_context(Image.open(stream, formats=formats))
            width, height = image.size
            if width < 1 or height < 1:
                raise Unreadable(f"announces {width} x {height} pixels")
            if width * height > max_pixels:
                raise Unreadable(
                    f"announces {width} x {height} pixels, more than the limit of {max_pixels}"
                )
            yield image
    except Unreadable:
        raise
    except UnidentifiedImageError as error:
        raise Unreadable("not an image, or one whose header is damaged") from error
    except MemoryError as error:
        raise Unreadable("needs more memory than there is") from error
    # Decoders answer damaged bytes with whatever exception their code happens to meet.
    except Exception as error:
        raise Unreadable(str(error).rstrip(".") or type(error).__name__) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the decoders' warnings: what is wrong with a file is reported by us, by name.

    Held around a whole batch by the calling thread, because filters belong to the process.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _is_grey(image: Image.Image) -> bool:
    if image.mode in _GREY or image.mode.startswith("I;16"):
        return True
    if image.mode != "P" or image.palette is None:
        return False
    layout, data = image.palette.getdata()
    stride = len(layout.partition(";")[0])
    if layout.endswith(";L") or stride < 3 or len(data) % stride:
        return False
    entries = np.frombuffer(bytes(data), np.uint8).reshape(-1, stride)
    return bool((entries[:, :1] == entries[:, 1:3]).all())


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8; 1 where the metadata is damaged, for the pixels are still right."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # as in _opened: damaged metadata raises anything
        return 1
    return value if isinstance(value, int) else 1


def _flattened(image: Image.Image) -> Image.Image:
    """The image in mode L or RGB, or F with values in [0, 255] for deeper ones; no alpha."""
    mode = image.mode
    if mode in ("I", "F") or mode.startswith("I;16"):
        return _scaled(image)
    if mode in ("La", "RGBa"):  # premultiplied alpha
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[mode])
    grey = mode in _GREY
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        target_mode = "LA" if grey else "RGBA"
        layered = image if image.mode == target_mode else image.convert(target_mode)
        under = Image.new("L" if grey else "RGB", image.size, "white")
        under.paste(layered.convert(under.mode), mask=layered.getchannel("A"))
        return under
    if mode == "LAB":
        target = ImageCms.createProfile("sRGB")
        flat = ImageCms.profileToProfile(
            image, ImageCms.createProfile("LAB"), target, outputMode="RGB"
        )
        assert flat is not None  # None only where the conversion is in place
        return flat
    return image if mode in ("L", "RGB") else image.convert("L" if grey else "RGB")


def _scaled(image: Image.Image) -> Image.Image:
    """Deep or floating-point grey as mode F in [0, 255], by the real depth of the file."""
    values = np.asarray(image)
    bits, signed, inverted = (16 if image.mode != "F" else 32), False, False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        bits = int(tags.get(_BITS, (bits,))[0])
        signed = int(tags.get(_SAMPLE_FORMAT, (1,))[0]) == 2
        inverted = tags.get(_PHOTOMETRIC) == 0  # WhiteIsZero
    if image.mode == "F":
        white = 1.0
        if not np.isfinite(values).all():
            raise Unreadable("floating-point pixels that are not finite")
    else:
        white = float(2 ** (bits - 1 if signed else bits) - 1)
        if bits == 32 and not signed:
            values = values.view(np.uint32)  # Pillow keeps the bits in a signed type
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


def _fitted(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The largest central part with the proportions of (H, W), resized to them."""
    height, width = size
    scale = min(image.width / width, image.height / height)
    if scale == 1:  # whole pixels, untouched
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return image.crop((left, top, left + width, top + height))
    box_width, box_height = width * scale, height * scale
    left_edge = max(0.0, (image.width - box_width) / 2)
    top_edge = max(0.0, (image.height - box_height) / 2)
    box = (
        left_edge,
        top_edge,
        min(float(image.width), left_edge + box_width),
        min(float(image.height), top_edge + box_height),
    )
    return image.resize((width, height), Image.Resampling.BICUBIC, box=box)
