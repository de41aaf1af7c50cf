"""The embedded data set `digits`: 1,797 handwritten digits, 8 x 8 pixels, 17 levels, ten classes.

Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository, 1998 (CC BY 4.0, see NOTICE), in the order in which scikit-learn ships it. The
published file has no split of its own, so 297 test examples are held out by a fixed seed; a
split at random, not by position, because neighbours in the file come from one writer.
"""

from __future__ import annotations

import importlib.resources

import numpy as np

from likely.data.spec import Dataset, DataSpec, digest_of, train_and_test

TEST_EXAMPLES = 297


def digits() -> tuple[Dataset, Dataset]:
    """Training (1,250, with 250 more as `.validation`) and test (297) digits, (1, 8, 8)."""
    file = importlib.resources.files("likely.data").joinpath("digits.npz")
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        values = archive["images"][:, None]  # uint8 [1797, 1, 8, 8]
        labels = archive["labels"].astype(np.int64)
    names, digest = tuple("0123456789"), digest_of(values)
    spec = DataSpec("digits", (1, 8, 8), 17, n=len(values), digest=digest, classes=names)
    return train_and_test(Dataset(spec, values, labels), TEST_EXAMPLES)
