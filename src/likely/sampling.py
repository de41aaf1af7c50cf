r"""Exact sampling of autoregressive models, each activation computed once.

Drawing a pixel needs the network's output at that pixel only, and everything that it is
computed from is known already. A `Stepper` keeps it: after a row is complete the model turns it
into what the next row needs from above (`row`), and a pixel costs its own column of the
horizontal stack (`pixel`). The arithmetic of drawing a batch is that of one likelihood pass.

Sampling is a deterministic function of (weights, uniform noise): the naive loop, which runs the
network anew for every pixel, draws the same integers, but for conditionals that the two ways of
summing round to different sides of a uniform number (probability about 1e-7 a pixel in
float32).

Source: Ramachandran et al. 2017 (caches), with the zero rows and biases at the borders right.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Literal, Protocol

import torch
from torch import Tensor

from likely.errors import InvalidSetting, nearest
from likely.heads import Head
from likely.nn.program import Program
from likely.nn.program_torch import TorchExecutor

Method = Literal["auto", "incremental", "naive"]
METHODS = ("auto", "incremental", "naive")


class Stepper(abc.ABC):
    """The state of a model that has seen the first pixels of a batch of images."""

    @abc.abstractmethod
    def begin_row(self, above: Tensor | None) -> None:
        """Take in the row above, complete: floats in level units, [B, C, W]; None at the top."""

    @abc.abstractmethod
    def pixel(self, row: Tensor, column: int, channel: int) -> Tensor:
        """Parameters of p(x_i | x_<i) of one channel of the pixel at `column`.

        Called for every column from the first on, channels innermost.

        Args:
            row: the current row in level units, [B, C, W]; only what comes before is read.
            column: of the pixel.
            channel: of the pixel.

        Returns:
            [B, head.parameters]; rows of other channels may be anything.
        """


class ProgramStepper(Stepper):
    """A stepper that runs a program, led along given pixels."""

    def __init__(self, program: Program, executor: TorchExecutor) -> None:
        self.program, self.executor = program, executor
        self.row = -1
        self.done = self.computed = 0  # dimensions of the row put, and computed
        self.parameters = torch.empty(0)

    def begin_row(self, above: Tensor | None) -> None:
        if above is not None:
            groups, width = self.program.groups, self.program.shape[2]
            while self.done % groups or (0 < self.done < width * groups):
                self._put(above)
            if self.done == 0:
                self.executor.put_row(self.row, above)
            self.executor.end_row(self.row)
        self.row += 1
        self.done = self.computed = 0
        self.executor.begin_row(self.row)

    def pixel(self, row: Tensor, column: int, channel: int) -> Tensor:
        groups = self.program.groups
        group = channel if groups > 1 else 0
        while self.done < column * groups + group:
            self._put(row)
        self._compute()
        return self.parameters

    def _compute(self) -> None:
        if self.computed == self.done:
            column, group = divmod(self.done, self.program.groups)
            self.parameters = self.executor.pixel(self.row, column, group)
            self.computed += 1

    def _put(self, row: Tensor) -> None:
        self._compute()
        column, group = divmod(self.done, self.program.groups)
        size = self.program.shape[0] // self.program.groups
        drawn = row[:, group * size : (group + 1) * size, column]
        self.executor.put(self.row, column, drawn, group)
        self.done += 1


class Steppable(Protocol):
    """What the sampler needs of a model."""

    head: Head

    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Parameters of all conditionals, [B, P, H, W]."""

    def stepper(self, batch: int, context: Tensor | None) -> Stepper | None:
        """The incremental form, or None where the model has none."""


def invert(log_table: Tensor, uniform: Tensor) -> Tensor:
    """The inverse of a discrete distribution function: the level whose cumulative mass holds u.

    Args:
        log_table: log-probabilities of every level, [B, levels, ...].
        uniform: [B, ...] in [0, 1).

    Returns:
        int64 [B, ...].
    """
    cumulative = log_table.double().exp().cumsum(1)
    # Scaled by the last value, which is one up to rounding: the top level cannot be overshot.
    below = uniform.unsqueeze(1) * cumulative[:, -1:]
    return (cumulative[:, :-1] <= below).sum(1)


@torch.no_grad()
def ancestral(
    model: Steppable,
    uniform: Tensor,
    x: Tensor,
    start: int,
    context: Tensor | None = None,
    method: Method = "auto",
    watch: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Fill the pixels from raster position `start` on, one dimension after another.

    Args:
        model: autoregressive, in raster order, channels innermost.
        uniform: [B, C, H, W] in [0, 1).
        x: int64 [B, C, H, W]; pixels before `start` are kept, the others are ignored.
        start: raster position (row * W + column) of the first pixel to draw.
        context: int64 [B] or None.
        method: "auto" is incremental where the model has a stepper.
        watch: called with (row, images so far) after each row, for a progressive picture.

    Returns:
        int64 [B, C, H, W].
    """
    if method not in METHODS:
        raise InvalidSetting(f'unknown sampling method "{method}": {nearest(method, METHODS)}')
    x = x.clone()
    x.flatten(2)[:, :, start:] = 0
    stepper = None if method == "naive" else model.stepper(len(x), context)
    if stepper is None and method == "incremental":
        raise InvalidSetting(
            f"{type(model).__name__} has no incremental form; take method=auto or naive"
        )
    _, channels, height, width = x.shape
    first_row, first_column = divmod(start, width)
    for row in range(first_row if stepper is None else 0, height):
        if stepper is not None:
            stepper.begin_row(x[:, :, row - 1] if row else None)
            if row < first_row:
                continue
        for column in range(width):
            known = row == first_row and column < first_column
            if known and stepper is None:
                continue
            for channel in range(channels):
                if stepper is not None:
                    parameters = stepper.pixel(x[:, :, row], column, channel)
                else:
                    # Rows below are not read: leaving them out halves the work.
                    seen = model.conditionals(x[:, :, : row + 1], context)
                    parameters = seen[:, :, row, column]
                if not known:
                    pixel = x[:, :, row, column, None, None]
                    table = model.head.log_table(_floats(parameters), pixel, channel)
                    x[:, channel, row, column] = invert(
                        table[..., 0, 0], uniform[:, channel, row, column]
                    )
        if watch is not None:
            watch(row, x)
    return x


def _floats(parameters: Tensor) -> Tensor:
    """[B, P] as [B, P, 1, 1] in float32 or better."""
    wide = parameters if parameters.dtype == torch.float64 else parameters.float()
    return wide[..., None, None]
