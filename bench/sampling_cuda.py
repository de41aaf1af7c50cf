"""The incremental sampler on a CUDA GPU, rows as CUDA graphs, beside a likelihood pass.

    python bench/sampling_cuda.py gated-pixelcnn --data mnist

For each batch size: seconds to draw it by the incremental sampler and by Jacobi iteration, seconds
of one likelihood pass in float32 and under bfloat16 autocast, and their ratios; the naive sampler
is the passes that it would make. Medians of repetitions in turn, after one that does not count.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from common import write_result
from likely import runs
from likely.devices import place
from likely.sampling.incremental import Incremental
from sampling import SPECS


def in_turn(ways: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each, in turn, until the GPU is done."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            torch.cuda.synchronize()
            start = time.perf_counter()
            way()
            torch.cuda.synchronize()
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def measured(
    model: Incremental, batch: int, repeats: int, key: str, jacobi: bool
) -> dict[str, float]:
    """Times of one batch size and their ratios."""
    x = torch.randint(model.spec.levels, (batch, *model.spec.shape), device="cuda")

    def exact() -> Any:
        with torch.no_grad():
            return model.log_prob(x)

    def low() -> Any:
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
            return model.log_prob(x)

    ways: dict[str, Callable[[], Any]] = {
        "incremental": lambda: model.sample(batch, seed=1, chunk=batch, method="incremental"),
        "pass-float32": exact,
        "pass-bfloat16": low,
    }
    if jacobi:
        ways["jacobi"] = lambda: model.sample(batch, seed=1, chunk=batch, method="jacobi")
    seconds = in_turn(ways, repeats)
    figures = {f"{key}/{name}-seconds": value for name, value in seconds.items()}
    best = min(seconds["pass-float32"], seconds["pass-bfloat16"])
    figures[f"{key}/incremental-per-pass"] = seconds["incremental"] / best
    dimensions = model.spec.dimensions
    figures[f"{key}/naive-over-incremental"] = dimensions * best / seconds["incremental"]
    if jacobi:
        same = torch.equal(ways["incremental"](), ways["jacobi"]())
        figures[f"{key}/jacobi-draws-the-same"] = float(same)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model")
    parser.add_argument("--data", choices=sorted(SPECS), default="mnist")
    parser.add_argument("--batches", type=lambda s: [int(b) for b in s.split(",")],
                        default=[16, 256])  # fmt: skip
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--jacobi", action="store_true", help="measure it, too")
    options = parser.parse_args()
    model = runs.build(options.model, SPECS[options.data], {}).eval()
    place(model, torch.device("cuda"))
    assert isinstance(model, Incremental)
    figures: dict[str, float] = {}
    for batch in options.batches:
        key = f"sampling-cuda/{options.data}/{options.model}/b{batch}"
        figures |= measured(model, batch, options.repeats, key, options.jacobi)
    for name, value in figures.items():
        print(f"{name:66} {value:.6g}")
    settings = {"model": str(model.settings), "repeats": options.repeats}
    print(write_result(f"sampling-cuda-{options.data}-{options.model}", figures, settings, {}))


if __name__ == "__main__":
    main()
