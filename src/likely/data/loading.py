"""`load`: one call for every kind of data."""

from __future__ import annotations

from likely.data.prepare import Binarize, check_settings, prepared
from likely.data.registry import named
from likely.data.spec import Dataset


def load(
    name: str,
    *,
    binarize: Binarize | None = None,
    levels: int | None = None,
    seed: int = 0,
) -> tuple[Dataset, Dataset]:
    """Training and test set of a named data set; `train.validation` is the held-out part."""
    check_settings(binarize, levels)
    static = binarize == "static" and name == "mnist"
    train, test = named(name, static=static)
    if static:
        return train, test
    return prepared(train, binarize, levels, seed), prepared(test, binarize, levels, seed)
