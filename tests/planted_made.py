"""MADE with one defect each, for the proofs to find."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
from torch import Tensor

from likely.data.spec import DataSpec
from likely.density.chain import raster
from likely.models.vectors.made import MADE, MADEEnsemble
from likely.sampling.program import Builder, Cells


class OutputNotStrict(MADE):
    """Outputs see hidden units of their own degree, and so themselves."""

    def masked_output(self, mask: int, of_units: Tensor) -> Tensor:
        above = of_units.repeat_interleave(self.units.outputs)
        return self.output * (above[:, None] >= self.degrees[mask, -1])


class MaskWritten(MADE):
    """Masks are written into the weights: after a round, what is left is their intersection."""

    def masked_weights(self, mask: int, of_units: Tensor) -> list[Tensor]:
        masked = super().masked_weights(mask, of_units)
        with torch.no_grad():
            for weight, kept in zip(self.weights, masked, strict=True):
                weight.copy_(kept)
        return masked


class DegreesWrap(MADE):
    """The highest hidden degree wraps around to zero, and every output sees those units."""

    def masked_output(self, mask: int, of_units: Tensor) -> Tensor:
        above = of_units.repeat_interleave(self.units.outputs)
        wrapped = self.degrees[mask, -1] % (self.units.count - 1)
        return self.output * (above[:, None] > wrapped)


class DirectDiagonal(MADE):
    """The direct connections include each input to its own output."""

    def masked_direct(self, of_units: Tensor) -> Tensor | None:
        assert self.direct is not None
        above = of_units.repeat_interleave(self.units.outputs)
        return self.direct * (above[:, None] >= of_units.repeat_interleave(self.units.inputs))


class RasterSampler(MADE):
    """Drawn in raster order, although the masks follow another order."""

    def __init__(self, spec: DataSpec, settings: Any = None) -> None:
        super().__init__(spec, settings)
        self.of_masks, self.rank = self.rank, raster(spec)

    def of_units(self, rank: Tensor) -> Tensor:
        return super().of_units(self.of_masks)


class OneMaskSampler(MADE):
    """The sampler uses the first mask only."""

    def vectors(self, build: Builder, rank: Tensor) -> Cells:
        first = copy.copy(self)  # shallow: the weights are the same tensors
        first.settings = dataclasses.replace(self.settings, masks=1)
        return MADE.vectors(first, build, rank)


class OrderWithoutMasks(MADEEnsemble):
    """Members draw in orders of their own, but their masks are those of the first."""

    def conditionals_in(self, number: int, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.network.conditionals(x, context, self.ranks[0].flip(0))
