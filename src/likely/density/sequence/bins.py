"""The density of one column of a step: probabilities of integers, and the integer of a number.

Of a number on a lattice the level v is what lies between v - 1/2 and v + 1/2 of a density on the
line; the lowest and the highest level reach to infinity, so that all levels of a column sum to one.
Such densities are mixtures of components of one family: Student-t of 4 degrees of freedom, whose
distribution function is closed (with s = t / sqrt(4 + t^2), F(t) = 1/2 + 3/4 (s - s^3 / 3), and
1 - F = e^2 (3 - e) / 4, e = 1 - s), logistic, or Gaussian.

Whoever draws, fills, writes or reads the columns of a step does it by a callback: `choose(k, p)` is
asked for column k in turn, given its density p given all before it (`Choose`).
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from likely.heads import invert

Family = Literal["logistic", "student-t", "gaussian"]
NARROW = 1e-4  # standard deviations, or what stands for them


class ColumnDensity(abc.ABC):
    """p of a column, of B sequences side by side.

    Attributes:
        levels: its integers are in [0, levels).
    """

    levels: int

    @abc.abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """log P(x), nats, float64 [B]; x int64 [B]."""

    @abc.abstractmethod
    def quantile(self, uniform: Tensor) -> Tensor:
        """The level whose interval of probabilities holds the number, int64 [B]."""

    @abc.abstractmethod
    def log_masses(self, edges: Tensor) -> Tensor:
        """log P(edge_i <= x < edge_{i+1}), float64 [B, E - 1]; edges int64 [B, E], ascending.

        As a difference of two sums: masses below 1e-16 are lost, which no coder can use.
        """


Choose = Callable[[int, ColumnDensity], Tensor]


def quantiles(uniform: Tensor) -> Choose:
    """Columns from uniform numbers in [0, 1), float64 [B, K]: draws."""
    return lambda k, column: column.quantile(uniform[:, k])


class Binary(ColumnDensity):
    """0 or 1, by the logit of 1, float64 [B]."""

    def __init__(self, logit: Tensor) -> None:
        self.levels, self._logit = 2, logit

    def log_prob(self, x: Tensor) -> Tensor:
        return logsigmoid(torch.where(x > 0, self._logit, -self._logit))

    def quantile(self, uniform: Tensor) -> Tensor:
        return (uniform >= torch.sigmoid(-self._logit)).long()

    def log_masses(self, edges: Tensor) -> Tensor:
        return Table(logsigmoid(torch.stack([-self._logit, self._logit], 1))).log_masses(edges)


class Table(ColumnDensity):
    """log p of every level, float64 [B, levels]."""

    def __init__(self, log_p: Tensor) -> None:
        self.levels, self._log_p = log_p.shape[1], log_p

    def log_prob(self, x: Tensor) -> Tensor:
        return self._log_p.gather(1, x[:, None])[:, 0]

    def quantile(self, uniform: Tensor) -> Tensor:
        return invert(self._log_p, uniform)

    def log_masses(self, edges: Tensor) -> Tensor:
        sums = self._log_p.exp().cumsum(1)
        return _of_sums(torch.cat([torch.zeros_like(sums[:, :1]), sums], 1).gather(1, edges))


class Histogram(ColumnDensity):
    """Bins of several levels that are equally likely.

    Args:
        p: of each bin, float64 [B, bins].
        first: the lowest level of each, int64 [bins], ascending from 0.
        levels: of the column.
    """

    def __init__(self, p: Tensor, first: Tensor, levels: int) -> None:
        self.levels, self._p, self._first = levels, p, first
        self._width = torch.diff(torch.cat([first, first.new_tensor([levels])]))

    def bin_of(self, x: Tensor) -> Tensor:
        """The bin of each level, int64 [B]."""
        return torch.searchsorted(self._first, x.contiguous(), right=True) - 1

    def log_prob(self, x: Tensor) -> Tensor:
        at = self.bin_of(x)
        return self._p.gather(1, at[:, None])[:, 0].log() - self._width[at].double().log()

    def quantile(self, uniform: Tensor) -> Tensor:
        at = invert(self._p.log(), uniform)
        total = self._p.cumsum(1)
        below, mass = total.gather(1, at[:, None]), self._p.gather(1, at[:, None])
        # The rest of the uniform number is uniform in the bin.
        rest = (uniform * total[:, -1] - (below - mass)[:, 0]) / mass[:, 0]
        width = self._width[at]
        return self._first[at] + (rest.clamp(0, 1) * width).long().clamp(max=width - 1)

    def log_masses(self, edges: Tensor) -> Tensor:
        at = self.bin_of(edges.clamp(max=self.levels - 1))
        share = (edges - self._first[at]).double() / self._width[at]  # of the bin that is below
        mass = self._p.gather(1, at)
        return _of_sums(self._p.cumsum(1).gather(1, at) - (1 - share) * mass)


class Components(NamedTuple):
    """A mixture on the line, in levels, [..., C] each, float64: log-weights, means, scales."""

    log_weight: Tensor
    mean: Tensor
    scale: Tensor


@dataclasses.dataclass(frozen=True)
class Bins(ColumnDensity):
    """A mixture on the line over the levels of a lattice; x and masses have its leading sides."""

    levels: int
    mixture: Components
    family: Family

    def log_prob(self, x: Tensor) -> Tensor:
        log_weight, mean, scale = self.mixture
        low = (x[..., None].double() - 0.5 - mean) / scale
        high = (x[..., None].double() + 0.5 - mean) / scale
        low = torch.where(x[..., None] <= 0, -math.inf, low)
        high = torch.where(x[..., None] + 1 >= self.levels, math.inf, high)
        width = 1 / scale
        total: Tensor = (log_weight + log_mass(low, high, self.family, width)).logsumexp(-1)
        return total

    def quantile(self, uniform: Tensor) -> Tensor:
        log_weight, mean, scale = self.mixture
        weights, level = log_weight.exp(), torch.zeros_like(uniform, dtype=torch.int64)
        step = 1 << (self.levels - 1).bit_length()
        while step := step // 2:
            higher = level + step  # Is it this level at least?
            edge = (higher.double()[..., None] - 0.5 - mean) / scale
            below = (weights * cdf(edge, self.family)).sum(-1)
            level = torch.where((higher < self.levels) & (below <= uniform), higher, level)
        return level

    def log_masses(self, edges: Tensor) -> Tensor:
        wide = (part[:, None] if part.ndim > 1 else part for part in self.mixture)
        log_weight, mean, scale = wide
        at = (edges[..., None].double() - 0.5 - mean) / scale
        below = (log_weight.exp() * cdf(at, self.family)).sum(-1)
        below = torch.where(edges <= 0, 0.0, torch.where(edges >= self.levels, 1.0, below))
        return _of_sums(below)


def _of_sums(below: Tensor) -> Tensor:
    """log of the masses between edges, from P(x < edge), float64 [B, E]."""
    return torch.diff(below, dim=1).clamp(min=0).log()


def cdf(t: Tensor, family: Family) -> Tensor:
    """P(T <= t) of a standard component, float64."""
    if family != "student-t":
        return torch.sigmoid(t) if family == "logistic" else torch.special.ndtr(t)
    upper = _upper_tail(t.abs())
    return torch.where(t > 0, 1 - upper, upper)


def _upper_tail(t: Tensor) -> Tensor:
    """P(T > t) of Student's distribution of 4 degrees of freedom, t >= 0, without cancellation."""
    square = (t * t).clamp(max=1e300)
    root = (1 + 4 / square.clamp(min=1e-300)).rsqrt()  # s = t / sqrt(4 + t^2)
    e = (4 / (square + 4)) / (1 + root)
    return e * e * (3 - e) / 4


def log_mass(low: Tensor, high: Tensor, family: Family, width: Tensor) -> Tensor:
    """log P(low < T <= high), accurate in both tails; low or high may be infinite.

    `width` is that of the bin, which high - low would lose digits of; of a narrow one the mass is
    that of the density at its middle, and not a difference of two numbers that are nearly equal.
    """
    wide = _log_difference(low, high, family)
    return wide if bool((width >= NARROW).all()) else _narrow(wide, low, high, width, family)


def _narrow(wide: Tensor, low: Tensor, high: Tensor, width: Tensor, family: Family) -> Tensor:
    """`wide`, where bins are narrow and closed by log(w f(m) (1 + w^2 f''(m) / (24 f(m))))."""
    closed = (width < NARROW) & low.isfinite() & high.isfinite()
    if family == "gaussian":  # whose slope has no bound
        closed = closed & (width * low.abs() < 1e-3)
    width, middle = width.where(closed, width.new_ones(())), low + width / 2
    middle = middle.where(closed, torch.zeros_like(middle))
    square = middle * middle
    if family == "gaussian":
        log_density, bend = -(square + math.log(2 * math.pi)) / 2, square - 1
    elif family == "logistic":
        log_density = logsigmoid(middle) + logsigmoid(-middle)
        bend = 1 - 6 * log_density.exp()
    else:
        u = 1 + square / 4  # f = 3/8 u^(-5/2)
        log_density = math.log(3 / 8) - 2.5 * u.log()
        bend = -1.25 / u + 35 / 16 * square / (u * u)
    mass = width.log() + log_density + torch.log1p(width * width / 24 * bend)
    return mass.where(closed, wide)


def _log_difference(low: Tensor, high: Tensor, family: Family) -> Tensor:
    flip = low + high > 0
    # In the lower tail, where small numbers are exact.
    a, b = torch.where(flip, -high, low), torch.where(flip, -low, high)
    a_open, b_open = a == -math.inf, b == math.inf
    if family == "gaussian":
        top = torch.special.log_ndtr(b.clamp(-1e150, 1e3))
        bottom = torch.special.log_ndtr(torch.where(a_open, b - 1, a).clamp(-1e150, 1e3))
        part = top + torch.log(-torch.expm1((bottom - top).clamp(max=-1e-300)))
        return torch.where(a_open | b_open, top, part)
    a, b = a.where(~a_open, b.clamp(max=0.0) - 1.0), b.where(~b_open, torch.zeros_like(b))
    if family == "logistic":
        # log(sigma(b) - sigma(a)) = log sigma(b) + log(1 - exp(log sigma(a) - log sigma(b)))
        upper = logsigmoid(b)  # softplus is the identity above 20, which costs 2e-9
        ratio = logsigmoid(a) - upper  # < 0
        part = upper + torch.log(-torch.expm1(ratio.clamp(max=-1e-300)))
        return part.where(~a_open, upper).where(~(a_open & b_open), torch.zeros_like(part))
    lower, top = cdf(a, family), cdf(b, family)
    mass = torch.where(a_open, top, top - lower).clamp(min=1e-300)
    return mass.log().where(~(a_open & b_open), torch.zeros_like(mass))
