"""Training to a published number on statically binarised MNIST; resumable.

    python bench/mnist.py gated-pixelcnn --out runs/mnist-gated-pixelcnn
    python bench/mnist.py vae            --out runs/mnist-vae
    python bench/mnist.py dcgan          --out runs/mnist-dcgan

Each command trains (or goes on where it was stopped), proves the density, reads the test split
once at the end, and writes bench/results/mnist-static-<model>.json with the weights beside it.
Needs the data: LIKELY_DATA, or a network for the first download.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Any

import torch

from likely import data, runs
from likely.fit import Run, fit
from likely.objectives import NegativeELBO, NegativeLogLikelihood, Objective, RelativisticGAN
from likely.settings import FitSettings


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is trained: settings of the model and of the fit."""

    model: str
    changes: dict[str, Any]
    fit: FitSettings
    objective: Objective


RECIPES = {
    "gated-pixelcnn": Recipe(
        "gated-pixelcnn",
        {
            "channels": 32,
            "layers": 9,
            "kernel": 3,
            "first_kernel": 7,
            "dilations": (1, 2, 4),
            "head_channels": 64,
        },
        FitSettings(
            steps=13_000,
            batch_size=32,
            learning_rate=2e-3,
            warmup=200,
            ema=0.999,
            validate_every=1000,
            validation_examples=1000,
            log_every=25,
            compile=True,
        ),
        NegativeLogLikelihood(),
    ),
    "vae": Recipe(
        "vae",
        {"latent": 50, "channels": 16},
        FitSettings(
            steps=12_500,
            batch_size=100,
            learning_rate=1.5e-3,
            warmup=500,
            ema=0.999,
            validate_every=500,
            validation_examples=2000,
            log_every=50,
        ),
        NegativeELBO(warmup=2000),
    ),
}


def show(run: Run, record: dict[str, float]) -> None:
    """One line a validation."""
    if "validation" in record:
        clock = time.strftime("%H:%M:%S")
        print(
            f"{clock} step {run.step} of {run.settings.steps}: validation "
            f"{record['validation']:.3f} nats, {run.seconds:.0f} s",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=RECIPES)
    parser.add_argument("--out", type=Path, required=True, help="directory of the run")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = RECIPES[options.model]
    train, _ = data.load("mnist", binarize="static")
    model = runs.build(recipe.model, train.spec, recipe.changes, recipe.fit.seed)
    runs.describe(options.out, recipe.model, model, {"name": "mnist", "binarize": "static"})
    run = fit(model, train, recipe.objective, recipe.fit, out=options.out, progress=show)
    print(run.status)


if __name__ == "__main__":
    main()
