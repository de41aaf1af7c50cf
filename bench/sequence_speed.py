"""What drawing and scoring sequences cost beside a pass: `results/sequence-speed.json`.

python -m bench.sequence_speed [gru tcn transformer]     about a minute of one core

A pass scores 64 sequences of 256 steps of `regimes` (a category and a number on a lattice), by the
preset of the model with first weights. Drawing as many is measured in passes, and so is what it
would cost without a state: a pass over all steps so far for each step. With 1,024 sequences of 64
steps what each step costs beside its arithmetic counts for less. Then one series of 10^4 and
one of 10^5 steps are scored: CPU microseconds a step, and the memory that it takes at most.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from bench.common import write_result

from likely import data, runs
from likely.density import SequenceDensity

SEQUENCES, STEPS = 64, 256
MANY, FEW = 1024, 64
LONG, LONGEST = 10_000, 100_000


def cpu(work: Callable[[], Any], repeats: int = 3) -> float:
    """The least CPU seconds of several tries."""
    seconds = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return min(seconds)


def memory(work: Callable[[], Any]) -> float:
    """What it takes at most beside what there was before, MB; of Linux."""
    work()  # what is kept for the next time
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _status("VmRSS")
    work()
    return max(0.0, _status("VmHWM") - before)


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


@torch.no_grad()
def measured(name: str) -> dict[str, float]:
    """The figures of a model."""
    train, _ = data.load("regimes")
    model = cast(SequenceDensity, runs.build(name, train.spec, {}, seed=0).eval())
    model.start_at(train)
    x = model.sample(SEQUENCES, steps=STEPS)
    whole = cpu(lambda: model.per_step(x))
    draw = cpu(lambda: model.sample(SEQUENCES, steps=STEPS), 1)
    lengths = range(STEPS // 8, STEPS + 1, STEPS // 8)
    prefixes = [cpu(lambda t=t: model.per_step(x[:, :t]), 1) for t in lengths]
    many = model.sample(MANY, steps=FEW)
    ratio = cpu(lambda: model.sample(MANY, steps=FEW, chunk=MANY), 1)
    ratio /= cpu(lambda: model.per_step(many))
    series = torch.cat([x.flatten(0, 1)] * (LONGEST // (SEQUENCES * STEPS) + 1))[None, :LONGEST]
    long = cpu(lambda: model.per_step(series[:, :LONG]), 1) / LONG
    longest = cpu(lambda: model.per_step(series), 1) / LONGEST
    return {
        "pass-seconds": whole,
        "draw-passes": draw / whole,
        "draw-many-passes": ratio,
        "stateless-draw-passes": sum(prefixes) * (STEPS / len(prefixes)) / whole,
        "score-1e4-microseconds-per-step": 1e6 * long,
        "score-1e5-microseconds-per-step": 1e6 * longest,
        "score-1e4-memory-mb": memory(lambda: model.per_step(series[:, :LONG])),
        "score-1e5-memory-mb": memory(lambda: model.per_step(series)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", default=["gru", "tcn", "transformer"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures = {
        f"sequences/speed/{name}/{what}": value
        for name in options.models
        for what, value in measured(name).items()
    }
    for name, value in figures.items():
        print(f"{name} {value:.4g}")
    settings = {"sequences": SEQUENCES, "steps": STEPS, "long": LONG, "longest": LONGEST,
                "many": MANY, "few": FEW}  # fmt: skip
    write_result("sequence-speed", figures, settings, {"data": "regimes"})


if __name__ == "__main__":
    main()
