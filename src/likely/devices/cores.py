"""How many cores a computation should use."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

CPUS = Path("/sys/devices/system/cpu")
GROUPS = Path("/sys/fs/cgroup")


def asked() -> int | None:
    """What OMP_NUM_THREADS says, or None."""
    setting = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(setting) if setting.isdigit() and int(setting) > 0 else None


def usable() -> int:
    """Cores that this process may use: hyperthreads counted once, those of its affinity, and no
    more than the quota of its container."""
    count = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        allowed = os.sched_getaffinity(0)
        # Threads of one core name the same siblings; where nothing is known each is a core.
        count = len({_read(CPUS / f"cpu{n}/topology/thread_siblings_list") or n for n in allowed})
    quota = _quota()
    return count if quota is None else max(1, min(count, int(quota)))


def idle() -> int:
    """Usable cores that other processes leave free, measured since this module was imported (for
    a quarter of a second at least); at least 1.

    A computation that waits for all its threads at every step is as slow as the one that has to
    wait for a core, and the others spin meanwhile.
    """
    if _START is None:  # not known on this system
        return usable()
    time.sleep(max(0.0, _START[0] + 0.25 - time.monotonic()))
    now = _clock()
    assert now is not None
    elapsed, unused, ours = (b - a for a, b in zip(_START, now, strict=True))
    return max(1, min(usable(), round((unused + ours) / elapsed)))


def _clock() -> tuple[float, float, float] | None:
    """Seconds: of the clock, of all cores without work, of this process's work."""
    words = (_read(Path("/proc/stat")) or "").partition("\n")[0].split()
    if words[:1] != ["cpu"]:
        return None
    unused = (int(words[4]) + int(words[5])) / os.sysconf("SC_CLK_TCK")
    return time.monotonic(), unused, time.process_time()


def _quota() -> float | None:
    """Cores that the control group grants (version 2, then 1), or None."""
    group = (_read(Path("/proc/self/cgroup")) or "").rpartition("::")[2].splitlines()[:1]
    for folder in (GROUPS / group[0].lstrip("/") if group else GROUPS, GROUPS):
        words = (_read(folder / "cpu.max") or "").split()
        if len(words) == 2 and words[0] != "max":
            return float(words[0]) / float(words[1])
    quota = _read(GROUPS / "cpu/cpu.cfs_quota_us")
    period = _read(GROUPS / "cpu/cpu.cfs_period_us")
    if quota and period and float(quota) > 0:
        return float(quota) / float(period)
    return None


def _read(path: Path) -> str | None:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8").strip()
    return None


_START = _clock()
