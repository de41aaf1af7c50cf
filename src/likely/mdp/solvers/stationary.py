"""The Markov chain that a policy makes of a problem, and how often it is where.

Sources: Puterman 1994, appendix A (closed classes, limiting matrix); Grassmann, Taksar and
Heyman 1985, https://doi.org/10.1287/opre.33.5.1107 (elimination without subtractions).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from likely.errors import InvalidData, InvalidSetting
from likely.mdp.model.arrays import Array, FloatArray
from likely.mdp.model.operators import Policy, policy_weights
from likely.mdp.model.problem import MDP
from likely.mdp.model.world import Problem, stored
from likely.mdp.solvers.prediction import policy_chain
from likely.mdp.undiscounted.transient import solver_of

# Largest closed class that is eliminated densely; sparse factors serve larger ones.
DENSE = 400
# Lazy steps from the uniform distribution before a state that is not rare is chosen.
STEPS = 50


def transition_matrix(problem: Problem, policy: Policy) -> Any:
    """P_pi(s' | s), the chain of a policy, as a SciPy CSR array [S, S]; rows sum to 1.

    A terminal state is absorbing: its row leads to itself.

    Args:
        problem: an `MDP` or a `World`.
        policy: as `evaluate` takes it.

    Raises:
        InvalidData: a policy that is not one.
    """
    from scipy import sparse

    mdp: MDP = stored(problem)
    chain, _ = policy_chain(mdp, policy_weights(mdp, policy))
    return (chain + sparse.diags_array(mdp.terminal.astype(np.float64))).tocsr()


def stationary_distribution(
    problem: Problem, policy: Policy, start: npt.ArrayLike | None = None
) -> FloatArray:
    """Share of time that a policy spends in each state in the long run, [S]; d = d P_pi.

    The limit of the averages of the distribution over time, which exists for periodic chains,
    too. The discount has no part in it. Where episodes end, all time is spent in the end.

    Args:
        problem: an `MDP` or a `World`.
        policy: as `evaluate` takes it.
        start: [S] distribution of the first state, or its number. It decides only where the
            chain has several closed classes, and may be left out otherwise.

    Raises:
        InvalidSetting: several closed classes, and no start.
        InvalidData: a policy or a start that is none; a chain of many states, some of which it
            leaves so rarely that rounding hides it.
    """
    from scipy.sparse import csgraph

    chain = transition_matrix(problem, policy)
    states = chain.shape[0]
    count, label = csgraph.connected_components(chain, directed=True, connection="strong")
    edges = chain.tocoo()
    closed = np.ones(count, dtype=bool)
    closed[label[edges.row[label[edges.row] != label[edges.col]]]] = False
    classes = np.flatnonzero(closed)
    if len(classes) == 1:
        share = np.ones(1)
    elif start is None:
        raise InvalidSetting(
            f"under this policy the chain has {len(classes)} closed classes, and where it ends "
            "depends on where it begins; pass start"
        )
    else:
        share = _absorbed(chain, label, classes, _distribution(start, states))
    result = np.zeros(states)
    for number, weight in zip(classes, share, strict=True):
        if weight > 0.0:
            inside = np.flatnonzero(label == number)
            result[inside] = weight * _of_class(chain[inside][:, inside])
    return result


def _distribution(start: npt.ArrayLike, states: int) -> FloatArray:
    first = np.asarray(start)
    if first.ndim == 0 and np.issubdtype(first.dtype, np.integer) and 0 <= first < states:
        unit: FloatArray = np.eye(1, states, int(first))[0]
        return unit
    first = first.astype(np.float64)
    if first.shape != (states,) or not bool((first >= 0.0).all()) or abs(first.sum() - 1) > 1e-9:
        raise InvalidData(
            f"start must be one of {states} states or a distribution over them that sums to 1"
        )
    return first


def _absorbed(chain: Any, label: Array, classes: Array, start: FloatArray) -> FloatArray:
    """Probability [C] to end in each of C closed classes."""
    from scipy import sparse

    place = np.full(int(label.max()) + 1, -1)
    place[classes] = np.arange(len(classes))
    ended = np.flatnonzero(place[label] >= 0)
    into = sparse.csr_array(
        (np.ones(len(ended)), (ended, place[label[ended]])), shape=(len(label), len(classes))
    )
    arrived = np.asarray(start @ into)
    passing = np.flatnonzero(place[label] < 0)
    if not len(passing):
        return arrived
    leaving, among = chain[passing] @ into, chain[passing][:, passing]
    if len(passing) > DENSE:
        visits = _solved(sparse.eye_array(len(passing)) - among.T, start[passing])
        return np.asarray(arrived + visits @ leaving)
    # As in `_eliminated`: each state in turn hands on what it holds and what leads to it.
    moves = np.hstack([leaving.toarray(), among.toarray()])
    mass = np.concatenate([arrived, start[passing]])
    for last in range(len(passing) - 1, -1, -1):
        at = len(classes) + last
        share = moves[last, :at] / moves[last, :at].sum()
        mass[:at] += mass[at] * share
        moves[:last, :at] += np.outer(moves[:last, at], share)
    return mass[: len(classes)]


def _solved(system: Any, right: FloatArray) -> FloatArray:
    solution = solver_of(system)(right)
    if not bool(np.isfinite(solution).all()):
        raise InvalidData(
            "the chain leaves some of its states so rarely that its long run is lost in rounding"
        )
    return solution


def _of_class(chain: Any) -> FloatArray:
    """Stationary distribution of an irreducible chain [S, S]."""
    from scipy import sparse

    states = chain.shape[0]
    if states <= DENSE:
        return _eliminated(chain.toarray())
    # With the mass of one state at 1, that of the others solves a nonsingular system; the state
    # must not be rare, or its mass is lost in rounding.
    seen = np.full(states, 1.0 / states)
    for _ in range(STEPS):
        seen = 0.5 * (seen + seen @ chain)
    anchor = int(seen.argmax())
    others = np.delete(np.arange(states), anchor)
    rest = sparse.eye_array(states - 1) - chain[others][:, others].T
    mass: FloatArray = np.ones(states)
    mass[others] = _solved(rest, chain[[anchor]][:, others].toarray()[0])
    mass = np.maximum(mass, 0.0)
    share: FloatArray = mass / mass.sum()
    return share


def _eliminated(chain: FloatArray) -> FloatArray:
    """Grassmann, Taksar and Heyman: no subtraction, so each entry has its own full precision."""
    for last in range(len(chain) - 1, 0, -1):
        chain[:last, last] /= chain[last, :last].sum()
        chain[:last, :last] += np.outer(chain[:last, last], chain[last, :last])
    mass: FloatArray = np.ones(len(chain))
    for state in range(1, len(chain)):
        mass[state] = mass[:state] @ chain[:state, state]
    share: FloatArray = mass / mass.sum()
    return share
