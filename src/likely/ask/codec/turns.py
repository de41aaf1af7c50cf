"""A model's conditionals one after another, for who writes values and who reads them.

Both run the same generator: it yields the distribution of the next dimensions and is sent their
values. So the arithmetic on either side is the same, in the same batch and order: the incremental
program pixel by pixel, or passes of the whole network, one a rank. Nothing is computed ahead from
values that a reader does not have yet.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator

import numpy as np
import torch
from torch import Tensor

from likely.density import Autoregressive, HasConditional, TractableDensity
from likely.density.chain import sub_steps
from likely.devices.precision import without_autocast
from likely.heads import Head, at_least_float
from likely.sampling.ancestral import Stepper, Stream, executor_for
from likely.sampling.incremental import Incremental
from likely.sampling.small_first import SmallFirst

# Yields (the dimensions [n] of a flattened example, log-probabilities of their levels
# [B, n, levels], float64) and is sent their values, int64 [B, n].
Turns = Generator[tuple[Tensor, Tensor], Tensor, None]


def turns_of(model: TractableDensity, batch: int, context: Tensor | None) -> Turns:
    """The conditionals of a model, in its order.

    Args:
        model: a chain rule, or another density with conditionals in raster order.
        batch: examples.
        context: labels int64 [B], floats [B, *context_shape], or None.
    """
    if isinstance(model, Incremental):
        program = model.program()
        stepper = Stepper(program, executor_for(model, program, batch, context))
        return _streamed(Stream(stepper, model.head, model.rank, batch))
    if isinstance(model, SmallFirst):
        return _small_first(model, batch, context)
    if isinstance(model, Autoregressive):
        return _passed(model, batch, context)
    assert isinstance(model, HasConditional)
    return _asked(model, model.spec.grid, batch, context)


def independent(head: Head, parameters: Tensor) -> Turns:
    """Pixels that are independent given what their parameters [B, K, H, W] were computed from."""
    parameters, pixels = at_least_float(parameters), parameters[0, 0].numel()
    shape = (len(parameters), head.channels, *parameters.shape[2:])
    x = torch.zeros(shape, dtype=torch.int64, device=parameters.device)
    for channel in range(head.channels):
        table = head.log_table(parameters, x, channel).flatten(2).transpose(1, 2)
        places = torch.arange(channel * pixels, (channel + 1) * pixels)
        x[:, channel] = (yield places, table.double()).view(x[:, channel].shape)


def _streamed(stream: Stream) -> Turns:
    _, height, width = stream.shape
    while stream.place is not None:
        row, column, channel = stream.place
        place = torch.tensor([(channel * height + row) * width + column])
        stream.push((yield place, stream.log_table()[:, None])[:, 0])


def _small_first(model: SmallFirst, batch: int, context: Tensor | None) -> Turns:
    """The turns of the small image, then those of the other pixels."""
    x = torch.zeros(batch, *model.spec.grid, dtype=torch.int64, device=model.device)
    number = torch.arange(x[0].numel()).view(model.spec.grid)
    small = model.of_small(number).flatten()
    turns = turns_of(model.small, batch, model.small_context(context))
    with contextlib.suppress(StopIteration):
        places, table = next(turns)
        while True:
            values = yield small[places], table
            x.flatten(1)[:, small[places].to(x.device)] = values
            places, table = turns.send(values)
    for row, column, channels, parameters in model.other_turns(x, context):
        wide = parameters.double()[..., None]
        pixel = x[:, :, row, column, None, None]
        for channel in channels:
            table = model.head.log_table(wide, pixel, channel)[..., 0, 0]
            values = yield number[channel, row, column, None], table[:, None]
            x[:, channel, row, column] = values[:, 0]


def _passed(model: Autoregressive, batch: int, context: Tensor | None) -> Turns:
    """A pass of the whole network for every rank and group of channels."""
    rank, head, grid = model.rank.to(model.device), model.head, model.spec.grid
    x = torch.zeros(batch, *grid, dtype=torch.int64, device=model.device)
    number = torch.arange(x[0].numel()).view(grid)
    upper = model.takes_upper_rows and model.is_raster
    for step in range(int(rank.max()) + 1):
        above = slice(step // grid[2] + 1) if upper else slice(None)
        place = rank == step
        for channels in sub_steps(head, grid[0]):
            parameters = model.conditionals(x[:, :, above], context)[:, :, place[above]]
            wide = parameters.double()[:, :, None]  # [B, K, 1, P]
            for channel in channels:
                table = head.log_table(wide, x[:, :, None, place], channel)[:, :, 0]
                values = yield number[channel, place.cpu()], table.transpose(1, 2)
                x[:, channel, place] = values


def _asked(
    model: HasConditional, grid: tuple[int, int, int], batch: int, context: Tensor | None
) -> Turns:
    """p(x_i | x_<i) asked of the model, a dimension after another."""
    channels, height, width = grid
    x = torch.zeros(batch, *grid, dtype=torch.int64)
    for pixel in range(height * width):
        row, column = divmod(pixel, width)
        for channel in range(channels):
            table = model.log_conditional(x, row, column, channel, context).double()
            place = torch.tensor([channel * height * width + pixel])
            x[:, channel, row, column] = (yield place, table[:, None])[:, 0]


def follow(turns: Turns, choose: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Run all turns; `choose(dimensions, table)` gives the values."""
    with contextlib.suppress(StopIteration):
        places, table = next(turns)
        while True:
            places, table = turns.send(choose(places, table))


@contextlib.contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """A block that computes the same at any time: one thread, no reduced precision, no gradient.

    How many threads share a sum decides how it rounds.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad(), without_autocast(device), np.errstate(divide="ignore"):
            yield
    finally:
        torch.set_num_threads(threads)
