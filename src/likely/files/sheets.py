"""Sheets of images: samples, and samples beside their nearest training images.

Images are integer-coded; they are scaled up by a whole factor without smoothing, so that an 8x8
digit can be seen as it is.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from likely.errors import InvalidData
from likely.files import write_bytes

Images = Any  # integers of any array: numpy, or torch on any device
Bytes = npt.NDArray[np.uint8]

PAPER = (38, 41, 48)
INK = (222, 226, 233)
YELLOW = (255, 205, 40)  # the frame of a training image, as in the lecture
TARGET = 52  # pixels that the longer side of an image should reach


def to_rgb(images: Images, levels: int) -> Bytes:
    """Integers [N, C, H, W] in [0, levels) to uint8 [N, H, W, 3]; C is 1 or 3.

    Vectors [N, D] are images of one row.
    """
    x = _array(images)
    if x.ndim == 2:
        x = x[:, None, None]
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise InvalidData(
            f"a sheet shows images [N, C, H, W] with 1 or 3 channels, given {list(x.shape)}"
        )
    grey = np.rint(x.astype(np.float64) * (255.0 / (levels - 1))).clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(
        np.broadcast_to(grey, (len(x), 3, *x.shape[2:])).transpose(0, 2, 3, 1)
    )


def sample_sheet(
    images: Images,
    levels: int,
    *,
    columns: int | None = None,
    scale: int | None = None,
    caption: str = "",
) -> Image.Image:
    """A grid of images on dark paper.

    Args:
        images: integers in [0, levels), [N, C, H, W], N >= 1.
        levels: number of integer levels.
        columns: images per row; by default a little wider than high, with a full last row where
            that is possible.
        scale: whole factor of enlargement; chosen so that 8x8 images are seen well by default.
        caption: a line of text under the grid.
    """
    rgb = to_rgb(images, levels)
    if len(rgb) == 0:
        raise InvalidData("a sheet needs at least one image")
    columns = min(len(rgb), columns or _columns(len(rgb)))
    cells = [_enlarged(image, scale) for image in rgb]
    height, width = cells[0].shape[:2]
    margin = max(2, min(height, width) // 12)
    rows = math.ceil(len(cells) / columns)
    sheet = _paper(columns * (width + margin) + margin, rows * (height + margin) + margin, caption)
    for place, cell in enumerate(cells):
        row, column = divmod(place, columns)
        at = (margin + column * (width + margin), margin + row * (height + margin))
        sheet.paste(Image.fromarray(cell), at)
    return sheet


def show(images: Images, of: Any = None, *, columns: int | None = None) -> Image.Image:
    """Images as a picture: a notebook shows it, `.save("sheet.png")` writes it.

    Args:
        images: of any array, [N, C, H, W] with 1 or 3 channels, or one image [C, H, W]; vectors
            [N, D]; or [R, N, C, H, W], a row each, as interpolations.
        of: what says how many levels there are: a data set, a model, a specification or a number.
            None takes the largest value shown for white.
        columns: images per row.

    >>> show([[[[0, 1], [1, 0]]]], 2).size
    (60, 60)
    """
    x = _array(images)
    if x.ndim == 3:
        x = x[None]
    if x.ndim == 5:
        columns, x = columns or x.shape[1], x.reshape(-1, *x.shape[2:])
    spec = getattr(of, "spec", of)
    levels = int(x.max(initial=1)) + 1 if spec is None else getattr(spec, "levels", spec)
    return sample_sheet(x, levels, columns=columns)


def _array(images: Images) -> npt.NDArray[Any]:
    """Any array as one of numpy; torch is not imported for it."""
    return np.asarray(images.detach().cpu() if hasattr(images, "detach") else images)


def grid_sheet(images: Images, levels: int, caption: str = "") -> Image.Image:
    """Rows of images that belong together column by column, integers [R, N, C, H, W] (or
    vectors [R, N, D])."""
    if images.ndim not in (3, 5):
        raise InvalidData(f"a grid needs images [R, N, C, H, W], given {list(images.shape)}")
    columns = images.shape[1]
    flat = images.reshape(-1, *images.shape[2:])
    return sample_sheet(flat, levels, columns=columns, caption=caption)


def neighbour_sheet(
    samples: Images,
    neighbours: Images,
    levels: int,
    *,
    columns: int = 3,
    scale: int | None = None,
    caption: str = "",
) -> Image.Image:
    """Each sample with its nearest training images to its right, framed in yellow.

    Args:
        samples: integers [N, C, H, W].
        neighbours: of each sample, nearest first, integers [N, K, C, H, W].
        levels: number of integer levels.
        columns: how many samples with their neighbours stand side by side.
        scale: whole factor of enlargement.
        caption: a line of text under the grid.
    """
    shape = tuple(neighbours.shape)
    if len(shape) not in (3, 5) or (shape[0], *shape[2:]) != tuple(samples.shape):
        raise InvalidData(
            f"expected neighbours [N, K, C, H, W] of samples {list(samples.shape)}, "
            f"given {list(shape)}"
        )
    count, near = shape[:2]
    left, right = (
        [_enlarged(image, scale) for image in to_rgb(images, levels)]
        for images in (samples, neighbours.reshape(-1, *shape[2:]))
    )
    height, width = left[0].shape[:2]
    margin, frame = max(8, min(height, width) // 8), 2
    block = (near + 1) * (width + margin) + 3 * margin
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    # The gap after the last block is its margin.
    sheet = _paper(columns * block - margin, rows * (height + margin) + margin, caption)
    pen = ImageDraw.Draw(sheet)
    for place in range(count):
        row, column = divmod(place, columns)
        x, y = margin + column * block, margin + row * (height + margin)
        sheet.paste(Image.fromarray(left[place]), (x, y))
        x += width + 2 * margin
        for rank in range(near):
            sheet.paste(Image.fromarray(right[place * near + rank]), (x, y))
            corners = (x - frame, y - frame, x + width + frame - 1, y + height + frame - 1)
            pen.rectangle(corners, outline=YELLOW, width=frame)
            x += width + margin
    return sheet


def arithmetic_sheet(
    groups: Sequence[tuple[str, Images, Images]],
    result: Images,
    levels: int,
    *,
    caption: str = "",
) -> Image.Image:
    """Groups that are added and subtracted, each with its mean framed beside it, and the result.

    Args:
        groups: (title, as "+ smiling", members [N, C, H, W], mean [1, C, H, W]), a row each.
        result: 3 x 3 images in rows, the result in the middle, [9, C, H, W]; it is framed.
        levels: number of integer levels.
        caption: a line of text under the sheet.
    """
    rows = [
        [_enlarged(image, None) for image in [*to_rgb(members, levels), *to_rgb(mean, levels)]]
        for _, members, mean in groups
    ]
    cells = [_enlarged(image, None) for image in to_rgb(result, levels)]
    height, width = cells[0].shape[:2]
    margin, frame, line, gap = max(6, height // 10), 2, 22, max(24, width // 2)
    block = max(map(len, rows)) * (width + margin) + gap // 2
    left_height = len(rows) * (height + margin + line)
    right_height = 3 * (height + margin)
    tall = max(left_height, right_height + line) + margin
    sheet = _paper(margin + block + gap + 3 * (width + margin), tall, caption)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)

    def place(cell: Bytes, x: int, y: int, framed: bool) -> None:
        sheet.paste(Image.fromarray(cell), (x, y))
        if framed:
            corners = (x - frame, y - frame, x + width + frame - 1, y + height + frame - 1)
            pen.rectangle(corners, outline=INK, width=frame)

    for row, (title, _, _) in enumerate(groups):
        y = margin + row * (height + margin + line)
        pen.text((margin, y), title, fill=INK, font=font)
        for column, cell in enumerate(rows[row]):
            is_mean = column == len(rows[row]) - 1
            x = margin + column * (width + margin) + (gap // 2 if is_mean else 0)
            place(cell, x, y + line, is_mean)
    top = max(margin + line, (tall - right_height) // 2)
    start = margin + block + gap
    equals = ImageFont.load_default(22)
    pen.text((start - gap // 2 - 12, top + height + height // 2), "=", fill=INK, font=equals)
    for number, cell in enumerate(cells):
        row, column = divmod(number, 3)
        at = (start + column * (width + margin), top + row * (height + margin))
        place(cell, *at, number == 4)
    return sheet


def numbered_sheet(images: Images, levels: int, caption: str = "") -> Image.Image:
    """A grid of images, each with its number above it, from 0: to choose from.

    Args:
        images: integers [N, C, H, W].
        levels: number of integer levels.
        caption: a line of text under the grid.
    """
    cells = [_enlarged(image, None) for image in to_rgb(images, levels)]
    height, width = cells[0].shape[:2]
    margin, line, columns = max(6, height // 12), 14, min(len(cells), 10)
    rows = math.ceil(len(cells) / columns)
    step = (width + margin, height + line + margin)
    sheet = _paper(columns * step[0] + margin, rows * step[1] + margin, caption)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for number, cell in enumerate(cells):
        row, column = divmod(number, columns)
        x, y = margin + column * step[0], margin + row * step[1]
        pen.text((x, y), str(number), fill=INK, font=font)
        sheet.paste(Image.fromarray(cell), (x, y + line))
    return sheet


def png(image: Image.Image) -> bytes:
    """The image as the bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def animation(
    frames: Sequence[Images], levels: int, *, columns: int | None = None, seconds: float = 0.12
) -> bytes:
    """Sheets one after another, again and again, as the bytes of a GIF file.

    Args:
        frames: images [N, C, H, W] each.
        levels: number of integer levels.
        columns: images per row.
        seconds: that a frame stands.
    """
    sheets = [sample_sheet(frame, levels, columns=columns) for frame in frames]
    buffer = io.BytesIO()
    sheets[0].save(
        buffer, "GIF", save_all=True, append_images=sheets[1:], duration=round(1000 * seconds),
        loop=0,
    )  # fmt: skip
    return buffer.getvalue()


def save_png(image: Image.Image, path: Path) -> None:
    """Write a PNG file atomically."""
    write_bytes(path, png(image))


def data_uri(image: Image.Image) -> str:
    """The image for the src of an HTML img element, with no file beside it."""
    return "data:image/png;base64," + base64.b64encode(png(image)).decode("ascii")


def _columns(count: int) -> int:
    ideal = math.sqrt(1.6 * count)
    near = range(max(1, math.floor(0.75 * ideal)), math.ceil(1.35 * ideal) + 1)
    return min(near, key=lambda columns: (-count % columns, abs(columns - ideal)))


def _enlarged(image: Bytes, scale: int | None) -> Bytes:
    factor = scale or max(1, round(TARGET / max(image.shape[:2])))
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def _paper(width: int, height: int, caption: str) -> Image.Image:
    """Dark paper, with the caption in a strip below."""
    if not caption:
        return Image.new("RGB", (width, height), PAPER)
    size = 13
    font = ImageFont.load_default(size)
    lines = _wrapped(caption, font, width - 16)
    strip = len(lines) * (size + 4) + 10
    sheet = Image.new("RGB", (width, height + strip), PAPER)
    pen = ImageDraw.Draw(sheet)
    for place, line in enumerate(lines):
        pen.text((8, height + 3 + place * (size + 4)), line, fill=INK, font=font)
    return sheet


def _wrapped(
    text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int
) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
