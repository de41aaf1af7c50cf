"""Precision, recall, density and coverage: which samples lie among the data, and the reverse.

Each point gets a ball that reaches to its k-th nearest other point of its own set. With real
points r_i (i < N), fakes f_j (j < M) and balls B:

    precision = mean_j 1[f_j in some B(r_i)]        recall   = mean_i 1[r_i in some B(f_j)]
    density   = mean_j #{i: f_j in B(r_i)} / k      coverage = mean_i 1[some f_j in B(r_i)]

Precision and recall: Kynkaanniemi et al. 2019, equation 2. Density and coverage: Naeem et al.
2020, equations 3 and 4.

Deviations: the balls are open (strict <) and a radius never counts the point itself, for all
four scores, so that the expectations for equal distributions are exact (`expected_coverage`).
Distances that agree to rounding count as equal. Standard errors come from a jackknife over
groups of both sets; its variance is never too small on average (Efron and Stein 1981), while the
usual binomial error takes the balls as given and is too small by up to a half.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from likely.errors import InvalidSetting
from likely.evaluate import distances
from likely.evaluate.distances import Measured, checked_features, row_blocks, squared_distances

# Groups a side of the jackknife.
GROUPS = 10


@dataclasses.dataclass(frozen=True)
class Manifold:
    """The four scores."""

    precision: Measured
    recall: Measured
    density: Measured
    coverage: Measured


def expected_coverage(n: int, m: int, k: int) -> float:
    """Coverage that equal distributions have on average: 1 - prod_{i<k} (N-1-i)/(N+M-1-i).

    Naeem et al. 2020, lemma 2, for N real and M fake examples and k neighbours. It depends on no
    dimension and no law, as long as there are no ties.

    >>> round(expected_coverage(10_000, 10_000, 5), 4)
    0.9688
    """
    return 1.0 - math.prod((n - 1 - i) / (n + m - 1 - i) for i in range(k))


def manifold_scores(real: Tensor, fake: Tensor, *, k: int = 5) -> Manifold:
    """Precision, recall, density and coverage of `fake` against `real`.

    For equal distributions density is 1 and coverage is `expected_coverage` on average, in any
    dimension; precision and recall are not 1.

    Args:
        real: features, [N, F].
        fake: features, [M, F].
        k: neighbours that make a ball, less than both N and M.

    Returns:
        The four scores with jackknife standard errors; that of a share is never below the
        binomial one moved off 0 and 1 (Agresti and Coull 1998).

    Raises:
        InvalidData: features that are not finite or do not match.
        InvalidSetting: k too large for the sets.
    """
    real, fake = checked_features(real, fake)
    n, m = len(real), len(fake)
    if not 1 <= k < min(n, m):
        raise InvalidSetting(f"k must be in [1, {min(n, m) - 1}] here, given {k}")
    centre = real.mean(0)  # a common shift changes no distance and saves digits
    real, fake = real - centre, fake - centre
    largest = max(float(real.square().sum(1).max()), float(fake.square().sum(1).max()))
    slack = 1e-13 * largest  # two distances closer than this are a tie, not a strict <
    groups_real, groups_fake = _groups(n, real.device), _groups(m, fake.device)
    balls = _Balls(n, m, k, groups_real, groups_fake)
    real_radii = _radii(real, k, groups_real) - slack  # [1 + GROUPS, N]
    fake_radii = _radii(fake, k, groups_fake) - slack  # [1 + GROUPS, M]
    for rows in row_blocks(n, m):
        balls.add(rows, squared_distances(real[rows], fake), real_radii, fake_radii)
    return balls.scores()


def _groups(n: int, device: torch.device) -> Tensor:
    return torch.arange(n, device=device) % GROUPS


def _radii(x: Tensor, k: int, groups: Tensor) -> Tensor:
    """Squared radius of each ball: row 0 with all points, row 1 + g without group g, [1 + G, N].

    Without a group the k-th of the remaining neighbours is sought among the 4 k + 4 nearest; in
    the rare case that these do not hold k remaining ones, the farthest of them is taken.
    """
    depth = min(4 * k + 4, len(x) - 1)
    radii = []
    for rows in row_blocks(len(x), len(x)):
        block = squared_distances(x[rows], x)
        diagonal = torch.arange(len(block), device=x.device)
        block[diagonal, diagonal + rows.start] = math.inf
        near = block.topk(depth, dim=1, largest=False, sorted=True)  # [rows, depth]
        columns = [near.values[:, k - 1]]
        for group in range(GROUPS):
            rank = (groups[near.indices] != group).cumsum(1)  # how many remain up to here
            place = (rank < k).sum(1).clamp(max=depth - 1)
            columns.append(near.values.gather(1, place[:, None])[:, 0])
        radii.append(torch.stack(columns))
    return torch.cat(radii, dim=1)


class _Balls:
    """Counts of who lies in whose ball, with all points and with each group left out."""

    def __init__(self, n: int, m: int, k: int, groups_real: Tensor, groups_fake: Tensor) -> None:
        self.n, self.m, self.k = n, m, k
        self.groups_real, self.groups_fake = groups_real, groups_fake
        device = groups_real.device
        # Variant 0 has all points; variant 1 + g lacks group g of the reals (for what depends on
        # balls of reals seen by fakes) or of the fakes (the other way round).
        self.balls_of_fake = torch.zeros(1 + GROUPS, m, dtype=torch.int64, device=device)
        self.covered = torch.zeros(1 + GROUPS, n, dtype=torch.bool, device=device)
        self.covered_without = torch.zeros(GROUPS, n, dtype=torch.bool, device=device)
        self.recalled = torch.zeros(1 + GROUPS, n, dtype=torch.bool, device=device)

    def add(self, rows: slice, block: Tensor, real_radii: Tensor, fake_radii: Tensor) -> None:
        """Take in the squared distances of some reals to all fakes, [rows, M]."""
        group_of_row = self.groups_real[rows]
        for variant in range(1 + GROUPS):
            inside = block < real_radii[variant, rows, None]
            self.covered[variant, rows] = inside.any(1)
            # Group -1 is nobody's, so variant 0 keeps every row.
            self.balls_of_fake[variant] += inside[group_of_row != variant - 1].sum(0)
            if variant == 0:
                for group in range(GROUPS):
                    kept = inside[:, self.groups_fake != group]
                    self.covered_without[group, rows] = kept.any(1)
            reached = block < fake_radii[variant]
            reached[:, self.groups_fake == variant - 1] = False
            self.recalled[variant, rows] = reached.any(1)

    def scores(self) -> Manifold:
        precise, density = self.balls_of_fake > 0, self.balls_of_fake.double() / self.k
        without_real, without_fake = [], []  # each score with each group left out
        for group in range(GROUPS):
            reals, fakes = self.groups_real != group, self.groups_fake != group
            lacking_real = precise[1 + group], self.recalled[0, reals], density[1 + group]
            without_real.append([*lacking_real, self.covered[1 + group, reals]])
            lacking_fake = precise[0, fakes], self.recalled[1 + group], density[0, fakes]
            without_fake.append([*lacking_fake, self.covered_without[group]])
        errors = [
            math.hypot(_jackknife(real), _jackknife(fake))
            for real, fake in zip(
                zip(*without_real, strict=True), zip(*without_fake, strict=True), strict=True
            )
        ]
        return Manifold(
            _share(precise[0], errors[0]),
            _share(self.recalled[0], errors[1]),
            Measured(_mean(density[0]), errors[2]),
            _share(self.covered[0], errors[3]),
        )


def _mean(values: Tensor) -> float:
    return float(values.double().mean())


def _jackknife(left_out: Sequence[Tensor]) -> float:
    """Standard error of a mean from its values with one group left out in turn."""
    means = [_mean(values) for values in left_out]
    centre = math.fsum(means) / len(means)
    spread = math.fsum((mean - centre) ** 2 for mean in means)
    return math.sqrt((len(means) - 1) / len(means) * spread)


def _share(hit: Tensor, error: float) -> Measured:
    share = distances.share_of(int(hit.sum()), len(hit))
    return Measured(share.value, max(error, share.standard_error))
