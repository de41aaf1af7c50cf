"""`auto` against every other method of the house, and total rewards, on problems of many shapes.

Called by `bench/mdp.py --only auto` and `--only total-shapes`; one thread, processor time.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from typing import Any

from likely.mdp import METHODS, solve, total_reward
from mdp_shapes import SHAPES

TARGET = 1e-6
FLOOR = 2e-3  # CPU-seconds added to both times: calls from Python and the timer's noise

# Discounts and the share of the shapes at each size, so that a run takes minutes.
LARGE = ("function", "one-function", "permutation", "chain", "inventory", "queues", "replacement",
         "layers", "slippery-grid", "garnet", "random-graph", "shortest-paths")  # fmt: skip
ENDS = ("absorbing-chain", "layers", "shortest-paths", "road-map", "shuffled-roads",
        "slippery-grid", "absorbing-graph")  # fmt: skip


def cases(quick: bool) -> list[tuple[str, int, float]]:
    """Shape, states, discount."""
    chosen = [(name, 1_000, d) for name in SHAPES for d in (0.9, 0.99, 0.999, 0.9999)]
    if not quick:
        chosen += [(name, 10_000, d) for name in SHAPES for d in (0.99, 0.9999)]
        chosen += [(name, 100_000, 0.9999) for name in LARGE]
    return chosen


def timed(problem: Any, method: str, most: float, **options: Any) -> tuple[float, float, Any]:
    """Seconds on the clock, CPU-seconds, and the solution, given up after `most` CPU-seconds."""
    clock, work = time.perf_counter(), time.process_time()
    solution = solve(
        problem, TARGET, method, threads=1, max_seconds=4.0 * most + 1.0,
        callback=lambda _: time.process_time() - work > most, **options,
    )  # fmt: skip
    return time.perf_counter() - clock, time.process_time() - work, solution


def race(repeats: int, quick: bool) -> dict[str, Any]:
    """Every case: times of auto and of each method that took at most twice as long."""
    # The linear program is never near the best at these sizes, and cannot be stopped.
    methods = [m for m in METHODS if m not in ("auto", "linear-programming")]
    for name in ("slippery-grid", "garnet", "function", "queues", "layers", "chain"):
        for method in ("auto", *methods):
            for discount in (0.9, 0.9999):  # compiled from here on
                timed(SHAPES[name](400, discount), method, 1.0)
    record: dict[str, Any] = {}
    for name, states, discount in cases(quick):
        mdp = SHAPES[name](states, discount)

        def measured(method: str, most: float, problem: Any = mdp) -> dict[str, Any] | None:
            runs = [timed(problem, method, most)]
            if not runs[0][2].converged:
                return None
            again = repeats if runs[0][1] < 0.3 else 0
            runs = [timed(problem, method, 60.0) for _ in range(again)] or runs
            return {
                "seconds": statistics.median(r[0] for r in runs),
                "cpu_seconds": statistics.median(r[1] for r in runs),
                "method": runs[0][2].about["method"],
            }

        auto = measured("auto", 60.0) or {"cpu_seconds": 60.0, "method": "not solved"}
        auto["met"] = "seconds" in auto
        most = max(1e-3, 2.0 * auto["cpu_seconds"])
        others = {m: figures for m in methods if (figures := measured(m, most)) is not None}
        best = min(others, key=lambda m: others[m]["cpu_seconds"]) if others else "auto"
        least = min(auto["cpu_seconds"], others.get(best, auto)["cpu_seconds"])
        record[f"{name}-{states}-{discount}"] = {
            "auto": auto, "others": others, "best": best,
            "auto_over_best": (auto["cpu_seconds"] + FLOOR) / (least + FLOOR),
            "without_floor": auto["cpu_seconds"] / max(least, 1e-9),
        }  # fmt: skip
        ratio = record[f"{name}-{states}-{discount}"]["auto_over_best"]
        print(
            f"  {name} {states} {discount}: auto {auto['cpu_seconds']:.4f} CPU-s "
            f"({auto['method']}), best {least:.4f} ({best}), ratio {ratio:.2f}",
            file=sys.stderr, flush=True,
        )  # fmt: skip
    return record


def totals(repeats: int, quick: bool) -> dict[str, Any]:
    """The undiscounted sum of rewards until the end, for the shapes that end."""
    record: dict[str, Any] = {}
    for name in ENDS:
        total_reward(SHAPES[name](400, 1.0), TARGET, max_seconds=60.0)
        for states in (1_000,) if quick else (1_000, 10_000, 100_000):
            mdp = SHAPES[name](states, 1.0)
            seconds, cpu = [], []
            for _ in range(repeats):
                clock, work = time.perf_counter(), time.process_time()
                solution = total_reward(mdp, TARGET, max_seconds=60.0)
                seconds.append(time.perf_counter() - clock)
                cpu.append(time.process_time() - work)
                if seconds[-1] > 5.0:
                    break
            record[f"{name}-{states}"] = figures = {
                "seconds": statistics.median(seconds), "cpu_seconds": statistics.median(cpu),
                "error": solution.error if math.isfinite(solution.error) else None,
                "met": solution.converged,
                "method": solution.about["method"],
            }  # fmt: skip
            print(f"  total {name} {states}: {figures}", file=sys.stderr, flush=True)
    return record
