"""Training throughput beside a plain float32 contiguous eager loop over the same network.

    python bench/throughput.py                       # both models, about four minutes
    python bench/throughput.py vae --rounds 4
    python bench/throughput.py --device cuda --rounds 100 --updates 20

The library's loop and the plain one alternate in one process: `likely.fit` runs some updates, and
between them, in its progress call, the plain loop runs as many on a copy of the network, on
batches of the same size. Each figure is the median over the rounds, the first two left out
(compilation, caches). The plain loop does what a tutorial's does: convert the batch, loss,
backward, Adam; on CUDA with torch's default of TF32 in convolutions. The library's does more
(averaged weights, clipping, checks, logs) and is timed with all of it. The data is random binary
images: what the pixels say costs no time.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import time
from statistics import median
from typing import Any

import numpy as np
import torch

from common import write_result
from likely import data, runs
from likely.density import GenerativeModel, LatentVariable, TractableDensity
from likely.devices import choose_device, gains_by_bfloat16
from likely.noise import Noise
from likely.settings import FitSettings, to_json
from likely.training.loop import fit
from likely.training.run import Run

BATCH = {"gated-pixelcnn": 16, "vae": 64}
UPDATES = {"gated-pixelcnn": 1, "vae": 2}


class PlainLoop:
    """Float32, contiguous, eager: what the library is compared with."""

    def __init__(
        self, model: GenerativeModel, values: np.ndarray[Any, Any], batch: int, device: torch.device
    ) -> None:
        self.model, self.values, self.batch = model.to(device), values, batch
        self.device = device
        self.optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        self.chance = np.random.default_rng(0)
        model.train()

    def updates(self, count: int) -> None:
        """As many updates; returns when they are done."""
        before = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = True
        for _ in range(count):
            self.update()
        torch.backends.cudnn.allow_tf32 = before
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def update(self) -> None:
        rows = self.chance.integers(0, len(self.values), self.batch)
        x = torch.from_numpy(self.values[rows].astype(np.int64)).to(self.device)
        if isinstance(self.model, TractableDensity):
            loss = -self.model.log_prob(x).mean()
        else:
            assert isinstance(self.model, LatentVariable)
            loss = -self.model.elbo(x, Noise(int(rows[0]), device=self.device)).mean()
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()


@dataclasses.dataclass
class Clocks:
    """Images per second of each round: by the wall clock and by CPU time."""

    wall: list[float] = dataclasses.field(default_factory=list)
    processor: list[float] = dataclasses.field(default_factory=list)

    def add(self, images: int, wall: float, processor: float) -> None:
        self.wall.append(images / wall)
        self.processor.append(images / processor)


def measure(
    name: str, rounds: int, compiled: bool, device: torch.device, batch: int, updates: int
) -> dict[str, Any]:
    """Both loops on one model, alternated."""
    values = (np.random.default_rng(0).random((1024, 1, 28, 28)) < 0.13).astype(np.uint8)
    train = data.from_array(values, levels=2, name="random-binary")
    model = runs.build(name, train.spec, {}, 0)
    plain = PlainLoop(copy.deepcopy(model), values, batch, device)
    ours, theirs = Clocks(), Clocks()
    last = [time.perf_counter(), time.process_time()]

    def between(run: Run, record: dict[str, float]) -> None:
        wall, processor = time.perf_counter(), time.process_time()
        ours.add(batch * updates, wall - last[0], processor - last[1])
        plain.updates(updates)
        last[:] = time.perf_counter(), time.process_time()
        theirs.add(batch * updates, last[0] - wall, last[1] - processor)

    settings = FitSettings(
        steps=(rounds + 2) * updates, batch_size=batch, log_every=updates, compile=compiled,
        validate_every=10**9, validation_examples=1, device=str(device),
    )  # fmt: skip
    fit(model, train, settings=settings, progress=between)
    result: dict[str, Any] = {"batch": batch, "compile": compiled, "fit": to_json(settings)}
    for clock in ("wall", "processor"):
        a, b = getattr(ours, clock)[2:], getattr(theirs, clock)[2:]
        result[clock] = {
            "likely": median(a), "plain": median(b), "speedup": median(a) / median(b),
            "rounds_likely": a, "rounds_plain": b,
        }  # fmt: skip
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=list(BATCH), help="gated-pixelcnn, vae")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, help="in place of 16 and 64")
    parser.add_argument("--updates", type=int, help="a round, in place of 1 and 2")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--dry", action="store_true", help="print, write nothing")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    figures: dict[str, float] = {}
    device = choose_device(options.device)
    about: dict[str, Any] = {"bfloat16": gains_by_bfloat16(device)}
    for name in options.models:
        batch, updates = options.batch or BATCH[name], options.updates or UPDATES[name]
        rates = measure(name, options.rounds, options.compile, device, batch, updates)
        about[name] = rates
        for clock in ("wall", "processor"):
            c = rates[clock]
            print(
                f"{name}, {clock} clock: {c['likely']:.1f} images/s, plain {c['plain']:.1f}: "
                f"{c['speedup']:.2f} times",
                flush=True,
            )
        figures[f"throughput/{name}/speedup"] = round(rates["wall"]["speedup"], 3)
        figures[f"throughput/{name}/images-per-second"] = round(rates["wall"]["likely"], 2)
    if not options.dry:
        settings = {
            "rounds": options.rounds, "threads": options.threads, "device": str(device),
        }  # fmt: skip
        write_result("throughput" + "-cuda" * (device.type == "cuda"), figures, settings, about)


if __name__ == "__main__":
    main()
