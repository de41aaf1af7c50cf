r"""Densities of an image in two parts, the second given the first: p(x) = p(base) p(rest | base).

A `Lifting` takes an image of integers to two parts and back without loss, by averages rounded down
and differences,

    s = (a + b) >> 1,  d = a - b;    a = s + ((d + 1) >> 1),  b = a - d,

so log p(x) is that of the parts, exactly, and what is drawn given a base has that base, to the last
integer. Of a, b in [0, L) the average leaves the differences with

    |d| <= reach(s) = min(2 s + 1, 2 (L - 1 - s)),

and the head of the second part holds those alone (`likely.heads.Bounds`): no mass is given to
integers that no image has, so both factors, and p(x), sum to one without a correction.

Sources: Sweldens 1998 (the lifting scheme), https://doi.org/10.1137/S0036141095289051; Said and
Pearlman 1996 (the S-transform), https://doi.org/10.1109/83.536880; Malvar and Sullivan 2003
(YCoCg-R), https://www.microsoft.com/en-us/research/publication/ycocg-r-a-color-space-with-rgb-reversibility-and-low-dynamic-range/.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from likely.data.spec import Dataset, digest_of
from likely.density.chain import Autoregressive, Surprise
from likely.density.completion import Completions, refuse_count
from likely.density.fittable import chunks
from likely.density.taxonomy import CHUNK, TractableDensity
from likely.devices.precision import full_precision
from likely.estimate import Relation
from likely.heads import Head, at_least_float
from likely.noise import Noise

# Examples that tell how widely differences spread.
STARTING = 2000


def average(a: Tensor, b: Tensor) -> Tensor:
    """(a + b) / 2, rounded down."""
    return (a + b) >> 1


def both(s: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """(a, b) with that average and that difference a - b."""
    a = s + ((d + 1) >> 1)
    return a, a - d


def reach(s: Tensor, levels: int) -> Tensor:
    """The largest |a - b| of a, b in [0, levels) with average s."""
    return torch.minimum(2 * s + 1, 2 * (levels - 1 - s))


class Lifting(abc.ABC):
    """A reversible map of images [B, C, H, W] to a base and a rest on one grid of places.

    The rest holds differences as levels: d + `levels` - 1, in [0, 2 `levels` - 1).

    Attributes:
        shape: of an image, (C, H, W).
        levels: of an image, and of the base.
        base: shape of the base, (C', h, w).
        rest: shape of the rest, (C'', h, w).
        planes: numbers known of each place, of which the bounds of the rest are functions.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        levels: int,
        base: tuple[int, ...],
        rest: tuple[int, ...],
        planes: int,
    ) -> None:
        self.shape, self.levels, self.base, self.rest = shape, levels, base, rest
        self.planes = planes

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the grid of places."""
        return self.base[1], self.base[2]

    @abc.abstractmethod
    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(base, rest) of images, int64."""

    @abc.abstractmethod
    def merge(self, base: Tensor, rest: Tensor) -> Tensor:
        """The images of that base and that rest."""

    @abc.abstractmethod
    def known(self, base: Tensor) -> Tensor:
        """What is known of each place, levels [B, planes, h, w]."""

    @abc.abstractmethod
    def reaches(self, known: Tensor, d: Sequence[Tensor], channel: int) -> Tensor:
        """The largest absolute difference in a channel of the rest, [B, h, w].

        Args:
            known: as `known` gives it.
            d: the differences of the channels before, [B, h, w] each.
            channel: of the rest.
        """

    @abc.abstractmethod
    def spread(self, base: Tensor, rest: Tensor) -> Tensor:
        """Numbers of the parts over the dimensions of x that each covers; their sum is kept."""

    def scaled(self, known: Tensor, dtype: torch.dtype) -> Tensor:
        """Levels as numbers in [-1, 1]."""
        return known.to(dtype) * (2.0 / (self.levels - 1)) - 1.0

    def __call__(self, known: Tensor, x: Tensor, channel: int) -> tuple[Tensor, Tensor]:
        """The bounds of a head; `known` is scaled."""
        levels = ((known + 1.0) * ((self.levels - 1) / 2)).round().to(torch.int64)
        levels = levels.clamp(0, self.levels - 1)
        middle = self.levels - 1
        before = [x[:, c] - middle for c in range(channel)]
        most = self.reaches(levels, before, channel).clamp(0, middle)
        return middle - most, middle + most


class Split(TractableDensity):
    """log p(x) = log p(base) + log p(rest | base), of two densities of the house.

    A leaf sets the fields.

    Attributes:
        lifting: takes an image to its two parts.
        base: the density of the first part; of the same labels.
        rest: the density of the second one, its head bounded by the lifting. Its context is a map:
            what `reader` makes of the base, then what is known of each place.
        head: of the first part's values.
        reader: takes what is known, scaled [B, planes, h, w], and the labels, to [B, K, h, w].
    """

    lifting: Lifting
    base: Autoregressive | Split
    rest: Autoregressive
    head: Head
    reader: nn.Module

    def start_at(self, data: Dataset) -> None:
        """Each part at the parts of some examples."""
        rows = np.unique(np.linspace(0, len(data) - 1, min(STARTING, len(data))).astype(np.int64))
        x = torch.from_numpy(data.batch(rows).x.astype(np.int64))
        for part, values in zip((self.base, self.rest), self.lifting.split(x), strict=True):
            kind = np.uint8 if part.spec.levels <= 256 else np.uint16
            stored = values.numpy().astype(kind)
            spec = dataclasses.replace(
                part.spec, n=len(stored), digest=digest_of(stored), classes=(), context=()
            )
            part.start_at(Dataset(spec, stored))

    def condition(self, base: Tensor, context: Tensor | None) -> Tensor:
        """What the rest is conditioned on, [B, K + planes, h, w].

        Args:
            base: levels [B, *lifting.base].
            context: labels [B] or None.
        """
        dtype = next(self.parameters()).dtype
        known = self.lifting.scaled(self.lifting.known(base), dtype)
        return torch.cat([self.reader(known, context), known], 1)

    @full_precision
    def log_parts(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(log p(base), log p(rest | base)) in nats, [B] each; x integers [B, *shape]."""
        x = self.integers(x)
        context = self.labels(context, len(x))
        base, rest = self.lifting.split(x)
        condition = self.condition(base, context)
        return self.base.log_prob(base, context), self.rest.log_prob(rest, condition)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        base, rest = self.log_parts(x, context)
        return base + rest

    def draw(self, noise: Noise, n: int, context: Tensor | None) -> Tensor:
        if isinstance(self.base, Split):
            base = self.base.draw(noise, n, context)
        else:
            base = self.base.draw_from(noise.uniform(n, *self.base.spec.grid), context)
        uniform = noise.uniform(n, *self.rest.spec.grid)
        return self.lifting.merge(base, self.rest.draw_from(uniform, self.condition(base, context)))

    @torch.no_grad()
    @full_precision
    def enlarged(self, base: Tensor, context: Tensor | None, *key: int | str) -> Tensor:
        """One image of each base, drawn from p(x | base), int64 [B, *shape].

        Args:
            base: levels [B, *lifting.base].
            context: labels [B] or None.
            key: of the noise.
        """
        out = torch.empty(len(base), *self.spec.grid, dtype=torch.int64, device=self.device)
        for part in chunks(len(base), CHUNK):
            labels = None if context is None else context[part]
            noise = Noise(*key, part.start, device=self.device, rows=(0, CHUNK))
            uniform = noise.last_uniform(len(base[part]), *self.rest.spec.grid)
            rest = self.rest.draw_from(uniform, self.condition(base[part], labels))
            out[part] = self.lifting.merge(base[part], rest)
        return out

    @torch.no_grad()
    def given_base(
        self, base: Tensor, n: int, seed: int, context: Tensor | int | None, about: str
    ) -> Completions:
        """n images of each base, from p(x | base) itself, and log p(base)."""
        refuse_count(n=n)
        base = self.base.integers(base)
        labels = self.labels(context, len(base))
        many = None if labels is None else labels.repeat_interleave(n, 0)
        images = self.enlarged(base.repeat_interleave(n, 0), many, seed, "rest")
        return Completions(
            self.as_data(images.reshape(len(base), n, *self.spec.grid)),
            self.base.log_prob(base, labels).double(),
            Relation.EXACT,
            exact=True,
            about=f"exact: {about}",
        )

    @torch.no_grad()
    @full_precision
    def rest_nats(self, x: Tensor, context: Tensor | int | None = None, splits: int = 1) -> Tensor:
        """-log p of the differences, spread over the dimensions that they cover; [B, *shape].

        Args:
            x: integers [B, *shape].
            context: labels, as for `sample`.
            splits: of how many splits, this one first; the sum is -log p(x | base of the last one).
        """
        x = self.integers(x)
        labels = self.labels(context, len(x))
        base, rest = self.lifting.split(x)
        below = torch.zeros(base.shape, dtype=torch.float64, device=x.device)
        if splits > 1:
            assert isinstance(self.base, Split)
            below = self.base.rest_nats(base, labels, splits - 1)
        parameters = self.rest.conditionals(rest, self.condition(base, labels))
        nats = -self.rest.head.log_prob(at_least_float(parameters), rest).double()
        return self.lifting.spread(below, nats)

    @torch.no_grad()
    @full_precision
    def surprise(self, x: Tensor, context: Tensor | int | None = None) -> Surprise:
        """-log p of each average and difference, spread over the dimensions that it covers.

        Args:
            x: integers [B, *shape].
            context: labels, as for `sample`.
        """
        x = self.integers(x)
        labels = self.labels(context, len(x))
        base, rest = self.lifting.split(x)
        parts = (
            self.base.surprise(base, labels),
            self.rest.surprise(rest, self.condition(base, labels)),
        )
        return Surprise(*(self.lifting.spread(*pair) for pair in zip(*parts, strict=True)))
