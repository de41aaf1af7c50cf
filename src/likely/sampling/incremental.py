"""Densities that draw incrementally: each activation computed once, by a recorded program."""

from __future__ import annotations

import abc

import torch
from torch import Tensor

from likely.density.chain import METHODS, Autoregressive, Drawing
from likely.density.mixture import OrderMixture
from likely.devices.precision import full_precision
from likely.sampling.ancestral import Stepper, Stream, ancestral
from likely.sampling.program import Builder, Cells, Program
from likely.sampling.torch_executor import TorchExecutor


class Incremental(Autoregressive):
    """An autoregressive density, its pixels drawn one by one, that says how to draw them fast.

    A leaf gives `incremental` beside `conditionals`. It counts in the model's order: rows and
    columns are those of an image whose n-th pixel, row by row, is the one of rank n.
    """

    methods = METHODS
    takes_upper_rows = True

    @abc.abstractmethod
    def incremental(self, build: Builder) -> Cells:
        """Record the incremental program of `conditionals`: what a new pixel changes in each layer.

        Args:
            build: `build.image()` gives the pixels; layers have an `incremental` method, too.

        Returns:
            The parameters of the head.
        """

    @torch.no_grad()
    @full_precision
    def program(self) -> Program:
        """The incremental program with the current weights."""
        build = Builder(self.spec.grid, self.spec.levels, self.groups)
        return build.finish(self.incremental(build))

    def reach(self, rows: int) -> int | None:
        """How many columns to the right the context of a pixel extends, `rows` >= 1 rows up.

        None (the default): all columns. A model in raster order that sees fewer can be drawn in a
        wavefront over several rows.
        """
        return None

    def fill_fast(
        self, x: Tensor, uniform: Tensor, known: int, context: Tensor | None, how: Drawing
    ) -> Tensor:
        return ancestral(self, uniform, x, known, context, how.method, how.watch, how.temperature)

    def stepper(self, batch: int, context: Tensor | None) -> Stepper:
        """The incremental form of `conditionals` for a batch, in the model's order."""
        program = self.program()
        return Stepper(program, TorchExecutor(program, batch, context))

    def stepwise(self, batch: int, context: Tensor | None) -> Stream:
        return Stream(self.stepper(batch, context), self.head, self.rank, batch)

    @full_precision
    def stream(self, batch: int = 1, context: Tensor | int | None = None) -> Stream:
        """Score images as they arrive dimension by dimension, or inspect the conditionals.

        Args:
            batch: number of images.
            context: labels, as for `sample`.
        """
        return self.stepwise(batch, self.labels(context, batch))


class IncrementalMixture(OrderMixture):
    """A mixture over orders whose members draw incrementally."""

    @abc.abstractmethod
    def incremental_in(self, number: int, build: Builder) -> Cells:
        """`Incremental.incremental` of the member of that number."""

    def members(self) -> list[Autoregressive]:
        return [InOrder(self, number) for number in range(len(self.ranks))]


class InOrder(Incremental):
    """A member of a mixture over orders: a view that shares its weights.

    Args:
        mixture: whose member it is.
        number: of the order.
    """

    takes_vectors = True

    def __init__(self, mixture: IncrementalMixture, number: int) -> None:
        rank = mixture.ranks[number]
        super().__init__(mixture.spec, mixture.classes, mixture.context_shape, rank)
        self.mixture, self.number = mixture, number
        self.settings, self.head = mixture.settings, mixture.head
        self.uses_each_weight_once = mixture.network.uses_each_weight_once
        self.training = mixture.training

    @property
    def has_blind_spot(self) -> bool:
        return self.mixture.network.has_blind_spot

    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.mixture.conditionals_in(self.number, x, context)

    def incremental(self, build: Builder) -> Cells:
        return self.mixture.incremental_in(self.number, build)
