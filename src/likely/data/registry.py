"""Readers of the named data sets of `likely.data.catalogue`.

Files are looked for in LIKELY_DATA, then in the cache, then downloaded. What is read is compared
with the digest of the published values, so a number on "mnist" is a number on MNIST.
"""

from __future__ import annotations

import dataclasses
import tarfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from likely.data.catalogue import CATALOGUE, STATIC_MNIST, Entry
from likely.data.download import Progress
from likely.data.made import digits, gaussians, stacked
from likely.data.places import find, folders, missing, obtain
from likely.data.readers import read_amat, read_cifar, read_idx, read_mosaic, read_npz, reading
from likely.data.shapes import shapes
from likely.data.spec import (
    Dataset,
    DataSpec,
    IntArray,
    Split,
    digest_of,
    train_and_test,
    with_validation,
)
from likely.data.store import Source, key_of, stamp, stored
from likely.errors import InvalidData, InvalidSetting, nearest

_PUBLISHED_WITH = {
    "larochelle": ("binarize=static",),
    # "lossy" marks data on which bits/dim mean little: the last bits are those of a codec.
    "faces": ("crop=74", "resize=64", "lossy=webp"),
}


def named(
    name: str,
    *,
    static: bool = False,
    progress: Progress | None = None,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
) -> tuple[Dataset, Dataset]:
    """Training set (with its `.validation`) and test set of a named data set, as published.

    `static` takes Larochelle's binarisation of MNIST; `progress` is called while files are
    downloaded; `size` and `channels` are of data sets that are drawn.
    """
    if name not in CATALOGUE:
        raise InvalidSetting(f'no data set is called "{name}": {nearest(name, CATALOGUE)}')
    entry = STATIC_MNIST if static and name == "mnist" else CATALOGUE[name]
    if entry.layout == "drawn":
        return shapes(size or entry.shape[1], channels or entry.shape[0])
    if entry.layout == "grid":
        return gaussians()
    if entry.layout == "stacked":
        mnist = dataclasses.replace(CATALOGUE["mnist"], name=name)
        return stacked(*_published(mnist, progress))
    return _published(entry, progress)


def _published(entry: Entry, progress: Progress | None) -> tuple[Dataset, Dataset]:
    """What the files of a data set hold, compared with the published digests."""
    readers = {"idx": _idx, "larochelle": _larochelle, "cifar": _cifar}
    readers |= {"faces": _faces, "frey": _frey}
    train, test = digits() if entry.layout == "embedded" else readers[entry.layout](entry, progress)
    assert train.validation is not None
    digests = tuple(part.spec.digest for part in (train, train.validation, test))
    if entry.digests and digests != entry.digests:
        raise InvalidData(
            f"{entry.name}: the values in {_where(entry)} are not the published ones; remove "
            "these files and fetch them again"
        )
    return train, test


def _where(entry: Entry) -> str:
    return str(next((folder for folder in folders(entry) if folder.is_dir()), folders(entry)[-1]))


def _dataset(
    entry: Entry,
    values: IntArray,
    labels: npt.NDArray[np.uint8] | None = None,
    split: Split = "train",
    attributes: dict[str, npt.NDArray[np.bool_]] | None = None,
) -> Dataset:
    """Values [N, C, H, W] with the specification of their entry."""
    steps, n, digest = _PUBLISHED_WITH.get(entry.layout, ()), len(values), digest_of(values)
    classes = entry.classes
    spec = DataSpec(entry.name, entry.shape, entry.levels, split, steps, n, digest, classes)
    return Dataset(
        spec, values, None if labels is None else labels.astype(np.int64), attributes or {}
    )


def _idx(entry: Entry, progress: Progress | None) -> tuple[Dataset, Dataset]:
    """MNIST and Fashion-MNIST: four IDX files."""
    paths = {file.name: obtain(entry, file, progress) for file in entry.files}
    parts: list[Dataset] = []
    split: Split
    for prefix, n, split in (("train", 60_000, "train"), ("t10k", 10_000, "test")):
        images = read_idx(paths[f"{prefix}-images-idx3-ubyte.gz"], (n, *entry.shape[1:]))
        labels = read_idx(paths[f"{prefix}-labels-idx1-ubyte.gz"], (n,))
        if labels.max() >= len(entry.classes):
            raise InvalidData(f"{entry.name}: label {labels.max()} in {_where(entry)}")
        parts.append(_dataset(entry, images[:, None], labels, split))
    return with_validation(parts[0]), parts[1]


def _larochelle(entry: Entry, progress: Progress | None) -> tuple[Dataset, Dataset]:
    """The static binarisation: packed bits in one .npz, or the published text files."""
    packed = find(entry, "binarized_mnist.npz")
    arrays = {} if packed is None else read_npz(packed)
    parts: list[Dataset] = []
    published: tuple[tuple[str, Split, int], ...] = (
        ("train", "train", 50_000),
        ("valid", "validation", 10_000),
        ("test", "test", 10_000),
    )
    for file, (key, split, n) in zip(entry.files, published, strict=True):
        if packed is None:
            bits = read_amat(obtain(entry, file, progress), n, 784)
        else:
            if key not in arrays or arrays[key].shape != (n, 98) or arrays[key].dtype != np.uint8:
                raise InvalidData(f'{packed}: expected "{key}", uint8 [{n}, 98] of packed bits')
            bits = np.unpackbits(arrays[key], axis=1)
        parts.append(_dataset(entry, bits.reshape(n, 1, 28, 28), split=split))
    train, train.validation, test = parts
    return train, test


def _cifar(entry: Entry, progress: Progress | None) -> tuple[Dataset, Dataset]:
    """CIFAR-10: lossless mosaics, or the published binary archive."""
    names = [*(f"train_{i:02d}.webp" for i in range(10)), "test_00.webp", "test_01.webp"]
    labels = find(entry, "labels.npz")
    if labels is None:
        archive = obtain(entry, entry.files[0], progress)
        key = key_of(entry.name, stamp(archive))
        return stored(key, lambda _: _cifar_archive(entry, archive))[:2]
    mosaics = [_present(entry, name) for name in names]
    label_file = labels

    def build(_: Path) -> Source:
        arrays = read_npz(label_file)
        images = [read_mosaic(path, 50, 100, 32) for path in mosaics]
        for key, n in (("train", 50_000), ("test", 10_000)):
            if key not in arrays or arrays[key].shape != (n,):
                raise InvalidData(f'{label_file}: expected "{key}", [{n}] labels')
        return Source(
            _dataset(entry, np.concatenate(images[:10]), arrays["train"]),
            _dataset(entry, np.concatenate(images[10:]), arrays["test"], "test"),
        )

    key = key_of(entry.name, *(stamp(path) for path in [label_file, *mosaics]))
    return stored(key, build)[:2]


def _cifar_archive(entry: Entry, path: Path) -> Source:
    """The binary version: six members of 10,000 records, read in place, nothing is unpacked."""
    wanted = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    images: dict[str, IntArray] = {}
    labels: dict[str, npt.NDArray[np.uint8]] = {}
    with reading(path), tarfile.open(path, "r:gz") as archive:
        for member in archive:
            name = Path(member.name).name
            stream = archive.extractfile(member) if name in wanted and member.isfile() else None
            if stream is not None:
                images[name], labels[name] = read_cifar(stream, f"{path}: {member.name}")
    absent = [name for name in wanted if name not in images]
    if absent:
        raise InvalidData(f"{path}: lacks {', '.join(absent)}; remove it and fetch it again")
    train = _dataset(
        entry,
        np.concatenate([images[name] for name in wanted[:5]]),
        np.concatenate([labels[name] for name in wanted[:5]]),
    )
    return Source(train, _dataset(entry, images[wanted[5]], labels[wanted[5]], "test"))


def _faces(entry: Entry, progress: Progress | None) -> tuple[Dataset, Dataset]:
    """CelebA's first 10,000 faces with 40 attributes; no split was published for them."""
    del progress  # nothing is downloaded
    mosaics = [_present(entry, f"faces64_{i}.webp") for i in range(4)]
    table = _present(entry, "attributes.npz")

    def build(_: Path) -> Source:
        arrays = read_npz(table)
        columns, names = arrays.get("attributes"), arrays.get("names")
        if columns is None or names is None or columns.shape != (10_000, len(names)):
            raise InvalidData(f'{table}: expected "attributes", [10000, A], and "names", [A]')
        attributes = {
            str(name): column.astype(np.bool_)
            for name, column in zip(names, columns.T, strict=True)
        }
        images = np.concatenate([read_mosaic(path, 50, 50, 64) for path in mosaics])
        return Source(_dataset(entry, images, attributes=attributes))

    key = key_of(entry.name, *(stamp(path) for path in [table, *mosaics]))
    return stored(key, build)[:2]


def _frey(entry: Entry, progress: Progress | None) -> tuple[Dataset, Dataset]:
    """Frey faces: one .npz with `images`, uint8 [1965, 28, 20]; no split was published."""
    del progress  # nothing is downloaded
    path = _present(entry, "freyfaces.npz")
    images = read_npz(path).get("images")
    if images is None or images.shape != (1965, 28, 20) or images.dtype != np.uint8:
        raise InvalidData(f'{path}: expected "images", uint8 [1965, 28, 20]')
    return train_and_test(_dataset(entry, images[:, None]))


def _present(entry: Entry, name: str) -> Path:
    """The path of a file that is not downloaded by itself."""
    path = find(entry, name)
    if path is None:
        reason = "it has no free download" if not entry.files else "the other files are there"
        raise missing(entry, name, reason)
    return path
