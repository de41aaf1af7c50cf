"""Differentiable augmentation of real and generated images alike (Zhao et al. 2020).

https://arxiv.org/abs/2006.10738: D never sees an image as it is, so it does not memorise few
training images, and G learns through the change to generate images that were not changed. Every
image gets a change of its own, drawn from a `Noise`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from likely.noise import Noise
from likely.training.registry import Augmentation

# Of a side: the longest translation, and the side of the square that is cut out.
SHIFT, CUT = 1 / 8, 1 / 2


def augmented(images: Tensor, changes: Sequence[Augmentation], noise: Noise) -> Tensor:
    """Images in [-1, 1], [B, C, H, W], each changed in all these ways."""
    for change in changes:
        drawn = noise.uniform(len(images), 2).to(images)  # [B, 2] in [0, 1)
        first = drawn[:, :1, None, None]
        if change == "brightness":
            images = images + (first - 0.5)
        elif change == "saturation":
            images = _from_mean(images, (1,), 2 * first)
        elif change == "contrast":
            images = _from_mean(images, (1, 2, 3), 0.5 + first)
        elif change == "translation":
            images = _translated(images, drawn)
        else:
            images = _cut_out(images, drawn)
    return images


def _from_mean(images: Tensor, over: tuple[int, ...], factor: Tensor) -> Tensor:
    """What differs from the mean over these sides, scaled."""
    mean = images.mean(over, keepdim=True)
    return mean + factor * (images - mean)


def _translated(images: Tensor, drawn: Tensor) -> Tensor:
    """Shifted along both sides; what comes in is 0, the middle of the range."""
    for place, side in enumerate(images.shape[2:]):
        longest = int(side * SHIFT + 0.5)
        shift = (drawn[:, place] * (2 * longest + 1)).long() - longest
        source = torch.arange(side, device=images.device) - shift[:, None]  # [B, side]
        inside = (source >= 0) & (source < side)
        shape = (-1, 1, *((side, 1) if place == 0 else (1, side)))
        index = source.clamp(0, side - 1).reshape(shape).expand_as(images)
        images = images.gather(2 + place, index) * inside.reshape(shape)
    return images


def _cut_out(images: Tensor, drawn: Tensor) -> Tensor:
    """A rectangle of half of each side, whose centre is anywhere, is 0."""
    kept: Tensor | None = None
    for place, side in enumerate(images.shape[2:]):
        centre = (drawn[:, place] * side).floor()
        away = torch.arange(side, device=images.device) - centre[:, None]
        half = side * CUT / 2
        outside = (away < -half) | (away >= half)  # [B, side]
        outside = outside[:, None, :, None] if place == 0 else outside[:, None, None, :]
        kept = outside if kept is None else kept | outside
    return images if kept is None else images * kept
