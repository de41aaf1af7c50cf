r"""Densities of codes: a Gaussian, a mixture of Gaussians, and flows.

- N(m, C C') with C lower triangular; its most likely m and C are the mean and the Cholesky factor
  of the covariance;
- sum_k w_k N(z; m_k, s_k^2) with independent coordinates, started by expectation-maximisation
  (Dempster, Laird and Rubin 1977);
- flows (`likely.nn.flow`) of couplings or of masked maps, after a map to mean 0 and variance 1.
"""

from __future__ import annotations

import abc
import math
from typing import Literal

import torch
from torch import Tensor, nn

from likely.density import DiagonalGaussian
from likely.devices.precision import without_autocast
from likely.nn.flow import ActNorm, Chain, FlowDensity, autoregressive_flow, coupling_flow
from likely.noise import Noise

CodeDensity = Literal["gaussian", "mixture", "flow", "autoregressive"]
# Of expectation-maximisation.
ROUNDS = 60
# Least standard deviation of a component, as a share of that of all codes.
NARROWEST = 0.03


class Startable(nn.Module, abc.ABC):
    """A density over codes that starts at some of them."""

    @abc.abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) in nats, [...]; z [..., Z]."""

    @abc.abstractmethod
    def sample(self, noise: Noise, n: int, dtype: torch.dtype) -> Tensor:
        """Codes drawn from it, [n, Z]."""

    @abc.abstractmethod
    def start_at(self, z: Tensor) -> None:
        """Fit to codes [N, Z] as far as that takes no gradient."""


class FullGaussian(Startable):
    """N(mean, C C'); C lower triangular, the logarithm of its diagonal is kept."""

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(dimensions))
        self.factor = nn.Parameter(torch.zeros(dimensions, dimensions))

    def log_prob(self, z: Tensor) -> Tensor:
        with without_autocast(z.device):
            columns = (z - self.mean).reshape(-1, z.shape[-1]).T
            e = torch.linalg.solve_triangular(self._triangle(), columns, upper=False)
            normal = -0.5 * (e**2 + math.log(2 * math.pi)).sum(0)
            log_prob: Tensor = normal - self.factor.diagonal().sum()
            return log_prob.reshape(z.shape[:-1])

    def sample(self, noise: Noise, n: int, dtype: torch.dtype) -> Tensor:
        e = noise.normal(n, len(self.mean), dtype=dtype)
        return self.mean + e @ self._triangle().T

    @torch.no_grad()
    def start_at(self, z: Tensor) -> None:
        exact = z.double()
        spread = torch.eye(exact.shape[1], dtype=exact.dtype, device=exact.device)
        covariance = exact.T.cov(correction=0).reshape(spread.shape)
        covariance += 1e-6 * (covariance.diagonal().mean() + 1e-6) * spread
        triangle = torch.linalg.cholesky(covariance)
        self.mean.copy_(exact.mean(0))
        self.factor.copy_(triangle.tril(-1) + triangle.diagonal().log().diag())

    def _triangle(self) -> Tensor:
        return self.factor.tril(-1) + self.factor.diagonal().exp().diag()


class WeightedMixture(Startable):
    """sum_k w_k N(z; mean_k, scale_k^2), each with independent coordinates."""

    def __init__(self, dimensions: int, components: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(components))
        self.means = nn.Parameter(torch.randn(components, dimensions))
        self.log_scales = nn.Parameter(torch.zeros(components, dimensions))

    def log_prob(self, z: Tensor) -> Tensor:
        with without_autocast(z.device):
            return self._joint(z).logsumexp(-1)

    def sample(self, noise: Noise, n: int, dtype: torch.dtype) -> Tensor:
        weights = self.logits.softmax(0).double().cumsum(0)
        which = torch.searchsorted(weights, noise.uniform(n)).clamp(max=len(weights) - 1)
        at = noise.normal(n, self.means.shape[1], dtype=dtype)
        return DiagonalGaussian(self.means[which], self.log_scales[which]).sample(at)

    @torch.no_grad()
    def start_at(self, z: Tensor) -> None:
        spread = z.std(0, correction=0).clamp(min=1e-6)
        chosen = torch.arange(len(self.means), device=z.device) * len(z) // len(self.means)
        self.means.copy_(z[chosen])
        self.log_scales.copy_(spread.log().expand_as(self.log_scales))
        self.logits.zero_()
        for _ in range(ROUNDS):
            share = self._joint(z).softmax(-1)  # [N, K]: of each component in each code
            weight = share.sum(0) + 1e-6
            means = share.T @ z / weight[:, None]
            variances = share.T @ z**2 / weight[:, None] - means**2
            self.means.copy_(means)
            self.log_scales.copy_(0.5 * variances.clamp(min=(NARROWEST * spread) ** 2).log())
            self.logits.copy_((weight / weight.sum()).log())

    def _joint(self, z: Tensor) -> Tensor:
        """log w_k + log N(z; mean_k, scale_k^2), [..., K]."""
        each = DiagonalGaussian(self.means, self.log_scales).log_prob(z[..., None, :])
        return each + self.logits.log_softmax(0)


def code_density(
    kind: CodeDensity, dimensions: int, *, components: int, layers: int, hidden: int
) -> Startable | FlowDensity:
    """A density over codes of this many dimensions.

    Args:
        kind: of density.
        dimensions: of a code.
        components: of a mixture.
        layers: couplings or masked maps of a flow.
        hidden: units of each of the two hidden layers of one.
    """
    if kind == "gaussian":
        return FullGaussian(dimensions)
    if kind == "mixture":
        return WeightedMixture(dimensions, components)
    build = coupling_flow if kind == "flow" else autoregressive_flow
    flow = build(dimensions, layers, hidden)
    return FlowDensity(Chain([ActNorm((dimensions,)), flow]), dimensions)
