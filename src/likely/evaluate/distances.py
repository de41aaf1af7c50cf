"""Distances between two sets of feature vectors, in float64, with standard errors.

Frechet distance between the Gaussians with the moments of the two sets (Heusel et al. 2017,
equation 6; Dowson and Landau 1982):

    d^2 = |m_a - m_b|^2 + tr(S_a) + tr(S_b) - 2 tr((S_a^(1/2) S_b S_a^(1/2))^(1/2))

It is biased upwards at small N, so it is compared at equal N only. Kernel distance (KID,
Binkowski et al. 2018): the unbiased estimate of the squared maximum mean discrepancy with
k(x, y) = (x.y / F + 1)^3. Every matrix of pairs is made in blocks, so memory is bounded.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from likely.errors import InvalidData, InvalidSetting

# Rows of one block of a distance matrix are chosen so that the block holds at most this many
# float64 values (32 MiB).
BLOCK_VALUES = 1 << 22


@dataclasses.dataclass(frozen=True)
class Measured:
    """A number with its standard error."""

    value: float
    standard_error: float


@dataclasses.dataclass(frozen=True)
class KernelDistance(Measured):
    """Unbiased squared maximum mean discrepancy.

    Attributes:
        value: may be negative: its mean is 0 when the distributions are equal.
        blocks: number of disjoint blocks that were averaged; 1 for the statistic over all pairs.
    """

    blocks: int


def share_of(hits: float, n: int) -> Measured:
    """hits / n, its error that of a share moved off 0 and 1 (Agresti and Coull 1998)."""
    moved = (hits + 2.0) / (n + 4.0)
    return Measured(hits / n, math.sqrt(moved * (1.0 - moved) / (n + 4.0)))


def checked_features(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both sets as float64 [N, F] and [M, F]; refuses what no distance is defined for."""
    for features in (a, b):
        if features.ndim != 2:
            raise InvalidData(f"expected features of shape [N, F], given {list(features.shape)}")
        if len(features) < 2:
            raise InvalidData(f"a distance needs at least 2 examples a side, given {len(features)}")
        if not bool(torch.isfinite(features).all()):
            raise InvalidData("the features hold a value that is infinite or not a number")
    if a.shape[1] != b.shape[1]:
        raise InvalidData(
            f"expected the same features on both sides, given {a.shape[1]} and {b.shape[1]}"
        )
    return a.detach().double(), b.detach().double()


def row_blocks(rows: int, columns: int) -> Iterator[slice]:
    """Slices of the rows of a matrix such that each block holds at most BLOCK_VALUES values."""
    size = max(1, BLOCK_VALUES // columns)
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


# -- Frechet ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Moments:
    """Mean [F], and covariance = vectors diag(values) vectors^T with rank-many columns."""

    mean: Tensor
    values: Tensor
    vectors: Tensor

    @property
    def root(self) -> Tensor:
        """L with L L^T the covariance, [F, rank]."""
        return self.vectors * self.values.sqrt()


def _moments(mean: Tensor, covariance: Tensor) -> _Moments:
    values, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
    # Below this an eigenvalue is rounding noise, whose square root would be added F times.
    floor = float(values.abs().max()) * len(values) * torch.finfo(torch.float64).eps
    if float(values.min()) < -10.0 * floor - 1e-300:
        raise InvalidData(
            f"a covariance matrix must be positive semidefinite; its least eigenvalue is "
            f"{float(values.min()):.3g}"
        )
    keep = values > floor
    return _Moments(mean, values[keep], vectors[:, keep])


def _moments_of(x: Tensor) -> _Moments:
    centred = x - x.mean(0)
    return _moments(x.mean(0), centred.T @ centred / (len(x) - 1))


def _frechet(a: _Moments, b: _Moments) -> float:
    # The trace of the square root is the nuclear norm of L_a^T L_b: no product of covariances,
    # so no loss of half the digits.
    cross = torch.linalg.svdvals(a.root.T @ b.root).sum()
    square = (a.mean - b.mean).square().sum() + a.values.sum() + b.values.sum() - 2.0 * cross
    return max(0.0, float(square))


def frechet_from_moments(
    mean_a: Tensor, covariance_a: Tensor, mean_b: Tensor, covariance_b: Tensor
) -> float:
    """Squared Frechet distance of two Gaussians of means [F] and covariances [F, F]; at least 0.

    Covariances may be rank-deficient; rounding below 0 is cut.

    Raises:
        InvalidData: a matrix with a negative eigenvalue.
    """
    return _frechet(
        _moments(mean_a.double(), covariance_a.double()),
        _moments(mean_b.double(), covariance_b.double()),
    )


def frechet_distance(a: Tensor, b: Tensor) -> Measured:
    """Squared Frechet distance of the Gaussians fitted to two sets of features.

    The standard error is by the delta method: the derivative of the distance in the covariance
    of a is 1 - T_ab, where T_ab is the optimal transport map between the Gaussians, so that one
    example x of a moves the distance by

        2 (m_a - m_b).(x - m_a) + |x - m_a|^2 - w^T (S_a^(1/2) S_b S_a^(1/2))^(1/2) w,

    w = S_a^(-1/2) (x - m_a). It says nothing about the bias, which falls as 1 / N.

    Args:
        a: features, [N, F].
        b: features, [M, F].

    Returns:
        The squared distance and its standard error over the examples of both sides.
    """
    a, b = checked_features(a, b)
    moments_a, moments_b = _moments_of(a), _moments_of(b)
    variance = _influence(a, moments_a, moments_b).var() / len(a)
    variance += _influence(b, moments_b, moments_a).var() / len(b)
    return Measured(_frechet(moments_a, moments_b), math.sqrt(float(variance)))


def _influence(x: Tensor, moments: _Moments, other: _Moments) -> Tensor:
    """First-order effect of each example of `x` on the squared distance, [N]."""
    centred = x - moments.mean  # [N, F]
    first: Tensor = 2.0 * centred @ (moments.mean - other.mean)  # [N]
    if len(moments.values) == 0:
        return first
    white = centred @ (moments.vectors / moments.values.sqrt())  # [N, rank], the w of the docstring
    left, singular, _ = torch.linalg.svd(moments.root.T @ other.root, full_matrices=False)
    second: Tensor = centred.square().sum(1) - ((white @ left).square() * singular).sum(1)
    return first + second


# -- kernel distance --------------------------------------------------------------------------


def _kernel_sums(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column sums of (a.b / F + 1)^3 over all pairs, in blocks: [N], [M]."""
    by_row, by_column = [], torch.zeros(len(b), dtype=torch.float64, device=b.device)
    for rows in row_blocks(len(a), len(b)):
        block = (a[rows] @ b.T / a.shape[1] + 1.0) ** 3
        by_row.append(block.sum(1))
        by_column += block.sum(0)
    return torch.cat(by_row), by_column


def _mmd(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Unbiased squared MMD over all pairs, and its jackknife standard error.

    The jackknife leaves out one example of one side at a time. Its variance is never too small
    on average (Efron and Stein 1981).
    """
    n, m = len(a), len(b)
    own_a = _kernel_sums(a, a)[0] - (a.square().sum(1) / a.shape[1] + 1.0) ** 3  # [N], j != i
    own_b = _kernel_sums(b, b)[0] - (b.square().sum(1) / b.shape[1] + 1.0) ** 3
    cross_a, cross_b = _kernel_sums(a, b)
    within_a, within_b, cross = own_a.sum(), own_b.sum(), cross_a.sum()
    mean_a, mean_b = within_a / (n * (n - 1)), within_b / (m * (m - 1))
    value = mean_a + mean_b - 2.0 * cross / (n * m)
    variance = torch.zeros((), dtype=torch.float64, device=a.device)
    if n > 2:
        left_out = (within_a - 2.0 * own_a) / ((n - 1) * (n - 2)) + mean_b
        left_out = left_out - 2.0 * (cross - cross_a) / ((n - 1) * m)
        variance = variance + left_out.var(correction=0) * (n - 1)
    if m > 2:
        left_out = (within_b - 2.0 * own_b) / ((m - 1) * (m - 2)) + mean_a
        left_out = left_out - 2.0 * (cross - cross_b) / (n * (m - 1))
        variance = variance + left_out.var(correction=0) * (m - 1)
    return float(value), math.sqrt(float(variance))


def kernel_distance(
    a: Tensor, b: Tensor, *, block_size: int | None = None, seed: int = 0
) -> KernelDistance:
    """Kernel distance (KID): unbiased squared MMD with the kernel (x.y / F + 1)^3.

    Args:
        a: features, [N, F].
        b: features, [M, F].
        block_size: None takes all pairs, with a jackknife standard error. A number takes the
            mean over disjoint random blocks of that many examples a side, whose spread gives the
            standard error: linear cost in N, the same expectation, more noise.
        seed: of the order in which examples go into blocks.

    Returns:
        The distance (unbiased, so possibly negative), standard error and number of blocks.
    """
    a, b = checked_features(a, b)
    if block_size is None:
        return KernelDistance(*_mmd(a, b), 1)
    blocks = min(len(a), len(b)) // max(block_size, 1)
    if block_size < 2 or blocks < 2:
        raise InvalidSetting(
            f"block_size must leave at least two blocks of at least 2 examples, given {block_size} "
            f"for {len(a)} and {len(b)} examples"
        )
    generator = torch.Generator().manual_seed(seed)
    order_a = torch.randperm(len(a), generator=generator)[: blocks * block_size]
    order_b = torch.randperm(len(b), generator=generator)[: blocks * block_size]
    pairs = zip(order_a.reshape(blocks, -1), order_b.reshape(blocks, -1), strict=True)
    values = torch.tensor([_mmd(a[i], b[j])[0] for i, j in pairs], dtype=torch.float64)
    return KernelDistance(float(values.mean()), float(values.std()) / math.sqrt(blocks), blocks)


# -- distance matrices -----------------------------------------------------------------------


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared Euclidean distances, [N, M], of float64 [N, F] and [M, F].

    Exact for integer values with |x|^2 < 2^52, else to about 1e-15 |x|^2.
    """
    square = a.square().sum(1)[:, None] + b.square().sum(1)[None, :]
    return torch.addmm(square, a, b.T, alpha=-2.0).clamp_(min=0.0)
