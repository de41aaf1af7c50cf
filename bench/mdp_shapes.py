"""Discounted problems of many shapes, on which "auto" is held against every method of the house.

Each shape is a function of the number of states (rounded to what the shape allows), the discount
and a seed that draws the rewards and, where the shape is random, the moves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # imported when a shape is built: the cost of the import is measured elsewhere
    from likely.mdp import MDP


def from_table(
    successor: np.ndarray, probability: np.ndarray | None, reward: np.ndarray, discount: float,
    terminal: np.ndarray | None = None,
) -> MDP:  # fmt: skip
    """Successors [S, A] or [S, A, K] with probabilities [S, A, K] and rewards [S, A].

    Successors of probability 0 are left out, equal ones of a row are added up.
    """
    from scipy import sparse

    from likely.mdp import MDP

    states, actions = reward.shape
    flat = successor.reshape(states * actions, -1)
    weight = np.ones(flat.shape) if probability is None else probability.reshape(flat.shape)
    open_ = np.ones(states, dtype=bool) if terminal is None else ~terminal
    rows = np.repeat(open_, actions)
    flat, weight = flat[rows], weight[rows]
    pairs, width = flat.shape
    matrix = sparse.csr_array(
        (weight.ravel(), flat.ravel(), np.arange(pairs + 1) * width), shape=(pairs, states)
    )
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return MDP.from_pairs(
        np.concatenate([[0], np.cumsum(actions * open_)]), matrix.indptr, matrix.indices,
        matrix.data, reward.ravel()[rows], discount, terminal=terminal,
    )  # fmt: skip


def random_function(states: int, discount: float, seed: int = 0) -> MDP:
    """Four actions, each of which leads to one state drawn at random."""
    rng = np.random.default_rng(seed)
    moves = rng.integers(0, states, (states, 4))
    return from_table(moves, None, rng.random((states, 4)), discount)


def one_function(states: int, discount: float, seed: int = 0) -> MDP:
    """One action that leads to one state drawn at random: trees that lead into cycles."""
    rng = np.random.default_rng(seed)
    moves = rng.integers(0, states, (states, 1))
    return from_table(moves, None, rng.random((states, 1)), discount)


def permutation(states: int, discount: float, seed: int = 0) -> MDP:
    """One action, one successor: a random permutation, whose cycles are long."""
    rng = np.random.default_rng(seed)
    return from_table(rng.permutation(states)[:, None], None, rng.random((states, 1)), discount)


def ring(states: int, discount: float, seed: int = 0) -> MDP:
    """A ring on which one goes left, goes right or stays; each state pays what it pays."""
    rng = np.random.default_rng(seed)
    state = np.arange(states)
    moves = np.stack([(state - 1) % states, (state + 1) % states, state], axis=1)
    reward = np.repeat(rng.random((states, 1)), 3, axis=1) - np.array([0.1, 0.1, 0.0])
    return from_table(moves, None, reward, discount)


def shuffled_ring(states: int, discount: float, seed: int = 0) -> MDP:
    """The ring with its states numbered at random."""
    rng = np.random.default_rng(seed + 1)
    name = rng.permutation(states)
    mdp = ring(states, discount, seed)
    place = np.argsort(name)
    moves = name[mdp.indices.reshape(states, 3)[place]]
    return from_table(moves, None, mdp.reward.reshape(states, 3)[place], discount)


def chain(states: int, discount: float, seed: int = 0) -> MDP:
    """A corridor with slips, a small reward at one end and a large one at the other."""
    state = np.arange(states)
    left, right = np.maximum(state - 1, 0), np.minimum(state + 1, states - 1)
    moves = np.stack([np.stack([left, right, state], 1), np.stack([right, left, state], 1)], axis=1)
    chance = np.broadcast_to([0.8, 0.1, 0.1], moves.shape)
    reward = np.zeros((states, 2))
    reward[0], reward[-1] = 0.2, 1.0
    return from_table(moves, chance, reward, discount)


def absorbing_chain(states: int, discount: float, seed: int = 0) -> MDP:
    """A corridor with slips that ends at both ends; each step costs, and more in some places."""
    rng = np.random.default_rng(seed)
    state = np.arange(states)
    left, right = np.maximum(state - 1, 0), np.minimum(state + 1, states - 1)
    moves = np.stack([np.stack([left, right], 1), np.stack([right, left], 1)], axis=1)
    chance = np.broadcast_to([0.9, 0.1], moves.shape)
    reward = np.repeat(-rng.random((states, 1)), 2, axis=1)
    return from_table(moves, chance, reward, discount, (state == 0) | (state == states - 1))


def tree(states: int, discount: float, seed: int = 0) -> MDP:
    """A binary tree whose leaves lead back to the root."""
    rng = np.random.default_rng(seed)
    state = np.arange(states)
    child = np.stack([2 * state + 1, 2 * state + 2], axis=1)
    child[child >= states] = 0
    return from_table(child, None, rng.random((states, 2)), discount)


def layers(states: int, discount: float, seed: int = 0) -> MDP:
    """A process of 50 stages without a way back, random moves from stage to stage."""
    rng = np.random.default_rng(seed)
    width = max(1, states // 50)
    states = 50 * width
    stage = np.arange(states) // width
    moves = rng.integers(0, width, (states, 3, 3)) + ((stage + 1) * width)[:, None, None]
    ended = stage == 49
    moves[ended] = 0
    chance = rng.dirichlet(np.ones(3), (states, 3))
    return from_table(moves, chance, rng.random((states, 3)), discount, ended)


def inventory(states: int, discount: float, seed: int = 0) -> MDP:
    """Stock up to a capacity, orders in ten sizes, Poisson demand, lost sales."""
    capacity = states - 1
    mean = 8.0
    count = 24
    demand = np.array([math.exp(k * math.log(mean) - mean - math.lgamma(k + 1))
                       for k in range(count)])  # fmt: skip
    demand[-1] += 1.0 - demand.sum()
    stock = np.arange(states)[:, None]
    order = np.arange(10)[None, :] * 4
    held = np.minimum(stock + order, capacity)
    left = np.maximum(held[:, :, None] - np.arange(count), 0)
    sold = held[:, :, None] - left
    reward = 8.0 * (sold @ demand) - 4.0 * (order > 0) - 2.0 * (held - stock) - 10.0 * held / states
    reward *= 0.01  # so that 10^-6 is within double precision at every discount
    return from_table(left, np.broadcast_to(demand, left.shape), reward, discount)


def queues(states: int, discount: float, seed: int = 0) -> MDP:
    """One server for two queues of limited length, uniformised; waiting costs."""
    side = max(2, math.isqrt(states))
    x, y = (x.ravel() for x in np.meshgrid(np.arange(side), np.arange(side), indexing="ij"))
    cap = side - 1

    def at(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.clip(a, 0, cap) * side + np.clip(b, 0, cap)

    arrive = [at(x + 1, y), at(x, y + 1)]
    serve = [at(x - 1, y), at(x, y - 1)]
    moves = np.stack([np.stack([*arrive, served], 1) for served in serve], axis=1)
    chance = np.broadcast_to([0.25, 0.2, 0.55], moves.shape)
    cost = -(1.0 * x + 1.5 * y) / side
    return from_table(moves, chance, np.repeat(cost[:, None], 2, axis=1), discount)


def replacement(states: int, discount: float, seed: int = 0) -> MDP:
    """A machine that wears by 0 to 3 a period; keep it or replace it."""
    wear = np.array([0.3, 0.4, 0.2, 0.1])
    state = np.arange(states)
    kept = np.minimum(state[:, None] + np.arange(4), states - 1)
    new = np.broadcast_to(np.arange(4), kept.shape)
    reward = np.stack([1.0 - state / states, np.full(states, -5.0)], axis=1)
    moves = np.stack([kept, new], axis=1)
    return from_table(moves, np.broadcast_to(wear, moves.shape), reward, discount)


def local(states: int, discount: float, seed: int = 0) -> MDP:
    """Four actions with five successors each, all within 50 places of the state."""
    rng = np.random.default_rng(seed)
    moves = (np.arange(states)[:, None, None] + rng.integers(-50, 51, (states, 4, 5))) % states
    chance = rng.dirichlet(np.ones(5), (states, 4))
    return from_table(moves, chance, rng.random((states, 4)), discount)


def clusters(states: int, discount: float, seed: int = 0) -> MDP:
    """Twenty groups; moves inside are random, moves to another group are rare."""
    rng = np.random.default_rng(seed)
    size = max(2, states // 20)
    states = 20 * size
    group = np.arange(states) // size
    moves = rng.integers(0, size, (states, 4, 5)) + (group * size)[:, None, None]
    moves[:, :, 0] = rng.integers(0, states, (states, 4))
    chance = np.concatenate(
        [np.full((states, 4, 1), 1e-3), 0.999 * rng.dirichlet(np.ones(4), (states, 4))], axis=2
    )
    reward = rng.random((states, 4)) + rng.random(20)[group][:, None]
    return from_table(moves, chance, reward, discount)


def shortest_paths(states: int, discount: float, seed: int = 0) -> MDP:
    """A random directed graph of out-degree 4 with lengths on its arcs and one goal."""
    rng = np.random.default_rng(seed)
    moves = rng.integers(0, states, (states, 4))
    moves[:, 0] = (np.arange(states) + 1) % states  # so that every state reaches the goal
    goal = np.arange(states) == states - 1
    return from_table(moves, None, -rng.random((states, 4)), discount, goal)


def road_map(states: int, discount: float, seed: int = 0) -> MDP:
    """A square of crossings, a length on every road, one goal: moves are certain."""
    rng = np.random.default_rng(seed)
    side = max(2, math.isqrt(states))
    row, column = (x.ravel() for x in np.meshgrid(np.arange(side), np.arange(side), indexing="ij"))
    moves = np.stack(
        [np.clip(row + a, 0, side - 1) * side + np.clip(column + b, 0, side - 1)
         for a, b in ((0, 1), (1, 0), (0, -1), (-1, 0))], axis=1,
    )  # fmt: skip
    goal = np.arange(side * side) == side * side - 1
    return from_table(moves, None, -0.1 - rng.random(moves.shape), discount, goal)


def slippery(states: int, discount: float, seed: int = 0) -> MDP:
    """The slippery grid with one goal."""
    from likely.mdp import grid

    side = max(2, math.isqrt(states))
    return grid(side, side, goals=[side * side - 1], discount=discount).stored()


def noisy_grid(states: int, discount: float, seed: int = 0) -> MDP:
    """The slippery grid without a goal, and rewards drawn at random."""
    from likely.mdp import grid

    side = max(2, math.isqrt(states))
    mdp = grid(side, side, goals=[], discount=discount).stored()
    return mdp.with_reward(np.random.default_rng(seed).random(mdp.pairs))


def random_graph(states: int, discount: float, seed: int = 0) -> MDP:
    """Walk along a random graph: an action picks a neighbour, a third of the moves stray."""
    rng = np.random.default_rng(seed)
    neighbour = rng.integers(0, states, (states, 4))
    moves = np.stack([np.roll(neighbour, -a, axis=1) for a in range(4)], axis=1)
    chance = np.broadcast_to([0.67, 0.11, 0.11, 0.11], moves.shape)
    reward = np.repeat(rng.random((states, 1)), 4, axis=1)
    return from_table(moves, chance, reward, discount)


def absorbing_graph(states: int, discount: float, seed: int = 0) -> MDP:
    """Random rows that end with a chance of one in 10,000 at each step."""
    rng = np.random.default_rng(seed)
    moves = rng.integers(0, states, (states, 4, 6))
    moves[:, :, 0] = states - 1
    chance = np.concatenate(
        [np.full((states, 4, 1), 1e-4), 0.9999 * rng.dirichlet(np.ones(5), (states, 4))], axis=2
    )
    goal = np.arange(states) == states - 1
    return from_table(moves, chance, rng.random((states, 4)), discount, goal)


def random_rows(states: int, discount: float, seed: int = 0) -> MDP:
    """Ten actions, ten successors each, anywhere."""
    rng = np.random.default_rng(seed)
    moves = rng.integers(0, states, (states, 10, 10))
    chance = rng.dirichlet(np.ones(10), (states, 10))
    return from_table(moves, chance, rng.random((states, 10)), discount)


def garnet_rows(states: int, discount: float, seed: int = 0) -> MDP:
    """garnet(n, 4, 3): four actions, three successors each, anywhere."""
    from likely.mdp.worlds.garnet import garnet

    return garnet(states, 4, 3, discount, seed)


def shuffled_roads(states: int, discount: float, seed: int = 0) -> MDP:
    """The road map with its crossings numbered at random."""
    from likely.mdp import MDP

    mdp = road_map(states, discount, seed)
    place = np.random.default_rng(seed + 1).permutation(mdp.states)
    number = np.argsort(place)
    counts = np.diff(mdp.pair_ptr)[place]
    pairs = np.concatenate([np.arange(*mdp.pair_ptr[s : s + 2]) for s in place])
    return MDP.from_pairs(
        np.concatenate([[0], np.cumsum(counts)]), np.arange(len(pairs) + 1),
        number[mdp.indices[pairs]], np.ones(len(pairs)), mdp.reward[pairs], discount,
        terminal=mdp.terminal[place],
    )  # fmt: skip


SHAPES: dict[str, Callable[[int, float], Any]] = {
    "function": random_function,
    "one-function": one_function,
    "permutation": permutation,
    "ring": ring,
    "shuffled-ring": shuffled_ring,
    "chain": chain,
    "absorbing-chain": absorbing_chain,
    "tree": tree,
    "layers": layers,
    "inventory": inventory,
    "queues": queues,
    "replacement": replacement,
    "local": local,
    "clusters": clusters,
    "shortest-paths": shortest_paths,
    "road-map": road_map,
    "shuffled-roads": shuffled_roads,
    "slippery-grid": slippery,
    "noisy-grid": noisy_grid,
    "random-graph": random_graph,
    "absorbing-graph": absorbing_graph,
    "random-rows": random_rows,
    "garnet": garnet_rows,
}
