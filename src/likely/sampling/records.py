"""What the compiled interpreter reads: instructions and views as records, and the machine.

All fields are int64; factors and the like are places in `Machine.floats`.
"""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
Integer = int | np.int64


class Op(enum.IntEnum):
    """Operations; a `Map` may be of all features, or of those that became final (`MAP_NEW`)."""

    LINEAR = 0
    MAP = 1
    LSTM = 2
    NORMALIZE = 3
    ATTEND = 4
    ACCUMULATE = 5
    GROW = 6
    PICK = 7
    KEEP = 8
    GROW_RUN = 9
    MAP_NEW = 10


# Of every instruction: the cells that it computes (one of `period` in a row and in a column, from
# the phase on), the view that it writes, and which channel group of how many it belongs to.
_HEAD = ("kind", "stride", "period", "row_phase", "column_phase", "out", "groups", "group")
# Then come the fields of its operation.
_OF = {
    Op.LINEAR: (
        "count", "start", "bias", "taps", "tap_count", "weights", "vectors", "panels",
        "last_vectors",
    ),
    Op.MAP: ("count", "x", "y", "function", "factor"),
    Op.LSTM: ("count", "h", "o", "f", "i", "g", "before"),
    Op.NORMALIZE: ("count", "x", "gain", "shift", "eps"),
    Op.ATTEND: (
        "key_size", "value_size", "query", "keys", "values", "keys_above", "values_above",
        "packed_keys", "packed_values", "scale", "heads", "current", "columns", "cells",
    ),
    Op.ACCUMULATE: ("count", "x", "weights"),
    Op.GROW: ("inputs", "x", "start", "bias", "weights", "bounds", "dimensions"),
    Op.PICK: ("count", "x"),
    Op.KEEP: ("x",),
    Op.GROW_RUN: ("x", "start", "bias", "sums", "sums_step", "pixels", "runs", "length"),
    Op.MAP_NEW: ("count", "x", "y", "function", "factor", "ends"),
}  # fmt: skip


def _integers(places: dict[str, int]) -> np.dtype[Any]:
    return np.dtype(
        {
            "names": list(places),
            "formats": [np.int64] * len(places),
            "offsets": [8 * place for place in places.values()],
            "itemsize": 8 * (max(places.values()) + 1),
        }
    )


def _union() -> np.dtype[Any]:
    """The head, then the fields of one operation: those of different ones share their places."""
    places = {name: place for place, name in enumerate(_HEAD)}
    for name in dict.fromkeys(name for names in _OF.values() for name in names):
        beside = {other for names in _OF.values() if name in names for other in names}
        taken = {places[other] for other in beside if other in places}
        places[name] = next(p for p in range(len(_HEAD), 64) if p not in taken)
    return _integers(places)


def _fields(*names: str) -> np.dtype[Any]:
    return _integers({name: place for place, name in enumerate(names)})


INSTRUCTION = _union()
# Where the first cell of a view stands in the memory; rows kept, used in rotation; image pixels
# per cell; rows above the current one; its cells per cell of the instruction, or (coarse) cells
# of the instruction per cell of its own.
VIEW = _fields(
    "base", "kept", "row_step", "stride", "up", "column_step", "image_step", "ratio", "coarse"
)
TAP = _fields("x", "inputs")  # the view that a convolution reads, and its features
IMAGE = _fields("x", "scale")  # a view of the drawn pixels; the place of a level's factor, offset
# Where the instructions of a sub-step begin and end, before and after its draw.
STEP = _fields("begin", "end", "late_begin", "late_end")


def record(layout: np.dtype[Any], **values: int) -> Array:
    """A record [1] of a layout; what is not named is 0."""
    made = np.zeros(1, layout)
    for name, value in values.items():
        made[name] = value
    return made


class Machine(NamedTuple):
    """A program and the memory of a part of a batch.

    Attributes:
        code: [instructions].
        views: [views]; instructions name views by their number.
        lines: [views] where each view's row begins, which changes from row to row.
        taps: [taps] of all convolutions.
        bound: [taps of a convolution, 3] the taps at a cell: place, image step, inputs.
        floats: numbers that instructions refer to.
        integers: lists that instructions refer to.
        scores: of attention.
        mem: the memory, of all feature maps.
        weights: of all instructions.
        images: [image views].
        batch: images.
        width: pixels in a row.
        lanes: numbers in a vector.
        output: view of the head's parameters.
    """

    code: Array
    views: Array
    lines: Array
    taps: Array
    bound: Array
    floats: Array
    integers: Array
    scores: Array
    mem: Array
    weights: Array
    images: Array
    batch: int
    width: int
    lanes: int
    output: int


class Product(NamedTuple):
    """out = start + bias + sum over the bound taps of x @ w; negative `start` or `bias`: none.

    Attributes:
        out, out_step: place of the first image, and the step from one image to the next.
        start, start_step: the same of what is added to.
        bias: place among the weights.
        taps: their number.
        weights: place among the weights, input after input.
    """

    out: Integer
    out_step: Integer
    start: Integer
    start_step: Integer
    bias: Integer
    taps: Integer
    weights: Integer


class Panels(NamedTuple):
    """How the outputs of a product are laid out: `panels` of `vectors`, the last of `last`."""

    inputs: Integer
    vectors: Integer
    panels: Integer
    last: Integer


class Chances(NamedTuple):
    """What levels are drawn with.

    Attributes:
        kind: [4] of `compiled.head_code`: kind, levels, channels, components.
        temperature: that logits are divided by.
        uniform: [B, C, H, W].
        parts: [3, parameters] workspace.
    """

    kind: Array
    temperature: float
    uniform: Array
    parts: Array
