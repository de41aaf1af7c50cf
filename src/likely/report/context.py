"""Pictures of what a pixel sees: the measured Jacobian of its conditional.

For a few pixels of an autoregressive model the derivative of the conditional's parameters by
every pixel is taken in float64, the largest over several images (a rectified unit that is off
hides what it sees). Bright is strong, dark is weak, on a logarithmic scale. The paper's colour is
an exact zero after the pixel, where nothing may be seen; red is an exact zero before it, which
the model does not see (a blind spot, out of reach, or weights of zero); magenta is a leak.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from likely.data.spec import Dataset
from likely.density import Autoregressive
from likely.errors import InvalidSetting
from likely.files.sheets import PAPER, YELLOW, save_png
from likely.verify.causality import Location, seen_by
from likely.verify.subject import subject_of

IMAGES = 4
DECADES = 4.0
NOT_SEEN, LEAK = (122, 44, 44), (255, 0, 255)
WEAK, STRONG = (52, 72, 110), (240, 246, 255)
SIDE = 224  # pixels that a panel's longer side should reach


def context_map(
    model: Autoregressive, places: Sequence[Location], data: Dataset | None = None, seed: int = 0
) -> Tensor:
    """How strongly each pixel enters the conditional of some pixels.

    Args:
        model: any autoregressive model; it is copied, not changed.
        places: (row, column) of the pixels whose conditionals are looked at.
        data: examples to look at beside random images.
        seed: of the random images.

    Returns:
        |derivative| in float64, the largest over images and channels, [len(places), H, W].

    Raises:
        InvalidSetting: a place outside the image.
    """
    height, width = model.spec.grid[1:]
    for row, column in places:
        if not (0 <= row < height and 0 <= column < width):
            raise InvalidSetting(f"no pixel ({row}, {column}) in an image of {height} x {width}")
    subject = subject_of(model, data, False, seed)
    copy = subject.model
    assert isinstance(copy, Autoregressive)
    seen = torch.zeros(len(places), height, width, dtype=torch.float64)
    order = {place: index for index, place in enumerate(places)}
    for image in subject.x[:IMAGES]:
        for place, _, entry in seen_by(subject, copy, image, list(places)):
            index = order[place]
            seen[index] = torch.maximum(seen[index], entry.amax(0))
    return seen


def context_picture(
    model: Autoregressive,
    places: Sequence[Location] | None = None,
    data: Dataset | None = None,
    seed: int = 0,
) -> Image.Image:
    """A panel for each pixel, side by side; the pixel itself is framed in yellow.

    Args:
        model: any autoregressive model.
        places: (row, column); by default one in the upper left, the centre, and one below.
        data: examples to look at beside random images.
        seed: of the random images.
    """
    height, width = model.spec.grid[1:]
    if places is None:
        places = [
            (height // 4, width // 4),
            (height // 2, width // 2),
            (3 * height // 4, 3 * width // 4),
        ]
    seen = context_map(model, places, data, seed)
    rank = model.rank.flatten().cpu()
    scale = max(1, round(SIDE / max(height, width)))
    margin = max(4, scale)
    sheet = Image.new(
        "RGB", (len(places) * (width * scale + margin) + margin, height * scale + 2 * margin), PAPER
    )
    pen = ImageDraw.Draw(sheet)
    for index, (row, column) in enumerate(places):
        left = margin + index * (width * scale + margin)
        panel = Image.new("RGB", (width, height))
        panel.putdata(_colours(seen[index], row * width + column, rank))
        sheet.paste(
            panel.resize((width * scale, height * scale), Image.Resampling.NEAREST), (left, margin)
        )
        x, y = left + column * scale, margin + row * scale
        pen.rectangle((x - 1, y - 1, x + scale, y + scale), outline=YELLOW, width=2)
    return sheet


def save_context_picture(
    model: Autoregressive, path: str | Path, data: Dataset | None = None
) -> None:
    """Write `context_picture` as a PNG file."""
    save_png(context_picture(model, data=data), Path(path))


def _colours(seen: Tensor, pixel: int, rank: Tensor) -> list[tuple[int, ...]]:
    """The colour of every pixel of one panel; `rank` is each one's place in the order, [H W]."""
    values = seen.flatten()
    largest = float(values.max())
    colours: list[tuple[int, ...]] = []
    for place, value in enumerate(values.tolist()):
        before = int(rank[place]) < int(rank[pixel])
        if value == 0.0:
            colours.append(NOT_SEEN if before else PAPER)
        elif not before and place != pixel:
            colours.append(LEAK)
        else:
            decades = torch.log10(torch.tensor(value / largest)).item()
            strength = max(0.0, 1.0 + decades / DECADES)
            colours.append(
                tuple(round(w + strength * (s - w)) for w, s in zip(WEAK, STRONG, strict=True))
            )
    return colours
