"""`load`: one call for every kind of data."""

from __future__ import annotations

from likely.data.embedded import digits
from likely.data.prepare import Binarize, check_settings, prepared
from likely.data.spec import Dataset
from likely.errors import InvalidSetting, nearest


def load(
    name: str,
    *,
    binarize: Binarize | None = None,
    levels: int | None = None,
    seed: int = 0,
) -> tuple[Dataset, Dataset]:
    """Training and test set of a named data set; `train.validation` is the held-out part."""
    check_settings(binarize, levels)
    if name != "digits":
        raise InvalidSetting(f'no data set is called "{name}": {nearest(name, ["digits"])}')
    train, test = digits()
    return prepared(train, binarize, levels, seed), prepared(test, binarize, levels, seed)
