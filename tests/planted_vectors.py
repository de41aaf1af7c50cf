"""FVSBN and NADE with one defect each, for the proofs to find."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from likely.models.vectors import nade
from likely.models.vectors.fvsbn import FVSBN
from likely.models.vectors.nade import NADE
from likely.sampling.program import Builder, Cells

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

    @property
    def before(self) -> Sequence[int]:
        return [max(0, seen - self.units.inputs) for seen in super().before]


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
    """The incremental sampler restarts at each row: an activation for each, of its own units."""

    def vectors(self, build: Builder, rank: Tensor) -> Cells:
        rows, hidden = self.units.height, self.settings.hidden
        a = build.running(self.start[0].repeat(rows))
        image = build.image(1.0 / self.units.top, 0.0)
        build.accumulate(a, image, torch.block_diag(*self.weight.flatten(0, 1).chunk(rows)))
        read = torch.block_diag(*self.output.flatten(0, 1).chunk(rows))
        h, bias = build.map("sigmoid", a), self.bias[0].flatten()
        return self.outputs_of(build, h, read, bias, [rows * hidden] * self.units.count)


class OneLabelSampler(NADE):
    """The incremental sampler takes every image for one of the first class."""

    def vectors(self, build: Builder, rank: Tensor) -> Cells:
        with torch.no_grad():
            twin = copy.deepcopy(self)
            twin.bias.copy_(self.bias[:1].expand_as(self.bias))
            twin.start.copy_(self.start[:1].expand_as(self.start))
        return NADE.vectors(twin, build, rank)


class OneChannelSampler(FVSBN):
    """The incremental sampler takes in the first channel of a pixel only."""

    def known(self, build: Builder) -> Cells:
        inputs = self.units.inputs
        size = self.units.count * inputs
        values = build.running(self.bias.new_zeros(size))
        first = (torch.arange(size) % inputs == 0).to(self.bias)
        build.accumulate(values, build.image(1.0 / self.units.top, 0.0), torch.diag(first))
        return values


class LateInstructions(NADE):
    """The instructions read the outputs of the unit before."""

    def vectors(self, build: Builder, rank: Tensor) -> Cells:
        with torch.no_grad():
            twin = copy.deepcopy(self)
            twin.output.copy_(self.output.roll(1, 0))
        return NADE.vectors(twin, build, rank)
