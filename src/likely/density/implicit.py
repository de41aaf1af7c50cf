"""Implicit densities: samples only."""

from __future__ import annotations

import abc

import torch
from torch import Tensor

from likely.density.codes import Decoder
from likely.density.taxonomy import GenerativeModel
from likely.noise import Noise


class ImplicitDensity(GenerativeModel, Decoder):
    """A model that only produces samples: x = G(z), z from a fixed distribution.

    A subclass implements `latents` and `generate`, and nothing else; its density, if it has one,
    is unknown. The network that plays against it in a fit belongs to the objective.
    """

    @abc.abstractmethod
    def latents(self, noise: Noise, n: int) -> Tensor:
        """Codes z drawn from their distribution, [n, latent]."""

    @abc.abstractmethod
    def generate(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """G(z): floats in [-1, 1], [n, *shape]."""

    @property
    def kind(self) -> str:
        return "implicit"

    def draw(self, noise: Noise, n: int, context: Tensor | None) -> Tensor:
        return self.decode(self.latents(noise, n), context)

    def image(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return self.generate(z, context)

    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return self.quantised(self.generate(z, context))

    def quantised(self, images: Tensor) -> Tensor:
        """Floats in [-1, 1] to the nearest integers in [0, levels)."""
        top = self.spec.levels - 1
        return ((images.double() + 1.0) * (top / 2.0)).round().clamp(0, top).to(torch.int64)
