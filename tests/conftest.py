"""Options of every test."""

from __future__ import annotations

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="where tests marked gpu run, as cuda")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """The device of tests marked gpu; they are skipped without one."""
    name = str(request.config.getoption("--device"))
    if name == "cpu":
        pytest.skip("give --device cuda to run on an accelerator")
    return torch.device(name)
