r"""The rest of an image given any of its pixels, by particles along the model's order.

For a chain rule whose observed pixels do not come first, p(rest | observed) has no closed form.
Sequential Monte Carlo goes through the dimensions in the model's order with N particles: a
dimension that is not observed is drawn from its conditional, one that is multiplies the weight,

    w <- w p(x_i | what this particle has before i),

and where the weights of an image are worth fewer than N / 2 particles, (sum w)^2 / sum w^2, the
particles are resampled (systematically) and their weights are equal again. The product of the mean
weights between resamplings is an unbiased estimate of p(observed), so its log is a lower bound in
expectation. A draw follows p(rest | observed) up to an error that falls as 1 / N.

`refined` removes that error: blocks of unobserved pixels are redrawn from the model's own
conditionals, and a redrawn block is accepted with the ratio of the joint densities

    min(1, p(x') q(x | x') / p(x) q(x' | x)) = min(1, prod_{i not in the block} p(x'_i | x'_<i) /
    p(x_i | x_<i)),

which leaves p(rest | observed) as it is.

Sources: Doucet and Johansen 2009 (particle filters; the estimate of the normalising constant),
https://www.stats.ox.ac.uk/~doucet/doucet_johansen_tutorialPF2011.pdf; Douc and Cappe 2005
(systematic resampling), https://arxiv.org/abs/cs/0507025; Liu 2001, Monte Carlo Strategies in
Scientific Computing (Metropolised independence sampling of blocks).
"""

from __future__ import annotations

import abc
import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol, get_args

import torch
from torch import Tensor

from likely.errors import InvalidSetting, nearest
from likely.estimate import Relation
from likely.heads import Head, at_least_float, invert
from likely.noise import Noise

if TYPE_CHECKING:
    from likely.density.chain import Autoregressive
    from likely.density.mixture import Mixture

Completing = Literal["auto", "exact", "smc", "gibbs", "importance", "hmc"]
COMPLETING: tuple[Completing, ...] = get_args(Completing)
# Particles of an image; particles and draws that go through a network together.
PARTICLES, ROWS = 256, 2048
# Sweeps over the unobserved pixels, and pixels that are redrawn together.
SWEEPS, BLOCK = 10, 8


@dataclasses.dataclass(frozen=True, repr=False)
class Completions:
    """Draws of the rest of images, and what they are worth.

    Attributes:
        images: int64 [B, n, *shape]; the observed pixels are those that were given.
        log_observed: log p(observed), nats, float64 [B]; an estimate where `relation` says so.
        relation: of -log p(observed) to the truth: EXACT, or UPPER in expectation.
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


class CompletesByDraws(abc.ABC):
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

    @abc.abstractmethod
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
        """n draws of the rest of every image, and what they are worth."""


class OrderAgnostic(abc.ABC):
    """A network that predicts every dimension from any known ones."""

    head: Head

    @abc.abstractmethod
    def predictions(self, x: Tensor, known: Tensor, context: Tensor | None = None) -> Tensor:
        """Parameters of p(x_i | known dimensions) for all i.

        Args:
            x: levels, [B, C, H, W]; only known ones are read.
            known: bool [B, C, H, W]; [B, 1, H, W] where the head couples the channels.
            context: int64 [B] or None.

        Returns:
            [B, head.parameters, H, W].
        """


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


def log_probs_of(head: Head, parameters: Tensor, x: Tensor) -> Tensor:
    """log p of each pixel given those before it, nats, float64 [B, H, W]."""
    return head.log_prob(at_least_float(parameters), x).double().sum(1)


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


def accepted(log_ratio: Tensor, uniform: Tensor) -> Tensor:
    """Which proposals of those log-ratios of the joint densities are taken, bool [R]."""
    return uniform.log() < log_ratio


@torch.no_grad()
def refined(
    model: Autoregressive,
    x: Tensor,
    observed: Tensor,
    noise: Noise,
    context: Tensor | None,
    sweeps: int,
    block: int = BLOCK,
) -> tuple[Tensor, float, Tensor]:
    """Images whose unobserved pixels are redrawn in blocks; see the module's docstring.

    Args:
        model: any chain rule.
        x: starts of the chains, int64 [R, C, H, W].
        observed: bool [H, W].
        noise: of the proposals and of acceptance.
        context: of each chain, as the model takes it, or None.
        sweeps: over all unobserved pixels.
        block: pixels that are redrawn together.

    Returns:
        (the images; share of the blocks that was accepted; log p(x) after each sweep, before the
        first one first, [sweeps + 1, R]).
    """
    rank, head = model.rank.to(x.device), model.head
    missing = [tuple(at) for at in (~observed).nonzero().tolist()]
    missing.sort(key=lambda at: int(rank[at]))
    log_p = log_probs_of(head, model.conditionals(x, context), x)
    trace, taken, tried = [log_p.sum((1, 2))], 0.0, 0
    groups = [range(model.spec.grid[0])]
    if not head.couples_channels:
        groups = [range(c, c + 1) for c in groups[0]]
    for sweep in range(sweeps):
        # The bounds of the blocks move from sweep to sweep.
        cuts = [0, *range(1 + sweep % block, len(missing), block), len(missing)]
        for low, high in itertools.pairwise(cuts):
            proposed, inside = x.clone(), torch.zeros_like(observed)
            for at in missing[low:high]:
                inside[at] = True
            for step in sorted({int(rank[at]) for at in missing[low:high]}):
                place = inside & (rank == step)
                for channels in groups:
                    parameters = model.conditionals(proposed, context)[:, :, place].double()
                    for c in channels:
                        uniform = noise.uniform(len(x), 1, int(place.sum()))
                        pixels = proposed[:, :, None, place]
                        drawn = head.quantile(parameters[:, :, None], pixels, c, uniform)
                        proposed[:, c, place] = drawn[:, 0]
            after = log_probs_of(head, model.conditionals(proposed, context), proposed)
            log_ratio = (after - log_p).masked_fill(inside, 0.0).sum((1, 2))
            take = accepted(log_ratio, noise.uniform(len(x)))
            x = torch.where(take[:, None, None, None], proposed, x)
            log_p = torch.where(take[:, None, None], after, log_p)
            taken, tried = taken + float(take.double().mean()), tried + 1
        trace.append(log_p.sum((1, 2)))
    return x, taken / max(1, tried), torch.stack(trace)


def autocorrelation(trace: Tensor) -> float:
    """Correlation of a trace [T, R] of R chains from one time to the next, about their mean."""
    off = trace - trace.mean()
    size = float(off[:-1].square().mean().sqrt() * off[1:].square().mean().sqrt())
    return float((off[:-1] * off[1:]).mean()) / size if size > 0 else 1.0


def chain_completions(
    model: Autoregressive,
    x: Tensor,
    observed: Tensor,
    n: int,
    *,
    seed: int,
    context: Tensor | None,
    method: str,
    particles: int,
    sweeps: int,
) -> Completions:
    """`Autoregressive.completions` where the observed pixels do not come first.

    Args:
        model: any chain rule.
        x: int64 [B, C, H, W].
        observed: bool [H, W].
        n, seed, method, particles, sweeps: see there.
        context: as the model takes it.
    """
    parts = []
    for first in range(0, len(x), max(1, ROWS // particles)):
        part = slice(first, first + max(1, ROWS // particles))
        labels = None if context is None else context[part]
        noise = Noise(seed, "particles", first, device=x.device)
        parts.append(filtered(model, x[part], observed, n, noise, labels, particles))
    images = torch.cat([part.images for part in parts])
    about = f"sequential Monte Carlo in {model.order_name}"
    acceptance = correlation = None
    if method == "gibbs":
        noise = Noise(seed, "blocks", device=x.device)
        labels = None if context is None else context.repeat_interleave(n, 0)
        chains, acceptance, trace = refined(
            model, images.flatten(0, 1), observed, noise, labels, sweeps
        )
        images, correlation = chains.reshape(images.shape), autocorrelation(trace)
        about += (
            f", then {sweeps} sweeps of blocks of {BLOCK} pixels, accepted by the exact joint ratio"
        )
    return Completions(
        model.as_data(images),
        torch.cat([part.log_observed for part in parts]),
        Relation.UPPER,
        exact=False,
        about=about,
        particles=particles,
        effective=torch.cat([part.effective for part in parts]),
        ancestors=torch.cat([part.ancestors for part in parts]),
        acceptance=acceptance,
        autocorrelation=correlation,
    )


@torch.no_grad()
def agnostic_completions(
    model: Autoregressive | Mixture,
    x: Tensor,
    observed: Tensor,
    n: int,
    seed: int,
    context: Tensor | None,
    rank: Tensor,
) -> Completions:
    """Draws by an order-agnostic network, in the order that begins with what is observed.

    Args:
        model: which is `OrderAgnostic`; a pass for each pixel, and for each channel where the head
            does not couple them.
        x: int64 [B, C, H, W].
        observed: bool [H, W].
        n: draws of each image.
        seed: of the noise.
        context: as the model takes it.
        rank: by which the observed pixels are ordered, and the others, int64 [H, W].
    """
    assert isinstance(model, OrderAgnostic)
    head, (channels, height, width) = model.head, x.shape[1:]
    groups = [range(channels)]
    if not head.couples_channels:
        groups = [range(c, c + 1) for c in range(channels)]
    order = [divmod(at, width) for at in rank.flatten().argsort().tolist()]
    order.sort(key=lambda at: not bool(observed[at]))
    log_observed = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    uniform = Noise(seed, "complete", device=x.device).uniform(len(x) * n, *x.shape[1:])
    x, labels = x.masked_fill(~observed, 0), context
    known = torch.zeros(
        len(x), 1 if head.couples_channels else channels, height, width,
        dtype=torch.bool, device=x.device,
    )  # fmt: skip
    for row, column in order:
        if not observed[row, column] and len(x) < len(uniform):
            x, known = x.repeat_interleave(n, 0), known.repeat_interleave(n, 0)
            labels = None if context is None else context.repeat_interleave(n, 0)
        at = (slice(None), slice(None), slice(row, row + 1), slice(column, column + 1))
        for some in groups:
            parameters = model.predictions(x, known, labels)[at].double()
            for c in some:
                if observed[row, column]:
                    table = head.log_table(parameters, x[at], c)[..., 0, 0]
                    log_observed += table.gather(1, x[:, c, row, column, None])[:, 0]
                else:
                    place = uniform[:, c, row : row + 1, column : column + 1]
                    drawn = head.quantile(parameters, x[at], c, place)
                    x[:, c, row, column] = drawn[:, 0, 0]
            known[:, : 1 if head.couples_channels else some.stop, row, column] = True
    if len(x) < len(uniform):  # all pixels are observed
        x = x.repeat_interleave(n, 0)
    images = x.reshape(-1, n, channels, height, width)
    places = torch.tensor([row * width + column for row, column in order])
    return Completions(
        model.as_data(images),
        log_observed,
        Relation.EXACT,
        exact=True,
        about="exact: of the network's density in the order that begins with what is observed",
        rank=places.argsort().reshape(height, width),
    )
