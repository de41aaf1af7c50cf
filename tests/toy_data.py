"""Tiny data sets made on the spot."""

from __future__ import annotations

import numpy as np

from likely.data.spec import Dataset, DataSpec, digest_of


def dataset(
    values: np.ndarray, levels: int, labels: np.ndarray | None = None, name: str = "toy"
) -> Dataset:
    """A data set of the given images."""
    spec = DataSpec(name, values.shape[1:], levels, n=len(values), digest=digest_of(values))
    return Dataset(spec, values, labels)
