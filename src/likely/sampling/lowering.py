"""Writes an incremental program for the compiled interpreter.

The program becomes tables of records (`likely.sampling.records`) over one flat memory and one flat
array of weights. Feature maps that are read only at their own pixel share a few buffers that
stay in the first caches; the others keep the rows and columns that are read of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from likely.errors import InvalidSetting
from likely.sampling import kernels
from likely.sampling.instructions import (
    Accumulate,
    Attend,
    Cells,
    Grow,
    Instruction,
    Linear,
    Lstm,
    Map,
    Moment,
    Normalize,
    Pick,
    Program,
    reads,
    shifted,
    stride_of,
    writes,
)
from likely.sampling.records import IMAGE, INSTRUCTION, STEP, TAP, VIEW, Op, record
from likely.sampling.torch_executor import matrices
from likely.sampling.vectors import VECTOR_BYTES

Array = np.ndarray[Any, Any]
MOST_TAPS = 256
# Pixels whose outputs from what is known at the first of them are one matrix product.
RUN = 32


@dataclasses.dataclass
class _Place:
    """Where a memory stands and how far apart its rows, columns and images are."""

    base: int
    kept: int
    row_step: int
    column_step: int
    image_step: int
    left: int


class Tables:
    """A program written for the kernels, for parts of a batch of one size.

    It keeps no reference to the model: all numbers are copies. `likely.sampling.kept` keeps it
    between draws.

    Args:
        program: of the model.
        batch: images.
        side_by_side: the pixels of a row can be computed at once (`put_row`), which needs more
            memory; otherwise only one after another.
    """

    def __init__(self, program: Program, batch: int, *, side_by_side: bool = True) -> None:
        like = program.weight
        if like.device.type != "cpu" or like.dtype not in (torch.float32, torch.float64):
            raise InvalidSetting("the compiled executor runs on the processor, float32 or float64")
        self.program, self.batch = program, batch
        self.side_by_side = side_by_side and program.parallel_rows
        self.type: Any = np.float32 if like.dtype is torch.float32 else np.float64
        self.lanes = VECTOR_BYTES // np.dtype(self.type).itemsize
        self._weights: list[Array] = []
        self._laid = 0
        self._views: dict[tuple[int, ...], int] = {}  # the fields of a view, and its number
        self._code: list[Array] = []
        self._taps: list[tuple[int, int]] = []
        self._floats: list[float] = []
        self._integers: list[int] = []
        self.held = 0
        self._parts_of: dict[tuple[Any, ...], int] = {}
        self._written: dict[tuple[int, int, int], list[Array]] = {}
        self.settled = _settled(program)
        self.places = self._allocate()
        self._images = self._image_views()
        self.output = self._operand(program.output, 0, 1, program.output.stride)
        groups = range(program.groups)
        self.before = self._lower(program.at(Moment.BEFORE), -1)
        self.given = self._lower(program.at(Moment.GIVEN), -1)
        self.at_pixel = [self._lower(program.at(Moment.PIXEL), group) for group in groups]
        self.late = [self._lower(self._late(group), group) for group in groups]
        begin = len(self._code)
        for op in program.at(Moment.PIXEL, Moment.LATE) if self.side_by_side else ():
            # Side by side it goes layer by layer: all groups of a pixel are read by the next.
            for group in groups if op.moment is Moment.PIXEL else groups[-1:]:
                self._lower([op], group)
        self.both = begin, len(self._code)
        self.after = [
            (self._lower(part, -1), part[0].backwards) for part in _runs(program.at(Moment.AFTER))
        ]
        self._freeze()

    # -- parts ------------------------------------------------------------------------------
    def _late(self, group: int) -> list[Instruction]:
        """What runs when the channels of a group are drawn."""
        last = group == self.program.groups - 1
        late = self.program.at(Moment.LATE)
        return [op for op in late if last or isinstance(op, Accumulate)]

    def _allocate(self) -> list[_Place]:
        """Give every memory its place; buffers of a pixel are used again when they are free."""
        program, batch = self.program, self.batch
        shared = set() if self.side_by_side else self._pixel_buffers()
        places: list[_Place | None] = [None] * len(program.memories)
        for index, memory in enumerate(program.memories):
            if index in shared:
                continue
            step = self._padded(memory.features)
            if memory.vector or memory.known is Moment.GIVEN:
                places[index] = _Place(self._take(batch * step), 1, 0, 0, step, 0)
                continue
            columns = memory.left + program.columns(memory) + memory.right
            if memory.table is not None:
                # Rows of zeros stand where it is read above the image.
                kept = len(memory.table) + memory.rows - 1
                base = self._take(kept * columns * step)
                places[index] = _Place(base, kept, columns * step, step, 0, memory.left)
                continue
            line = columns * batch * step
            # What is attended to is packed cell by cell: the cell before stands in two rows.
            kept = memory.rows if not memory.whole else self._rows_read(index)
            base = self._take(kept * line)
            places[index] = _Place(base, kept, line, batch * step, step, memory.left)
        free: list[tuple[int, int]] = []  # (size, base)
        order = program.at(Moment.PIXEL) + program.at(Moment.LATE)
        last_use = {x.value: at for at, op in enumerate(order) for x in reads(op)}
        last_use[program.output.value] = len(order)
        for at, op in enumerate(order):
            for out in writes(op):
                if out.value in shared and places[out.value] is None:
                    step = self._padded(program.memories[out.value].features)
                    size = batch * step
                    fits = [hole for hole in free if hole[0] == size]
                    if fits:
                        free.remove(fits[0])
                    base = fits[0][1] if fits else self._take(size)
                    places[out.value] = _Place(base, 1, 0, 0, step, 0)
            if program.groups == 1:  # else later sub-steps read them
                for value in {x.value for x in reads(op)} & shared:
                    place = places[value]
                    if last_use[value] == at and place is not None:
                        free.append((batch * place.image_step, place.base))
        for index, place in enumerate(places):
            if place is None:  # it is neither written nor read
                step = self._padded(program.memories[index].features)
                places[index] = _Place(self._take(batch * step), 1, 0, 0, step, 0)
        self._take(8 * self.lanes * batch)  # whole vectors may be read past the end
        return [place for place in places if place is not None]

    def _rows_read(self, index: int) -> int:
        """Rows of a memory that instructions other than attention read, at least two."""
        some = [op for op in self.program.instructions if not isinstance(op, Attend)]
        return max([2, *(x.up + 1 for op in some for x in reads(op) if x.value == index)])

    def _whole(self, count: int) -> int:
        """Rounded up to whole vectors."""
        return -(-count // self.lanes) * self.lanes

    def _pixel_buffers(self) -> set[int]:
        """Maps that are read at their own pixel only."""
        program = self.program
        buffers = {
            index
            for index, memory in enumerate(program.memories)
            if memory.known in (Moment.PIXEL, Moment.LATE)
            and not (memory.vector or memory.whole or memory.image is not None)
            and memory.rows == 1
            and memory.left == memory.right == 0
        }
        for op in program.instructions:
            stride = stride_of(op)
            for x in (*reads(op), *writes(op)):
                step = op.moment in (Moment.PIXEL, Moment.LATE)
                if not step or x.up or x.left or x.stride != stride or stride != 1:
                    buffers.discard(x.value)
        return buffers

    def _padded(self, features: int) -> int:
        """Features of a cell with room for whole vectors."""
        lanes = self.lanes
        extra = lanes if self.program.groups > 1 or features % lanes else 0
        return -(-features // lanes) * lanes + extra * (self.program.groups > 1)

    def _take(self, size: int) -> int:
        """Room in the memory, at a cache line's begin."""
        base = self.held
        self.held += -(-size // self.lanes) * self.lanes
        return base

    def _image_views(self) -> list[tuple[int, int]]:
        views = []
        for index, memory in enumerate(self.program.memories):
            if memory.image is not None:
                view = Cells(index, memory.features, memory.features, 1, Moment.LATE)
                views.append((self._operand(view, 0, 1, 1), len(self._floats)))
                self._floats += memory.image
        return views

    def _operand(self, x: Cells, group: int, groups: int, stride: int) -> int:
        """The number of a view as an instruction of some stride sees it."""
        memory = self.program.memories[x.value]
        whole = memory.vector or groups == 1
        first = x.part(-1 if whole else group, groups)[0]
        return self._view(x, first, stride)

    def _view(self, x: Cells, first: int, stride: int) -> int:
        memory, place = self.program.memories[x.value], self.places[x.value]
        base = place.base + first
        if not memory.vector and memory.known is not Moment.GIVEN and place.column_step:
            base += (place.left - x.left) * place.column_step
        line = (
            base,
            place.kept,
            place.row_step,
            memory.stride,
            x.up,
            place.column_step,
            place.image_step,
            max(1, stride // x.stride),
            max(1, x.stride // stride),
        )
        return self._views.setdefault(line, len(self._views))

    def _once(self, key: tuple[Any, ...], make: Callable[[], int]) -> int:
        """Where a part of an instruction stands, which is laid down the first time."""
        if key not in self._parts_of:
            self._parts_of[key] = make()
        return self._parts_of[key]

    def _weight(self, x: Array) -> int:
        """Lay weights down; returns where."""
        at = self._laid
        flat = np.ascontiguousarray(x, self.type).reshape(-1)
        self._weights.append(flat)
        self._laid += flat.size
        return at

    def _vector(self, x: Tensor) -> int:
        padded = np.zeros(-(-len(x) // self.lanes) * self.lanes, self.type)
        padded[: len(x)] = x.numpy()
        return self._weight(padded)

    def _float(self, x: float) -> int:
        self._floats.append(x)
        return len(self._floats) - 1

    def _lower(self, some: list[Instruction], group: int) -> tuple[int, int]:
        """Write instructions into the tables; returns where they begin and end."""
        begin = len(self._code)
        for op in some:
            op_group = group
            if op.moment not in (Moment.PIXEL,) or self.program.groups == 1:
                op_group = -1
            if isinstance(op, Map | Linear) and self.program.memories[op.out.value].vector:
                # All of it, but where it is known which features are new at this channel.
                op_group = group if op.out.value in self.settled else -1
            split = max([x.groups for x in reads(op)], default=1)
            if isinstance(op, Accumulate):
                size = self.program.shape[0] // self.program.groups
                for channel in range(max(0, group) * size, (max(0, group) + 1) * size):
                    self._accumulate(op, channel)
            elif op_group < 0 and split > 1:
                for part in range(split):
                    self._again(op, part, split)
            else:
                self._again(op, op_group, self.program.groups if op_group >= 0 else 1)
        return begin, len(self._code)

    def _again(self, op: Instruction, group: int, groups: int) -> None:
        """Write a part of an instruction, the second time from what was written the first."""
        key, begin = (id(op), group, groups), len(self._code)
        if key in self._written:
            self._code += self._written[key]
            return
        self._write(op, group, groups)
        self._written[key] = self._code[begin:]

    def _note(self, op: Instruction, kind: Op, *, out: int, **fields: int) -> None:
        if isinstance(op, Linear):
            row_phase, column_phase = op.phase
            fields.update(period=op.period, row_phase=row_phase, column_phase=column_phase)
        else:
            fields.update(period=1)
        self._code.append(record(INSTRUCTION, kind=kind, stride=stride_of(op), out=out, **fields))

    def _write(self, op: Instruction, group: int, groups: int) -> None:
        stride, channel = stride_of(op), {"groups": self.program.groups, "group": max(0, group)}

        def view(x: Cells) -> int:
            return self._operand(x, group, groups, stride)

        match op:
            case Linear():
                self._linear(op, group, groups)
            case Map():
                inputs = [view(x) for x in op.inputs]
                fields = {
                    "out": view(op.out),
                    "x": inputs[0],
                    "y": inputs[-1],
                    "function": kernels.MAP_OPS.index(op.function),
                    "factor": self._float(op.factor),
                }
                if op.out.value in self.settled:
                    ends = self._numbers([op.out.features, *self.settled[op.out.value]])
                    count = op.out.features
                    self._note(op, Op.MAP_NEW, count=count, ends=ends, **channel, **fields)
                    return
                count = op.out.features if group < 0 else op.out.features // groups
                self._note(op, Op.MAP, count=self._count(op, count, group, groups), **fields)
            case Lstm():
                count = op.h.features if group < 0 else op.h.features // groups
                o, f, i, g = (view(x) for x in op.gates)
                h, c, before = view(op.h), view(op.c), view(op.before)
                self._note(op, Op.LSTM, out=c, count=count, h=h, o=o, f=f, i=i, g=g, before=before)
            case Normalize():
                size = len(op.gain) // op.parts
                for part in range(op.parts) if group < 0 else (group,):
                    place = slice(part * size, (part + 1) * size)
                    self._note(
                        op,
                        Op.NORMALIZE,
                        out=self._operand(op.out, part, op.parts, stride),
                        count=size,
                        x=self._operand(op.x, part, op.parts, stride),
                        gain=self._vector(op.gain[place]),
                        shift=self._vector(op.shift[place]),
                        eps=self._float(op.eps),
                    )
            case Attend():
                self._attend(op, group, groups)
            case Grow():
                self._grow(op, view(op.out), view(op.x), channel)
            case Pick():
                out, x = view(op.out), view(op.x)
                self._note(op, Op.PICK, out=out, count=op.size, x=x, **channel)
            case Accumulate():
                raise AssertionError("it is lowered channel by channel")

    def _attend(self, op: Attend, group: int, groups: int) -> None:
        memory = self.program.memories[op.keys.value]
        # A sub-step computes its own heads, or all of them where they do not divide.
        share = groups if group >= 0 and op.heads % groups == 0 else 1

        def view(x: Cells) -> int:
            return self._operand(x, group if share > 1 else 0, share, stride_of(op))

        heads, cells = op.heads // share, memory.rows * self.program.columns(memory)
        key_size, value_size = (x.features // op.heads for x in (op.keys, op.values))
        # Keys stand side by side, and the vectors of a value.
        keys_room, values_room = self._whole(cells) * key_size, cells * self._whole(value_size)
        self._note(
            op,
            Op.ATTEND,
            out=view(op.out),
            key_size=key_size,
            value_size=value_size,
            query=view(op.query),
            keys=view(op.keys),
            values=view(op.values),
            keys_above=view(shifted(op.keys, 1)),
            values_above=view(shifted(op.values, 1)),
            packed_keys=self._take(self.batch * heads * keys_room),
            packed_values=self._take(self.batch * heads * values_room),
            scale=self._float(op.scale),
            heads=heads,
            current=int(op.current),
            columns=self.program.columns(memory),
            cells=cells,
        )

    def _grow(self, op: Grow, out: int, x: int, channel: dict[str, int]) -> None:
        shared, start = -1, -1
        if isinstance(op.bias, Tensor):
            bias = op.bias
            shared = self._once((id(op), "bias"), lambda: self._vector(bias))
        else:
            start = self._operand(op.bias, 0, 1, stride_of(op))
        fields = {"out": out, "x": x, "bias": shared, "start": start, **channel}
        known = self.settled.get(op.x.value)
        if known is not None and all(a <= b for a, b in zip(op.seen, known, strict=True)):
            self._note(op, Op.GROW_RUN, **fields, **self._run(op, channel["group"]))
            return
        weights = self._once((id(op), "weight"), lambda: self._weight(op.weight.t().numpy()))
        bounds = self._numbers([*op.first, *op.last, *op.seen])
        fields.update(weights=weights, inputs=op.weight.shape[0], bounds=bounds)
        self._note(op, Op.GROW, dimensions=len(op.first), **fields)

    def _numbers(self, some: Sequence[int]) -> int:
        """Lay integers down; returns where."""
        at = len(self._integers)
        self._integers += some
        return at

    def _run(self, op: Grow, group: int) -> dict[str, int]:
        """The weights of a `Grow` whose inputs are final when they are read, run by run.

        What the pixels of a run read of the inputs known at its first pixel is one product with
        all their outputs, which stand packed as those of a convolution; the rest stands output by
        output.
        """
        groups, lanes = self.program.groups, self.lanes
        first, last, seen = (list(x[group::groups]) for x in (op.first, op.last, op.seen))
        matrix = op.weight.numpy()
        pixels: list[int] = []  # of each first and last output, inputs, place in the run
        runs: list[int] = []  # of each inputs, weights, vectors of outputs; rest, its inputs
        widest = 0
        for begin in range(0, len(first), RUN):
            end, known = min(len(first), begin + RUN), seen[begin]
            place = 0
            for i in range(begin, end):
                pixels += first[i], last[i], seen[i], place
                place += last[i] - first[i]
            some: Any = slice(first[begin], last[end - 1])
            if first[begin + 1 : end] != last[begin : end - 1]:  # other groups' outputs between
                some = np.concatenate([np.arange(first[i], last[i]) for i in range(begin, end)])
            vectors = -(-place // lanes)
            widest = max(widest, vectors)
            packed = np.zeros((known, vectors * lanes), self.type)
            packed[:, :place] = matrix[:known, some]
            most = max(seen[begin:end])
            rest = self._weight(matrix[known:most, some].T)
            runs += known, self._panels(packed), vectors, rest, most - known
        return {
            "sums": self._take(self.batch * widest * lanes),
            "sums_step": widest * lanes,
            "pixels": self._numbers(pixels),
            "runs": self._numbers(runs),
            "length": RUN,
        }

    def _panels(self, matrix: Array) -> int:
        """Lay a matrix down in panels of up to four vectors of outputs; returns where."""
        vectors = matrix.shape[1] // self.lanes
        wide = -(-vectors // max(1, -(-vectors // 4)))
        at = self._laid
        for first in range(0, vectors, max(1, wide)):
            self._weight(matrix[:, first * self.lanes : (first + wide) * self.lanes])
        return at

    def _accumulate(self, op: Accumulate, channel: int) -> None:
        image = dataclasses.replace(op.image, start=op.image.start + channel)
        fields = {
            "out": self._operand(op.out, 0, 1, 1),
            "x": self._operand(image, 0, 1, 1),
            "groups": self.program.shape[0],
            "group": channel,
        }
        if op.weight is None:
            self._note(op, Op.KEEP, **fields)
            return
        weight = op.weight
        weights = self._once((id(op), "weight"), lambda: self._weight(weight.numpy()))
        self._note(op, Op.ACCUMULATE, count=weight.shape[1], weights=weights, **fields)

    def _count(self, op: Map, count: int, group: int, groups: int) -> int:
        """Features of a map, rounded up to whole vectors where the room behind them is free."""
        first, last = (0, count) if group < 0 else op.out.part(group, groups)
        first = op.out.start if group < 0 else first
        end = -(-count // self.lanes) * self.lanes
        room = self.places[op.out.value].image_step
        closes = first + count == op.out.width or self.program.memories[op.out.value].vector
        return end if closes and first + end <= room and last > 0 else count

    def _linear(self, op: Linear, group: int, groups: int) -> None:
        stride, lanes = op.out.stride, self.lanes
        outputs = op.out.features if group < 0 else op.out.features // groups
        vectors = -(-outputs // lanes)
        panels = -(-vectors // 4)
        wide = -(-vectors // panels)
        panels = -(-vectors // wide)
        parts = matrices(op, group, groups)
        if len(parts) > MOST_TAPS:
            raise InvalidSetting(f"a convolution of more than {MOST_TAPS} taps is not compiled")
        begin = len(self._taps)
        inputs = sum(weight.shape[0] for _, _, weight in parts)
        whole = np.zeros((inputs, vectors * lanes), self.type)
        filled = 0
        for x, columns, weight in parts:
            self._taps.append((self._view(x, columns.start, stride), weight.shape[0]))
            whole[filled : filled + weight.shape[0], :outputs] = weight.numpy()
            filled += weight.shape[0]
        at = self._laid
        for panel in range(panels):
            self._weight(whole[:, panel * wide * lanes : (panel + 1) * wide * lanes])
        bias = -1
        if op.bias is not None:
            first = max(0, group) * outputs
            bias = self._vector(op.bias[first : first + outputs])
        plus = [self._operand(x, group, groups, stride) for x in op.plus]
        out = self._operand(op.out, group, groups, stride)
        self._note(
            op,
            Op.LINEAR,
            out=out,
            count=outputs,
            start=plus[0] if plus else -1,
            bias=bias,
            taps=begin,
            tap_count=len(parts),
            weights=at,
            vectors=wide,
            panels=panels,
            last_vectors=vectors - wide * (panels - 1),
        )
        for more in plus[1:]:
            add, factor = kernels.MAP_OPS.index("add"), self._float(1.0)
            self._note(
                op, Op.MAP, out=out, count=outputs, x=out, y=more, function=add, factor=factor
            )

    def _freeze(self) -> None:
        """Make arrays of the lists; of the program keep copies of what a memory starts with."""
        program = self.program
        self.code = np.concatenate([*self._code, np.zeros(0, INSTRUCTION)])
        self.views = np.array(list(self._views), VIEW)
        self.taps = np.array(self._taps, TAP)
        self.floats = np.array([*self._floats, 1.0], np.float64)
        self.integers = np.array([*self._integers, 0], np.int64)
        # Vectors are whole: the last one may reach beyond.
        widest = max(memory.features for memory in program.memories)
        self.scores = program.shape[1] * program.shape[2] + widest + 128
        self.weights = np.concatenate([*self._weights, np.zeros(64, self.type)])
        self.images = np.array(self._images, IMAGE)
        self.steps = np.array(
            [(*pixel, *late) for pixel, late in zip(self.at_pixel, self.late, strict=True)], STEP
        )
        self.program = program.without_instructions()
        self._weights, self._parts_of, self._written = [], {}, {}


def _settled(program: Program) -> dict[int, tuple[int, ...]]:
    """Vectors whose features are written once, in order: how many are final at each dimension.

    That is once they are written there; what is not written yet is as it was at first.
    """
    vectors, groups = program.memories, program.groups
    count = program.shape[1] * program.shape[2] * groups
    settled: dict[int, tuple[int, ...]] = {}
    for op in program.instructions:
        match op:
            case Accumulate():
                settled.pop(op.out.value, None)
                if op.weight is None:
                    size = program.shape[0] // groups
                    settled[op.out.value] = tuple(range(0, count * size, size))
            case Grow():
                if op.first == (0, *op.last[:-1]):
                    settled[op.out.value] = op.last
            case Map(inputs=(x,)):
                whole = (x.start, x.features) == (0, vectors[x.value].features)
                if x.value in settled and whole and op.function != "copy":
                    settled[op.out.value] = settled[x.value]
    return settled


def _runs(some: list[Instruction]) -> list[list[Instruction]]:
    """Consecutive instructions that go the same way along the row."""
    runs: list[list[Instruction]] = []
    for op in some:
        if not runs or runs[-1][0].backwards != op.backwards:
            runs.append([])
        runs[-1].append(op)
    return runs
