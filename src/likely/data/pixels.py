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

from likely.data.deep import Unreadable as Unreadable
from likely.data.deep import (
    is_signed,
    is_sixteen,
    raw_mode,
    refuse_few_bits,
    refuse_tiff,
    scaled,
    sixteen_bit_planes,
)

Bytes = npt.NDArray[np.uint8]

MAX_PIXELS = 1 << 26
"""Largest number of pixels that is decoded by default (8192 x 8192: about 1 GB, and half more of
16-bit colour)."""

# Formats that start other programs, are only stubs, hold sound and text beside pictures, or
# physical quantities whose scale Pillow does not read.
_NEVER = {"BUFR", "EPS", "FITS", "GRIB", "HDF5", "MCIDAS", "MPEG", "WMF"}
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
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow's
_one_large_at_a_time = threading.Lock()


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
            if is_sixteen(image):
                with _opened(path, max_pixels) as again:
                    flats = sixteen_bit_planes(image, again)
            else:
                if size is not None:  # a JPEG decodes at a fraction of its size, if that will do
                    image.draft(None, (3 * max(size), 3 * max(size)))
                raw = raw_mode(image)
                image.load()
                flats = [_flattened(image, raw)]
            turn = _TURNS.get(_orientation(image))
            planes = []
            for flat in flats:
                if turn is not None:
                    flat = flat.transpose(turn)
                if flat.mode == "RGB" and channels == 1:
                    flat = flat.convert("L")
                planes.append(np.asarray(flat if size is None else _fitted(flat, size)))
            if len(planes) == 3 and channels == 1:
                planes = [sum(w * p for w, p in zip(_LUMA, planes, strict=True))]
            pixels = planes[0] if len(planes) == 1 else np.stack(planes, 2)
            if pixels.dtype != np.uint8:  # shades of mode F in [0, 255]
                pixels = np.clip(np.rint(pixels.astype(np.float32)), 0, 255).astype(np.uint8)
            first = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
            if channels == 3 and len(first) == 1:
                first = np.repeat(first, 3, axis=0)
            return np.ascontiguousarray(first, np.uint8)


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
                path.seek(0)
                stream = path
            image = stack.enter_context(Image.open(stream, formats=formats))
            width, height = image.size
            if width < 1 or height < 1:
                raise Unreadable(f"announces {width} x {height} pixels")
            if width * height > max_pixels:
                raise Unreadable(
                    f"announces {width} x {height} pixels, more than the limit of {max_pixels}"
                )
            if isinstance(image, TiffImagePlugin.TiffImageFile):
                refuse_tiff(image)
            if image.format == "JPEG2000":
                refuse_few_bits(stream)
            yield image
    except Unreadable:
        raise
    except UnidentifiedImageError as error:
        raise Unreadable(_unidentified(path)) from error
    except MemoryError as error:
        raise Unreadable("needs more memory than there is") from error
    # Decoders answer damaged bytes with whatever exception their code happens to meet.
    except Exception as error:
        raise Unreadable(str(error).rstrip(".") or type(error).__name__) from error


def _unidentified(path: Path | io.BytesIO) -> str:
    if isinstance(path, Path):
        with path.open("rb") as stream:
            start = stream.read(4)
    else:
        start = path.getvalue()[:4]
    if start in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "a TIFF with a type of pixels that is not read, or a damaged header; save it as PNG"
    return "not an image, or one whose header is damaged"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the decoders' warnings: what is wrong with a file is reported by us, by name.

    Held around a whole batch by the calling thread, because filters belong to the process.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _is_grey(image: Image.Image) -> bool:
    if image.mode in _GREY or image.mode.startswith("I;16") or raw_mode(image).startswith("LA;16"):
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


def _flattened(image: Image.Image, raw: str) -> Image.Image:
    """The image, decoded, in mode L or RGB, or F with values in [0, 255] for deeper ones; no alpha.

    `raw` is how its pixels were stored, from `raw_mode`.
    """
    mode = image.mode
    if mode in ("I", "F") or mode.startswith("I;16") or is_signed(image):
        return scaled(image)
    key = image.info.get("transparency")
    if mode in ("1", "L", "RGB") and isinstance(key, int | tuple):
        return _without_key(image, key, raw)
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


def _without_key(image: Image.Image, key: int | tuple[int, ...], raw: str) -> Image.Image:
    """Mode L or RGB with white where the pixels have the colour that stands for transparent."""
    plain = image.convert("L") if image.mode == "1" else image
    bits = {"1": 1, "L;2": 2, "L;4": 4}.get(raw, 8)
    top = 2**bits - 1
    # Of a key, the bits that the image has count (PNG specification, section 11.3.2.1).
    shade = (np.atleast_1d(key).astype(np.int64) & top) * 255 // top
    pixels = np.array(plain)
    pixels[(pixels.reshape(*pixels.shape[:2], -1) == shade).all(2)] = 255
    return Image.fromarray(pixels)


def _fitted(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The largest central part with the proportions of (H, W), resized to them."""
    height, width = size
    scale = min(image.width / width, image.height / height)
    if scale == 1:  # whole pixels, untouched
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return image.crop((left, top, left + width, top + height))
    part_width, part_height = width * scale, height * scale
    left_edge = max(0.0, (image.width - part_width) / 2)
    top_edge = max(0.0, (image.height - part_height) / 2)
    right_edge = min(float(image.width), left_edge + part_width)
    box = (left_edge, top_edge, right_edge, min(float(image.height), top_edge + part_height))
    return image.resize((width, height), Image.Resampling.BICUBIC, box=box)
