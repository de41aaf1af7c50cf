"""The root classes: what is known about p_model, and what it can be asked."""

from __future__ import annotations

import abc
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from likely.density.fittable import Fittable, evaluating
from likely.devices.precision import full_precision
from likely.errors import InvalidSetting, Unanswerable
from likely.noise import Noise

# Examples that are drawn together unless one asks for others.
CHUNK = 256


class GenerativeModel(Fittable):
    """p_model(x | context), learned from examples of p_data; see `Fittable` for its attributes."""

    @abc.abstractmethod
    def draw(self, noise: Noise, n: int, context: Tensor | None) -> Tensor:
        """Draw n examples from the given noise: int64 [n, *shape]."""

    @torch.no_grad()
    def sample(
        self, n: int, *, seed: int = 0, context: Tensor | int | None = None, chunk: int = CHUNK
    ) -> Tensor:
        """Draw n examples: a function of (weights, n, seed, context).

        Args:
            n: number of examples.
            seed: of the noise.
            context: class label for all, or int64 [n]; floats [n, *context_shape], or one
                for all; None for an unconditional model.
            chunk: examples drawn together; bounds the memory.

        Returns:
            Integers in [0, levels), int64 [n, *shape].

        Raises:
            InvalidSetting: n < 1, or a context that the model does not have.
            Diverged: weights are NaN.
        """
        return self.in_chunks(n, seed, context, chunk, self.draw)

    @full_precision
    def in_chunks(
        self,
        n: int,
        seed: int,
        context: Tensor | int | None,
        chunk: int,
        draw: Callable[[Noise, int, Tensor | None], Tensor],
        progress: Callable[[int], None] | None = None,
        dtype: torch.dtype = torch.int64,
    ) -> Tensor:
        """n examples by `draw(noise, how many, labels)`, a chunk at a time; see `sample`."""
        for name, value in (("n", n), ("seed", seed), ("chunk", chunk)):
            if not isinstance(value, int | np.integer) or (name != "seed" and value < 1):
                least = "" if name == "seed" else " of at least 1"
                raise InvalidSetting(f"sample: {name} must be a number{least}, given {value!r}")
        self.refuse_nan_weights()
        labels = self.labels(context, n)
        with evaluating(self):
            # Beside the images themselves, the memory is that of a chunk.
            images = torch.empty(n, *self.spec.grid, dtype=dtype, device=self.device)
            for start in range(0, n, chunk):
                stop = min(n, start + chunk)
                # A stream a chunk, all of the same length: the first images do not depend on n.
                noise = Noise(seed, "sample", start, device=self.device, rows=(0, chunk))
                part = None if labels is None else labels[start:stop]
                drawn = draw(noise, stop - start, part)
                images[start:stop] = drawn.reshape(stop - start, *self.spec.grid)
                if progress is not None:
                    progress(stop)
            return self.as_data(images)


def generative(model: Fittable) -> GenerativeModel:
    """The model itself.

    Raises:
        Unanswerable: it is no generative model; says what to do.
    """
    if isinstance(model, GenerativeModel):
        return model
    raise Unanswerable(f"{type(model).__name__}: {no_density(model)}")


def no_density(model: Fittable) -> str:
    """Why a model has no likelihood, as a clause."""
    if isinstance(model, GenerativeModel):
        return "it defines no density: it only maps noise to samples"
    return (
        "it is not a generative model, so it draws no samples and has no likelihood: "
        f"{model.instead}"
    )


class TractableDensity(GenerativeModel):
    """A model whose log p(x) is computed exactly."""

    @property
    def kind(self) -> str:
        return "explicit, tractable"

    @abc.abstractmethod
    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """log p(x | context) in nats, [B]; x integers [B, *shape]."""


class ApproximateDensity(GenerativeModel):
    """A model with a computable lower bound on log p(x)."""

    @property
    def kind(self) -> str:
        return "explicit, approximate"

    @abc.abstractmethod
    def elbo(self, x: Tensor, noise: Noise, context: Tensor | None = None) -> Tensor:
        """A one-sample estimate of the evidence lower bound, nats [B].

        Args:
            x: integers [B, *shape].
            noise: of the codes, as `likely.noise.Noise(0)`: the same noise, the same estimate.
            context: labels [B] or None.
        """
