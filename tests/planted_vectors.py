"""FVSBN and NADE with one defect each, for the proofs to find."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from likely.models.fvsbn import FVSBN
from likely.sampling import Stepper


class TriangleWithDiagonal(FVSBN):
    """The weights begin one place too early: each unit sees itself."""

    def matrix(self, n: int) -> Tensor:
        right = super().matrix(n)
        own = torch.eye(n, dtype=right.dtype).repeat_interleave(self.units.outputs, 0)
        return right + 0.1 * own.repeat_interleave(self.units.inputs, 1)


class TriangleTransposed(FVSBN):
    """Rows and columns are exchanged: a unit sees those after it."""

    def matrix(self, n: int) -> Tensor:
        blocks = super().matrix(n).unflatten(0, (n, -1)).unflatten(2, (n, -1))
        return blocks.transpose(0, 2).flatten(2, 3).flatten(0, 1)


class LateSampler(FVSBN):
    """The incremental sampler takes each value in one unit too late."""

    def stepper(self, batch: int, context: Tensor | None) -> Stepper:
        stepper: Any = super().stepper(batch, context)
        give = stepper.give
        stepper.give = lambda unit: give(max(0, unit - 1))
        return stepper
