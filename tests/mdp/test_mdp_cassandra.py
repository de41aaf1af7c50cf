"""Cassandra's format: every form of a statement, and one clear error for each mistake."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from mdp_reference import optimal

from likely.errors import InvalidData
from likely.mdp.files.cassandra import parse_cassandra, read_cassandra
from likely.mdp.files.loading import from_cassandra, load

PREAMBLE = """
# two states, two actions
discount: 0.5
values: reward
states: a b
actions: stay go
"""

data = pytest.mark.skipif("LIKELY_DATA" not in os.environ, reason="LIKELY_DATA is unset")


def test_every_form_of_a_transition() -> None:
    text = PREAMBLE + "T: stay identity\nT: go : a\n0.25 0.75\nT: go : b : a 0.5\nT:go:b:b .5\n"
    model = parse_cassandra(text)
    assert model.rows == [[{0: 1.0}, {1: 1.0}], [{0: 0.25, 1: 0.75}, {0: 0.5, 1: 0.5}]]
    matrix = parse_cassandra(PREAMBLE + "T: stay\n1 0\n0 1\nT: 1 uniform\n")
    assert matrix.rows == [[{0: 1.0}, {1: 1.0}], [{0: 0.5, 1: 0.5}, {0: 0.5, 1: 0.5}]]


def test_later_statements_override_and_stars_mean_all() -> None:
    text = PREAMBLE + "T: * : * : * 0.0\nT: * : * : b 1\nT: go : a : b 0\nT: go : a : a 1.0\n"
    assert parse_cassandra(text).rows == [[{1: 1.0}, {1: 1.0}], [{0: 1.0}, {1: 1.0}]]


def test_rewards_of_an_mdp_file() -> None:
    text = PREAMBLE + "T: * uniform\nR: * : * : * 1\nR: go : a : b 5\nR: go : b\n2 4\n"
    model = parse_cassandra(text)
    assert model.fully_observed
    assert model.expected_rewards().tolist() == [[1.0, 1.0], [3.0, 3.0]]


def test_costs_are_negated() -> None:
    text = PREAMBLE.replace("reward", "cost") + "T: * identity\nR: * : a : * 3\n"
    assert parse_cassandra(text).expected_rewards().tolist() == [[-3.0, 0.0], [-3.0, 0.0]]


def test_rewards_that_depend_on_the_observation_are_averaged() -> None:
    text = PREAMBLE + "observations: x y\nT: * identity\nO: *\n0.75 0.25\n0 1\n"
    text += "R: stay : a : a : x 8\nR: go : a : a\n4 12\nR: go : b\n0 0\n1 7\n"
    model = parse_cassandra(text)
    assert model.expected_rewards().tolist() == [[6.0, 0.0], [6.0, 7.0]]
    assert not model.fully_observed


def test_observations_that_tell_the_state_are_full() -> None:
    text = PREAMBLE + "observations: 2\nT: * identity\nO: * identity\n"
    assert parse_cassandra(text).fully_observed
    relabelled = PREAMBLE + "observations: 3\nT: * identity\nO: *: a : 2 1\nO: * : b : 0 0.5\n"
    assert parse_cassandra(relabelled + "O: * : b : 1 0.5\n").fully_observed
    assert not parse_cassandra(
        PREAMBLE + "observations: 2\nT: * identity\nO: * uniform\n"
    ).fully_observed


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("start: 0.25 0.75", [0.25, 0.75]),
        ("start: b", [0.0, 1.0]),
        ("start: uniform", [0.5, 0.5]),
        ("start include: a", [1.0, 0.0]),
        ("start exclude: a", [0.0, 1.0]),
        ("", [0.5, 0.5]),
    ],
)
def test_starts(start: str, expected: list[float]) -> None:
    model = parse_cassandra(PREAMBLE + start + "\nT: * identity\n")
    assert model.start.tolist() == expected


def test_reset_restarts() -> None:
    model = parse_cassandra(PREAMBLE + "start: 0.25 0.75\nT: stay identity\nT: go : * reset\n")
    assert model.rows[1] == [{0: 0.25, 1: 0.75}, {0: 0.25, 1: 0.75}]


def test_the_mdp_is_solved_right() -> None:
    """From a: go pays 1 and leads to b, staying in b pays 2 a step: V(b) = 4, V(a) = 1 + 2."""
    text = PREAMBLE + "T: stay identity\nT: go\n0 1\n1 0\nR: stay : b : * 2\nR: go : a : * 1\n"
    mdp = from_cassandra(parse_cassandra(text))
    assert optimal(mdp) == pytest.approx([3.0, 4.0])
    assert mdp.state_names == ("a", "b")
    assert mdp.action_names == ("stay", "go")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("discount: much", 'line 1: expected the discount, given "much"'),
        ("discount: 1.5", r"line 1: the discount must lie in \[0, 1\], given 1.5"),
        ("values: profit", 'line 1: values must be "reward" or "cost", given "profit"'),
        ("T: 0 identity", '"states:" must come before the first statement'),
        ("discont: 0.9", 'line 1: expected a statement .* given "discont"; did you mean "disco'),
        (PREAMBLE + "T: jump identity", 'line 7: unknown name "jump" among the actions; valid: '),
        (PREAMBLE + "T: stay : a : 2 1", 'line 7: unknown name "2" among the states'),
        (PREAMBLE + "T: stay : a : b 1.5", r"line 7: a probability must lie in \[0, 1\], given 1"),
        (PREAMBLE + "T: stay : a\n0.5", "the file ends where a probability .2 of 2. was expected"),
        (PREAMBLE + "T: stay : a\n0.5 x", 'line 8: expected a probability .2 of 2., given "x"'),
        (PREAMBLE + "T: stay : a\n-1 2", "line 8: a probability is negative"),
        (PREAMBLE + "T: stay identity", "T: go : a is never given"),
        (PREAMBLE + "T: * identity\nT: go : b\n0.5 0.4", "line 9: T: go : b sums to 0.9"),
        (PREAMBLE + "states: a a", 'line 7: the name "a" occurs twice'),
        (PREAMBLE + "start: 0.5 0.4\nT: * identity", "line 7: the start distribution .* 0.9"),
        (PREAMBLE + "T: * identity\nR: stay : a nan", "line 8: expected a reward .* finite"),
        (PREAMBLE + "T: * identity\nO: * uniform", 'line 8: "observations:" must come before'),
    ],
)
def test_mistakes_are_named_with_their_line(text: str, message: str) -> None:
    with pytest.raises(InvalidData, match=message) as caught:
        parse_cassandra(text, "file")
    assert "\n" not in str(caught.value)


def test_a_partially_observed_file_is_refused_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "tiger.POMDP"
    path.write_text(PREAMBLE + "observations: 1\nT: * identity\nO: * uniform\nR: * : * : * : * 2\n")
    with pytest.raises(InvalidData, match="only partially observed; `likely mdp beliefs` bounds"):
        load(path)
    mdp = from_cassandra(read_cassandra(path), underlying=True)
    assert optimal(mdp) == pytest.approx([4.0, 4.0])


@pytest.mark.data
@data
@pytest.mark.parametrize(
    ("name", "low", "high", "mean"),
    [
        ("Tiger.pomdp", 200.0, 200.0, 200.0),
        ("tiger_aaai.POMDP", 40.0, 40.0, 40.0),
        ("shuttle_95.POMDP", 32.889725, 40.379954, 35.859289),
        ("Hallway.pomdp", 1.092102, 2.302368, 1.530657),
        ("Hallway2.pomdp", 0.726517, 2.009986, 1.198066),
        ("light_maze.POMDP", 0.0, 1.0, 0.633889),
        ("TagAvoid.pomdp", -3.271932, 10.0, 2.08847),
    ],
)
def test_published_problems(name: str, low: float, high: float, mean: float) -> None:
    """The values of the underlying MDPs that the data's note states, to all its digits."""
    model = read_cassandra(Path(os.environ["LIKELY_DATA"]) / "mdp" / "pomdp" / name)
    mdp = from_cassandra(model, underlying=True)
    rows, value = mdp.transition, np.zeros(mdp.states)
    for _ in range(600):
        q = mdp.reward + mdp.discount * rows @ value
        value = np.maximum.reduceat(q, mdp.pair_ptr[:-1])
    assert [value.min(), value.max(), value.mean()] == pytest.approx([low, high, mean], abs=6e-7)


def test_rows_of_few_digits_are_rescaled() -> None:
    text = PREAMBLE + "T: stay identity\nT: go : a\n0.333333 0.666666\nT: go : b\n0 1\n"
    mdp = from_cassandra(parse_cassandra(text))
    assert mdp.probability[1:3].sum() == pytest.approx(1.0, abs=1e-15)
    assert mdp.probability[1] == pytest.approx(1 / 3, abs=1e-15)


def test_the_observation_is_of_the_next_state() -> None:
    text = PREAMBLE + "observations: x y\nT: *\n0 1\n1 0\nO: *\n1 0\n0 1\n"
    text += "R: * : a : * : y 5\nR: * : b : * : y 7\n"  # from a one sees b's y, from b a's x
    assert parse_cassandra(text).expected_rewards().tolist() == [[5.0, 0.0], [5.0, 0.0]]


@pytest.mark.parametrize("rows", ["0.5 0\n0 0.5", "-1 2\n0 1", "3 0\n0 1", "1 0\n0 nan"])
def test_observations_that_are_no_distribution_are_refused(rows: str) -> None:
    """They were weights of the rewards: half of a row paid half of what the file says."""
    text = PREAMBLE + f"observations: x y\nT: * identity\nO: *\n{rows}\nR: * : * : * : x 8\n"
    with pytest.raises(InvalidData, match=r"O: .* sums to|finite number"):
        parse_cassandra(text)
    with pytest.raises(InvalidData, match="O: stay : a sums to 0"):
        parse_cassandra(PREAMBLE + "observations: x y\nT: * identity\n")


def test_the_errors_that_a_problem_states_hold_for_the_numbers_of_its_file() -> None:
    """Rows are divided once, and a mean over observations may cancel."""
    text = PREAMBLE + "observations: 3\nT: *\n0.1 0.9000003\n0.7 0.3\nO: *\n"
    text += "0.1 0.2 0.7\n" * 2 + "R: * : * : * : 0 7e15\nR: * : * : * : 2 -1.00000001e15\n"
    mdp = from_cassandra(parse_cassandra(text), underlying=True)
    seen = [Fraction(p) for p in (0.1, 0.2, 0.7)]
    paid = (seen[0] * Fraction(7e15) - seen[2] * Fraction(1.00000001e15)) / sum(seen)
    for reward in mdp.reward:
        rounded = Fraction(2) ** -53 * abs(paid)
        assert abs(Fraction(float(reward)) - paid) <= Fraction(mdp.reward_defect) + rounded
    first, second = Fraction(0.1), Fraction(0.9000003)
    for p, share in zip(mdp.probability[:2], (first, second), strict=True):
        meant = share / (first + second)
        assert abs(Fraction(float(p)) - meant) <= Fraction(mdp.row_defect) * meant
