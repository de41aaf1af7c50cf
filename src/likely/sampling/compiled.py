"""Runs an incremental program compiled, on the processor: float32 or float64, one thread."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from likely.errors import InvalidSetting
from likely.heads import Bernoulli, Categorical, DiscretizedLogisticMixture, Head
from likely.sampling import kernels
from likely.sampling.drawing import Draw
from likely.sampling.instructions import Moment, Program
from likely.sampling.lowering import MOST_TAPS, Tables
from likely.sampling.records import STEP, Array, Chances, Machine

# Of a call that draws nothing: no steps, no numbers and no images.
_NOTHING = (
    np.zeros(0, STEP),
    Chances(np.zeros(4, np.int64), 1.0, np.zeros((0, 0, 0, 0)), np.zeros((3, 0))),
    np.zeros((0, 0, 0, 0), np.int64),
)


def head_code(head: Head) -> Array:
    """The head as the kernels know it.

    Raises:
        InvalidSetting: a kind that they do not draw from.
    """
    parts = 0
    if type(head) is Bernoulli:
        kind = kernels.BERNOULLI
    elif type(head) is Categorical:
        kind = kernels.CATEGORICAL
    elif type(head) is DiscretizedLogisticMixture and head.bounds is None:
        kind, parts = kernels.MIXTURE, head.components
    else:
        raise InvalidSetting(f"no compiled draw from a {type(head).__name__} head")
    return np.array([kind, head.levels, head.channels, parts], np.int64)


class CompiledExecutor:
    """The memory of a part of a batch, and the steps that change it; see `TorchExecutor`.

    Args:
        program: of the model, or its tables for that many images.
        batch: images.
        context: labels int64 [B], vectors [B, K], or None; no maps.
        side_by_side: see `Tables`, which may be given instead of the program.
    """

    def __init__(
        self,
        program: Program | Tables,
        batch: int,
        context: Tensor | None = None,
        *,
        side_by_side: bool = True,
    ) -> None:
        if isinstance(program, Program):
            program = Tables(program, batch, side_by_side=side_by_side)
        assert program.batch == batch
        self.tables, self.program, self.batch = program, program.program, batch
        self._workspace = np.zeros((3, max(1, self.program.output.features)))
        self.mem = np.zeros(program.held, program.type)
        self.machine = Machine(
            program.code,
            program.views,
            np.zeros(len(program.views), np.int64),
            program.taps,
            np.zeros((MOST_TAPS, 3), np.int64),
            program.floats,
            program.integers,
            np.zeros(program.scores, program.type),
            self.mem,
            program.weights,
            program.images,
            batch,
            self.program.shape[2],
            program.lanes,
            program.output,
        )
        self._begin(context)

    # -- the steps --------------------------------------------------------------------------

    def bytes(self) -> int:
        """Size of the memory."""
        return int(self.mem.nbytes)

    def begin_row(self, row: int) -> None:
        """Move to a new row and compute what it knows from above."""
        tables = self.tables
        kernels.bind(tables.views, self.machine.lines, row)
        for memory, place in zip(self.program.memories, tables.places, strict=True):
            if memory.side is not None and row % memory.stride == 0:
                line = row // memory.stride
                column = self.program.columns(memory) if memory.side_at_right else -1
                at = place.base + (line % place.kept) * place.row_step
                at += (place.left + column) * place.column_step
                values = memory.side[line].to(torch.float64).numpy()
                for image in range(self.batch):
                    first = at + image * place.image_step
                    self.mem[first : first + memory.features] = values
        self._execute(tables.before, row, 0, self.program.shape[2])

    def pixel(self, row: int, column: int, group: int = 0) -> Tensor:
        """Parameters of the head at a pixel, [B, parameters]; those of `group` are right."""
        self._execute(self.tables.at_pixel[group], row, column, column + 1)
        return self._parameters(column)

    def put(self, row: int, column: int, levels: Tensor, group: int = 0) -> None:
        """Take in what was drawn: levels int64 [B, channels of the group]."""
        size = self.program.shape[0] // self.program.groups
        x = np.zeros((self.batch, self.program.shape[0], 1, column + 1), np.int64)
        x[:, group * size : (group + 1) * size, 0, column] = levels.numpy()
        self._put(x, column, column + 1, group * size, (group + 1) * size)
        self._execute(self.tables.late[group], row, column, column + 1)

    def end_row(self, row: int) -> None:
        """The row is complete: compute what sees all of it."""
        width = self.program.shape[2]
        for part, backwards in self.tables.after:
            if not backwards:
                self._execute(part, row, 0, width)
                continue
            for column in reversed(range(width)):
                self._execute(part, row, column, column + 1)

    def put_row(self, row: int, levels: Tensor, start: int = 0) -> Tensor:
        """Take in all pixels of the current row at once; see `TorchExecutor`."""
        program = self.program
        width, groups = program.shape[2], program.groups
        parameters = []
        if not self.tables.side_by_side:
            size = program.shape[0] // groups
            for column in range(start, width):
                for group in range(groups):
                    seen = self.pixel(row, column, group)
                    part = levels[:, group * size : (group + 1) * size, column]
                    self.put(row, column, part, group)
                parameters.append(seen.clone())
        else:
            self._side_by_side(row, start, levels)
            parameters = [self._parameters(column) for column in range(start, width)]
        return torch.stack(parameters) if parameters else torch.zeros(0)

    def draw_row(self, row: int, known: int, x: Tensor, draw: Draw) -> None:
        """Draw the pixels of the current row from the `known`-th on; see `TorchExecutor`."""
        steps, chances = self.tables.steps, self._chances(draw)
        kernels.run(self.machine, 0, 0, row, 0, x.shape[3], steps, chances, x.numpy(), known)

    def redraw(self, row: int, start: int, x: Tensor, draw: Draw) -> None:
        """Draw the pixels from `start` on side by side; see `TorchExecutor`."""
        self._side_by_side(row, start, x[:, :, row])
        kernels.draw_cells(self.machine, self._chances(draw), x.numpy(), row, start)

    # -- parts ------------------------------------------------------------------------------

    def _chances(self, draw: Draw) -> Chances:
        kind = head_code(draw.head)
        return Chances(kind, float(draw.temperature), draw.uniform.numpy(), self._workspace)

    def _execute(self, part: tuple[int, int], row: int, first: int, last: int) -> None:
        if part[0] < part[1]:
            kernels.run(self.machine, *part, row, first, last, *_NOTHING, 0)

    def _put(self, x: Array, first: int, last: int, low: int, high: int) -> None:
        """Write channels [low, high) of columns [first, last) of a row, [B, C, 1, W]."""
        kernels.put(self.machine, x, 0, first, last, low, high)

    def _side_by_side(self, row: int, start: int, levels: Tensor) -> None:
        width = self.program.shape[2]
        values = levels[:, :, None].contiguous().numpy()
        self._put(values, start, width, 0, self.program.shape[0])
        self._execute(self.tables.both, row, start, width)

    def _parameters(self, column: int) -> Tensor:
        view, size = self.tables.views[self.tables.output], self.program.output.features
        at = int(self.machine.lines[self.tables.output] + column * view["column_step"])
        step = int(view["image_step"])
        columns = np.stack(
            [self.mem[at + b * step : at + b * step + size] for b in range(self.batch)]
        )
        return torch.from_numpy(columns)

    def _begin(self, context: Tensor | None) -> None:
        """Give the memory its first contents."""
        tables, program = self.tables, self.program
        for memory, place in zip(program.memories, tables.places, strict=True):
            size, batch = memory.features, self.batch
            if memory.start is not None:
                rows = self._strided(place.base, (batch, size), (place.image_step, 1))
                rows[:] = memory.start.to(torch.float64).numpy()
            if memory.known is Moment.GIVEN and (
                memory.labels is not None or memory.matrix is not None
            ):
                rows = self._strided(place.base, (batch, size), (place.image_step, 1))
                rows[:] = memory.from_context(context).to(torch.float64).numpy()
            columns = program.columns(memory)
            first = place.base + place.left * place.column_step
            steps = (place.row_step, place.column_step)
            if memory.table is not None:
                cells = self._strided(first, (len(memory.table), columns, size), (*steps, 1))
                cells[:] = memory.table.to(torch.float64).numpy()
            if memory.above is not None:
                shape = (place.kept, columns, batch, size)
                lines = self._strided(first, shape, (*steps, place.image_step, 1))
                lines[:] = memory.above.to(torch.float64).numpy()[None, :, None]
        kernels.bind(tables.views, self.machine.lines, 0)
        self._execute(tables.given, 0, 0, 1)

    def _strided(self, base: int, shape: tuple[int, ...], steps: tuple[int, ...]) -> Array:
        item = self.mem.itemsize
        strides = tuple(step * item for step in steps)
        return np.lib.stride_tricks.as_strided(self.mem[base:], shape, strides)
