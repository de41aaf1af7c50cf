"""Dynamic programming on Markov decision processes: prediction, control, certificates.

This package imports no generative model and works on its own. Names are loaded on first use, so
`import likely.mdp` costs no more than NumPy; numba is imported when the first solver runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from likely._lazy import lazy

if TYPE_CHECKING:
    from likely.mdp import worlds as worlds
    from likely.mdp.beliefs.problem import POMDP as POMDP
    from likely.mdp.beliefs.search import BeliefSolution as BeliefSolution
    from likely.mdp.beliefs.search import solve_beliefs as solve_beliefs
    from likely.mdp.check.certificates import Certificate as Certificate
    from likely.mdp.check.certificates import certify as certify
    from likely.mdp.check.simulation import Simulation as Simulation
    from likely.mdp.check.simulation import simulate as simulate
    from likely.mdp.draw import plots as plots
    from likely.mdp.files.loading import load as load
    from likely.mdp.model.factors import factored as factored
    from likely.mdp.model.matrix_free import MatrixFree as MatrixFree
    from likely.mdp.model.matrix_free import grid as grid
    from likely.mdp.model.matrix_free import row_function as row_function
    from likely.mdp.model.operators import bellman_expectation as bellman_expectation
    from likely.mdp.model.operators import bellman_optimality as bellman_optimality
    from likely.mdp.model.operators import greedy as greedy
    from likely.mdp.model.problem import MDP as MDP
    from likely.mdp.model.solution import Progress as Progress
    from likely.mdp.model.solution import Solution as Solution
    from likely.mdp.model.solution import TracePoint as TracePoint
    from likely.mdp.model.world import World as World
    from likely.mdp.robust.bounds import RobustBounds as RobustBounds
    from likely.mdp.robust.bounds import robust_bounds as robust_bounds
    from likely.mdp.robust.certified import CertifiedPolicy as CertifiedPolicy
    from likely.mdp.robust.certified import certified_improvement as certified_improvement
    from likely.mdp.robust.counts import Counts as Counts
    from likely.mdp.robust.counts import draw_counts as draw_counts
    from likely.mdp.robust.counts import draw_trajectories as draw_trajectories
    from likely.mdp.robust.spibb import SafePolicy as SafePolicy
    from likely.mdp.robust.spibb import soft_spibb as soft_spibb
    from likely.mdp.robust.spibb import spibb as spibb
    from likely.mdp.solvers.average import average_reward as average_reward
    from likely.mdp.solvers.horizon import backward_induction as backward_induction
    from likely.mdp.solvers.prediction import Evaluation as Evaluation
    from likely.mdp.solvers.prediction import evaluate as evaluate
    from likely.mdp.solvers.solve import CRITERIA as CRITERIA
    from likely.mdp.solvers.solve import METHODS as METHODS
    from likely.mdp.solvers.solve import solve as solve
    from likely.mdp.solvers.stationary import stationary_distribution as stationary_distribution
    from likely.mdp.solvers.stationary import transition_matrix as transition_matrix
    from likely.mdp.undiscounted.total import answer as answer
    from likely.mdp.undiscounted.total import reach as reach
    from likely.mdp.undiscounted.total import total_reward as total_reward

_HOME = {
    "BeliefSolution": "beliefs.search",
    "CRITERIA": "solvers.solve",
    "Certificate": "check.certificates",
    "CertifiedPolicy": "robust.certified",
    "Counts": "robust.counts",
    "Evaluation": "solvers.prediction",
    "METHODS": "solvers.solve",
    "MDP": "model.problem",
    "MatrixFree": "model.matrix_free",
    "POMDP": "beliefs.problem",
    "Progress": "model.solution",
    "RobustBounds": "robust.bounds",
    "SafePolicy": "robust.spibb",
    "Simulation": "check.simulation",
    "Solution": "model.solution",
    "TracePoint": "model.solution",
    "World": "model.world",
    "answer": "undiscounted.total",
    "average_reward": "solvers.average",
    "backward_induction": "solvers.horizon",
    "bellman_expectation": "model.operators",
    "bellman_optimality": "model.operators",
    "certified_improvement": "robust.certified",
    "certify": "check.certificates",
    "draw_counts": "robust.counts",
    "draw_trajectories": "robust.counts",
    "evaluate": "solvers.prediction",
    "factored": "model.factors",
    "greedy": "model.operators",
    "grid": "model.matrix_free",
    "load": "files.loading",
    "reach": "undiscounted.total",
    "robust_bounds": "robust.bounds",
    "row_function": "model.matrix_free",
    "simulate": "check.simulation",
    "soft_spibb": "robust.spibb",
    "solve": "solvers.solve",
    "solve_beliefs": "beliefs.search",
    "spibb": "robust.spibb",
    "stationary_distribution": "solvers.stationary",
    "total_reward": "undiscounted.total",
    "transition_matrix": "solvers.stationary",
}
__getattr__, __dir__, __all__ = lazy(__name__, _HOME, {"plots": "draw.plots", "worlds": "worlds"})
