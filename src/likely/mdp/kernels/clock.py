"""The clock of the solvers: it stands still while numba compiles kernels or loads them from disk.

What a solve takes is a property of the problem; what its kernels take to load is one of the
process, and far longer for a small problem.
"""
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import time

from numba.core import event


class _Loading(event.Listener):
    """Seconds under numba's lock for compiling and loading, so far."""

    def __init__(self) -> None:
        self.depth, self.began, self.seconds = 0, 0.0, 0.0

    def on_start(self, event: object) -> None:
        if self.depth == 0:
            self.began = time.perf_counter()
        self.depth += 1

    def on_end(self, event: object) -> None:
        self.depth -= 1
        if self.depth == 0:
            self.seconds += time.perf_counter() - self.began


_loading = _Loading()
event.register("numba:compiler_lock", _loading)


def now() -> float:
    """Seconds; only differences mean something."""
    return time.perf_counter() - _loading.seconds
