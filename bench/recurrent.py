"""Row LSTM and Diagonal BiLSTM against a loop over pixels and against a gated convolution.

    python bench/recurrent.py                # both models, about three minutes on one core
    python bench/recurrent.py --rounds 2 --dry

A training step is log_prob and its gradient on a batch of binary 28 x 28 images. It is compared
with the same model evaluated pixel by pixel in Python (tests/pixelrnn_by_pixel.py, the reference
of the tests, gradient by autograd), with the same fronts advanced by operations that autograd
records (what the written-out backward pass gains), and with a GatedPixelCNN of the preset's depth
and as many parameters. Sampling is compared with the naive sampler (the network again for every
pixel), with one pass of the loop over pixels (such a loop draws while it goes), with a likelihood
pass, and with the gated model's sampling. The parts of a round follow each other in one process;
every figure is a ratio of medians over the rounds (the loop and the naive sampler: once). The
first round, which compiles the samplers, is left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from common import write_result
from likely.data.spec import DataSpec
from likely.models.pixelcnn.gated_pixelcnn import GatedPixelCNN
from likely.models.pixelcnn.settings import GatedPixelCNNSettings
from likely.models.recurrent.pixelrnn import DiagonalBiLSTM, PixelRNN, RowLSTM
from likely.models.recurrent.settings import DiagonalBiLSTMSettings, RowLSTMSettings
from likely.nn import fronts, recurrent
from likely.nn.fronts import Fronts
from likely.noise import Noise
from likely.sampling.ancestral import ancestral
from likely.settings import to_json

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from pixelrnn_by_pixel import conditionals_by_pixel

SPEC = DataSpec("random-binary", (1, 28, 28), 2)
CASES: dict[str, tuple[type[PixelRNN], Any]] = {
    "row-lstm": (RowLSTM, RowLSTMSettings(hidden=16, layers=4)),
    "diagonal-bilstm": (DiagonalBiLSTM, DiagonalBiLSTMSettings(hidden=16, layers=3)),
}


def size_of(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def gated_like(parameters: int) -> GatedPixelCNN:
    """The gated model of the 28 x 28 preset's depth that has the nearest number of parameters."""
    preset = GatedPixelCNNSettings.preset(SPEC)
    models = [
        GatedPixelCNN(SPEC, dataclasses.replace(preset, channels=channels, head_channels=32))
        for channels in range(4, 40)
    ]
    return min(models, key=lambda model: abs(size_of(model) - parameters))


def by_autograd(
    z: Tensor, weight: Tensor, h0: Tensor, c0: Tensor, order: Fronts, batch: int
) -> Tensor:
    """`likely.nn.fronts.sweep` with operations that autograd records, front by front."""
    sums = z.split([size * batch for size in order.sizes], -1)
    fresh = order.fresh.to(z).repeat_interleave(batch, 1)
    firsts = fresh.split([size * batch for size in order.sizes], -1)
    h = c = z.new_zeros(0)
    out: list[Tensor] = []
    for front, total in enumerate(sums):
        n = total.shape[-1]
        begin = sum(order.sizes[:front]) * batch
        earlier = (begin - sums[front - 1].shape[-1]) if front else 0
        reads = []
        for place, links in enumerate((order.line, *order.taps)):
            initial = (h0 if place else c0)[:, :, None] * firsts[front][place]
            if front:
                first, count, source = links[front - 1]
                at, size = first * batch - begin, count * batch
                seen = (h if place else c)[..., source * batch - earlier :][..., :size]
                initial = initial + torch.nn.functional.pad(seen, (at, n - at - size))
            reads.append(initial)
        gates = torch.baddbmm(total, weight, torch.cat(reads[1:], 1))
        o, f, i, g = gates.chunk(4, 1)
        c = torch.sigmoid(f) * reads[0] + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        out.append(h)
    return torch.cat(out, -1)


@contextmanager
def recorded() -> Iterator[None]:
    """Sweeps by autograd for the time of the block."""
    recurrent.sweep = by_autograd
    try:
        yield
    finally:
        recurrent.sweep = fronts.sweep


def seconds(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def step(model: torch.nn.Module, x: Tensor, conditionals: Callable[[Tensor], Tensor]) -> None:
    """One likelihood and its gradient."""
    model.zero_grad(set_to_none=True)
    torch.autograd.backward(-model.head.log_prob(conditionals(x), x).sum())


@torch.no_grad()
def drawn(model: PixelRNN | GatedPixelCNN, batch: int, method: str) -> Tensor:
    blank = torch.zeros(batch, *SPEC.shape, dtype=torch.int64)
    uniform = Noise(0).uniform(batch, *SPEC.shape)
    return ancestral(model, uniform, blank, 0, None, method)  # type: ignore[arg-type]


def measure(name: str, rounds: int, batch: int) -> tuple[dict[str, float], dict[str, Any]]:
    kind, settings = CASES[name]
    torch.manual_seed(0)
    model = kind(SPEC, settings)  # type: ignore[call-arg]
    gated = gated_like(size_of(model))
    x = (torch.rand(batch, *SPEC.shape) < 0.13).long()
    many = (torch.rand(64, *SPEC.shape) < 0.13).long()
    parts: dict[str, Callable[[], object]] = {
        "step": lambda: step(model, x, model.conditionals),
        "autograd": lambda: step(model, x, model.conditionals),
        "gated": lambda: step(gated, x, gated.conditionals),
        "pass": lambda: torch.no_grad()(model.log_prob)(x),
        "sample": lambda: drawn(model, batch, "incremental"),
        "gated-sample": lambda: drawn(gated, batch, "incremental"),
        "pass-64": lambda: torch.no_grad()(model.log_prob)(many),
        "sample-64": lambda: drawn(model, len(many), "incremental"),
        "gated-sample-64": lambda: drawn(gated, len(many), "incremental"),
    }
    clocks: dict[str, list[float]] = {part: [] for part in parts}
    for turn in range(rounds + 1):
        for part, run in parts.items():
            with recorded() if part == "autograd" else torch.enable_grad():
                took = seconds(run)
            if turn:  # the first one fills caches
                clocks[part].append(took)
    naive: list[Tensor] = []
    once: dict[str, Callable[[], object]] = {
        "loop": lambda: step(model, x, lambda y: conditionals_by_pixel(model, y)),
        "loop-pass": lambda: torch.no_grad()(conditionals_by_pixel)(model, x),
        "naive": lambda: naive.append(drawn(model, batch, "naive")),
    }
    clocks |= {part: [seconds(run)] for part, run in once.items()}
    same = torch.equal(drawn(model, batch, "incremental"), naive[0])
    t = {part: median(values) for part, values in clocks.items()}
    figures = {
        "step-over-gated": t["step"] / t["gated"],
        "loop-over-step": t["loop"] / t["step"],
        "autograd-over-step": t["autograd"] / t["step"],
        "step-images-per-second": batch / t["step"],
        "sample-over-gated": t["sample"] / t["gated-sample"],
        "sample-over-pass": t["sample"] / t["pass"],
        "naive-over-sample": t["naive"] / t["sample"],
        "loop-over-sample": t["loop-pass"] / t["sample"],
        "sample-images-per-second": batch / t["sample"],
        "sample-over-gated-at-64": t["sample-64"] / t["gated-sample-64"],
        "sample-over-pass-at-64": t["sample-64"] / t["pass-64"],
        "sample-images-per-second-at-64": len(many) / t["sample-64"],
    }
    about = {
        "parameters": size_of(model),
        "gated parameters": size_of(gated),
        "settings": to_json(settings),
        "gated settings": to_json(gated.settings),
        "seconds": clocks,
        "both samplers drew the same integers": same,
    }
    return {f"recurrent/{name}/{key}": round(value, 3) for key, value in figures.items()}, about


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=list(CASES), help=", ".join(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dry", action="store_true", help="print, write nothing")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    figures: dict[str, float] = {}
    about: dict[str, Any] = {}
    for name in options.models:
        speeds, about[name] = measure(name, options.rounds, options.batch)
        figures |= speeds
        for key, value in speeds.items():
            print(f"{key}: {value}", flush=True)
    if not options.dry:
        settings = {key: vars(options)[key] for key in ("rounds", "batch", "threads")}
        write_result("recurrent", figures, settings, about)


if __name__ == "__main__":
    main()
