"""Densities with discrete codes: a bound on log p(x) from one code, and a prior over codes."""

from __future__ import annotations

import abc
from typing import NamedTuple

import torch
from torch import Tensor

from likely.density.chain import Autoregressive
from likely.density.taxonomy import ApproximateDensity
from likely.devices.precision import full_precision
from likely.heads import Head, at_least_float, log_likelihood
from likely.noise import Noise


class QuantisedTerms(NamedTuple):
    """Parts of a loss by which codes are learned, [B] each.

    Attributes:
        distortion: -log p(x | c), nats; its gradient reaches the encoder.
        rate: -log p(c), nats; its gradient reaches the prior only.
        codebook: squared distances that move the codes.
        commitment: squared distances that move the encoder.
        pull: -log p(c) on average over the codes near each vector, nats; moves the encoder only.
    """

    distortion: Tensor
    rate: Tensor
    codebook: Tensor
    commitment: Tensor
    pull: Tensor


class DiscreteLatent(ApproximateDensity):
    r"""p(x) = sum_c p(c) p(x | c), with codes c that are maps of integers.

        log p(x) >= log p(c(x)) + log p(x | c(x)),

    one term of the sum, for any function c(x). A subclass implements `encode`, which is that
    function, `decoder_output`, and `quantised_terms`, by which it is learned.

    Attributes:
        head: the distribution of a pixel given the codes.
        prior: p(c), fitted; its data are the codes, [1, h, w] in [0, K).
    """

    head: Head
    prior: Autoregressive

    @abc.abstractmethod
    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """c(x), int64 [B, 1, h, w]; x integers [B, *shape]."""

    @abc.abstractmethod
    def decoder_output(self, codes: Tensor, context: Tensor | None = None) -> Tensor:
        """Parameters of p(x | c), [B, head.parameters, H, W]; codes int64 [B, 1, h, w]."""

    @abc.abstractmethod
    def quantised_terms(
        self, x: Tensor, noise: Noise, *, moves: bool, pull: bool
    ) -> QuantisedTerms:
        """What a fit minimises, in training; codes that no gradient moves are moved here.

        Args:
            x: integers [B, *shape].
            noise: its rows are those of the batch.
            moves: whether encoder and codes move; otherwise prior and decoder alone.
            pull: whether that term is wanted.
        """

    @abc.abstractmethod
    def features(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The vectors that the codes of examples stand for, [B, features]."""

    @full_precision
    def bound_terms(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(log p(x | c(x)), log p(c(x))), nats [B]; their sum is the bound."""
        x = self.integers(x)
        codes = self.encode(x, context)
        given_code = log_likelihood(self.head, self.decoder_output(codes, context), x)
        return given_code, self.prior.log_prob(codes)

    @full_precision
    def elbo(self, x: Tensor, noise: Noise, context: Tensor | None = None) -> Tensor:
        given_code, of_code = self.bound_terms(x, context)
        return given_code + of_code

    def draw(self, noise: Noise, n: int, context: Tensor | None) -> Tensor:
        uniform = noise.uniform(n, *self.spec.grid)
        return self.decode(self.prior.draw(noise, n, None), context, uniform)

    @torch.no_grad()
    @full_precision
    def decode(
        self, codes: Tensor, context: Tensor | None = None, uniform: Tensor | None = None
    ) -> Tensor:
        """x from p(x | c): drawn at the given uniform numbers, or the mean, rounded.

        Args:
            codes: int64 [B, 1, h, w].
            context: labels [B] or None.
            uniform: [B, C, H, W] in [0, 1), or None for the mean.

        Returns:
            int64 [B, *shape].
        """
        parameters = at_least_float(self.decoder_output(codes, context))
        x = torch.zeros(len(codes), *self.spec.grid, dtype=torch.int64, device=self.device)
        for channel in range(self.spec.grid[0]):
            if uniform is None:
                x[:, channel] = self.head.mean(parameters, x, channel).round().to(torch.int64)
            else:
                x[:, channel] = self.head.quantile(parameters, x, channel, uniform[:, channel])
        return self.as_data(x)

    @torch.no_grad()
    def reconstruct(self, x: Tensor, context: Tensor | int | None = None) -> Tensor:
        """Decode the code of x: int64 [B, *shape]."""
        labels = self.labels(context, len(x))
        return self.decode(self.encode(x, labels), labels)
