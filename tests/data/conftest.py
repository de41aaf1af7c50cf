"""Fixtures of the data tests: a cache of their own, and the real data where there is any."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the user's cache, and none goes to the network."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("LIKELY_CACHE", str(folder))
    monkeypatch.setenv("LIKELY_OFFLINE", "1")
    monkeypatch.setenv("no_proxy", "*")  # servers of the tests are on the loopback address
    return folder


@pytest.fixture
def real_data() -> Path:
    """The folder that LIKELY_DATA names; the test is skipped where it is unset."""
    given = os.environ.get("LIKELY_DATA")
    if not given:
        pytest.skip("LIKELY_DATA is not set")
    return Path(given)
