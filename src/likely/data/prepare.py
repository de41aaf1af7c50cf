"""Preprocessing of published values: requantise, binarise.

Each step changes the meaning of a likelihood, so it is recorded in the specification and thereby in
the fingerprint.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from likely.data.spec import Dataset, digest_of
from likely.errors import InvalidSetting, nearest

Binarize = Literal["static", "dynamic", "threshold"]
_BINARIZE = ("static", "dynamic", "threshold")


def check_settings(binarize: str | None, levels: int | None) -> None:
    """Refuse what no data set can do, before anything is read."""
    if binarize is not None and not isinstance(binarize, str):
        raise InvalidSetting(
            f"binarize: expected one of {', '.join(_BINARIZE)}, or None, given {binarize!r}"
        )
    if binarize is not None and binarize not in _BINARIZE:
        raise InvalidSetting(f'binarize="{binarize}" is unknown: {nearest(binarize, _BINARIZE)}')
    if levels is not None and not 2 <= levels <= 65536:
        raise InvalidSetting(f"levels must be in [2, 65536], given {levels}")
    if binarize is not None and levels is not None and levels != 2:
        raise InvalidSetting(
            f'binarize="{binarize}" gives 2 levels, so levels={levels} contradicts it; give one'
        )


def requantised(data: Dataset, levels: int) -> Dataset:
    """The same examples with fewer levels: floor(x * levels / old levels), bins of equal width.

    Raises:
        InvalidSetting: more levels than the data has.
    """
    old = data.spec.levels
    if levels == old:
        return data
    if levels > old:
        raise InvalidSetting(
            f"{data.spec.name} has {old} levels and cannot be given {levels}; choose at most {old}"
        )
    table = np.arange(old, dtype=np.int64) * levels // old
    kind = np.uint8 if levels <= 256 else np.uint16
    return _mapped(data, table.astype(kind), levels, f"levels={levels}")


def binarised(data: Dataset, binarize: Binarize, seed: int = 0) -> Dataset:
    """The same examples with two levels.

    Args:
        data: intensities in [0, levels).
        binarize: "threshold" gives 1 where x / (levels - 1) > 1/2; "dynamic" keeps the
            intensities and draws Bernoulli(x / (levels - 1)) pixels again at each epoch;
            "static" exists only where a fixed draw was published (mnist).
        seed: of the dynamic draws.
    """
    spec = data.spec
    if binarize == "static":
        raise InvalidSetting(
            f"{spec.name} has no published static binarisation (only mnist has); "
            'use "dynamic" or "threshold"'
        )
    if binarize == "threshold":
        table = (2 * np.arange(spec.levels, dtype=np.int64) > spec.levels - 1).astype(np.uint8)
        return _mapped(data, table, 2, "binarize=threshold")
    step = f"binarize=dynamic(levels={spec.levels}, seed={seed})"
    return dataclasses.replace(
        data,
        spec=dataclasses.replace(spec, levels=2, preprocessing=(*spec.preprocessing, step)),
        validation=data.validation and binarised(data.validation, binarize, seed),
        intensity_levels=spec.levels,
        noise_seed=seed,
        source=None,
    )


def prepared(
    data: Dataset, binarize: Binarize | None, levels: int | None, seed: int = 0
) -> Dataset:
    """Apply the settings of `load`; the validation part follows along."""
    if binarize is not None:
        return binarised(data, binarize, seed)
    return data if levels is None else requantised(data, levels)


def _mapped(data: Dataset, table: np.typing.NDArray[np.generic], levels: int, step: str) -> Dataset:
    """Every value through a look-up table (indexed by the old level)."""
    values = table[data.values]
    spec = dataclasses.replace(
        data.spec,
        levels=levels,
        preprocessing=(*data.spec.preprocessing, step),
        digest=digest_of(values),
    )
    validation = data.validation and _mapped(data.validation, table, levels, step)
    return dataclasses.replace(data, spec=spec, values=values, validation=validation, source=None)
