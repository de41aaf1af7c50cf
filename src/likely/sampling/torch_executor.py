"""Runs an incremental program with torch: any device, any precision; the reference executor.

Every feature map keeps its last rows in one tensor [rows, columns, B, F], the current row last,
zeros around; so a neighbour of a cell is a slice [B, F] and a whole row is [W, B, F].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import elu, layer_norm, silu, softplus

from likely.sampling.drawing import Draw
from likely.sampling.instructions import (
    Accumulate,
    Attend,
    Cells,
    Grow,
    Instruction,
    Linear,
    Lstm,
    Map,
    Memory,
    Moment,
    Normalize,
    Pick,
    Program,
    Tap,
    reads,
    stride_of,
)


class TorchExecutor:
    """The memory of one batch, and the steps that change it.

    Call in raster order: `begin_row`; for every pixel and colour group `pixel` and `put`;
    `end_row`. Where a row is given, `put_row` stands for all its pixels.

    Args:
        program: of the model.
        batch: images.
        context: labels int64 [B], floats [B, K] or [B, K, H, W], or None.
    """

    def __init__(self, program: Program, batch: int, context: Tensor | None = None) -> None:
        self.program, self.batch = program, batch
        self.device, self.dtype = program.weight.device, program.weight.dtype
        self.memory = [self._allocate(memory, context) for memory in program.memories]
        self.maps = [memory.map_from_context(context) for memory in program.memories]
        self._parts: dict[tuple[int, int], list[tuple[Cells, slice, Tensor]]] = {}
        self._bias: dict[tuple[int, int], Tensor] = {}
        self.before = program.at(Moment.BEFORE)
        self.at_pixel = program.at(Moment.PIXEL)
        self.late = program.at(Moment.LATE)
        self.after = program.at(Moment.AFTER)
        self.both = program.at(Moment.PIXEL, Moment.LATE)
        self.captured = CapturedRow(self) if self.device.type == "cuda" else None
        for op in program.at(Moment.GIVEN):
            self._run(op, 0, range(1), -1)

    def bytes(self) -> int:
        """Size of the memory."""
        return sum(x.numel() * x.element_size() for x in self.memory)

    def begin_row(self, row: int) -> None:
        """Move all memories down to a new row and compute what it knows from above."""
        program = self.program
        for memory, x, cells in zip(program.memories, self.memory, self.maps, strict=True):
            if row % memory.stride or memory.vector or memory.known is Moment.GIVEN:
                continue
            place = row // memory.stride
            if not memory.whole and memory.rows > 1:
                x[:-1] = x[1:].clone()
            current = x[place if memory.whole else -1]
            if memory.side is not None:
                beside = (
                    memory.left - 1 if not memory.side_at_right else len(current) - memory.right
                )
                current[beside] = memory.side[place]
            inside = slice(memory.left, memory.left + program.columns(memory))
            if memory.table is not None:
                line = memory.table[place]
                current[inside] = line if line.ndim == 3 else line[:, None]
            if cells is not None:
                current[inside] = cells[place]
        for op in self.before:
            self._run(op, row, range(program.shape[2]), -1)

    def pixel(self, row: int, column: int, group: int = 0) -> Tensor:
        """Parameters of the head at a pixel, [B, parameters]; those of `group` are right."""
        part = group if self.program.groups > 1 else -1
        for op in self.at_pixel:
            self._run(op, row, range(column, column + 1), part)
        return self._read(self.program.output, row, range(column, column + 1), -1)[0]

    def put(self, row: int, column: int, levels: Tensor, group: int = 0) -> None:
        """Take in what was drawn: levels int64 [B, channels of the group]."""
        program = self.program
        size = program.shape[0] // program.groups
        channels = slice(group * size, (group + 1) * size)
        for memory, x in zip(program.memories, self.memory, strict=True):
            if memory.image is not None:
                factor, offset = memory.image
                x[-1, memory.left + column, :, channels] = levels.to(self.dtype) * factor + offset
        for op in self.late:
            if isinstance(op, Accumulate):
                self._accumulate(op, row, column, range(channels.start, channels.stop))
            elif group == program.groups - 1:
                self._run(op, row, range(column, column + 1), -1)

    def draw_row(self, row: int, known: int, x: Tensor, draw: Draw) -> None:
        """Draw the pixels of the current row from the `known`-th on, in place.

        Args:
            row: its number.
            known: pixels before it are given in x.
            x: int64 [B, C, H, W].
            draw: the head and its uniform numbers.
        """
        if known == self.program.shape[2]:
            self.put_row(row, x[:, :, row])
        elif known or self.captured is None:
            self._draw_pixels(row, row, known, x, draw)
        else:
            self.captured(row, x, draw)

    def _draw_pixels(self, row: int, line: int, known: int, x: Tensor, draw: Draw) -> None:
        """Draw row `row` of the image, which stands in line `line` of x."""
        groups, channels = self.program.groups, self.program.shape[0]
        size = channels // groups
        for column in range(self.program.shape[2]):
            place = slice(column, column + 1)
            for group in range(groups):
                part = range(group * size, (group + 1) * size)
                parameters = self.pixel(row, column, group)
                if column >= known:
                    draw(parameters[..., None], x, line, place, part)
                self.put(row, column, x[:, part.start : part.stop, line, column], group)

    def redraw(self, row: int, start: int, x: Tensor, draw: Draw) -> None:
        """Draw the pixels from `start` on side by side, as if x held what comes before each."""
        parameters = self.put_row(row, x[:, :, row].clone(), start)
        channels = range(self.program.shape[0])
        draw(parameters.permute(1, 2, 0), x, row, slice(start, None), channels)

    def end_row(self, row: int) -> None:
        """The row is complete: compute what sees all of it."""
        columns = range(self.program.shape[2])
        index = 0
        while index < len(self.after):
            if not self.after[index].backwards:
                self._run(self.after[index], row, columns, -1)
                index += 1
                continue
            last = index
            while last < len(self.after) and self.after[last].backwards:
                last += 1
            for column in reversed(columns):
                for op in self.after[index:last]:
                    self._run(op, row, range(column, column + 1), -1)
            index = last

    def put_row(self, row: int, levels: Tensor, start: int = 0) -> Tensor:
        """Take in all pixels of the current row at once.

        Args:
            row: its number.
            levels: int64 [B, C, W].
            start: columns before it were put already.

        Returns:
            Parameters of the head at its pixels, [W - start, B, parameters].
        """
        program = self.program
        columns = range(start, program.shape[2])
        if not program.parallel_rows:
            parameters = []
            for column in columns:
                for group in range(program.groups):
                    size = program.shape[0] // program.groups
                    drawn = levels[:, group * size : (group + 1) * size, column]
                    seen = self.pixel(row, column, group)
                    self.put(row, column, drawn, group)
                parameters.append(seen.clone())
            return torch.stack(parameters) if parameters else levels.new_zeros(0).to(self.dtype)
        for memory, x in zip(program.memories, self.memory, strict=True):
            if memory.image is not None:
                factor, offset = memory.image
                values = levels[:, :, start:].permute(2, 0, 1).to(self.dtype) * factor + offset
                x[-1, memory.left + start : memory.left + program.shape[2]] = values
        for op in self.both:
            # Layer by layer: what is known late of a pixel is read by all groups of the next.
            split = program.groups > 1 and op.moment is Moment.PIXEL
            for group in range(program.groups) if split else (-1,):
                self._run(op, row, columns, group)
        return self._read(program.output, row, columns, -1)

    def take(self, index: Tensor) -> None:
        """Go on with these images of the batch, in this order; int64 [B']."""
        self.batch = len(index)
        memories = zip(self.program.memories, self.memory, strict=True)
        # A vector is [B, F], the others have the batch third.
        self.memory = [x.index_select(0 if m.vector else 2, index) for m, x in memories]
        self.maps = [None if x is None else x.index_select(2, index) for x in self.maps]

    # -- parts ------------------------------------------------------------------------------

    def _allocate(self, memory: Memory, context: Tensor | None) -> Tensor:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, device=self.device, dtype=self.dtype)

        if memory.vector:
            vector = zeros(self.batch, memory.features)
            if memory.start is not None:
                vector += memory.start
            return vector
        if memory.known is Moment.GIVEN:
            if memory.labels is None and memory.matrix is None:
                return zeros(1, 1, self.batch, memory.features)
            return memory.from_context(context)[None, None].to(self.dtype)
        columns = self.program.columns(memory)
        x = zeros(memory.rows, memory.left + columns + memory.right, self.batch, memory.features)
        if memory.above is not None:
            x[:, memory.left : memory.left + columns] = memory.above[:, None]
        return x

    def _cells(self, x: Cells, row: int, columns: range) -> range:
        """Cells of a map in the current row that begin in image columns; empty if none do."""
        if row % x.stride:
            return range(0)
        return range(-(-columns.start // x.stride), -(-columns.stop // x.stride))

    def _rows(self, x: Cells, row: int) -> Tensor:
        """The line of a memory that a view shows at an image row, [columns, B, F]."""
        memory, held = self.program.memories[x.value], self.memory[x.value]
        if memory.whole:
            place = row // memory.stride - x.up
            return held[place] if place >= 0 else torch.zeros_like(held[0])
        return held[memory.rows - 1 - x.up]

    def _line(self, x: Cells, row: int, cells: range, stride: int) -> Tensor:
        """What cells of maps of some stride read of a view, [cells, B, width]."""
        memory, held = self.program.memories[x.value], self.memory[x.value]
        if memory.vector:
            return held[None]
        if memory.known is Moment.GIVEN:
            return held[0]
        ratio, coarse = max(1, stride // x.stride), max(1, x.stride // stride)
        first = cells.start * ratio // coarse - x.left + memory.left
        step = max(1, cells.step * ratio // coarse)
        return self._rows(x, row)[first : first + (len(cells) - 1) * step + 1 : step]

    def _read(self, x: Cells, row: int, columns: range, group: int) -> Tensor:
        cells = self._cells(x, row, columns)
        first, last = x.part(group, self.program.groups)
        return self._line(x, row, cells, x.stride)[..., first:last]

    def _write(self, out: Cells, row: int, cells: range, value: Tensor, part: slice) -> None:
        memory, held = self.program.memories[out.value], self.memory[out.value]
        if memory.vector:
            held[:, part] = value[0]
        elif memory.known is Moment.GIVEN:
            held[0][..., part] = value
        else:
            first = memory.left + cells.start
            line = self._rows(out, row)
            line[first : first + (len(cells) - 1) * cells.step + 1 : cells.step, :, part] = value

    def _run(self, op: Instruction, row: int, columns: range, group: int) -> None:
        """Execute one instruction on the cells that begin in some columns."""
        stride = stride_of(op)
        if row % stride:
            return
        cells = range(-(-columns.start // stride), -(-columns.stop // stride))
        if isinstance(op, Linear) and op.period > 1:
            if (row // stride) % op.period != op.phase[0]:
                return
            first = cells.start + (op.phase[1] - cells.start) % op.period
            cells = range(first, cells.stop, op.period)
        if not cells:
            return
        if isinstance(op, Map | Linear) and self.program.memories[op.out.value].vector:
            group = -1  # a vector belongs to no channel
        split = max([x.groups for x in reads(op)], default=1)
        for part in range(split) if group < 0 and split > 1 else (group,):
            self._compute(op, row, cells, part, split if group < 0 else self.program.groups)

    def _compute(self, op: Instruction, row: int, cells: range, group: int, groups: int) -> None:
        def read(x: Cells) -> Tensor:
            first, last = x.part(group, groups)
            return self._line(x, row, cells, stride)[..., first:last]

        stride = stride_of(op)
        match op:
            case Linear():
                self._linear(op, row, cells, group, groups)
            case Map():
                value = _MAPS[op.function](*[read(x) for x in op.inputs])
                value = value if op.factor == 1.0 else value * op.factor
                self._write(op.out, row, cells, value, slice(*op.out.part(group, groups)))
            case Lstm():
                o, f, i, g = (read(x) for x in op.gates)
                c = torch.sigmoid(f) * read(op.before) + torch.sigmoid(i) * torch.tanh(g)
                h = torch.sigmoid(o) * torch.tanh(c)
                self._write(op.c, row, cells, c, slice(*op.c.part(group, groups)))
                self._write(op.h, row, cells, h, slice(*op.h.part(group, groups)))
            case Normalize():
                part, size = slice(*op.out.part(group, groups)), len(op.gain) // op.parts
                x = read(op.x)
                split = x.reshape(*x.shape[:-1], -1, size)
                x = layer_norm(split, (size,), eps=op.eps).flatten(-2)
                x = x * op.gain[part] + op.shift[part]
                self._write(op.out, row, cells, x, part)
            case Attend():
                for cell in cells:
                    query = self._line(op.query, row, range(cell, cell + 1), stride)[0]
                    first, last = op.query.part(-1, 1)
                    attended = self._attend(op, row // stride, cell, query[:, first:last])
                    self._write(op.out, row, range(cell, cell + 1), attended[None], slice(None))
            case Grow() | Pick():
                self._vector(op, row, cells, max(0, group))
            case Accumulate():
                raise AssertionError("it runs when a dimension is put")

    def _linear(self, op: Linear, row: int, cells: range, group: int, groups: int) -> None:
        stride = op.out.stride
        key = (id(op), group)
        if key not in self._parts:
            self._parts[key] = list(matrices(op, group, groups))
            if op.bias is not None:
                size = len(op.bias) // (groups if group >= 0 else 1)
                first = max(0, group) * size
                self._bias[key] = op.bias[first : first + size].to(self.dtype)
        outputs = slice(*op.out.part(group, groups))
        width = outputs.stop - outputs.start
        total: Tensor | None = self._bias.get(key)
        for x in op.plus:
            first, last = x.part(group, groups)
            value = self._line(x, row, cells, stride)[..., first:last]
            total = value if total is None else total + value
        for view, part, weight in self._parts[key]:
            seen = self._line(view, row, cells, stride)[..., part]
            rows = seen.reshape(-1, seen.shape[-1])
            if total is None:
                total = (rows @ weight).view(*seen.shape[:2], width)
            else:
                start = total.expand(*seen.shape[:2], width).reshape(-1, width)
                total = torch.addmm(start, rows, weight).view(*seen.shape[:2], width)
        assert total is not None
        self._write(op.out, row, cells, total, outputs)

    def _attend(self, op: Attend, row: int, column: int, query: Tensor) -> Tensor:
        """[B, F of the values]."""
        columns = self.program.columns(self.program.memories[op.keys.value])
        count = row * columns + column + int(op.current)
        if not count:
            return query.new_zeros(self.batch, op.values.features)
        keys, values = (self._earlier(x, count, op.heads) for x in (op.keys, op.values))
        query = query.reshape(self.batch, op.heads, -1)
        weights = torch.softmax(torch.einsum("bhf,nbhf->nbh", query, keys) * op.scale, 0)
        return torch.einsum("nbh,nbhf->bhf", weights, values).flatten(1)

    def _earlier(self, x: Cells, count: int, heads: int) -> Tensor:
        """The first cells of a map in raster order, [count, B, heads, F / heads]."""
        memory, held = self.program.memories[x.value], self.memory[x.value]
        columns = self.program.columns(memory)
        first, last = x.part(-1, 1)
        lines = held[:, memory.left : memory.left + columns, :, first:last]
        lines = lines[: -(-count // columns)].flatten(0, 1)[:count]
        return lines.reshape(count, self.batch, heads, -1)

    def _vector(self, op: Grow | Pick, row: int, cells: range, channel: int) -> None:
        program = self.program
        for column in cells:
            index = (row * program.shape[2] + column) * program.groups + channel
            x = self.memory[op.x.value]
            if isinstance(op, Pick):
                part = slice(channel * op.size, (channel + 1) * op.size)
                value = x[:, index * op.size : (index + 1) * op.size][None]
                self._write(op.out, row, range(column, column + 1), value, part)
            else:
                new = slice(op.first[index], op.last[index])
                seen = op.seen[index]
                added = x[:, :seen] @ op.weight[:seen, new]
                self.memory[op.out.value][:, new] = added + self._bias_of(op)[..., new]

    def _bias_of(self, op: Grow) -> Tensor:
        """[outputs] or [B, outputs]."""
        if isinstance(op.bias, Tensor):
            return op.bias
        return self._read(op.bias, 0, range(1), -1)[0]

    def _accumulate(self, op: Accumulate, row: int, column: int, channels: range) -> None:
        memory, held = self.program.memories[op.image.value], self.memory[op.image.value]
        running = self.memory[op.out.value]
        for channel in channels:
            index = (row * self.program.shape[2] + column) * self.program.shape[0] + channel
            value = held[-1, memory.left + column, :, channel]
            if op.weight is None:
                running[:, index] = value
            else:
                running += value[:, None] * op.weight[index]


class CapturedRow:
    """A row of pixels as one CUDA graph: thousands of small kernels for one launch.

    The rows that a memory keeps move down when a row begins, so every row finds its numbers at
    the same addresses; one graph serves all rows of a phase of the strides. What a row reads at
    an address of its own (attention to all earlier pixels, vectors by dimension) is not
    captured, nor is what refuses to be: then the row runs eagerly.
    """

    def __init__(self, executor: TorchExecutor) -> None:
        self.executor = executor
        memories = executor.program.memories
        self.period = max(memory.stride for memory in memories)
        self.possible = not any(memory.whole or memory.vector for memory in memories)
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self.seen: set[int] = set()
        self.line: Tensor | None = None
        self.draw: Draw | None = None

    def __call__(self, row: int, x: Tensor, draw: Draw) -> None:
        """Draw row `row` of x, in place."""
        phase = row % self.period
        if not self.possible or phase not in self.seen:
            # The first row of a phase runs eagerly: it fills the caches of weights.
            self.seen.add(phase)
            self.executor._draw_pixels(row, row, 0, x, draw)
            return
        if self.line is None or self.draw is None:
            self.line = torch.zeros_like(x[:, :, :1])
            uniform = torch.zeros_like(draw.uniform[:, :, :1])
            self.draw = Draw(draw.head, uniform, draw.temperature)
        self.draw.uniform.copy_(draw.uniform[:, :, row : row + 1])
        if phase not in self.graphs and not self._capture(phase, row):
            self.executor._draw_pixels(row, row, 0, x, draw)
            return
        self.graphs[phase].replay()
        x[:, :, row : row + 1] = self.line

    def _capture(self, phase: int, row: int) -> bool:
        assert self.line is not None
        assert self.draw is not None
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self.executor._draw_pixels(row, 0, 0, self.line, self.draw)
        except RuntimeError:
            self.possible = False
            return False
        self.graphs[phase] = graph
        return True


def matrices(op: Linear, group: int, groups: int) -> list[tuple[Cells, slice, Tensor]]:
    """What one part of a convolution multiplies: (view, features of the memory, matrix)."""
    parts: list[tuple[Cells, slice, Tensor]] = []
    for tap in op.taps:
        view, weight = tap.view, tap.weight
        if group >= 0:
            size = weight.shape[1] // groups
            weight = weight[:, group * size : (group + 1) * size]
        for part, rows in _inputs(tap, view, group, groups):
            parts.append((view, part, weight[rows]))
    return parts


def _inputs(tap: Tap, view: Cells, group: int, groups: int) -> list[tuple[slice, slice]]:
    """(features of the memory, rows of the weight) that a part of a convolution reads."""
    same_pixel = view.known in (Moment.PIXEL, Moment.LATE) and not view.up and not view.left
    count = groups
    if group >= 0 and same_pixel and view.known is Moment.PIXEL:
        count = group + 1
    elif tap.groups_before:
        count = max(0, group)
    if group < 0 and view.groups == 1:
        return [] if tap.groups_before else [(slice(*view.part(-1, 1)), slice(0, view.features))]
    if view.groups == 1:
        size = count * view.features // groups
        return [(slice(view.start, view.start + size), slice(0, size))] if size else []
    size = view.features // view.groups
    return [
        (slice(*view.part(part, view.groups)), slice(part * size, (part + 1) * size))
        for part in range(count)
    ]


_MAPS: dict[str, Callable[..., Tensor]] = {
    "copy": lambda x: x,
    "negative": torch.neg,
    "relu": torch.relu,
    "elu": elu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "silu": silu,
    "softplus": softplus,
    "exp": torch.exp,
    "square": torch.square,
    "add": torch.add,
    "multiply": torch.mul,
    "gate": lambda f, g: torch.tanh(f) * torch.sigmoid(g),
    "linear_gate": lambda f, g: f * torch.sigmoid(g),
}
