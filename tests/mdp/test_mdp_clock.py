"""The clock of the solvers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from numba.core import event

from likely.mdp.kernels import clock


def test_loading_kernels_takes_no_time_of_a_solve(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock inside a lock is counted once."""
    seconds = iter([0.0, 1.0, 8.0, 20.0])  # begun, locked, unlocked, asked again
    monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter=lambda: next(seconds)))
    began = clock.now()
    with event.trigger_event("numba:compiler_lock"), event.trigger_event("numba:compiler_lock"):
        pass
    assert clock.now() - began == pytest.approx(20.0 - 7.0)
