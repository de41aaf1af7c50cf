"""Qualitative analysis: who can reach what, maximal end components, and their collapse.

An end component is a set of states with a set of their actions that can be stayed in for ever
(de Alfaro 1997). Without a discount they are what makes naive stopping rules unsound.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from likely.mdp.problem import MDP

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """The pairs of an MDP as edges, for set computations.

    Attributes:
        owner: [pairs] state of each pair.
        edge_pair, edge_to: [transitions] pair and successor of each edge.
    """

    states: int
    owner: Array
    edge_pair: Array
    edge_to: Array

    @classmethod
    def of(cls, mdp: MDP) -> Rows:
        """The edges of an MDP."""
        pairs = np.repeat(np.arange(mdp.pairs), np.diff(mdp.indptr))
        return cls(mdp.states, np.asarray(mdp.pair_state, dtype=np.int64), pairs, mdp.indices)

    def some(self, inside: Mask) -> Mask:
        """[pairs] whether some successor is inside."""
        hit = np.zeros(len(self.owner), dtype=np.bool_)
        hit[self.edge_pair[inside[self.edge_to]]] = True
        return hit

    def every(self, inside: Mask) -> Mask:
        """[pairs] whether every successor is inside."""
        return ~self.some(~inside)

    def states_of(self, pairs: Mask) -> Mask:
        """[S] whether a state has a marked pair."""
        marked = np.zeros(self.states, dtype=np.bool_)
        marked[self.owner[pairs]] = True
        return marked


def can_reach(rows: Rows, target: Mask, through: Mask, usable: Mask | None = None) -> Mask:
    """States from which some policy reaches `target` with positive probability.

    Only states `through` may be passed, only `usable` pairs may be taken.
    """
    from scipy import sparse

    keep = through[rows.owner[rows.edge_pair]]
    if usable is not None:
        keep &= usable[rows.edge_pair]
    origin = rows.owner[rows.edge_pair][keep]
    back = sparse.csr_array(
        (np.ones(len(origin), dtype=np.int8), (rows.edge_to[keep], origin)),
        shape=(rows.states, rows.states),
    )
    reached = target.copy()
    frontier = np.flatnonzero(target)
    while len(frontier):
        # Row slices by hand: indexing a sparse array costs more than the search.
        spans = [back.indices[back.indptr[s] : back.indptr[s + 1]] for s in frontier.tolist()]
        found = np.unique(np.concatenate(spans)) if spans else frontier[:0]
        frontier = found[~reached[found]]
        reached[frontier] = True
    return reached


def cannot_avoid(rows: Rows, target: Mask, through: Mask) -> Mask:
    """States from which every policy reaches `target` with positive probability."""
    reached = target.copy()
    pairs_left = np.bincount(rows.owner, minlength=rows.states)
    hit = np.zeros(len(rows.owner), dtype=np.bool_)
    while True:
        new = rows.some(reached) & ~hit
        if not bool(new.any()):
            return reached
        hit |= new
        pairs_left -= np.bincount(rows.owner[new], minlength=rows.states)
        reached |= (pairs_left == 0) & through & rows.states_of(hit)


def surely_reach(rows: Rows, target: Mask, through: Mask) -> Mask:
    """States from which some policy reaches `target` with probability one."""
    inside = target | through
    while True:
        usable = rows.every(inside) & inside[rows.owner]
        following = can_reach(rows, target, through & inside, usable)
        following &= inside
        if bool((following == inside).all()):
            return inside
        inside = following


def always_reach(rows: Rows, target: Mask, through: Mask) -> Mask:
    """States from which every policy reaches `target` with probability one."""
    avoid = ~cannot_avoid(rows, target, through)
    return ~can_reach(rows, avoid, through & ~target) | target


def maximal_end_components(rows: Rows, usable: Mask) -> tuple[Array, Mask]:
    """Maximal end components that use only the pairs `usable`.

    Returns the component number [S] (-1 where a state is in none) and the pairs inside [pairs].
    """
    from scipy import sparse
    from scipy.sparse import csgraph

    inside = usable.copy()
    while True:
        edges = inside[rows.edge_pair]
        origin = rows.owner[rows.edge_pair[edges]]
        graph = sparse.csr_array(
            (np.ones(len(origin), dtype=np.int8), (origin, rows.edge_to[edges])),
            shape=(rows.states, rows.states),
        )
        _, label = csgraph.connected_components(graph, connection="strong")
        alive = rows.states_of(inside)
        leaves = (label[rows.edge_to] != label[rows.owner[rows.edge_pair]]) | ~alive[rows.edge_to]
        bad = np.zeros(len(inside), dtype=np.bool_)
        bad[rows.edge_pair[leaves]] = True
        following = inside & ~bad
        if bool((following == inside).all()):
            break
        inside = following
    component = np.full(rows.states, -1, dtype=np.int64)
    members = np.flatnonzero(rows.states_of(inside))
    if len(members):
        _, component[members] = np.unique(label[members], return_inverse=True)
    return component, inside


def inward_policy(rows: Rows, component: Array, inside: Mask, settled: Mask) -> Array:
    """[S] pairs inside each component that lead to its `settled` states; -1 elsewhere."""
    chosen = np.full(rows.states, -1, dtype=np.int64)
    done = settled.copy()
    while True:
        hit = inside & rows.some(done) & ~done[rows.owner]
        # A successor inside the pair's own component: pairs inside never leave it.
        found = np.flatnonzero(hit)[::-1]
        if not len(found):
            return chosen
        chosen[rows.owner[found]] = found
        done[rows.owner[found]] = True
