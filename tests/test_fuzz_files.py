"""Whatever happened to a file, its reader takes it or says in one line which file is wrong."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from fuzz_files import CASES, Case, attempt, good

EXAMPLES = {"run": 25, "resume": 25, "pomdp": 30, "world": 25}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_damaged_file_is_one_line_that_names_it(
    case: Case, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = good(case, tmp_path_factory.getbasetemp() / "fuzz")

    @seed(20260101)
    @settings(
        max_examples=EXAMPLES.get(case.name, 60), deadline=None, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.integers(0, 2**32))
    def damaged(number: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            assert attempt(case, home, Path(folder) / "damaged", number) in ("read", "refused")

    damaged()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_not_damaged_is_read(case: Case, tmp_path_factory: pytest.TempPathFactory) -> None:
    case.read(good(case, tmp_path_factory.getbasetemp() / "fuzz"))
