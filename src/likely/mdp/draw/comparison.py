"""Which method converges how: the same problem solved by each, with its trace."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from likely.errors import InvalidSetting, LikelyError
from likely.mdp.draw.plots import Convergence
from likely.mdp.model.problem import MDP
from likely.mdp.model.solution import Solution
from likely.mdp.solvers.solve import METHODS, solve


def converge(mdp: MDP, tolerance: float, names: Sequence[str] | None = None) -> list[Convergence]:
    """Solve by several methods and keep how each came to its answer.

    Args:
        mdp: the problem.
        tolerance: error at which each stops.
        names: of the methods; None takes all. Those that do not apply are left out, unless they
            were asked for by name.
    """
    if mdp.discount >= 1.0:
        raise InvalidSetting(
            f"the methods are compared on discounted problems, the discount is {mdp.discount:g}; "
            "give one below 1 (--discount 0.99)"
        )
    runs = []
    for name in [m for m in METHODS if m != "auto"] if names is None else names:
        try:
            fastest = _fastest(mdp, tolerance, name)
        except LikelyError:
            if names is not None:
                raise
            continue
        points = fastest.trace
        runs.append(
            Convergence(
                name,
                np.array([p.backups for p in points]),
                np.array([p.seconds for p in points]),
                np.array([p.error for p in points]),
            )
        )
    return runs


def _fastest(mdp: MDP, tolerance: float, name: str) -> Solution:
    """The quickest of up to five runs, after one that compiles: a busy machine only slows."""
    solve(mdp, tolerance=tolerance, method=name).uninterrupted()
    best = solve(mdp, tolerance=tolerance, method=name).uninterrupted()
    spent = best.trace[-1].seconds
    for _ in range(4):
        if spent > 1.0:
            break
        again = solve(mdp, tolerance=tolerance, method=name).uninterrupted()
        spent += again.trace[-1].seconds
        if again.trace[-1].seconds < best.trace[-1].seconds:
            best = again
    return best
