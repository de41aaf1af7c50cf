"""Grid worlds drawn in text: what the symbols mean, and one clear error for each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
from mdp_reference import optimal

from likely.errors import InvalidData
from likely.mdp import MDP
from likely.mdp.model.world import layout_of
from likely.mdp.worlds.gridtext import from_grid, read_grid


def row(mdp: MDP, state: int, action: int) -> tuple[dict[int, float], float]:
    pair = mdp.pair_ptr[state] + action
    entries = range(mdp.indptr[pair], mdp.indptr[pair + 1])
    chances = {int(mdp.indices[e]): float(mdp.probability[e]) for e in entries}
    return chances, float(mdp.reward[pair])


def test_moves_walls_and_ends() -> None:
    mdp = from_grid("step: -1\nbump: -2\n\nS.#\n..G\n")
    layout = layout_of(mdp)
    assert layout.state.tolist() == [[0, 1, -1], [2, 3, 4]]
    assert row(mdp, 0, 0) == ({0: 1.0}, -2.0)  # up, off the grid
    assert row(mdp, 1, 1) == ({1: 1.0}, -2.0)  # right, into the wall
    assert row(mdp, 3, 1) == ({4: 1.0}, 0.0)  # right, into the goal: -1 + 1
    assert mdp.terminal.tolist() == [False] * 4 + [True]
    assert mdp.initial is not None
    assert mdp.initial.tolist() == [1, 0, 0, 0, 0]


def test_slipping_merges_outcomes_in_a_corner() -> None:
    mdp = from_grid("slip: 1/10\n\n..\n..")
    assert row(mdp, 0, 0)[0] == pytest.approx({0: 0.9, 1: 0.1})  # up from the top left corner
    assert row(mdp, 0, 1)[0] == pytest.approx({1: 0.8, 0: 0.1, 2: 0.1})


def test_rewards_of_transitions_are_kept_for_simulation() -> None:
    mdp = from_grid("slip: 1/4\n\n.G\n..")
    assert mdp.successor_reward is not None
    assert set(mdp.successor_reward.tolist()) == {0.0, 1.0}


def test_jump_back_and_reward_cells() -> None:
    text = "step: -1\nJ = jump x 7\nC = back -99\nM = reward -3\n\nS.C\nJMx\n"
    mdp = from_grid(text)
    layout = layout_of(mdp)
    assert layout.state.tolist() == [[0, 1, -1], [2, 3, 4]]
    assert row(mdp, 1, 1) == ({0: 1.0}, -100.0)
    assert row(mdp, 2, 3) == ({4: 1.0}, 7.0)
    assert row(mdp, 1, 2) == ({3: 1.0}, -4.0)


def test_settings_and_order_of_actions() -> None:
    mdp = from_grid("; a comment\ndiscount: 9/10\nactions: left down right up\n\nS.G")
    assert mdp.discount == 0.9
    assert mdp.action_names == ("left", "down", "right", "up")
    assert row(mdp, 0, 2)[0] == {1: 1.0}
    assert from_grid("discount: 0.9\n\nS.G", discount=0.5).discount == 0.5
    assert optimal(mdp)[0] == pytest.approx(0.9)


def test_spaces_are_free_cells_and_short_rows_are_filled() -> None:
    mdp = from_grid("####\n#S\n####")
    layout = layout_of(mdp)
    assert layout.shape == (3, 4)
    assert mdp.states == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is no grid"),
        ("discoumt: 0.9\n\nS.G", r'line 1: unknown setting "discoumt"; did you mean "discount"'),
        ("slip: a lot\n\nS.G", 'line 1: expected a number or a fraction, given "a lot"'),
        ("slip: 0.6\n\nS.G", r"line 1: slip is a probability for each side, in \[0, 1/2\]"),
        ("discount: 2\n\nS.G", r"line 1: the discount must lie in \(0, 1\], given 2"),
        ("actions: up down\n\nS.G", "line 1: actions must list up right down left"),
        ("X = ends 1\n\nS.X", r'line 1: unknown meaning "ends"; did you mean "end"'),
        ("X = end\n\nS.X", 'line 1: expected "end R"'),
        ("J = jump q 1\n\nJ.", 'line 1: a jump needs exactly one cell marked "q", there are 0'),
        ("S.G\n..?", r'line 2: unknown symbol "\?" in column 3'),
        ("S.G\n..", "line 2: the row has 2 cells, the longest has 3"),
        ("C = back 0\n\nC.G", "exactly one start cell; there are 0"),
        ("###", "no free cell"),
    ],
)
def test_mistakes_are_named_with_their_line(text: str, message: str) -> None:
    with pytest.raises(InvalidData, match=message) as caught:
        from_grid(text)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "grid.txt"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidData, match="is not a text file"):
        read_grid(path)
    with pytest.raises(InvalidData, match=r"cannot read .*absent\.txt: no such file"):
        read_grid(tmp_path / "absent.txt")
