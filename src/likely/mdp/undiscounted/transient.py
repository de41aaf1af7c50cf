"""Bounds without a discount: for chains that end, the expected number of steps does its work.

If w >= 1 + P w for a chain on the states that have not ended, then P contracts in the norm
weighted by w, and for any v with |r + P v - v| <= d everywhere, |v - v*| <= d w.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from likely.mdp.model.arrays import BoolArray, FloatArray

UNIT = 2.0**-53
DENSE = 400  # states up to which a dense solve is quickest


def solver_of(system: Any) -> Callable[[FloatArray], FloatArray]:
    """What solves a sparse system [n, n] for a right side [n]; NaN where it is singular."""
    from scipy.sparse import linalg

    if system.shape[0] > DENSE:
        try:
            solve: Callable[[FloatArray], FloatArray] = linalg.splu(system.tocsc()).solve
            return solve
        except RuntimeError:  # SuperLU's word for singular
            return lambda right: np.full(len(right), np.nan)
    dense = system.toarray()

    def solved(right: FloatArray) -> FloatArray:
        try:
            return np.linalg.solve(dense, right)
        except np.linalg.LinAlgError:
            return np.full(len(right), np.nan)

    return solved


def expected_steps(terminal: BoolArray, chain: Any) -> FloatArray:
    """A solution [S] of w = 1 + P w, not rounded rigorously; see `bounds`.

    NaN where ending takes so many steps that the system is singular up to rounding.
    """
    from scipy import sparse

    system = sparse.eye_array(len(terminal), format="csr") - chain
    return solver_of(system)(np.where(terminal, 0.0, 1.0))


def bounds(
    terminal: BoolArray,
    chain: Any,
    gain: FloatArray,
    value: FloatArray,
    defect: float,
    ends: FloatArray | None = None,
    gain_error: FloatArray | float = 0.0,
) -> tuple[FloatArray, FloatArray]:
    """Bounds [S] on the undiscounted value of a chain that ends with probability one.

    `chain` has empty rows for terminal states, whose value is 0; `ends` [S] is the probability
    that a row ends without a stored move; `gain_error` bounds what `gain` lost. Returns infinite
    bounds where rounding does not allow a proof.
    """
    live = ~terminal
    if not bool(live.any()):
        return np.zeros_like(value), np.zeros_like(value)
    counts = np.diff(chain.indptr)
    weight = expected_steps(terminal, chain)
    # Prove w (1 - small) >= P w + 1/2 rather than believe the solve.
    moved = chain @ weight
    slack = (counts + 4) * UNIT * (abs(chain) @ abs(weight)) + defect * abs(weight).max()
    margin = weight - moved - slack
    if not bool((margin[live] > 0.25).all()) or not bool((weight[live] > 0.0).all()):
        infinite = np.where(live, np.inf, 0.0)
        return -infinite, infinite
    rows = np.repeat(np.arange(len(value)), counts)
    differences = chain.data * (value[chain.indices] - value[rows])
    # r + P v - v = r + sum p (v' - v) - ends v, up to the defect of the row.
    residual = gain + np.bincount(rows, differences, minlength=len(value))
    if ends is not None:
        residual -= ends * value
    size = abs(gain) + np.bincount(rows, abs(differences), minlength=len(value))
    if ends is not None:
        size += abs(ends * value)
    # Mixing pairs into the chain rounds each entry and reward once more.
    error = (2 * counts + 12) * UNIT * size + (2 * defect + (counts + 4) * UNIT) * abs(value)
    error += (counts + 8) * UNIT * (abs(chain) @ abs(value)) + 8 * UNIT * abs(gain)
    # Each probability may be off by the defect, relatively, and the reward with them.
    error += defect * size + gain_error + np.where(size > 0.0, 1e-300, 0.0)
    if not bool(np.isfinite(residual).all() and np.isfinite(error).all()):
        infinite = np.where(live, np.inf, 0.0)
        return -infinite, infinite
    ratio = (abs(residual) + error)[live] / margin[live]
    reach = float(ratio.max()) * (1.0 + 1e-12)
    spread = np.where(live, reach * weight + 4 * UNIT * abs(value), 0.0)
    middle = np.where(live, value, 0.0)
    return middle - spread, middle + spread
