"""Factored MDPs are the product of their components."""

from __future__ import annotations

import numpy as np
import pytest

from likely.errors import InvalidData
from likely.mdp import MDP, certify, factored, solve


def component(size: int, actions: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    table = rng.dirichlet(np.full(size, 0.7), (actions, size))
    table[:, :, 0] += table[:, :, -1]  # some zeros
    table[:, :, -1] = 0.0
    return table, rng.standard_normal((actions, size))


def test_a_product_of_three_components_is_the_kronecker_product() -> None:
    parts = [component(size, 2, seed) for seed, size in enumerate((3, 4, 2))]
    free = factored([t for t, _ in parts], [r for _, r in parts], 0.95)
    dense = np.stack([
        np.kron(np.kron(parts[0][0][a], parts[1][0][a]), parts[2][0][a]) for a in range(2)
    ])  # fmt: skip
    reward = np.stack([
        (parts[0][1][a][:, None, None] + parts[1][1][a][:, None] + parts[2][1][a]).ravel()
        for a in range(2)
    ])  # fmt: skip
    plain = MDP.from_arrays(dense, reward.T, 0.95, layout="ass")
    stored = free.stored()
    assert free.states == 24
    assert np.allclose(stored.transition.toarray(), plain.transition.toarray(), atol=1e-15)
    assert np.allclose(stored.reward, plain.reward)
    a, b = solve(free, 1e-9), solve(plain, 1e-9)
    assert a.converged
    assert np.abs(a.value - b.value).max() <= 2e-9
    assert certify(plain, a.value).error < 1e-6


def test_an_action_that_a_component_lacks_is_not_available() -> None:
    walk = np.zeros((2, 3, 3))
    walk[0] = np.eye(3)
    walk[1, 0, 1] = walk[1, 1, 2] = 1.0  # the last state cannot move on
    gain = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    pair = factored([walk, walk], [gain, gain], 0.9, terminal=[8])
    stored = pair.stored()
    assert np.diff(stored.pair_ptr).tolist() == [2, 2, 1, 2, 2, 1, 1, 1, 0]
    assert pair.width == 1


def test_tables_that_do_not_fit_are_refused() -> None:
    table, gain = component(3, 2, 0)
    with pytest.raises(InvalidData, match="component 1"):
        factored([table, table[:1]], [gain, gain], 0.9)
    with pytest.raises(InvalidData, match="one of each"):
        factored([table], [gain, gain], 0.9)
    bad = table.copy()
    bad[1, 2] *= 0.5
    with pytest.raises(InvalidData, match="state 2, action 1"):
        factored([bad], [gain], 0.9)
