"""Weights between pixels under the hierarchical prior: the formula, entry by entry."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from likely.nn.local import LocalWeights, Spread

SPREAD = Spread(shared=2.0, blocks=((2, 1.5), (3, 0.7)), each=0.4)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (5, 3), (1, 4)])
@pytest.mark.parametrize(("above", "below"), [(1, 1), (2, 3)])
def test_a_weight_is_the_sum_of_its_parts_by_offset_and_block(
    height: int, width: int, above: int, below: int
) -> None:
    weights = LocalWeights(height, width, above, below, SPREAD).double()
    generator = torch.Generator().manual_seed(0)
    for part in weights.parts:
        nn.init.normal_(part, generator=generator)
    pixels = list(itertools.product(range(height), range(width)))
    own = torch.randn(
        len(pixels) * above, len(pixels) * below, generator=generator, dtype=torch.float64
    )
    found = weights(own)
    # What each block shares, by (block, pair of features, offset), as it is met first.
    shared: list[dict[tuple[object, ...], float]] = [{}, {}, {}]
    sides = [(height, width), (2, 2), (3, 3)]
    levels = [
        weights.spread_out(part, *side) for part, side in zip(weights.parts, sides, strict=True)
    ]
    for (p, a), (q, b) in itertools.product(enumerate(pixels), enumerate(pixels)):
        offset = (b[0] - a[0], b[1] - a[1])
        for i, j in itertools.product(range(above), range(below)):
            total = SPREAD.each * float(own[p * above + i, q * below + j])
            for known, (down, across), level, deviation in zip(
                shared, sides, levels, (2.0, 1.5, 0.7), strict=True
            ):
                value = float(level[p, i, q, j].detach())
                key = (a[0] // down, a[1] // across, i, j, offset)
                assert known.setdefault(key, value) == value
                total += deviation * value
            total /= 1 + math.hypot(*offset) / 2
            weight = float(found[p * above + i, q * below + j].detach())
            assert weight == pytest.approx(total, abs=1e-6)
    # Nothing else is shared.
    for known in shared:
        assert len(set(known.values())) == len(known)


def test_the_prior_is_a_standard_normal_of_every_part() -> None:
    weights = LocalWeights(3, 2, 2, 1, SPREAD, start=0.5).double()
    own = torch.randn(12, 6, dtype=torch.float64)
    normal = torch.distributions.Normal(0.0, 1.0)
    parts = [*weights.parts, own]
    numbers = sum(part.numel() for part in parts)
    expected = -sum(normal.log_prob(part).sum() for part in parts)
    constant = numbers * 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(weights.negative_log_prior(own), expected - constant)
    assert float(weights.parts[0].detach().std()) > 0.2
    assert not any(bool(part.detach().any()) for part in weights.parts[1:])
