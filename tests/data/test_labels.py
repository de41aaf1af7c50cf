"""Labels are known by their names: what occurs is named, and splits and models share the names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import likely
from likely import data, models
from likely.cli.saved import labels_for
from likely.data.labels import MAX_CLASSES, ordered, relabelled, unseen
from likely.errors import InvalidData, InvalidSetting
from likely.evaluate.likelihood import log_likelihood

ANY_INTEGER = st.integers(-(2**63), 2**64 - 1) | st.integers(0, 3)


def labelled(labels, **options) -> data.Dataset:
    return data.from_array(np.zeros((len(labels), 2), np.uint8), 2, labels, **options)


def names_of(part: data.Dataset) -> list[str]:
    return [part.spec.classes[label] for label in part.labels]


@settings(max_examples=100, deadline=None)
@given(st.lists(ANY_INTEGER.filter(lambda label: label != -1), min_size=1, max_size=12))
def test_integers_of_any_size_are_named_as_they_occur(labels: list[int]):
    part = labelled(np.array(labels, dtype=object))
    assert names_of(part) == list(map(str, labels))
    assert part.spec.classes == tuple(map(str, sorted(set(labels))))
    for kind in (np.int64, np.uint64):
        if min(labels) >= np.iinfo(kind).min and max(labels) <= np.iinfo(kind).max:
            assert labelled(np.array(labels, kind)).spec == part.spec


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (np.array([3, 1, 2]), ("1", "2", "3")),
        (np.array([2**31 - 1] * 3), ("2147483647",)),
        (np.array([2**63 + 5, 7, 7], np.uint64), ("7", "9223372036854775813")),
        ([1440764, 15075141, 1440764], ("1440764", "15075141")),
        ([-1, 1, -1], ("-1", "1")),
        ([-2, -1, 0], ("-2", "-1", "0")),
        ([True, False, True], ("False", "True")),
        (["dog", "cat", "dog"], ("cat", "dog")),
        (np.array([b"dog", b"cat", b"ant"]), ("ant", "cat", "dog")),
        (["10", "9", "2"], ("2", "9", "10")),
        (np.array(["b", "a", "a"], object), ("a", "b")),
    ],
)
def test_labels_of_every_type_are_named(labels, classes: tuple[str, ...]):
    part = labelled(labels)
    assert part.spec.classes == classes
    expected = [e.decode() if isinstance(e, bytes) else str(e) for e in np.asarray(labels).tolist()]
    assert names_of(part) == expected


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (np.zeros(3), r"float64.*astype\(int\)"),
        (np.array([0, np.nan, 1]), "nan at index 1"),
        (np.array(["a", None, "b"], object), "None at index 1"),
        (np.array(["a", float("nan"), "b"], object), "nan at index 1"),
        (np.array(["a", "", "b"]), "'' at index 1"),
        (np.array(["a", 3, "b"], object), "3 at index 1 is a int"),
        (np.array([1, 1.5, 2], object), "1.5 at index 1 is a float"),
        (np.array([1, 2, 3], complex), "complex128"),
        (np.array([0, 1, -1]), "-1 at index 2 marks an example without a label"),
        (np.array([-1, -1, -1]), "-1 at index 0 marks"),
        (np.zeros((3, 2), int), r"given \(3, 2\)"),
        (np.zeros(2, int), r"given \(2,\)"),
        ([[1], [2], [3]], r"given \(3, 1\)"),
    ],
)
def test_labels_that_say_too_little_are_refused_in_one_sentence(labels, reason: str):
    with pytest.raises(InvalidData, match=reason):
        data.from_array(np.zeros((3, 2), np.uint8), 2, labels)


def test_ids_are_no_classes():
    n = MAX_CLASSES + 1
    assert len(labelled(np.arange(n) % MAX_CLASSES).spec.classes) == MAX_CLASSES
    with pytest.raises(InvalidData, match=f"{n} different labels.*ids, not classes"):
        labelled(np.arange(n))


def test_names_that_are_numbers_are_matched_by_name_others_by_position():
    for given_classes in (("1", "2", "3"), [1, 2, 3]):
        assert names_of(labelled([3, 1], classes=given_classes)) == ["3", "1"]
    assert names_of(labelled([1, 0], classes=("1", "0"))) == ["1", "0"]
    assert names_of(labelled([1, 0], classes=("cat", "dog"))) == ["dog", "cat"]
    assert names_of(labelled(["dog"], classes=("cat", "dog"))) == ["dog"]
    assert names_of(labelled([0, -1, 1], classes=(-1, 0, 1))) == ["0", "-1", "1"]
    assert names_of(labelled([True], classes=("False", "True"))) == ["True"]
    assert names_of(labelled([True], classes=("cat", "dog"))) == ["dog"]
    for labels, classes in (([4], (1, 2)), ([2], "ab"), ([-1], "ab"), (["c"], "ab")):
        with pytest.raises(InvalidData, match=f"labels: {labels[0]} at index 0 is none of the 2"):
            labelled(labels, classes=classes)
    with pytest.raises(InvalidSetting, match='two classes are called "a"'):
        labelled([0, 1], classes="aa")


@given(st.lists(st.integers(-99, 99)), st.lists(st.sampled_from(["x", "07", "--1", "1", "²"])))
def test_names_are_ordered_as_numbers_only_where_all_are(numbers: list[int], texts: list[str]):
    assert ordered(map(str, numbers)) == tuple(map(str, sorted(set(numbers))))
    mixed = ordered(["x", *texts])
    assert mixed == tuple(sorted({"x", *texts}))


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_another_naming_keeps_every_name(choices):
    labels = choices.draw(st.lists(st.integers(0, 5), min_size=1, max_size=9))
    part = labelled(labels)
    part.validation = labelled(labels[:1])
    classes = tuple(choices.draw(st.permutations([*map(str, range(6)), "x"])))
    other = relabelled(part, classes)
    assert other.spec.classes == other.validation.spec.classes == classes
    assert names_of(other) == names_of(part)
    assert names_of(other.validation) == names_of(part.validation)
    assert relabelled(other, classes) is other
    lacking = tuple(name for name in classes if name != str(labels[-1]))
    with pytest.raises(InvalidData, match=f"examples of the class {labels[-1]}, which is none of"):
        relabelled(part, lacking)


def test_labels_outside_the_names_make_no_data_set():
    spec = data.DataSpec("s", (2,), 2, n=2, classes=("a", "b"))
    for wrong in ([0, 2], [-1, 0]):
        with pytest.raises(InvalidData, match="expected 0 to 1"):
            data.Dataset(spec, np.zeros((2, 2), np.uint8), np.array(wrong))


def test_the_splits_of_a_file_share_their_names(tmp_path: Path):
    x, y = np.zeros((12, 2, 2), np.uint8), np.array([2, 5, 9] * 4)
    file = tmp_path / "mine.npz"
    np.savez(file, x_train=x[:8], y_train=y[:8], x_test=x[8:10], y_test=y[8:10])
    train, test = data.load(file)
    assert train.spec.classes == test.spec.classes == ("2", "5", "9")
    assert names_of(test) == ["9", "2"]
    assert unseen(train, test) == []
    np.savez(file, x_train=x[:8], y_train=y[:8], x_test=x[8:10], y_test=[2, 7])
    with pytest.warns(data.UnseenClasses, match="the class 7 occurs in the test examples"):
        train, test = data.load(file)
    assert train.spec.classes == ("2", "5", "7", "9")
    assert names_of(test) == ["2", "7"]
    np.savez(file, x=x, y=np.full(12, 2**31 - 1))
    assert data.load(file)[0].spec.classes == ("2147483647",)


@pytest.fixture(scope="module")
def conditional():
    """A model of patterns that are their class (1, 3 or 4), and how to make such data."""
    patterns = np.random.default_rng(0).integers(0, 2, (5, 2, 3)).astype(np.uint8)

    def make(labels, **options):
        return data.from_array(patterns[labels], 2, np.array(labels), **options)

    train = data.with_validation(make([1, 3, 4] * 20))
    torch.manual_seed(0)
    model = models.FVSBN(train.spec, models.FVSBNSettings(conditional=True))
    likely.fit(model, train, steps=120, batch_size=20)
    return model, make


def test_a_test_set_without_some_class_is_read_by_name(conditional):
    model, make = conditional
    assert model.classes == 3
    for labels in ([1, 4, 4], [3], [4, 3]):
        apart = make(labels, split="test")
        together = make(labels, split="test", classes=model.spec.classes)
        values = log_likelihood(model, apart)
        assert (values == log_likelihood(model, together)).all()
        position = torch.tensor([(1, 3, 4).index(label) for label in labels])
        direct = model.log_prob(torch.from_numpy(apart.values.astype(np.int64)), position)
        assert np.allclose(values, direct.detach().numpy())
    with pytest.raises(InvalidData, match="examples of the class 2, which is none of 1, 3, 4"):
        likely.nats(model, make([1, 2]))


def test_fitting_reads_labels_by_name_too(conditional):
    model, make = conditional
    with pytest.raises(InvalidData, match="examples of the class 0"):
        likely.fit(model, make([0, 1, 3] * 9), steps=1, batch_size=20)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    after = []
    for classes in ((), model.spec.classes):
        model.load_state_dict(weights)
        train = make([1, 4] * 15, classes=classes)
        train.validation = make([4] * 9, classes=classes)
        likely.fit(model, train, steps=3, batch_size=10)
        after.append(torch.cat([p.detach().flatten() for p in model.parameters()]).clone())
    model.load_state_dict(weights)
    assert (after[0] == after[1]).all()


def test_the_command_asks_for_a_class_by_its_name(conditional):
    model, _ = conditional
    assert labels_for(model, 2, "4").tolist() == [2, 2]
    for wrong in ("0", "2"):
        with pytest.raises(InvalidSetting, match="is no class"):
            labels_for(model, 2, wrong)
