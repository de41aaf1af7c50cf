r"""Colours for a grey image by a chain rule over RGB: particles whose every pixel has its grey.

The grey of Rec. 601, as cameras and Pillow make it,

    L = (19595 R + 38470 G + 7471 B + 2^15) >> 16,

merges many colours, and p(x | grey) of a density over RGB has no closed form: how likely the grey
of later pixels is depends on the colours of earlier ones. Particles go through the dimensions in
the model's order. Each is drawn from its conditional, renormalised to the levels that some colour
of that grey has, and the mass of these levels multiplies the particle's weight, which makes up for
what was left out; where the weights of an image are worth fewer than half of its particles they
are resampled. So every draw has the grey that was given, and follows p(x | grey) up to an error
that falls with the particles (`likely.density.completion.particles` has the sources).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from likely.density.completion import Completions, refuse_count
from likely.density.completion.particles import dimensions, effective, reset, systematic
from likely.devices.precision import full_precision
from likely.errors import InvalidData
from likely.estimate import Relation
from likely.heads import invert
from likely.noise import Noise

if TYPE_CHECKING:
    from likely.density.chain import Autoregressive

WEIGHTS = (19595, 38470, 7471)  # of red, green and blue, in units of 2^-16
HALF = 1 << 15


def grey_of(x: Tensor) -> Tensor:
    """The grey of Rec. 601 of images [B, 3, H, W], levels [B, 1, H, W]."""
    red, green, blue = (weight * x[:, c] for c, weight in enumerate(WEIGHTS))
    return ((red + green + blue + HALF) >> 16)[:, None]


def consistent(grey: Tensor, before: Tensor, channel: int, levels: int) -> Tensor:
    """Which levels of a channel some colour of that grey has, bool [R, levels].

    Args:
        grey: of each row, int64 [R].
        before: levels of the channels before, int64 [R, channel].
        channel: 0 red, 1 green, 2 blue.
        levels: of a channel.
    """
    known = torch.full_like(grey, HALF)
    for c in range(channel):
        known = known + WEIGHTS[c] * before[:, c]
    least = known[:, None] + WEIGHTS[channel] * torch.arange(levels, device=grey.device)
    most = least + (levels - 1) * sum(WEIGHTS[channel + 1 :])
    return (least >> 16 <= grey[:, None]) & (grey[:, None] <= most >> 16)


@torch.no_grad()
@full_precision
def colourings(
    model: Autoregressive,
    grey: Tensor,
    n: int,
    seed: int,
    context: Tensor | int | None,
    particles: int,
) -> Completions:
    """n colour images of each grey one, with an estimate of log p(grey) and what they are worth.

    Args:
        model: a chain rule over images of three channels.
        grey: of Rec. 601, levels [B, 1, H, W].
        n: draws of each.
        seed: of the noise.
        context: labels, as for `sample`.
        particles: of each image.
    """
    refuse_count(n=n, particles=particles)
    _, height, width = model.spec.grid
    if tuple(grey.shape[1:]) != (1, height, width) or grey.is_floating_point():
        raise InvalidData(
            f"expected grey levels, integers [B, 1, {height}, {width}], given {grey.dtype} "
            f"{list(grey.shape)}"
        )
    if grey.numel() and not 0 <= int(grey.min()) <= int(grey.max()) < model.spec.levels:
        raise InvalidData(
            f"expected grey levels in [0, {model.spec.levels}), given {int(grey.min())} to "
            f"{int(grey.max())}"
        )
    b, device = len(grey), model.device
    labels = model.labels(context, b)
    rows = torch.arange(b, device=device).repeat_interleave(particles)
    steps = model.stepwise(len(rows), None if labels is None else labels[rows])
    grey = grey.to(device, torch.int64)[rows, 0]
    noise = Noise(seed, "colours", device=device)
    log_weights = torch.zeros(b, particles, dtype=torch.float64, device=device)
    log_grey = torch.zeros(b, dtype=torch.float64, device=device)
    worth = torch.full_like(log_grey, float(particles))
    roots = torch.arange(particles, device=device).expand(b, -1)
    every = torch.arange(b, device=device)[:, None] * particles
    for _, row, column, channel in dimensions(model):
        before = steps.images[:, :channel, row, column]
        allowed = consistent(grey[:, row, column], before, channel, model.spec.levels)
        table = steps.log_table().double().masked_fill(~allowed, -math.inf)
        mass = table.logsumexp(1)
        steps.push(invert(table - mass[:, None], noise.uniform(len(rows))))
        log_weights = log_weights + mass.view(b, particles)
        value = effective(log_weights)
        worth = torch.minimum(worth, value)
        few = value < particles / 2
        if bool(few.any()):
            mean = log_weights.logsumexp(1) - math.log(particles)
            log_grey += torch.where(few, mean, 0.0)
            index = systematic(log_weights, noise.uniform(b), particles)
            index = torch.where(few[:, None], index, torch.arange(particles, device=device))
            roots = roots.gather(1, index)
            steps.take((every + index).flatten())
            log_weights = reset(log_weights, few)
    log_grey += log_weights.logsumexp(1) - math.log(particles)
    index = systematic(log_weights, noise.uniform(b), n)
    left = [len(torch.unique(line)) for line in roots.gather(1, index)]
    images = steps.images[(every + index).flatten()]
    return Completions(
        images.reshape(b, n, *model.spec.shape),
        log_grey,
        Relation.UPPER,
        exact=False,
        about="particles along the model's order, every pixel among the colours of its grey",
        particles=particles,
        effective=worth,
        ancestors=torch.tensor(left, device=device),
    )
