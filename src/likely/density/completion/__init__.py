"""The rest of an example given any part of it: what draws of it are worth, and who has them."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from likely.density.taxonomy import GenerativeModel
from likely.devices.precision import full_precision
from likely.errors import InvalidSetting, nearest
from likely.estimate import Relation

# Particles of an image, and sweeps over its unobserved pixels.
PARTICLES, SWEEPS = 256, 10


@dataclasses.dataclass(frozen=True, repr=False)
class Completions:
    """Draws of the rest of images, and what they are worth.

    Attributes:
        images: int64 [B, n, *shape]; the observed pixels are those that were given.
        log_observed: log p(observed), nats, float64 [B]; an estimate where `relation` says so.
        relation: of -log p(observed) to the truth: EXACT, UPPER in expectation, or APPROXIMATE
            where it is a ratio of estimates.
        exact: whether the draws are from p(rest | observed) itself.
        about: how they were drawn, and of which density, in words.
        particles: of an image; 0 where there are none.
        effective: particles that the weights of an image were worth where that was least, [B].
        ancestors: particles at the first unobserved pixel whose descendants are left, [B].
        acceptance: share of the redrawn blocks, or of the moves, that was accepted.
        autocorrelation: of log p(x) from sweep to sweep.
        rank: of the pixels in the order that an order-agnostic network was used in, int64 [H, W].
    """

    images: Tensor
    log_observed: Tensor
    relation: Relation
    exact: bool
    about: str
    particles: int = 0
    effective: Tensor | None = None
    ancestors: Tensor | None = None
    acceptance: float | None = None
    autocorrelation: float | None = None
    rank: Tensor | None = None

    @property
    def collapsed(self) -> bool:
        """Whether the weights of some image were at some pixel on about one particle alone."""
        return self.effective is not None and bool((self.effective < 2.0).any())

    @property
    def notes(self) -> tuple[str, ...]:
        """What the draws are worth, in sentences."""
        lines = [self.about]
        if self.effective is not None:
            least = float(self.effective.min())
            lines.append(
                f"the weights of {self.particles:,} particles were worth at least {least:.1f}"
            )
            if self.ancestors is not None:
                left = int(self.ancestors.min())
                lines[-1] += f"; what is left descends from {left:,} of them"
        if self.collapsed:
            lines.append(
                "the weights collapsed: the draws are nearly one draw where that was, and the "
                "bound on log p(observed) is loose; take more particles"
            )
        if self.acceptance is not None:
            lines.append(f"{self.acceptance:.0%} of the proposals accepted")
        if self.autocorrelation is not None:
            lines[-1] += (
                f"; autocorrelation of log p from sweep to sweep {self.autocorrelation:.2f}"
            )
        return tuple(lines)

    def __repr__(self) -> str:
        b, n = self.images.shape[:2]
        return f"Completions({n} of {b} images: {'; '.join(self.notes)})"


class Way(NamedTuple):
    """How the rest of every image is drawn: the arguments of `completions`, checked.

    Attributes:
        n: draws of each image.
        seed: of the noise.
        context: labels of the images, as the model takes them, or None.
        method: "auto", or one of the model's `completes_by`.
        particles: of each image, where the answer is approximate.
        sweeps: that refine the draws, where the method has some.
    """

    n: int = 1
    seed: int = 0
    context: Tensor | None = None
    method: str = "auto"
    particles: int = PARTICLES
    sweeps: int = SWEEPS

    @property
    def repeated(self) -> Tensor | None:
        """The labels of all draws, those of an image together."""
        return None if self.context is None else self.context.repeat_interleave(self.n, 0)


class HasCompletions(GenerativeModel):
    """A model that draws the rest of an image; a leaf gives `completed`."""

    # Methods of `completions` beside "auto".
    completes_by: ClassVar[tuple[str, ...]] = ("exact",)

    @torch.no_grad()
    @full_precision
    def completions(
        self,
        x: Tensor,
        observed: Tensor,
        n: int = 1,
        *,
        seed: int = 0,
        context: Tensor | int | None = None,
        method: str = "auto",
        particles: int = PARTICLES,
        sweeps: int = SWEEPS,
    ) -> Completions:
        """n draws of the rest of every image, with log p(observed) and what they are worth.

        Args:
            x: integers [B, *shape]; unobserved values are ignored.
            observed: bool [H, W] ([D] for vectors).
            n: draws of each image.
            seed: of the noise.
            context: labels, as for `sample`.
            method: one of `completes_by`, or "auto", exact where the model can be. "exact" is of a
                chain rule whose order begins with the observed pixels, or of a model that draws in
                any order; "smc" is sequential Monte Carlo, "gibbs" begins with its draws and
                redraws blocks; "importance" weighs codes, "hmc" continues from there with
                Hamiltonian trajectories in z.
            particles: of each image, for all but "exact".
            sweeps: over the unobserved pixels for gibbs, trajectories that count for hmc.

        Raises:
            Unanswerable: method "exact" of pixels that do not come first.
            InvalidSetting: a method that the model does not have, or numbers below 1.
        """
        choose_method(method, ("auto", *self.completes_by), type(self).__name__)
        refuse_count(n=n, particles=particles, sweeps=sweeps)
        x = self.integers(x)
        way = Way(n, seed, self.labels(context, len(x)), method, particles, sweeps)
        return self.completed(x, self.mask(observed), way)

    @abc.abstractmethod
    def completed(self, x: Tensor, observed: Tensor, way: Way) -> Completions:
        """`completions` of integers [B, C, H, W] and observed pixels, bool [H, W]."""


class CompletesByDraws(HasCompletions):
    """A model whose completion is the first draw of its `completions`."""

    def complete(
        self,
        x: Tensor,
        observed: Tensor,
        *,
        seed: int = 0,
        context: Tensor | int | None = None,
        method: str = "auto",
        particles: int = PARTICLES,
    ) -> Tensor:
        """Draw the unobserved pixels from p(rest | observed), int64 [B, *shape].

        Args:
            x, observed, seed, context, method, particles: as for `completions`.
        """
        return self.completions(
            x, observed, seed=seed, context=context, method=method, particles=particles
        ).images[:, 0]


def choose_method(method: str, offered: Sequence[str], name: str) -> None:
    """Refuse a way of completing that a model does not have."""
    if method not in offered:
        raise InvalidSetting(
            f"{name} does not complete by method={method}: {nearest(method, tuple(offered))}"
        )


def refuse_count(**counts: int) -> None:
    """Refuse numbers below 1."""
    for name, value in counts.items():
        if value < 1:
            raise InvalidSetting(f"{name} must be at least 1, given {value}")
