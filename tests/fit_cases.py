"""Small fits that the tests of the loop share."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import signal
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from likely import runs
from likely.data.made import digits
from likely.data.sequences import Sequences, from_sequences
from likely.data.spec import Dataset
from likely.density import Fittable
from likely.runs.checkpoint import read_tensors
from likely.settings import FitSettings
from likely.training.adversarial import NonSaturatingGAN
from likely.training.loop import Progress, fit
from likely.training.objectives import NegativeELBO, Objective, QuantisedBound
from likely.training.optimizers import Optimizer, optimizer_for
from likely.training.run import Run, Stopped

SETTINGS = FitSettings(
    steps=10,
    batch_size=16,
    learning_rate=2e-3,
    warmup=3,
    ema=0.9,
    log_every=2,
    validate_every=4,
    validation_examples=24,
    checkpoint_seconds=1e9,
    precision="float32",  # the same on every processor
)

CASES: dict[str, tuple[str, dict[str, Any], Objective | None]] = {
    "pixelcnn": (
        "gated-pixelcnn",
        {"channels": 4, "layers": 3, "first_kernel": 3, "head_channels": 4, "dropout": 0.25,
         "dilations": (1, 2), "conditional": True},
        None,
    ),
    "vae": ("vae", {"latent": 3, "network": "conv", "channels": 4}, None),
    "vae-dense": ("vae", {"latent": 3, "network": "dense", "hidden": 8}, None),
    "vae-free-nats": ("vae", {"latent": 3, "network": "dense", "hidden": 8},
                      NegativeELBO(free_nats=0.22)),
    "vae-wide": ("vae", {"latent": 3, "network": "dense", "hidden": 24}, None),
    "vq-vae": (
        "vq-vae",
        {"codes": 8, "dimensions": 3, "channels": 4, "blocks": 1, "prior_channels": 4,
         "prior_layers": 2},
        QuantisedBound(rate=0.5, encoder_steps=5),
    ),
    "vq-vae-simvq": (
        "vq-vae",
        {"quantiser": "simvq", "codes": 8, "dimensions": 3, "channels": 4, "blocks": 1,
         "prior_channels": 4, "prior_layers": 2},
        None,
    ),
    "gru": ("gru", {"hidden": 4, "step_hidden": 4}, None),
    "rbm": ("rbm", {"hidden": 6, "chains": 8}, None),
    "rbm-wide": ("rbm", {"hidden": 24, "chains": 8, "gibbs": 20}, None),
    "dcgan": ("dcgan", {"latent": 4, "channels": 4, "normalize": "batch"}, None),
    "dcgan-r1": ("dcgan", {"latent": 4, "channels": 4}, NonSaturatingGAN(penalty=1.0)),
    # Eight pixels halve once; twice the side gives a discriminator with a normalised layer.
    "dcgan-batch-r1": (
        "dcgan", {"latent": 4, "channels": 4, "normalize": "batch"}, NonSaturatingGAN(1.0)
    ),
}  # fmt: skip


@functools.cache
def training_data() -> Dataset:
    return digits()[0]


@functools.cache
def sequences() -> Sequences:
    """Of two binary columns, short ones and long ones."""
    numbers = np.random.default_rng(0)
    rolls = [(numbers.random((length, 2)) < 0.4).astype(np.uint8) for length in (3, 5, 12) * 12]
    return from_sequences(rolls, kinds={"x0": "binary", "x1": "binary"}, split=(24, 6))[0]


def data_of(case: str) -> Dataset | Sequences:
    return sequences() if case == "gru" else training_data()


def model_of(case: str, seed: int = 0) -> Fittable:
    name, changes, _ = CASES[case]
    return runs.build(name, data_of(case).spec, changes, seed)


def fit_case(
    case: str, out: Path | None, *, progress: Progress | bool | None = None, resume: bool = True,
    **changes: Any,
) -> Run:  # fmt: skip
    """One fit of the case in one thread, its model rebuilt."""
    torch.set_num_threads(1)
    settings = dataclasses.replace(SETTINGS, **changes)
    objective = CASES[case][2]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Stopped)  # which tests ask for
        return fit(
            model_of(case), data_of(case), objective, settings, out=out, progress=progress,
            resume=resume,
        )  # fmt: skip


def stop_at(step: int, number: int = signal.SIGTERM) -> Progress:
    """Send this process a signal when a record of that step is made."""

    def stop(run: Run, record: dict[str, float]) -> None:
        if run.step == step:
            signal.raise_signal(number)

    return stop


def end_of(directory: Path) -> dict[str, bytes]:
    """Everything that a run leaves and that does not depend on a clock, as bytes."""
    tensors, about = read_tensors(directory / "state.safetensors")
    end = {name: bytes_of(tensor) for name, tensor in tensors.items()}
    end |= {key: about[key].encode() for key in ("step", "best", "fingerprint")}
    for name in ("metrics.jsonl", "weights.safetensors", "best.safetensors"):
        path = directory / name
        end[name] = path.read_bytes() if path.exists() else b""
    return end


def bytes_of(tensor: Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def differing(a: dict[str, bytes], b: dict[str, bytes]) -> list[str]:
    """Names whose bytes differ; empty when the two ends are the same."""
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


def files_in(directory: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in directory.iterdir() if p.is_file()}


def watching(monkeypatch: pytest.MonkeyPatch, see: Callable[[Optimizer], None]) -> None:
    """Let `see` look at each optimiser of a fit before each of its steps."""

    def watched(settings: FitSettings, parameters: Sequence[Tensor]) -> Optimizer:
        optimizer = optimizer_for(settings, parameters)
        step = optimizer.step

        def seen_step() -> None:
            see(optimizer)
            step()

        monkeypatch.setattr(optimizer, "step", seen_step)
        return optimizer

    place = importlib.import_module("likely.training.updates")
    monkeypatch.setattr(place, "optimizer_for", watched)
