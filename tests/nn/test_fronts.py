"""Sweeps are the recurrence pixel by pixel; their backward pass is its gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from likely.nn.fronts import Fronts, diagonal_fronts, row_fronts, sweep

SIZES = [(3, 4), (4, 3), (1, 3), (3, 1), (1, 1), (5, 5)]
ROW_TAPS = {1: ((-1, 0),), 3: ((-1, -1), (-1, 0), (-1, 1)),
            5: ((-1, -2), (-1, -1), (-1, 0), (-1, 1), (-1, 2))}  # fmt: skip
DIAGONAL_TAPS = ((0, -1), (-1, 0))


def one_by_one(
    z: Tensor, weight: Tensor, h0: Tensor, c0: Tensor, height: int, width: int, kernel: int
) -> Tensor:
    """The recurrence of one direction as a loop over pixels; kernel 0 for diagonals.

    Everything in raster order: z [4h, H * W, B] to [h, H * W, B].
    """
    taps = ROW_TAPS[kernel] if kernel else DIAGONAL_TAPS
    own = (-1, 0) if kernel else (0, -1)
    states: dict[tuple[int, int], Tensor] = {}
    memories: dict[tuple[int, int], Tensor] = {}
    batch = z.shape[2]
    for row in range(height):
        for column in range(width):

            def at(known: dict[tuple[int, int], Tensor], initial: Tensor, by: tuple[int, int],
                   row: int = row, column: int = column) -> Tensor:  # fmt: skip
                place = (row + by[0], column + by[1])
                if place in known:
                    return known[place]
                # The initial state stands where the recurrence begins; to the sides are zeros.
                begins = 0 <= place[1] < width if kernel else place[0] >= 0
                start = initial if begins else torch.zeros_like(initial)
                return start[:, None].expand(-1, batch)

            read = torch.cat([at(states, h0, tap) for tap in taps])
            o, f, i, g = (z[:, row * width + column] + weight @ read).chunk(4)
            memory = f.sigmoid() * at(memories, c0, own) + i.sigmoid() * g.tanh()
            memories[row, column] = memory
            states[row, column] = o.sigmoid() * memory.tanh()
    return torch.stack([states[divmod(p, width)] for p in range(height * width)], 1)


def case(height: int, width: int, kernel: int, directions: int) -> tuple[Fronts, list[Tensor]]:
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        values = torch.randn(shape, generator=generator, dtype=torch.float64)
        return values.requires_grad_(True)

    taps = kernel or 2
    z, weight = drawn(directions, 8, height * width * 3), drawn(directions, 8, taps * 2)
    fronts = row_fronts(height, width, kernel) if kernel else diagonal_fronts(height, width)
    return fronts, [z, weight, drawn(directions, 2), drawn(directions, 2)]


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("kernel", [0, 1, 3, 5])
def test_a_sweep_is_the_loop_over_pixels_and_so_is_its_gradient(
    height: int, width: int, kernel: int
) -> None:
    directions = 1 if kernel else 2
    fronts, inputs = case(height, width, kernel, directions)
    z, weight, h0, c0 = inputs
    found = sweep(z, weight, h0, c0, fronts, 3)
    back = fronts.order.argsort()
    expected = torch.cat(
        [
            one_by_one(
                z[d].unflatten(1, (-1, 3))[:, back], weight[d], h0[d], c0[d], height, width, kernel
            )[None, :, fronts.order]
            for d in range(directions)
        ]
    ).flatten(2)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    probe = torch.randn_like(found)
    ours = torch.autograd.grad(found, inputs, probe)
    theirs = torch.autograd.grad(expected, inputs, probe)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_diagonal_order_is_a_skewed_map_read_column_by_column(
    height: int, width: int, mirrored: bool
) -> None:
    raster = torch.arange(height * width).reshape(height, width)
    skewed = torch.full((height, height + width - 1), -1)
    for row in range(height):
        skewed[row, row : row + width] = raster[row].flip(0) if mirrored else raster[row]
    read = skewed.t().flatten()
    fronts = diagonal_fronts(height, width, mirrored)
    assert torch.equal(fronts.order, read[read >= 0])
    assert list(fronts.sizes) == (skewed >= 0).sum(0).tolist()


def test_each_direction_has_its_own_weights() -> None:
    fronts, inputs = case(3, 3, 0, 2)
    z, weight, h0, c0 = inputs
    both = sweep(z, weight, h0, c0, fronts, 3)
    swapped = sweep(*(t.flip(0) for t in inputs), fronts, 3)
    assert torch.equal(both.flip(0), swapped)
    assert not torch.equal(both[0], both[1])


def test_a_sweep_is_in_float32_under_autocast() -> None:
    fronts, inputs = case(3, 4, 3, 1)
    z, weight, h0, c0 = (t.float() for t in inputs)
    expected = sweep(z.bfloat16().float(), weight, h0, c0, fronts, 3)
    with torch.autocast("cpu", torch.bfloat16):
        found = sweep(z.bfloat16(), weight, h0, c0, fronts, 3)
    assert torch.equal(found, expected)
