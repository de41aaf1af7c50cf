"""Several trainings at once on one accelerator, each in a process of its own; resumable.

    python bench/side_by_side.py --out runs/card --seconds 540 made pixelcnn=20000 row-lstm
    python bench/side_by_side.py --out runs/card --seconds 540 cifar10:pixelcnn-pp

A job is a model of `bench/mnist.py` (or cifar10:MODEL of `bench/cifar10.py`), with its number of
steps where that is not the recipe's. Small networks do not fill a GPU: what one leaves free the
others use, above all where NVIDIA's MPS runs. (Leave MPS's priorities and its limits on the share
of the GPU alone: four of five convolutional networks that were started together under them had
gradients that were not finite within 200 steps; without, none.) After `--seconds` every job that
is not finished is asked to stop, saves its state, and goes on when the same command is given
again. Jobs that are started here only train; `bench/mnist.py MODEL --weights DIRECTORY` measures.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
GRACE = 40.0  # seconds to save after the signal


def command(job: str, out: Path, device: str) -> tuple[str, list[str]]:
    """Name of a job's directory, and the words that start it."""
    name, _, steps = job.partition("=")
    kind, _, model = name.rpartition(":")
    script = HERE / ("cifar10.py" if kind == "cifar10" else "mnist.py")
    folder = name.replace(":", "-")
    words = [sys.executable, str(script), model, "--out", str(out / folder), "--device", device]
    words += ["--threads", "1", "--train-only"]
    if kind == "cifar10":
        words += ["--setting", "card"]
    return folder, [*words, "--steps", steps] if steps else words


def last_line(path: Path) -> str:
    if not path.exists():
        return ""
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("jobs", nargs="+", help="MODEL, MODEL=STEPS, cifar10:MODEL")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True, help="or until a SIGTERM")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stop.append(number))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    running: dict[str, subprocess.Popen[bytes]] = {}
    for job in options.jobs:
        name, words = command(job, options.out, options.device)
        with (options.out / f"{name}.log").open("ab") as log:
            running[name] = subprocess.Popen(words, stdout=log, stderr=log, env=environment)
    while time.monotonic() - began < options.seconds and not stop:
        if all(process.poll() is not None for process in running.values()):
            break
        time.sleep(0.5)
    for process in running.values():
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    until = time.monotonic() + GRACE
    for process in running.values():
        try:
            process.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
    for name, process in running.items():
        clock = last_line(options.out / name / "timing.jsonl") or "no record"
        said = last_line(options.out / f"{name}.log")
        print(f"{name}: exit {process.returncode}, {clock}: {said}")


if __name__ == "__main__":
    main()
