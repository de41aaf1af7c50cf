"""Laws of the comparison: a partial order, one fingerprint a column, paired where it can be."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from likely.ask import Answer, Guarantee
from likely.data.spec import DataSpec
from likely.errors import InvalidSetting
from likely.estimate import Estimate, Relation, Verdict
from likely.evaluate.compare import (
    Column,
    ComparisonTable,
    Missing,
    ModelResult,
    compare_models,
    paired_comparison,
)
from likely.evaluate.likelihood import PerExample
from likely.report.tables import label, number, terminal_table, typeset

NO_DENSITY = {"likelihood": Answer(Guarantee.NONE, "it only maps noise to samples")}


def estimate(
    value: float,
    relation: Relation = Relation.EXACT,
    error: float = 0.25,
    quantity: str = "nll",
    unit: str = "nats",
    fingerprint: str = "aaaa",
    n: int = 100,
    lower_is_better: bool | None = True,
) -> Estimate:
    return Estimate(value, unit, relation, quantity, error, n, fingerprint, lower_is_better)


def model(name: str, *estimates: Estimate, **fields: object) -> ModelResult:
    return dataclasses.replace(ModelResult(name, "a kind", tuple(estimates)), **fields)


def only_column(table: ComparisonTable) -> Column:
    (column,) = table.columns
    return column


def verdict_of(table: ComparisonTable) -> Verdict:
    (verdict,) = table.verdicts
    return verdict.comparison.verdict


# -- the order --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (estimate(79.2), estimate(81.3), Verdict.BETTER),
        (estimate(81.3), estimate(79.2), Verdict.WORSE),
        (estimate(79.2), estimate(79.5), Verdict.UNDECIDED),
        (estimate(79.2), estimate(84.8, Relation.UPPER), Verdict.UNDECIDED),
        (estimate(84.8, Relation.UPPER), estimate(90.0), Verdict.BETTER),
        (estimate(84.8, Relation.UPPER), estimate(80.0, Relation.UPPER), Verdict.UNDECIDED),
        (estimate(84.8), estimate(90.0, Relation.LOWER), Verdict.BETTER),
    ],
)
def test_a_bound_decides_only_in_the_direction_that_it_bounds(
    left: Estimate, right: Estimate, expected: Verdict
) -> None:
    table = compare_models([model("a", left), model("b", right)])
    (verdict,) = table.verdicts
    if expected is Verdict.WORSE:  # said the other way round, so that the better comes first
        assert (verdict.left, verdict.comparison.verdict) == ("b", Verdict.BETTER)
    else:
        assert (verdict.left, verdict.comparison.verdict) == ("a", expected)
    (sentence,) = table.sentences()
    winner = {Verdict.BETTER: "a is better than b", Verdict.WORSE: "b is better than a"}
    assert winner.get(expected, "a and b: undecided") in sentence
    column = only_column(table)
    assert table.best(column) == {Verdict.BETTER: "a", Verdict.WORSE: "b"}.get(expected)
    assert (
        set(table.undominated(column))
        == {
            Verdict.BETTER: {"a"},
            Verdict.WORSE: {"b"},
            Verdict.UNDECIDED: {"a", "b"},
        }[expected]
    )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(0, 10),
            st.floats(0, 1),
            st.sampled_from([Relation.EXACT, Relation.UPPER, Relation.LOWER]),
        ),
        min_size=2,
        max_size=5,
    )
)
def test_the_order_has_no_cycle_and_someone_is_never_beaten(
    numbers: list[tuple[float, float, Relation]],
) -> None:
    results = [
        model(str(i), estimate(value, relation, error))
        for i, (value, error, relation) in enumerate(numbers)
    ]
    table = compare_models(results)
    column = only_column(table)
    assert len(table.verdicts) == math.comb(len(results), 2)
    assert table.undominated(column), "everybody is beaten: a cycle"
    best = table.best(column)
    if best is not None:
        assert table.undominated(column) == [best]


def test_a_quantity_without_direction_is_shown_and_not_ranked() -> None:
    density = [estimate(v, quantity="density", lower_is_better=None) for v in (0.2, 1.0)]
    table = compare_models([model("a", density[0]), model("b", density[1])])
    assert table.verdicts == ()
    assert table.best(only_column(table)) is None
    assert table.undominated(only_column(table)) == []


# -- columns ----------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcd"), unique=True), min_size=1, max_size=4))
def test_never_two_fingerprints_in_a_column(fingerprints: list[list[str]]) -> None:
    results = [
        model(str(i), *(estimate(float(ord(f)), fingerprint=f) for f in own))
        for i, own in enumerate(fingerprints)
    ]
    table = compare_models(results)
    for column, result in itertools.product(table.columns, results):
        cell = table.cells[result.name, column]
        if isinstance(cell, Estimate):
            assert cell.fingerprint == column.fingerprint
            assert cell in result.estimates
        else:
            assert all(e.fingerprint != column.fingerprint for e in result.estimates)


def test_different_data_are_told_apart_in_words() -> None:
    static, dynamic = estimate(79.2, fingerprint="static"), estimate(81.0, fingerprint="dynamic")
    table = compare_models([model("a", static), model("b", dynamic)])
    assert len(table.columns) == 2
    assert verdict_of(table) is Verdict.INCOMPARABLE
    assert "cannot be compared: the data differ" in table.sentences()[0]
    assert table.best(table.columns[0]) is None
    text = rendered(table)
    assert "data static" in text
    assert "data dynamic" in text


def test_models_that_meet_in_one_column_are_not_called_incomparable() -> None:
    both = (estimate(1.0, fingerprint="x"), estimate(2.0, fingerprint="y"))
    table = compare_models([model("a", *both), model("b", estimate(5.0, fingerprint="x"))])
    assert [v.comparison.verdict for v in table.verdicts] == [Verdict.BETTER]


def test_the_tighter_of_two_bounds_is_compared() -> None:
    elbo, weighted = estimate(86.0, Relation.UPPER), estimate(84.0, Relation.UPPER)
    for order in ((elbo, weighted), (weighted, elbo)):
        table = compare_models([model("vae", *order)])
        assert table.cells["vae", only_column(table)] == weighted
    with pytest.raises(InvalidSetting, match="two numbers for one cell"):
        compare_models([model("a", estimate(1.0), estimate(2.0))])


def test_two_models_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidSetting, match='two models are called "a"'):
        compare_models([model("a"), model("a")])


# -- cells without a number -------------------------------------------------------------------


def test_a_model_without_density_has_the_reason_in_the_likelihood_column() -> None:
    frechet = estimate(3.0, Relation.APPROXIMATE, quantity="frechet", unit="")
    table = compare_models(
        [model("pixelcnn", estimate(79.2)), model("gan", frechet, answers=NO_DENSITY)]
    )
    nll, distance = table.columns
    assert table.cells["gan", nll] == Missing("no density", "it only maps noise to samples")
    assert table.cells["pixelcnn", distance] == Missing("not measured", "")
    assert "gan: no density: it only maps noise to samples" in "\n".join(table.sentences())
    assert "no density" in rendered(table)


def test_a_refused_number_is_never_shown_as_anything_else() -> None:
    leaking = model("leaking", refused={"nll": "its conditionals see the future"})
    table = compare_models([model("honest", estimate(79.2)), leaking])
    cell = table.cells["leaking", only_column(table)]
    assert cell == Missing("refused", "its conditionals see the future")
    assert "leaking: refused: its conditionals see the future" in table.sentences()[0]


# -- paired tests -----------------------------------------------------------------------------


def pairs(gap: float, n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Per-image values with a large spread between images and a small one between models."""
    generator = np.random.default_rng(seed)
    difficulty = generator.normal(80.0, 20.0, n)
    return difficulty + generator.normal(0, 0.5, n), difficulty + gap + generator.normal(0, 0.5, n)


def mean_of(values: np.ndarray, relation: Relation = Relation.EXACT) -> Estimate:
    return Estimate.mean_of(
        values.tolist(), unit="nats", relation=relation, quantity="nll", fingerprint="aaaa"
    )


def test_pairing_decides_what_independent_errors_cannot() -> None:
    a, b = pairs(0.3)
    key = ("nll", "nats")
    plain = [model("a", mean_of(a)), model("b", mean_of(b))]
    assert verdict_of(compare_models(plain)) is Verdict.UNDECIDED
    paired = [
        model("a", mean_of(a), per_example={key: a.tolist()}),
        model("b", mean_of(b), per_example={key: b.tolist()}),
    ]
    table = compare_models(paired)
    assert verdict_of(table) is Verdict.BETTER
    assert table.verdicts[0].paired
    turned = compare_models(paired[::-1]).verdicts[0]
    assert (turned.left, turned.right, turned.decided) == ("a", "b", True)
    assert "on the same 400 images" in table.sentences()[0]


def test_paired_error_is_that_of_the_mean_difference() -> None:
    a, b = pairs(0.0)
    error = float(np.std(a - b, ddof=1)) / 20.0
    shift = float(np.mean(b - a))
    for z, expected in ((1.9, Verdict.UNDECIDED), (2.0, Verdict.BETTER)):
        moved = a + shift - z * error
        comparison = paired_comparison(mean_of(moved), mean_of(b), moved.tolist(), b.tolist())
        assert comparison.verdict is expected


def test_equal_models_are_called_different_in_one_case_of_twenty() -> None:
    verdicts = []
    for seed in range(400):
        a, b = pairs(0.0, 50, seed)
        verdicts.append(paired_comparison(mean_of(a), mean_of(b), a.tolist(), b.tolist()).verdict)
    share = float(np.mean([verdict is not Verdict.UNDECIDED for verdict in verdicts]))
    assert 0.02 < share < 0.09


@pytest.mark.parametrize("gap", [-5.0, 5.0])
def test_a_paired_bound_still_decides_only_in_its_direction(gap: float) -> None:
    a, b = pairs(gap)
    upper, exact = mean_of(a, Relation.UPPER), mean_of(b)
    comparison = paired_comparison(upper, exact, a.tolist(), b.tolist())
    assert comparison.verdict is (Verdict.BETTER if gap > 0 else Verdict.UNDECIDED)
    reverse = paired_comparison(exact, upper, b.tolist(), a.tolist())
    assert reverse.verdict is (Verdict.WORSE if gap > 0 else Verdict.UNDECIDED)


@pytest.mark.parametrize("gap", [-5.0, 5.0])
def test_a_paired_lower_bound_can_only_show_that_it_is_worse(gap: float) -> None:
    a, b = pairs(gap)  # b - a is about the gap
    lower, exact = mean_of(a, Relation.LOWER), mean_of(b)
    comparison = paired_comparison(lower, exact, a.tolist(), b.tolist())
    assert comparison.verdict is (Verdict.WORSE if gap < 0 else Verdict.UNDECIDED)
    guess = mean_of(a, Relation.APPROXIMATE)
    assert paired_comparison(guess, exact, a.tolist(), b.tolist()).verdict is Verdict.UNDECIDED


@pytest.mark.parametrize("shared", [0.0, 0.4, math.inf])
def test_pairing_takes_no_error_away_that_all_examples_share(shared: float) -> None:
    """An annealed log Z moves all of them together, so their differences do not show its error."""
    a, b = pairs(-0.3)
    annealed = PerExample(a, Relation.LOWER, "aaaa", 784, "log Z", shared_error=shared)
    comparison = paired_comparison(annealed.nats(), mean_of(b), a.tolist(), b.tolist())
    assert comparison.verdict is (Verdict.UNDECIDED if shared else Verdict.WORSE)
    bits = annealed.bits_per_dim(), mean_of(b).scaled(1 / (784 * math.log(2.0)), "bits/dim")
    scaled = [(values / (784 * math.log(2.0))).tolist() for values in (a, b)]
    assert paired_comparison(*bits, *scaled).verdict is comparison.verdict


def test_pairing_in_nats_serves_bits_per_dim() -> None:
    a, b = pairs(0.3)
    factor = 1.0 / (784 * math.log(2.0))
    results = [
        model(
            name,
            mean_of(values),
            mean_of(values).scaled(factor, "bits/dim"),
            per_example={("nll", "nats"): values.tolist()},
        )
        for name, values in (("a", a), ("b", b))
    ]
    table = compare_models(results)
    assert [v.title for v in table.verdicts] == ["nll [nats]", "nll [bits/dim]"]
    assert [v.comparison.verdict for v in table.verdicts] == [Verdict.BETTER] * 2


def test_values_that_are_not_those_behind_the_estimate_are_refused() -> None:
    a, b = pairs(0.0)
    key = ("nll", "nats")
    wrong = model("a", mean_of(a), per_example={key: (a + 1.0).tolist()})
    right = model("b", mean_of(b), per_example={key: b.tolist()})
    with pytest.raises(InvalidSetting, match="per-example values"):
        compare_models([wrong, right])
    with pytest.raises(InvalidSetting, match="same examples"):
        paired_comparison(mean_of(a), mean_of(b), a.tolist(), b[:-1].tolist())


# -- rendering --------------------------------------------------------------------------------


def rendered(table: ComparisonTable) -> str:
    console = Console(file=io.StringIO(), width=200, color_system=None)
    console.print(terminal_table(table))
    stream = console.file
    assert isinstance(stream, io.StringIO)
    return stream.getvalue()


def test_the_terminal_shows_relation_error_direction_floor_and_kind() -> None:
    frechet = estimate(3.0, Relation.APPROXIMATE, quantity="frechet", unit="")
    results = [
        model("[red]vae", estimate(84.8, Relation.UPPER), frechet, kind="explicit, approximate")
    ]
    text = rendered(compare_models(results, floor=[dataclasses.replace(frechet, value=0.5)]))
    assert "[red]vae" in text  # a name is never markup
    assert re.search(r"explicit, .*\n.* approximate", text)
    assert "≤84.80±0.25" in text
    assert "nll [nats] ↓" in text
    assert "≈0.50±0.25" in text
    assert re.search(r" floor \n.* training \n.* data", text)


def test_labels_and_numbers() -> None:
    assert label(Column("precision", "", "f", False)) == "precision ↑"
    assert label(Column("density", "", "f", None)) == "density"
    assert label(Column("nll", "nats", "f", True)) == "negative log-likelihood [nats] ↓"
    assert label(Column("unheard-of", "m", "f", True)) == "unheard-of [m] ↓"
    assert typeset("<= 84.8 +- 0.2 against ~ 3") == "≤ 84.8 ± 0.2 against ≈ 3"
    assert number(estimate(-0.002, Relation.APPROXIMATE, 0.017)) == "≈ -0.002 ± 0.017"
    assert number(estimate(3.1, Relation.LOWER, 0.0)) == "≥ 3.100"


def test_json_is_plain_and_results_come_back_whole() -> None:
    a, _ = pairs(0.3)
    key = ("nll", "nats")
    results = [
        model("a", mean_of(a), per_example={key: a.tolist()}, refused={"x": "y"}),
        model("gan", answers=NO_DENSITY),
    ]
    record = json.loads(json.dumps(compare_models(results).to_json()))
    (column,) = record["columns"]
    assert column["cells"]["a"]["value"] == pytest.approx(a.mean())
    assert column["cells"]["gan"]["label"] == "no density"
    for result in results:
        back = ModelResult.from_json(json.loads(json.dumps(result.to_json())))
        assert back.to_json() == result.to_json()
        assert back.answers == result.answers


def shown(table: ComparisonTable, width: int) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None).print(terminal_table(table))
    return stream.getvalue()


@pytest.mark.parametrize("width", [50, 80, 100, 200])
def test_no_width_cuts_a_number_or_a_name(width: int) -> None:
    ratio = estimate(0.0034, Relation.APPROXIMATE, quantity="near-copies", unit="")
    ratio = dataclasses.replace(ratio, standard_error=0.0057, lower_is_better=None)
    names = ["gated-pixelcnn", "vae", "dcgan", "multiscale-pixelcnn"]
    results = [model(name, estimate(84.8), ratio, kind="explicit, approximate") for name in names]
    text = shown(compare_models(results, [dataclasses.replace(ratio, value=0.0101)]), width)
    assert "…" not in text
    assert text.count("≈0.0034±0.0057") == len(names)
    assert text.count("=84.80±0.25") == len(names)
    assert "≈0.0101±0.0057" in text
    assert all(re.search(rf"{name}\b", text) for name in names)
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", [30, 40, 80, 100, 120])
@pytest.mark.parametrize("error", [0.25, 0.025, 0.0025])
def test_numbers_of_any_count_of_models_stand_whole(width: int, error: float) -> None:
    for count in range(1, 9):
        results = [
            model(f"m{index}", estimate(101.25 + index, Relation.UPPER, error))
            for index in range(count)
        ]
        table = compare_models(results)
        text = shown(table, width)
        for result in results:
            assert number(result.estimates[0]).replace(" ", "") in text
        assert max(map(len, text.splitlines())) <= width


def test_models_stand_side_by_side_as_long_as_the_grid_fits() -> None:
    table = compare_models([model(name, estimate(84.8)) for name in "abcd"])
    least = max(map(len, shown(table, 200).rstrip().splitlines()))
    assert shown(table, least) == shown(table, 200)
    assert shown(table, least - 1).count("nll [nats]") == 2


def test_models_of_other_data_stand_apart_and_it_is_said_in_words() -> None:
    grey = DataSpec("digits", (1, 8, 8), 17, "test", n=20, digest="a")
    colour = DataSpec("photos", (3, 16, 16), 256, "test", ("size=16",), n=30, digest="b")
    speed = estimate(90.0, Relation.APPROXIMATE, quantity="sampling-speed", unit="images/s")
    results = [
        dataclasses.replace(model("a", estimate(80.0), speed), data=grey),
        dataclasses.replace(model("b", estimate(81.0), speed), data=grey),
        dataclasses.replace(model("c", estimate(900.0, fingerprint="other"), speed), data=colour),
    ]
    table = compare_models(results)
    assert [[r.name for r in members] for members, _ in table.clusters()] == [["a", "b"], ["c"]]
    text = shown(table, 80)
    assert "other data" not in text
    assert "digits, test: 20 of 1 × 8 × 8, 17 levels" in text
    assert "photos, test: 30 of 3 × 16 × 16, 256 levels, size=16" in text
    apart = next(sentence for sentence in table.sentences() if "a and c: cannot" in sentence)
    assert apart == (
        "nll [nats]: a and c: cannot be compared: other data: 1 × 8 × 8 against 3 × 16 × 16; "
        "17 levels against 256 levels; as published against size=16; digits against photos; "
        "20 examples against 30 examples"
    )
    assert ModelResult.from_json(json.loads(json.dumps(results[2].to_json()))).data == colour


def test_a_model_without_a_code_has_no_rate() -> None:
    rate = estimate(16.0, quantity="rate")
    none = {"posterior": Answer(Guarantee.NONE, "it has no latent variables")}
    results = [model("vae", rate), dataclasses.replace(model("pixelcnn"), answers=none)]
    table = compare_models(results)
    assert table.cells["pixelcnn", table.columns[0]] == Missing(
        "no code", "it has no latent variables"
    )
    assert "rate + distortion = negative ELBO" in shown(table, 80)
