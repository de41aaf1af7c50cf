"""The linear program of an MDP, solved by HiGHS.

minimise sum_s v(s)  subject to  v(s) >= r(s, a) + discount sum p(s'|s, a) v(s')  for every pair
(d'Epenoux 1963; Puterman 1994, section 6.9). Terminal states are fixed at 0.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from likely.errors import InvalidSetting, LikelyError
from likely.mdp.discounted.policy_iteration import policy_iteration
from likely.mdp.discounted.task import Task
from likely.mdp.model.problem import MDP


def solve_program(mdp: MDP) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """The solution [S] of the linear program, to the accuracy of HiGHS (about 1e-7)."""
    from scipy import sparse
    from scipy.optimize import linprog

    scale = float(np.abs(mdp.reward).max(initial=0.0)) or 1.0
    identity = sparse.csr_array(
        (np.ones(mdp.pairs), mdp.pair_state, np.arange(mdp.pairs + 1)),
        shape=(mdp.pairs, mdp.states),
    )
    bounds = [(0.0, 0.0) if ended else (None, None) for ended in mdp.terminal]
    result = linprog(
        np.ones(mdp.states),
        A_ub=mdp.discount * mdp.transition - identity,
        b_ub=-mdp.reward / scale,
        bounds=bounds,
        method="highs",
    )
    if result.x is None:
        raise LikelyError(f"the linear program was not solved: {result.message}")
    return np.asarray(result.x * scale)


def linear_programming(task: Task) -> Iterator[None]:
    """The linear program, then policy iteration from its solution to remove what HiGHS leaves."""
    if task.mdp is None:
        raise InvalidSetting('method="linear-programming" needs stored rows')
    try:
        task.value[:] = solve_program(task.mdp)
    except LikelyError:  # numbers too large for HiGHS; policy iteration needs no start
        task.value[:] = 0.0
    task.value[task.mdp.terminal] = 0.0
    task.changed(0.0)
    yield from policy_iteration(task)
