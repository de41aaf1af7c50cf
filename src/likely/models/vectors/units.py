r"""Images as vectors, for models that are written for vectors (FVSBN, NADE, MADE), and vectors.

A vector model orders the dimensions into N units and gives O outputs for unit u from the I
inputs of each unit before it. A unit is a channel of a pixel; where the head couples the
channels of a pixel itself, a unit is the whole pixel. Inputs are levels scaled to [0, 1]: on
binary data the 0 and 1 of the papers, and a dark background stays exactly zero.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from likely.data.spec import Dataset, DataSpec
from likely.density.fittable import labels_of
from likely.heads import Head, head_for
from likely.sampling.incremental import Incremental
from likely.sampling.program import Builder, Cells


class Units:
    """The layout of an image as a chain of units, pixels in raster order, channels innermost.

    Attributes:
        count: N, units of an image.
        inputs: I, values of a unit.
        outputs: O, parameters that the head takes for a unit.
        groups: units of a pixel.
    """

    def __init__(self, spec: DataSpec, head: Head) -> None:
        self.channels, self.height, self.width = spec.grid
        self.top = spec.levels - 1
        self.groups = 1 if head.couples_channels else self.channels
        self.parameters = head.parameters
        self.count = self.height * self.width * self.groups
        self.inputs = self.channels // self.groups
        self.outputs = head.parameters // self.groups

    def ranks(self, rank: Tensor) -> Tensor:
        """The place of every unit in an order of the pixels, int64 [N]; rank [H, W]."""
        channels = torch.arange(self.groups, device=rank.device)
        return (rank.flatten()[:, None] * self.groups + channels).flatten()

    def split(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Levels [B, C, rows, W] to inputs in [0, 1], [B, units of these rows, I]."""
        scaled = x.to(dtype) / self.top
        by_pixel = scaled.flatten(2).transpose(1, 2)  # [B, rows * W, C]
        return by_pixel.reshape(len(x), -1, self.inputs)

    def join(self, outputs: Tensor) -> Tensor:
        """Outputs of the first rows, [B, units, O], as the head takes them, [B, P, rows, W]."""
        by_pixel = outputs.reshape(len(outputs), -1, self.parameters)
        return by_pixel.transpose(1, 2).reshape(len(outputs), self.parameters, -1, self.width)

    def biases(self, parameters: Tensor) -> Tensor:
        """Parameters [P, H, W] as outputs of the units, [N, O]."""
        return parameters.flatten(1).t().reshape(self.count, self.outputs)


class UnitModel(Incremental):
    """An autoregressive model of vectors; `bias` holds the outputs where no input is on.

    A leaf gives `conditionals`, and its incremental form as instructions for vectors (`vectors`).

    Attributes:
        units: the layout of an image.
        bias: [1, N, O]; a row for each class where the model is conditional.
    """

    takes_vectors = True
    uses_each_weight_once = True

    def __init__(self, spec: DataSpec, settings: Any) -> None:
        super().__init__(spec, labels_of(spec, settings.conditional))
        self.settings = settings
        self.head = head_for(settings.head, spec, settings.components)
        self.units = Units(spec, self.head)
        rows = max(1, self.classes)
        self.bias = nn.Parameter(torch.zeros(rows, self.units.count, self.units.outputs))

    @torch.no_grad()
    def start_at(self, data: Dataset) -> None:
        """Set the biases so that the model starts at the mean image of the data."""
        mean = torch.from_numpy(np.asarray(data.pixel_mean(), np.float64)).reshape(self.spec.grid)
        self.bias.copy_(self.units.biases(self.head.bias_for(mean)).expand_as(self.bias))

    @property
    def has_blind_spot(self) -> bool:
        return False

    def incremental(self, build: Builder, rank: Tensor | None = None) -> Cells:
        rank = self.rank if rank is None else rank
        return build.pick(self.vectors(build, rank), self.units.outputs)

    @abc.abstractmethod
    def vectors(self, build: Builder, rank: Tensor) -> Cells:
        """Record the incremental program: a vector of the outputs of all units, [N O].

        Units come in the order they are drawn; unit n is the n-th dimension of the program.

        Args:
            build: takes it down.
            rank: of the pixels, [H, W]; a network of raster order alone need not read it.
        """

    def known(self, build: Builder) -> Cells:
        """The inputs of the units so far, zero beyond, as a vector [N I]; `before` counts them."""
        return build.drawn(build.image(factor=1.0 / self.units.top, offset=0.0))

    @property
    def before(self) -> Sequence[int]:
        """How many inputs are known at each unit, [N]."""
        inputs = self.units.inputs
        return range(0, self.units.count * inputs, inputs)

    def outputs_of(
        self, build: Builder, x: Cells, weight: Tensor, bias: Tensor | Cells, seen: Sequence[int]
    ) -> Cells:
        """At unit n its outputs from the first seen[n] features of a vector.

        Args:
            build: takes it down.
            x: the vector.
            weight: [N O, F of x].
            bias: [N O], or such a vector.
            seen: [N].
        """
        size, count = self.units.outputs, self.units.count
        first = [unit * size for unit in range(count)]
        last = [unit + size for unit in first]
        return build.grow(x, weight.t(), bias, first, last, seen)

    def biases(self, context: Tensor | None) -> Tensor:
        """Outputs where no input is on, [B or 1, N, O]."""
        return self.bias if context is None else self.bias[context]


def of_label(build: Builder, table: Tensor) -> Tensor | Cells:
    """The row of the image's label in a table [classes, F], for all images where there is one."""
    return build.by_label(table) if len(table) > 1 else table[0]
