"""Densities of a small image and then of the other pixels: exact, drawn incrementally."""

from __future__ import annotations

import abc
from collections.abc import Iterator

import torch
from torch import Tensor

from likely.density.chain import Autoregressive, Drawing, sub_steps
from likely.density.coarse import CoarseToFine
from likely.sampling.ancestral import Stepper
from likely.sampling.drawing import Draw


class SmallFirst(CoarseToFine):
    """log p(x) = log p(s(x)) + sum over other pixels in raster order of log p(x_i | s(x), earlier).

    s(x) is every `factor`-th pixel of both sides, and has a density of its own, which may begin
    with a smaller image in turn. A leaf calls `begin_with`, and gives the second network.

    Attributes:
        small: the density of s(x).
        factor: of the sides.
    """

    small: Autoregressive
    factor: int

    def begin_with(self, small: Autoregressive, factor: int) -> None:
        """Set the density of the small image, and the order."""
        self.small, self.factor = small, factor
        rank = torch.full(self.spec.grid[1:], -1, device="cpu")
        rank[::factor, ::factor] = small.rank.cpu()
        later = rank < 0
        rank[later] = torch.arange(int(later.sum()), device="cpu") + small.rank.numel()
        self.rank = rank

    @abc.abstractmethod
    def other_conditionals(self, x: Tensor, context: Tensor | None) -> Tensor:
        """`conditionals` of the second network; those of pixels of the small image are not read."""

    @abc.abstractmethod
    def other_stepper(self, x: Tensor, context: Tensor | None) -> Stepper:
        """The incremental form of `other_conditionals`; of x only the small image is known."""

    def of_small(self, values: Tensor) -> Tensor:
        """What [..., H, W] has at the pixels of the small image, a view [..., h, w]."""
        return values[..., :: self.factor, :: self.factor]

    def small_context(self, context: Tensor | None) -> Tensor | None:
        """The context of the small image: the labels, or a map at its pixels."""
        return context if context is None or not self.context_shape else self.of_small(context)

    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        parameters = self.other_conditionals(x, context).clone()
        small = self.small.conditionals(self.of_small(x), self.small_context(context))
        self.of_small(parameters).copy_(small)
        return parameters

    def fill_fast(
        self, x: Tensor, uniform: Tensor, known: int, context: Tensor | None, how: Drawing
    ) -> Tensor:
        how.refuse_watch(self)
        x = x.masked_fill(self.rank >= known, 0)
        if known < self.small.rank.numel():
            few, told = self.of_small(uniform), self.small_context(context)
            self.of_small(x).copy_(self.small.fill(self.of_small(x), few, known, told, how))
        draw = Draw(self.head, uniform, how.temperature)
        for row, column, channels, parameters in self.other_turns(x, context, known):
            draw(parameters, x, row, slice(column, column + 1), channels)
        return x

    def other_turns(
        self, x: Tensor, context: Tensor | None, known: int = 0
    ) -> Iterator[tuple[int, int, list[int], Tensor]]:
        """Turns of the other pixels, in their order.

        Args:
            x: int64 [B, C, H, W], the small image known; whoever is given a turn writes the values
                before taking the next one.
            context: as the model takes it.
            known: ranks that get no turn.

        Yields:
            (row, column, channels, the parameters of their conditionals [B, P, 1]).
        """
        later = (self.rank >= max(known, self.small.rank.numel())).cpu()
        stepper = self.other_stepper(x, context)
        for row in range(x.shape[2]):
            stepper.begin_row(x[:, :, row - 1] if row else None)
            for column in later[row].nonzero()[:, 0].tolist():
                for channels in sub_steps(self.head, x.shape[1]):
                    parameters = stepper.pixel(x[:, :, row], column, channels[0])
                    yield row, column, channels, parameters[..., None]
