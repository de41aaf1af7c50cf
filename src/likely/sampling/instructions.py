"""What an incremental program is made of: feature maps, the memories behind them, instructions."""

from __future__ import annotations

import copy
import dataclasses
import enum
import functools
from collections.abc import Iterator
from typing import Literal

from torch import Tensor

from likely.errors import InvalidSetting


class Moment(enum.IntEnum):
    """When the values of a row of cells are known."""

    GIVEN = 0  # with the label of the image
    BEFORE = 1  # when its row begins
    PIXEL = 2  # when its pixel is reached, before that is drawn
    LATE = 3  # when its pixel is drawn
    AFTER = 4  # when its row is complete


Unary = Literal[
    "copy", "negative", "relu", "elu", "tanh", "sigmoid", "silu", "softplus", "exp", "square"
]
Binary = Literal["add", "multiply", "gate", "linear_gate"]


@dataclasses.dataclass(frozen=True)
class Cells:
    """A handle of a feature map, or a view of one: some of its features, or shifted.

    Attributes:
        value: number of the memory that holds it.
        features: of the view.
        width: features of the memory.
        stride: image pixels per cell, along both sides.
        known: moment of the memory.
        up: rows by which the view is shifted down: cell (r, c) shows memory (r - up, c - left).
        left: columns by which it is shifted to the right.
        start: first feature of the view in each group of the memory.
        groups: equal parts of the memory that the view takes its features from.
    """

    value: int
    features: int
    width: int
    stride: int
    known: Moment
    up: int = 0
    left: int = 0
    start: int = 0
    groups: int = 1

    @property
    def moment(self) -> Moment:
        """When the view's cells are known."""
        if self.known in (Moment.GIVEN, Moment.BEFORE) or self.up > 0:
            return min(self.known, Moment.BEFORE)
        if self.known is Moment.AFTER or self.left < 0:
            return Moment.AFTER
        if self.left > 0:
            return Moment.PIXEL
        return self.known

    def part(self, group: int, groups: int) -> tuple[int, int]:
        """Columns [first, last) of the memory that hold part `group` of `groups`; -1 is all."""
        if group < 0:
            assert self.groups == 1
            return self.start, self.start + self.features
        size = self.features // groups
        if self.groups == 1:
            return self.start + group * size, self.start + (group + 1) * size
        assert self.groups == groups
        first = group * (self.width // groups) + self.start
        return first, first + size


@dataclasses.dataclass(frozen=True)
class Tap:
    """A matrix applied to one neighbour: (cell up `up` and left `left`) @ weight.

    Attributes:
        x: what is read.
        weight: [features of x, outputs]; masked already.
        up: rows above the cell, at least 0.
        left: columns to the left; negative ones are to the right.
        groups_before: the drawn pixel itself is read, but only the colour groups before the one
            that is computed (mask A).
    """

    x: Cells
    weight: Tensor
    up: int = 0
    left: int = 0
    groups_before: bool = False

    @functools.cached_property
    def view(self) -> Cells:
        """The neighbour as a shifted view."""
        return shifted(self.x, self.up, self.left)


@dataclasses.dataclass(frozen=True)
class Linear:
    """out = bias + sum of `plus` + sum of taps; on cells of one phase where that is given."""

    out: Cells
    taps: tuple[Tap, ...]
    bias: Tensor | None
    plus: tuple[Cells, ...]
    moment: Moment
    backwards: bool
    phase: tuple[int, int] = (0, 0)
    period: int = 1


@dataclasses.dataclass(frozen=True)
class Map:
    """out = function(inputs), feature by feature."""

    function: Unary | Binary
    out: Cells
    inputs: tuple[Cells, ...]
    moment: Moment
    backwards: bool
    factor: float = 1.0


@dataclasses.dataclass(frozen=True)
class Lstm:
    """c = sigmoid(f) c' + sigmoid(i) tanh(g), h = sigmoid(o) tanh(c); gates hold o, f, i, g."""

    h: Cells
    c: Cells
    gates: tuple[Cells, Cells, Cells, Cells]
    before: Cells
    moment: Moment
    backwards: bool


@dataclasses.dataclass(frozen=True)
class Normalize:
    """Layer normalisation over the features of a cell, or of each of its equal parts."""

    out: Cells
    x: Cells
    gain: Tensor
    shift: Tensor
    eps: float
    moment: Moment
    backwards: bool
    parts: int = 1


@dataclasses.dataclass(frozen=True)
class Attend:
    """softmax(scale q k) v over the earlier cells in raster order; zeros where there are none."""

    out: Cells
    query: Cells
    keys: Cells
    values: Cells
    heads: int
    scale: float
    current: bool
    moment: Moment
    backwards: bool = False


@dataclasses.dataclass(frozen=True)
class Accumulate:
    """After value i is drawn: out += x_i * weight[i]; without a weight out[i] = x_i."""

    out: Cells
    image: Cells
    weight: Tensor | None
    moment: Moment = Moment.LATE
    backwards: bool = False


@dataclasses.dataclass(frozen=True)
class Grow:
    """At dimension i: out[first_i : last_i] = bias + x[: seen_i] @ weight[: seen_i, same].

    The bias is the same for all images, or a vector of each.
    """

    out: Cells
    x: Cells
    weight: Tensor
    bias: Tensor | Cells
    first: tuple[int, ...]
    last: tuple[int, ...]
    seen: tuple[int, ...]
    moment: Moment = Moment.PIXEL
    backwards: bool = False


@dataclasses.dataclass(frozen=True)
class Pick:
    """At dimension i: the i-th run of `size` features of a vector, as that channel's part."""

    out: Cells
    x: Cells
    size: int
    moment: Moment = Moment.PIXEL
    backwards: bool = False


Instruction = Linear | Map | Lstm | Normalize | Attend | Accumulate | Grow | Pick


@dataclasses.dataclass
class Memory:
    """What is kept of a feature map.

    Attributes:
        features: of a cell.
        stride: image pixels per cell.
        known: moment.
        rows: rows kept, the current one included.
        left: columns of padding on the left.
        right: columns of padding on the right.
        whole: every cell of the image is kept (keys and values of attention).
        vector: one vector an image instead of cells.
        start: [F] what a vector starts with, or None.
        image: (factor, offset) where it holds level * factor + offset of the drawn pixels.
        labels: [classes, F] table where it is chosen by the label.
        matrix: [K, F] where it is the context's vector, or its map, times this.
        table: [H, W, F] where it is the same for all images, [H, W, B, F] where it is given
            for each.
        above: [columns, F] of the row above the first one, or None for zeros.
        side: [H, F] of the column that a row comes from, or None for zeros.
    """

    features: int
    stride: int
    known: Moment
    rows: int = 1
    left: int = 0
    right: int = 0
    whole: bool = False
    vector: bool = False
    start: Tensor | None = None
    image: tuple[float, float] | None = None
    labels: Tensor | None = None
    matrix: Tensor | None = None
    table: Tensor | None = None
    above: Tensor | None = None
    side: Tensor | None = None
    side_at_right: bool = False

    def copied(self) -> Memory:
        """The same with copies of its tensors."""
        memory = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(memory, name, value.clone())
        return memory

    def from_context(self, context: Tensor | None) -> Tensor:
        """What it starts with where it is known with the context, [B, F]."""
        assert context is not None
        if self.labels is not None:
            return self.labels[context]
        assert self.matrix is not None
        return context.to(self.matrix.dtype) @ self.matrix

    def map_from_context(self, context: Tensor | None) -> Tensor | None:
        """All its cells where it comes from the context's map, [H, W, B, F]; None elsewhere."""
        if self.matrix is None or self.known is Moment.GIVEN:
            return None
        assert context is not None
        cells = context[:, :, :: self.stride, :: self.stride].to(self.matrix.dtype)
        return cells.permute(2, 3, 0, 1) @ self.matrix


@dataclasses.dataclass(frozen=True)
class Program:
    """A model's incremental evaluation.

    Attributes:
        shape: (C, H, W) of the image.
        groups: sub-steps of a pixel.
        memories: what is kept.
        instructions: in the order of the model's forward pass.
        output: parameters of the head.
        parallel_rows: the pixels of a row may be computed side by side when the row is given
            (nothing recurs along the row).
        weight: one of the weights; gives device and precision.
    """

    shape: tuple[int, int, int]
    groups: int
    memories: tuple[Memory, ...]
    instructions: tuple[Instruction, ...]
    output: Cells
    parallel_rows: bool
    weight: Tensor

    def at(self, *moments: Moment) -> list[Instruction]:
        """The instructions of some moments, in order."""
        return [op for op in self.instructions if op.moment in moments]

    def columns(self, memory: Memory) -> int:
        """Cells in a row."""
        return -(-self.shape[2] // memory.stride)

    def without_instructions(self) -> Program:
        """What an executor needs once it knows the instructions; tensors are copies."""
        return dataclasses.replace(
            self,
            memories=tuple(memory.copied() for memory in self.memories),
            instructions=(),
            weight=self.weight.flatten()[:1].clone(),
        )


def shifted(x: Cells, up: int = 0, left: int = 0) -> Cells:
    """x moved down by `up` rows and right by `left` columns; zeros come in.

    Raises:
        InvalidSetting: a row below would be read, which is not drawn yet.
    """
    if x.up + up < 0:
        raise InvalidSetting("an incremental evaluation cannot read rows below the current one")
    if not (up or left):
        return x
    return Cells(
        x.value, x.features, x.width, x.stride, x.known, x.up + up, x.left + left, x.start, x.groups
    )


def halves(x: Cells, groups: int = 1) -> tuple[Cells, Cells]:
    """The two halves of the features, of each of `groups` parts if there are several."""
    if x.groups != 1 or x.features % (2 * groups):
        raise InvalidSetting(f"{x.features} features do not divide into 2 x {groups} parts")
    half = x.features // 2
    if groups == 1:
        first = dataclasses.replace(x, features=half)
        return first, dataclasses.replace(first, start=x.start + half)
    if x.start or x.features != x.width:
        raise InvalidSetting("a part of a feature map cannot be halved by colour groups")
    first = dataclasses.replace(x, features=half, groups=groups)
    return first, dataclasses.replace(first, start=half // groups)


def features_of(x: Cells, first: int, last: int) -> Cells:
    """Features [first, last) of x."""
    if x.groups != 1 or not 0 <= first < last <= x.features:
        raise InvalidSetting(f"no features {first} to {last} of {x.features}")
    return dataclasses.replace(x, start=x.start + first, features=last - first)


def stride_of(op: Instruction) -> int:
    """Image pixels per cell of what the instruction computes."""
    return op.h.stride if isinstance(op, Lstm) else op.out.stride


def writes(op: Instruction) -> tuple[Cells, ...]:
    """What an instruction computes."""
    return (op.h, op.c) if isinstance(op, Lstm) else (op.out,)


def reads(op: Instruction) -> Iterator[Cells]:
    """What an instruction reads, as shifted views."""
    match op:
        case Linear():
            yield from (tap.view for tap in op.taps)
            yield from op.plus
        case Map():
            yield from op.inputs
        case Lstm():
            yield from op.gates
            yield op.before
        case Attend():
            yield from (op.query, op.keys, op.values)
        case Accumulate():
            yield op.image
        case Grow():
            yield op.x
            if isinstance(op.bias, Cells):
                yield op.bias
        case Normalize() | Pick():
            yield op.x
