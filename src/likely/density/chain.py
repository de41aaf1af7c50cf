"""Densities by the chain rule: log p(x) = sum_i log p(x_i | x_<i), in any order of the pixels."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import ClassVar, Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor

from likely.data.spec import DataSpec
from likely.density.completion import PARTICLES, Completions, HasCompletions, Way
from likely.density.completion.agnostic import OrderAgnostic, agnostic_completions
from likely.density.completion.blocks import log_probs_of
from likely.density.completion.particles import Stepwise, WholePasses, chain_completions
from likely.density.conditional import HasConditional
from likely.density.taxonomy import TractableDensity
from likely.devices.precision import full_precision
from likely.errors import InvalidSetting, Unanswerable, nearest
from likely.estimate import Relation
from likely.heads import Head, at_least_float, log_likelihood
from likely.noise import Noise

Method = Literal["auto", "incremental", "naive", "jacobi", "wavefront"]
METHODS: tuple[Method, ...] = get_args(Method)
Watch = Callable[[int, Tensor], None]
# Numbers of a table of all levels at a time: what a mixture computes of them stays in cache.
TABLE = 2**18


class Surprise(NamedTuple):
    """What each dimension costs, and what the model expected it to; float64 [B, *shape] each.

    Attributes:
        nats: -log p(x_i | earlier dimensions). Their sum is -log p(x).
        entropy: their expectation under the model, given the same earlier dimensions.
        variance: theirs, likewise.
    """

    nats: Tensor
    entropy: Tensor
    variance: Tensor

    @property
    def z(self) -> Tensor:
        """[B] sum(nats - entropy) / sqrt(sum variance).

        Of images that the model draws, a sum of martingale differences in units of its standard
        deviation: mean 0 and variance near 1, and close to normal where many dimensions count.
        """
        excess = (self.nats - self.entropy).flatten(1).sum(1)
        return excess / self.variance.flatten(1).sum(1).clamp(min=1e-12).sqrt()


@dataclasses.dataclass(frozen=True)
class Drawing:
    """How the pixels of an image are drawn.

    Attributes:
        method: one of `Autoregressive.methods`; all give the same integers.
        temperature: of every conditional (`Head.tempered`); only 1 samples the model.
        watch: called with (row, images of the chunk so far, int64 [B, C, H, W]) after each row of
            pixels; in another order than raster after as many pixels as a row has.
    """

    method: Method = "auto"
    temperature: float = 1.0
    watch: Watch | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InvalidSetting(
                f'unknown sampling method "{self.method}": {nearest(self.method, METHODS)}'
            )
        if not self.temperature > 0:
            raise InvalidSetting(f"temperature must be above 0, given {self.temperature}")

    def refuse_watch(self, model: TractableDensity) -> None:
        """Raise InvalidSetting where rows are to be watched of a model that draws none."""
        if self.watch is not None:
            raise InvalidSetting(
                f"{type(model).__name__} draws from coarse to fine: there are no rows to watch"
            )


PLAIN = Drawing()


class Autoregressive(HasConditional, HasCompletions, TractableDensity):
    r"""log p(x) = sum over ranks r of sum_{i of rank r} log p(x_i | x_j, rank_j < r).

    Every pixel has a rank: its place in the order in which pixels are drawn. In raster order, the
    default, they are 0, 1, 2, ... by rows. Pixels of equal rank are independent given those of
    lower rank, so they can be drawn together. Channels are innermost: where the head does not
    couple them, channel c may also see the channels before it, of every pixel of its rank.

    A subclass implements `conditionals`: the parameters of all conditionals in one pass, each a
    function of dimensions of lower rank only (`likely.verify` checks that). The head turns the
    parameters into a distribution over levels. That is all that a likelihood and the naive sampler
    need; `likely.sampling.incremental.Incremental` draws faster.

    Attributes:
        head: the distribution of a pixel given those before.
        rank: int64 [H, W] of `spec.grid`, from 0 on.
    """

    head: Head
    rank: Tensor
    completes_by = ("exact", "smc", "gibbs")
    # How the model can be drawn from.
    methods: ClassVar[tuple[Method, ...]] = ("auto", "naive")
    # Whether `conditionals`, in raster order, takes the upper rows of an image alone.
    takes_upper_rows = False
    # Whether a pass uses each weight once (a network on vectors) or at every pixel (a
    # convolution); verification plans its work by it.
    uses_each_weight_once = False

    def __init__(
        self,
        spec: DataSpec,
        classes: int,
        context_shape: tuple[int, ...] = (),
        rank: Tensor | None = None,
    ) -> None:
        super().__init__(spec, classes, context_shape)
        self.register_buffer("rank", raster(spec) if rank is None else rank, persistent=False)

    @abc.abstractmethod
    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Parameters of p(x_i | x of lower rank) for all i at once.

        Args:
            x: values in [0, levels), [B, C, H, W]; integers, or floats in the same units where
                a derivative is wanted; see `takes_upper_rows`.
            context: int64 [B], floats [B, *context_shape] or None.

        Returns:
            [B, head.parameters, H, W].
        """

    @property
    def has_blind_spot(self) -> bool:
        """Whether some earlier dimensions are invisible (as in the 2016 PixelCNN).

        False is a promise that `likely.verify` checks; the default promises nothing.
        """
        return True

    @property
    def groups(self) -> int:
        """Parts of the parameters that belong to channels of their own."""
        return 1 if self.head.couples_channels else self.spec.grid[0]

    @property
    def is_raster(self) -> bool:
        """Whether pixels are drawn row by row from the top left."""
        return torch.equal(self.rank.cpu(), raster(self.spec))

    @full_precision
    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        x = self.integers(x)
        parameters = self.conditionals(x, self.labels(context, len(x)))
        return log_likelihood(self.head, parameters, x)

    def draw(self, noise: Noise, n: int, context: Tensor | None) -> Tensor:
        return self._drawn(noise, n, context, PLAIN)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        context: Tensor | int | None = None,
        chunk: int = 256,
        temperature: float = 1.0,
        method: Method = "auto",
        progress: Callable[[int], None] | None = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """Draw n examples: a function of (weights, n, seed, context, temperature).

        Args:
            n: number of examples.
            seed: of the noise.
            context: class label for all, or int64 [n]; floats [n, *context_shape], or one
                for all; None for an unconditional model.
            chunk: examples drawn together; bounds the memory.
            temperature: see `Drawing`.
            method: see `Drawing` and `likely.sampling.ancestral`.
            progress: called with the number of examples drawn so far after each chunk.
            watch: see `Drawing`.

        Returns:
            Integers in [0, levels), int64 [n, *shape].

        Raises:
            InvalidSetting: n < 1, a context that the model does not have, a method that is
                unknown or that the model does not offer.
        """
        how = Drawing(method, temperature, watch)

        def draw(noise: Noise, count: int, labels: Tensor | None) -> Tensor:
            return self._drawn(noise, count, labels, how)

        return self.in_chunks(n, seed, context, chunk, draw, progress)

    def _drawn(self, noise: Noise, n: int, context: Tensor | None, how: Drawing) -> Tensor:
        return self.draw_from(noise.last_uniform(n, *self.spec.grid), context, how)

    def draw_from(self, uniform: Tensor, context: Tensor | None, how: Drawing = PLAIN) -> Tensor:
        """The images decided by uniform numbers [n, C, H, W]."""
        blank = torch.zeros(uniform.shape, dtype=torch.int64, device=self.device)
        return self.fill(blank, uniform, 0, context, how)

    @torch.no_grad()
    @full_precision
    def fill(
        self, x: Tensor, uniform: Tensor, known: int, context: Tensor | None, how: Drawing = PLAIN
    ) -> Tensor:
        """Draw the pixels whose rank is at least `known`.

        Each dimension inverts its conditional's distribution function at its uniform number
        (`Head.quantile`).

        Args:
            x: int64 [B, C, H, W]; pixels of lower rank are kept, the others are ignored.
            uniform: [B, C, H, W] in [0, 1).
            known: lowest rank that is drawn.
            context: int64 [B], floats [B, *context_shape] or None.
            how: to draw.

        Returns:
            int64 [B, C, H, W].

        Raises:
            InvalidSetting: a method that the model does not offer.
        """
        if how.method not in self.methods:
            raise InvalidSetting(
                f"{type(self).__name__} has no method={how.method}; take one of "
                f"{', '.join(self.methods)}"
            )
        if how.method == "naive":
            return fill_naively(self, x, uniform, known, context, how)
        return self.fill_fast(x, uniform, known, context, how)

    def fill_fast(
        self, x: Tensor, uniform: Tensor, known: int, context: Tensor | None, how: Drawing
    ) -> Tensor:
        """`fill` by the other methods than naive; without any, the naive loop is the fastest."""
        return fill_naively(self, x, uniform, known, context, how)

    @torch.no_grad()
    @full_precision
    def log_conditional(
        self,
        x: Tensor,
        row: int,
        column: int,
        channel: int = 0,
        context: Tensor | int | None = None,
    ) -> Tensor:
        x = self.integers(x)
        self.refuse_place(channel, row, column)
        # In raster order rows below are not read.
        rows = x[:, :, : row + 1] if self.takes_upper_rows and self.is_raster else x
        parameters = self.conditionals(rows, self.labels(context, len(x)))
        pixel = (slice(None), slice(None), slice(row, row + 1), slice(column, column + 1))
        table = self.head.log_table(at_least_float(parameters[pixel]), x[pixel], channel)
        return table[..., 0, 0]

    @torch.no_grad()
    @full_precision
    def surprise(self, x: Tensor, context: Tensor | int | None = None) -> Surprise:
        """-log p(x_i | lower rank) of every dimension, its expectation and its variance.

        Args:
            x: integers [B, *shape].
            context: labels, as for `sample`.
        """
        x = self.integers(x)
        parameters = self.conditionals(x, self.labels(context, len(x)))
        batch, channels, height, width = x.shape
        rows = max(1, TABLE // (self.spec.levels * width))
        images = max(1, rows // height)
        out = Surprise(*torch.zeros(3, *x.shape, dtype=torch.float64, device=x.device))
        for channel in range(channels):
            for image in range(0, batch, images):
                for row in range(0, height, rows):
                    part = slice(image, image + images), slice(None), slice(row, row + rows)
                    table = self.head.log_table(at_least_float(parameters[part]), x[part], channel)
                    log_p = table.double()  # [b, levels, h, W]
                    p = log_p.exp()
                    nats = -log_p.gather(1, x[part][:, channel, None])[:, 0]
                    told = log_p.clamp(min=-1e4)  # p log p is 0 where p is
                    entropy = -(p * told).sum(1)
                    variance = (p * (told + entropy[:, None]).square()).sum(1)
                    place = part[0], channel, part[2]
                    for whole, value in zip(out, (nats, entropy, variance), strict=True):
                        whole[place] = value
        return Surprise(*(self.as_data(each) for each in out))

    @full_precision
    def complete(
        self,
        x: Tensor,
        observed: Tensor,
        *,
        seed: int = 0,
        context: Tensor | int | None = None,
        method: str = "auto",
        particles: int = PARTICLES,
        temperature: float = 1.0,
        watch: Watch | None = None,
    ) -> Tensor:
        """Draw the unobserved pixels from p(rest | observed).

        Exactly where the observed pixels are all those up to some rank, as `model.rank < 4` (in
        raster order: the top rows, and the left part of the next one); for other masks see
        `completions`.

        Args:
            x: integers [B, *shape]; unobserved values are ignored.
            observed: bool [H, W] ([D] for vectors).
            seed: of the noise.
            context: labels, as for `sample`.
            method: as for `completions`, or a method of `sample`: then exactly, or not at all.
            particles: as for `completions`.
            temperature: as for `sample`; of an exact completion.
            watch: as for `sample`; of an exact completion.

        Returns:
            int64 [B, *shape].

        Raises:
            Unanswerable: an exact completion of pixels that are not those of the lowest ranks.
        """
        x, known = self.integers(x), self.known_ranks(self.mask(observed))
        agnostic = known is None and isinstance(self, OrderAgnostic)
        if method in ("smc", "gibbs") or (known is None and method == "auto") or agnostic:
            drawn = self.completions(
                x, observed, seed=seed, context=context, method=method, particles=particles
            )
            return drawn.images[:, 0]
        if known is None:
            raise self._out_of_order()
        # What is none of the sampler's methods, as "importance", is refused by `Drawing`.
        drawing = cast("Method", "auto" if method == "exact" else method)
        how = Drawing(drawing, temperature, watch)
        uniform = Noise(seed, "complete", device=self.device).uniform(*x.shape)
        return self.as_data(self.fill(x, uniform, known, self.labels(context, len(x)), how))

    def completed(self, x: Tensor, observed: Tensor, way: Way) -> Completions:
        """Exactly where the observed pixels are those of the lowest ranks, else by particles."""
        known = self.known_ranks(observed)
        if known is None and way.method in ("auto", "exact") and isinstance(self, OrderAgnostic):
            return agnostic_completions(self, x, observed, self.rank, way)
        if way.method in ("smc", "gibbs") or (way.method == "auto" and known is None):
            return chain_completions(self, x, observed, way)
        if known is None:
            raise self._out_of_order()
        many = x.repeat_interleave(way.n, 0)
        uniform = Noise(way.seed, "complete", device=self.device).uniform(*many.shape)
        images = self.as_data(self.fill(many, uniform, known, way.repeated))
        return Completions(
            images.reshape(len(x), way.n, *self.spec.shape),
            self.log_first(x, known, way.context),
            Relation.EXACT,
            exact=True,
            about=f"exact: the observed pixels come first in {self.order_name}",
        )

    def known_ranks(self, observed: Tensor) -> int | None:
        """How many ranks are observed, bool [H, W]; None where those are not all that is."""
        rank = self.rank.to(observed.device)
        known = int(rank[~observed].min()) if not bool(observed.all()) else int(rank.max()) + 1
        return known if torch.equal(observed, rank < known) else None

    @torch.no_grad()
    @full_precision
    def log_first(self, x: Tensor, known: int, context: Tensor | None) -> Tensor:
        """log p of the pixels of the first `known` ranks, nats, float64 [B].

        Args:
            x: int64 [B, C, H, W]; pixels of higher rank are ignored.
            known: ranks.
            context: as the model takes it.
        """
        later = self.rank.to(x.device) >= known
        seen = x.masked_fill(later, 0)
        each = log_probs_of(self.head, self.conditionals(seen, context), seen)
        return each.masked_fill(later, 0.0).sum((1, 2))

    def stepwise(self, batch: int, context: Tensor | None) -> Stepwise:
        """Images that come dimension by dimension; by passes of the whole network."""
        return WholePasses(self, batch, context)

    def _out_of_order(self) -> Unanswerable:
        return Unanswerable(
            f"{type(self).__name__}: completion is exact only when the observed pixels come "
            f"first in {self.order_name}; p(rest | other pixels) has no closed form in this "
            "factorisation: take method=smc or gibbs"
        )

    @property
    def order_name(self) -> str:
        """The order in which pixels are drawn, in words."""
        if self.is_raster:
            return "raster order (top rows, then the left part of the next row)"
        return "the model's own order (`rank`)"


def raster(spec: DataSpec) -> Tensor:
    """The ranks of raster order, int64 [H, W]."""
    _, height, width = spec.grid
    return torch.arange(height * width, device="cpu").reshape(height, width)


def sub_steps(head: Head, channels: int) -> list[list[int]]:
    """Channels that are drawn from one evaluation of the network, in order."""
    return [list(range(channels))] if head.couples_channels else [[c] for c in range(channels)]


@torch.no_grad()
def fill_naively(
    model: Autoregressive,
    x: Tensor,
    uniform: Tensor,
    known: int,
    context: Tensor | None = None,
    how: Drawing = PLAIN,
) -> Tensor:
    """`fill` by a pass of the whole network for every rank and channel; the reference."""
    rank, head, (channels, width) = model.rank.to(x.device), model.head, (x.shape[1], x.shape[3])
    x = x.masked_fill(rank >= known, 0)
    upper = model.takes_upper_rows and model.is_raster
    for step in range(known, int(rank.max()) + 1):
        # In raster order rows below are not read: leaving them out halves the work.
        rows = slice(step // width + 1) if upper else slice(None)
        place = rank == step
        for some in sub_steps(head, channels):
            parameters = model.conditionals(x[:, :, rows], context)[:, :, place[rows]]  # [B, P, K]
            tempered = head.tempered(parameters.double(), how.temperature)[:, :, None]
            for channel in some:
                pixels, at = x[:, :, None, place], uniform[:, None, channel, place]
                x[:, channel, place] = head.quantile(tempered, pixels, channel, at)[:, 0]
        if how.watch is not None and (step + 1) % width == 0:
            how.watch(step // width, x)
    return x
