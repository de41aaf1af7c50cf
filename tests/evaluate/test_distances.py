"""Laws of the distances: closed forms, independent formulas, exact expectations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from likely.errors import InvalidData
from likely.evaluate import distances
from likely.evaluate.distances import (
    frechet_distance,
    frechet_from_moments,
    kernel_distance,
)
from likely.evaluate.manifold import manifold_scores


def normal(n: int, features: int, seed: int, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, features, generator=generator, dtype=torch.float64) * scale + shift


def covariance(features: int, seed: int, rank: int | None = None) -> Tensor:
    root = normal(features, rank or features, seed)
    return root @ root.T


# -- Frechet ----------------------------------------------------------------------------------


def test_frechet_of_commuting_gaussians_is_the_closed_form() -> None:
    """Diagonal covariances: |m|^2 + sum (sqrt a - sqrt b)^2."""
    a, b = torch.tensor([4.0, 1.0, 0.0]), torch.tensor([1.0, 9.0, 0.25])
    mean_a, mean_b = torch.zeros(3), torch.tensor([1.0, 2.0, -2.0])
    expected = 9.0 + 1.0 + 4.0 + 0.25
    assert frechet_from_moments(mean_a, a.diag(), mean_b, b.diag()) == pytest.approx(
        expected, rel=1e-12
    )


@pytest.mark.parametrize("features", [3, 40])
def test_frechet_agrees_with_sqrtm(features: int) -> None:
    a, b = covariance(features, 1), covariance(features, 2)
    mean = normal(2, features, 3)
    root = scipy.linalg.sqrtm((a @ b).numpy())
    expected = float((mean[0] - mean[1]).square().sum() + a.trace() + b.trace())
    expected -= 2.0 * float(np.trace(root).real)
    assert frechet_from_moments(mean[0], a, mean[1], b) == pytest.approx(expected, rel=1e-9)


def test_frechet_of_rank_deficient_sets_in_orthogonal_planes() -> None:
    """With no common direction the cross term is 0: the distance is the sum of the traces."""
    a, b = torch.zeros(10, 10), torch.zeros(10, 10)
    a[:2, :2], b[5:8, 5:8] = covariance(2, 1).float(), covariance(3, 2).float()
    zero = torch.zeros(10)
    expected = float(a.trace() + b.trace())
    assert frechet_from_moments(zero, a, zero, b) == pytest.approx(expected, rel=1e-6)


def test_frechet_of_a_set_with_itself_is_zero_below_full_rank() -> None:
    x = normal(20, 50, 0)
    assert frechet_distance(x, x).value == pytest.approx(0.0, abs=1e-10)
    assert frechet_distance(x, x + 3.0).value == pytest.approx(50 * 9.0, rel=1e-10)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), features=st.integers(1, 8))
def test_frechet_is_symmetric_and_blind_to_rotations(seed: int, features: int) -> None:
    a, b = normal(30, features, seed), normal(25, features, seed + 1, 2.0, 1.0)
    turn = torch.linalg.qr(normal(features, features, seed + 2)).Q
    value = frechet_distance(a, b).value
    assert frechet_distance(b, a).value == pytest.approx(value, rel=1e-9)
    assert frechet_distance(a @ turn, b @ turn).value == pytest.approx(value, rel=1e-8)


def test_frechet_standard_error_is_the_spread_over_repeated_draws() -> None:
    draws = [
        frechet_distance(normal(200, 4, 2 * i, 1.3, 0.4), normal(300, 4, 2 * i + 1))
        for i in range(200)
    ]
    spread = float(np.std([d.value for d in draws], ddof=1))
    claimed = math.sqrt(float(np.mean([d.standard_error**2 for d in draws])))
    assert claimed == pytest.approx(spread, rel=0.2)  # 200 draws know the spread to 5 %


def test_a_negative_eigenvalue_is_refused() -> None:
    with pytest.raises(InvalidData, match="positive semidefinite"):
        frechet_from_moments(
            torch.zeros(2), torch.diag(torch.tensor([1.0, -1.0])), torch.zeros(2), torch.eye(2)
        )


# -- kernel distance --------------------------------------------------------------------------


def naive_mmd(a: Tensor, b: Tensor) -> float:
    def kernel(x: Tensor, y: Tensor) -> float:
        return (float(x @ y) / len(x) + 1.0) ** 3

    n, m = len(a), len(b)
    within_a = sum(kernel(a[i], a[j]) for i in range(n) for j in range(n) if i != j)
    within_b = sum(kernel(b[i], b[j]) for i in range(m) for j in range(m) if i != j)
    cross = sum(kernel(x, y) for x in a for y in b)
    return within_a / (n * (n - 1)) + within_b / (m * (m - 1)) - 2.0 * cross / (n * m)


def test_kernel_distance_is_its_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = normal(7, 3, 0), normal(5, 3, 1, 2.0, 1.0)
    monkeypatch.setattr(distances, "BLOCK_VALUES", 11)  # several blocks
    assert kernel_distance(a, b).value == pytest.approx(naive_mmd(a, b), rel=1e-12)


def test_kernel_jackknife_is_leave_one_out() -> None:
    a, b = normal(6, 3, 0), normal(5, 3, 1, 1.5)
    left_a = np.array([naive_mmd(torch.cat([a[:i], a[i + 1 :]]), b) for i in range(6)])
    left_b = np.array([naive_mmd(a, torch.cat([b[:i], b[i + 1 :]])) for i in range(5)])
    expected = math.sqrt(left_a.var() * 5 + left_b.var() * 4)
    assert kernel_distance(a, b).standard_error == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("block_size", [None, 15])
def test_kernel_distance_is_unbiased_and_its_error_honest(block_size: int | None) -> None:
    draws = [
        kernel_distance(normal(60, 5, 2 * i), normal(60, 5, 2 * i + 1), block_size=block_size)
        for i in range(300)
    ]
    values = np.array([d.value for d in draws])
    assert abs(values.mean()) < 3.5 * values.std(ddof=1) / math.sqrt(len(values))
    claimed = math.sqrt(float(np.mean([d.standard_error**2 for d in draws])))
    assert claimed > 0.85 * values.std(ddof=1)  # never much too small
    assert claimed < 3.0 * values.std(ddof=1)


def test_kernel_distance_sees_a_shift() -> None:
    moved = kernel_distance(normal(300, 4, 0), normal(300, 4, 1, shift=0.5))
    assert moved.value > 5.0 * moved.standard_error


# -- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", [frechet_distance, kernel_distance, manifold_scores])
def test_bad_features_are_refused(measure: object) -> None:
    assert callable(measure)
    good, bad = normal(10, 3, 0), normal(10, 3, 1)
    bad[4, 1] = math.nan
    with pytest.raises(InvalidData, match="not a number"):
        measure(good, bad)
    with pytest.raises(InvalidData, match="same features"):
        measure(good, normal(10, 4, 0))
    with pytest.raises(InvalidData, match="at least 2"):
        measure(good, good[:1])
