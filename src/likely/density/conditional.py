"""The density of one dimension, when what comes before it is known."""

from __future__ import annotations

import abc

import torch
from torch import Tensor


class HasConditional(abc.ABC):
    """A density that tells p(x_i | what comes before it in the model's order)."""

    @abc.abstractmethod
    def log_conditional(
        self,
        x: Tensor,
        row: int,
        column: int,
        channel: int = 0,
        context: Tensor | int | None = None,
    ) -> Tensor:
        """log p(x_i = level | what comes before it), nats [B, levels].

        Finite also where the probability is too small for a float. For the arguments, see
        `likely.ask.conditional`.
        """

    @torch.no_grad()
    def conditional(
        self,
        x: Tensor,
        row: int,
        column: int,
        channel: int = 0,
        context: Tensor | int | None = None,
    ) -> Tensor:
        """p(x_i = level | what comes before it), [B, levels]; see `likely.ask.conditional`."""
        return self.log_conditional(x, row, column, channel, context).exp()
