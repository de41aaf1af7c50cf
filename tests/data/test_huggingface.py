"""Hugging Face folders and parquet files, through the library `datasets` where it is installed."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from PIL import Image

from likely import data
from likely.data.huggingface import from_huggingface, grouped, is_huggingface
from likely.errors import InvalidData, InvalidSetting, MissingDependency


def _png(value: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((8, 8), value, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def _table(library, values, labels=None):
    records = {"image": [{"bytes": _png(v), "path": None} for v in values]}
    features = {"image": library.Image()}
    if labels is not None:
        records["label"] = labels
        features["label"] = library.ClassLabel(names=["dark", "light"])
    return library.Dataset.from_dict(records, features=library.Features(features))


def test_without_the_library_the_error_names_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    file = tmp_path / "some.parquet"
    file.write_bytes(b"")
    with pytest.raises(MissingDependency, match="pip install datasets"):
        data.load(file)


def test_a_folder_of_images_is_not_taken_for_one_of_the_library(tmp_path):
    (tmp_path / "a.png").write_bytes(_png(1))
    assert not is_huggingface(tmp_path)
    (tmp_path / "dataset_dict.json").write_text("{}")
    assert is_huggingface(tmp_path)


def test_saved_splits_labels_and_pixels_are_kept(tmp_path):
    library = pytest.importorskip("datasets")
    tables = library.DatasetDict(
        {
            "train": _table(library, range(10), [0, 1] * 5),
            "test": _table(library, range(100, 104), [1, 0, 1, 0]),
        }
    )
    tables.save_to_disk(str(tmp_path / "saved"))
    train, test = data.load(tmp_path / "saved")
    assert test.values[:, 0, 0, 0].tolist() == [100, 101, 102, 103]
    assert test.labels.tolist() == [1, 0, 1, 0]
    assert train.spec.classes == ("dark", "light")
    seen = [*train.values[:, 0, 0, 0], *train.validation.values[:, 0, 0, 0]]
    assert sorted(seen) == list(range(10))
    assert (train.labels == train.values[:, 0, 0, 0] % 2).all()


def test_parquet_files_are_split_by_their_names(tmp_path):
    library = pytest.importorskip("datasets")
    folder = tmp_path / "set" / "data"
    folder.mkdir(parents=True)
    for name, values in (
        ("train-00000-of-00002", range(6)),
        ("train-00001-of-00002", range(6, 12)),
        ("validation-00000-of-00001", range(50, 53)),
        ("test-00000-of-00001", range(90, 95)),
    ):
        _table(library, values).to_parquet(str(folder / f"{name}.parquet"))
    train, test = data.load(tmp_path / "set")
    assert train.values[:, 0, 0, 0].tolist() == list(range(12))
    assert train.validation.values[:, 0, 0, 0].tolist() == [50, 51, 52]
    assert test.values[:, 0, 0, 0].tolist() == [90, 91, 92, 93, 94]
    assert train.labels is None


def test_one_parquet_file_with_a_damaged_image_is_split_and_reported(tmp_path):
    library = pytest.importorskip("datasets")
    records = [{"bytes": _png(v), "path": None} for v in range(9)]
    records[4] = {"bytes": _png(4)[:-30], "path": None}
    table = library.Dataset.from_dict(
        {"picture": records}, features=library.Features({"picture": library.Image()})
    )
    file = tmp_path / "some.parquet"
    table.to_parquet(str(file))
    read = from_huggingface(file)
    assert [skipped.path for skipped in read.report.skipped] == ["train[4]"]
    parts = (read.train, read.train.validation, read.test)
    assert sorted(v for part in parts for v in part.values[:, 0, 0, 0]) == [0, 1, 2, 3, 5, 6, 7, 8]
    with pytest.raises(InvalidData, match=r"train\[4\]"):
        from_huggingface(file, strict=True)


def test_a_column_of_arrays_needs_levels(tmp_path):
    library = pytest.importorskip("datasets")
    x = np.arange(9 * 4 * 4).reshape(9, 4, 4) % 7
    features = library.Features({"x": library.Array2D((4, 4), "int32")})
    library.Dataset.from_dict({"x": x.tolist()}, features=features).save_to_disk(
        str(tmp_path / "saved")
    )
    with pytest.raises(InvalidData, match="give levels"):
        data.load(tmp_path / "saved")
    train, test = data.load(tmp_path / "saved", levels=7)
    assert train.spec.levels == 7
    assert train.spec.shape == (1, 4, 4)
    rows = np.concatenate([train.values, train.validation.values, test.values])[:, 0]
    assert sorted(map(bytes, rows)) == sorted(map(bytes, x.astype(np.uint8)))
    with pytest.raises(InvalidSetting, match="size"):
        data.load(tmp_path / "saved", levels=7, size=8)


def test_an_unknown_column_is_answered_with_the_nearest(tmp_path):
    library = pytest.importorskip("datasets")
    file = tmp_path / "some.parquet"
    _table(library, range(4)).to_parquet(str(file))
    with pytest.raises(InvalidSetting, match='did you mean "image"'):
        from_huggingface(file, image="imagee")


def test_a_damaged_parquet_file_is_named(tmp_path):
    pytest.importorskip("datasets")
    file = tmp_path / "some.parquet"
    file.write_bytes(b"PAR1 nothing")
    with pytest.raises(InvalidData, match=r"some\.parquet"):
        data.load(file)


# Splits by the names of files, without the library


def files_of(home, *names):
    files = [home / name for name in names]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"PAR1")
    return sorted(files)


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("train.parquet", "test.parquet"), ["train", "test"]),
        (("train.parquet", "test_2023.parquet"), ["train", "test"]),
        (("mnist_train.parquet", "mnist_test.parquet"), ["train", "test"]),
        (("Train-0.parquet", "train-1.parquet", "DEV.parquet"), ["train", "train", "validation"]),
        (("train.parquet", "dev.parquet", "eval.parquet"), ["train", "validation", "test"]),
        (
            ("plain_text/train-00000-of-00001.parquet", "plain_text/test-0.parquet"),
            ["train", "test"],
        ),
        (("data/train-0.parquet", "data/valid-0.parquet"), ["train", "validation"]),
        (("default/train/0000.parquet", "default/test/0000.parquet"), ["train", "test"]),
        (("default/partial-train/0000.parquet", "default/test/0.parquet"), ["train", "test"]),
        (("a.parquet", "b.parquet"), ["train", "train"]),
        (("contest.parquet",), ["train"]),
        (("train.parquet", "test.parquet", "unsupervised.parquet"), ["train", "test", None]),
    ],
)
def test_files_are_of_the_split_that_their_names_say(tmp_path, names, splits):
    files = [tmp_path / name for name in names]
    files_of(tmp_path, *names)
    assert is_huggingface(tmp_path)
    groups, remarks = grouped(tmp_path, sorted(files))
    owner = {file: split for split, paths in groups.items() for file in paths}
    assert [owner.get(file) for file in files] == splits
    assert remarks == ["left out: unsupervised.parquet, which is of no split"] * (None in splits)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("train.parquet", "more.parquet"), r"more\.parquet names no split"),
        (("val.parquet", "validation.parquet", "train.parquet"), "val and validation both name"),
        (("test.parquet", "eval.parquet", "train.parquet"), "eval and test both name the test"),
        (("test.parquet",), "has the split test and no train"),
        (("dev.parquet", "test.parquet"), "has the split dev, test and no train"),
        (("train_test.parquet", "train.parquet"), "train_test may name one split or another"),
        (("holdout.parquet", "train.parquet"), "holdout may name one split or another"),
        (("a/train.parquet", "b/train.parquet"), "holds several configurations: a, b"),
        (("train.parquet", "old/train.parquet"), r"several configurations: \., old"),
    ],
)
def test_names_of_files_that_are_not_clear_are_refused(tmp_path, names, reason):
    with pytest.raises(InvalidData, match=reason):
        grouped(tmp_path, files_of(tmp_path, *names))


def test_pictures_are_not_passed_over_for_a_table_further_down(tmp_path):
    files_of(tmp_path, "tables/numbers.parquet", "metadata.parquet", ".cache/train.parquet")
    assert is_huggingface(tmp_path)
    (tmp_path / "a.png").write_bytes(_png(1))
    assert not is_huggingface(tmp_path)
    files_of(tmp_path, "data/train.parquet")
    assert is_huggingface(tmp_path)


def test_columns_are_of_tables_alone(tmp_path):
    (tmp_path / "a.png").write_bytes(_png(1))
    for source in (tmp_path, "digits"):
        with pytest.raises(InvalidSetting, match='image="x" names a column of parquet files'):
            data.load(source, image="x")


# Splits, types and labels in the library's tables


def test_splits_of_a_saved_set_are_kept_or_refused(tmp_path):
    library = pytest.importorskip("datasets")

    def saved(**splits):
        folder = tmp_path / "_".join(splits)
        tables = {name: _table(library, values) for name, values in splits.items()}
        library.DatasetDict(tables).save_to_disk(str(folder))
        return folder

    train, test = data.load(saved(train=range(9), dev=range(50, 53), eval=range(90, 95)))
    assert train.values[:, 0, 0, 0].tolist() == list(range(9))
    assert train.validation.values[:, 0, 0, 0].tolist() == [50, 51, 52]
    assert test.values[:, 0, 0, 0].tolist() == [90, 91, 92, 93, 94]
    with pytest.warns(data.SkippedFiles, match="left out: extra, which is no split"):
        _, test = data.load(saved(train=range(9), test=range(90, 92), extra=range(50, 60)))
    assert test.values[:, 0, 0, 0].tolist() == [90, 91]
    for splits, reason in (
        ({"train": range(9), "val": range(3), "validation": range(3)}, "val and validation both"),
        ({"test": range(9)}, "has the split test and no train"),
        ({"everything": range(9)}, "call it train, validation or test"),
    ):
        with pytest.raises(InvalidData, match=reason):
            data.load(saved(**splits))
    (tmp_path / "files").mkdir()
    for name, values in (("train", range(9)), ("test", ())):
        _table(library, values).to_parquet(str(tmp_path / "files" / f"{name}.parquet"))
    with pytest.raises(InvalidData, match=r"the test split holds no example|cannot be read"):
        data.load(tmp_path / "files")


@pytest.mark.parametrize("kind", ["struct", "binary"])
def test_parquet_files_without_types_are_read(tmp_path, kind):
    arrow, _ = pytest.importorskip("pyarrow"), pytest.importorskip("datasets")
    parquet = pytest.importorskip("pyarrow.parquet")
    images = [_png(v) for v in range(9)]
    column = images if kind == "binary" else [{"bytes": i, "path": None} for i in images]
    table = {"id": list(range(9)), "image": column, "label": [3, 1, 2] * 3}
    file = tmp_path / "some.parquet"
    parquet.write_table(arrow.table(table), file)
    train, _ = data.load(file)
    assert train.spec.classes == ("1", "2", "3")
    names = [train.spec.classes[label] for label in train.labels]
    assert names == [str((3, 1, 2)[v % 3]) for v in train.values[:, 0, 0, 0]]
    parquet.write_table(arrow.table({**table, "other": column, "kind": ["a", "b", "a"] * 3}), file)
    with pytest.raises(InvalidData, match=r"image and other may hold images.*--image-column NAME"):
        data.load(file)
    train, _ = data.load(file, image="other", label="kind")
    assert train.spec.classes == ("a", "b")
    with pytest.raises(InvalidSetting, match='did you mean "kind"'):
        data.load(file, image="other", label="kin")
    with pytest.raises(InvalidSetting, match='the column "image" holds'):
        data.load(file, image="other", label="image")
    parquet.write_table(arrow.table({"a": [1, 2, 3]}), file)
    with pytest.raises(InvalidData, match="none is known to hold images"):
        data.load(file)


def test_a_missing_label_is_named_and_costs_no_other_split_its_labels(tmp_path):
    library = pytest.importorskip("datasets")

    def load(labels, test_labels, **options):
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        tables = {
            "train": _table(library, range(8), labels),
            "test": _table(library, range(90, 94), test_labels),
        }
        library.DatasetDict(tables).save_to_disk(str(folder))
        return data.load(folder, **options)

    with pytest.warns(data.SkippedFiles, match="the test split has no labels"):
        train, test = load([0, 1] * 4, [-1] * 4)
    assert (train.labels == train.values[:, 0, 0, 0] % 2).all()
    assert test.labels is None
    with pytest.warns(data.SkippedFiles, match="no labels: .* 1 of 8 examples of the train split"):
        train, test = load([0, 1] * 3 + [0, -1], [0] * 4)
    assert train.labels is None
    with pytest.raises(InvalidData, match=r'1 of 8 .* no label in the column "label"; leave these'):
        load([0, 1] * 3 + [0, -1], [0] * 4, label="label")
    with pytest.warns(data.SkippedFiles, match="the test split has no labels"):
        assert load([0, 1] * 4, None)[1].labels is None


def test_splits_with_other_orders_of_the_classes_agree_by_name(tmp_path):
    library = pytest.importorskip("datasets")
    test = _table(library, range(90, 94), [0, 0, 1, 1])
    test = test.cast_column("label", library.ClassLabel(names=["light", "dark"]))
    tables = {"train": _table(library, range(8), [0, 1] * 4), "test": test}
    library.DatasetDict(tables).save_to_disk(str(tmp_path / "saved"))
    train, test = data.load(tmp_path / "saved")
    assert train.spec.classes == test.spec.classes == ("dark", "light")
    assert test.labels.tolist() == [1, 1, 0, 0]
