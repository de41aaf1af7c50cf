"""Factored MDPs: several components that move independently, given the action.

A state is a tuple of component states, an outcome one outcome of each component, and rewards add
up (Boutilier, Dearden and Goldszmidt 2000). With n components of k states there are k^n states,
but only n small tables are kept: rows are generated (see `matrix_free.py`).
"""
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from likely.errors import InvalidData
from likely.mdp.model.build import mask_of
from likely.mdp.model.matrix_free import MatrixFree, row_function
from likely.mdp.model.problem import frozen


@row_function
def _factored_row(state, action, parameters, successors, weights):
    """The product of one row of each component; no row where a component has none."""
    sizes, strides, base, pointer, target, probability, gain = parameters
    count, reward = 1, 0.0
    successors[0], weights[0] = 0, 1.0
    for i in range(sizes.shape[0]):
        row = base[i] + action * sizes[i] + state // strides[i] % sizes[i]
        first = pointer[row]
        outcomes = pointer[row + 1] - first
        reward += gain[row]
        for j in range(count - 1, -1, -1):  # from the back: entry j is spread over j n ... j n + n
            successor, weight = successors[j], weights[j]
            for k in range(outcomes - 1, -1, -1):
                successors[j * outcomes + k] = successor + target[first + k] * strides[i]
                weights[j * outcomes + k] = weight * probability[first + k]
        count *= outcomes
    return count, reward


def factored(
    transitions: Sequence[npt.ArrayLike],
    rewards: Sequence[npt.ArrayLike],
    discount: float,
    *,
    terminal: npt.ArrayLike | None = None,
) -> MatrixFree:
    """An MDP of independent components under one action.

    Args:
        transitions: for each component its [A, n, n] probabilities. A row of zeros means that
            the action is not available while the component is in that state.
        rewards: for each component its [A, n] rewards; they are added up.
        discount: in (0, 1].
        terminal: mask [S] or list of states that end the episode.

    Returns:
        A `MatrixFree` of S = n_1 n_2 ... states, numbered as `numpy.ravel_multi_index` does: the
        last component changes fastest.

    Raises:
        InvalidData: tables that do not fit together; a row that is not a distribution, named by
            state and action.

    >>> coin = np.full((1, 2, 2), 0.5)
    >>> two = factored([coin, coin], [[[0.0, 1.0]], [[0.0, 1.0]]], 0.5)
    >>> two.states, two.width
    (4, 4)
    """
    tables = [np.asarray(table, dtype=np.float64) for table in transitions]
    gains = [np.asarray(gain, dtype=np.float64) for gain in rewards]
    if not tables or len(tables) != len(gains):
        raise InvalidData(
            f"{len(tables)} transition tables and {len(gains)} reward tables: expected one of each "
            "for every component"
        )
    actions = tables[0].shape[0] if tables[0].ndim == 3 else 0
    for i, (table, gain) in enumerate(zip(tables, gains, strict=True)):
        size = table.shape[-1]
        if table.shape != (actions, size, size) or gain.shape != (actions, size):
            raise InvalidData(
                f"component {i}: transitions of shape {table.shape} and rewards of shape "
                f"{gain.shape}; expected [{actions or 'A'}, n, n] and [{actions or 'A'}, n]"
            )
    sizes = np.array([table.shape[-1] for table in tables])
    states = math.prod(sizes.tolist())
    strides = np.array([math.prod(sizes[i + 1 :].tolist()) for i in range(len(sizes))])
    base = np.concatenate([[0], np.cumsum(actions * sizes)[:-1]])
    rows = [table.reshape(-1, table.shape[-1]) for table in tables]
    counts = np.concatenate([(row != 0.0).sum(axis=1) for row in rows])
    width = math.prod(int((row != 0.0).sum(axis=1).max()) for row in rows)
    parameters = (
        frozen(sizes),
        frozen(strides),
        frozen(base),
        frozen(np.concatenate([[0], np.cumsum(counts)])),
        frozen(np.concatenate([np.nonzero(row)[1] for row in rows])),
        frozen(np.concatenate([row[row != 0.0] for row in rows])),
        frozen(np.concatenate([gain.ravel() for gain in gains])),
    )
    ended = np.zeros(states, dtype=np.bool_)
    if terminal is not None:
        ended = mask_of(terminal, states, "terminal")
    return MatrixFree(states, actions, width, _factored_row, parameters, discount, frozen(ended))
