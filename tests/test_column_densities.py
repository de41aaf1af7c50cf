"""The densities of one column of a step: three ways to ask for the same probabilities."""

import itertools

import pytest
import torch
from torch import Tensor

from likely.density.sequence.bins import Binary, Bins, ColumnDensity, Components, Histogram, Table

B = 3
LEVELS = 11


def _numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _bins(family: str) -> ColumnDensity:
    mixture = Components(
        _numbers(B, 2).log_softmax(1), 5 + 4 * _numbers(B, 2), (0.5 * _numbers(B, 2)).exp()
    )
    return Bins(LEVELS, mixture, family)  # type: ignore[arg-type]


DENSITIES: dict[str, ColumnDensity] = {
    "binary": Binary(_numbers(B)),
    "table": Table(_numbers(B, LEVELS).log_softmax(1)),
    "histogram": Histogram(_numbers(B, 4).softmax(1), torch.tensor([0, 1, 4, 9]), LEVELS),
    **{family: _bins(family) for family in ("logistic", "student-t", "gaussian")},
}


@pytest.mark.parametrize("name", DENSITIES)
def test_masses_draws_and_the_probability_of_a_level_agree(name: str) -> None:
    density = DENSITIES[name]
    levels = range(density.levels)
    p = torch.stack([density.log_prob(torch.full((B,), v)).exp() for v in levels], 1)
    torch.testing.assert_close(p.sum(1), torch.ones(B, dtype=torch.float64))

    borders = [0, 1, density.levels // 2, density.levels]
    edges = torch.tensor([borders]).expand(B, -1)
    masses = density.log_masses(edges).exp()
    for i, (first, stop) in enumerate(itertools.pairwise(borders)):
        torch.testing.assert_close(masses[:, i], p[:, first:stop].sum(1))

    # A uniform number in the middle of a level's interval of probabilities draws that level.
    above = p.cumsum(1)
    assert ((p > 1e-9).sum(1) > 1).all()
    for v in levels:
        drawn = density.quantile(above[:, v] - p[:, v] / 2)
        assert ((drawn == v) | (p[:, v] < 1e-9)).all()
