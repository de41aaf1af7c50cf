"""Dynamic programming on Markov decision processes: prediction, control, certificates.

This package imports no generative model and works on its own. Names are loaded on first use, so
`import likely.mdp` costs no more than NumPy; numba is imported when the first solver runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from likely._lazy import lazy

if TYPE_CHECKING:
    from likely.mdp import plots as plots
    from likely.mdp import worlds as worlds
    from likely.mdp.certificates import Certificate as Certificate
    from likely.mdp.certificates import certify as certify
    from likely.mdp.factors import factored as factored
    from likely.mdp.horizon import backward_induction as backward_induction
    from likely.mdp.matrix_free import MatrixFree as MatrixFree
    from likely.mdp.matrix_free import grid as grid
    from likely.mdp.matrix_free import row_function as row_function
    from likely.mdp.operators import bellman_expectation as bellman_expectation
    from likely.mdp.operators import bellman_optimality as bellman_optimality
    from likely.mdp.operators import greedy as greedy
    from likely.mdp.prediction import Evaluation as Evaluation
    from likely.mdp.prediction import evaluate as evaluate
    from likely.mdp.problem import MDP as MDP
    from likely.mdp.simulation import Simulation as Simulation
    from likely.mdp.simulation import simulate as simulate
    from likely.mdp.solution import Progress as Progress
    from likely.mdp.solution import Solution as Solution
    from likely.mdp.solution import TracePoint as TracePoint
    from likely.mdp.solvers import CRITERIA as CRITERIA
    from likely.mdp.solvers import METHODS as METHODS
    from likely.mdp.solvers import solve as solve

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
__getattr__, __dir__, __all__ = lazy(__name__, _HOME, ("plots", "worlds"))
