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
    one_stride,
    reads,
    shifted,
    writes,
)
from likely.sampling.records import (
    IMAGE,
    INSTRUCTION,
    STEP,
    TAP,
    VIEW,
    Op,
    record,
)
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
        for one in program.at(Moment.PIXEL, Moment.LATE) if self.side_by_side else ():
            # Side by side it goes layer by layer: all groups of a pixel are read by the next.
            for group in groups if one.moment is Moment.PIXEL else groups[-1:]:
                self._lower([one], group)
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
        return [one for one in late if last or isinstance(one, Accumulate)]

    def _allocate(self) -> list[_Place]:
        """Give every memory its place; buffers of a pixel are used again when they are free."""
        program, batch = self.program, self.batch
        shared = set() if self.side_by_side else self._pixel_buffers()
        found: list[_Place | None] = [None] * len(program.memories)
        for index, memory in enumerate(program.memories):
            if index in shared:
                continue
            step = self._padded(memory.features)
            if memory.vector or memory.known is Moment.GIVEN:
                found[index] = _Place(self._take(batch * step), 1, 0, 0, step, 0)
                continue
            columns = memory.left + program.columns(memory) + memory.right
            if memory.table is not None:
                # Rows of zeros stand where it is read above the image.
                kept = len(memory.table) + memory.rows - 1
                base = self._take(kept * columns * step)
                found[index] = _Place(base, kept, columns * step, step, 0, memory.left)
                continue
            line = columns * batch * step
            # What is attended to is packed cell by cell: the cell before stands in two rows.
            kept = memory.rows if not memory.whole else self._rows_read(index)
            base = self._take(kept * line)
            found[index] = _Place(base, kept, line, batch * step, step, memory.left)
        free: list[tuple[int, int]] = []  # (size, base)
        order = program.at(Moment.PIXEL) + program.at(Moment.LATE)
        last_use = {x.value: at for at, one in enumerate(order) for x in reads(one)}
        last_use[program.output.value] = len(order)
        for at, one in enumerate(order):
            for out in writes(one):
                if out.value in shared and found[out.value] is None:
                    step = self._padded(program.memories[out.value].features)
                    size = batch * step
                    fits = [hole for hole in free if hole[0] == size]
                    if fits:
                        free.remove(fits[0])
                    base = fits[0][1] if fits else self._take(size)
                    found[out.value] = _Place(base, 1, 0, 0, step, 0)
            if program.groups == 1:  # else later sub-steps read them
                for value in {x.value for x in reads(one)} & shared:
                    place = found[value]
                    if last_use[value] == at and place is not None:
                        free.append((batch * place.image_step, place.base))
        for index, place in enumerate(found):
            if place is None:  # it is neither written nor read
                step = self._padded(program.memories[index].features)
                found[index] = _Place(self._take(batch * step), 1, 0, 0, step, 0)
        self._take(8 * self.lanes * batch)  # whole vectors may be read past the end
        return [place for place in found if place is not None]

    def _rows_read(self, index: int) -> int:
        """Rows of a memory that instructions other than attention read, at least two."""
        some = [one for one in self.program.instructions if not isinstance(one, Attend)]
        return max([2, *(x.up + 1 for one in some for x in reads(one) if x.value == index)])

    def _whole(self, count: int) -> int:
        """Rounded up to whole vectors."""
        return -(-count // self.lanes) * self.lanes

    def _pixel_buffers(self) -> set[int]:
        """Maps that are read at their own pixel only."""
        program = self.program
        found = {
            index
            for index, memory in enumerate(program.memories)
            if memory.known in (Moment.PIXEL, Moment.LATE)
            and not (memory.vector or memory.whole or memory.image is not None)
            and memory.rows == 1
            and memory.left == memory.right == 0
        }
        for one in program.instructions:
            own = one_stride(one)
            for x in (*reads(one), *writes(one)):
                step = one.moment in (Moment.PIXEL, Moment.LATE)
                if not step or x.up or x.left or x.stride != own or own != 1:
                    found.discard(x.value)
        return found

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
        found = []
        for index, memory in enumerate(self.program.memories):
            if memory.image is not None:
                view = Cells(index, memory.features, memory.features, 1, Moment.LATE)
                found.append((self._operand(view, 0, 1, 1), len(self._floats)))
                self._floats += memory.image
        return found

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
        for one in some:
            own = group
            if one.moment not in (Moment.PIXEL,) or self.program.groups == 1:
                own = -1
            if isinstance(one, Map | Linear) and self.program.memories[one.out.value].vector:
                # All of it, but where it is known which features are new at this channel.
                own = group if one.out.value in self.settled else -1
            split = max([x.groups for x in reads(one)], default=1)
            if isinstance(one, Accumulate):
                size = self.program.shape[0] // self.program.groups
                for channel in range(max(0, group) * size, (max(0, group) + 1) * size):
                    self._accumulate(one, channel)
            elif own < 0 and split > 1:
                for part in range(split):
                    self._again(one, part, split)
            else:
                self._again(one, own, self.program.groups if own >= 0 else 1)
        return begin, len(self._code)

    def _again(self, one: Instruction, group: int, groups: int) -> None:
        """Write a part of an instruction, the second time from what was written the first."""
        key, begin = (id(one), group, groups), len(self._code)
        if key in self._written:
            self._code += self._written[key]
            return
        self._one(one, group, groups)
        self._written[key] = self._code[begin:]

    def _note(self, one: Instruction, op: Op, *, out: int, **fields: int) -> None:
        if isinstance(one, Linear):
            row_phase, column_phase = one.phase
            fields.update(period=one.period, row_phase=row_phase, column_phase=column_phase)
        else:
            fields.update(period=1)
        self._code.append(record(INSTRUCTION, op=op, stride=one_stride(one), out=out, **fields))

    def _one(self, one: Instruction, group: int, groups: int) -> None:
        stride, channel = one_stride(one), {"groups": self.program.groups, "group": max(0, group)}

        def view(x: Cells) -> int:
            return self._operand(x, group, groups, stride)

        match one:
            case Linear():
                self._linear(one, group, groups)
            case Map():
                inputs = [view(x) for x in one.inputs]
                fields = {
                    "out": view(one.out),
                    "x": inputs[0],
                    "y": inputs[-1],
                    "function": kernels.MAP_OPS.index(one.op),
                    "factor": self._float(one.factor),
                }
                if one.out.value in self.settled:
                    ends = self._numbers([one.out.features, *self.settled[one.out.value]])
                    count = one.out.features
                    self._note(one, Op.MAP_NEW, count=count, ends=ends, **channel, **fields)
                    return
                count = one.out.features if group < 0 else one.out.features // groups
                self._note(one, Op.MAP, count=self._count(one, count, group, groups), **fields)
            case Lstm():
                count = one.h.features if group < 0 else one.h.features // groups
                o, f, i, g = (view(x) for x in one.gates)
                h, c, before = view(one.h), view(one.c), view(one.before)
                self._note(one, Op.LSTM, out=c, count=count, h=h, o=o, f=f, i=i, g=g, before=before)
            case Normalize():
                size = len(one.gain) // one.parts
                for part in range(one.parts) if group < 0 else (group,):
                    place = slice(part * size, (part + 1) * size)
                    self._note(
                        one,
                        Op.NORMALIZE,
                        out=self._operand(one.out, part, one.parts, stride),
                        count=size,
                        x=self._operand(one.x, part, one.parts, stride),
                        gain=self._vector(one.gain[place]),
                        shift=self._vector(one.shift[place]),
                        eps=self._float(one.eps),
                    )
            case Attend():
                self._attend(one, group, groups)
            case Grow():
                self._grow(one, view(one.out), view(one.x), channel)
            case Pick():
                out, x = view(one.out), view(one.x)
                self._note(one, Op.PICK, out=out, count=one.size, x=x, **channel)
            case Accumulate():
                raise AssertionError("it is lowered channel by channel")

    def _attend(self, one: Attend, group: int, groups: int) -> None:
        memory = self.program.memories[one.keys.value]
        # A sub-step computes its own heads, or all of them where they do not divide.
        share = groups if group >= 0 and one.heads % groups == 0 else 1

        def view(x: Cells) -> int:
            return self._operand(x, group if share > 1 else 0, share, one_stride(one))

        heads, cells = one.heads // share, memory.rows * self.program.columns(memory)
        key_size, value_size = (x.features // one.heads for x in (one.keys, one.values))
        # Keys stand side by side, and the vectors of a value.
        keys_room, values_room = self._whole(cells) * key_size, cells * self._whole(value_size)
        self._note(
            one,
            Op.ATTEND,
            out=view(one.out),
            key_size=key_size,
            value_size=value_size,
            query=view(one.query),
            keys=view(one.keys),
            values=view(one.values),
            keys_above=view(shifted(one.keys, 1)),
            values_above=view(shifted(one.values, 1)),
            packed_keys=self._take(self.batch * heads * keys_room),
            packed_values=self._take(self.batch * heads * values_room),
            scale=self._float(one.scale),
            heads=heads,
            current=int(one.current),
            columns=self.program.columns(memory),
            cells=cells,
        )

    def _grow(self, one: Grow, out: int, x: int, channel: dict[str, int]) -> None:
        shared, start = -1, -1
        if isinstance(one.bias, Tensor):
            bias = one.bias
            shared = self._once((id(one), "bias"), lambda: self._vector(bias))
        else:
            start = self._operand(one.bias, 0, 1, one_stride(one))
        fields = {"out": out, "x": x, "bias": shared, "start": start, **channel}
        known = self.settled.get(one.x.value)
        if known is not None and all(a <= b for a, b in zip(one.seen, known, strict=True)):
            self._note(one, Op.GROW_RUN, **fields, **self._run(one, channel["group"]))
            return
        weights = self._once((id(one), "weight"), lambda: self._weight(one.weight.t().numpy()))
        bounds = self._numbers([*one.first, *one.last, *one.seen])
        fields.update(weights=weights, inputs=one.weight.shape[0], bounds=bounds)
        self._note(one, Op.GROW, dimensions=len(one.first), **fields)

    def _numbers(self, some: Sequence[int]) -> int:
        """Lay integers down; returns where."""
        at = len(self._integers)
        self._integers += some
        return at

    def _run(self, one: Grow, group: int) -> dict[str, int]:
        """The weights of a `Grow` whose inputs are final when they are read, run by run.

        What the pixels of a run read of the inputs known at its first pixel is one product with
        all their outputs, which stand packed as those of a convolution; the rest stands output by
        output.
        """
        groups, lanes = self.program.groups, self.lanes
        first, last, seen = (list(x[group::groups]) for x in (one.first, one.last, one.seen))
        matrix = one.weight.numpy()
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

    def _accumulate(self, one: Accumulate, channel: int) -> None:
        image = dataclasses.replace(one.image, start=one.image.start + channel)
        fields = {
            "out": self._operand(one.out, 0, 1, 1),
            "x": self._operand(image, 0, 1, 1),
            "groups": self.program.shape[0],
            "group": channel,
        }
        if one.weight is None:
            self._note(one, Op.KEEP, **fields)
            return
        weight = one.weight
        weights = self._once((id(one), "weight"), lambda: self._weight(weight.numpy()))
        self._note(one, Op.ACCUMULATE, count=weight.shape[1], weights=weights, **fields)

    def _count(self, one: Map, count: int, group: int, groups: int) -> int:
        """Features of a map, rounded up to whole vectors where the room behind them is free."""
        first, last = (0, count) if group < 0 else one.out.part(group, groups)
        first = one.out.start if group < 0 else first
        end = -(-count // self.lanes) * self.lanes
        room = self.places[one.out.value].image_step
        closes = first + count == one.out.width or self.program.memories[one.out.value].vector
        return end if closes and first + end <= room and last > 0 else count

    def _linear(self, one: Linear, group: int, groups: int) -> None:
        stride, lanes = one.out.stride, self.lanes
        outputs = one.out.features if group < 0 else one.out.features // groups
        vectors = -(-outputs // lanes)
        panels = -(-vectors // 4)
        wide = -(-vectors // panels)
        panels = -(-vectors // wide)
        parts = matrices(one, group, groups)
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
        if one.bias is not None:
            first = max(0, group) * outputs
            bias = self._vector(one.bias[first : first + outputs])
        plus = [self._operand(x, group, groups, stride) for x in one.plus]
        out = self._operand(one.out, group, groups, stride)
        self._note(
            one,
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
                one, Op.MAP, out=out, count=outputs, x=out, y=more, function=add, factor=factor
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
    found: dict[int, tuple[int, ...]] = {}
    for one in program.instructions:
        match one:
            case Accumulate():
                found.pop(one.out.value, None)
                if one.weight is None:
                    size = program.shape[0] // groups
                    found[one.out.value] = tuple(range(0, count * size, size))
            case Grow():
                if one.first == (0, *one.last[:-1]):
                    found[one.out.value] = one.last
            case Map(inputs=(x,)):
                whole = (x.start, x.features) == (0, vectors[x.value].features)
                if x.value in found and whole and one.op != "copy":
                    found[one.out.value] = found[x.value]
    return found


def _runs(some: list[Instruction]) -> list[list[Instruction]]:
    """Consecutive instructions that go the same way along the row."""
    found: list[list[Instruction]] = []
    for one in some:
        if not found or found[-1][0].backwards != one.backwards:
            found.append([])
        found[-1].append(one)
    return found
