"""Continuous densities of integers: dequantisation and its bound.

With y = x + u and u in [0, 1)^D drawn from any density q(u | x),

    log P(x) >= E_q[log p(x + u) - log q(u | x)],

where P(x) is the probability that a sample of p, rounded down, is x. With u uniform, log q = 0
(Theis, van den Oord and Bethge 2016, sec. 3.1), https://arxiv.org/abs/1511.01844; a fitted q
tightens the bound (Ho et al. 2019, sec. 3.1), https://arxiv.org/abs/1902.00275.
"""

from __future__ import annotations

import abc
import math
from typing import Protocol

import torch
from torch import Tensor

from likely.density.taxonomy import ApproximateDensity
from likely.devices.precision import full_precision
from likely.errors import InvalidSetting
from likely.noise import Noise


class Dequantizer(Protocol):
    """q(u | x)."""

    @property
    def about(self) -> str:
        """How u is drawn, as "uniform dequantisation"."""

    def draw(self, x: Tensor, noise: Noise, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(u in [0, 1), [B, C, H, W]; log q(u | x) in nats, [B] or []); x integers."""


class UniformDequantizer:
    """u uniform in [0, 1)^D, whatever x is."""

    about = "uniform dequantisation"

    def draw(self, x: Tensor, noise: Noise, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """See `Dequantizer`."""
        u = noise.uniform(*x.shape, dtype=dtype)
        return u, u.new_zeros(())


class Dequantized(ApproximateDensity):
    """A density p(y) of real numbers, known exactly; x is y rounded down, within the levels.

    log p(y) is exact, in nats of a continuous density; of the integers only a bound is known.
    """

    @property
    def dequantizer(self) -> Dequantizer:
        """q(u | x); uniform unless a subclass has another."""
        return UniformDequantizer()

    @abc.abstractmethod
    def log_density(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        """log p(y | context) in nats, [B]; y floats in [0, levels], [B, C, H, W]."""

    @abc.abstractmethod
    def real(self, noise: Noise, n: int, context: Tensor | None) -> Tensor:
        """y drawn from p, floats [n, C, H, W]; a little outside of [0, levels], too."""

    @full_precision
    def elbo(self, x: Tensor, noise: Noise, context: Tensor | None = None) -> Tensor:
        x = self.integers(x)
        labels = self.labels(context, len(x))
        dtype = next(self.parameters()).dtype
        u, log_q = self.dequantizer.draw(x, noise, dtype)
        return self.log_density(x + u, labels) - log_q

    def importance_bound(
        self, x: Tensor, k: int, noise: Noise, context: Tensor | None = None
    ) -> Tensor:
        r"""L_k = log (1/k) sum_j p(x + u_j) / q(u_j | x), nats [B]; rising in k, below log P(x).

        Args:
            x: integers [B, *shape].
            k: draws of u.
            noise: their source.
            context: labels [B] or None.
        """
        if k < 1:
            raise InvalidSetting(f"the importance-weighted bound needs k >= 1, given {k}")
        draws = torch.stack([self.elbo(x, noise, context) for _ in range(k)])
        return draws.logsumexp(0) - math.log(k)

    def draw(self, noise: Noise, n: int, context: Tensor | None) -> Tensor:
        y = self.real(noise, n, context)
        return y.floor().clamp(0, self.spec.levels - 1).to(torch.int64)
