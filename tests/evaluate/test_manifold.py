"""Laws of precision, recall, density and coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from likely.errors import InvalidSetting
from likely.evaluate import distances
from likely.evaluate.manifold import GROUPS, Manifold, expected_coverage, manifold_scores

NAMES = ("precision", "recall", "density", "coverage")


def normal(n: int, features: int, seed: int, scale: float = 1.0, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, features, generator=generator, dtype=torch.float64) * scale + shift


def values_of(scores: Manifold) -> np.ndarray:
    return np.array([getattr(scores, name).value for name in NAMES])


def errors_of(scores: Manifold) -> np.ndarray:
    return np.array([getattr(scores, name).standard_error for name in NAMES])


def naive_scores(real: Tensor, fake: Tensor, k: int) -> tuple[float, float, float, float]:
    def radius(points: Tensor, i: int) -> float:
        others = [float((points[i] - points[j]).norm()) for j in range(len(points)) if j != i]
        return sorted(others)[k - 1]

    real_radius = [radius(real, i) for i in range(len(real))]
    fake_radius = [radius(fake, j) for j in range(len(fake))]
    near = np.array([[float((r - f).norm()) for f in fake] for r in real])
    inside = near < np.array(real_radius)[:, None]
    recalled = near < np.array(fake_radius)[None, :]
    return (
        float(inside.any(0).mean()),
        float(recalled.any(1).mean()),
        float(inside.sum(0).mean()) / k,
        float(inside.any(1).mean()),
    )


@pytest.mark.parametrize(("n", "m", "k"), [(20, 13, 3), (9, 30, 1)])
def test_scores_are_their_definitions(
    n: int, m: int, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distances, "BLOCK_VALUES", 50)  # several blocks
    real, fake = normal(n, 2, n), normal(m, 2, m, 1.3, 0.3)
    scores = manifold_scores(real, fake, k=k)
    found = (scores.precision, scores.recall, scores.density, scores.coverage)
    assert [f.value for f in found] == pytest.approx(naive_scores(real, fake, k), abs=1e-12)


@pytest.mark.parametrize("features", [1, 40])
def test_equal_distributions_have_the_exact_expectations(features: int) -> None:
    """Density 1 and coverage 1 - prod (N-1-i)/(N+M-1-i), whatever the dimension."""
    n, m, k, repeats = 40, 60, 3, 250
    scores = [
        manifold_scores(normal(n, features, 2 * i), normal(m, features, 2 * i + 1), k=k)
        for i in range(repeats)
    ]
    density = np.array([s.density.value for s in scores])
    coverage = np.array([s.coverage.value for s in scores])
    for values, expected in ((density, 1.0), (coverage, expected_coverage(n, m, k))):
        assert abs(values.mean() - expected) < 3.5 * values.std(ddof=1) / math.sqrt(repeats)


def test_a_copy_has_density_one_exactly_because_ties_are_not_inside() -> None:
    x = normal(200, 30, 0) + 1000.0  # far from the origin, so that rounding would show
    scores = manifold_scores(x, x.clone(), k=5)
    assert scores.density.value == pytest.approx(1.0, abs=1e-12)
    assert scores.precision.value == scores.recall.value == scores.coverage.value == 1.0
    assert scores.coverage.standard_error > 0.0  # 200 of 200 is not certainty


def test_points_on_the_rim_of_a_ball_are_outside_whatever_the_rounding() -> None:
    """A lattice on a slanted line, k = 2: an open unit ball holds its centre and nothing else."""
    steps = torch.arange(41, dtype=torch.float64)
    direction = torch.nn.functional.normalize(normal(1, 30, 0), dim=1)
    real, fake = steps[:40, None] * direction + 5.0, steps[1:, None] * direction + 5.0
    scores = manifold_scores(real, fake, k=2)
    # 38 inner balls hold one fake; the first (radius 2) holds one, the last (radius 2) three.
    assert scores.density.value == pytest.approx(42 / 80, abs=1e-12)


def test_errors_are_a_jackknife_over_groups_of_both_sets() -> None:
    """Against recomputing the scores without each group."""
    real, fake = normal(83, 3, 0), normal(65, 3, 1, 1.4, 0.5)
    k, expected = 3, np.zeros(4)
    in_group = [torch.arange(len(x)) % GROUPS for x in (real, fake)]
    for side in (0, 1):
        left_out = []
        for group in range(GROUPS):
            sets = [real, fake]
            sets[side] = sets[side][in_group[side] != group]
            left_out.append(values_of(manifold_scores(sets[0], sets[1], k=k)))
        expected += np.var(left_out, axis=0) * (GROUPS - 1)
    scores = manifold_scores(real, fake, k=k)
    share = (values_of(scores) * [65, 83, 0, 83] + 2) / (np.array([65, 83, 0, 83]) + 4)
    binomial = np.sqrt(share * (1 - share) / (np.array([65, 83, 0, 83]) + 4))
    binomial[2] = 0.0
    assert errors_of(scores) == pytest.approx(np.maximum(np.sqrt(expected), binomial), rel=1e-9)


@pytest.mark.parametrize("features", [3, 40])
def test_errors_are_not_too_small(features: int) -> None:
    scores = [
        manifold_scores(normal(100, features, 2 * i), normal(100, features, 2 * i + 1, 1.2))
        for i in range(60)
    ]
    spread = np.std([values_of(s) for s in scores], axis=0, ddof=1)
    claimed = np.sqrt(np.mean([errors_of(s) ** 2 for s in scores], axis=0))
    assert (claimed > 0.8 * spread).all(), (claimed, spread)  # 60 draws know a spread to 9 %
    assert (claimed < 4.0 * spread).all(), (claimed, spread)


def test_far_fakes_score_zero() -> None:
    scores = manifold_scores(normal(50, 3, 0), normal(50, 3, 1, shift=100.0))
    assert (scores.precision.value, scores.recall.value, scores.density.value) == (0.0, 0.0, 0.0)


def test_one_mode_of_two_has_precision_and_half_coverage() -> None:
    real = torch.cat([normal(100, 3, 0), normal(100, 3, 1, shift=50.0)])
    scores = manifold_scores(real, normal(200, 3, 2))
    assert scores.precision.value > 0.8
    assert scores.coverage.value == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("k", [0, 20])
def test_an_impossible_k_is_refused(k: int) -> None:
    with pytest.raises(InvalidSetting, match="k must be in"):
        manifold_scores(normal(20, 2, 0), normal(30, 2, 1), k=k)
