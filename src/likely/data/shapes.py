"""The synthetic data set `shapes`: one shape on black paper, drawn from factors that are known.

An example is a function of its factors alone: kind, size, angle, x, y, and shade (grey) or hue
(colour), each drawn uniformly from a few values, independently of the others. So a code can be
held against what made the picture, as with dSprites (Matthey et al. 2017,
https://github.com/google-deepmind/dsprites-dataset). The shapes are longer than wide and turn by
less than a right angle: equal pictures have equal factors.

Edges are antialiased: a pixel is lit by how much of it, to first order in the distance from the
edge, lies inside.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from likely.data.spec import Dataset, DataSpec, digest_of, with_validation
from likely.errors import InvalidSetting

KINDS = ("ellipse", "rectangle", "triangle")
TRAIN, TEST = 12_000, 2_000
SIDES = (28, 32)
SEED = 20_140_101
# Width of a shape as a share of its length.
SLIM = 0.55
# Values of each factor; lengths are shares of the side, angles degrees against the clock.
VALUES: dict[str, tuple[float, ...]] = {
    "kind": tuple(float(number) for number in range(len(KINDS))),
    "size": tuple(np.linspace(0.16, 0.26, 5).tolist()),
    "angle": tuple(np.linspace(0.0, 77.0, 8).tolist()),
    "x": tuple(np.linspace(0.32, 0.68, 8).tolist()),
    "y": tuple(np.linspace(0.32, 0.68, 8).tolist()),
}
SHADES = tuple(np.linspace(0.4, 1.0, 4).tolist())  # of grey: share of the highest level
HUES = tuple(np.linspace(0.0, 0.75, 4).tolist())  # of colour: red, yellow-green, cyan, violet

Floats = npt.NDArray[np.float64]


def shapes(size: int | tuple[int, int] = 28, channels: int = 1) -> tuple[Dataset, Dataset]:
    """Training (10,000, with 2,000 more as `.validation`) and test (2,000) examples, 256 levels.

    The kind of each is its label; `factors` holds the value of every factor of every example.

    Args:
        size: side in pixels, 28 or 32.
        channels: 1 (grey, with a factor "shade") or 3 (colour, with "hue").

    Raises:
        InvalidSetting: another size or number of channels.
    """
    if not isinstance(size, int) or size not in SIDES or channels not in (1, 3):
        raise InvalidSetting(
            f"shapes have sides of {' or '.join(map(str, SIDES))} pixels and 1 or 3 channels, "
            f"given size={size}, channels={channels}"
        )
    values = VALUES | ({"shade": SHADES} if channels == 1 else {"hue": HUES})
    n = TRAIN + TEST
    raw = np.random.Philox(SEED).random_raw(n * len(values)).reshape(n, len(values))
    uniform = (raw >> np.uint64(11)) * 2.0**-53  # fixed by the definition of Philox
    factors = {
        name: np.array(choices)[(uniform[:, column] * len(choices)).astype(np.int64)]
        for column, (name, choices) in enumerate(values.items())
    }
    assert isinstance(size, int)
    images = drawn(factors, size)
    name = "shapes" if channels == 1 else "shapes in colour"
    spec = DataSpec(name, images.shape[1:], 256, n=n, digest=digest_of(images), classes=KINDS)
    whole = Dataset(spec, images, factors["kind"].astype(np.int64), factors=factors)
    test = whole.take(slice(TRAIN, n), "test")
    return with_validation(whole.take(slice(0, TRAIN), "train")), test


def drawn(factors: dict[str, Floats], size: int = 28) -> npt.NDArray[np.uint8]:
    """Pictures of given factors, uint8 [N, C, size, size].

    Args:
        factors: values [N] of kind, size, angle, x, y, and of shade or hue; any numbers, also
            between those of the data set.
        size: side in pixels.
    """
    parts = [_coverage(part, size) for part in _parts(factors)]
    light = np.concatenate(parts)  # [N, size, size]
    if "shade" in factors:
        colours = factors["shade"][:, None]
    else:
        corners = factors["hue"][:, None] * 6.0 + np.array([0.0, 4.0, 2.0])
        colours = np.clip(np.abs(corners % 6.0 - 3.0) - 1.0, 0.0, 1.0)
    images = light[:, None] * colours[:, :, None, None]
    return np.rint(images * 255.0).astype(np.uint8)


def _parts(factors: dict[str, Floats], rows: int = 256) -> list[dict[str, Floats]]:
    """The factors of some examples after others: bounds the memory."""
    n = len(factors["kind"])
    return [
        {name: column[start : start + rows] for name, column in factors.items()}
        for start in range(0, n, rows)
    ]


def _coverage(factors: dict[str, Floats], size: int) -> Floats:
    """How much of each pixel the shape covers, [N, size, size]."""
    centre = (np.arange(size) + 0.5) / size
    right = centre[None, None, :] - factors["x"][:, None, None]
    up = factors["y"][:, None, None] - centre[None, :, None]
    turn = np.deg2rad(factors["angle"])[:, None, None]
    along = right * np.cos(turn) + up * np.sin(turn)
    across = up * np.cos(turn) - right * np.sin(turn)
    length = factors["size"][:, None, None]
    width = SLIM * length
    # Distances from the edge, negative inside, in shares of the side.
    reach = np.hypot(along / length, across / width)
    slope = np.hypot(along / length**2, across / width**2)
    ellipse = reach * (reach - 1.0) / np.maximum(slope, 1e-9)
    rectangle = np.maximum(np.abs(along) - length, np.abs(across) - width)
    # Isosceles: the base at the left, the tip at the right.
    side = np.hypot(2 * length, width)
    flank = (width * (along - length) + 2 * length * np.abs(across)) / side
    triangle = np.maximum(flank, -along - length)
    kind = factors["kind"][:, None, None]
    distance = np.where(kind == 0, ellipse, np.where(kind == 1, rectangle, triangle))
    return np.clip(0.5 - distance * size, 0.0, 1.0)
