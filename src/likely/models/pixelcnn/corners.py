"""Raster order from any corner of the image, by rows or by columns."""

from __future__ import annotations

from typing import get_args

from torch import Tensor

from likely.data.spec import DataSpec
from likely.density.chain import raster
from likely.models.common import Corner

CORNERS: tuple[Corner, ...] = get_args(Corner)
# The sides of an image [.., H, W] to reverse so that drawing begins at the top left.
REVERSED: dict[Corner, tuple[int, ...]] = {
    "top-left": (),
    "top-right": (-1,),
    "bottom-left": (-2,),
    "bottom-right": (-2, -1),
}


def turned(x: Tensor, number: int) -> Tensor:
    """An image [..., H, W] as order `number` shows it: its raster order is that order.

    Orders 0 to 3 begin at the corners and go by rows, 4 to 7 by columns.
    """
    return (x if number < 4 else x.mT).flip(REVERSED[CORNERS[number % 4]])


def turned_back(x: Tensor, number: int) -> Tensor:
    """The inverse of `turned`."""
    x = x.flip(REVERSED[CORNERS[number % 4]])
    return x if number < 4 else x.mT


def rank_in(spec: DataSpec, number: int) -> Tensor:
    """`Autoregressive.rank` of order `number`, int64 [H, W]."""
    ranks = raster(spec) if number < 4 else raster(spec).flatten().reshape(spec.shape[:0:-1])
    return turned_back(ranks, number)


def rank_from(start: Corner, spec: DataSpec) -> Tensor:
    """`Autoregressive.rank` of row after row from a corner, int64 [H, W]."""
    return rank_in(spec, CORNERS.index(start))
