"""Densities by the chain rule in other orders, several pixels at a time."""

from __future__ import annotations

import abc

import torch
from torch import Tensor

from likely.density.taxonomy import (
    Answer,
    Guarantee,
    Query,
    TractableDensity,
)
from likely.devices.precision import full_precision
from likely.errors import InvalidSetting, Unanswerable
from likely.heads import Head, at_least_float, log_likelihood
from likely.noise import Noise


class OrderedDensity(TractableDensity):
    r"""log p(x) = sum over ranks r of sum_{i of rank r} log p(x_i | x_j, rank_j < r).

    Every pixel has a rank. Pixels of one rank are independent given those of lower rank, so they
    can be drawn together; where all ranks differ, this is the chain rule in that order. Channels
    are innermost: where the head does not couple them, channel c may also see the channels before
    it, of every pixel of its rank.

    A subclass implements `rank`, `conditionals` and `fill`; `likely.verify` checks that they agree.
    """

    head: Head
    # Raster order in `Autoregressive` stands for itself; here the rank of each pixel, [H, W].
    rank: Tensor

    @abc.abstractmethod
    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Parameters of every conditional at once.

        Args:
            x: values in [0, levels), [B, C, H, W]; integers, or floats in the same units where
                a derivative is wanted.
            context: int64 [B] or None.

        Returns:
            [B, head.parameters, H, W].
        """

    @abc.abstractmethod
    def fill(self, x: Tensor, uniform: Tensor, known: int, context: Tensor | None) -> Tensor:
        """Draw the pixels whose rank is at least `known`.

        Each dimension inverts its conditional's distribution function at its uniform number
        (`Head.quantile`).

        Args:
            x: int64 [B, C, H, W]; pixels of lower rank are kept, the others are ignored.
            uniform: [B, C, H, W] in [0, 1).
            known: lowest rank that is drawn.
            context: int64 [B] or None.

        Returns:
            int64 [B, C, H, W].
        """

    @property
    def groups(self) -> int:
        """Parts of the parameters that belong to channels of their own."""
        return 1 if self.head.couples_channels else self.spec.grid[0]

    @full_precision
    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        x = self.integers(x)
        parameters = self.conditionals(x, self.labels(context, len(x)))
        return log_likelihood(self.head, parameters, x)

    def answers(self) -> dict[Query, Answer]:
        no_latent = "it has no latent variables: every hidden unit is a function of x"
        exact = Guarantee.EXACT
        return {
            Query.SAMPLE: Answer(exact, "ancestral sampling, one rank of pixels after another"),
            Query.LOG_PROB: Answer(exact, "the chain rule: a sum of log-conditionals"),
            Query.CONDITIONAL: Answer(exact, "p(x_i | x of lower rank) is what it computes"),
            Query.COMPLETE: Answer(exact, "given the pixels of the lowest ranks (a coarse image)"),
            Query.POSTERIOR: Answer(Guarantee.NONE, no_latent),
            Query.FEATURES: Answer(Guarantee.NONE, "no hidden unit is a code of the whole x"),
            Query.RECONSTRUCT: Answer(Guarantee.NONE, no_latent),
            Query.INTERPOLATE: Answer(Guarantee.NONE, no_latent),
        }

    def draw(self, noise: Noise, n: int, context: Tensor | None) -> Tensor:
        uniform = noise.uniform(n, *self.spec.shape)
        blank = torch.zeros(n, *self.spec.shape, dtype=torch.int64, device=self.device)
        return self.fill(blank, uniform, 0, context)

    @torch.no_grad()
    @full_precision
    def conditional(
        self,
        x: Tensor,
        row: int,
        column: int,
        channel: int = 0,
        context: Tensor | int | None = None,
    ) -> Tensor:
        """p(x_i = level | x of lower rank) at one dimension, for every level.

        Args:
            x: integers [B, *shape]; only pixels of lower rank and earlier channels are read.
            row: of the pixel.
            column: of the pixel.
            channel: of the pixel.
            context: labels, as for `sample`.

        Returns:
            Probabilities, [B, levels].

        Raises:
            InvalidSetting: no such dimension.
        """
        x = self.integers(x)
        place, shape = (channel, row, column), self.spec.shape
        if any(not 0 <= at < side for at, side in zip(place, shape, strict=True)):
            raise InvalidSetting(f"no dimension {place} in a shape of {shape}")
        parameters = self.conditionals(x, self.labels(context, len(x)))
        pixel = (slice(None), slice(None), slice(row, row + 1), slice(column, column + 1))
        table = self.head.log_table(at_least_float(parameters[pixel]), x[pixel], channel)
        return table[..., 0, 0].exp()

    @torch.no_grad()
    @full_precision
    def complete(
        self, x: Tensor, observed: Tensor, *, seed: int = 0, context: Tensor | int | None = None
    ) -> Tensor:
        """Draw the unobserved pixels from p(rest | observed), exactly.

        Args:
            x: integers [B, *shape]; unobserved values are ignored.
            observed: bool [H, W]; all pixels up to some rank, as `model.rank < 4`.
            seed: of the noise.
            context: labels, as for `sample`.

        Raises:
            Unanswerable: the observed pixels are not those of the lowest ranks.
        """
        x = self.integers(x)
        rank = self.rank.to(x.device)
        observed = self.mask(observed)
        known = int(rank[~observed].min()) if not bool(observed.all()) else int(rank.max()) + 1
        if not torch.equal(observed, rank < known):
            raise Unanswerable(
                f"{type(self).__name__}: completion is exact only when the observed pixels are "
                "all those up to some rank in the model's order (`rank`); p(rest | other pixels) "
                "has no closed form in this factorisation"
            )
        uniform = Noise(seed, "complete", device=self.device).uniform(*x.shape)
        return self.fill(x, uniform, known, self.labels(context, len(x)))


@torch.no_grad()
def fill_naively(
    model: OrderedDensity, x: Tensor, uniform: Tensor, known: int, context: Tensor | None = None
) -> Tensor:
    """`fill` by a pass of the whole network for every rank and channel; the reference."""
    rank = model.rank.to(x.device)
    x = x.masked_fill(rank >= known, 0)
    for now in torch.unique(rank[rank >= known]).tolist():
        for channel in range(x.shape[1]):
            parameters = at_least_float(model.conditionals(x, context))
            drawn = model.head.quantile(parameters, x, channel, uniform[:, channel])
            x[:, channel] = torch.where(rank == now, drawn, x[:, channel])
    return x
