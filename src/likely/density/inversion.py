r"""The code of a given image, found by descent: argmin_z |G(z) - x|^2.

Adam on z from several starts: the encoder's code where there is one, and of many drawn codes those
whose images are nearest to x. A uniform prior is a cube, and a coordinate that leaves it is drawn
again (Lipton and Tripathi 2017, "Precise recovery of latent vectors",
https://arxiv.org/abs/1702.04782: stochastic clipping).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Protocol

import torch
from torch import Tensor

from likely.noise import Noise

RATE = 0.1  # of Adam, in standard deviations of the prior
DRAWN = 1000  # codes that starts are chosen among
ROWS = 64  # codes that descend together; bounds the memory


@dataclasses.dataclass(frozen=True, repr=False)
class Inversion:
    """The codes of images.

    Attributes:
        codes: [B, latent].
        images: what they decode to, int64 [B, *shape].
        error: squared distance from the image that was given, values in [0, 1], summed; [B].
    """

    codes: Tensor
    images: Tensor
    error: Tensor

    def __repr__(self) -> str:
        n, latent = self.codes.shape
        return (
            f"Inversion({n} codes of {latent} numbers, mean error {float(self.error.mean()):.4g})"
        )


class Image(Protocol):
    """An image as a differentiable function of its code."""

    def __call__(self, z: Tensor, context: Tensor | None) -> Tensor:
        """Floats in [-1, 1], [B, *shape]."""


def nearest_draws(
    image: Image, drawn: Tensor, target: Tensor, labels: Tensor | None, count: int
) -> Tensor:
    """Of drawn codes [N, Z] the `count` whose images are nearest to each target, [B, count, Z]."""
    starts = drawn.new_zeros(len(target), count, drawn.shape[1])
    kinds = torch.zeros(1, 0) if labels is None else torch.unique(labels, dim=0)
    for kind in kinds:
        context = None if labels is None else kind.expand(ROWS, *kind.shape)
        of_kind = torch.ones(len(target), dtype=torch.bool, device=target.device)
        if labels is not None:
            of_kind = (labels == kind).reshape(len(labels), -1).all(1)
        images = torch.cat(
            [
                image(part, None if context is None else context[: len(part)]).flatten(1)
                for part in torch.split(drawn, ROWS)
            ]
        )
        distance = torch.cdist(target[of_kind].flatten(1).to(images.dtype), images)
        starts[of_kind] = drawn[distance.topk(count, 1, largest=False).indices]
    return starts


def descend(
    image: Image,
    starts: Tensor,
    target: Tensor,
    labels: Tensor | None,
    *,
    steps: int,
    rate: float,
    cube: Noise | None,
) -> Tensor:
    """The best code that Adam meets for each target, [B, Z].

    Args:
        image: of a code.
        starts: codes to start at, [B, R, Z].
        target: floats in [-1, 1], [B, *shape].
        labels: of the targets, or None.
        steps: updates; the rate falls to 0 along a half cosine.
        rate: of Adam.
        cube: draws again the coordinates that leave [-1, 1]; None where the prior is no cube.
    """
    best = []
    count = starts.shape[1]
    for first in range(0, len(target), max(1, ROWS // count)):
        part = slice(first, first + max(1, ROWS // count))
        goal = target[part].repeat_interleave(count, 0)
        context = None if labels is None else labels[part].repeat_interleave(count, 0)
        z = starts[part].flatten(0, 1).clone()
        kept, least = z.clone(), torch.full((len(z),), math.inf, device=z.device)
        first_moment, second_moment = torch.zeros_like(z), torch.zeros_like(z)
        for step in range(steps + 1):
            with torch.enable_grad():
                z.requires_grad_()
                error = (image(z, context) - goal).square().flatten(1).sum(1)
                (slope,) = torch.autograd.grad(error.sum(), z)
            z, error = z.detach(), error.detach().to(least.dtype)
            better = error < least
            kept[better], least[better] = z[better], error[better]
            first_moment.lerp_(slope, 0.1)
            second_moment.lerp_(slope.square(), 0.01)
            mean = first_moment / (1 - 0.9 ** (step + 1))
            spread = (second_moment / (1 - 0.99 ** (step + 1))).sqrt()
            pace = rate * 0.5 * (1.0 + math.cos(math.pi * step / max(1, steps)))
            z = z - pace * mean / (spread + 1e-12)
            if cube is not None:
                again = (2.0 * cube.uniform(*z.shape) - 1.0).to(z)
                z = torch.where(z.abs() > 1.0, again, z)
        chosen = least.reshape(-1, count).argmin(1)
        best.append(kept.reshape(-1, count, kept.shape[1])[torch.arange(len(chosen)), chosen])
    return torch.cat(best)
