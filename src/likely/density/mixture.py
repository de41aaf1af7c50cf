"""Orders of the dimensions: one network for all of them, and mixtures over some.

Source: Uria, Murray and Larochelle 2014 (order-agnostic training, ensembles of orders),
https://arxiv.org/abs/1310.1757.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from likely.density.autoregressive import Autoregressive
from likely.density.taxonomy import (
    Answer,
    Guarantee,
    Query,
    TractableDensity,
)
from likely.devices.precision import full_precision
from likely.heads import Head
from likely.noise import Noise


class OrderAgnostic(abc.ABC):
    """A network that predicts every dimension from any known ones."""

    head: Head

    @abc.abstractmethod
    def given(self, x: Tensor, known: Tensor, context: Tensor | None = None) -> Tensor:
        """Parameters of p(x_i | known dimensions) for all i.

        Args:
            x: levels, [B, C, H, W]; only known ones are read.
            known: bool [B, C, H, W]; [B, 1, H, W] where the head couples the channels.
            context: int64 [B] or None.

        Returns:
            [B, head.parameters, H, W].
        """


class Mixture(TractableDensity):
    """log p(x) = log (1/K) sum_k p_k(x), an equal mixture of autoregressive densities.

    A subclass gives the `members`, for instance one network in several orders. The mixture is a
    density, so its likelihood is exact; it has no tractable conditionals in a single order.
    """

    @abc.abstractmethod
    def members(self) -> Sequence[Autoregressive]:
        """The K densities."""

    @full_precision
    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        members = self.members()
        each = torch.stack([member.log_prob(x, context) for member in members])  # [K, B]
        return each.logsumexp(0) - math.log(len(members))

    def answers(self) -> dict[Query, Answer]:
        none, exact = Guarantee.NONE, Guarantee.EXACT
        no_order = "its members draw in different orders: no pixels come first in all of them"
        no_latent = "it has no latent variables beside the choice of a member"
        return {
            Query.SAMPLE: Answer(exact, "a member at random, then ancestral sampling"),
            Query.LOG_PROB: Answer(exact, "the log of the mean of the members' densities"),
            Query.CONDITIONAL: Answer(none, no_order),
            Query.COMPLETE: Answer(none, no_order),
            Query.POSTERIOR: Answer(none, no_latent),
            Query.FEATURES: Answer(none, "no hidden unit is a code of the whole x"),
            Query.RECONSTRUCT: Answer(none, no_latent),
            Query.INTERPOLATE: Answer(none, no_latent),
        }

    def draw(self, noise: Noise, n: int, context: Tensor | None) -> Tensor:
        members = self.members()
        chosen = (noise.uniform(n) * len(members)).long()  # [n]
        uniform = noise.uniform(n, *self.spec.grid)
        out = torch.zeros(n, *self.spec.grid, dtype=torch.int64, device=self.device)
        for index, member in enumerate(members):
            rows = (chosen == index).nonzero()[:, 0]
            if len(rows):
                labels = None if context is None else context[rows]
                out[rows] = member.draw_from(uniform[rows], labels)
        return out
