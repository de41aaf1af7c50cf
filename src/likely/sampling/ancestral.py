r"""Exact sampling of autoregressive models, each activation computed once.

Drawing a pixel needs the network's output at that pixel only, and everything that it depends on is
known already. A model's incremental `Program` (`likely.sampling.program`) caches it; executors run
the program compiled on the CPU or with torch. Drawing a batch costs the arithmetic of one
likelihood pass.

Sampling is a deterministic function of (weights, uniform noise): one uniform number decides each
dimension, by inverting the CDF of its conditional in float64. All methods draw the same integers,
except where two summation orders round to different sides of a uniform number (about 1e-7 per
dimension in float32).

- incremental: the program, pixel by pixel.
- naive: the whole network for every pixel, rows below left out.
- jacobi: fixed-point iteration on all pixels of a row, from a guess, until none changes; pixels
  left of the first change are final. Rows above are cached as in the incremental method. Where a
  row cannot be computed in parallel, iteration on the whole image.
- wavefront: for a model whose context excludes pixels to the right (the 2016 PixelCNN): pixels of
  several rows in one pass, each as soon as everything that it may see is drawn.

Sources: Ramachandran et al. 2017 (caches), https://arxiv.org/abs/1704.06001; Song et al. 2021,
https://arxiv.org/abs/2002.03629, and Wiggers and Hoogeboom 2020, https://arxiv.org/abs/2002.09928
(fixed points).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor

from likely.devices.precision import full_precision, without_autocast
from likely.errors import InvalidSetting, nearest
from likely.heads import Bernoulli, Categorical, DiscretizedLogisticMixture, Head
from likely.sampling.drawing import Draw, invert
from likely.sampling.instructions import Moment, Program
from likely.sampling.kept import Prepared
from likely.sampling.torch_executor import TorchExecutor

if TYPE_CHECKING:
    from likely.sampling.compiled import CompiledExecutor

    Executor = TorchExecutor | CompiledExecutor

Method = Literal["auto", "incremental", "naive", "jacobi", "wavefront"]
METHODS = ("auto", "incremental", "naive", "jacobi", "wavefront")
Watch = Callable[[int, Tensor], None]

# Images that one compiled run takes together: more do not make a pixel cheaper, and their
# activations would leave the second cache.
BLOCK = 64
# Below this many dimensions torch is done before the compiled code is loaded.
WORTH_COMPILING = 256


class Stepper:
    """A program stepped along given pixels: its state after the first pixels of a batch."""

    def __init__(self, program: Program, executor: Executor) -> None:
        self.program, self.executor = program, executor
        self.row = -1
        self.done = self.computed = 0  # dimensions of the row put, and computed
        self.parameters = torch.empty(0)

    def begin_row(self, above: Tensor | None) -> None:
        """Push the complete row above: levels int64 [B, C, W]; None at the top."""
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
        """Parameters of p(x_i | x_<i) of one channel of the pixel at `column`.

        Called for columns from left to right, channels innermost.

        Args:
            row: the current row, levels int64 [B, C, W]; only what comes before is read.
            column: of the pixel.
            channel: of the pixel.

        Returns:
            [B, head.parameters]; rows of other channels may be anything.
        """
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
    """What the sampler needs from a model."""

    head: Head

    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Parameters of all conditionals, [B, P, H, W]."""

    def program(self) -> Program | None:
        """The incremental form, or None where the model has none."""

    def reach(self, rows: int) -> int | None:
        """Columns to the right that are seen `rows` rows up; None: all that there are."""


@torch.no_grad()
def ancestral(
    model: Steppable,
    uniform: Tensor,
    x: Tensor,
    start: int,
    context: Tensor | None = None,
    method: Method = "auto",
    watch: Watch | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """Fill the pixels from raster position `start` on, one dimension after another.

    Args:
        model: autoregressive, in raster order, channels innermost.
        uniform: [B, C, H, W] in [0, 1).
        x: int64 [B, C, H, W]; pixels before `start` are kept, the others are ignored.
        start: raster position (row * W + column) of the first pixel to draw.
        context: int64 [B] or None.
        method: "auto" is incremental where the model has an incremental form; for a single image
            on a CPU, each row by the faster of incremental and jacobi, as measured.
        watch: called with (row, images so far) after each row, for a progressive picture.
        temperature: of every conditional; see `Head.tempered`.

    Returns:
        int64 [B, C, H, W].
    """
    if method not in METHODS:
        raise InvalidSetting(f'unknown sampling method "{method}": {nearest(method, METHODS)}')
    draw = Draw(model.head, uniform, temperature)
    x = x.clone()
    x.flatten(2)[:, :, start:] = 0
    with without_autocast(x.device):
        return _filled(model, draw, x, start, context, method, watch)


def _filled(
    model: Steppable,
    draw: Draw,
    x: Tensor,
    start: int,
    context: Tensor | None,
    method: Method,
    watch: Watch | None,
) -> Tensor:
    if method == "wavefront":
        return _wavefront(model, draw, x, start, context, watch)
    if method == "naive":
        return _naive(model, draw, x, start, context, watch)
    prepared = Prepared(model)
    program = prepared.program
    if method == "jacobi":
        if program is None or not program.parallel_rows:
            return _whole_jacobi(model, draw, x, start, context, watch)
        return _by_program(
            model, prepared, draw, x, start, context, watch, _fixed_point, side_by_side=True
        )
    if program is not None:
        few = method == "auto" and len(x) == 1 and program.parallel_rows
        if few and compiles(model, program):
            return _by_program(
                model, prepared, draw, x, start, context, watch, _Faster(), side_by_side=True
            )
        return _by_program(
            model, prepared, draw, x, start, context, watch, _pixels, side_by_side=False
        )
    if method == "incremental":
        raise InvalidSetting(
            f"{type(model).__name__} has no incremental form; take method=auto or naive"
        )
    return _naive(model, draw, x, start, context, watch)


# What the compiled kernels draw from; a subclass may draw otherwise.
COMPILED_HEADS = (Bernoulli, Categorical, DiscretizedLogisticMixture)


class Stream:
    """Images that arrive dimension by dimension, in raster order with channels innermost.

    Attributes:
        place: (row, column, channel) of the next dimension; None when the images are complete.
        log_prob: log p of the values so far, nats, float64 [B].
    """

    def __init__(
        self, stepper: Stepper, head: Head, shape: tuple[int, ...], images: Tensor
    ) -> None:
        """Begin with nothing known.

        Args:
            stepper: of the model, for these images.
            head: of the model.
            shape: (C, H, W).
            images: int64 [B, C, H, W], written in place.
        """
        self.place: tuple[int, int, int] | None = (0, 0, 0)
        self.log_prob = torch.zeros(len(images), dtype=torch.float64, device=images.device)
        self._stepper, self._head, self._shape, self._x = stepper, head, shape, images
        self._table: Tensor | None = None
        stepper.begin_row(None)

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self._x.device

    @torch.no_grad()
    @full_precision
    def log_table(self) -> Tensor:
        """log p(x_i = level | values so far) for the next dimension i, float64 [B, levels]."""
        if self.place is None:
            raise InvalidSetting("the images are complete: there is no next dimension")
        if self._table is None:
            row, column, channel = self.place
            with torch.autocast(self._x.device.type, enabled=False):
                parameters = self._stepper.pixel(self._x[:, :, row], column, channel)
            pixel = self._x[:, :, row, column, None, None]
            wide = parameters.double()[..., None, None]
            self._table = self._head.log_table(wide, pixel, channel)[..., 0, 0]
        return self._table

    @torch.no_grad()
    @full_precision
    def push(self, levels: Tensor) -> None:
        """Push the next dimension of every image, int64 [B]."""
        table = self.log_table()
        assert self.place is not None
        self.log_prob += table.gather(1, levels[:, None])[:, 0]
        row, column, channel = self.place
        self._x[:, channel, row, column] = levels
        self._table = None
        channels, height, width = self._shape
        channel += 1
        column, channel = (column + 1, 0) if channel == channels else (column, channel)
        if column < width:
            self.place = (row, column, channel)
        elif row + 1 < height:
            self.place = (row + 1, 0, 0)
            self._stepper.begin_row(self._x[:, :, row])
        else:
            self.place = None


def compiles(model: Steppable, program: Program) -> bool:
    """Whether the program of this model runs compiled: by its device, precision, head and size.

    Not where each image is conditioned on a map of its own, which the kernels do not read.
    """
    channels, height, width = program.shape
    return (
        not any(m.matrix is not None and m.known is not Moment.GIVEN for m in program.memories)
        and program.weight.device.type == "cpu"
        and program.weight.dtype is torch.float32
        and type(model.head) in COMPILED_HEADS
        and channels * height * width >= WORTH_COMPILING
    )


def executor_for(
    model: Steppable, program: Program, batch: int, context: Tensor | None
) -> Executor:
    """The executor that a model is sampled with; see `compiles`."""
    if compiles(model, program):
        from likely.sampling.compiled import CompiledExecutor

        return CompiledExecutor(program, batch, context, side_by_side=False)
    return TorchExecutor(program, batch, context)


def _by_program(
    model: Steppable,
    prepared: Prepared,
    draw: Draw,
    x: Tensor,
    start: int,
    context: Tensor | None,
    watch: Watch | None,
    row_of: Callable[[Executor, int, int, Tensor, Draw], None],
    *,
    side_by_side: bool,
) -> Tensor:
    """Run a program row by row; `row_of(executor, row, known, x, draw)` draws one.

    Compiled, it goes in blocks of images on as many plain threads as torch has: the images are
    independent.
    """
    height, width = x.shape[2:]
    threads = count = 1
    assert prepared.program is not None
    compiled = compiles(model, prepared.program)
    if compiled:
        threads = torch.get_num_threads()
        count = max(-(-len(x) // BLOCK), min(threads, len(x)))
    own = [slice(len(x) * part // count, len(x) * (part + 1) // count) for part in range(count)]
    sizes = [some.stop - some.start for some in own]
    tables = {
        size: prepared.tables(size, side_by_side=side_by_side) for size in set(sizes) if compiled
    }

    def block(part: int) -> Executor:
        labels = None if context is None else context[own[part]]
        if not compiled:
            return TorchExecutor(prepared.whole(), sizes[part], labels)
        from likely.sampling.compiled import CompiledExecutor

        return CompiledExecutor(tables[sizes[part]], sizes[part], labels)

    def rows(executor: Executor, part: int, some: range) -> None:
        images, drawn = x[own[part]], draw.part(own[part])
        for row in some:
            executor.begin_row(row)
            row_of(executor, row, min(width, max(0, start - row * width)), images, drawn)
            executor.end_row(row)

    if count == 1:
        executor = block(0)
        for row in range(height):
            rows(executor, 0, range(row, row + 1))
            if watch is not None and start < (row + 1) * width:
                watch(row, x)
        return x
    with ThreadPoolExecutor(min(threads, count)) as pool:
        if watch is None:
            # A block's memory is free again when it is done.
            list(pool.map(lambda part: rows(block(part), part, range(height)), range(count)))
            return x
        blocks = [block(part) for part in range(count)]
        for row in range(height):
            now = range(row, row + 1)
            list(pool.map(lambda part, now=now: rows(blocks[part], part, now), range(count)))
            if start < (row + 1) * width:
                watch(row, x)
    return x


def _pixels(executor: Executor, row: int, known: int, x: Tensor, draw: Draw) -> None:
    """A row, one pixel after another."""
    executor.draw_row(row, known, x, draw)


class _Faster:
    """Draw a row by the faster of the two methods, which give the same integers.

    For a single image, reading the weights dominates; the fixed-point iteration reads them once
    per round, and the number of rounds depends on the image. So both methods are timed, on one row
    each, and the slower one again every few rows.
    """

    AGAIN = 8

    def __init__(self) -> None:
        self.seconds = [0.0, 0.0]
        self.count = 0

    def __call__(self, executor: Executor, row: int, known: int, x: Tensor, draw: Draw) -> None:
        way = int(self.seconds[1] < self.seconds[0])
        if self.count % self.AGAIN in (0, 1):
            way = self.count % self.AGAIN
        self.count += 1
        began = time.perf_counter()
        (_pixels, _fixed_point)[way](executor, row, known, x, draw)
        self.seconds[way] = time.perf_counter() - began


def _fixed_point(executor: Executor, row: int, known: int, x: Tensor, draw: Draw) -> None:
    """Draw a row by Jacobi iteration until no integer changes."""
    done, width = known, x.shape[3]
    if done:
        executor.put_row(row, x[:, :, row])
    elif row:
        x[:, :, row] = x[:, :, row - 1]  # a guess; any would do
    while done < width:
        guess = x[:, :, row].clone()
        executor.redraw(row, done, x, draw)
        changed = (x[:, :, row] != guess).any(1).any(0).nonzero()
        if not len(changed):
            return
        # What comes before the first pixel that changed is final. That pixel itself is taken in
        # again.
        done = int(changed[0])


def _sub_steps(head: Head, channels: int) -> list[list[int]]:
    """Channels that are drawn from one evaluation of the network, in order."""
    return [list(range(channels))] if head.couples_channels else [[c] for c in range(channels)]


def _naive(
    model: Steppable,
    draw: Draw,
    x: Tensor,
    start: int,
    context: Tensor | None,
    watch: Watch | None,
) -> Tensor:
    _, channels, height, width = x.shape
    for position in range(start, height * width):
        row, column = divmod(position, width)
        for some in _sub_steps(model.head, channels):
            # Rows below are not read: leaving them out halves the work.
            seen = model.conditionals(x[:, :, : row + 1], context)
            place = slice(column, column + 1)
            draw(seen[:, :, row, place], x, row, place, some)
        if watch is not None and column == width - 1:
            watch(row, x)
    return x


def _whole_jacobi(
    model: Steppable,
    draw: Draw,
    x: Tensor,
    start: int,
    context: Tensor | None,
    watch: Watch | None,
) -> Tensor:
    _, channels, height, width = x.shape
    position, shown = start, start // width
    while position < height * width:
        guess = x.clone()
        seen = model.conditionals(x, context)
        for row in range(position // width, height):
            first = max(0, position - row * width)
            place = slice(first, width)
            draw(seen[:, :, row, place], x, row, place, range(channels))
        changed = (x != guess).any(1).any(0).flatten().nonzero()
        coupled = draw.head.couples_channels or channels == 1
        position = height * width
        if len(changed):
            position = int(changed[0]) + int(coupled)
        while watch is not None and (shown + 1) * width <= position:
            partial = x.clone()
            partial[:, :, shown + 1 :] = 0
            watch(shown, partial)
            shown += 1
    return x


def _wavefront(
    model: Steppable,
    draw: Draw,
    x: Tensor,
    start: int,
    context: Tensor | None,
    watch: Watch | None,
) -> Tensor:
    _, channels, height, width = x.shape
    lag = wavefront_lag(model, height, width)
    if lag is None:
        raise InvalidSetting(
            f"{type(model).__name__} sees all pixels to the right in rows above: there is no "
            "wavefront; take method=incremental"
        )
    for step in range(width + (height - 1) * lag):
        cells = [
            (row, step - row * lag)
            for row in range(height)
            if 0 <= step - row * lag < width and row * width + step - row * lag >= start
        ]
        if not cells:
            continue
        for some in _sub_steps(model.head, channels):
            seen = model.conditionals(x[:, :, : cells[-1][0] + 1], context)
            for row, column in cells:
                place = slice(column, column + 1)
                draw(seen[:, :, row, place], x, row, place, some)
        finished = step - (width - 1)
        if watch is not None and finished % lag == 0 and 0 <= finished // lag < height:
            partial = x.clone()
            partial[:, :, finished // lag + 1 :] = 0
            watch(finished // lag, partial)
    return x


def wavefront_lag(model: Steppable, height: int, width: int) -> int | None:
    """Columns by which a row must lag behind the row above: max over m of ceil((reach_m + 1) / m).

    None where that is the whole row, or the model does not say.
    """
    lags = []
    for rows in range(1, height):
        reach = model.reach(rows)
        if reach is None:
            return None
        # Nothing is to the right of the last column.
        lags.append(-(-(min(reach, width - 1) + 1) // rows))
    lag = max(lags, default=1)
    return lag if lag < width else None


__all__ = [
    "METHODS",
    "Draw",
    "Method",
    "Stepper",
    "Stream",
    "Watch",
    "ancestral",
    "compiles",
    "executor_for",
    "invert",
    "wavefront_lag",
]
