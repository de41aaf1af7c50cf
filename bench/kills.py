"""Kill a short run at random moments, resume it until its end, and compare with a run left alone.

    python bench/kills.py                 # 20 runs, a kill each: one or two minutes
    python bench/kills.py --kills 2 --out result.json

A trial starts the run in a process of its own, sends it SIGKILL, SIGTERM or SIGINT after a random
time (SIGKILL twice as often; half of the SIGKILLs are aimed at a checkpoint write), and starts it
again until it ends. Its state is then compared byte for byte with that of the run that was left
alone: weights, averaged weights, optimiser states, generator position, metrics.jsonl.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from common import write_result
from likely import runs
from likely.data.made import digits
from likely.runs import checkpoint
from likely.settings import FitSettings, to_json
from likely.training.loop import fit

MODEL = {"channels": 6, "layers": 3, "first_kernel": 3, "head_channels": 8, "dropout": 0.1}
SETTINGS = FitSettings(
    steps=60, batch_size=16, log_every=2, validate_every=15, validation_examples=64,
    warmup=5, ema=0.99, checkpoint_seconds=0.0,
)  # fmt: skip
FORK = multiprocessing.get_context("fork")
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def train(out: Path) -> None:
    """The run that is killed: a small GatedPixelCNN on digits, a checkpoint at every step."""
    torch.set_num_threads(1)
    data, _ = digits()
    model = runs.build("gated-pixelcnn", data.spec, MODEL, 0)
    fit(model, data, settings=SETTINGS, out=out)


def end_of(out: Path) -> dict[str, bytes]:
    """What must be the same, as bytes: every tensor of the state, and the files for use."""
    tensors, about = checkpoint.read_tensors(out / "state.safetensors")
    end = {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}
    end["step"], end["best"] = about["step"].encode(), about["best"].encode()
    for name in ("metrics.jsonl", "weights.safetensors", "best.safetensors"):
        end[name] = (out / name).read_bytes()
    return end


def start(out: Path) -> multiprocessing.Process:
    """The run in a process of its own, forked so that it need not import torch again."""
    # The type of a forked process differs by platform only in name.
    process: multiprocessing.Process = FORK.Process(target=train, args=(out,))  # type: ignore[assignment]
    process.start()
    return process


def wait_until(met: Callable[[], bool], process: multiprocessing.Process) -> None:
    """Poll until something holds, or the process has ended."""
    while process.is_alive() and not met():
        time.sleep(0.0002)


def records(out: Path) -> int:
    """How many records the run has written."""
    path = out / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def trial(out: Path, chance: random.Random, seconds: float) -> dict[str, object]:
    """Kill one run once, at a random moment of its life, and let it end."""
    number = chance.choice(SIGNALS)
    aimed = number == signal.SIGKILL and chance.random() < 0.5
    # A random place in the run, then a random part of the time that a record takes: the clock
    # alone would miss the run where the machine is busy.
    place = chance.randrange(SETTINGS.steps // SETTINGS.log_every)
    process = start(out)
    wait_until(lambda: records(out) >= place, process)
    time.sleep(chance.random() * seconds * SETTINGS.log_every / SETTINGS.steps)
    if aimed:
        wait_until(lambda: any(out.glob(".state.safetensors.*.tmp")), process)
    alive = process.is_alive()
    if alive:
        assert process.pid is not None
        os.kill(process.pid, number)
    process.join()
    torn = len(list(out.glob(".state.safetensors.*.tmp")))
    state = out / "state.safetensors"
    step = checkpoint.read_tensors(state)[1]["step"] if state.exists() else "0"
    again = start(out)
    again.join()
    if again.exitcode:
        raise SystemExit(f"the resumed run did not end: exit code {again.exitcode}")
    return {
        "signal": signal.Signals(number).name, "after_records": place,
        "was_running": alive, "during_a_write": bool(torn), "kept_step": int(step),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="result file instead of bench/results")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    trials: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        alone = Path(folder) / "alone"
        process = start(alone)
        began = time.monotonic()
        process.join()
        seconds = time.monotonic() - began
        whole = end_of(alone)
        for index in range(options.kills):
            out = Path(folder) / str(index)
            record = trial(out, chance, seconds)
            record["identical"] = end_of(out) == whole
            trials.append(record)
            print(record, flush=True)
            shutil.rmtree(out)
    identical = sum(bool(record["identical"]) for record in trials)
    figures = {"resume/kills/identical": float(identical), "resume/kills/n": float(len(trials))}
    about = {"trials": trials, "data": digits()[0].spec.fingerprint, "seconds_alone": seconds}
    if options.out is not None:
        checkpoint.write_json(options.out, {"figures": figures, "about": about})
    else:
        settings = {"model": MODEL, "fit": to_json(SETTINGS), "seed": options.seed}
        write_result("resume-kills", figures, settings, about)
    print(f"{identical} of {len(trials)} final states identical")
    if identical < len(trials):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
