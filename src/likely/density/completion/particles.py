r"""The rest of an image given any of its pixels, by particles along the model's order.

For a chain rule whose observed pixels do not come first, p(rest | observed) has no closed form.
Sequential Monte Carlo goes through the dimensions in the model's order with N particles: a
dimension that is not observed is drawn from its conditional, one that is multiplies the weight,

    w <- w p(x_i | what this particle has before i),

and where the weights of an image are worth fewer than N / 2 particles, (sum w)^2 / sum w^2, the
particles are resampled (systematically) and their weights are equal again. The product of the mean
weights between resamplings is an unbiased estimate of p(observed), so its log is a lower bound in
expectation. A draw follows p(rest | observed) up to an error that falls as 1 / N.

`blocks` removes that error.

Sources: Doucet and Johansen 2009 (particle filters; the estimate of the normalising constant),
https://www.stats.ox.ac.uk/~doucet/doucet_johansen_tutorialPF2011.pdf; Douc and Cappe 2005
(systematic resampling), https://arxiv.org/abs/cs/0507025.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from likely.density.completion import Completions, Way
from likely.density.completion.blocks import BLOCK, autocorrelation, refined
from likely.estimate import Relation
from likely.heads import invert
from likely.noise import Noise

if TYPE_CHECKING:
    from likely.density.chain import Autoregressive

ROWS = 2048  # particles and draws that go through a network together


class Stepwise(Protocol):
    """Images that come dimension by dimension, in the model's order."""

    @property
    def place(self) -> tuple[int, int, int] | None:
        """(row, column, channel) of the next dimension; None at the end."""

    @property
    def images(self) -> Tensor:
        """What came so far, int64 [B, C, H, W]."""

    def log_table(self) -> Tensor:
        """log p(x_i = level | what came before), float64 [B, levels]."""

    def push(self, levels: Tensor) -> None:
        """The next dimension of every image, int64 [B]."""

    def take(self, index: Tensor) -> None:
        """Go on with these images, in this order; int64 [B'], each as often as it is named."""


class WholePasses:
    """`Stepwise` of any chain rule: a pass of the whole network for every rank.

    Args:
        model: any.
        batch: number of images.
        context: as the model takes it.
    """

    def __init__(self, model: Autoregressive, batch: int, context: Tensor | None) -> None:
        self.model, self.context = model, context
        self.images = torch.zeros(batch, *model.spec.grid, dtype=torch.int64, device=model.device)
        self._places = dimensions(model)
        self._next = 0
        self._parameters: Tensor | None = None

    @property
    def place(self) -> tuple[int, int, int] | None:
        """(row, column, channel) of the next dimension; None at the end."""
        return self._places[self._next][1:] if self._next < len(self._places) else None

    def log_table(self) -> Tensor:
        """log p(x_i = level | what came before), float64 [B, levels]."""
        _, row, column, channel = self._places[self._next]
        if self._parameters is None:
            self._parameters = self.model.conditionals(self.images, self.context)
        at = (slice(None), slice(None), slice(row, row + 1), slice(column, column + 1))
        wide = self._parameters[at].double()
        return self.model.head.log_table(wide, self.images[at], channel)[..., 0, 0]

    def push(self, levels: Tensor) -> None:
        """The next dimension of every image, int64 [B]."""
        step, row, column, channel = self._places[self._next]
        self.images[:, channel, row, column] = levels
        self._next += 1
        if self._next < len(self._places) and self._places[self._next][0] != step:
            self._parameters = None

    def take(self, index: Tensor) -> None:
        """Go on with these images, in this order."""
        self.images = self.images[index]
        self.context = None if self.context is None else self.context[index]
        self._parameters = None if self._parameters is None else self._parameters[index]


def dimensions(model: Autoregressive) -> list[tuple[int, int, int, int]]:
    """(evaluation of the network, row, column, channel) of every dimension, as they are drawn."""
    rank, channels = model.rank, model.spec.grid[0]
    coupled = model.head.couples_channels
    places = []
    for step in range(int(rank.max()) + 1):
        pixels = (rank == step).nonzero().tolist()
        if coupled:
            places += [(step, row, column, c) for row, column in pixels for c in range(channels)]
        else:
            places += [
                (step * channels + c, row, column, c)
                for c in range(channels)
                for row, column in pixels
            ]
    return places


def systematic(log_weights: Tensor, uniform: Tensor, n: int) -> Tensor:
    """n particles in proportion to their weights, [B, n]; log-weights [B, N], uniform [B]."""
    total = log_weights.softmax(1).cumsum(1)
    at = (torch.arange(n, device=total.device) + uniform[:, None]) / n * total[:, -1:]
    index = torch.searchsorted(total, at.contiguous(), right=True)
    return index.clamp(max=log_weights.shape[1] - 1)


def effective(log_weights: Tensor) -> Tensor:
    """(sum w)^2 / sum w^2 of log-weights [B, N], [B]."""
    return (2 * log_weights.logsumexp(1) - (2 * log_weights).logsumexp(1)).exp()


def weighed(log_weights: Tensor, log_p: Tensor) -> Tensor:
    """Log-weights after an observed dimension of that log-probability, both [B, N]."""
    return log_weights + log_p


def reset(log_weights: Tensor, few: Tensor) -> Tensor:
    """Log-weights [B, N] after the particles of the images `few`, bool [B], were resampled."""
    return log_weights.masked_fill(few[:, None], 0.0)


@dataclasses.dataclass(frozen=True)
class Filtered:
    """What particles say of a batch of images.

    Attributes:
        images: int64 [B, n, C, H, W].
        log_observed: the log of the estimate of p(observed), float64 [B].
        effective: see `Completions`, [B].
        ancestors: see `Completions`, [B].
    """

    images: Tensor
    log_observed: Tensor
    effective: Tensor
    ancestors: Tensor


@torch.no_grad()
def filtered(
    model: Autoregressive,
    x: Tensor,
    observed: Tensor,
    n: int,
    noise: Noise,
    context: Tensor | None,
    particles: int,
) -> Filtered:
    """Draws of the rest of images by sequential Monte Carlo; see the module's docstring.

    Args:
        model: any chain rule.
        x: int64 [B, C, H, W]; unobserved values are ignored.
        observed: bool [H, W].
        n: draws of each image.
        noise: of the draws and of resampling.
        context: as the model takes it, or None.
        particles: of each image.
    """
    steps = model.stepwise(len(x), context)
    b, device = len(x), x.device
    known = [bool(observed[row, column]) for _, row, column, _ in dimensions(model)]
    first = known.index(False) if False in known else len(known)
    last = max((i for i, is_known in enumerate(known) if is_known), default=-1)
    log_observed = torch.zeros(b, dtype=torch.float64, device=device)
    worth = torch.full_like(log_observed, float(particles))
    roots = torch.arange(particles, device=device).expand(b, -1)
    left = torch.full((b,), particles, device=device)
    log_weights = torch.zeros(b, particles, dtype=torch.float64, device=device)
    every = torch.arange(b, device=device)[:, None]

    def resampled(index: Tensor) -> None:
        nonlocal roots
        roots = roots.gather(1, index)
        steps.take((every * particles + index).flatten())

    for i, is_known in enumerate(known):
        place = steps.place
        assert place is not None
        row, column, channel = place
        if i == first < last:
            steps.take(every.expand(b, particles).flatten())
        elif i == max(first, last + 1) and first > last:
            steps.take(every.expand(b, n).flatten())
        table = steps.log_table()
        many = len(table) // b
        if not is_known:
            steps.push(invert(table, noise.uniform(len(table))))
            continue
        level = x[:, channel, row, column].repeat_interleave(many)
        log_p = table.gather(1, level[:, None]).reshape(b, many)
        steps.push(level)
        if i < first:
            log_observed += log_p[:, 0]
            continue
        log_weights = weighed(log_weights, log_p)
        value = effective(log_weights)
        worth = torch.minimum(worth, value)
        if i == last:
            left = torch.tensor([len(torch.unique(line)) for line in roots], device=device)
            log_observed += log_weights.logsumexp(1) - math.log(particles)
            resampled(systematic(log_weights, noise.uniform(b), n))
        elif bool((value < particles / 2).any()):
            few = value < particles / 2
            mean = log_weights.logsumexp(1) - math.log(particles)
            log_observed += torch.where(few, mean, 0.0)
            index = systematic(log_weights, noise.uniform(b), particles)
            stay = torch.arange(particles, device=device).expand(b, -1)
            resampled(torch.where(few[:, None], index, stay))
            log_weights = reset(log_weights, few)
    images = steps.images
    if len(images) == b != b * n:  # all pixels are observed
        images = images.repeat_interleave(n, 0)
    return Filtered(images.reshape(b, n, *x.shape[1:]), log_observed, worth, left)


def chain_completions(model: Autoregressive, x: Tensor, observed: Tensor, way: Way) -> Completions:
    """`Autoregressive.completions` where the observed pixels do not come first.

    Args:
        model: any chain rule.
        x: int64 [B, C, H, W].
        observed: bool [H, W].
        way: of drawing.
    """
    parts = []
    for first in range(0, len(x), max(1, ROWS // way.particles)):
        part = slice(first, first + max(1, ROWS // way.particles))
        labels = None if way.context is None else way.context[part]
        noise = Noise(way.seed, "particles", first, device=x.device)
        parts.append(filtered(model, x[part], observed, way.n, noise, labels, way.particles))
    images = torch.cat([part.images for part in parts])
    about = f"sequential Monte Carlo in {model.order_name}"
    acceptance = correlation = None
    if way.method == "gibbs":
        noise = Noise(way.seed, "blocks", device=x.device)
        chains, acceptance, trace = refined(
            model, images.flatten(0, 1), observed, noise, way.repeated, way.sweeps
        )
        images, correlation = chains.reshape(images.shape), autocorrelation(trace)
        about += (
            f", then {way.sweeps} sweeps of blocks of {BLOCK} pixels, accepted by the exact joint "
            "ratio"
        )
    return Completions(
        model.as_data(images),
        torch.cat([part.log_observed for part in parts]),
        Relation.UPPER,
        exact=False,
        about=about,
        particles=way.particles,
        effective=torch.cat([part.effective for part in parts]),
        ancestors=torch.cat([part.ancestors for part in parts]),
        acceptance=acceptance,
        autocorrelation=correlation,
    )
