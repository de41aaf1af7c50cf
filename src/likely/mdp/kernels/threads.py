"""Run a kernel over ranges of states on a few threads.

Kernels release the interpreter lock, so ordinary threads run them side by side. Unlike an OpenMP
runtime, such a pool survives `fork`: a child simply makes its own.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from likely.errors import whole

# Below this many transitions a sweep takes less time than waking a second thread.
WORTH_A_THREAD = 200_000

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


def available() -> int:
    """Threads to use by default: OMP_NUM_THREADS where set, else the usable cores."""
    setting = os.environ.get("OMP_NUM_THREADS", "")
    if setting.isdigit() and int(setting) > 0:
        return int(setting)
    return len(os.sched_getaffinity(0))


def choose(threads: int | None, transitions: int) -> int:
    """The number of threads for a problem of this size."""
    if threads is not None:
        return whole("threads", threads, 1)
    return available() if transitions > WORTH_A_THREAD else 1


def ranges(count: int, parts: int) -> list[tuple[int, int]]:
    """Split range(count) into `parts` consecutive pieces of nearly equal length."""
    edges = [count * i // parts for i in range(parts + 1)]
    return list(itertools.pairwise(edges))


def run(task: Callable[[int, int], Any], pieces: list[tuple[int, int]]) -> list[Any]:
    """`task(start, stop)` for each piece, one thread a piece; results in order."""
    if len(pieces) == 1:
        return [task(*pieces[0])]
    key = (os.getpid(), len(pieces) - 1)  # threads do not survive a fork
    pool = _pools.get(key)
    if pool is None:
        pool = ThreadPoolExecutor(len(pieces) - 1, thread_name_prefix="likely-mdp")
        _pools[key] = pool
    waiting = [pool.submit(task, *piece) for piece in pieces[1:]]
    first = task(*pieces[0])
    return [first, *(future.result() for future in waiting)]
