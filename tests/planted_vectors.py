"""FVSBN and NADE with one defect each, for the proofs to find."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from likely.models import nade
from likely.models.fvsbn import FVSBN
from likely.models.nade import NADE
from likely.nn.program import Builder, Cells
from likely.sampling import Stepper

right_distinct = nade.distinct


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

    def incremental(self, build: Builder) -> None:
        """None: the written one, with its defect, is taken."""

    def written_stepper(self, batch: int, context: Tensor | None) -> Stepper:
        stepper: Any = super().written_stepper(batch, context)
        give = stepper.give
        stepper.give = lambda unit: give(max(0, unit - 1))
        return stepper


class InclusiveActivation(NADE):
    """a_i already holds x_i: each unit sees itself."""

    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        own = self.units.split(x, self.weight.dtype)  # [B, n, I]
        n = own.shape[1]
        change = (own[..., None] * self.weight[:n]).sum(2)  # [B, n, H]
        extra = 0.1 * (change[:, :, None] * self.output[:n]).sum(3)  # [B, n, O]
        return super().conditionals(x, context) + self.units.join(extra)


class WrongUnitMoves(NADE):
    """A unit is taken to change the activation before it instead of the one after it.

    Where every activation is computed, as for a derivative, nothing is wrong.
    """

    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(nade, "distinct", distinct_one_late)
            return super().conditionals(x, context)


def distinct_one_late(inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`nade.distinct`, reading the units themselves where it should read those before them."""
    if inputs.requires_grad:
        return right_distinct(inputs)
    return right_distinct(torch.roll(inputs.detach(), -1, 1))


class ForgetfulSampler(NADE):
    """The incremental sampler starts anew at each row."""

    def incremental(self, build: Builder) -> None:
        """None: the written one, with its defect, is taken."""

    def written_stepper(self, batch: int, context: Tensor | None) -> Stepper:
        stepper: Any = super().written_stepper(batch, context)
        begin = stepper.begin_row

        def begin_row(above: Tensor | None) -> None:
            begin(above)
            stepper.a = self.starts(batch, context).clone()

        stepper.begin_row = begin_row
        return stepper


class LateInstructions(NADE):
    """The instructions read the outputs of the unit before."""

    def vectors(self, build: Builder) -> Cells:
        with torch.no_grad():
            twin = copy.deepcopy(self)
            twin.output.copy_(self.output.roll(1, 0))
        return NADE.vectors(twin, build)
