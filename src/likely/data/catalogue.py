"""The named data sets: one line each, their files, canonical addresses and checksums.

The standard library only, so that a command can list them in its help without numpy. Checksums
are of the file as published: SHA-256.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
DIGIT_CLASSES = tuple("0123456789")


@dataclasses.dataclass(frozen=True)
class RemoteFile:
    """A published file.

    Attributes:
        name: of the file, below the data set's folder.
        sha256: of the published file, in hexadecimal.
        size: in bytes.
        urls: canonical address first, then mirrors.
    """

    name: str
    sha256: str
    size: int
    urls: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Entry:
    """A named data set.

    Attributes:
        name: as given to `load`.
        summary: one line for a person.
        folder: of its files, below LIKELY_DATA and below the cache.
        shape: event shape, (C, H, W) or (D,).
        levels: of the published values.
        layout: how its files are read.
        classes: names of the labels, or ().
        files: what can be downloaded, or () where nothing may be.
        source: where the data comes from, for a person.
        digests: of the published values after the split: train, validation, test; or ().
        labelled: where it has no labels, the binarisation of the data set of the same name that
            does, for features that need some; or None.
    """

    name: str
    summary: str
    folder: str
    shape: tuple[int, ...]
    levels: int
    layout: Literal[
        "embedded", "drawn", "grid", "stacked", "idx", "larochelle", "cifar", "faces", "frey",
        "sequence",
    ]  # fmt: skip
    classes: tuple[str, ...] = ()
    files: tuple[RemoteFile, ...] = ()
    source: str = ""
    digests: tuple[str, ...] = ()
    labelled: Literal["dynamic", "threshold"] | None = None


def _files(listing: str, *addresses: str) -> tuple[RemoteFile, ...]:
    """Files of a listing, a line each: SHA-256, size in bytes, name."""
    rows = (line.split() for line in listing.splitlines())
    return tuple(
        RemoteFile(name, sha256, int(size), tuple(base + name for base in addresses))
        for sha256, size, name in rows
    )


_MNIST = _files(
    """\
440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609 9912422 train-images-idx3-ubyte.gz
3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c 28881 train-labels-idx1-ubyte.gz
8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6 1648877 t10k-images-idx3-ubyte.gz
f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6 4542 t10k-labels-idx1-ubyte.gz
""",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
_FASHION = _files(
    """\
3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84 26421880 train-images-idx3-ubyte.gz
a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845 29515 train-labels-idx1-ubyte.gz
346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073 4422102 t10k-images-idx3-ubyte.gz
67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5 5148 t10k-labels-idx1-ubyte.gz
""",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)
_LAROCHELLE = _files(
    """\
ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d 78400000 binarized_mnist_train.amat
1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2 15680000 binarized_mnist_valid.amat
e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c 15680000 binarized_mnist_test.amat
""",
    "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/",
)
_CIFAR = _files(
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd 170052171 "
    "cifar-10-binary.tar.gz",
    "https://www.cs.toronto.edu/~kriz/",
)

_ENTRIES = (
    Entry(
        "digits",
        "1,797 handwritten digits, 8x8, 17 levels, labels; embedded, needs no file",
        "digits",
        (1, 8, 8),
        17,
        "embedded",
        DIGIT_CLASSES,
        source="UCI Machine Learning Repository, https://doi.org/10.24432/C50P49",
        digests=(
            "d1c7c85ab44caaefd0b118f69266bde6fb614ab47c48aa9c750b6bc1744b5e74",
            "8e1a04037c2df23c9a96e8fd75c57eeab92ce1846d13d527a4d9f00b1e0a3bec",
            "9bf3b7bf54b528d35f618a8800b189ed8e906ecd81cbdecc26514cc2db4f015e",
        ),
    ),
    Entry(
        "shapes",
        "14,000 drawn shapes of known factors, 28x28, 256 levels, labels; needs no file",
        "shapes",
        (1, 28, 28),
        256,
        "drawn",
        ("ellipse", "rectangle", "triangle"),
        source="drawn by Likely",
    ),
    Entry(
        "gaussians-25",
        "120,000 points of 25 Gaussians on a grid, vectors of 2, 65,536 levels, labels; no file",
        "gaussians-25",
        (2,),
        65_536,
        "grid",
        source="drawn by Likely",
    ),
    Entry(
        "mnist",
        "70,000 handwritten digits, 28x28, 256 levels, labels; binarize=static for the benchmark",
        "mnist",
        (1, 28, 28),
        256,
        "idx",
        DIGIT_CLASSES,
        _MNIST,
        "LeCun, Cortes and Burges",
        (
            "12773e9d695b3c06039725951489be0eae15dc956fd08774ce1804262cf943f3",
            "58ff4c878f4dc15a92b0282cac5b64cdf8883968ff5d7bf466bf060957285e69",
            "c1e336d807fdbb055f2b8cdb0943491b44a0d25b838ad0851128cdda2c6164c0",
        ),
    ),
    Entry(
        "stacked-mnist",
        "164,000 triples of MNIST digits on three channels, 28x28, 256 levels, 1,000 classes",
        "mnist",
        (3, 28, 28),
        256,
        "stacked",
        files=_MNIST,
        source="LeCun, Cortes and Burges; stacked by Likely",
    ),
    Entry(
        "fashion-mnist",
        "70,000 pictures of clothes, 28x28, 256 levels, labels",
        "fashion_mnist",
        (1, 28, 28),
        256,
        "idx",
        FASHION_CLASSES,
        _FASHION,
        "Xiao, Rasul and Vollgraf 2017 (MIT licence)",
        (
            "30b9b7596d2931fbebabc7b3a5b6e48f45205b0be8208cbdfe9158e4eaaeae87",
            "b8fb9dfef5c268f19c0c230770f77a2bfefb507a1ea93eb10b47392240e7ec2d",
            "3e6c70d3ce80310e581f2acdb60800b8f1e7922edc0f659150d05cf69ff2a394",
        ),
    ),
    Entry(
        "cifar10",
        "60,000 colour photographs, 32x32x3, 256 levels, ten classes",
        "cifar10",
        (3, 32, 32),
        256,
        "cifar",
        CIFAR10_CLASSES,
        _CIFAR,
        "Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html",
        (
            "550d6f6b118a019bc013111d74e859df4dc656805ce567f236ae4a82a7b33e55",
            "e95faa929bf5461bb78d61f2273998fe000dd449c8c1db20901b2c82f1d4b9ff",
            "1722e5e14754b5efb4327e348c55e39c8227153c1a95b7b2130f1521b8097235",
        ),
    ),
    Entry(
        "faces64",
        "10,000 aligned faces (CelebA), 64x64x3, 40 attributes; no download, lossy: no bits/dim",
        "faces64",
        (3, 64, 64),
        256,
        "faces",
        source="Liu, Luo, Wang and Tang 2015, non-commercial research only, "
        "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
    ),
    Entry(
        "freyfaces",
        "1,965 video frames of one face, 28x20, 256 levels; no download",
        "freyfaces",
        (1, 28, 20),
        256,
        "frey",
        source="Roweis, Saul and Hinton 2002, https://cs.nyu.edu/~roweis/data.html",
    ),
)

# Data sets that are made here, without a file.
MADE_HERE = ("embedded", "drawn", "grid")

CATALOGUE: dict[str, Entry] = {entry.name: entry for entry in _ENTRIES}

STATIC_MNIST = Entry(
    "mnist",
    "MNIST binarised once by Larochelle: 50,000 / 10,000 / 10,000 examples, no labels",
    "binarized_mnist",
    (1, 28, 28),
    2,
    "larochelle",
    (),
    _LAROCHELLE,
    "Larochelle and Murray 2011",
    (
        "aa169a7a926ace379356455d9c45099f82039c5991b955bc8aa18f906785e739",
        "cda9fa14319ee33359f7dad880411cebc63275288f93e3ef1d835e7ccf1f83ee",
        "c2c1b6501e7157a76958b1365182a9b7cd7a1e7fe6248a518b425905391feff5",
    ),
    "dynamic",
)


def lines() -> list[str]:
    """One line for each data set, name first, in columns: for a command's help.

    >>> lines()[0].split()[0]
    'digits'
    """
    width = max(map(len, CATALOGUE))
    return [f"{entry.name:<{width}}  {entry.summary}" for entry in CATALOGUE.values()]
