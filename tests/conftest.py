"""Options of every test, and what several rooms share."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
import torch

from likely import data
from likely.data.spec import Dataset
from likely.evaluate.classifier import ClassifierSettings, NetworkFeatures, default_extractor
from likely.jobs import evaluate

# Files that take longest come first, so that no worker is left with one of them at the end; those
# that compile kernels follow the longest of all.
FIRST = (
    "tests/test_conformance.py", "tests/sampling/", "tests/ask/test_compress.py", "tests/mdp/",
    "tests/test_cli.py", "tests/jobs/", "tests/test_verify.py", "tests/test_devices.py",
    "tests/training/test_fit.py",
)  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="where tests marked gpu run, as cuda")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked data are skipped where there is none: nothing is downloaded for them."""
    if item.get_closest_marker("data") and "LIKELY_DATA" not in os.environ:
        pytest.skip("LIKELY_DATA is not set")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first."""

    def turn(item: pytest.Item) -> int:
        return next((k for k, start in enumerate(FIRST) if item.nodeid.startswith(start)), 99)

    items.sort(key=turn)


def pytest_collection_finish() -> None:
    """What was imported stays: the collector need not look at it again, nor as often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


@pytest.fixture(scope="session", autouse=True)
def a_short_look_at_the_clock() -> None:
    """Speeds are printed, and not read here: two calls of a sampler tell one."""
    evaluate.SPEED_SECONDS = 0.0


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """The device of tests marked gpu; they are skipped without one."""
    name = str(request.config.getoption("--device"))
    if name == "cpu":
        pytest.skip("give --device cuda to run on an accelerator")
    return torch.device(name)


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
