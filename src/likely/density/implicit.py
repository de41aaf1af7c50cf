"""Implicit densities: samples only."""

from __future__ import annotations

import abc
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from likely.density.codes import Decoder
from likely.density.taxonomy import GenerativeModel
from likely.errors import InvalidSetting
from likely.noise import Noise


@runtime_checkable
class PlaysAgainst(Protocol):
    """A generator that an adversary can judge."""

    def against(self, x: Tensor, noise: Noise, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Real examples, and as many generated ones, as the adversary sees them."""


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

    def against(self, x: Tensor, noise: Noise, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Real and generated images as an adversary sees them, floats in [-1, 1] [B, *shape]."""
        z = self.latents(noise, len(x))
        return self.scaled(x), self.generate(z, context)

    def draw(self, noise: Noise, n: int, context: Tensor | None) -> Tensor:
        return self.decode(self.latents(noise, n), context)

    @torch.no_grad()
    def sample_truncated(
        self,
        n: int,
        truncation: float,
        *,
        seed: int = 0,
        context: Tensor | int | None = None,
        chunk: int = 256,
    ) -> Tensor:
        """Draw n examples whose codes are moved to their mean: not from the model's law.

        G(m + t (z - m)) for the codes z of `sample` and their mean m: less varied, often cleaner
        (Brock, Donahue and Simonyan 2019, https://arxiv.org/abs/1809.11096; in this form Karras,
        Laine and Aila 2019, https://arxiv.org/abs/1812.04948). Where z is uniform on a cube, it is
        a cube of t times the side.

        Args:
            n, seed, context, chunk: as of `sample`.
            truncation: t; 1 gives `sample`, 0 the image of the mean.

        Returns:
            Integers in [0, levels), int64 [n, *shape].

        Raises:
            InvalidSetting: t is not in [0, 1], or as of `sample`.
        """
        if not 0 <= truncation <= 1:
            raise InvalidSetting(f"truncation must be in [0, 1], given {truncation}")
        centre = self.shell().centre

        def draw(noise: Noise, count: int, labels: Tensor | None) -> Tensor:
            return self.decode(torch.lerp(centre, self.latents(noise, count), truncation), labels)

        return self.in_chunks(n, seed, context, chunk, draw)

    def image(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return self.generate(z, context)

    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return self.quantised(self.generate(z, context))

    def quantised(self, images: Tensor) -> Tensor:
        """Floats in [-1, 1] to the nearest integers in [0, levels)."""
        top = self.spec.levels - 1
        return ((images.double() + 1.0) * (top / 2.0)).round().clamp(0, top).to(torch.int64)
