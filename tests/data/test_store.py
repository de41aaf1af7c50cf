"""The store: atomic, rebuilt when damaged, shared by processes, clear where it is not writable."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import numpy as np
import pytest

from likely.data import Dataset, from_array
from likely.data.store import Source, key_of, stored
from likely.errors import InvalidData


def source(n: int = 60) -> Source:
    x = np.arange(n, dtype=np.uint8).reshape(n, 1)
    data = from_array(x, 256, np.arange(n) % 3)
    return Source(
        Dataset(data.spec, x, data.labels, {"odd": np.arange(n) % 2 == 1}), notes={"a": [1]}
    )


def test_what_is_stored_comes_back_as_maps_and_is_not_built_again(cache: Path):
    def never(_: Path) -> Source:
        raise AssertionError("built twice")

    train, test, notes = stored("key", lambda _: source())
    again, test_again, notes_again = stored("key", never)
    assert notes == notes_again == {"a": [1]}
    assert (again.spec, test_again.spec) == (train.spec, test.spec)
    parts = (again, again.validation, test_again)
    assert sorted(int(v) for part in parts for v in part.values[:, 0]) == list(range(60))
    for part in parts:
        assert isinstance(part.values, np.memmap)
        assert (part.labels == part.values[:, 0] % 3).all()
        assert (part.attributes["odd"] == (part.values[:, 0] % 2 == 1)).all()


def test_published_splits_are_kept():
    whole = source(30)
    train, test, _ = stored("key", lambda _: Source(whole.train, source(9).train, source(5).train))
    assert (len(train), len(train.validation), len(test)) == (30, 5, 9)
    assert (test.values[:, 0] == np.arange(9)).all()
    assert [p.spec.split for p in (train, train.validation, test)] == [
        "train",
        "validation",
        "test",
    ]


def test_a_failed_build_leaves_nothing(cache: Path):
    def fails(scratch: Path) -> Source:
        (scratch / "half").write_bytes(b"x" * 100)
        raise InvalidData("no")

    with pytest.raises(InvalidData, match="no"):
        stored("key", fails)
    assert list((cache / "prepared").iterdir()) == []


def test_a_full_disk_is_told_and_leaves_nothing(cache: Path):
    def full(_: Path) -> Source:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(InvalidData, match="No space left on device; make room"):
        stored("key", full)
    assert list((cache / "prepared").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_told(cache: Path):
    cache.write_text("a file in the way")
    with pytest.raises(InvalidData, match="LIKELY_CACHE"):
        stored("key", lambda _: source())


@pytest.mark.parametrize("damage", ["truncate", "rewrite", "remove", "index", "labels"])
def test_a_damaged_entry_is_built_again(cache: Path, damage: str):
    stored("key", lambda _: source())
    folder = cache / "prepared" / "key"
    file = folder / "train.npy"
    if damage == "truncate":
        os.truncate(file, file.stat().st_size - 1)
    elif damage == "rewrite":
        whole = file.read_bytes()
        time.sleep(0.01)
        file.write_bytes(whole[:-1] + b"\xff")
    elif damage == "remove":
        file.unlink()
    elif damage == "index":
        (folder / "index.json").write_text("{")
    else:
        (folder / "train.labels.npy").write_bytes(b"x")
    train, test, _ = stored("key", lambda _: source())
    parts = (train, train.validation, test)
    assert sorted(int(v) for part in parts for v in part.values[:, 0]) == list(range(60))


def test_the_slower_of_two_processes_uses_what_the_quicker_made(cache: Path):
    made = []

    def slow(_: Path) -> Source:
        stored("key", lambda _: source(30))  # the other finishes while this one still builds
        made.append((cache / "prepared" / "key").stat().st_ino)
        return source(30)

    train, test, _ = stored("key", slow)
    assert len(train) + len(train.validation) + len(test) == 30
    assert [path.name for path in (cache / "prepared").iterdir()] == ["key"]
    assert (cache / "prepared" / "key").stat().st_ino == made[0]


def test_what_killed_processes_left_is_removed_after_a_day(cache: Path):
    for name, age in ((".making-old", 90_000), (".making-new", 10)):
        (cache / "prepared" / name).mkdir(parents=True)
        os.utime(cache / "prepared" / name, (time.time() - age,) * 2)
    stored("key", lambda _: source())
    assert sorted(p.name for p in (cache / "prepared").iterdir()) == [".making-new", "key"]


def test_keys_differ_where_anything_differs():
    keys = {key_of("a"), key_of("b"), key_of("a", None), key_of("a", (1, 2)), key_of("a", 12)}
    assert len(keys) == 5
