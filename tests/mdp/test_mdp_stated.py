"""Every constructor takes a problem as it is stated: the row that is meant, one pair per label."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from mdp_exact import Stated, outside
from scipy import sparse

from likely.errors import InvalidData, InvalidSetting
from likely.mdp import MDP, certify, solve
from likely.mdp.files.loading import load
from likely.mdp.model.explore import from_step
from likely.mdp.worlds.gymnasium import from_table

# Two rows that miss one by 9e-10, within the tolerance: every move pays 1, so V* is 10.
P, Q = 0.5, 0.4999999991
DENSE = np.array([[[P, Q], [P, Q]]])


def pairs(folder: Path) -> MDP:
    return MDP.from_pairs(
        [0, 1, 2], [0, 2, 4], [0, 1, 0, 1], [P, Q, P, Q], None, 0.9, successor_reward=[1.0] * 4
    )


def both(folder: Path) -> MDP:
    return MDP.from_pairs(
        [0, 1, 2], [0, 2, 4], [0, 1, 0, 1], [P, Q, P, Q], [0.25, 0.25], 0.9,
        successor_reward=[0.75] * 4,
    )  # fmt: skip


def arrays(folder: Path) -> MDP:
    return MDP.from_arrays(DENSE, np.ones_like(DENSE), 0.9)


def matrices(folder: Path) -> MDP:
    moves = [sparse.csr_array(m) for m in DENSE]
    return MDP.from_sparse(moves, [sparse.csr_array(np.ones((2, 2)))], 0.9)


def steps(folder: Path) -> MDP:
    return from_step(lambda s, a: [(P, 0, 1.0), (Q / 2, 1, 1.0), (Q / 2, 1, 1.0)], [0, 1], [0], 0.9)


def table(folder: Path) -> MDP:
    row = {0: [(P, 0, 1.0, False), (Q, 1, 1.0, False)]}
    return from_table({0: row, 1: row}, 0.9)


def explicit(folder: Path) -> MDP:
    lines = [f"{s} 0 {t} {p!r}" for s in (0, 1) for t, p in ((0, P), (1, Q))]
    (folder / "m.tra").write_text("2 2 4\n" + "\n".join(lines) + "\n")
    moves = [f"{s} 0 {t} 1" for s in (0, 1) for t in (0, 1)]
    (folder / "m.trew").write_text("2 2 4\n" + "\n".join(moves) + "\n")
    return load(folder / "m.tra", discount=0.9).mdp


def cassandra(folder: Path) -> MDP:
    (folder / "m.MDP").write_text(
        "discount: 0.9\nvalues: reward\nstates: 2\nactions: 1\n"
        f"T: 0\n{P!r} {Q!r}\n{P!r} {Q!r}\nR: 0 : * : * : * 1\n"
    )
    return load(folder / "m.MDP").mdp


def saved(folder: Path) -> MDP:
    pairs(folder).save(folder / "m.npz")
    return MDP.load(folder / "m.npz")


@pytest.mark.parametrize(
    "make", [pairs, both, arrays, matrices, steps, table, explicit, cassandra, saved]
)
def test_rewards_of_transitions_fold_with_the_row_that_is_meant(
    make: Callable[[Path], MDP], tmp_path: Path
) -> None:
    mdp = make(tmp_path)
    assert mdp.reward.tolist() == [1.0, 1.0]
    truth = [1 / (1 - Fraction(0.9))] * 2
    for solution in (solve(mdp, 1e-12), solve(mdp, 1e-12, objective="min")):
        assert not outside(solution.lower, solution.upper, truth)
    certificate = certify(mdp, np.zeros(2))
    assert not outside(certificate.lower, certificate.upper, truth)


def test_a_wide_tolerance_divides_rows_and_rewards_alike() -> None:
    problem = Stated(
        [[[(0.5, 0), (0.495, 1)]], [[(0.995, 1)]]], None, 0.9, [[[3.0, 1.0]], [[1.0]]],
        row_tolerance=1e-2,
    )  # fmt: skip
    first, second = (pair[0][0] for pair in problem.exact())
    mdp = problem.mdp()
    assert mdp.reward.tolist() == [float(first), float(second)]
    assert mdp.successor_reward is not None
    assert mdp.successor_reward.tolist() == [3.0, 1.0, 1.0]


def test_the_rest_of_a_short_row_carries_no_reward() -> None:
    mdp = MDP.from_pairs(
        [0, 1], [0, 1], [0], [0.5], None, 0.9, successor_reward=[4.0], missing="terminate"
    )
    assert mdp.reward.tolist() == [2.0]
    assert mdp.terminal.tolist() == [False, True]


def test_large_rewards_that_cancel_keep_their_digits() -> None:
    p, r = [0.1, 0.2, 0.7], [7e12, -1e12, -7.142857142857143e11]
    mdp = MDP.from_pairs([0, 1], [0, 3], [0, 0, 0], p, None, 0.99, successor_reward=r)
    total = sum(map(Fraction, p))
    exact = sum(Fraction(a) * Fraction(b) for a, b in zip(p, r, strict=True)) / total
    assert abs(Fraction(float(mdp.reward[0])) - exact) <= abs(exact) * Fraction(2.0**-52)
    solution = solve(mdp, 1e-6)
    assert not outside(solution.lower, solution.upper, [exact / (1 - Fraction(0.99))])


def test_what_was_lost_is_saved_with_the_problem(tmp_path: Path) -> None:
    mdp = MDP.from_pairs(
        [0, 1, 2], [0, 4, 5], [0, 0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4, 1.0], None, 0.9,
        successor_reward=[7e12, -1e12, 3e11, 1.0, 0.0],
    )  # fmt: skip
    assert mdp.reward_defect > 0.0
    mdp.save(tmp_path / "m.npz")
    again = MDP.load(tmp_path / "m.npz")
    assert again.reward_defect == mdp.reward_defect
    assert again.row_defect >= mdp.row_defect
    negated = mdp.negated()
    assert negated.reward_defect == mdp.reward_defect
    assert negated.reward.tolist() == (-mdp.reward).tolist()


def test_two_pairs_of_a_state_with_one_label_are_refused() -> None:
    def make(labels: list[int], **names: list[str]) -> MDP:
        return MDP.from_pairs(
            [0, 1, 4], [0, 1, 2, 3, 4], [0, 1, 0, 1], [1.0] * 4, [1.0, 2.0, 3.0, 4.0], 0.9,
            pair_action=labels, **names,
        )  # fmt: skip

    for labels in ([0, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 1], [2, 5, 0, 5]):
        with pytest.raises(InvalidData, match=r"state 1, action \d: more than one pair"):
            make(labels)
    with pytest.raises(InvalidData, match=r"state 1 \(b\), action 0 \(go\)"):
        make([0, 0, 1, 0], state_names=["a", "b"], action_names=["go", "stay"])
    # Labels in any order, and the same label in two states, are as good as before.
    mdp = make([2, 2, 0, 1])
    assert mdp.pair_of(solve(mdp, 1e-9).policy).tolist() == [0, 3]


def test_a_function_whose_actions_repeat_is_refused() -> None:
    with pytest.raises(InvalidData, match="more than one pair has this action label"):
        from_step(lambda s, a: [(1.0, 0, 1.0)], [0], ["go", "go"], 0.9)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rewards_of_transitions_that_are_not_finite_are_named(bad: float) -> None:
    with pytest.raises(InvalidData, match=r"state 1, action 0: reward .* is not finite"):
        MDP.from_pairs(
            [0, 1, 2], [0, 1, 2], [1, 0], [1.0, 1.0], None, 0.9, successor_reward=[1.0, bad]
        )


def test_a_discount_of_zero_is_refused_and_the_smallest_one_is_solved() -> None:
    with pytest.raises(InvalidSetting, match="discount 0"):
        MDP.from_pairs([0, 1], [0, 1], [0], [1.0], [1.0], 0.0)
    mdp = MDP.from_pairs([0, 1], [0, 1], [0], [1.0], [3.0], 5e-324)
    assert solve(mdp, 1e-9).value.tolist() == [3.0]
