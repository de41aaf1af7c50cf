"""Codes z of Gaussian densities, read from a stack and written to it.

A coordinate of z is a multiple of 2^-10. It is written in two parts: a cell, of a width between a
sixteenth and an eighth of the Gaussian's scale, and evenly where it is in the cell. For codes that
are drawn, there are only as many cells as reach six scales or more: the least frequency that the
coder knows would draw cells far out too often.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import log_ndtr
from torch import Tensor

from likely.ask.codec.frequencies import Stack, frequencies, rows
from likely.density import (
    DiagonalGaussian,
    LatentVariable,
    LayeredPosterior,
    LayeredPrior,
    Posterior,
    StandardNormal,
)
from likely.errors import InvalidData

FINE = 10  # z is a multiple of 2^-FINE
# Cells of q(z | x), which reach 6 to 12 scales from the mean, and of p(z): 128 to 256.
NEAR, FAR = 192, 4096

Choose = Callable[[DiagonalGaussian], Tensor]  # a layer's codes [B, Z_l], given their density
Through = Callable[[Choose], None]  # all layers from the top


def has_gaussian_codes(model: LatentVariable) -> bool:
    """Whether p(z) and q(z | x) are Gaussians, coordinate by coordinate, in layers perhaps."""
    shape = model.context_shape
    blank = torch.zeros(1, *shape) if shape else torch.zeros(1, dtype=torch.int64)
    context = model.labels(blank if shape or model.classes else None, 1)
    with torch.no_grad():
        q = model.posterior(torch.zeros(1, *model.spec.grid, dtype=torch.int64), context)
    return isinstance(model.prior, StandardNormal | LayeredPrior) and isinstance(
        q, DiagonalGaussian | LayeredPosterior
    )


def through_posterior(q: Posterior) -> Through:
    """The layers of q(z | x)."""
    if isinstance(q, LayeredPosterior):
        layered = q
        return lambda choose: _ignored(layered.chosen(lambda _, of_layer: choose(of_layer)))
    assert isinstance(q, DiagonalGaussian)
    return lambda choose: _ignored(choose(q))


def through_prior(model: LatentVariable, n: int) -> Through:
    """The layers of p(z), for n examples."""
    prior = model.prior
    if isinstance(prior, LayeredPrior):
        return lambda choose: _ignored(prior.chosen(n, lambda of_layer, _: choose(of_layer)))
    zeros = torch.zeros(n, model.latent, dtype=next(model.parameters()).dtype, device=model.device)
    return lambda choose: _ignored(choose(DiagonalGaussian(zeros, zeros)))


def _ignored(_: object) -> None:
    """A result that nobody needs."""


def pop_codes(stack: Stack, cells: int, through: Through) -> tuple[list[Tensor], Tensor]:
    """Read codes; (those of each layer [B, Z_l], their log density, nats [B])."""
    codes: list[Tensor] = []
    logs: list[Tensor] = []

    def choose(density: DiagonalGaussian) -> Tensor:
        z = _Cells(density, cells).pop(stack)
        codes.append(z)
        logs.append(_log_prob(density, z))
        return z

    through(choose)
    return codes, torch.stack(logs).sum(0)


def push_codes(stack: Stack, codes: Sequence[Tensor], cells: int, through: Through) -> Tensor:
    """Write codes so that `pop_codes` reads them; their log density, nats [B]."""
    densities: list[DiagonalGaussian] = []

    def choose(density: DiagonalGaussian) -> Tensor:
        densities.append(density)
        return codes[len(densities) - 1]

    through(choose)
    logs = []
    for density, z in reversed(list(zip(densities, codes, strict=True))):
        _Cells(density, cells).push(stack, z)
        logs.append(_log_prob(density, z))
    return torch.stack(logs).sum(0)


def _log_prob(density: DiagonalGaussian, z: Tensor) -> Tensor:
    exact = DiagonalGaussian(density.mean.double(), density.log_scale.double())
    return exact.log_prob(z.double()).cpu()


class _Cells:
    """A Gaussian over multiples of 2^-FINE, coordinate by coordinate; see the module."""

    def __init__(self, density: DiagonalGaussian, count: int) -> None:
        self.like = density.mean
        mean = density.mean.double().cpu().numpy().ravel()
        scale = density.log_scale.double().exp().cpu().numpy().ravel()
        exponent = np.floor(np.log2(scale)).astype(np.int64) - 3 + FINE
        self.steps = np.int64(1) << exponent.clip(1, 20)  # in a cell
        width = self.steps * 2.0**-FINE
        self.first = np.floor(mean / width).astype(np.int64) - count // 2
        edges = (self.first[:, None] + np.arange(count + 1)) * width[:, None]
        self.rows = rows(frequencies(_log_mass((edges - mean[:, None]) / scale[:, None])))

    def pop(self, stack: Stack) -> Tensor:
        """Read the coordinates, [B, Z]."""
        cell = stack.pop(self.rows) + self.first
        whole = cell * self.steps + stack.pop_uniform(self.steps)
        return torch.from_numpy(whole * 2.0**-FINE).to(self.like).view(self.like.shape)

    def push(self, stack: Stack, z: Tensor) -> None:
        """Write coordinates that are multiples of 2^-FINE.

        Raises:
            InvalidData: a cell further out than there are.
        """
        whole = (z.double().cpu().numpy().ravel() * 2.0**FINE).round().astype(np.int64)
        cell, within = np.divmod(whole, self.steps)
        cell -= self.first
        if cell.min() < 0 or cell.max() >= self.rows.shape[1]:
            raise InvalidData("the code of an example is too far from the prior to be written")
        stack.push_uniform(within, self.steps)
        stack.push(cell, self.rows)


def _log_mass(edges: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Log of the standard normal's mass between edges, which rise along the last side."""
    # By symmetry all are taken on the left, where the difference of tails is accurate.
    right = edges[..., :-1] > 0
    low = log_ndtr(np.where(right, -edges[..., 1:], edges[..., :-1]))
    high = log_ndtr(np.where(right, -edges[..., :-1], edges[..., 1:]))
    mass: npt.NDArray[np.float64] = high + np.log1p(-np.exp(low - high))
    return mass
