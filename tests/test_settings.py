"""Settings: what is converted, what is refused, and in which words."""

from __future__ import annotations

import dataclasses
import math
import typing
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from likely.errors import InvalidSetting
from likely.evaluate.annealed import AnnealedSettings
from likely.evaluate.semi_supervised import SemiSupervised
from likely.jobs.classify import ClassifySettings
from likely.jobs.clusters import ClusterSettings
from likely.jobs.evaluate import EvaluateSettings
from likely.models import MODELS, SEQUENCE_MODELS
from likely.settings import (
    OBJECTIVES,
    FitSettings,
    at_least,
    converted,
    from_mapping,
    read_settings_file,
    to_json,
)


@dataclasses.dataclass(frozen=True)
class Example:
    count: int = 1
    rate: float = 0.5
    flag: bool = False
    kind: Literal["red", "green"] = "red"
    sizes: tuple[int, ...] = (1,)
    limit: int | None = None
    name: str = ""


def test_an_alternative_that_does_not_exist_is_refused_where_it_is_given() -> None:
    with pytest.raises(InvalidSetting, match=r"precision: expected one of auto.*did you mean"):
        dataclasses.replace(FitSettings(), precision="float31")
    refused = 0
    for entry in MODELS.values():
        hints = typing.get_type_hints(entry.settings, include_extras=True)
        for name, hint in hints.items():
            if typing.get_origin(hint) in (Literal, typing.Annotated):
                with pytest.raises(InvalidSetting, match=f"{name}: (expected one of|unknown head)"):
                    entry.settings(**{name: "nonsense"})
                refused += 1
    assert refused > len(MODELS)


def test_an_alternative_in_a_tuple_is_refused_where_it_does_not_exist() -> None:
    wrong: list[tuple[Any, str, Any, str]] = [
        (ClassifySettings, "modes", ("frozen", "join"), r'expected one of.*did you mean "joint"'),
        (ClassifySettings, "modes", "joint", 'expected a tuple, given "joint"'),
        (ClusterSettings, "maps", ("tsne",), r'expected one of.*did you mean "t-sne"'),
        (ClusterSettings, "clusterings", ("kmeans",), "expected one of k-means"),
    ]
    for kind, field, value, words in wrong:
        with pytest.raises(InvalidSetting, match=f"{field}: {words}"):
            kind(**{field: value})


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("count", "12", 12),
        ("count", "1e3", 1000),
        ("count", 3.0, 3),
        ("count", "-4", -4),
        ("count", str(2**63 + 1), 2**63 + 1),  # a float would lose the last digit
        ("rate", "1e-3", 1e-3),
        ("rate", 2, 2.0),
        ("flag", "yes", True),
        ("flag", "False", False),
        ("kind", "green", "green"),
        ("sizes", "1,2,4", (1, 2, 4)),
        ("sizes", [8, "9"], (8, 9)),
        ("sizes", 5, (5,)),
        ("limit", "none", None),
        ("limit", "7", 7),
        ("name", 3, "3"),
    ],
)
def test_values_become_the_type_of_their_field(field: str, value: Any, expected: Any) -> None:
    found = getattr(from_mapping(Example, {field: value}), field)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("count", "1.5", "a whole number"),
        ("count", "many", "a whole number"),
        ("count", True, "a whole number"),
        ("count", None, "a whole number"),
        ("rate", "nan", "a number"),
        ("rate", math.inf, "a number"),
        ("rate", "1e999", "a number"),
        ("rate", [1.0], "a number"),
        ("flag", "perhaps", "true or false"),
        ("flag", 1, "true or false"),
        ("kind", "gren", 'did you mean "green"'),
        ("kind", 3, "red, green"),
        ("sizes", "1,,2", "a whole number"),
    ],
)
def test_other_values_are_refused_in_words(field: str, value: Any, words: str) -> None:
    with pytest.raises(InvalidSetting, match=words) as caught:
        from_mapping(Example, {field: value})
    assert field in str(caught.value)


def test_an_unknown_field_names_the_nearest() -> None:
    with pytest.raises(InvalidSetting, match='no field "cuont": did you mean "count"'):
        from_mapping(Example, {"cuont": 1})


def test_fields_that_are_not_given_come_from_the_base() -> None:
    base = Example(count=7, rate=0.1)
    assert from_mapping(Example, {"rate": 0.2}, base) == Example(count=7, rate=0.2)


@given(
    st.builds(
        FitSettings,
        steps=st.integers(1, 10**9),
        learning_rate=st.floats(1e-12, 1e3),
        schedule=st.sampled_from(["constant", "cosine", "linear"]),
        compile=st.booleans(),
    )
)
def test_what_is_written_reads_back_the_same(settings: FitSettings) -> None:
    assert from_mapping(FitSettings, to_json(settings)) == settings
    words = {name: str(value) for name, value in to_json(settings).items()}
    assert from_mapping(FitSettings, words) == settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0}, {"batch_size": -1}, {"learning_rate": 0.0}, {"beta1": 1.0}, {"ema": -0.1},
        {"warmup": -1}, {"clip": -1.0}, {"batch_size": 10, "micro_batches": 3},
    ],
)  # fmt: skip
def test_impossible_fits_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidSetting, match=next(reversed(wrong))):
        FitSettings(**wrong)


def test_the_rate_rises_then_falls_to_its_final_share() -> None:
    s = FitSettings(steps=100, warmup=10, learning_rate=2.0, final_learning_rate=0.25)
    rates = [s.rate(step) for step in range(101)]
    assert rates[9] == rates[10] == max(rates) == 2.0
    assert rates[0] == pytest.approx(0.2)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[100] == pytest.approx(0.5)


def test_settings_files_are_mappings(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("steps: 12\nlearning_rate: 1e-3\n")
    assert converted("rate", read_settings_file(path)["learning_rate"], float) == 1e-3
    for text, words in (
        ("- 1\n", "mapping"), ("a: [1", "not valid YAML"), ("1: 2\n", "mapping"),
        ("latent: 2\nsteps: 1\nlatent: 3\n", '"latent" stands there twice'),
    ):  # fmt: skip
        path.write_text(text)
        with pytest.raises(InvalidSetting, match=words) as caught:
            read_settings_file(path)
        assert str(path) in str(caught.value)
    with pytest.raises(InvalidSetting, match=r"b\.yaml"):
        read_settings_file(tmp_path / "b.yaml")


def test_fields_of_settings_are_of_their_types_however_they_are_given() -> None:
    by_numpy = FitSettings(steps=np.int64(7), learning_rate=np.float32(0.5), warmup="2")  # type: ignore[arg-type]
    assert by_numpy == FitSettings(steps=7, learning_rate=0.5, warmup=2)
    assert to_json(by_numpy) == to_json(FitSettings(steps=7, learning_rate=0.5, warmup=2))
    assert from_mapping(FitSettings, {"steps": np.int64(7)}).steps == 7
    wrong: list[tuple[str, Any]] = [
        ("steps", 2.5), ("steps", True), ("steps", "many"), ("learning_rate", math.inf),
        ("learning_rate", math.nan), ("clip", True), ("compile", 2), ("device", None),
    ]  # fmt: skip
    for field, value in wrong:
        with pytest.raises(InvalidSetting, match=f"FitSettings.{field}: expected"):
            FitSettings(**{field: value})
    chains = AnnealedSettings(chains=2)
    assert EvaluateSettings(annealed=chains).annealed is chains
    with pytest.raises(InvalidSetting, match="annealed: expected AnnealedSettings, given 2"):
        EvaluateSettings(annealed=2)  # type: ignore[arg-type]
    kinds = [entry.settings for entry in (*MODELS.values(), *SEQUENCE_MODELS.values())]
    for kind in (*kinds, *(entry.load() for entry in OBJECTIVES.values()), SemiSupervised):
        for name, hint in typing.get_type_hints(kind).items():
            if hint in (int, float):
                with pytest.raises(InvalidSetting, match=f"{name}: expected a"):
                    kind(**{name: "nonsense"})


def test_at_least_looks_into_tuples() -> None:
    at_least(Example(sizes=(1, 2)), 1, "count", "sizes")
    with pytest.raises(InvalidSetting, match="sizes must be at least 1"):
        at_least(Example(sizes=(1, 0)), 1, "count", "sizes")
    with pytest.raises(InvalidSetting, match="sizes must be at least 1"):
        at_least(Example(sizes=()), 1, "sizes")


@pytest.mark.parametrize("name", MODELS)
def test_every_size_of_a_model_is_at_least_one(name: str) -> None:
    kind = MODELS[name].settings
    sizes = [f for f in dataclasses.fields(kind) if isinstance(f.default, int | tuple)]
    for field in sizes:
        if isinstance(field.default, bool):
            continue
        zero: Any = (0,) if isinstance(field.default, tuple) else 0
        with pytest.raises(InvalidSetting, match=field.name):
            kind(**{field.name: zero})
