"""The built-in worlds against the numbers that their books print."""

from __future__ import annotations

import numpy as np
import pytest
from mdp_reference import of_policy, optimal, q_values, uniform

from likely.errors import InvalidSetting
from likely.mdp import worlds
from likely.mdp.model.world import layout_of
from likely.mdp.worlds import classic, garnet, grids


def laid_out(name: str, value: np.ndarray) -> np.ndarray:
    layout = worlds.build(name).layout
    assert layout is not None
    return layout.on_grid(value)


@pytest.mark.parametrize("name", worlds.names())
def test_every_world_builds_with_rows_that_are_distributions(name: str) -> None:
    world = worlds.build(name)
    sums = np.add.reduceat(world.mdp.probability, world.mdp.indptr[:-1])
    assert np.abs(sums - 1.0).max() < 1e-12
    assert worlds.describe(name)
    if world.layout is not None:
        states = world.layout.state
        assert sorted(states[states >= 0]) == list(range(world.mdp.states))


def test_small_gridworld_under_the_random_policy() -> None:
    mdp = worlds.build("small-gridworld").mdp
    expected = [[0, -14, -20, -22], [-14, -18, -20, -20], [-20, -20, -18, -14], [-22, -20, -14, 0]]
    value = laid_out("small-gridworld", of_policy(mdp, uniform(mdp)))
    assert np.allclose(value, expected, atol=1e-10)


def test_small_gridworld_shortest_paths() -> None:
    value = laid_out("small-gridworld", optimal(worlds.build("small-gridworld").mdp))
    rows, columns = np.indices((4, 4))
    assert (value == -np.minimum(rows + columns, 6 - rows - columns)).all()


def test_5x5_gridworld() -> None:
    mdp = worlds.build("gridworld-5x5").mdp
    random = laid_out("gridworld-5x5", of_policy(mdp, uniform(mdp)))
    assert random[0].round(1).tolist() == [3.3, 8.8, 4.4, 5.3, 1.5]
    assert random[4].round(1).tolist() == [-1.9, -1.3, -1.2, -1.4, -2.0]
    best = laid_out("gridworld-5x5", optimal(mdp))
    # Without bumps the best policy never pays -1, so the optimal values are those of the book.
    assert best[0].round(1).tolist() == [22.0, 24.4, 22.0, 19.4, 17.5]
    assert best[4].round(1).tolist() == [14.4, 16.0, 14.4, 13.0, 11.7]


def test_maze() -> None:
    value = laid_out("maze-4x3", optimal(worlds.build("maze-4x3").mdp))
    assert value[0, :3].round(4).tolist() == [0.8116, 0.8678, 0.9178]
    assert value[1, [0, 2]].round(4).tolist() == [0.7616, 0.6603]
    assert value[2].round(4).tolist() == [0.7053, 0.6553, 0.6114, 0.3879]
    assert np.isnan(value[1, 1])


def test_seven_states() -> None:
    mdp = worlds.build("seven-states").mdp
    left = of_policy(mdp, np.tile([1.0, 0.0], 7))
    assert left.tolist() == [10, 5, 2.5, 1.25, 0.625, 0.3125, 10.15625]
    both = of_policy(mdp, uniform(mdp))
    expected = [7.3274, 1.9821, 0.6012, 0.4225, 1.0890, 3.9334, 14.6445]
    assert both.round(4).tolist() == expected


@pytest.mark.parametrize(
    ("name", "discount", "expected"),
    [
        ("frozen-lake", 1.0, 14 / 17),
        ("frozen-lake", 0.99, 0.542026),
        ("frozen-lake", 0.9, 0.068891),
        ("frozen-lake-8x8", 1.0, 1.0),
        ("frozen-lake-8x8", 0.99, 0.414640),
        ("frozen-lake-8x8", 0.9, 0.006411),
    ],
)
def test_frozen_lakes(name: str, discount: float, expected: float) -> None:
    mdp = worlds.build(name, discount).mdp
    assert optimal(mdp)[0] == pytest.approx(expected, abs=6e-7)


def test_gambler() -> None:
    value = optimal(worlds.build("gambler").mdp)
    assert value[[25, 50, 75]].round(12).tolist() == [0.16, 0.4, 0.64]


def test_cliff_walks_along_the_edge() -> None:
    world = worlds.build("cliff")
    value = laid_out("cliff", optimal(world.mdp))
    assert value[3, 0] == -13.0
    assert np.isnan(value[3, 1:11]).all()
    edge = world.layout.state[2, 0] if world.layout is not None else -1
    pair = world.mdp.pair_ptr[edge + 1]  # the first action, up, of the next cell along the edge
    falls = world.mdp.reward[pair : pair + 4]
    assert falls.tolist() == [-1.0, -1.0, -100.0, -1.0]


def test_two_arms_start_is_worth_one_half() -> None:
    mdp = classic.two_arms(6)
    assert optimal(mdp, change=1e-15)[6] == pytest.approx(0.5, abs=1e-9)


def test_two_arms_fool_the_small_change() -> None:
    """The known failure: from 0, with a change of at most 1e-6, 114,011 sweeps say 0.451."""
    mdp = classic.two_arms(15)
    rows = np.array(mdp.indices).reshape(-1, 2)
    value, inner = np.zeros(31), ~mdp.terminal
    for sweep in range(1, 200_000):
        new = np.zeros(31)
        new[inner] = mdp.reward + 0.5 * value[rows].sum(axis=1)
        change = np.abs(new - value).max()
        value = new
        if change <= 1e-6 and sweep > 20:
            break
    assert value[15] == pytest.approx(0.451, abs=5e-4)
    assert sweep == pytest.approx(114_011, abs=1)


def test_forest_is_pymdptoolbox_example() -> None:
    value = optimal(worlds.build("forest").mdp)
    assert value.round(3).tolist() == [26.244, 29.484, 33.484]


def test_inventory_is_putermans() -> None:
    """Puterman 1994, section 4.6: three months, values 67/16, 129/16, 194/16, 227/16."""
    mdp = classic.inventory(discount=1.0)
    value = np.zeros(4)
    for _ in range(3):
        q = q_values(mdp, value)
        value = np.array([of_state.max() for of_state in np.split(q, mdp.pair_ptr[1:-1])])
    assert (16 * value).tolist() == [67.0, 129.0, 194.0, 227.0]


def test_jacks_car_rental() -> None:
    """Policy iteration from "move nothing": 318, 272, 79, 8 and 0 states change."""
    mdp = classic.jacks_car_rental()
    layout = layout_of(mdp)
    rows = mdp.transition
    owner = np.asarray(mdp.pair_state)
    pair = mdp.pair_of(np.full(mdp.states, 5))
    changes = []
    for _ in range(5):
        chosen = np.asarray(rows[pair].todense())
        value = np.linalg.solve(np.eye(mdp.states) - 0.9 * chosen, mdp.reward[pair])
        q = mdp.reward + 0.9 * rows @ value
        best = np.full(mdp.states, -np.inf)
        np.maximum.at(best, owner, q)
        better = best > q[pair] + 1e-9
        new = pair.copy()
        for s in np.flatnonzero(better):
            span = slice(mdp.pair_ptr[s], mdp.pair_ptr[s + 1])
            new[s] = mdp.pair_ptr[s] + int(np.argmax(q[span]))
        changes.append(int((new != pair).sum()))
        pair = new
    assert changes == [318, 272, 79, 8, 0]
    moved = np.array(classic.CAR_MOVES)[mdp.pair_action[pair]]
    assert (moved.min(), moved.max()) == (-4, 5)
    grid = layout.on_grid(value)
    found = [round(float(grid[i, i]), 4) for i in (0, 10, 20)]
    assert found == [421.4141, 574.9483, 636.9896]


def test_slippery_grid_is_the_text_grid() -> None:
    """The vectorised builder and the drawn text give the same rows."""
    from likely.mdp.worlds.gridtext import from_grid

    text = "slip: 1/10\nstep: -1\ndiscount: 0.99\nG = end 0\nactions: up right down left\n\n"
    drawn = from_grid(text + "S....\n.....\n....G\n")
    built = grids.slippery_grid(3, 5)
    assert (built.indices == drawn.indices).all()
    assert np.allclose(built.probability, drawn.probability)
    assert np.allclose(built.reward, drawn.reward)


@pytest.mark.parametrize(("states", "branching"), [(200, 3), (9, 9), (12, 5), (1, 1)])
def test_garnet_rows_have_distinct_successors(states: int, branching: int) -> None:
    mdp = garnet.garnet(states, 2, branching, seed=3)
    assert (np.diff(mdp.indptr) == branching).all()
    again = garnet.garnet(states, 2, branching, seed=3)
    assert (mdp.probability == again.probability).all()
    if states > 1:
        other = garnet.garnet(states, 2, branching, seed=4)
        assert not np.array_equal(mdp.reward, other.reward)


def test_garnet_successors_are_uniform() -> None:
    """Each state is a successor of a row with probability branching / states."""
    mdp = garnet.garnet(40, 500, 4, seed=1)
    frequency = np.bincount(mdp.indices, minlength=40) / (40 * 500)
    assert np.abs(frequency - 0.1).max() < 5 * np.sqrt(0.1 * 0.9 / 20_000)


def test_unknown_world_names_the_nearest() -> None:
    with pytest.raises(InvalidSetting, match="frozen-lake"):
        worlds.build("frozen-lakes")


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(InvalidSetting, match="expected rows, columns"):
        worlds.build("slippery-grid", size=[3])
    with pytest.raises(InvalidSetting, match="branching <= states"):
        worlds.build("garnet", size=[3, 2, 4])
    with pytest.raises(InvalidSetting, match="at least 1"):
        worlds.build("jacks-car-rental", size=[0])


def test_forest_rewards() -> None:
    mdp = worlds.build("forest").mdp
    assert mdp.reward.reshape(3, 2).tolist() == [[0, 0], [0, 1], [4, 2]]  # wait, cut
