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
- naive: the whole network for every pixel, rows below left out (`likely.density.fill_naively`).
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
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from likely.density.chain import Drawing, Method, Watch, fill_naively, sub_steps
from likely.devices.precision import full_precision, without_autocast
from likely.errors import InvalidSetting
from likely.heads import Bernoulli, Categorical, DiscretizedLogisticMixture, Head
from likely.sampling.drawing import Draw
from likely.sampling.instructions import Moment, Program
from likely.sampling.kept import Prepared
from likely.sampling.torch_executor import TorchExecutor

if TYPE_CHECKING:
    from likely.sampling.compiled import CompiledExecutor
    from likely.sampling.incremental import Incremental

    Executor = TorchExecutor | CompiledExecutor
    RowDrawer = Callable[[Executor, int, int, Tensor, Draw], None]

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

    def take(self, index: Tensor) -> None:
        """Go on with these images of the batch, in this order; int64 [B']."""
        assert isinstance(self.executor, TorchExecutor)
        self.executor.take(index)
        if self.computed:
            self.parameters = self.parameters[index]

    def _put(self, row: Tensor) -> None:
        self._compute()
        column, group = divmod(self.done, self.program.groups)
        size = self.program.shape[0] // self.program.groups
        drawn = row[:, group * size : (group + 1) * size, column]
        self.executor.put(self.row, column, drawn, group)
        self.done += 1


@torch.no_grad()
def ancestral(
    model: Incremental,
    uniform: Tensor,
    x: Tensor,
    start: int,
    context: Tensor | None = None,
    method: Method = "auto",
    watch: Watch | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """Fill the pixels from rank `start` on, one dimension after another.

    Args:
        model: autoregressive, its pixels of different ranks, channels innermost.
        uniform: [B, C, H, W] in [0, 1).
        x: int64 [B, C, H, W]; pixels of lower rank are kept, the others are ignored.
        start: rank of the first pixel to draw.
        context: int64 [B] or None.
        method: "auto" is incremental, or for a single image on a CPU, each row by the faster of
            incremental and jacobi, as measured.
        watch: called with (row, images so far) after each row, for a progressive picture.
        temperature: of every conditional; see `Head.tempered`.

    Returns:
        int64 [B, C, H, W].
    """
    how = Drawing(method, temperature, watch)
    with without_autocast(x.device):
        if method == "naive":
            return fill_naively(model, x, uniform, start, context, how)
        rank = model.rank.to(x.device)
        x = x.masked_fill(rank >= start, 0)
        draw = Draw(model.head, uniform, temperature)
        if method == "wavefront":
            return _wavefront(model, draw, x, start, context, watch)
        prepared = Prepared(model)
        parallel = prepared.program.parallel_rows
        if method == "jacobi" and not parallel:
            return _whole_jacobi(model, draw, x, start, context, watch)
        row_of: RowDrawer = _fixed_point if method == "jacobi" else _pixels
        if method == "auto" and len(x) == 1 and parallel and compiles(model, prepared.program):
            row_of = _Faster()
        # The program counts in the model's order.
        back = rank.flatten()
        order = back.argsort()
        shown = watch
        if watch is not None:

            def shown(row: int, images: Tensor) -> None:
                watch(row, rearranged(images, back))

        draw, x = Draw(model.head, rearranged(uniform, order), temperature), rearranged(x, order)
        _by_program(model, prepared, draw, x, start, context, shown, row_of)
        return rearranged(x, back)


def rearranged(x: Tensor, places: Tensor) -> Tensor:
    """Images [B, C, H, W] whose n-th pixel is the one at `places[n]`, [H * W], of x."""
    return x.flatten(2)[:, :, places].reshape(x.shape)


# What the compiled kernels draw from; a subclass may draw otherwise.
COMPILED_HEADS = (Bernoulli, Categorical, DiscretizedLogisticMixture)


class Stream:
    """Images that arrive dimension by dimension, in the model's order with channels innermost.

    Attributes:
        log_prob: log p of the values so far, nats, float64 [B].
    """

    def __init__(self, stepper: Stepper, head: Head, rank: Tensor, batch: int) -> None:
        """Begin with nothing known.

        Args:
            stepper: of the model, for these images.
            head: of the model.
            rank: of the model's pixels, [H, W].
            batch: number of images.
        """
        self.shape = (head.channels, *rank.shape)
        self.log_prob = torch.zeros(batch, dtype=torch.float64, device=rank.device)
        self._stepper, self._head, self._places = stepper, head, rank.flatten().argsort().tolist()
        # In the model's order.
        self._x = torch.zeros(batch, *self.shape, dtype=torch.int64, device=rank.device)
        self._rank = rank.flatten()
        self._next = 0
        self._table: Tensor | None = None
        stepper.begin_row(None)

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self._x.device

    @property
    def place(self) -> tuple[int, int, int] | None:
        """(row, column, channel) of the next dimension; None when the images are complete."""
        channels, _, width = self.shape
        step, channel = divmod(self._next, channels)
        if step == len(self._places):
            return None
        return (*divmod(self._places[step], width), channel)

    def _drawn_at(self) -> tuple[int, int, int]:
        """(row, column, channel) of the next dimension in the model's order."""
        channels, _, width = self.shape
        step, channel = divmod(self._next, channels)
        return (*divmod(step, width), channel)

    @property
    def images(self) -> Tensor:
        """The values so far, zeros behind them, int64 [B, C, H, W]."""
        return rearranged(self._x, self._rank)

    @torch.no_grad()
    def take(self, index: Tensor) -> None:
        """Go on with these images of the batch, in this order; int64 [B']."""
        self._stepper.take(index)
        self._x, self.log_prob = self._x[index], self.log_prob[index]
        self._table = None if self._table is None else self._table[index]

    @torch.no_grad()
    @full_precision
    def log_table(self) -> Tensor:
        """log p(x_i = level | values so far) for the next dimension i, float64 [B, levels]."""
        if self.place is None:
            raise InvalidSetting("the images are complete: there is no next dimension")
        if self._table is None:
            row, column, channel = self._drawn_at()
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
        self.log_prob += self.log_table().gather(1, levels[:, None])[:, 0]
        row, column, channel = self._drawn_at()
        self._x[:, channel, row, column] = levels
        self._table = None
        self._next += 1
        if self.place is not None and self._drawn_at()[0] > row:
            self._stepper.begin_row(self._x[:, :, row])


def compiles(model: Incremental, program: Program) -> bool:
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
    model: Incremental, program: Program, batch: int, context: Tensor | None
) -> Executor:
    """The executor that a model is sampled with; see `compiles`."""
    if compiles(model, program):
        from likely.sampling.compiled import CompiledExecutor

        return CompiledExecutor(program, batch, context, side_by_side=False)
    return TorchExecutor(program, batch, context)


def _by_program(
    model: Incremental,
    prepared: Prepared,
    draw: Draw,
    x: Tensor,
    start: int,
    context: Tensor | None,
    watch: Watch | None,
    row_of: RowDrawer,
) -> None:
    """Run a program row by row, in place; `row_of(executor, row, known, x, draw)` draws one.

    Compiled, it goes in blocks of images on as many plain threads as torch has: the images are
    independent.
    """
    height, width = x.shape[2:]
    threads = count = 1
    compiled = compiles(model, prepared.program)
    if compiled:
        threads = torch.get_num_threads()
        count = max(-(-len(x) // BLOCK), min(threads, len(x)))
    parts = [slice(len(x) * part // count, len(x) * (part + 1) // count) for part in range(count)]
    sizes = [some.stop - some.start for some in parts]
    by_rows = row_of is not _pixels  # A method that draws the pixels of a row side by side.
    tables = {size: prepared.tables(size, side_by_side=by_rows) for size in set(sizes) if compiled}

    def block(part: int) -> Executor:
        labels = None if context is None else context[parts[part]]
        if not compiled:
            return TorchExecutor(prepared.whole(), sizes[part], labels)
        from likely.sampling.compiled import CompiledExecutor

        return CompiledExecutor(tables[sizes[part]], sizes[part], labels)

    def rows(executor: Executor, part: int, some: range) -> None:
        images, drawn = x[parts[part]], draw.part(parts[part])
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
        return
    with ThreadPoolExecutor(min(threads, count)) as pool:
        if watch is None:
            # A block's memory is free again when it is done.
            list(pool.map(lambda part: rows(block(part), part, range(height)), range(count)))
            return
        blocks = [block(part) for part in range(count)]
        for row in range(height):
            now = range(row, row + 1)
            list(pool.map(lambda part, now=now: rows(blocks[part], part, now), range(count)))
            if start < (row + 1) * width:
                watch(row, x)


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


def _whole_jacobi(
    model: Incremental,
    draw: Draw,
    x: Tensor,
    start: int,
    context: Tensor | None,
    watch: Watch | None,
) -> Tensor:
    _, channels, height, width = x.shape
    rank, coupled = model.rank.to(x.device), draw.head.couples_channels or channels == 1
    position, shown = start, start // width
    while position < height * width:
        guess = x.clone()
        seen = model.conditionals(x, context)
        for row in range(height):
            draw(seen[:, :, row], x, row, slice(None), range(channels))
        x = torch.where(rank < position, guess, x)
        changed = rank[(x != guess).any(1).any(0)]
        # What comes before the first pixel that changed is final.
        position = int(changed.min()) + int(coupled) if len(changed) else height * width
        while watch is not None and (shown + 1) * width <= position:
            watch(shown, x.masked_fill(rank >= (shown + 1) * width, 0))
            shown += 1
    return x


def _wavefront(
    model: Incremental,
    draw: Draw,
    x: Tensor,
    start: int,
    context: Tensor | None,
    watch: Watch | None,
) -> Tensor:
    _, channels, height, width = x.shape
    lag = wavefront_lag(model, height, width)
    if lag is None:
        why = "sees all pixels to the right in rows above"
        if not model.is_raster:
            why = "does not draw by rows from the top left"
        raise InvalidSetting(
            f"{type(model).__name__} {why}: there is no wavefront; take method=incremental"
        )
    for step in range(width + (height - 1) * lag):
        cells = [
            (row, step - row * lag)
            for row in range(height)
            if 0 <= step - row * lag < width and row * width + step - row * lag >= start
        ]
        if not cells:
            continue
        for some in sub_steps(model.head, channels):
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


def wavefront_lag(model: Incremental, height: int, width: int) -> int | None:
    """Columns by which a row must lag behind the row above: max over m of ceil((reach_m + 1) / m).

    None where that is the whole row, or the model does not say, or draws in another order.
    """
    if not model.is_raster:
        return None
    lags = []
    for rows in range(1, height):
        reach = model.reach(rows)
        if reach is None:
            return None
        # Nothing is to the right of the last column.
        lags.append(-(-(min(reach, width - 1) + 1) // rows))
    lag = max(lags, default=1)
    return lag if lag < width else None
