"""Data sets that no file of their own holds: digits, a grid of Gaussians, stacked MNIST.

- `digits`: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
  Repository, 1998 (CC BY 4.0, see NOTICE), in the order in which scikit-learn ships it. The
  published file has no split of its own, so 297 test examples are held out by a fixed seed; a
  split at random, not by position, because neighbours in the file come from one writer.
- `gaussians-25`: the grid on which generators are seen to lose modes (Srivastava et al. 2017,
  https://arxiv.org/abs/1705.07761; Lin et al. 2018, https://arxiv.org/abs/1712.04086).
- `stacked-mnist`: three digits of MNIST on three channels, 1,000 modes (Metz et al. 2017,
  https://arxiv.org/abs/1611.02163; the protocol of 128,000 training triples is Srivastava's).
"""

from __future__ import annotations

import importlib.resources

import numpy as np
import numpy.typing as npt

from likely.data.spec import Dataset, DataSpec, Split, digest_of, train_and_test

TEST_EXAMPLES = 297
SEED = 20_140_101
# Of the grid: the means of each coordinate, the standard deviation of all, and the numbers that
# the lowest and the highest level stand for.
MEANS, SPREAD, RANGE, LEVELS = (-4.0, -2.0, 0.0, 2.0, 4.0), 0.05, 5.0, 65_536
POINTS = {"train": 100_000, "validation": 10_000, "test": 10_000}
TRIPLES = {"train": 128_000, "validation": 10_000, "test": 26_000}
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def digits() -> tuple[Dataset, Dataset]:
    """Training (1,250, with 250 more as `.validation`) and test (297) digits, (1, 8, 8)."""
    file = importlib.resources.files("likely.data").joinpath("digits.npz")
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        values = archive["images"][:, None]  # uint8 [1797, 1, 8, 8]
        labels = archive["labels"].astype(np.int64)
    names, digest = tuple("0123456789"), digest_of(values)
    spec = DataSpec("digits", (1, 8, 8), 17, n=len(values), digest=digest, classes=names)
    return train_and_test(Dataset(spec, values, labels), TEST_EXAMPLES)


def gaussians() -> tuple[Dataset, Dataset]:
    """Training (100,000, with 10,000 more as `.validation`) and test (10,000) points (2,).

    Equally likely Gaussians of standard deviation 0.05 around {-4, -2, 0, 2, 4}^2, on a lattice of
    65,536 levels over [-5, 5] (`coordinates`). The label of a point is its Gaussian, row by row.
    """
    side = len(MEANS)
    names = tuple(f"({x:g}, {y:g})" for x in MEANS for y in MEANS)
    parts = []
    for number, split in enumerate(SPLITS):
        n = POINTS[split]
        label, first, second = _uniform(SEED + number, n, 3)
        labels = (label * len(names)).astype(np.int64)
        radius, angle = np.sqrt(-2 * np.log1p(-first)), 2 * np.pi * second  # Box and Muller
        noise = SPREAD * radius * np.stack([np.cos(angle), np.sin(angle)])
        means = np.array(MEANS)[np.stack([labels // side, labels % side])]
        share = ((means + noise).T / RANGE + 1) / 2  # of the range, [N, 2]
        values = np.rint(share * (LEVELS - 1)).astype(np.uint16)
        spec = DataSpec("gaussians-25", (2,), LEVELS, split, n=n, digest=digest_of(values),
                        classes=names)  # fmt: skip
        parts.append(Dataset(spec, values, labels))
    train, train.validation, test = parts
    return train, test


def coordinates(x: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The numbers in [-5, 5] that integers of `gaussians-25` stand for, in their shape."""
    return np.asarray((np.asarray(x, np.float64) / (LEVELS - 1) * 2 - 1) * RANGE)


def stacked(train: Dataset, test: Dataset) -> tuple[Dataset, Dataset]:
    """Triples of MNIST's digits: 128,000 of the training set, 10,000 and 26,000 of the others.

    The label of a triple is the number that its digits write, 0 to 999.
    """
    assert train.validation is not None
    parts = []
    for number, (split, source) in enumerate(
        zip(SPLITS, (train, train.validation, test), strict=True)
    ):
        assert source.labels is not None
        n = TRIPLES[split]
        triples = (_uniform(SEED + number, n, 3).T * len(source)).astype(np.int64)  # [N, 3]
        values = source.values[triples, 0]  # [N, 3, 28, 28]
        labels = source.labels[triples] @ np.array([100, 10, 1])
        spec = DataSpec("stacked-mnist", values.shape[1:], source.spec.levels, split, n=n,
                        digest=digest_of(values),
                        classes=tuple(f"{k:03}" for k in range(1000)))  # fmt: skip
        parts.append(Dataset(spec, values, labels))
    train, train.validation, test = parts
    return train, test


def _uniform(seed: int, n: int, columns: int) -> npt.NDArray[np.float64]:
    """Numbers in [0, 1), fixed by the definition of Philox, [columns, n]."""
    raw = np.random.Philox(seed).random_raw(n * columns).reshape(columns, n)
    return np.asarray((raw >> np.uint64(11)) * 2.0**-53)
