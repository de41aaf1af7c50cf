"""The clock of the solvers."""

from __future__ import annotations

import time

from numba.core import event

from likely.mdp.kernels import clock


def test_loading_kernels_takes_no_time_of_a_solve() -> None:
    """Locks inside a lock are counted once."""
    wall, began = time.perf_counter(), clock.now()
    with event.trigger_event("numba:compiler_lock"):
        with event.trigger_event("numba:compiler_lock"):
            time.sleep(0.02)
        time.sleep(0.02)
    time.sleep(0.01)
    passed, wall = clock.now() - began, time.perf_counter() - wall
    assert 0.01 <= passed <= wall - 0.039
