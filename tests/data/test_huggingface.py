"""Hugging Face folders and parquet files, through the library `datasets` where it is installed."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from PIL import Image

from likely import data
from likely.data.huggingface import from_huggingface, is_huggingface
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
