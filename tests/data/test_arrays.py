"""Arrays as data sets: what is taken, what is refused and how, and that nothing is unpickled."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import likely.data.arrays as arrays_module
from likely.data import from_array, from_file, load
from likely.data.spec import DataSpec
from likely.errors import InvalidData, InvalidSetting

RNG = np.random.default_rng(3)


def everything(train, test) -> list[bytes]:
    parts = (train, train.validation, test)
    return sorted(row.tobytes() for part in parts for row in part.values)


def test_what_an_array_says_of_its_levels_is_a_plain_number() -> None:
    x = RNG.integers(0, 4, (20, 3)).astype(np.uint8)
    x[0] = 3
    data = from_array(x, levels=x.max() + 1)
    assert data.spec == from_array(x, levels=4).spec
    assert data.spec.fingerprint == from_array(x, levels=4).spec.fingerprint
    assert type(DataSpec("d", (np.int64(3),), np.int64(4)).levels) is int
    for wrong in (4.0, "4", True):
        with pytest.raises(InvalidSetting, match="levels: expected a whole number"):
            from_array(x, levels=wrong)  # type: ignore[arg-type]


def test_options_of_load_that_numpy_gives_are_plain_in_what_a_run_keeps() -> None:
    train, _ = load("digits", levels=np.int64(4))
    assert json.dumps([train.source, train.spec.to_json()]) == json.dumps(
        [load("digits", levels=4)[0].source, load("digits", levels=4)[0].spec.to_json()]
    )


def test_masked_values_are_no_data() -> None:
    x = np.arange(12, dtype=np.uint8).reshape(4, 3)
    hidden = np.ma.masked_array(x, x == 5)
    row = np.ma.masked_array(np.arange(4), [False, True, False, False])
    for arguments in ({"x": hidden}, {"x": x, "labels": row}, {"x": x, "context": hidden}):
        with pytest.raises(InvalidData, match=r"masked.*x\.filled"):
            from_array(**arguments)
    shown = from_array(np.ma.masked_array(x, False))
    assert (type(shown.values), shown.spec) == (np.ndarray, from_array(x).spec)
    assert type(from_array(np.asmatrix(x)).values) is np.ndarray


def test_a_layout_or_split_of_another_name_is_refused() -> None:
    x = np.zeros((5, 3, 8, 3), np.uint8)
    with pytest.raises(InvalidSetting, match=r'layout.*did you mean "channels-first"'):
        from_array(x, layout="channel-first")  # type: ignore[arg-type]
    with pytest.raises(InvalidSetting, match=r'split.*did you mean "train"'):
        from_array(x, split="trian")  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(levels=st.integers(2, 65536), n=st.integers(1, 40))
def test_intensities_come_back_from_their_levels(levels: int, n: int):
    x = np.random.default_rng(n).integers(0, levels, (n, 3))
    exact = from_array(x, levels)
    assert exact.values.dtype == (np.uint8 if levels <= 256 else np.uint16)
    assert (exact.values == x).all()
    assert (from_array(x / (levels - 1), levels).values == x).all()


def test_what_a_type_says_about_levels_is_taken():
    x = RNG.integers(0, 2, (5, 4))
    assert from_array(x.astype(bool)).spec.levels == 2
    assert (from_array(x.astype(bool)).values == x).all()
    assert from_array(x.astype(np.uint8)).spec.levels == 256
    assert from_array(x.astype(np.uint16)).spec.levels == 65536
    assert from_array(x.astype(">u2"), 3).values.dtype == np.uint8
    with pytest.raises(InvalidData, match="the largest value here is 1"):
        from_array(x)


@pytest.mark.parametrize(
    ("shape", "event"),
    [
        ((5, 7), (7,)),
        ((5, 7, 6), (1, 7, 6)),
        ((5, 1, 7, 6), (1, 7, 6)),
        ((5, 3, 7, 6), (3, 7, 6)),
        ((5, 7, 6, 1), (1, 7, 6)),
        ((5, 7, 6, 3), (3, 7, 6)),
    ],
)
def test_channels_are_found_and_put_first(shape, event):
    x = RNG.integers(0, 256, shape, dtype=np.uint8)
    data = from_array(x)
    assert data.spec.shape == event
    if len(shape) == 4 and shape[3] in (1, 3):
        assert (data.values == x.transpose(0, 3, 1, 2)).all()
    else:
        assert (data.values.reshape(shape) == x).all()


def test_the_layout_can_be_given_where_it_is_ambiguous():
    x = RNG.integers(0, 256, (5, 3, 8, 3), dtype=np.uint8)
    assert from_array(x).spec.shape == (3, 8, 3)
    assert from_array(x, layout="channels-last").spec.shape == (3, 3, 8)
    with pytest.raises(InvalidData, match="1 or 3 channels"):
        from_array(x[:, :, :, :2], layout="channels-last")


@pytest.mark.parametrize(
    ("x", "levels", "reason"),
    [
        (np.zeros((2, 3)), None, "give levels"),
        (np.array([[0.5, 0.2], [0.1, np.nan]]), 4, r"value nan at index \[1, 1\]"),
        (np.array([[0.5, -0.1]]), 4, r"value -0\.1 at index \[0, 1\]"),
        (np.array([[0.5], [np.inf]]), 4, r"value inf at index \[1, 0\]"),
        (np.array([[200.0]]), 256, "divide by the largest"),
        (np.array([[0, 1], [2, 1]]), 2, r"value 2 at index \[1, 0\]"),
        (np.array([[0, -1]]), 2, r"value -1 at index \[0, 1\]"),
        (np.zeros(3, np.uint8), 2, "expected"),
        (np.zeros((3, 0), np.uint8), 2, "no side of 0"),
        (np.zeros((0, 3), np.uint8), 2, "no side of 0"),
        (np.zeros((2, 5, 5, 5), np.uint8), 2, "1 or 3 channels"),
        (np.array([["a"]]), 2, "given <U1"),
        (np.array([[1j]]), 2, "given complex128"),
        (np.array([[None]]), 2, "given object"),
    ],
)
def test_what_cannot_be_taken_is_refused_with_its_place(x, levels, reason):
    with pytest.raises(InvalidData, match=reason):
        from_array(x, levels)


def test_the_index_is_right_beyond_the_first_block():
    x = np.zeros((9000, 2), np.float32)
    x[8191, 1] = np.nan
    with pytest.raises(InvalidData, match=r"index \[8191, 1\]"):
        from_array(x, 2)
    y = np.zeros((9000, 2), np.uint8)
    y[8192, 0] = 2
    with pytest.raises(InvalidData, match=r"index \[8192, 0\]"):
        from_array(y, 2)


def test_a_boolean_array_of_other_bytes_is_refused():
    x = np.full((3, 2), 7, np.uint8).view(np.bool_)
    with pytest.raises(InvalidData, match="value 7"):
        from_array(x)


@pytest.mark.parametrize(
    "labels", [np.zeros(4, int), np.zeros((5, 1), int), np.zeros(5), np.full(5, -1), np.full(5, 3)]
)
def test_wrong_labels_are_refused(labels):
    with pytest.raises(InvalidData, match="labels"):
        from_array(np.zeros((5, 2), np.uint8), labels=labels, classes=("a", "b", "c"))


def test_impossible_levels_are_refused():
    with pytest.raises(InvalidSetting, match="levels"):
        from_array(np.zeros((5, 2), np.uint8), 1)


# Files


def test_npy_is_read_and_split(tmp_path: Path):
    x = RNG.integers(0, 9, (60, 4, 4), dtype=np.uint8)
    np.save(tmp_path / "mine.npy", x)
    train, test = load(tmp_path / "mine.npy", levels=9)
    assert train.spec.name == "mine"
    assert train.spec.levels == 9
    assert everything(train, test) == sorted(row.tobytes() for row in x)
    train, _ = load(tmp_path / "mine.npy", binarize="threshold")
    assert train.values.max() == 0  # of 256 levels, 8 is dark
    np.save(tmp_path / "bright.npy", x + np.uint8(200))
    train, _ = load(tmp_path / "bright.npy", binarize="threshold", levels=2)  # 2 levels result
    assert train.values.min() == 1


def test_a_large_npy_is_mapped_and_split_alike(tmp_path: Path, monkeypatch):
    x = RNG.integers(0, 256, (70, 3, 4, 4), dtype=np.uint8)
    np.save(tmp_path / "mine.npy", x)
    small = from_file(tmp_path / "mine.npy")
    monkeypatch.setattr(arrays_module, "_LARGE", 100)
    for _ in range(2):
        train, test = from_file(tmp_path / "mine.npy")
        assert isinstance(train.values, np.memmap)
        assert isinstance(train.validation.values, np.memmap)
        assert (train.spec, test.spec) == (small[0].spec, small[1].spec)
    np.save(tmp_path / "mine.npy", x[::-1])
    assert from_file(tmp_path / "mine.npy")[0].spec != train.spec


def test_a_map_of_bytes_is_not_copied(tmp_path: Path):
    np.save(tmp_path / "a.npy", RNG.integers(0, 256, (5, 4, 4, 3), dtype=np.uint8))
    x = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert np.shares_memory(from_array(x).values, x)


def test_npz_splits_and_labels_are_kept(tmp_path: Path):
    x = RNG.integers(0, 256, (30, 4, 4), dtype=np.uint8)
    y = np.arange(30) % 5
    file = tmp_path / "mine.npz"
    np.savez(file, x_train=x[:20], y_train=y[:20] % 3, x_test=x[20:], y_test=y[20:])
    train, test = load(file)
    assert (test.values[:, 0] == x[20:]).all()
    assert test.labels.tolist() == y[20:].tolist()
    assert train.spec.classes == test.spec.classes == tuple("01234")  # of both splits
    assert everything(train, test) == sorted(row.tobytes() for row in x)
    np.savez(file, train=x[:20], valid=x[20:25], test=x[25:])
    train, test = load(file)
    assert (train.values[:, 0] == x[:20]).all()
    assert (train.validation.values[:, 0] == x[20:25]).all()
    np.savez(file, images=x, labels=y)
    train, test = load(file)
    rows = {row.tobytes(): label for row, label in zip(x, y, strict=True)}
    for part in (train, train.validation, test):
        assert [rows[row.tobytes()] for row in part.values] == part.labels.tolist()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({}, "holds no array"),
        ({"a": np.zeros((9, 2)), "b": np.zeros((9, 2))}, "holds a, b; expected"),
        ({"test": np.zeros((9, 2), np.uint8)}, "holds test; expected"),
        ({"train": np.zeros((9, 2), np.uint8), "x": np.zeros((9, 2), np.uint8)}, "expected either"),
        ({"images": np.full((9, 2), 0.5)}, r"mine\.npz, images: .* give levels"),
        (
            {"train": np.zeros((9, 2), np.uint8), "test": np.zeros((9, 3), np.uint8)},
            "its test examples have shape",
        ),
    ],
)
def test_an_npz_of_other_things_is_refused(tmp_path: Path, content, reason: str):
    np.savez(tmp_path / "mine.npz", **content)
    with pytest.raises(InvalidData, match=reason):
        load(tmp_path / "mine.npz")


class Trap:
    """Unpickling this would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_nothing_is_ever_unpickled(tmp_path: Path, suffix: str):
    sprung = tmp_path / "sprung"
    x = np.array([Trap(sprung)] * 3, dtype=object)
    file = tmp_path / f"mine.{suffix}"
    if suffix == "npy":
        np.save(file, x)
    else:
        np.savez(file, x=x)
    with pytest.raises(InvalidData, match="Python objects"):
        load(file)
    file.write_bytes(pickle.dumps(x))
    with pytest.raises(InvalidData, match="damaged"):
        load(file)
    assert not sprung.exists()


@pytest.mark.parametrize("cut", [1, 100, 150])
def test_a_truncated_npy_is_named(tmp_path: Path, cut: int):
    file = tmp_path / "mine.npy"
    np.save(file, np.zeros((6, 4), np.uint8))
    file.write_bytes(file.read_bytes()[:-cut])
    with pytest.raises(InvalidData, match=r"mine\.npy"):
        load(file)


def test_an_npy_of_terabytes_in_name_only_is_refused(tmp_path: Path):
    file = tmp_path / "mine.npy"
    with file.open("wb") as out:
        header = {"descr": "|u1", "fortran_order": False, "shape": (10**9, 10**4)}
        np.lib.format.write_array_header_1_0(out, header)
    with pytest.raises(InvalidData, match="announces 10000000000128 bytes"):
        load(file)


def test_a_file_of_another_kind_is_refused(tmp_path: Path):
    (tmp_path / "a.txt").write_text("1 2 3")
    with pytest.raises(InvalidData, match="unknown kind"):
        load(tmp_path / "a.txt")
    with pytest.raises(InvalidSetting, match=r"no file or folder a/b\.npy"):
        load("a/b.npy")
