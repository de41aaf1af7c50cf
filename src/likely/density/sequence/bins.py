"""Bins of a density on a line: probabilities of integers, and the integer of a uniform number.

The level v is what lies between v - 1/2 and v + 1/2; the lowest and the highest level reach to
infinity, so that all levels of a column sum to one. Densities are mixtures of components of one
family: Student-t of 4 degrees of freedom, logistic, or Gaussian.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from likely.density.sequence import within_step

Family = Literal["logistic", "student-t", "gaussian"]


class Components(NamedTuple):
    """A mixture on the line, in levels, [..., C] each, float64: log-weights, means, scales."""

    log_weight: Tensor
    mean: Tensor
    scale: Tensor


def cdf(t: Tensor, family: Family) -> Tensor:
    """P(T <= t) of a standard component."""
    return torch.special.ndtr(t) if family == "gaussian" else within_step.cdf(t, family)


def log_mass(low: Tensor, high: Tensor, family: Family, width: Tensor) -> Tensor:
    """log P(low < T <= high), accurate in both tails; low or high may be infinite."""
    if family != "gaussian":
        return within_step.log_mass(low, high, family, width)
    flip = low + high > 0
    a, b = torch.where(flip, -high, low), torch.where(flip, -low, high)  # in the lower tail
    closed = (a != -math.inf).logical_and(b != math.inf)
    top = torch.special.log_ndtr(b.clamp(-1e150, 1e3))
    bottom = torch.special.log_ndtr(torch.where(closed, a, b - 1).clamp(-1e150, 1e3))
    part = top + torch.log(-torch.expm1((bottom - top).clamp(max=-1e-300)))
    wide = torch.where(closed, part, top)
    return within_step.narrow(wide, low, high, width, family)


def log_prob(x: Tensor, levels: int, mixture: Components, family: Family) -> Tensor:
    """log P(x), nats, float64 [...]; x int64 [...] in [0, levels)."""
    value = x[..., None].double()
    low = (value - 0.5 - mixture.mean) / mixture.scale
    high = (value + 0.5 - mixture.mean) / mixture.scale
    low = torch.where(value <= 0, -math.inf, low)
    high = torch.where(value >= levels - 1, math.inf, high)
    return (mixture.log_weight + log_mass(low, high, family, 1 / mixture.scale)).logsumexp(-1)


def quantile(uniform: Tensor, levels: int, mixture: Components, family: Family) -> Tensor:
    """The level whose interval of probabilities holds the number, int64 [...]."""
    weights, level = mixture.log_weight.exp(), torch.zeros_like(uniform, dtype=torch.int64)
    step = 1 << (levels - 1).bit_length()
    while step := step // 2:
        higher = level + step  # Is it this level at least?
        edge = (higher.double()[..., None] - 0.5 - mixture.mean) / mixture.scale
        below = (weights * cdf(edge, family)).sum(-1)
        level = torch.where((higher < levels) & (below <= uniform), higher, level)
    return level
