"""The worlds through `solve` and `evaluate`: known answers lie in the certified intervals."""

from __future__ import annotations

import numpy as np
import pytest

from likely import mdp
from likely.mdp import worlds
from likely.mdp.worlds.classic import two_arms

# 14/17 was computed by hand, the rest to the digits given.
LAKES = [
    ("frozen-lake", 1.0, 14 / 17, 1e-9),
    ("frozen-lake", 0.99, 0.542026, 5e-7),
    ("frozen-lake", 0.9, 0.068891, 5e-7),
    ("frozen-lake-8x8", 1.0, 1.0, 1e-9),
    ("frozen-lake-8x8", 0.99, 0.414640, 5e-7),
    ("frozen-lake-8x8", 0.9, 0.006411, 5e-7),
]


def solved(world: mdp.World, tolerance: float = 1e-9) -> mdp.Solution:
    found = (mdp.total_reward if world.mdp.discount == 1.0 else mdp.solve)(world, tolerance)
    assert found.converged, found.status
    assert found.error <= tolerance
    return found


def inside(found: mdp.Solution, state: int, expected: float, digits: float) -> None:
    assert found.lower[state] - digits <= expected <= found.upper[state] + digits


@pytest.mark.parametrize(("name", "discount", "expected", "digits"), LAKES)
def test_frozen_lakes(name: str, discount: float, expected: float, digits: float) -> None:
    inside(solved(worlds.build(name, discount)), 0, expected, digits)


def test_small_gridworld() -> None:
    world = worlds.build("small-gridworld")
    found = solved(world)
    rows, columns = np.indices((4, 4))
    shortest = -np.minimum(rows + columns, 6 - rows - columns).ravel()
    assert (found.lower <= shortest).all()
    assert (shortest <= found.upper).all()
    random = mdp.evaluate(world.mdp, "uniform")
    expected = np.array([0, 14, 20, 22, 14, 18, 20, 20, 20, 20, 18, 14, 22, 20, 14, 0])
    assert (random.lower <= -expected).all()
    assert (-expected <= random.upper).all()


def test_maze() -> None:
    world = worlds.build("maze-4x3")
    assert world.layout is not None
    value = world.layout.on_grid(solved(world).value).round(4)
    assert value[0, :3].tolist() == [0.8116, 0.8678, 0.9178]
    assert value[1, [0, 2]].tolist() == [0.7616, 0.6603]
    assert value[2].tolist() == [0.7053, 0.6553, 0.6114, 0.3879]


def test_5x5_gridworld() -> None:
    world = worlds.build("gridworld-5x5")
    assert world.layout is not None
    best = world.layout.on_grid(solved(world).value).round(1)
    assert best[0].tolist() == [22.0, 24.4, 22.0, 19.4, 17.5]
    assert best[4].tolist() == [14.4, 16.0, 14.4, 13.0, 11.7]
    random = world.layout.on_grid(mdp.evaluate(world.mdp, "uniform").value).round(1)
    assert random[0].tolist() == [3.3, 8.8, 4.4, 5.3, 1.5]
    assert random[4].tolist() == [-1.9, -1.3, -1.2, -1.4, -2.0]


def test_gambler() -> None:
    found = solved(worlds.build("gambler"))
    for capital, expected in ((25, 0.16), (50, 0.4), (75, 0.64)):
        inside(found, capital, expected, 0.0)


def test_cliff() -> None:
    world = worlds.build("cliff")
    assert world.layout is not None
    inside(solved(world), int(world.layout.state[3, 0]), -13.0, 0.0)


def test_jacks_car_rental() -> None:
    world = worlds.build("jacks-car-rental")
    assert world.layout is not None
    found = solved(world, 1e-6)
    for cars, expected in ((0, 421.4141), (10, 574.9483), (20, 636.9896)):
        inside(found, int(world.layout.state[cars, cars]), expected, 5e-5)
    moved = found.policy - 5
    assert (moved.min(), moved.max()) == (-4, 5)


def test_seven_states() -> None:
    world = worlds.build("seven-states")
    left = mdp.evaluate(world.mdp, np.zeros(7, dtype=int))
    assert np.abs(left.value - [10, 5, 2.5, 1.25, 0.625, 0.3125, 10.15625]).max() < 1e-12
    both = mdp.evaluate(world.mdp, "uniform").value.round(4)
    assert both.tolist() == [7.3274, 1.9821, 0.6012, 0.4225, 1.0890, 3.9334, 14.6445]


@pytest.mark.parametrize("length", [5, 15, 20])
def test_two_arms(length: int) -> None:
    """Where stopping at a small change says 0.451 (15) or 0.00000095 (20), the truth is 1/2."""
    chain = two_arms(length)
    found = mdp.total_reward(chain, 1e-6)
    assert found.converged, found.status
    inside(found, length, 0.5, 0.0)
