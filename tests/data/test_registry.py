"""The named data sets: the embedded one, the real ones where they are, and where each is found."""

from __future__ import annotations

import dataclasses
import gzip
import io
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from likely.data import load, made
from likely.data.catalogue import CATALOGUE, MADE_HERE, STATIC_MNIST, RemoteFile, lines
from likely.data.made import MEANS, SPREAD, coordinates, stacked
from likely.data.places import cache_folder
from likely.data.registry import named
from likely.data.spec import Dataset, DataSpec
from likely.errors import InvalidData, InvalidSetting

ALL = [*CATALOGUE.values(), STATIC_MNIST]


def test_the_catalogue_has_one_line_each_and_published_checksums():
    assert [line.split()[0] for line in lines()] == list(CATALOGUE)
    assert all(len(line) <= 110 for line in lines())
    for entry in ALL:
        for file in entry.files:
            assert len(bytes.fromhex(file.sha256)) == 32
            assert file.size > 0
            assert all(url.endswith("/" + file.name) for url in file.urls)


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("likely.data", {"numpy", "torch", "PIL"}),
        ("likely.data.catalogue", {"numpy", "torch", "PIL"}),
        ("likely.data.loading", {"torch", "PIL", "datasets"}),
    ],
)
def test_imports_stay_light(module: str, forbidden: set[str]):
    program = f"import sys, {module}; print(sorted(set({forbidden!r}) & set(sys.modules)))"
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"


# Embedded


def test_digits_are_whole_and_split_by_a_fixed_rule():
    train, test = load("digits")
    parts = (train, train.validation, test)
    assert [len(part) for part in parts] == [1250, 250, 297]
    assert sum(int(part.values.sum()) for part in parts) == 561718  # of the published file
    counts = sum(np.bincount(part.labels, minlength=10) for part in parts)
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert test.spec.shape == (1, 8, 8)
    assert max(int(part.values.max()) for part in parts) == 16


def test_digits_are_those_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.datasets")
    published = sklearn.load_digits()
    pairs = zip(published.images.astype(np.uint8), published.target, strict=True)
    rows = {image.tobytes(): int(label) for image, label in pairs}
    train, test = load("digits")
    seen = []
    for part in (train, train.validation, test):
        for x, y in zip(part.values, part.labels, strict=True):
            assert rows[x.tobytes()] == y
            seen.append(x.tobytes())
    assert sorted(seen) == sorted(x.astype(np.uint8).tobytes() for x in published.images)


# Settings


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(InvalidSetting, match='did you mean "mnist"'):
        load("mnits")
    with pytest.raises(InvalidSetting, match="no file or folder some/where"):
        load("some/where")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"binarize": "statik"}, 'did you mean "static"'),
        ({"binarize": "static"}, "no published static binarisation"),
        ({"levels": 1}, r"\[2, 65536\]"),
        ({"levels": 18}, "at most 17"),
        ({"levels": 4, "binarize": "threshold"}, "contradicts"),
        ({"size": 9}, "size is for folders"),
        ({"strict": True}, "strict is for folders"),
        ({"seed": -1, "binarize": "dynamic"}, "seed"),
    ],
)
def test_impossible_settings_are_refused(settings, reason):
    with pytest.raises(InvalidSetting, match=reason):
        load("digits", **settings)


# Places


def idx(array: np.ndarray) -> bytes:
    return gzip.compress(
        struct.pack(">HBB", 0, 8, array.ndim)
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.tobytes(),
        1,
    )


def write_mnist(folder: Path, fill: int = 0) -> None:
    folder.mkdir(parents=True)
    for prefix, n in (("train", 60_000), ("t10k", 10_000)):
        images = np.full((n, 28, 28), fill, np.uint8)
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(idx(images))
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(idx(np.zeros(n, np.uint8)))


@pytest.fixture
def unpublished(monkeypatch):
    """Let the catalogue accept stand-ins of the published values."""
    for entry in CATALOGUE.values():
        stand_in = dataclasses.replace(entry, digests=())
        monkeypatch.setitem(CATALOGUE, entry.name, stand_in)


def test_the_given_folder_goes_before_the_cache(tmp_path, monkeypatch, unpublished):
    write_mnist(cache_folder() / "downloads" / "mnist", fill=1)
    monkeypatch.delenv("LIKELY_DATA", raising=False)
    assert load("mnist")[1].values.max() == 1
    write_mnist(tmp_path / "given" / "mnist", fill=2)
    monkeypatch.setenv("LIKELY_DATA", str(tmp_path / "given"))
    assert load("mnist")[1].values.max() == 2


def test_other_values_than_the_published_are_refused(tmp_path, monkeypatch):
    write_mnist(tmp_path / "given" / "mnist")
    monkeypatch.setenv("LIKELY_DATA", str(tmp_path / "given"))
    with pytest.raises(InvalidData, match="not the published ones"):
        load("mnist")


def test_a_folder_that_is_none_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("LIKELY_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(InvalidSetting, match="LIKELY_DATA"):
        load("mnist")


@pytest.mark.parametrize("name", [n for n, e in CATALOGUE.items() if e.layout not in MADE_HERE])
def test_offline_the_error_says_what_where_and_what_to_do(name, tmp_path, monkeypatch):
    monkeypatch.setenv("LIKELY_DATA", str(tmp_path))
    with pytest.raises(InvalidData) as caught:
        load(name)
    text = str(caught.value)
    entry = CATALOGUE[name]
    assert text.startswith(f"{name}: ")
    assert str(tmp_path / entry.folder) in text
    assert str(cache_folder()) in text
    if entry.files:
        assert "LIKELY_OFFLINE" in text
        assert all(file.urls[0] in text for file in entry.files)
    else:
        assert entry.source in text


def test_what_is_nowhere_is_downloaded_into_the_cache(tmp_path, monkeypatch, unpublished):
    import hashlib
    import http.server
    import threading

    from likely.data import places

    write_mnist(tmp_path / "served")
    handler = type(
        "Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None}
    )
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *a: handler(*a, directory=str(tmp_path / "served"))
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        files = tuple(
            RemoteFile(
                path.name,
                hashlib.sha256(path.read_bytes()).hexdigest(),
                path.stat().st_size,
                (f"http://127.0.0.1:{server.server_address[1]}/{path.name}",),
            )
            for path in sorted((tmp_path / "served").iterdir())
        )
        monkeypatch.setitem(
            CATALOGUE, "mnist", dataclasses.replace(CATALOGUE["mnist"], files=files)
        )
        monkeypatch.delenv("LIKELY_OFFLINE")
        monkeypatch.delenv("LIKELY_DATA", raising=False)
        seen = []
        _, test = load("mnist", progress=lambda *call: seen.append(call))
        assert {name for name, _, _ in seen} == {file.name for file in files}
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert len(test) == 10_000
    assert all(places.find(CATALOGUE["mnist"], file.name) for file in files)
    assert len(load("mnist")[1]) == 10_000  # the server is gone


def test_cifar_is_read_from_the_published_archive(tmp_path, monkeypatch, unpublished):
    folder = tmp_path / "given" / "cifar10"
    folder.mkdir(parents=True)
    wanted = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    archive_path = folder / "cifar-10-binary.tar.gz"

    def write(names):
        with tarfile.open(archive_path, "w:gz", compresslevel=1) as archive:
            for i, name in enumerate(names):
                records = np.full((10_000, 3073), 10 + i, np.uint8)
                records[:, 0] = i
                info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
                info.size = records.size
                archive.addfile(info, io.BytesIO(records.tobytes()))

    monkeypatch.setenv("LIKELY_DATA", str(tmp_path / "given"))
    write(wanted[:4])
    with pytest.raises(InvalidData, match=r"lacks data_batch_5\.bin, test_batch\.bin"):
        load("cifar10")
    write(wanted)
    train, test = load("cifar10")
    assert isinstance(test.values, np.memmap)
    assert (len(train), len(train.validation), len(test)) == (41_667, 8_333, 10_000)
    assert set(test.labels.tolist()) == {5}
    assert (test.values == 15).all()
    assert (train.values[:, 0, 0, 0] == 10 + train.labels).all()


# The real data


@pytest.mark.data
def test_mnist_is_mnist(real_data):
    train, test = named("mnist")  # compares the digests of the values with the published ones
    assert (len(train), len(train.validation), len(test)) == (50_000, 10_000, 10_000)
    counts = np.bincount(train.labels) + np.bincount(train.validation.labels)
    assert counts.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.isclose(test.values.mean() / 255, 0.13251, atol=1e-5)


@pytest.mark.data
def test_static_mnist_is_the_benchmark(real_data, tmp_path, monkeypatch):
    train, test = load("mnist", binarize="static")
    parts = (train, train.validation, test)
    assert [len(part) for part in parts] == [50_000, 10_000, 10_000]
    means = [float(part.values.mean()) for part in parts]
    assert np.allclose(means, [0.130562, 0.131127, 0.132512], atol=1e-6)
    assert train.labels is None
    # the published text of the test set has this very checksum, and reads back the same
    rows = test.values.reshape(10_000, 784)
    text = np.full((10_000, 784, 2), ord(" "), np.uint8)
    text[..., 0] = rows + ord("0")
    text[:, -1, 1] = ord("\n")
    import hashlib

    assert hashlib.sha256(text.tobytes()).hexdigest() == STATIC_MNIST.files[2].sha256
    prints = {load("mnist", binarize=b)[1].spec.fingerprint for b in ("static", "dynamic", None)}
    assert len(prints) == 3


@pytest.mark.data
def test_the_other_real_sets_are_whole(real_data):
    train, test = load("fashion-mnist")
    assert np.isclose(test.values.mean() / 255, 0.28685, atol=1e-5)
    assert np.bincount(test.labels).tolist() == [1000] * 10
    train, test = load("cifar10")
    assert test.spec.classes[test.labels[0]] == "cat"
    assert np.bincount(test.labels).tolist() == [1000] * 10
    again, _ = load("cifar10")
    assert isinstance(again.values, np.memmap)
    assert again.spec == train.spec
    train, test = load("faces64")
    smiling = sum(int(part.attributes["Smiling"].sum()) for part in (train, train.validation, test))
    assert smiling == pytest.approx(4820, abs=5)
    assert any("lossy" in step for step in train.spec.preprocessing)
    train, test = load("freyfaces")
    assert len(train) + len(train.validation) + len(test) == 1965


# Made


def test_gaussians_lie_on_their_grid():
    train, test = load("gaussians-25")
    assert [len(part) for part in (train, train.validation, test)] == [100_000, 10_000, 10_000]
    assert train.spec.fingerprint == "2f63c36efc6b"
    points = coordinates(train.values)
    means = np.array([[x, y] for x in MEANS for y in MEANS])[train.labels]
    away = points - means
    assert away.mean(0) == pytest.approx([0, 0], abs=5e-4)
    assert np.cov(away.T) == pytest.approx(np.eye(2) * SPREAD**2, abs=3e-5)
    # 98.89 % of a Gaussian of two dimensions lie within three standard deviations.
    assert (np.linalg.norm(away, axis=1) < 3 * SPREAD).mean() == pytest.approx(0.9889, abs=1e-3)
    assert np.bincount(train.labels).min() > 3800


def test_triples_show_the_digits_of_their_label(monkeypatch):
    assert made.TRIPLES == {"train": 128_000, "validation": 10_000, "test": 26_000}
    monkeypatch.setattr(made, "TRIPLES", {"train": 300, "validation": 100, "test": 200})
    rng = np.random.default_rng(0)
    parts = []
    for split, n in (("train", 50), ("validation", 20), ("test", 30)):
        labels = rng.integers(10, size=n)
        values = np.broadcast_to(labels[:, None, None, None], (n, 1, 28, 28)).astype(np.uint8)
        spec = DataSpec("mnist", (1, 28, 28), 256, split, n=n)
        parts.append(Dataset(spec, values, labels))
    train, train.validation, test = parts
    train, test = stacked(train, test)
    assert [len(p) for p in (train, train.validation, test)] == [300, 100, 200]
    digits = test.values[:, :, 5, 5].astype(int)
    assert (digits @ [100, 10, 1] == test.labels).all()
    assert train.spec.classes[7] == "007"
