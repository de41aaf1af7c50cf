r"""Recurrences that sweep an image front by front: rows, or the diagonals of a skewed map.

Skewing (van den Oord, Kalchbrenner, Kavukcuoglu 2016, sec. 3.2) shifts row i of an H x W map by
i columns, so that the pixel above and the pixel to the left of a cell lie in the column before
it. A skewed map is a parallelogram of H W cells in H (H + W - 1) places. Here the cells are
sorted by their column instead: a front is then a contiguous range of cells, and the places
outside the image cost nothing.

    [o, f, i, g] = sum_k K_k h_k + z,   c = sigma(f) c' + sigma(i) tanh(g),
    h = sigma(o) tanh(c)                                                                (eq. 3)

with h_k the state that tap k reads in the front before, c' the memory of the cell's own line (its
column, or its row on a diagonal), z the input-to-state map of all cells, computed at once.

Feature maps are [F, cells, B], cells in the order of the sweep: each gate of a front is then a
few long contiguous pieces.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from likely.devices.precision import without_autocast

# (first cell, number of cells) that read, (first cell) that is read.
Link = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Fronts:
    """The order of a sweep and who reads whom.

    Attributes:
        order: raster positions of the cells in the order of the sweep, [H * W].
        sizes: cells of each front.
        line: for each front but the first, the cells whose line the front before was on.
        taps: the same for each tap of the state-to-state kernel.
        fresh: for the own line and for each tap, the cells that read the initial state, [H * W]
            of 0 and 1. What a tap reads outside the image is zero.
    """

    order: Tensor
    sizes: tuple[int, ...]
    line: tuple[Link, ...]
    taps: tuple[tuple[Link, ...], ...]
    fresh: Tensor


@functools.lru_cache(maxsize=64)
@torch.inference_mode(False)  # kept between calls: the next one may need gradients
def row_fronts(height: int, width: int, kernel: int, device: str = "cpu") -> Fronts:
    """Rows from top to bottom; taps on the row above, `kernel` columns about the cell's own."""
    side = kernel // 2
    spans = [(row * width, width, 0) for row in range(height)]
    order = torch.arange(height * width, device="cpu")
    return _fronts(order, spans, width, tuple(range(-side, side + 1)), device)


@functools.lru_cache(maxsize=64)
@torch.inference_mode(False)
def diagonal_fronts(height: int, width: int, mirrored: bool = False, device: str = "cpu") -> Fronts:
    """Diagonals from the upper left corner (mirrored: the upper right); taps left and above."""
    order: list[int] = []
    spans: list[tuple[int, int, int]] = []
    for diagonal in range(height + width - 1):
        top, bottom = max(0, diagonal - width + 1), min(height - 1, diagonal)
        spans.append((len(order), bottom - top + 1, top))
        for row in range(top, bottom + 1):
            column = diagonal - row
            order.append(row * width + (width - 1 - column if mirrored else column))
    return _fronts(torch.tensor(order, device="cpu"), spans, height, (0, -1), device)


def _fronts(
    order: Tensor,
    spans: Sequence[tuple[int, int, int]],
    lines: int,
    offsets: tuple[int, ...],
    device: str,
) -> Fronts:
    """Link fronts (first cell, cells, first line) whose taps read lines at the offsets."""
    links: list[list[Link]] = [[] for _ in (0, *offsets)]
    # Kept between calls, so made where it is said, whatever the default device is at the first.
    fresh = torch.zeros(len(links), len(order), device="cpu")
    for (before, many, top), (first, count, line) in zip([(0, 0, 0), *spans], spans, strict=False):
        for place, offset in enumerate((0, *offsets)):
            # Lines of this front that read a line of the front before.
            start = max(line, top - offset)
            stop = min(line + count, top + many - offset)
            if stop > start:
                read = before + start + offset - top
                links[place].append((first + start - line, stop - start, read))
            elif first:
                links[place].append((first, 0, before))
            for at in range(line, line + count):
                inside = 0 <= at + offset < lines
                if inside and not start <= at < stop:
                    fresh[place, first + at - line] = 1
    sizes = tuple(count for _, count, _ in spans)
    taps = tuple(map(tuple, links[1:]))
    return Fronts(order.to(device), sizes, tuple(links[0]), taps, fresh.to(device))


def pieces(x: Tensor, links: Sequence[tuple[int, int]], batch: int) -> list[Tensor]:
    """Views of the ranges (first cell, cells) of the last side of x, made in one call."""
    sizes, end = [], 0
    for first, count in links:
        sizes += [first - end, count]
        end = first + count
    sizes.append(x.shape[-1] // batch - end)
    return list(x.split_with_sizes([size * batch for size in sizes], -1)[1::2])


class _Sweep(torch.autograd.Function):
    """The recurrence of `sweep`, with the backward pass through time written out.

    Autograd would record some fifteen small operations a front and add up the gradient of the
    weights front by front. Here what a front's gradient multiplies is computed for all fronts at
    once, and so is the gradient of the weights: a step is 1.1 to 1.2 times as fast.
    """

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, weight: Tensor, h0: Tensor, c0: Tensor, fronts: Fronts, batch: int
    ) -> Tensor:
        directions, rows, n = z.shape
        hidden = rows // 4
        spans = _spans(fronts)
        fresh = fronts.fresh.to(z)[:, :, None].expand(-1, -1, batch).flatten(1)  # [1 + T, N]
        before = c0[:, :, None] * fresh[0]  # c', [D, h, N]
        read = h0[:, None, :, None] * fresh[1:, None]  # h_k, [D, T, h, N]
        gates = torch.empty_like(z)
        squashed, out = torch.empty_like(before), torch.empty_like(before)  # tanh(c), h

        flat = read.flatten(1, 2)
        by_gate = gates.view(directions, 4, hidden, n)
        sums = [pieces(part, spans, batch) for part in z]
        reads = [pieces(part, spans, batch) for part in flat]
        results = [pieces(part, spans, batch) for part in gates]
        bounded = pieces(by_gate[:, :3], spans, batch)
        output, forget, enter, new = (pieces(by_gate[:, k], spans, batch) for k in range(4))
        memories, tanhs = pieces(before, spans, batch), pieces(squashed, spans, batch)
        states = pieces(out, spans, batch)
        inputs = _reading(fronts.line, before, batch)
        taps = [_reading(link, read[:, k], batch) for k, link in enumerate(fronts.taps)]
        cuts = [_read(link, fronts, batch) for link in (fronts.line, *fronts.taps)]

        for front in range(len(spans)):
            for direction in range(directions):
                torch.addmm(
                    sums[direction][front],
                    weight[direction],
                    reads[direction][front],
                    out=results[direction][front],
                )
            bounded[front].sigmoid_()
            new[front].tanh_()
            memory = forget[front] * memories[front]
            memory.addcmul_(enter[front], new[front])
            torch.tanh(memory, out=tanhs[front])
            torch.mul(output[front], tanhs[front], out=states[front])
            if front + 1 < len(spans):
                inputs[front].copy_(memory[..., cuts[0][front]])
                for tap, cut in zip(taps, cuts[1:], strict=True):
                    tap[front].copy_(states[front][..., cut[front]])
        ctx.save_for_backward(gates, before, read, squashed, weight)
        ctx.fronts, ctx.batch = fronts, batch
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        gates, before, read, squashed, weight = ctx.saved_tensors
        fronts, batch = ctx.fronts, ctx.batch
        directions, rows, n = gates.shape
        hidden = rows // 4
        spans = _spans(fronts)
        o, f, i, g = gates.view(directions, 4, hidden, n).unbind(1)
        # dc = dc_next + dh out_slope; the gates' gradients are `slopes` times dh (o) or dc.
        out_slope = o * (1 - squashed * squashed)
        slopes = gates.new_empty(directions, 4, hidden, n)
        torch.mul(squashed * o, 1 - o, out=slopes[:, 0])
        torch.mul(before * f, 1 - f, out=slopes[:, 1])
        torch.mul(g * i, 1 - i, out=slopes[:, 2])
        torch.mul(i, 1 - g * g, out=slopes[:, 3])
        d_gates = slopes.view(directions, rows, n)
        d_state = grads[0].clone(memory_format=torch.contiguous_format)  # [D, h, N]
        d_memory = torch.empty_like(d_state)

        d_states, d_memories = pieces(d_state, spans, batch), pieces(d_memory, spans, batch)
        outs, forgets = pieces(out_slope, spans, batch), pieces(f, spans, batch)
        first, others = pieces(slopes[:, 0], spans, batch), pieces(slopes[:, 1:], spans, batch)
        moved = [pieces(part, spans, batch) for part in d_gates]
        cuts = [_cuts(link, fronts, batch) for link in (fronts.line, *fronts.taps)]
        back = weight.mT.contiguous()  # [D, T h, 4 h]
        for front in reversed(range(len(spans))):
            d_h, d_c = d_states[front], d_memories[front]
            last = front + 1 == len(spans)
            if not last:
                products = [torch.mm(w, m[front + 1]) for w, m in zip(back, moved, strict=True)]
                later = torch.stack(products)
                later = later.view(directions, -1, hidden, later.shape[-1])
                for tap, cut in enumerate(cuts[1:]):
                    source, target = cut[front]
                    d_h[..., target] += later[:, tap, :, source]
            torch.mul(d_h, outs[front], out=d_c)
            if not last:
                source, target = cuts[0][front]
                d_c[..., target].addcmul_(
                    d_memories[front + 1][..., source], forgets[front + 1][..., source]
                )
            first[front].mul_(d_h)
            others[front].mul_(d_c[:, None])

        fresh = fronts.fresh.to(gates)[:, :, None].expand(-1, -1, batch).flatten(1)
        d_weight = torch.bmm(d_gates, read.flatten(1, 2).mT)
        # What flowed into the initial states, summed over the cells that read them.
        d_c0 = torch.einsum("dhn,dhn,n->dh", d_memory, f, fresh[0])
        at_fresh = torch.einsum("drn,tn->dtr", d_gates, fresh[1:])  # [D, T, 4 h]
        by_tap = weight.view(directions, rows, -1, hidden)
        d_h0 = torch.einsum("dtr,drth->dh", at_fresh, by_tap)
        return d_gates, d_weight, d_h0, d_c0, None, None


def _spans(fronts: Fronts) -> list[tuple[int, int]]:
    """(first cell, cells) of each front."""
    out, end = [], 0
    for size in fronts.sizes:
        out.append((end, size))
        end += size
    return out


def _reading(links: Sequence[Link], x: Tensor, batch: int) -> list[Tensor]:
    """Views of the cells that read the front before, one for each front but the first."""
    return pieces(x, [(first, count) for first, count, _ in links], batch)


def _read(links: Sequence[Link], fronts: Fronts, batch: int) -> list[slice]:
    """For each front but the last, the part of it that the next one reads."""
    return [target for _, target in _cuts(links, fronts, batch)]


def _cuts(links: Sequence[Link], fronts: Fronts, batch: int) -> list[tuple[slice, slice]]:
    """For each front but the last: the part of the next that reads, the part of it that is read."""
    out = []
    spans = _spans(fronts)
    for (first, count, source), (column, _), (above, _) in zip(
        links, spans[:-1], spans[1:], strict=True
    ):
        reads, is_read = (first - above) * batch, (source - column) * batch
        size = count * batch
        out.append((slice(reads, reads + size), slice(is_read, is_read + size)))
    return out


def sweep(z: Tensor, weight: Tensor, h0: Tensor, c0: Tensor, fronts: Fronts, batch: int) -> Tensor:
    """Hidden states of all cells.

    Args:
        z: input-to-state maps with biases, [D, 4 h, cells * B], for D directions; gates o, f, i, g.
        weight: state-to-state kernels, [D, 4 h, T * h] for T taps.
        h0: initial states, [D, h].
        c0: initial memories, [D, h].
        fronts: the order, the same for all directions.
        batch: B.

    Returns:
        [D, h, cells * B].
    """
    # States add up over many fronts: float32 or better, whatever the maps were computed in.
    if z.is_meta:  # shapes alone: nothing to sweep
        return z[:, : z.shape[1] // 4]
    with without_autocast(z.device):
        hidden: Tensor = _Sweep.apply(z.to(weight.dtype), weight, h0, c0, fronts, batch)  # type: ignore[no-untyped-call]
    return hidden
