"""Folders of images and arrays as compressed files, and back, beside other coders' sizes.

From a folder come the pixels of each image with its name, in the order of the names; from an array
file its shape and type. What else an image file holds (its own compression, dates) does not.
"""

from __future__ import annotations

import bz2
import dataclasses
import io
import lzma
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from likely.ask.compress import Compressed, Decompressed, compress, decompress
from likely.data.spec import Dataset, DataSpec
from likely.density import Fittable
from likely.errors import InvalidData, InvalidSetting
from likely.files import allow, check_header, reading, replacing, write_bytes

Array = npt.NDArray[Any]
# Written as they were; other files come back as PNG, with ".png" behind their name.
LOSSLESS = (".png", ".bmp", ".tif", ".tiff", ".pgm", ".ppm")
MODES = {"1": 1, "L": 1, "RGB": 3}


@dataclasses.dataclass(frozen=True)
class Examples:
    """What is compressed.

    Attributes:
        x: levels, [N, *shape].
        about: how to write them again.
    """

    x: Array
    about: dict[str, Any]


def read_examples(source: Path, spec: DataSpec) -> Examples:
    """Images of a folder, or an .npy array, as the model of such data takes them.

    Raises:
        InvalidData: nothing there, or an image of another size, mode or levels.
    """
    if source.is_dir():
        return _read_folder(source, spec)
    if source.suffix.lower() != ".npy":
        raise InvalidData(f"{source}: expected a folder of images or an .npy array")
    with reading(source), source.open("rb") as file:
        check_header(file, str(source), os.fstat(file.fileno()).st_size)
        file.seek(0)
        array = np.lib.format.read_array(file, allow_pickle=False)
    if array.dtype.kind not in "biu":
        raise InvalidData(f"{source}: expected integers, given {array.dtype}")
    about = {"kind": "array", "dtype": array.dtype.str, "shape": list(array.shape)}
    shape = (len(array) if array.ndim else 0, *spec.shape)
    if not array.size or array.size != np.prod(shape, dtype=np.float64):
        raise InvalidData(
            f"{source}: expected integers [N, {', '.join(map(str, spec.shape))}], given "
            f"{list(array.shape)}"
        )
    return Examples(array.reshape(shape).astype(np.int64), about)


def _of_data(data: Dataset) -> Examples:
    """Its levels in the smallest type that holds them."""
    x = np.asarray(data.batch(slice(0, len(data))).x)
    kind = np.dtype(np.min_scalar_type(data.spec.levels - 1))
    about = {"kind": "array", "dtype": kind.str, "shape": list(x.shape)}
    return Examples(x.astype(np.int64), about)


def _read_folder(folder: Path, spec: DataSpec) -> Examples:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    if not files:
        raise InvalidData(f"{folder}: there are no images in it")
    if len(spec.shape) != 3 or spec.levels > 256:
        raise InvalidData(
            f"{folder}: images hold at most 256 levels, and the model's data has the shape "
            f"{spec.shape} with {spec.levels}; give an .npy array"
        )
    size = len(files) * spec.dimensions
    allow(folder, sum(p.stat().st_size for p in files), size, f"{len(files)} images")
    pixels = np.zeros((len(files), *spec.shape), np.uint8)
    modes = []
    for number, file in enumerate(files):
        with reading(file), Image.open(file) as image:
            modes.append(image.mode)
            pixels[number] = _pixels(image, spec)
    values = values_of(spec.levels)
    levels = np.searchsorted(values, pixels).clip(max=spec.levels - 1)
    wrong = (values[levels] != pixels).flatten() if spec.levels < 256 else np.zeros(1, bool)
    if wrong.any():
        file = files[int(wrong.argmax()) // spec.dimensions]
        raise InvalidData(
            f"{file}: holds a value of {pixels.flatten()[wrong.argmax()]}; of the "
            f"{spec.levels} levels of the model's data the values are {values.tolist()}"
        )
    names = [file.relative_to(folder).as_posix() for file in files]
    mode = modes[0] if len(set(modes)) == 1 else modes
    return Examples(levels.astype(np.int64), {"kind": "folder", "names": names, "mode": mode})


def _pixels(image: Image.Image, spec: DataSpec) -> Array:
    channels, height, width = spec.shape
    if MODES.get(image.mode) != channels or image.size != (width, height):
        raise InvalidData(
            f"is {image.width} x {image.height} of mode {image.mode}; the model's data is "
            f"{width} x {height} of {channels} channel{'s' * (channels > 1)}"
        )
    values = np.asarray(image, np.uint8).reshape(height, width, channels)
    return (values * np.uint8(255) if image.mode == "1" else values).transpose(2, 0, 1)


def values_of(levels: int) -> npt.NDArray[np.uint8]:
    """The 8-bit values that stand for levels: evenly from 0 to 255."""
    return np.round(np.arange(levels) * (255.0 / (levels - 1))).astype(np.uint8)


def compress_file(
    model: Fittable,
    source: str | Path | Dataset,
    out: str | Path,
    context: torch.Tensor | int | None = None,
    block: int | None = None,
    run: str = "",
    progress: Callable[[int], None] | None = None,
) -> tuple[Compressed, Examples]:
    """Compress a folder of images, an .npy array or a data set into a file, written atomically.

    Args:
        model: whose probabilities are used.
        source: the folder, the array, or data of the model's levels, which come back as an array.
        out: the file.
        context: labels, as for `sample`.
        block: see `likely.compress`.
        run: the directory of the model, which the file then names.
        progress: called with the number of examples done.
    """
    if isinstance(source, Dataset):
        examples = _of_data(source)
    else:
        examples = read_examples(Path(source), model.spec)
    about = {**examples.about, "run": run}
    x = torch.from_numpy(examples.x)
    compressed = compress(model, x, context, block, about, progress)
    write_bytes(Path(out), compressed.content)
    return compressed, examples


def decompress_file(
    model: Fittable,
    file: str | Path,
    out: str | Path,
    *,
    anyway: bool = False,
    salvage: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Decompressed:
    """Write again what `compress_file` read: images to a folder, or an .npy array to a file.

    Args:
        model: with the weights that the file was written with.
        file: the compressed file.
        out: a new or empty folder, or the array's file.
        anyway: see `likely.decompress`.
        salvage: see `likely.decompress`; damaged images are left out, damaged rows are zeros.
        progress: called with the number of examples done.
    """
    file, out = Path(file), Path(out)
    if out.exists() and out.is_dir() and any(out.iterdir()):
        raise InvalidSetting(f"{out} is there already; name a new or empty folder")
    with reading(file):
        content = file.read_bytes()
    result = decompress(
        model, content, anyway=anyway, salvage=salvage, name=str(file), progress=progress
    )
    with reading(file, "header"):
        _write(result, out)
    return result


def _write(result: Decompressed, out: Path) -> None:
    about, x = result.header.about, result.x.numpy()
    if about.get("kind") != "folder":
        dtype = np.dtype(about.get("dtype", x.dtype.str))
        buffer = io.BytesIO()
        array = x.astype(dtype).reshape(about.get("shape", x.shape))
        np.save(buffer, array, allow_pickle=False)
        target = out / "array.npy" if out.suffix != ".npy" else out
        write_bytes(target, buffer.getvalue())
        return
    names = about["names"]
    modes = [about["mode"]] * len(x) if isinstance(about["mode"], str) else about["mode"]
    _refuse_names(names, len(x))
    lost = {n for _, first, last in result.damaged for n in range(first, last)}
    values = values_of(result.header.levels)
    for number, (name, mode) in enumerate(zip(names, modes, strict=True)):
        if number in lost:
            continue
        pixels = values[x[number]].transpose(1, 2, 0)
        image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        target = out / name
        if target.suffix.lower() not in LOSSLESS:
            target = target.with_name(f"{target.name}.png")
        with replacing(target) as temporary:
            form = Image.registered_extensions()[target.suffix.lower()]
            (image.convert("1") if mode == "1" else image).save(temporary, format=form)


def _refuse_names(names: Sequence[Any], n: int) -> None:
    """No name leads out of the folder, whoever wrote the file."""
    if len(names) != n or len(set(map(str, names))) != n:
        raise InvalidData(f"{len(names)} names of {n} images, or a name twice")
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.name or "\\" in name:
            raise InvalidData(f'"{name}" is no name of an image in a folder')


# -- other coders --------------------------------------------------------------------------------


def other_coders(x: Array, levels: int) -> dict[str, int]:
    """Bits that general coders need for the same examples, all in one: coder -> bits.

    Images stand in a mosaic, about as wide as it is high; arrays of vectors are bytes. What this
    machine does not have is left out: JBIG1 (the program `pbmtojbg`), JPEG XL (imagecodecs).

    Args:
        x: levels, [N, C, H, W] or [N, D].
        levels: of them.
    """
    raw = np.ascontiguousarray(x.astype("<u1" if levels <= 256 else "<u2"))
    stored = np.packbits(raw) if levels == 2 else raw
    sizes = {
        "xz": len(lzma.compress(stored.tobytes(), preset=9 | lzma.PRESET_EXTREME)),
        "bz2": len(bz2.compress(stored.tobytes(), 9)),
    }
    if x.ndim == 4 and x.shape[1] in (1, 3) and levels <= 256:
        sizes |= _of_mosaic(mosaic(values_of(levels)[raw]), levels)
    return {name: 8 * size for name, size in sizes.items()}


def mosaic(pixels: Array) -> Array:
    """Images [N, C, H, W] side by side, [rows H, columns W, C]; black where none is left."""
    n, channels, height, width = pixels.shape
    columns = max(1, round((n * height / width) ** 0.5))
    rows = -(-n // columns)
    whole = np.zeros((rows * columns, channels, height, width), pixels.dtype)
    whole[:n] = pixels
    grid = whole.reshape(rows, columns, channels, height, width).transpose(0, 3, 1, 4, 2)
    return np.ascontiguousarray(grid.reshape(rows * height, columns * width, channels))


def _of_mosaic(pixels: Array, levels: int) -> dict[str, int]:
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    sizes = {"PNG": _saved(image.convert("1") if levels == 2 else image, "PNG", optimize=True)}
    if max(image.size) < 16384:
        wide = image.convert("RGB")
        sizes["WebP"] = _saved(wide, "WEBP", lossless=True, quality=100, method=6)
    if levels == 2 and shutil.which("pbmtojbg"):
        buffer = io.BytesIO()
        Image.fromarray(255 - pixels[..., 0]).convert("1").save(buffer, "PPM")
        done = subprocess.run(
            ["pbmtojbg", "-q"], input=buffer.getvalue(), capture_output=True, check=False
        )
        if done.returncode == 0:
            sizes["JBIG1"] = len(done.stdout)
    try:
        import imagecodecs

        sizes["JPEG XL"] = len(imagecodecs.jpegxl_encode(pixels, lossless=True, effort=9))
    except (ImportError, AttributeError, RuntimeError, ValueError):
        pass
    return sizes


def _saved(image: Image.Image, form: str, **options: Any) -> int:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.tell()
