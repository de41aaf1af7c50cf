"""The MDP itself: every constructor ends in the same rows, and bad input is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mdp_examples import random_mdp
from scipy import sparse

from likely.errors import InvalidData, InvalidSetting
from likely.mdp import MDP, bellman_optimality, solve, total_reward, worlds

DENSE = np.array([[[0.5, 0.5], [0.0, 1.0]], [[1.0, 0.0], [0.2, 0.8]]])  # [A, S, S]
GAIN = np.array([[1.0, 2.0], [3.0, 4.0]])  # [S, A]


def same(a: MDP, b: MDP) -> bool:
    return (
        np.array_equal(a.transition.toarray(), b.transition.toarray())
        and np.allclose(a.reward, b.reward, rtol=0, atol=1e-15)
        and np.array_equal(a.pair_ptr, b.pair_ptr)
        and np.array_equal(a.pair_action, b.pair_action)
    )


def test_layouts_sparse_and_pairs_agree() -> None:
    ass = MDP.from_arrays(DENSE, GAIN, 0.9)
    assert same(ass, MDP.from_arrays(DENSE.transpose(1, 0, 2), GAIN, 0.9, layout="sas"))
    assert same(ass, MDP.from_sparse([sparse.csr_array(p) for p in DENSE], GAIN, 0.9))
    on_moves = np.broadcast_to(GAIN.T[:, :, None], DENSE.shape)
    assert same(ass, MDP.from_arrays(DENSE, on_moves, 0.9))
    assert same(ass, MDP.from_sparse(
        [sparse.csr_array(p) for p in DENSE],
        [sparse.csr_array(np.where(p > 0, r, 0)) for p, r in zip(DENSE, on_moves, strict=True)],
        0.9,
    ))  # fmt: skip
    assert ass.states == 2
    assert ass.actions == 2
    assert ass.indices.dtype == np.int32


def test_dense_and_sparse_shapes_that_could_be_mistaken() -> None:
    rng = np.random.default_rng(0)
    cube = rng.dirichlet(np.ones(3), (3, 3))  # A = S: only `layout` tells the axes apart
    gain = rng.random((3, 3))
    ass = MDP.from_arrays(cube, gain, 0.9, layout="ass")
    sas = MDP.from_arrays(cube, gain, 0.9, layout="sas")
    assert np.array_equal(ass.transition.toarray()[1], cube[1, 0])
    assert np.array_equal(sas.transition.toarray()[1], cube[0, 1])


def test_rewards_on_moves_fold_to_their_expectation() -> None:
    mdp = MDP.from_pairs(
        [0, 1, 2], [0, 2, 3], [0, 1, 1], [0.25, 0.75, 1.0], [10.0, 0.0], 0.9,
        successor_reward=[4.0, 8.0, 1.0],
    )  # fmt: skip
    assert mdp.reward.tolist() == [10.0 + 1.0 + 6.0, 1.0]
    assert mdp.successor_reward is not None
    assert mdp.successor_reward.tolist() == [14.0, 18.0, 1.0]


def test_repeated_successors_merge_and_zeros_go() -> None:
    mdp = MDP.from_pairs(
        [0, 1, 2], [0, 4, 5], [1, 0, 1, 0, 1], [0.25, 0.5, 0.25, 0.0, 1.0], None, 0.9,
        successor_reward=[2.0, 0.0, 6.0, 99.0, 0.0],
    )  # fmt: skip
    assert mdp.indices.tolist() == [0, 1, 1]
    assert mdp.probability.tolist() == [0.5, 0.5, 1.0]
    assert mdp.reward.tolist() == [2.0, 0.0]
    assert mdp.successor_reward is not None
    assert mdp.successor_reward.tolist() == [0.0, 4.0, 0.0]


def test_missing_mass_ends_the_episode_when_asked() -> None:
    arguments = ([0, 1, 2], [0, 1, 2], [1, 0], [0.5, 1.0], [1.0, 0.0], 1.0)
    with pytest.raises(InvalidData, match=r"state 0, action 0: probabilities sum to 0\.5"):
        MDP.from_pairs(*arguments)
    mdp = MDP.from_pairs(*arguments, missing="terminate")
    assert mdp.states == 3
    assert mdp.terminal.tolist() == [False, False, True]
    assert mdp.transition.toarray().tolist() == [[0, 0.5, 0.5], [1, 0, 0]]
    # A geometric number of visits with p = 1/2: the total reward is 2.
    assert total_reward(mdp).value[0] == pytest.approx(2.0, abs=1e-12)


def test_terminal_states_lose_their_pairs() -> None:
    mdp = MDP.from_arrays(DENSE, GAIN, 0.9, terminal=[1])
    assert mdp.pairs == 2
    assert np.diff(mdp.pair_ptr).tolist() == [2, 0]
    assert bellman_optimality(mdp, [0.0, 0.0]).tolist() == [2.0, 0.0]


def test_action_sets_may_differ() -> None:
    mdp = MDP.from_arrays(DENSE, GAIN, 0.9, available=[[True, False], [True, True]])
    assert np.diff(mdp.pair_ptr).tolist() == [1, 2]
    assert solve(mdp).policy[0] == 0
    with pytest.raises(InvalidData, match="action 1 in state 0, which has only"):
        mdp.pair_of(np.array([1, 0]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probability": [-0.5, 1.5, 1.0]}, r"state 0 \(a\), action 0 \(go\): probability -0\.5"),
        ({"probability": [np.nan, 1.0, 1.0]}, r"state 0 \(a\), action 0 \(go\): probability nan"),
        ({"probability": [0.5, 0.5, 0.9]}, r"state 1 \(b\), action 0 \(go\): .* sum to 0\.9"),
        ({"reward": [0.0, np.inf]}, r"state 1 \(b\), action 0 \(go\): reward inf"),
        ({"reward": [np.nan, 0.0]}, r"state 0 \(a\), action 0 \(go\): reward nan"),
        ({"indices": [0, 2, 1]}, r"state 0 \(a\), action 0 \(go\): successor 2"),
        ({"pair_ptr": [0, 2, 2]}, r"state 1 \(b\) has no action"),
        ({"indptr": [0, 2, 4]}, "indptr runs from 0 to 4, expected 0 to 3"),
        ({"initial": [0.5, 0.6]}, "sums to 1.1"),
        ({"terminal": [5]}, "terminal"),
        ({"state_names": ["a"]}, "1 state names for 2 states"),
    ],
)
def test_bad_input_names_the_state_and_the_action(change: dict, message: str) -> None:
    good = {
        "pair_ptr": [0, 1, 2], "indptr": [0, 2, 3], "indices": [0, 1, 1],
        "probability": [0.5, 0.5, 1.0], "reward": [0.0, 1.0], "discount": 0.9,
        "state_names": ["a", "b"], "action_names": ["go", "wait"],
    }  # fmt: skip
    MDP.from_pairs(**good)
    with pytest.raises(InvalidData, match=message):
        MDP.from_pairs(**{**good, **change})


@pytest.mark.parametrize("discount", [0.0, -1.0, 1.1, np.nan])
def test_discount_is_checked(discount: float) -> None:
    with pytest.raises(InvalidSetting, match=r"expected a number in \(0, 1\]"):
        MDP.from_arrays(DENSE, GAIN, discount)


def test_save_and_load_give_the_same_mdp_and_the_same_values(tmp_path: Path) -> None:
    mdp = random_mdp(20, 3, 4, 0.9, terminal=2)
    named = MDP.from_pairs(
        mdp.pair_ptr, mdp.indptr, mdp.indices, mdp.probability, mdp.reward, 0.9,
        successor_reward=np.arange(mdp.transitions), terminal=mdp.terminal, initial=3,
        state_names=[f"s{i}" for i in range(20)],
    )  # fmt: skip
    named.save(tmp_path / "a.npz")
    loaded = MDP.load(tmp_path / "a.npz")
    assert same(named, loaded)
    assert loaded.state_names == named.state_names
    assert np.array_equal(loaded.successor_reward, named.successor_reward)
    assert np.array_equal(loaded.initial, named.initial)
    assert np.array_equal(solve(loaded).value, solve(named).value)
    (tmp_path / "b.npz").write_bytes(b"nonsense")
    with pytest.raises(InvalidData, match="not an MDP"):
        MDP.load(tmp_path / "b.npz")


def test_arrays_are_read_only() -> None:
    mdp = random_mdp(5, 2, 2, 0.9)
    with pytest.raises(ValueError, match="read-only"):
        mdp.probability[0] = 1.0


def test_rows_within_the_tolerance_are_rescaled() -> None:
    third = round(1.0 / 3.0, 10)
    mdp = MDP.from_pairs([0, 1, 2, 3], [0, 3, 4, 5], [0, 1, 2, 1, 2], [third] * 3 + [1, 1],
                         [1, 0, 0], 0.9)  # fmt: skip
    assert abs(mdp.probability[:3].sum() - 1.0) < 1e-15
    assert mdp.row_defect < 1e-15


@pytest.mark.parametrize("name", ["maze-4x3", "jacks-car-rental", "two-arms", "inventory"])
def test_a_saved_problem_keeps_its_layout(name: str, tmp_path: Path) -> None:
    before = worlds.build(name, size=[3] if name == "jacks-car-rental" else None).mdp
    before.save(tmp_path / "a.npz")
    after = MDP.load(tmp_path / "a.npz")
    assert before.layout is not None
    assert after.layout is not None
    assert np.array_equal(after.layout.state, before.layout.state)
    for field in ("symbols", "moves", "row_name", "column_name"):
        assert getattr(after.layout, field) == getattr(before.layout, field)
    if before.layout.entering is None:
        assert after.layout.entering is None
    else:
        assert np.array_equal(after.layout.entering, before.layout.entering, equal_nan=True)
    with np.load(tmp_path / "a.npz") as stored:
        arrays = dict(stored)
    for damage in (np.full_like(arrays["layout"], 99), np.full((1, 1, 1), 0)):
        np.savez(tmp_path / "b.npz", **{**arrays, "layout": damage})
        with pytest.raises(InvalidData, match=r"b\.npz"):
            MDP.load(tmp_path / "b.npz")
