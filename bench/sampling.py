"""Exact sampling against one likelihood pass over the same batch.

For a registered autoregressive model at its preset: seconds to draw a batch naively, naively with
the rows below left out, incrementally and by Jacobi iteration; seconds of one likelihood pass by
the fastest means; the ratios; the memory of the caches.

Times are medians of a few repetitions in turn, so that a slow minute of the machine meets all of
them; one uncounted round goes before. The library's naive loop (rows below left out) is measured in
full, once, at the batch sizes of `--naive`; at others it would take hours: passes are timed at a
few rows, and the loop over all dimensions is the sum (`about` and `settings` say which is which).
Pieces are merged into one result file, so a long benchmark may be run in parts:

    python bench/sampling.py gated-pixelcnn --data mnist
    python bench/sampling.py gated-pixelcnn --data cifar10 --batches 256 --repeats 2
    python bench/sampling.py gated-pixelcnn --data mnist --many 10000  # memory and time
    python bench/sampling.py vae --data mnist-256 --batches 64         # a VAE: images per second
    python bench/sampling.py gated-pixelcnn --data mnist --first       # the first call: compiling
    python bench/sampling.py pixelcnn --data digits --quick            # writes nothing
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common import RESULTS, write_result
from likely import runs
from likely.data.spec import DataSpec
from likely.density import LatentVariable
from likely.devices import environment
from likely.noise import Noise
from likely.sampling.ancestral import compiles
from likely.sampling.drawing import Draw
from likely.sampling.incremental import Incremental
from likely.sampling.instructions import Accumulate, Grow, Linear, Moment, Program

PART = 64  # images of a pass over a part of a batch
SPECS = {
    "digits": DataSpec("digits", (1, 8, 8), 17, n=1),
    "mnist": DataSpec("mnist", (1, 28, 28), 2, n=1),
    "mnist-256": DataSpec("mnist-256", (1, 28, 28), 256, n=1),
    "cifar10": DataSpec("cifar10", (3, 32, 32), 256, n=1),
    "colour-64": DataSpec("colour-64", (3, 64, 64), 256, n=1),
}


def main() -> None:
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    model, weights = built(options)
    # Other sizes than the preset's, perhaps: figures of their own.
    prefix = f"sampling/{options.data}/{options.model}" + "-trained" * bool(options.run)
    figures: dict[str, float] = {}
    if options.first:
        figures.update(first_call(options, prefix))
    elif options.many:
        figures.update(many(options, prefix))
    elif isinstance(model, LatentVariable):
        for batch in options.batches:
            figures.update(decoded(model, batch, options, f"{prefix}/b{batch}"))
    else:
        assert isinstance(model, Incremental)
        figures.update(work(model, prefix))
        for batch in options.batches:
            figures.update(measured(model, batch, options, f"{prefix}/b{batch}"))
    for name, value in figures.items():
        print(f"{name:66} {value:.6g}")
    if options.quick:
        print("not written: --quick")
        return
    settings = {
        "model": str(model.settings), "threads": torch.get_num_threads(),
        "repeats": options.repeats, "weights": weights,
        "naive measured in full at batches": options.naive,
    }  # fmt: skip
    print(merged(prefix, figures, settings))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model")
    parser.add_argument("--data", choices=sorted(SPECS), default="mnist")
    parser.add_argument("--batches", type=lambda s: [int(b) for b in s.split(",")],
                        default=[1, 16, 64, 256])  # fmt: skip
    parser.add_argument("--naive", type=lambda s: [int(b) for b in s.split(",") if b], default=[1],
                        help="batches whose naive loop is timed in full [1]")  # fmt: skip
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="of torch [its own choice]")
    parser.add_argument("--run", help="a run directory with trained weights [fresh weights]")
    parser.add_argument("--compile", action="store_true", help="torch.compile the pass as well")
    parser.add_argument("--lean", action="store_true", help="of the passes the best guess only")
    parser.add_argument("--many", type=int, default=0, help="only draw that many, in chunks")
    parser.add_argument("--first", action="store_true", help="only the first call, caches empty")
    parser.add_argument("--quick", action="store_true", help="one repetition; writes nothing")
    options = parser.parse_args()
    if options.quick:
        options.repeats = 1
    return options


def built(options: argparse.Namespace) -> tuple[Incremental | LatentVariable, str]:
    """The model in evaluation mode, and what its weights are."""
    if options.run:
        model = runs.load(options.run).model
        steps = json.loads((Path(options.run) / "fit.json").read_text())
        about = f"trained: {json.dumps(steps)[:400]}"
    else:
        torch.manual_seed(0)
        model = runs.build(options.model, SPECS[options.data], {})
        about = "fresh, seed 0"
    assert isinstance(model, Incremental | LatentVariable)
    assert model.spec.shape == SPECS[options.data].shape
    return model.eval(), about


def work(model: Incremental, prefix: str) -> dict[str, float]:
    """What the program has to do: multiply-adds and weights read."""
    program = model.program()
    total, at_pixel, weights = arithmetic(program)
    return {
        f"{prefix}/multiply-adds-per-image": total,
        f"{prefix}/multiply-adds-per-image-at-pixels": at_pixel,
        f"{prefix}/weights-per-pixel-bytes": weights * 4,
    }


def arithmetic(program: Program) -> tuple[float, float, float]:
    """Multiply-adds of an image; those of pixel steps; weights that a pixel step reads."""
    _, height, width = program.shape
    total = at_pixel = weights = 0.0
    for op in program.instructions:
        if isinstance(op, Linear):
            size = float(sum(tap.weight.numel() for tap in op.taps))
            cells = (-(-height // op.out.stride)) * (-(-width // op.out.stride)) / op.period**2
            if program.memories[op.out.value].vector:  # recomputed at each dimension
                cells *= program.groups
        elif isinstance(op, Grow | Accumulate) and op.weight is not None:
            size, cells = float(op.weight.numel()), 1.0
        else:
            continue
        total += size * cells
        if op.moment in (Moment.PIXEL, Moment.LATE):
            at_pixel += size * cells
            weights += size * cells / (height * width)
    return total, at_pixel, weights


def measured(
    model: Incremental, batch: int, options: argparse.Namespace, key: str
) -> dict[str, float]:
    """Times of one batch size and their ratios."""
    x = torch.randint(model.spec.levels, (batch, *model.spec.shape))
    passes = likelihood_passes(model, x, options.compile)
    if options.lean:
        kept = [name for name in passes if name.startswith("pass-float32-channels")][-1]
        passes = {kept: passes[kept]}
    ways: dict[str, Callable[[], Any]] = {
        "incremental": lambda: model.sample(batch, seed=1, method="incremental"),
        "jacobi": lambda: model.sample(batch, seed=1, method="jacobi"),
        **passes,
    }
    if batch == 1:
        ways["auto"] = lambda: model.sample(1, seed=1)
    seconds = in_turn(ways, options.repeats)
    same = torch.equal(ways["incremental"](), ways["jacobi"]())
    single = {name: s for name, s in seconds.items() if name.startswith("pass-float32")}
    best = min(single, key=lambda name: single[name])
    fastest = min(s for name, s in seconds.items() if name.startswith("pass-"))
    full, cropped = naive_seconds(model, x, seconds[best])
    figures = {f"{key}/{name}-seconds": value for name, value in seconds.items()}
    incremental = seconds["incremental"]
    figures |= {
        f"{key}/pass-seconds": seconds[best],
        f"{key}/fastest-pass-seconds": fastest,
        f"{key}/naive-seconds": full,
        f"{key}/naive-cropped-seconds": cropped,
        f"{key}/incremental-per-pass": incremental / seconds[best],
        f"{key}/incremental-per-fastest-pass": incremental / fastest,
        f"{key}/naive-over-incremental": full / incremental,
        f"{key}/naive-cropped-over-incremental": cropped / incremental,
        f"{key}/jacobi-over-incremental": seconds["jacobi"] / incremental,
        f"{key}/jacobi-draws-the-same": float(same),
        f"{key}/cache-bytes": cache_bytes(model, batch),
    }
    if batch == 1:
        figures[f"{key}/auto-per-pass"] = seconds["auto"] / seconds[best]
    if batch in options.naive:
        start = time.perf_counter()
        drawn = model.sample(batch, seed=1, method="naive")
        spent = time.perf_counter() - start
        figures[f"{key}/naive-measured-seconds"] = spent
        figures[f"{key}/naive-measured-over-incremental"] = spent / incremental
        differ = (drawn != ways["incremental"]()).float().mean()
        figures[f"{key}/naive-measured-draws-differing"] = float(differ)
    return figures | phases(model, batch, key)


def decoded(
    model: LatentVariable, batch: int, options: argparse.Namespace, key: str
) -> dict[str, float]:
    """Seconds of the answers of a VAE, and of its decoder alone over as many codes."""
    x = torch.randint(model.spec.levels, (batch, *model.spec.shape))
    context = torch.zeros(batch, dtype=torch.int64) if model.classes else None
    z = Noise("z").normal(batch, model.latent)

    def decoder() -> None:
        with torch.no_grad():
            for some in z.split(16):
                model.decoder_output(some, None if context is None else context[: len(some)])

    ways: dict[str, Callable[[], Any]] = {
        "sample": lambda: model.sample(batch, seed=1, context=context),
        "reconstruct": lambda: model.reconstruct(x, context),
        "decode-mean": lambda: model.decode_mean(z, context),
        "decoder": decoder,
    }
    seconds = in_turn(ways, options.repeats)
    figures = {f"{key}/{name}-seconds": value for name, value in seconds.items()}
    figures[f"{key}/samples-per-second"] = batch / seconds["sample"]
    figures[f"{key}/reconstructions-per-second"] = batch / seconds["reconstruct"]
    figures[f"{key}/sample-per-decoder"] = seconds["sample"] / seconds["decoder"]
    return figures


def phases(model: Incremental, batch: int, key: str) -> dict[str, float]:
    """Where the time of one compiled block goes, one thread; and the floor of its arithmetic."""
    from likely.sampling.ancestral import BLOCK
    from likely.sampling.compiled import CompiledExecutor

    start = time.perf_counter()
    program = model.program()
    if not compiles(model, program):
        return {}
    size = min(batch, BLOCK)
    context = torch.zeros(size, dtype=torch.int64) if model.classes else None
    executor = CompiledExecutor(program, size, context)
    spent = {"build": time.perf_counter() - start, "rows": 0.0, "pixels": 0.0}
    x = torch.zeros(size, *model.spec.shape, dtype=torch.int64)
    draw = Draw(model.head, Noise(0).uniform(*x.shape))
    for row in range(x.shape[2]):
        start = time.perf_counter()
        executor.begin_row(row)
        middle = time.perf_counter()
        executor.draw_row(row, 0, x, draw)
        end = time.perf_counter()
        executor.end_row(row)
        spent["rows"] += middle - start + time.perf_counter() - end
        spent["pixels"] += end - middle
    total, _, _ = arithmetic(program)
    figures = {f"{key}/block/{name}-seconds": value for name, value in spent.items()}
    figures[f"{key}/block/images"] = float(size)
    figures[f"{key}/block/floor-seconds"] = 2.0 * total * size / peak()
    return figures


def peak() -> float:
    """Operations per second of a large matrix product in float32, one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    times = []
    for _ in range(9):
        start = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - start)
    torch.set_num_threads(threads)
    return 2.0 * 1024**3 / statistics.median(times)


def likelihood_passes(
    model: Incremental, x: Tensor, compiled: bool
) -> dict[str, Callable[[], Any]]:
    """One likelihood pass over the batch, several ways."""
    context = torch.zeros(len(x), dtype=torch.int64) if model.classes else None
    usual = model
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(which: Incremental, size: int = len(x)) -> Callable[[], Any]:
        def once() -> Tensor:
            with torch.no_grad():
                parts = [which.log_prob(some, context[: len(some)] if context is not None else None)
                         for some in x.split(size)]  # fmt: skip
                return torch.cat(parts)

        return once

    def low() -> Tensor:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            return last.log_prob(x, context)

    ways: dict[str, Callable[[], Any]] = {
        "pass-float32": run(usual),
        "pass-float32-channels-last": run(last),
        "pass-bfloat16-channels-last": low,
    }
    if len(x) > PART:
        # A large batch does not fit the caches: in parts it is faster.
        ways["pass-float32-channels-last-in-parts"] = run(last, PART)
    if compiled:
        made = torch.compile(last.conditionals)

        def fast() -> Tensor:
            with torch.no_grad():
                scores = []
                for some in x.split(PART):
                    labels = None if context is None else context[: len(some)]
                    parameters = made(some, labels)
                    scores.append(last.head.log_prob(parameters, some).sum((1, 2, 3)))
                return torch.cat(scores)

        ways["pass-float32-compiled"] = fast
    return ways


def in_turn(ways: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each, all in turn, after one round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if turn or repeats == 1:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def naive_seconds(model: Incremental, x: Tensor, whole: float) -> tuple[float, float]:
    """Seconds of the naive loops, from passes at a few heights and one draw.

    Args:
        model: the model.
        x: a batch.
        whole: seconds of one pass in the fastest layout.

    Returns:
        Running the whole network for every dimension; the same with the rows below left out.
    """
    channels, height, width = model.spec.shape
    context = torch.zeros(len(x), dtype=torch.int64) if model.classes else None
    heights = sorted({1, height // 4, height // 2, height})
    seconds = []
    with torch.no_grad():
        for rows in heights:
            seen = x[:, :, :rows]
            model.conditionals(seen, context)
            times = []
            for _ in range(1 if whole > 2.0 else 3):
                start = time.perf_counter()
                model.conditionals(seen, context)
                times.append(time.perf_counter() - start)
            seconds.append(statistics.median(times))
        scale = whole / seconds[-1]  # as if in the fastest layout
        draw = Draw(model.head, Noise(0).uniform(*x.shape))
        parameters = model.conditionals(x[:, :, :1], context)[:, :, 0, :1]
        start = time.perf_counter()
        draw(parameters, x.clone(), 0, slice(0, 1), range(channels))
        drawing = (time.perf_counter() - start) * height * width
    area = sum(
        (seconds[i] + seconds[i + 1]) / 2 * (heights[i + 1] - heights[i])
        for i in range(len(heights) - 1)
    )
    cropped = (area + seconds[0]) * scale * width * channels + drawing
    return whole * model.spec.dimensions + drawing, cropped


def cache_bytes(model: Incremental, batch: int) -> float:
    """Memory of the incremental state of as many images as are drawn at once."""
    from likely.sampling.ancestral import BLOCK
    from likely.sampling.compiled import CompiledExecutor
    from likely.sampling.torch_executor import TorchExecutor

    program = model.program()
    context = torch.zeros(batch, dtype=torch.int64) if model.classes else None
    if not compiles(model, program):
        return float(TorchExecutor(program, batch, context).bytes())
    threads = torch.get_num_threads()
    count = max(-(-batch // BLOCK), min(threads, batch))
    size = -(-batch // count)
    part = None if context is None else context[:size]
    executor = CompiledExecutor(program, size, part, side_by_side=False)
    return float(executor.bytes() * min(threads, count))


def many(options: argparse.Namespace, prefix: str) -> dict[str, float]:
    """Peak memory and seconds of large draws, each in a process of its own."""
    figures = {}
    for n in (options.many // 10, options.many):
        seconds, peak = child(
            options,
            "start = time.perf_counter(); model.sample(n, seed=0); "
            "spent = time.perf_counter() - start",
            n,
        )
        figures[f"{prefix}/n{n}/seconds"] = seconds
        figures[f"{prefix}/n{n}/peak-bytes"] = peak
    return figures


def first_call(options: argparse.Namespace, prefix: str) -> dict[str, float]:
    """Seconds of the first small draw: compiling with an empty cache, then reading the cache."""
    code = (
        "start = time.perf_counter(); model.sample(n, seed=0); spent = time.perf_counter() - start"
    )
    with tempfile.TemporaryDirectory() as folder:
        cold, _ = child(options, code, 1, NUMBA_CACHE_DIR=folder)
        warm, _ = child(options, code, 1, NUMBA_CACHE_DIR=folder)
    return {f"{prefix}/first-call-seconds": cold, f"{prefix}/first-call-cached-seconds": warm}


def child(
    options: argparse.Namespace, code: str, n: int, **environment: str
) -> tuple[float, float]:
    """(seconds, peak resident bytes) of a piece of code in a fresh process."""
    words = [sys.executable, "-c", CHILD.format(code=code), options.model, options.data, str(n)]
    words += [options.run or ""]
    done = subprocess.run(
        words, env={**os.environ, **environment}, capture_output=True, text=True, check=False,
        cwd=Path(__file__).parent,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr)
    print(done.stderr[-2000:])
    record = json.loads(done.stdout.splitlines()[-1])
    return record["seconds"], record["peak"] * 1024.0


CHILD = """
import argparse, json, resource, sys, time
import sampling
options = argparse.Namespace(model=sys.argv[1], data=sys.argv[2], run=sys.argv[4] or None)
model, _ = sampling.built(options)
n = int(sys.argv[3])
{code}
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps(dict(seconds=spent, peak=peak)))
"""


def merged(prefix: str, figures: dict[str, float], settings: dict[str, Any]) -> Path:
    """Add the figures to those of earlier pieces."""
    path = RESULTS / "sampling.json"
    old = json.loads(path.read_text()) if path.exists() else {}
    whole = {**old.get("figures", {}), **figures}
    # Pieces may come from several machines: each has its own.
    piece = {**settings, "environment": environment()}
    all_settings = {**old.get("settings", {}), prefix: piece}
    about = {
        "naive": "naive-measured: the library's naive loop (rows below left out) in full, once; "
        "extrapolated: dimensions times the median of one pass (naive), and the integral "
        "over rows of passes timed at four heights (naive-cropped), plus the draws",
        "pass": "the fastest float32 likelihood pass: eager, channels_last, or compiled where "
        "measured; fastest-pass: of any precision",
        "ratios": "of medians of repetitions in turn; incremental covers the whole call of sample, "
        "which compares the weights with those of the call before and uses its program again; "
        "block/build is what building it takes",
    }
    return write_result("sampling", dict(sorted(whole.items())), all_settings, about)


if __name__ == "__main__":
    main()
