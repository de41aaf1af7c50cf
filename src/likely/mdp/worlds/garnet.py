"""Random MDPs of any size: Garnet problems (Archibald, McKinnon and Thomas 1995).

`garnet(states, actions, branching)`: from every state every action leads to `branching` distinct
states drawn uniformly; the probabilities are the gaps between sorted uniform cut points, so the
distribution is uniform on the simplex; rewards are standard normal. The draw depends on the seed
and the sizes alone.
"""

from __future__ import annotations

import numpy as np

from likely.errors import InvalidSetting
from likely.mdp.model.arrays import IntArray
from likely.mdp.model.problem import MDP

# Rows that are drawn at once, so that memory stays bounded by the result.
CHUNK = 1 << 20


def garnet(states: int, actions: int, branching: int, discount: float = 0.95, seed: int = 0) -> MDP:
    """A random MDP.

    Args:
        states, actions: sizes S and A.
        branching: distinct successors of each state and action, at most S.
        discount: in (0, 1].
        seed: of NumPy's PCG64 generator.

    >>> garnet(50, 3, 4, seed=1).transitions
    600
    """
    if states < 1 or actions < 1 or not 1 <= branching <= states:
        raise InvalidSetting(
            f"a Garnet problem needs states >= 1, actions >= 1 and 1 <= branching <= states; "
            f"given {states}, {actions}, {branching}"
        )
    random = np.random.default_rng(seed)
    rows = states * actions
    indices = np.empty((rows, branching), dtype=np.int32 if states < 2**31 else np.int64)
    probability = np.empty((rows, branching))
    size = max(1, CHUNK // branching)
    for first in range(0, rows, size):
        last = min(rows, first + size)
        indices[first:last] = _distinct(random, last - first, branching, states)
        cuts = np.sort(random.random((last - first, branching - 1)), axis=1)
        probability[first:last] = np.diff(cuts, axis=1, prepend=0.0, append=1.0)
    return MDP.from_pairs(
        np.arange(states + 1) * actions,
        np.arange(rows + 1) * branching,
        indices.ravel(),
        probability.ravel(),
        random.standard_normal(rows),
        discount,
        pair_action=np.tile(np.arange(actions), states),
    )


def _distinct(random: np.random.Generator, rows: int, count: int, states: int) -> IntArray:
    """[rows, count] distinct states in each row, sorted; every set is equally likely."""
    if count * count > states:
        # Collisions would be common: take the first of a random order instead.
        out = np.empty((rows, count), dtype=np.int64)
        step = max(1, CHUNK // states)
        for first in range(0, rows, step):
            keys = random.random((min(step, rows - first), states))
            out[first : first + step] = np.argpartition(keys, count - 1, axis=1)[:, :count]
        return np.sort(out, axis=1)
    drawn = np.sort(random.integers(states, size=(rows, count)), axis=1)
    while True:
        again = np.flatnonzero((drawn[:, 1:] == drawn[:, :-1]).any(axis=1))
        if len(again) == 0:
            return drawn
        drawn[again] = np.sort(random.integers(states, size=(len(again), count)), axis=1)
