"""Training throughput and peak memory of a GAN beside a plain loop over the same networks.

    python bench/gan_throughput.py                   # about two minutes
    python bench/gan_throughput.py --rounds 4 --dry

The generator and discriminator of bench/mnist.py's DCGAN play the relativistic game with R1 and R2.
The plain loop is a tutorial's: contiguous float32 weights, one batch for both players, loss,
backward, Adam; the library's takes a fresh batch for each player, averages weights, checks and
logs, and is timed with all of it. They alternate in one process, and each figure is the median over
the rounds, the first two left out. Peak memory is that of a process of its own for each loop, over
what it held before its first update.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import resource
import subprocess
import sys
import time
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from common import write_result
from likely import data, runs
from likely.data.spec import Dataset
from likely.density import ImplicitDensity
from likely.devices import gains_by_bfloat16
from likely.settings import to_json
from likely.training.loop import fit
from likely.training.run import Run
from recipes import RECIPES

RECIPE = RECIPES["dcgan"]
UPDATES = 4  # of both players, a round


class PlainLoop:
    """Float32, contiguous, eager: what the library is compared with."""

    def __init__(self, model: Any, values: np.ndarray[Any, Any], penalty: float) -> None:
        self.model, self.values, self.penalty = model.train(), values, penalty
        self.generator: nn.Module = model.generator
        self.critic: nn.Module = model.adversary().train()
        betas = RECIPE.fit.beta1, RECIPE.fit.beta2
        self.of_g, self.of_d = (
            torch.optim.Adam(network.parameters(), RECIPE.fit.learning_rate, betas)
            for network in (self.generator, self.critic)
        )
        self.chance = np.random.default_rng(0)

    def updates(self, count: int) -> None:
        for _ in range(count):
            self.update()

    def update(self) -> None:
        batch = RECIPE.fit.batch_size
        rows = self.chance.integers(0, len(self.values), batch)
        real = torch.from_numpy(self.values[rows].astype(np.float32)) * 2 - 1
        fake = self._fake(batch)
        real_logit, r1 = self._penalised(real)
        fake_logit, r2 = self._penalised(fake.detach())
        loss = (softplus(fake_logit - real_logit) + self.penalty / 2 * (r1 + r2)).mean()
        self.of_d.zero_grad()
        torch.autograd.backward(loss)
        self.of_d.step()
        loss = softplus(self.critic(real, None) - self.critic(self._fake(batch), None)).mean()
        self.of_g.zero_grad()
        torch.autograd.backward(loss)
        self.of_g.step()

    def _fake(self, batch: int) -> Tensor:
        z = torch.rand(batch, RECIPE.changes["latent"]) * 2 - 1
        images: Tensor = self.generator(z, None)
        return images + (images.detach().sign() - images.detach())

    def _penalised(self, images: Tensor) -> tuple[Tensor, Tensor]:
        images = images.detach().requires_grad_(True)
        logit = self.critic(images, None)
        (gradient,) = torch.autograd.grad(logit.sum(), images, create_graph=True)
        return logit, gradient.square().flatten(1).sum(1)


def subject() -> tuple[ImplicitDensity, Dataset, PlainLoop]:
    """The model, data that costs no time, and the plain loop on a copy."""
    values = (np.random.default_rng(0).random((1024, 1, 28, 28)) < 0.13).astype(np.uint8)
    train = data.from_array(values, levels=2, name="random-binary")
    model = runs.build(RECIPE.model, train.spec, RECIPE.changes, 0)
    assert isinstance(model, ImplicitDensity)
    plain = PlainLoop(copy.deepcopy(model), values, RECIPE.objective.penalty)
    return model, train, plain


def measure(rounds: int) -> dict[str, Any]:
    """Images per second of both loops by both clocks, alternated."""
    model, train, plain = subject()
    clocks = (time.perf_counter, time.process_time)
    rates: dict[str, list[list[float]]] = {"likely": [], "plain": []}
    last = [clock() for clock in clocks]

    def add(name: str) -> None:
        now = [clock() for clock in clocks]
        images = RECIPE.fit.batch_size * UPDATES
        rates[name].append([images / (b - a) for a, b in zip(last, now, strict=True)])
        last[:] = [clock() for clock in clocks]

    def between(run: Run, record: dict[str, float]) -> None:
        add("likely")
        plain.updates(UPDATES)
        add("plain")

    steps = (rounds + 2) * UPDATES
    settings = dataclasses.replace(RECIPE.fit, steps=steps, log_every=UPDATES, device="cpu")
    fit(model, train, RECIPE.objective, settings, progress=between)
    record: dict[str, Any] = {"fit": to_json(settings)}
    for index, clock in enumerate(("wall", "processor")):
        ours, theirs = ([r[index] for r in rates[name][2:]] for name in ("likely", "plain"))
        record[clock] = {
            "likely": median(ours), "plain": median(theirs),
            "speedup": median(ours) / median(theirs), "rounds": [ours, theirs],
        }  # fmt: skip
    return record


def peak(loop: str) -> float:
    """MB that some updates of a loop need beyond what the process held before, at most."""
    model, train, plain = subject()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if loop == "plain":
        plain.updates(2 * UPDATES)
    else:
        settings = dataclasses.replace(RECIPE.fit, steps=2 * UPDATES, device="cpu")
        fit(model, train, RECIPE.objective, settings, progress=False)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--peak", choices=("likely", "plain"), help=argparse.SUPPRESS)
    parser.add_argument("--dry", action="store_true", help="print, write nothing")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak:
        print(peak(options.peak))
        return
    words = [sys.executable, __file__, "--threads", str(options.threads), "--peak"]
    memory = {
        loop: float(
            subprocess.run([*words, loop], check=True, capture_output=True, text=True).stdout
        )
        for loop in ("likely", "plain")
    }
    record = measure(options.rounds)
    for clock in ("wall", "processor"):
        c = record[clock]
        print(
            f"dcgan, {clock} clock: {c['likely']:.1f} images/s, plain {c['plain']:.1f}: "
            f"{c['speedup']:.2f} times"
        )
    print(f"peak memory: {memory['likely']:.0f} MB, plain {memory['plain']:.0f} MB")
    if not options.dry:
        figures = {
            "throughput/dcgan/speedup": round(record["wall"]["speedup"], 3),
            "throughput/dcgan/images-per-second": round(record["wall"]["likely"], 2),
            "throughput/dcgan/peak-megabytes": round(memory["likely"], 1),
            "throughput/dcgan/plain-peak-megabytes": round(memory["plain"], 1),
        }
        settings = {"rounds": options.rounds, "threads": options.threads, "model": RECIPE.changes}
        about = {"bfloat16": gains_by_bfloat16(torch.device("cpu")), **record}
        write_result("throughput-gan", figures, settings, about)


if __name__ == "__main__":
    main()
