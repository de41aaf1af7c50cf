r"""Incremental evaluation: what a new pixel changes, as a list of instructions.

A model describes its evaluation pixel by pixel once, by calling its layers' `incremental`
methods on a `Builder`, in the order and the words of its `forward`. Layers give handles of
feature maps (`Cells`) to each other; the builder notes what is read where, and decides

- **when** a feature map is known, its `Moment`: what depends on rows above only is computed for
  the whole row at once (`BEFORE`), what depends on pixels to the left one pixel at a time
  (`PIXEL`), what sees the pixel itself when it is drawn (`LATE`), what sees the rest of its row
  when the row is complete (`AFTER`);
- **how much** of it is kept: as many rows and columns of padding as are read, not whole
  images. Beyond the border there are zeros, as in a padded convolution.

So no activation is computed twice, and the arithmetic of drawing a batch is that of one
likelihood pass. Executors (`likely.sampling.torch_executor`) run the same program on any device and
in any precision. What cannot be computed in raster order is refused when the program is built.

Colour channels that the network orders by masks are drawn in sub-steps: sub-step g computes the
g-th of the `groups` equal parts of every `PIXEL` feature map.

Source: Ramachandran et al. 2017 (caches of activations), https://arxiv.org/abs/1704.06001.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from likely.errors import InvalidSetting
from likely.sampling.instructions import (
    Accumulate,
    Attend,
    Binary,
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
    Unary,
    features_of,
    halves,
    reads,
    shifted,
    stride_of,
)


class Builder:
    """Records the incremental program of a model.

    Args:
        shape: (C, H, W) of the image.
        levels: number of levels of a channel.
        groups: colour groups that are drawn one after another; 1 where the head couples the
            channels or there is one channel.
    """

    def __init__(self, shape: tuple[int, ...], levels: int, groups: int = 1) -> None:
        channels, height, width = shape
        self.shape, self.levels, self.groups = (channels, height, width), levels, groups
        self.memories: list[Memory] = []
        self.instructions: list[Instruction] = []
        self._backwards = False
        self._open: set[int] = set()  # states that are not defined yet
        self._recurs = False

    # -- where values come from -------------------------------------------------------------

    def image(self, factor: float | None = None, offset: float | None = None) -> Cells:
        """The drawn pixels as level * factor + offset; by default scaled to [-1, 1].

        It is known `LATE`: read it shifted, or with a mask.
        """
        factor = 2.0 / (self.levels - 1) if factor is None else factor
        offset = -1.0 if offset is None else offset
        return self._keep(Memory(self.shape[0], 1, Moment.LATE, image=(factor, offset)))

    def by_label(self, table: Tensor) -> Cells:
        """Row `label` of a table [classes, F] for each image, the same in all cells."""
        return self._keep(Memory(table.shape[1], 1, Moment.GIVEN, labels=table.detach()))

    def by_vector(self, matrix: Tensor) -> Cells:
        """The vector [K] that each image is conditioned on times a matrix [K, F], in all cells."""
        return self._keep(Memory(matrix.shape[1], 1, Moment.GIVEN, matrix=matrix.detach()))

    def by_map(self, matrix: Tensor, stride: int = 1) -> Cells:
        """The map [K, H, W] that an image is conditioned on times a matrix [K, F], by place."""
        return self._keep(Memory(matrix.shape[1], stride, Moment.BEFORE, matrix=matrix.detach()))

    def constant(self, table: Tensor, stride: int = 1) -> Cells:
        """A feature map that is the same for all images, [F, cells down, cells across]."""
        place = table.detach().permute(1, 2, 0).contiguous()
        return self._keep(Memory(place.shape[2], stride, Moment.BEFORE, table=place))

    def by_image(self, maps: Tensor) -> Cells:
        """A feature map that is given for each image of the batch, [B, F, H, W]."""
        place = maps.detach().permute(2, 3, 0, 1).contiguous()
        return self._keep(Memory(place.shape[3], 1, Moment.BEFORE, table=place))

    def state(
        self,
        features: int,
        *,
        above: Tensor | None = None,
        side: Tensor | None = None,
        stride: int = 1,
    ) -> Cells:
        """A feature map that is read (shifted) before it is defined: a recurrence.

        Args:
            features: of a cell.
            above: what stands above the first row: [F], or [columns, F]; zeros by default.
            side: what stands beside the first cell of each row (the column at the left; inside
                `backwards` the one at the right): [F], or [rows, F]; zeros by default.
            stride: image pixels per cell.
        """
        moment = Moment.AFTER if self._backwards else Moment.PIXEL
        rows, columns = -(-self.shape[1] // stride), -(-self.shape[2] // stride)
        made = self._keep(
            Memory(
                features,
                stride,
                moment,
                above=None if above is None else above.detach().expand(columns, features),
                side=None if side is None else side.detach().expand(rows, features),
                side_at_right=self._backwards,
            )
        )
        self._open.add(made.value)
        return made

    def define(self, state: Cells, x: Cells) -> None:
        """The value of a state at the current cell."""
        if state.value not in self._open:
            raise InvalidSetting("only a state is defined, and only once")
        self._open.remove(state.value)
        self._note(Map("copy", state, (x,), state.known, self._backwards))

    def running(self, start: Tensor | Cells) -> Cells:
        """One vector an image that `accumulate` changes (NADE's a).

        Args:
            start: what it is at first: [F], or what is known with the label (of `by_label`).
        """
        self._recurs = True
        if isinstance(start, Tensor):
            first = start.detach().clone()
            return self._keep(Memory(len(first), 1, Moment.PIXEL, vector=True, start=first))
        if start.moment is not Moment.GIVEN:
            raise InvalidSetting("a running vector starts with what is known before the first row")
        made = self._keep(Memory(start.features, 1, Moment.PIXEL, vector=True))
        self._note(Map("copy", made, (start,), Moment.GIVEN, False))
        return made

    @contextmanager
    def backwards(self) -> Iterator[None]:
        """Inside, a complete row is read from its last cell to its first."""
        self._backwards = True
        try:
            yield
        finally:
            self._backwards = False

    # -- what is computed -------------------------------------------------------------------

    def linear(
        self,
        taps: Sequence[Tap],
        bias: Tensor | None = None,
        plus: Sequence[Cells] = (),
        stride: int | None = None,
    ) -> Cells:
        """bias + sum of plus + sum of taps, a convolution.

        What is known when the row begins is summed then, for the whole row. Applied to a vector
        it gives a vector.

        Args:
            taps: what is read and multiplied; all weights have the same number of outputs.
            bias: [outputs].
            plus: feature maps of that many features that are added.
            stride: image pixels per cell of the result; that of the first tap by default. A cell
                (r, c) of a coarser result reads from (r q, c q) on, q the quotient.
        """
        outputs = taps[0].weight.shape[1]
        stride = taps[0].x.stride if stride is None else stride
        moment = max([_moment_of(tap) for tap in taps] + [x.moment for x in plus])
        early = [tap for tap in taps if tap.view.moment <= Moment.BEFORE]
        if moment in (Moment.PIXEL, Moment.LATE) and early and not self._backwards:
            # Matrices are applied to a whole row at once wherever they can be.
            first = self._linear(
                early, bias, [x for x in plus if x.moment <= Moment.BEFORE], outputs, stride
            )
            rest = [tap for tap in taps if tap.view.moment > Moment.BEFORE]
            plus = [first, *(x for x in plus if x.moment > Moment.BEFORE)]
            return self._linear(rest, None, plus, outputs, stride)
        return self._linear(taps, bias, plus, outputs, stride)

    def upsample(
        self,
        x: Cells,
        kernels: dict[tuple[int, int], Sequence[tuple[int, int, Tensor]]],
        bias: Tensor | None,
        factor: int,
    ) -> Cells:
        """A transposed convolution: cell (r, c) reads around (r // factor, c // factor) of x.

        Args:
            x: the coarse feature map.
            kernels: for every phase (r % factor, c % factor) the taps (up, left, weight
                [F of x, outputs]) on coarse cells.
            bias: [outputs].
            factor: by which the sides grow.
        """
        if x.stride % factor or set(kernels) != {
            (i, j) for i in range(factor) for j in range(factor)
        }:
            raise InvalidSetting(f"upsampling by {factor} needs {factor} x {factor} kernels")
        taps = {
            phase: tuple(Tap(x, w.detach(), up, left) for up, left, w in kernel)
            for phase, kernel in kernels.items()
        }
        moment = max(tap.view.moment for kernel in taps.values() for tap in kernel)
        outputs = next(iter(taps.values()))[0].weight.shape[1]
        out = self._keep(Memory(outputs, x.stride // factor, self._now(moment)))
        for phase, kernel in taps.items():
            self._note(
                Linear(out, kernel, _plain(bias), (), out.known, self._backwards, phase, factor)
            )
        return out

    def map(self, function: Unary, x: Cells, factor: float = 1.0) -> Cells:
        """factor * function(x), feature by feature."""
        return self._map(function, (x,), factor)

    def relu(self, x: Cells) -> Cells:
        """max(x, 0)."""
        return self._map("relu", (x,))

    def elu(self, x: Cells) -> Cells:
        """x where it is positive, exp(x) - 1 elsewhere."""
        return self._map("elu", (x,))

    def add(self, x: Cells, y: Cells) -> Cells:
        """x + y."""
        return self._map("add", (x, y))

    def multiply(self, x: Cells, y: Cells) -> Cells:
        """x y."""
        return self._map("multiply", (x, y))

    def gate(self, x: Cells, groups: int = 1) -> Cells:
        """tanh of one half of the features times sigmoid of the other."""
        return self._map("gate", halves(x, groups))

    def linear_gate(self, x: Cells, groups: int = 1) -> Cells:
        """One half of the features times sigmoid of the other."""
        return self._map("linear_gate", halves(x, groups))

    def concat(self, parts: Sequence[Cells]) -> Cells:
        """The features of several maps, one after another; not with colour groups."""
        moment = max(x.moment for x in parts)
        out = self._keep(Memory(sum(x.features for x in parts), parts[0].stride, self._now(moment)))
        first = 0
        for x in parts:
            place = features_of(out, first, first + x.features)
            self._note(Map("copy", place, (x,), out.known, self._backwards))
            first += x.features
        return out

    def concat_elu(self, x: Cells) -> Cells:
        """elu(x) and elu(-x), one after another (Salimans 2017)."""
        out = self._keep(Memory(2 * x.features, x.stride, self._now(x.moment)))
        first, second = halves(out)
        self._note(Map("elu", first, (x,), out.known, self._backwards))
        negative = self._map("negative", (x,))
        self._note(Map("elu", second, (negative,), out.known, self._backwards))
        return out

    def lstm(self, gates: Cells, before: Cells) -> tuple[Cells, Cells]:
        """(h, c) of a cell; the features of `gates` are o, f, i, g one after another."""
        size = gates.features // 4
        o, f, i, g = (features_of(gates, k * size, (k + 1) * size) for k in range(4))
        moment = self._now(max(gates.moment, before.moment))
        h, c = (self._keep(Memory(size, gates.stride, moment)) for _ in range(2))
        self._note(Lstm(h, c, (o, f, i, g), before, moment, self._backwards))
        return h, c

    def normalize(
        self, x: Cells, gain: Tensor, shift: Tensor, eps: float = 1e-5, groups: int = 1
    ) -> Cells:
        """(x - mean) / sqrt(variance + eps) * gain + shift over the features of each cell.

        Args:
            x: of any moment.
            gain: [F].
            shift: [F].
            eps: added to the variance.
            groups: equal parts of the features that are normalised each for itself; the colour
                groups where there are some, or later channels would be seen.
        """
        if x.moment in (Moment.PIXEL, Moment.LATE) and groups != self.groups:
            raise InvalidSetting(
                f"a normalisation in {groups} parts cannot follow {self.groups} colour groups"
            )
        out = self._keep(Memory(x.features, x.stride, self._now(x.moment)))
        self._note(
            Normalize(
                out, x, gain.detach(), shift.detach(), eps, out.known, self._backwards, groups
            )
        )
        return out

    def attend(
        self,
        query: Cells,
        keys: Cells,
        values: Cells,
        *,
        heads: int = 1,
        scale: float = 1.0,
        current: bool = False,
    ) -> Cells:
        """softmax over the earlier cells of scale * <query, key>, times their values.

        Args:
            query: known at the pixel.
            keys: cells; features as many as those of the query.
            values: cells.
            heads: parts of the features that attend for themselves.
            scale: of the inner products.
            current: whether the cell itself is among those attended to.

        Returns:
            Features as many as those of the values; zeros where nothing is attended to.
        """
        for x in (keys, values):
            memory = self.memories[x.value]
            memory.whole = True
            memory.rows = -(-self.shape[1] // x.stride)
            if x.up or x.left or x.groups != 1:
                raise InvalidSetting("keys and values are attended to as they are, not shifted")
            if x.known > (Moment.PIXEL if current else Moment.LATE):
                raise InvalidSetting("the keys of the current cell are not known yet")
        out = self._keep(Memory(values.features, query.stride, max(query.moment, Moment.PIXEL)))
        self._note(Attend(out, query, keys, values, heads, scale, current, out.known))
        return out

    def accumulate(self, running: Cells, image: Cells, weight: Tensor) -> None:
        """After value i = (row W + column) C + channel is drawn, add x_i weight[i].

        Channels that the head couples are drawn together: all their values are added then.

        Args:
            running: of `running`.
            image: of `image`; gives x_i.
            weight: [H W C, F].
        """
        self._note(Accumulate(running, image, weight.detach()))

    def drawn(self, image: Cells) -> Cells:
        """The values drawn so far, x_i for value i = (row W + column) C + channel; zero beyond.

        Args:
            image: of `image`; gives x_i.
        """
        self._recurs = True
        channels, height, width = self.shape
        values = self._keep(Memory(height * width * channels, 1, Moment.PIXEL, vector=True))
        self._note(Accumulate(values, image, None))
        return values

    def grow(
        self,
        x: Cells,
        weight: Tensor,
        bias: Tensor | Cells,
        first: Sequence[int],
        last: Sequence[int],
        seen: Sequence[int],
    ) -> Cells:
        """A vector of which dimension i adds features [first_i, last_i) = bias + x[:seen_i] @ w.

        A dimension is a channel of a pixel, or the whole pixel where the head couples channels.

        Args:
            x: a vector (of `running`, `grow`, or a map of one).
            weight: [F of x, outputs].
            bias: [outputs]; or for each image what is known with its label (of `by_label`), or
                another vector, which has these features by then.
            first: first new feature at each dimension, [D].
            last: one after the last.
            seen: how many features of x are read.
        """
        if isinstance(bias, Tensor):
            bias = bias.detach()
        elif not self.memories[bias.value].vector and bias.known is not Moment.GIVEN:
            raise InvalidSetting("a vector cannot be joined with a feature map")
        out = self._keep(Memory(weight.shape[1], 1, Moment.PIXEL, vector=True))
        self._note(Grow(out, x, weight.detach(), bias, tuple(first), tuple(last), tuple(seen)))
        return out

    def pick(self, x: Cells, size: int) -> Cells:
        """At dimension i features [i size, (i + 1) size) of a vector, as the parameters there.

        Returns:
            Features groups * size.
        """
        out = self._keep(Memory(self.groups * size, 1, Moment.PIXEL))
        self._note(Pick(out, x, size))
        return out

    def finish(self, output: Cells) -> Program:
        """The program whose result is `output`.

        Raises:
            InvalidSetting: the output depends on pixels that are drawn later.
        """
        if self._open:
            raise InvalidSetting("a state is read but never defined")
        if output.moment > Moment.PIXEL or output.stride != 1:
            raise InvalidSetting("the output sees pixels that are not drawn yet")
        if output.moment < Moment.PIXEL:
            output = self._map("copy", (output,), moment=Moment.PIXEL)
        for op in self.instructions:
            self._reach(op)
        return Program(
            self.shape,
            self.groups,
            tuple(self.memories),
            tuple(self.instructions),
            output,
            not self._recurs,
            self._a_weight(),
        )

    # -- parts ------------------------------------------------------------------------------

    def _a_weight(self) -> Tensor:
        for op in self.instructions:
            if isinstance(op, Linear) and op.taps:
                return op.taps[0].weight
            if isinstance(op, Accumulate | Grow) and op.weight is not None:
                return op.weight
        raise InvalidSetting("a program without weights")

    def _keep(self, memory: Memory) -> Cells:
        self.memories.append(memory)
        features, number = memory.features, len(self.memories) - 1
        return Cells(number, features, features, memory.stride, memory.known)

    def _now(self, moment: Moment) -> Moment:
        return Moment.AFTER if self._backwards else moment

    def _linear(
        self,
        taps: Sequence[Tap],
        bias: Tensor | None,
        plus: Sequence[Cells],
        outputs: int,
        stride: int,
    ) -> Cells:
        moment = self._now(max([_moment_of(tap) for tap in taps] + [x.moment for x in plus]))
        vector = self._joined([tap.x for tap in taps] + list(plus))
        out = self._keep(Memory(outputs, stride, moment, vector=vector))
        plain = tuple(
            Tap(tap.x, tap.weight.detach(), tap.up, tap.left, tap.groups_before) for tap in taps
        )
        self._note(Linear(out, plain, _plain(bias), tuple(plus), moment, self._backwards))
        return out

    def _map(
        self,
        function: Unary | Binary,
        inputs: tuple[Cells, ...],
        factor: float = 1.0,
        moment: Moment | None = None,
    ) -> Cells:
        moment = self._now(max(x.moment for x in inputs)) if moment is None else moment
        x, vector = inputs[0], self._joined(inputs)
        out = self._keep(Memory(x.features, x.stride, moment, vector=vector))
        self._note(Map(function, out, inputs, moment, self._backwards, factor))
        return out

    def _joined(self, inputs: Sequence[Cells]) -> bool:
        """Whether what is computed of these is a vector; it may meet what belongs to its label."""
        vectors = [self.memories[x.value].vector for x in inputs]
        maps = [x.known is not Moment.GIVEN for x in inputs]
        if any(vectors) and any(m and not v for m, v in zip(maps, vectors, strict=True)):
            raise InvalidSetting("a vector cannot be joined with a feature map")
        return any(vectors)

    def _note(self, op: Instruction) -> None:
        for x in reads(op):
            if x.value in self._open and not (x.up or x.left):
                raise InvalidSetting("a state is read at the current cell before it is defined")
            if x.value in self._open and not x.up and not self._backwards:
                self._recurs = True
        self.instructions.append(op)

    def _reach(self, op: Instruction) -> None:
        """Widen the memories to what the instruction reads of them."""
        for x in reads(op):
            memory = self.memories[x.value]
            if memory.vector or memory.known is Moment.GIVEN:
                continue
            if not memory.whole:
                memory.rows = max(memory.rows, x.up + 1)
            memory.left = max(memory.left, x.left)
            # A coarser cell reads from its first pixel on: the last one may look past the row.
            ratio = max(1, stride_of(op) // x.stride)
            last = (-(-self.shape[2] // (x.stride * ratio)) - 1) * ratio - x.left
            memory.right = max(memory.right, last - (-(-self.shape[2] // x.stride) - 1))


def _moment_of(tap: Tap) -> Moment:
    # Of the pixel itself only earlier colour groups are read, which are drawn.
    return Moment.PIXEL if tap.groups_before else tap.view.moment


def _plain(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.detach()


__all__ = ["Builder", "Cells", "Moment", "Program", "Tap", "features_of", "shifted"]
