r"""The layers of PixelRNN: Row LSTM and Diagonal BiLSTM.

Source: van den Oord, Kalchbrenner, Kavukcuoglu 2016, https://arxiv.org/abs/1601.06759. A layer
reads a stream of 2h features, [2h, cells, B] in the order of its sweep (`likely.nn.fronts`), and
adds the up-sampled states of an LSTM of h (fig. 5):

    stream + W_up h + b

**Row LSTM** (sec. 3.1). Rows from top to bottom; input-to-state: a masked 1 x k convolution along
the row; state-to-state: an unmasked 1 x k convolution centred on the row above. What lies more
than k // 2 columns to the right for each row up is not seen: a triangle.

**Diagonal BiLSTM** (sec. 3.2). Diagonals from both upper corners; input-to-state: a 1 x 1
convolution; state-to-state: the pixel above and the one beside. The map from the upper right
corner is shifted down one row, so that it shows no pixel to the right in the current row.

Colour features come in G groups, group g sees groups up to g of its own pixel (mask B). The four
gates are each split so. States of other pixels are earlier ones whole: their taps need no mask.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from likely.errors import InvalidSetting
from likely.nn.fronts import Fronts, diagonal_fronts, row_fronts, sweep
from likely.nn.masked import GroupedPointwise, group_mask
from likely.noise import Dropout
from likely.sampling.program import Builder, Cells, Tap, shifted

GATES = 4  # o, f, i, g


def on_cells(layer: GroupedPointwise, x: Tensor) -> Tensor:
    """A 1 x 1 convolution of features that come first, [in, N] to [out, N]."""
    assert layer.bias is not None
    return torch.addmm(layer.bias[:, None], layer.kernel()[:, :, 0, 0], x)


def gate_groups(hidden: int, inputs: int, groups: int) -> Tensor:
    """Mask B for the four gates, each with its own colour groups, [4 h, inputs] of 0 and 1."""
    return group_mask(hidden, inputs, groups, "B").repeat(GATES, 1)


def unfolded(x: Tensor, taps: int) -> Tensor:
    """The pixel and those to its left, furthest first, zero outside.

    Args:
        x: [F, H, W, B].
        taps: pixels to the left.

    Returns:
        [(taps + 1) F, H, W, B].
    """
    width = x.shape[2]
    wide = pad(x, (0, 0, taps, 0))
    return torch.cat([wide[:, :, tap : tap + width] for tap in range(taps + 1)])


class Recurrence(nn.Module):
    """Weights of an LSTM that sweeps an image in D directions.

    Attributes:
        kernels: input-to-state, for each direction [4 h, inputs], gates o, f, i, g.
        weights: state-to-state, for each direction [4 h, taps * h].
        bias: [D, 4 h].
        h0: learned initial state, [D, h].
        c0: learned initial memory, [D, h].
    """

    seen: Tensor

    def __init__(
        self,
        directions: int,
        inputs: int,
        spread: int,
        taps: int,
        hidden: int,
        groups: int,
        classes: int,
    ) -> None:
        super().__init__()
        self.hidden, self.groups, self.directions = hidden, groups, directions
        rows = GATES * hidden

        def drawn(columns: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(rows, columns).uniform_(-1, 1) * columns**-0.5)

        self.kernels = nn.ParameterList(drawn(spread * inputs) for _ in range(directions))
        self.weights = nn.ParameterList(drawn(taps * hidden) for _ in range(directions))
        self.bias = nn.Parameter(torch.zeros(directions, rows))
        self.h0 = nn.Parameter(torch.zeros(directions, hidden))
        self.c0 = nn.Parameter(torch.zeros(directions, hidden))
        with torch.no_grad():
            # Memories begin open (Gers et al. 2000): what is far away has a gradient at once.
            self.bias[:, hidden : 2 * hidden] = 1.0
        self.masked = groups > 1
        if self.masked:
            whole = torch.ones(rows, (spread - 1) * inputs)  # pixels to the left are seen whole
            seen = torch.cat([whole, gate_groups(hidden, inputs, groups)], 1)
            self.register_buffer("seen", seen, persistent=False)
        self.label = nn.Embedding(classes, directions * rows) if classes else None

    def kernel(self) -> Tensor:
        """The input-to-state kernels as they act, masked, [D, 4 h, inputs]."""
        kernel = torch.stack(list(self.kernels))
        return kernel * self.seen if self.masked else kernel

    def states(self, z: Tensor, context: Tensor | None, fronts: Fronts, batch: int) -> Tensor:
        """Hidden states of all cells.

        Args:
            z: input-to-state maps with biases, [D, 4 h, cells * B].
            context: labels or None; they add to the maps.
            fronts: order of the sweep.
            batch: B.

        Returns:
            [D, h, cells * B].
        """
        if self.label is not None and context is not None:
            by_class = self.label(context).view(batch, self.directions, -1).permute(1, 2, 0)
            by_cell = z.view(*z.shape[:2], -1, batch) + by_class[:, :, None]
            z = by_cell.flatten(2)
        return sweep(z, torch.stack(list(self.weights)), self.h0, self.c0, fronts, batch)

    def taps(self, x: Cells, weight: Tensor, places: Sequence[tuple[int, int]]) -> list[Tap]:
        """Taps of a weight [4 h, places * features] on cells (up, left)."""
        parts = weight.chunk(len(places), 1)
        return [Tap(x, part.t(), *place) for part, place in zip(parts, places, strict=True)]

    def cell(
        self, build: Builder, taps: Sequence[Tap], before: Cells, direction: int
    ) -> tuple[Cells, Cells]:
        """(h, c) of one cell, incrementally: the taps lead to the gates, `before` is c'."""
        bias = self.bias[direction]
        labels = None
        if self.label is not None:
            labels = self.label.weight.chunk(self.directions, 1)[direction]
        gates = []
        # A gate at a time where colour groups are drawn one after another: each is split so.
        size = GATES * self.hidden if self.groups == 1 else self.hidden
        for first in range(0, GATES * self.hidden, size):
            part = slice(first, first + size)
            mine = [dataclasses.replace(tap, weight=tap.weight[:, part]) for tap in taps]
            plus = [] if labels is None else [build.by_label(labels[:, part])]
            gates.append(build.linear(mine, bias[part], plus))
        return build.lstm(gates[0] if len(gates) == 1 else build.concat(gates), before)


class RowLSTM(nn.Module):
    """One layer; see the module's docstring.

    Args:
        hidden: h; the stream has 2 h features.
        kernel: k of both convolutions, odd.
        groups: colour groups.
        classes: labels, 0 for none.
        dropout: rate of the states, where they leave the layer.
    """

    def __init__(
        self, hidden: int, kernel: int, groups: int, classes: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise InvalidSetting(f"the Row LSTM needs an odd kernel, given {kernel}")
        self.taps = kernel // 2
        self.lstm = Recurrence(1, 2 * hidden, self.taps + 1, kernel, hidden, groups, classes)
        self.dropout = Dropout(dropout, batch_side=2)
        self.up = GroupedPointwise(hidden, 2 * hidden, groups)

    def forward(self, x: Tensor, height: int, width: int, context: Tensor | None) -> Tensor:
        """[2h, H * W, B] to the same, cells in raster order."""
        batch, lstm = x.shape[2], self.lstm
        inputs = unfolded(x.view(-1, height, width, batch), self.taps).flatten(1)
        z = torch.addmm(lstm.bias[0][:, None], lstm.kernel()[0], inputs)
        fronts = row_fronts(height, width, 2 * self.taps + 1, device=str(x.device))
        states = lstm.states(z[None], context, fronts, batch)[0]
        states = self.dropout(states.view(lstm.hidden, -1, batch))
        return x + on_cells(self.up, states.flatten(1)).view_as(x)

    def incremental(self, build: Builder, x: Cells) -> Cells:
        """`forward`, pixel by pixel."""
        lstm, taps = self.lstm, self.taps
        h_state = build.state(lstm.hidden, above=lstm.h0[0])
        c_state = build.state(lstm.hidden, above=lstm.c0[0])
        along = [(0, left) for left in range(taps, -1, -1)]
        above = [(1, left) for left in range(taps, -taps - 1, -1)]
        reads = lstm.taps(x, lstm.kernel()[0], along) + lstm.taps(h_state, lstm.weights[0], above)
        h, c = lstm.cell(build, reads, shifted(c_state, 1), 0)
        build.define(h_state, h)
        build.define(c_state, c)
        return self.up.incremental(build, h, [x])


@dataclasses.dataclass(frozen=True)
class Skew:
    """Ways between the raster and the two diagonal orders of an image.

    Attributes:
        order: raster positions in the order from the upper left corner, [N].
        back: where each raster position stands in that order, [N].
        mirrored: where each cell of the other order stands in that order, [N].
        above: for each cell of the order, where the pixel above it stands in the other order;
            N in the first row.
    """

    order: Tensor
    back: Tensor
    mirrored: Tensor
    above: Tensor


@functools.lru_cache(maxsize=64)
@torch.inference_mode(False)  # kept between calls: the next one may need gradients
def skew(height: int, width: int, device: str = "cpu") -> Skew:
    """The orders for an image of H x W."""
    order, other = (diagonal_fronts(height, width, m, device).order for m in (False, True))
    back, other_back = order.argsort(), other.argsort()
    above = torch.where(order >= width, other_back[(order - width).clamp(min=0)], len(order))
    return Skew(order, back, back[other], above)


class DiagonalBiLSTM(nn.Module):
    """One layer; see the module's docstring.

    Args:
        hidden: h; the stream has 2 h features.
        groups: colour groups.
        classes: labels, 0 for none.
        pixels: channels of the image that the sweep from the right reads beside the stream, in
            the first layer; 0 for none. The features of a pixel show only what comes before it,
            so without them the last pixel of a row would be invisible far to the left in
            the row below.
        dropout: rate of the states, where they leave the layer.
    """

    def __init__(
        self, hidden: int, groups: int, classes: int, pixels: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.lstm = Recurrence(2, 2 * hidden, 1, 2, hidden, groups, classes)
        self.dropout = Dropout(dropout, batch_side=2)
        self.up = GroupedPointwise(hidden, 2 * hidden, groups)
        self.pixels = nn.Parameter(torch.empty(GATES * hidden, pixels)) if pixels else None
        if self.pixels is not None:
            nn.init.uniform_(self.pixels, -(pixels**-0.5), pixels**-0.5)

    def forward(
        self, x: Tensor, image: Tensor, height: int, width: int, context: Tensor | None
    ) -> Tensor:
        """[2h, H * W, B] to the same, cells in the order from the upper left corner.

        Args:
            x: the stream.
            image: [C, H * W, B], cells in the same order.
            height: H.
            width: W.
            context: labels or None.
        """
        batch, lstm, device = x.shape[2], self.lstm, str(x.device)
        ways, fronts = skew(height, width, device), diagonal_fronts(height, width, device=device)
        inputs = torch.stack([x, x[:, ways.mirrored]]).flatten(2)
        z = torch.baddbmm(lstm.bias[:, :, None], lstm.kernel(), inputs)
        if self.pixels is not None:
            # The states are shifted down, so the pixel itself may be seen.
            seen = self.pixels @ image[:, ways.mirrored].flatten(1)
            z = torch.stack([z[0], z[1] + seen])
        left, right = lstm.states(z, context, fronts, batch)
        # A row of zeros stands above the first one.
        shifted_down = pad(right.view(lstm.hidden, -1, batch), (0, 0, 0, 1))
        shifted_down = shifted_down[:, ways.above]
        states = self.dropout(left.view_as(shifted_down) + shifted_down)
        return x + on_cells(self.up, states.flatten(1)).view_as(x)

    def incremental(self, build: Builder, x: Cells) -> Cells:
        """`forward`: from the left pixel by pixel, from the right a complete row at a time."""
        lstm, kernel = self.lstm, self.lstm.kernel()
        left = self._direction(build, lstm.taps(x, kernel[0], [(0, 0)]), 0)
        reads = lstm.taps(x, kernel[1], [(0, 0)])
        if self.pixels is not None:
            reads.append(Tap(build.image(), self.pixels.t()))
        with build.backwards():
            right = self._direction(build, reads, 1)
        up = self.up.kernel()[:, :, 0, 0].t()
        return build.linear([Tap(left, up), Tap(right, up, 1)], self.up.bias, [x])

    def _direction(self, build: Builder, reads: Sequence[Tap], direction: int) -> Cells:
        lstm, side = self.lstm, -1 if direction else 1
        h_state = build.state(lstm.hidden, side=lstm.h0[direction])
        c_state = build.state(lstm.hidden, side=lstm.c0[direction])
        states = lstm.taps(h_state, lstm.weights[direction], [(0, side), (1, 0)])
        h, c = lstm.cell(build, [*reads, *states], shifted(c_state, 0, side), direction)
        build.define(h_state, h)
        build.define(c_state, c)
        return h
