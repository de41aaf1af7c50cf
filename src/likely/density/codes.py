"""Models that make x from a code z: codes can be drawn, and moved between."""

from __future__ import annotations

import abc

import torch
from torch import Tensor

from likely.density.taxonomy import GenerativeModel
from likely.devices.precision import full_precision
from likely.errors import InvalidSetting
from likely.noise import Noise

# Pairs of codes: how many to draw, or the examples [B, *shape] at either end.
Ends = int | tuple[Tensor, Tensor]


class Decoder(GenerativeModel):
    """A model whose examples are decoded from codes of a fixed distribution."""

    @abc.abstractmethod
    def latents(self, noise: Noise, n: int) -> Tensor:
        """Codes z drawn from their distribution, [n, latent]."""

    @abc.abstractmethod
    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """The example that a code stands for: int64 [B, *shape]."""

    @abc.abstractmethod
    def codes(self, x: Tensor, context: Tensor | int | None = None) -> Tensor:
        """The codes of examples, [B, latent].

        Raises:
            Unanswerable: a model without an encoder.
        """

    @torch.no_grad()
    @full_precision
    def interpolate(
        self, ends: Ends, steps: int = 8, *, seed: int = 0, context: Tensor | int | None = None
    ) -> Tensor:
        """Decode points on the line between pairs of codes.

        Args:
            ends: how many pairs to draw, or the two ends, integers [B, *shape] each.
            steps: points, both ends included.
            seed: of the codes that are drawn.
            context: labels, as for `sample`.

        Returns:
            int64 [B, steps, *shape].

        Raises:
            Unanswerable: the codes of given examples are asked of a model without an encoder.
            InvalidSetting: fewer than two steps, or no pairs.
        """
        if steps < 2:
            raise InvalidSetting(
                f"an interpolation needs at least its two ends, given {steps} steps"
            )
        was_training = self.training
        self.eval()
        try:
            if isinstance(ends, int):
                if ends < 1:
                    raise InvalidSetting(f"an interpolation needs at least a pair, given {ends}")
                noise = Noise(seed, "interpolate", device=self.device)
                first, last = self.latents(noise, ends), self.latents(noise, ends)
            else:
                first, last = (self.codes(x, context) for x in ends)
            labels = self.labels(context, len(first))
            shares = [index / (steps - 1) for index in range(steps)]
            path = [self.decode(first.lerp(last, share), labels) for share in shares]
        finally:
            self.train(was_training)
        return torch.stack(path, 1)
