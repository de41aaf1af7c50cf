"""Implicit densities: samples only."""

from __future__ import annotations

import abc

import torch
from torch import Tensor

from likely.density.taxonomy import Answer, GenerativeModel, Guarantee, Query, path_weights
from likely.devices.precision import full_precision
from likely.noise import Noise


class ImplicitDensity(GenerativeModel):
    """A model that only produces samples: x = G(z), z from a fixed distribution.

    A subclass implements `latents` and `generate`, and nothing else; its density, if it has one,
    is unknown. The network that plays against it in a fit belongs to the objective.
    """

    @abc.abstractmethod
    def latents(self, noise: Noise, n: int) -> Tensor:
        """Codes z, [n, latent]."""

    @abc.abstractmethod
    def generate(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """G(z): floats in [-1, 1], [n, *shape]."""

    @property
    def kind(self) -> str:
        return "implicit"

    def answers(self) -> dict[Query, Answer]:
        no_density = "it defines no density: it only maps noise to samples"
        no_encoder = "it has no encoder: the code of a given image is not known"
        none = Guarantee.NONE
        return {
            Query.SAMPLE: Answer(Guarantee.EXACT, "one pass of the generator"),
            Query.LOG_PROB: Answer(none, no_density),
            Query.POSTERIOR: Answer(none, no_encoder),
            Query.FEATURES: Answer(
                none, no_encoder + "; the adversary of its run has features, `run.adversary`"
            ),
            Query.RECONSTRUCT: Answer(none, no_encoder),
            Query.INTERPOLATE: Answer(
                Guarantee.APPROXIMATE, "decode points between two drawn codes"
            ),
            Query.COMPLETE: Answer(none, no_density),
            Query.CONDITIONAL: Answer(none, no_density),
        }

    def draw(self, noise: Noise, n: int, context: Tensor | None) -> Tensor:
        images = self.generate(self.latents(noise, n), context)
        return self.quantised(images)

    @torch.no_grad()
    @full_precision
    def interpolate(
        self, n: int, steps: int = 8, *, seed: int = 0, context: Tensor | int | None = None
    ) -> Tensor:
        """Decode points on the line between n pairs of drawn codes: int64 [n, steps, *shape]."""
        labels = self.labels(context, n)
        noise = Noise(seed, "interpolate", device=self.device)
        a, b = self.latents(noise, n), self.latents(noise, n)
        was_training = self.training
        self.eval()
        try:
            path = [
                self.quantised(self.generate(a.lerp(b, w), labels)) for w in path_weights(steps)
            ]
        finally:
            self.train(was_training)
        return torch.stack(path, 1)

    def quantised(self, images: Tensor) -> Tensor:
        """Floats in [-1, 1] to the nearest integers in [0, levels)."""
        top = self.spec.levels - 1
        return ((images.double() + 1.0) * (top / 2.0)).round().clamp(0, top).to(torch.int64)
