"""Small data sets for the evaluation tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from likely import data
from likely.data.spec import Dataset
from likely.evaluate.classifier import ClassifierSettings, NetworkFeatures, default_extractor


@pytest.fixture(scope="session")
def digits() -> tuple[Dataset, Dataset]:
    train, test = data.load("digits")
    return train, test


@pytest.fixture(scope="session")
def extractor(
    digits: tuple[Dataset, Dataset], tmp_path_factory: pytest.TempPathFactory
) -> NetworkFeatures:
    """A quickly fitted extractor of the digits."""
    folder: Path = tmp_path_factory.mktemp("extractors")
    return default_extractor(digits[0], ClassifierSettings(steps=150), cache=folder)
