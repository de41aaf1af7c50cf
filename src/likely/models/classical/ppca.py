r"""Probabilistic principal component analysis (Tipping and Bishop 1999).

https://doi.org/10.1111/1467-9868.00196

    y = W z + mu + s e,  z, e ~ N(0, I),   log p(y) = log N(y; mu, C),  C = W W' + s^2 I
    p(z | y) = N(m, s^2 M^-1),  M = W'W + s^2 I,  m = M^-1 W'(y - mu)

Maximum likelihood is known in closed form (eqs. 7 and 8): with eigenvalues L and eigenvectors U of
the covariance of the data, s^2 is the mean of the eigenvalues left out, W = U (L - s^2)^(1/2).

Integers are dequantised, y = x + u (`likely.density.Dequantized`): the density of y is exact, that
of x a bound. The mean of log p(x + u) over u is a function of the covariance of x with 1/12 added
to its diagonal, so the closed form maximises that bound; `start_at` computes it, and updates by
gradient have nothing left to do.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from likely.data.spec import Dataset, DataSpec
from likely.density import Dequantized, chunks
from likely.devices.precision import full_precision
from likely.models.classical.settings import PPCASettings
from likely.noise import Noise


class PPCA(Dequantized):
    """The model; see the module's docstring.

    Args:
        spec: of the data, shape (C, H, W) or (D,).
        settings: sizes; `PPCASettings.preset(spec)` by default.
    """

    takes_vectors = True

    def __init__(self, spec: DataSpec, settings: PPCASettings | None = None) -> None:
        super().__init__(spec, 0)
        self.settings = settings or PPCASettings.preset(spec)
        d = spec.dimensions
        self.latent = min(self.settings.latent, max(1, d - 1))
        spread = spec.levels / 4
        self.mean = nn.Parameter(torch.full((d,), spec.levels / 2))
        self.weight = nn.Parameter(torch.randn(d, self.latent) * spread / math.sqrt(d))
        self.log_scale = nn.Parameter(torch.tensor([math.log(spread)]))  # log s

    @torch.no_grad()
    def start_at(self, data: Dataset) -> None:
        """The maximum of the likelihood of x + u, by the eigenvalues of its covariance."""
        d = self.spec.dimensions
        total, products = np.zeros(d), np.zeros((d, d))
        for rows in chunks(len(data), 4096):
            x = data.batch(rows).x.reshape(-1, d).astype(np.float64)
            total += x.sum(0)
            products += x.T @ x
        mean = total / len(data)
        covariance = torch.from_numpy(products / len(data) - np.outer(mean, mean))
        covariance.diagonal().add_(1 / 12)
        values, vectors = (part.flip(-1) for part in torch.linalg.eigh(covariance))
        kept = self.latent
        left_out = values[kept:].mean() if kept < d else values[-1] / 2
        self.mean.copy_(torch.from_numpy(mean + 0.5))
        self.weight.copy_(vectors[:, :kept] * (values[:kept] - left_out).clamp(min=0).sqrt())
        self.log_scale.copy_(0.5 * left_out.log())

    @full_precision
    def log_density(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        d = self.spec.dimensions
        m, rest, variance, root = self._explained(y)
        # (y - mu)' C^-1 (y - mu) = |y - mu - W m|^2 / s^2 + |m|^2, without cancellation.
        distance = rest.square().sum(1) / variance + m.square().sum(1)
        log_det = (d - self.latent) * variance.log() + 2 * root.diagonal().log().sum()
        log_p: Tensor = -0.5 * (d * math.log(2 * math.pi) + log_det + distance)
        return log_p

    def _explained(self, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(m [B, Z], y - mu - W m [B, D], s^2, the Cholesky factor of M)."""
        variance = (2 * self.log_scale).exp()[0]
        gram = self.weight.T @ self.weight
        root = torch.linalg.cholesky(gram + variance * torch.eye(self.latent).to(gram))
        centred = y.flatten(1) - self.mean
        m = torch.cholesky_solve((centred @ self.weight).T, root).T
        return m, centred - m @ self.weight.T, variance, root

    @torch.no_grad()
    @full_precision
    def features(self, x: Tensor, context: Tensor | int | None = None) -> Tensor:
        """E[z | y] at the middle of the cells, y = x + 1/2; [B, latent]."""
        x = self.integers(x)
        self.labels(context, len(x))
        return self._explained(x.to(self.mean.dtype) + 0.5)[0]

    @full_precision
    def real(self, noise: Noise, n: int, context: Tensor | None) -> Tensor:
        dtype = self.mean.dtype
        z = noise.normal(n, self.latent, dtype=dtype)
        e = noise.normal(n, self.spec.dimensions, dtype=dtype)
        s = ((2 * self.log_scale).exp()).sqrt()
        return (z @ self.weight.T + self.mean + s * e).reshape(n, *self.spec.grid)
