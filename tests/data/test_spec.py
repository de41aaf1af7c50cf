"""Laws of the specification: what a fingerprint covers, what a read depends on, how splits lie."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from likely.data import Dataset, DataSpec, from_array, load, train_and_test, with_validation
from likely.data.prepare import binarised, requantised
from likely.data.spec import as_dataset, completed, digest_of, hold_out
from likely.errors import InvalidData, InvalidSetting, LikelyError


def numbered(n: int, levels: int = 65536) -> Dataset:
    """Examples that carry their own number, so that a split can be read off the values."""
    return from_array(np.arange(n, dtype=np.uint16).reshape(n, 1), levels, np.arange(n) % 5)


SPEC = DataSpec("mnist", (1, 28, 28), 256, "train", ("a",), 10, "abc", ("x", "y"))
CHANGES = {
    "name": "mnist2",
    "shape": (28, 28, 1),
    "levels": 255,
    "split": "test",
    "preprocessing": ("a", "b"),
    "n": 11,
    "digest": "abd",
    "classes": ("y", "x"),
    "context": (3,),
}


def test_every_field_is_covered_by_the_fingerprint():
    assert set(CHANGES) == {field.name for field in dataclasses.fields(DataSpec)}
    prints = {dataclasses.replace(SPEC, **{k: v}).fingerprint for k, v in CHANGES.items()}
    assert len(prints | {SPEC.fingerprint}) == len(CHANGES) + 1


def test_the_fingerprint_is_the_same_in_every_process():
    assert SPEC.fingerprint == "d1c79ea97eaa"


def test_a_specification_survives_json():
    record = json.loads(json.dumps(SPEC.to_json()))
    assert DataSpec.from_json(record) == SPEC
    with pytest.raises(InvalidData, match='did you mean "levels"'):
        DataSpec.from_json({**record, "level": 3})


@pytest.mark.parametrize("change", [{"shape": ()}, {"shape": (0, 3)}, {"levels": 1}])
def test_an_impossible_specification_is_refused(change):
    with pytest.raises(InvalidSetting):
        dataclasses.replace(SPEC, **change)


def test_one_changed_value_changes_the_digest():
    x = np.zeros((5000, 3), np.uint8)
    prints = {digest_of(x), digest_of(x.reshape(3, 5000)), digest_of(x.astype(np.uint16))}
    for position in (0, 4096, 4999):
        y = x.copy()
        y[position, 2] = 1
        prints.add(digest_of(y))
    assert len(prints) == 6


def test_a_data_set_refuses_values_that_its_specification_denies():
    spec = dataclasses.replace(SPEC, shape=(2,), n=3)
    with pytest.raises(InvalidData, match="uint8 or uint16"):
        Dataset(spec, np.zeros((3, 2)))
    with pytest.raises(InvalidData, match="shape"):
        Dataset(spec, np.zeros((4, 2), np.uint8))
    with pytest.raises(InvalidData, match="labels"):
        Dataset(spec, np.zeros((3, 2), np.uint8), np.zeros(2, np.int64))


def test_the_levels_of_preprocessing_have_fingerprints_of_their_own():
    train = load("digits")[0]
    variants = [
        train,
        requantised(train, 16),
        requantised(train, 2),
        binarised(train, "threshold"),
        binarised(train, "dynamic"),
        binarised(train, "dynamic", seed=1),
        train.validation,
    ]
    assert len({variant.spec.fingerprint for variant in variants}) == len(variants)


def test_requantising_makes_bins_of_equal_width():
    data = from_array(np.arange(256, dtype=np.uint8).reshape(256, 1))
    for levels in (2, 8, 32):
        coarse = requantised(data, levels)
        assert (np.bincount(coarse.values[:, 0]) == 256 // levels).all()
        assert (np.diff(coarse.values[:, 0].astype(int)) >= 0).all()
        assert coarse.spec.digest == digest_of(coarse.values)
    with pytest.raises(InvalidSetting, match="at most 256"):
        requantised(data, 300)


def test_threshold_is_one_above_half_the_intensity():
    for levels in (17, 256):
        values = np.arange(levels, dtype=np.uint8).reshape(-1, 1)
        bits = binarised(from_array(values, levels), "threshold").values[:, 0]
        assert (bits == (np.arange(levels) / (levels - 1) > 0.5)).all()


# Dynamic binarisation


def test_a_dynamic_read_depends_on_seed_epoch_and_index_only():
    data = binarised(load("digits")[0], "dynamic", seed=3)
    alone = np.concatenate([data.batch(np.array([i]), epoch=2).x for i in (7, 3, 11)])
    together = data.batch(np.array([7, 3, 11]), epoch=2)
    assert (alone == together.x).all()
    assert (data.batch(slice(3, 12), epoch=2).x[[4, 0, 8]] == together.x).all()
    assert together.x.dtype == np.uint8
    assert (together.label == data.labels[[7, 3, 11]]).all()
    again = binarised(load("digits")[0], "dynamic", seed=3).batch(np.array([7, 3, 11]), epoch=2)
    assert (again.x == together.x).all()


def test_seed_epoch_index_and_split_each_change_the_draws():
    half = from_array(np.full((2, 400), 1, np.uint8), 3)  # every pixel is on with probability 1/2
    one = binarised(half, "dynamic", seed=0)
    other = binarised(half, "dynamic", seed=1)
    test = Dataset(
        dataclasses.replace(one.spec, split="test"), one.values, intensity_levels=3, noise_seed=0
    )
    first = np.array([0])
    draws = [
        one.batch(first).x,
        one.batch(first, epoch=1).x,
        one.batch(np.array([1])).x,
        other.batch(first).x,
        test.batch(first).x,
    ]
    for i, a in enumerate(draws):
        for b in draws[:i]:
            assert 0.4 < (a == b).mean() < 0.6  # independent fair coins


def test_the_mean_of_dynamic_draws_is_the_intensity():
    levels = 17
    intensity = np.arange(levels, dtype=np.uint8)[None]  # every intensity once
    data = binarised(from_array(intensity, levels), "dynamic")
    epochs = 4000
    mean = np.mean([data.batch(slice(None), epoch).x[0] for epoch in range(epochs)], axis=0)
    p = intensity[0] / (levels - 1)
    assert mean[0] == 0
    assert mean[-1] == 1
    assert (np.abs(mean - p) <= 5 * np.sqrt(p * (1 - p) / epochs) + 1e-12).all()
    assert np.allclose(data.pixel_mean(), p)


def test_negative_positions_count_from_the_end():
    data = binarised(load("digits")[0], "dynamic")
    last = data.batch(np.array([-1]))
    assert last.index.tolist() == [len(data) - 1]
    assert (last.x == data.batch(np.array([len(data) - 1])).x).all()


def test_the_pixel_mean_sees_the_whole_of_a_sorted_set():
    data = from_array(np.repeat([0, 10], 50).astype(np.uint8).reshape(100, 1), 11)
    assert data.pixel_mean(limit=10).tolist() == [5.0]


# Splits


@settings(max_examples=60, deadline=None)
@given(n=st.integers(3, 400), share=st.floats(0.01, 0.99))
def test_held_out_and_rest_are_a_partition(n: int, share: float):
    size = max(1, min(n - 1, int(n * share)))
    rest, held_out = hold_out(n, size)
    assert len(held_out) == size
    assert sorted([*rest, *held_out]) == list(range(n))
    assert (np.diff(rest) > 0).all()
    assert (np.diff(held_out) > 0).all()


def test_the_validation_split_is_disjoint_stable_and_carries_its_labels():
    whole = numbered(600)
    train = with_validation(whole)
    again = with_validation(numbered(600))
    assert train.validation is not None
    numbers = np.concatenate([train.values, train.validation.values])[:, 0]
    assert sorted(numbers) == list(range(600))
    assert len(train.validation) == 100
    assert (train.labels == train.values[:, 0] % 5).all()
    assert (train.validation.labels == train.validation.values[:, 0] % 5).all()
    assert again.spec == train.spec
    assert (train.spec.split, train.validation.spec.split) == ("train", "validation")
    # the split itself, so that a change of the generator or of numpy is noticed
    assert train.validation.values[:8, 0].tolist() == [1, 6, 7, 9, 10, 13, 14, 19]


def test_another_seed_is_another_split():
    a, b = with_validation(numbered(600)), with_validation(numbered(600), seed=1)
    assert a.spec.fingerprint != b.spec.fingerprint


def test_three_examples_are_the_fewest_that_can_be_split():
    train, test = train_and_test(numbered(3))
    assert (len(train), len(train.validation), len(test)) == (1, 1, 1)
    with pytest.raises(InvalidData, match="at least 3"):
        train_and_test(numbered(2))
    with pytest.raises(InvalidSetting, match="hold out"):
        with_validation(numbered(3), 3)


def test_train_validation_and_test_are_a_partition():
    train, test = train_and_test(numbered(120))
    parts = (train, train.validation, test)
    assert sorted(v for p in parts for v in p.values[:, 0]) == list(range(120))
    assert [p.spec.split for p in parts] == ["train", "validation", "test"]


def test_what_the_user_has_split_stays_so():
    parts = {"train": numbered(60), "validation": numbered(7), "test": numbered(9)}
    train, test = completed(parts)
    assert (len(train), len(train.validation), len(test)) == (60, 7, 9)
    train, test = completed({k: parts[k] for k in ("train", "validation")})
    assert (len(train), len(train.validation), len(test)) == (50, 7, 10)
    train, test = completed({k: parts[k] for k in ("train", "test")})
    assert (len(train), len(train.validation), len(test)) == (50, 10, 9)
    with pytest.raises(InvalidData, match="levels"):
        completed({"train": numbered(60), "test": numbered(9, levels=20)})


def test_a_part_keeps_what_belongs_to_its_examples():
    x = np.arange(12, dtype=np.uint8).reshape(6, 2)
    spec = from_array(x, 12).spec
    data = Dataset(spec, x, np.arange(6), {"odd": np.arange(6) % 2 == 1})
    part = data.take(np.array([5, 2]), "test")
    assert part.values.tolist() == [[10, 11], [4, 5]]
    assert part.labels.tolist() == [5, 2]
    assert part.attributes["odd"].tolist() == [True, False]
    assert part.spec.split == "test"
    assert part.spec.digest == digest_of(part.values)


def test_every_error_is_one_for_users():
    for error in (InvalidData, InvalidSetting):
        assert issubclass(error, LikelyError)


def test_a_data_set_reads_as_an_array_of_its_examples():
    data = numbered(7)
    assert data[2].tolist() == [2]
    assert data[-1].tolist() == [6]
    assert data[1:3].tolist() == [[1], [2]]
    assert data[[5, -2]].tolist() == [[5], [5]]
    assert [int(x[0]) for x in data] == list(range(7)) == data.x[:, 0].tolist()
    with pytest.raises(IndexError, match="7 examples, no number 7"):
        data[7]


def test_a_dynamic_data_set_reads_as_in_epoch_0():
    data = binarised(load("digits")[0], "dynamic")
    assert data.x.max() == 1
    assert np.array_equal(data[5:9], data.batch(slice(5, 9)).x)
    assert np.array_equal(data.x[6], data[6])


@pytest.mark.parametrize(
    ("given", "hint"),
    [((1, 2), "give one of them"), (np.zeros(3), "from_array"), (None, "data.load reads one")],
)
def test_what_is_no_data_set_is_refused_with_the_way_to_one(given, hint):
    with pytest.raises(InvalidData, match=f"expected a Dataset, given .*{hint}"):
        as_dataset(given)
