"""Dynamic programming on Markov decision processes: prediction, control, certificates.

This package imports no generative model and works on its own. Names are loaded on first use, so
`import likely.mdp` costs no more than NumPy; numba is imported when the first solver runs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from likely.mdp import plots, worlds
    from likely.mdp.certificates import Certificate, certify
    from likely.mdp.factors import factored
    from likely.mdp.horizon import backward_induction
    from likely.mdp.matrix_free import MatrixFree, grid, row_function
    from likely.mdp.operators import bellman_expectation, bellman_optimality, greedy
    from likely.mdp.prediction import Evaluation, evaluate
    from likely.mdp.problem import MDP
    from likely.mdp.simulation import Simulation, simulate
    from likely.mdp.solution import Progress, Solution, TracePoint
    from likely.mdp.solvers import CRITERIA, METHODS, solve

_HOME = {
    "CRITERIA": "solvers",
    "Certificate": "certificates",
    "Evaluation": "prediction",
    "METHODS": "solvers",
    "MDP": "problem",
    "MatrixFree": "matrix_free",
    "Progress": "solution",
    "Simulation": "simulation",
    "Solution": "solution",
    "TracePoint": "solution",
    "backward_induction": "horizon",
    "bellman_expectation": "operators",
    "bellman_optimality": "operators",
    "certify": "certificates",
    "evaluate": "prediction",
    "factored": "factors",
    "greedy": "operators",
    "grid": "matrix_free",
    "row_function": "matrix_free",
    "simulate": "simulation",
    "solve": "solvers",
}
_MODULES = ("plots", "worlds")

__all__ = [
    "CRITERIA",
    "MDP",
    "METHODS",
    "Certificate",
    "Evaluation",
    "MatrixFree",
    "Progress",
    "Simulation",
    "Solution",
    "TracePoint",
    "backward_induction",
    "bellman_expectation",
    "bellman_optimality",
    "certify",
    "evaluate",
    "factored",
    "greedy",
    "grid",
    "plots",
    "row_function",
    "simulate",
    "solve",
    "worlds",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
