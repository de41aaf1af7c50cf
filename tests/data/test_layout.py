"""Splits, links and strays in folders of images: kept or named and refused, never guessed away."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from likely.data import SkippedFiles, UnseenClasses, from_folder, load
from likely.data.layout import arranged, split_of_file, splits_of_folders
from likely.errors import InvalidData

FIRST = {"train": 10, "validation": 100, "test": 200}


def fill(folder: Path, first: int, count: int = 4) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.fromarray(np.full((8, 8), first + i, np.uint8)).save(folder / f"{first + i}.png")


def tree(home: Path, *folders: str) -> Path:
    """Images in folders; the values of a split's images begin at FIRST, those of others at 50."""
    for place, folder in enumerate(folders):
        meanings = [split_of_file(part) for part in Path(folder).parts]
        split = next((meaning for meaning in meanings if meaning in FIRST), None)
        fill(home / folder, FIRST.get(split, 50) + 5 * place)
    return home


def levels_of(part) -> set[int]:
    return {int(value) for value in part.values[:, 0, 0, 0]}


def assert_kept(home: Path, **options) -> None:
    """No image of one split is in another."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkippedFiles)
        train, test = load(home, **options)
    values = levels_of(train) | levels_of(train.validation)
    assert max(values) < 200
    assert max(levels_of(train)) < 100
    assert min(levels_of(test)) >= 200


# Names


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *(
            (n, "train")
            for n in ("train", "Train", "TRAIN", "training", "TrainSet", "train_images")
        ),
        *(
            (n, "train")
            for n in ("train2017", "trainset", "Training Set", "images-train", "train.1")
        ),
        *(
            (n, "validation")
            for n in ("val", "VALID", "validation", "dev", "val2017", "valid_data")
        ),
        *((n, "test") for n in ("test", "Testing", "eval", "Evaluation", "TestImages", "testset")),
        *((n, "unclear") for n in ("holdout", "hold-out", "Held_Out")),
        *((n, None) for n in ("bullet_train", "testimony", "devil", "Valerie", "contest", "cat")),
        *((n, None) for n in ("retrain", "train_test", "unlabeled", "images", "trainers", "")),
    ],
)
def test_the_names_of_splits(name: str, split: str | None):
    assert splits_of_folders([name]).get(name) == split


@pytest.mark.parametrize(
    ("stem", "split"),
    [
        ("train", "train"),
        ("train-00000-of-00002-6edb3cad2ab9c6cf", "train"),
        ("test_2023", "test"),
        ("mnist_test", "test"),
        ("mnistTrain", "train"),
        ("dev", "validation"),
        ("partial-train", "train"),
        ("0000", None),
        ("mnist", None),
        ("contest", None),
        ("train_test", "unclear"),
        ("holdout", "unclear"),
    ],
)
def test_the_names_of_files(stem: str, split: str | None):
    assert split_of_file(stem) == split


def test_a_word_before_splits_is_theirs_where_siblings_share_it():
    pair = {"mnist_train": "train", "mnist_test": "test"}
    assert splits_of_folders([*pair, "bullet_train", "test_tube"]) == pair
    domains = {"trainA": "train", "testA": "test"}
    assert splits_of_folders(domains) == domains


SPLITS = st.sampled_from(["train", "Test", "val"])
LOOSE = st.lists(st.just(()), max_size=3)


@given(
    st.lists(SPLITS, min_size=1, max_size=8), LOOSE, st.sampled_from([(), ("mine",), ("a", "b")])
)
def test_files_beside_the_splits_change_no_split(names: list[str], loose: list, wrapper: tuple):
    names = [*names, "train", "Test"]
    inside = [(*wrapper, name, "cat") for name in names]
    arrangement = arranged("home", [*inside, *loose])
    wanted = [{"train": "train", "Test": "test", "val": "validation"}[name] for name in names]
    assert arrangement.splits == wanted + [None] * len(loose)
    assert arrangement.classes[: len(names)] == [("cat",)] * len(names)
    assert sorted(arrangement.left_out) == list(range(len(names), len(names) + len(loose)))


# Folders


@pytest.mark.parametrize(
    "folders",
    [
        ("train", "test"),
        ("Train", "TEST"),
        ("training", "Testing"),
        ("train", "eval"),
        ("train", "dev", "test"),
        ("train/cat", "train/dog", "valid/cat", "test/dog"),
        ("images/train", "images/test"),
        ("train/images", "test/images"),
        ("mine/train", "mine/test", "__MACOSX/mine/train", ".cache/train"),
        ("a/b/train", "a/b/val", "a/b/test"),
        ("train2017", "val2017", "test2017"),
        ("mnist_train", "mnist_test"),
        ("train", "test", "unlabeled"),
        ("mine/train", "mine/test", "mine/unlabelled/more"),
    ],
)
@pytest.mark.parametrize("stray", ["", "preview.png", "LICENSE", "train/readme"])
def test_splits_are_kept(tmp_path: Path, folders: tuple[str, ...], stray: str):
    home = tree(tmp_path / "home", *folders)
    if stray.startswith("train"):
        stray = f"{folders[0]}/readme"
    if stray.endswith(".png"):
        Image.fromarray(np.full((8, 8), 250, np.uint8)).save(home / stray)
    elif stray:
        (home / stray).write_text("about these")
    if stray or any("unlabel" in folder for folder in folders):
        with pytest.warns(SkippedFiles, match=stray or "4 files|lies outside"):
            load(home)
        with pytest.raises(InvalidData, match="cannot be read"):
            load(home, strict=True)
        assert_kept(home)
    else:
        assert_kept(home, strict=True)


@pytest.mark.parametrize(
    ("folders", "reason"),
    [
        (("train", "test", "more"), r"the split test \(4\), train \(4\), and others in more \(4\)"),
        (("train", "more"), r"the split train \(4\), and others in more \(4\).*is a class, rename"),
        (("bus", "car", "train"), "where train is a class, rename it"),
        (("test", "more"), "has the split test and no train"),
        (("test",), "has the split test and no train"),
        (("val", "test"), "has the split test, val and no train"),
        (("train", "val", "validation"), "val and validation both name the validation split"),
        (("train", "Train", "test"), "Train and train both name the train split"),
        (("train", "test", "eval"), "eval and test both name the test split"),
        (("train", "holdout"), "holdout may name one split or another"),
        (("cat", "dog", "holdout"), "holdout may name one split or another"),
        (("a/train", "a/test", "b/train", "b/test"), r"in more than one place \(a, b\)"),
        (("cat/train", "cat/test", "dog/train", "dog/test"), "put the splits first"),
        (("mine/train", "mine/test", "other"), r"and others in other \(4\)"),
        (
            ("trainA", "trainB", "testA", "testB"),
            "trainA and trainB both name|testA and testB both",
        ),
    ],
)
def test_splits_that_are_not_clear_are_refused(tmp_path: Path, folders, reason: str):
    home = tree(tmp_path / "home", *folders)
    for strict in (False, True):
        with pytest.raises(InvalidData, match=reason):
            load(home, strict=strict)


@pytest.mark.parametrize("content", [None, "text", "link"])
def test_a_split_without_a_readable_image_is_refused(tmp_path: Path, content: str | None):
    home = tree(tmp_path / "home", "train")
    (home / "test").mkdir()
    if content == "text":
        (home / "test" / "a.png").write_text("no image")
    elif content == "link":
        (home / "test" / "a.png").symlink_to("../gone.png")
    reason = "the test split is readable" if content == "text" else "the split test holds no image"
    with pytest.raises(InvalidData, match=reason):
        load(home)


def test_a_folder_without_a_readable_image_is_no_stray(tmp_path: Path):
    home = tree(tmp_path / "home", "train", "test")
    (home / "more").mkdir()
    (home / "more" / "notes").write_text("about these")
    assert [tuple(entry) for entry in from_folder(home).report.skipped] == [
        ("more/notes", "not an image, or one whose header is damaged")
    ]
    assert_kept(home)


def test_folders_that_are_no_splits_are_classes_whatever_holds_them(tmp_path: Path):
    for base in ("", "mine/", "a/b/"):
        home = tree(tmp_path / f"home{len(base)}", f"{base}bullet_train", f"{base}cat/deep")
        data = from_folder(home)
        assert data.train.spec.classes == ("bullet_train", "cat")
        (home / base / "empty").mkdir()
        for split in ("train", "test"):
            (home / "labels" / split).mkdir(parents=True)  # holds no image
        assert from_folder(home).train.spec == data.train.spec


def test_loose_images_that_cost_the_labels_are_mentioned(tmp_path: Path):
    home = tree(tmp_path / "home", "train/a", "train/b", "test")
    with pytest.warns(SkippedFiles, match="no labels: 4 images lie beside the folders a, b"):
        train, _ = load(home)
    assert train.labels is None


def test_a_class_of_the_test_images_alone_is_named(tmp_path: Path):
    home = tree(tmp_path / "home", "train/a", "train/b", "test/a", "test/unknown")
    with pytest.warns(UnseenClasses, match="class unknown occurs in the test examples"):
        train, test = load(home)
    assert train.spec.classes == test.spec.classes == ("a", "b", "unknown")


def test_an_image_of_two_splits_is_mentioned(tmp_path: Path):
    home = tree(tmp_path / "home", "train", "test")
    (home / "test" / "copy.png").write_bytes((home / "train" / "11.png").read_bytes())
    with pytest.warns(SkippedFiles, match=r"1 image .* too, as test/copy\.png = train/11\.png"):
        load(home)
    data = from_folder(home)  # from the cache too
    assert len(data.report.remarks) == 1
    assert data.report.remarks[0] in str(data.report)


# Links


def test_a_link_that_leads_nowhere_is_named_and_an_error_under_strict(tmp_path: Path):
    home = tree(tmp_path / "home", "cat", "dog")
    (home / "cat" / "gone.png").symlink_to("../../store/1.png")
    (home / "bird").symlink_to("../birds")
    (home / "notes.txt").symlink_to("nowhere.txt")  # no image by its suffix
    report = from_folder(home).report
    assert [skipped.path for skipped in report.skipped] == ["bird", "cat/gone.png"]
    assert report.skipped[1].reason == "a broken link to ../../store/1.png"
    assert (report.read, report.ignored) == (8, 1)
    with pytest.raises(InvalidData, match=r"2 file\(s\) cannot be read: bird: a broken link"):
        from_folder(home, strict=True)
    for name in ("bird", "cat/gone.png"):
        (home / name).unlink()
    assert from_folder(home, strict=True).report.skipped == ()
    only = tmp_path / "only"
    only.mkdir()
    (only / "a.png").symlink_to("gone.png")
    with pytest.raises(InvalidData, match=r"holds no image; a\.png: a broken link to gone\.png"):
        from_folder(only)


def test_linked_folders_and_files_are_read_under_their_own_names(tmp_path: Path):
    store = tree(tmp_path / "store", "x", "y")
    home = tmp_path / "home"
    home.mkdir()
    (home / "cat").symlink_to(store / "x")
    (home / "dog").mkdir()
    for file in sorted((store / "y").iterdir()):
        (home / "dog" / f"z{file.name}").symlink_to(file)
    data = from_folder(home, strict=True)
    assert (data.report.read, data.train.spec.classes) == (8, ("cat", "dog"))
    (home / "cat").rename(home / "ant")  # the files that are read stay the same
    assert from_folder(home).train.spec.classes == ("ant", "dog")
    (home / "ant").unlink()
    (home / "train").symlink_to(store / "x")
    (home / "dog").rename(home / "test")
    train, test, _ = from_folder(home, strict=True)
    assert levels_of(train) | levels_of(train.validation) == {50, 51, 52, 53}
    assert levels_of(test) == {55, 56, 57, 58}


def test_circles_of_links_end_and_are_named(tmp_path: Path):
    home = tree(tmp_path / "home", "cat", "dog")
    before = from_folder(home).train.spec
    (home / "cat" / "loop").symlink_to(home)
    (home / "cat" / "self").symlink_to("../cat")
    (home / "zebra").symlink_to("dog")
    (home / "up").symlink_to(tmp_path)
    (home / "round.png").symlink_to("round.png")
    data = from_folder(home)
    assert data.train.spec == before
    assert [skipped.path for skipped in data.report.skipped] == [
        *("cat/loop/", "cat/self/", "round.png", "up/", "zebra/"),
    ]
    assert "read as dog" in data.report.skipped[-1].reason
    with pytest.raises(InvalidData, match="a link to a folder that holds it"):
        from_folder(home, strict=True)


def test_what_is_no_file_is_named(tmp_path: Path):
    home = tree(tmp_path / "home", "cat")
    os.mkfifo(home / "cat" / "pipe.png")
    assert [s.reason for s in from_folder(home).report.skipped] == ["not a regular file"]


# Arrays


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("train", "test"), ("train", "test")),
        (("X_train", "y_train", "X_test", "y_test"), ("train", None, "test", None)),
        (("TRAIN", "Valid", "TEST"), ("train", "validation", "test")),
        (("x_train", "x_dev", "x_eval"), ("train", "validation", "test")),
        (("train_images", "test_images", "train_ids"), ("train", "test", None)),
        (("train", "validation_x"), ("train", "validation")),
    ],
)
def test_the_arrays_of_a_file_keep_their_splits(tmp_path: Path, names, splits):
    arrays, wanted = {}, {"train": [], "validation": [], "test": []}
    for place, (name, split) in enumerate(zip(names, splits, strict=True)):
        if split is None:
            arrays[name] = np.arange(12) % 3
        else:
            arrays[name] = np.full((12, 2, 2), place, np.uint8)
            wanted[split].append(place)
    np.savez(tmp_path / "mine.npz", **arrays)
    train, test = load(tmp_path / "mine.npz")
    for part, split in ((train, "train"), (train.validation, "validation"), (test, "test")):
        assert levels_of(part) == set(wanted[split] or wanted["train"])
        assert (part.labels is not None) == ("y_train" in names)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("train", "holdout"), "holdout names a split beside train"),
        (("x_train", "test_pictures_2"), "test_pictures_2 names a split beside x_train"),
        (("train", "x_train", "test"), "train and x_train both name the train split"),
        (("train", "val", "dev"), "val and dev both name the validation split"),
        (("images", "test"), "holds images, test; expected either"),
        (("x_dev", "x_test"), "holds x_dev, x_test; expected either"),
    ],
)
def test_arrays_of_unclear_splits_are_refused(tmp_path: Path, names, reason: str):
    np.savez(tmp_path / "mine.npz", **{name: np.zeros((12, 2, 2), np.uint8) for name in names})
    with pytest.raises(InvalidData, match=reason):
        load(tmp_path / "mine.npz")
