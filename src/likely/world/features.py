r"""Monomials of a state's variables, and ridge regression on them.

Each variable is scaled by its box to [-1, 1], and an angle stands as its cosine and sine. So a
monomial that the data hardly moves is small, the penalty keeps its weight near 0, and far from the
data the regression stays with the lower degrees.

    w = argmin |y - m - X w|^2 + penalty |w|^2

The penalty is the one, of a list, with the smallest leave-one-out error, which needs no refit: with
the hat matrix H, the error of row i left out is e_i / (1 - H_ii) (Allen 1974, PRESS,
https://doi.org/10.1080/00401706.1974.10489157).
"""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np

from likely.errors import InvalidSetting
from likely.mdp.model.arrays import FloatArray
from likely.world.tasks import Task

MOST = 5000  # monomials
PENALTIES = 10.0 ** np.arange(-12.0, 3.0)


class Features:
    """Monomials up to a degree, the constant left out: [..., d] to [..., size]."""

    def __init__(self, task: Task, degree: int) -> None:
        self.angles = task.angles
        self.plain = [k for k in range(task.dimensions) if k not in task.angles]
        self.middle = (np.array(task.high) + np.array(task.low)) / 2
        self.half = (np.array(task.high) - np.array(task.low)) / 2
        columns = len(self.plain) + 2 * len(self.angles)
        if not 1 <= degree <= 20 or math.comb(columns + degree, degree) > MOST:
            raise InvalidSetting(
                f"degree {degree}: expected a polynomial of degree 1 to 20 with at most {MOST} "
                f"monomials of {columns} columns"
            )
        self.terms = [
            term
            for power in range(1, degree + 1)
            for term in itertools.combinations_with_replacement(range(columns), power)
        ]

    @property
    def size(self) -> int:
        """Number of monomials."""
        return len(self.terms)

    def __call__(self, state: FloatArray) -> FloatArray:
        scaled = (state - self.middle) / self.half
        turned = scaled[..., list(self.angles)] * np.pi
        basis = np.concatenate([scaled[..., self.plain], np.cos(turned), np.sin(turned)], axis=-1)
        columns: dict[tuple[int, ...], FloatArray] = {}
        out = np.empty((*state.shape[:-1], self.size))
        for i, term in enumerate(self.terms):  # each is a shorter one times a column
            last = basis[..., term[-1]]
            columns[term] = last if len(term) == 1 else columns[term[:-1]] * last
            out[..., i] = columns[term]
        return out


@dataclasses.dataclass(frozen=True)
class Ridge:
    """A regression: offset [t], weights [f, t], leave-one-out errors [n, t], penalties [t]."""

    offset: FloatArray
    weights: FloatArray
    left_out: FloatArray
    penalty: FloatArray


def ridge(
    x: FloatArray, y: FloatArray, share: FloatArray | None = None, penalties: FloatArray = PENALTIES
) -> Ridge:
    """Regress y [n, t] on x [n, f], each target with the penalty of least leave-one-out error.

    Row i counts by `share` [n], by default 1; the errors of rows that do not count are those of the
    fit without them.
    """
    counts = np.ones(len(x)) if share is None else share
    total, root = counts.sum(), np.sqrt(counts)[:, None]
    middle, offset = counts @ x / total, counts @ y / total
    u, size, vt = np.linalg.svd(root * (x - middle), full_matrices=False)
    rotated = u.T @ (root * (y - offset))  # [k, t]
    best = np.full(y.shape[1], np.inf)
    weights, left_out = np.zeros((x.shape[1], y.shape[1])), np.array(y - offset)
    chosen = np.full(y.shape[1], np.inf)
    for penalty in penalties * max(1.0, total):
        gain = vt.T @ ((size / (size**2 + penalty))[:, None] * rotated)
        # The mean is fitted, too.
        leverage = counts / total + (u**2 * (size**2 / (size**2 + penalty))).sum(axis=1)
        error = (y - offset - (x - middle) @ gain) / np.maximum(1.0 - leverage, 1e-9)[:, None]
        score = counts @ error**2
        better = score < best
        if better.any():
            best[better], left_out[:, better] = score[better], error[:, better]
            weights[:, better], chosen[better] = gain[:, better], penalty
    return Ridge(offset - middle @ weights, weights, left_out, chosen)
