"""Training on CIFAR-10, any likelihood model; resumable.

    python bench/cifar10.py pixelcnn-pp --out runs/cifar-pp                    # small, a processor
    python bench/cifar10.py pixelcnn-pp --out runs/cifar-pp --setting card --device cuda
    python bench/cifar10.py pixelcnn-pp --out runs/cifar-pp-full --setting full --device cuda

`small` trains a few hundred steps of a small network, to see that the validation bits/dim falls;
only the curve is kept, and the test split is not read. `card` is a network of moderate size for
minutes of an accelerator, `full` the model's preset for this size; both prove the density, read
the test split once and keep a sheet of samples. Writes bench/results/cifar10-<model>-small.json
or cifar10-<model>.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from common import RESULTS, write_result
from likely import data, runs
from likely.density import ImplicitDensity
from likely.evaluate.likelihood import per_example_nll
from likely.files.sheets import sample_sheet, save_png
from likely.models import MODELS
from likely.settings import FitSettings, to_json
from likely.training.loop import fit
from likely.training.run import Run
from likely.verify import verify

# Sizes for a processor; a model that is not here takes its preset for small images.
SMALL: dict[str, dict[str, Any]] = {
    "pixelcnn": {"channels": 24, "layers": 4, "head": "logistic-mixture", "components": 5,
                 "head_channels": 48},
    "gated-pixelcnn": {"channels": 24, "layers": 4, "head": "logistic-mixture", "components": 5,
                       "head_channels": 48},
    "pixelcnn-pp": {"channels": 16, "blocks": 1, "components": 5, "dropout": 0.0,
                    "weight_norm": False},
}  # fmt: skip
# What eight minutes of an H200 allow beside other trainings.
CARD: dict[str, dict[str, Any]] = {
    "pixelcnn-pp": {"channels": 96, "blocks": 2, "dropout": 0.05, "weight_norm": False}
}
CARD_FIT = FitSettings(
    steps=6_500, batch_size=64, optimizer="muon", learning_rate=0.015, schedule="linear",
    warmup=200, beta1=0.95, beta2=0.99, clip=0.0, ema=0.999, validate_every=500,
    validation_examples=500, log_every=50,
)  # fmt: skip
SMALL_FIT = FitSettings(
    steps=300, batch_size=16, learning_rate=2e-3, warmup=30, ema=0.98, validate_every=50,
    validation_examples=128, log_every=10,
)  # fmt: skip
MUON_FIT = dataclasses.replace(
    SMALL_FIT, optimizer="muon", learning_rate=0.01, schedule="linear", beta1=0.95, beta2=0.99,
    clip=0.0,
)  # fmt: skip


def settings_of(
    name: str, setting: str, spec: data.DataSpec, device: str
) -> tuple[dict[str, Any], FitSettings]:
    """Changes to the model's preset, and the fit."""
    if setting == "card":
        return CARD[name], dataclasses.replace(CARD_FIT, device=device)
    if setting == "full":
        fitted: FitSettings = MODELS[name].settings.fit_preset(spec)
        return {}, dataclasses.replace(fitted, device=device, validate_every=1000)
    # Matrices of thousands of rows are too large to orthogonalise for 300 updates.
    dense = MODELS[name].load().takes_vectors
    settings = dataclasses.replace(SMALL_FIT if dense else MUON_FIT, device=device)
    if name in SMALL:
        return SMALL[name], settings
    preset = MODELS[name].settings.preset(dataclasses.replace(spec, shape=(3, 8, 8)))
    return dataclasses.asdict(preset), settings


def trained(options: argparse.Namespace, train: data.Dataset) -> bool:
    """Train, or resume; whether it finished."""
    bits = train.spec.dimensions * math.log(2)
    changes, settings = settings_of(options.model, options.setting, train.spec, options.device)
    if options.steps:
        settings = dataclasses.replace(settings, steps=options.steps)
    model = runs.build(options.model, train.spec, changes, settings.seed)

    def show(run: Run, record: dict[str, float]) -> None:
        if "validation" in record:
            print(
                f"{time.strftime('%H:%M:%S')} step {run.step} of {settings.steps}: validation "
                f"{record['validation'] / bits:.3f} bits/dim, {run.seconds:.0f} s",
                flush=True,
            )

    run = fit(model, train, settings=settings, out=options.out, progress=show)
    print(run.status)
    return run.finished


def records(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def draw_curve(curve: dict[int, float], path: Path) -> None:
    """Validation bits/dim against updates."""
    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(list(curve), list(curve.values()), marker="o", markersize=3)
    axes.set_xlabel("updates")
    axes.set_ylabel("validation bits/dim")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=100)


def measure(
    folder: Path, model_name: str, setting: str, train: data.Dataset, test: data.Dataset
) -> None:
    """Write what a finished run reached, from its files; reads the test split, if at all, once."""
    bits = train.spec.dimensions * math.log(2)
    metrics = records(folder / "metrics.jsonl")
    curve = {int(r["step"]): r["validation"] / bits for r in metrics if "validation" in r}
    model = runs.load(folder).model
    made = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    about: dict[str, Any] = {
        "validation bits/dim by step": curve,
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": round(records(folder / "timing.jsonl")[-1]["seconds"], 1),
        "steps": int(metrics[-1]["step"]),
        "trained on": made.get("cuda_device") or made["processor"],
        "data": train.spec.to_json(),
    }
    name = f"cifar10-{model_name}" + "-small" * (setting == "small")
    prefix = name.replace("-", "/", 1)
    steps = sorted(curve)
    figures = {
        f"{prefix}/validation-bits-per-dim": curve[steps[-1]],
        f"{prefix}/validation-bits-per-dim/first": curve[steps[0]],
    }
    if setting != "small":
        proofs = verify(model, test)
        print(proofs, flush=True)
        estimate = per_example_nll(model, test, proofs=proofs).bits_per_dim()
        figures[f"{prefix}/test-bits-per-dim"] = estimate.value
        figures[f"{prefix}/test-bits-per-dim-standard-error"] = estimate.standard_error
        about |= {"proofs": proofs.to_json(), "estimate": estimate.to_json()}
        kept = RESULTS / name
        kept.mkdir(parents=True, exist_ok=True)
        save_png(sample_sheet(model.sample(40, seed=1), 256, columns=10), kept / "samples.png")
        draw_curve(curve, kept / "curve.png")
    fitted = json.loads((folder / "fit.json").read_text(encoding="utf-8"))
    path = write_result(name, figures, {"model": to_json(model.settings), **fitted}, about)
    for label, value in figures.items():
        print(f"{label}: {value:.4f}")
    print(f"written to {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "model",
        choices=[n for n, entry in MODELS.items() if not issubclass(entry.load(), ImplicitDensity)],
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=Path, help="directory of the run: train, then measure")
    where.add_argument("--weights", type=Path, help="directory of a finished run: measure only")
    parser.add_argument("--setting", choices=("small", "card", "full"), default="small")
    parser.add_argument("--steps", type=int, help="other than the setting's")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--train-only", action="store_true", help="measure later, by --weights")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train, test = data.load("cifar10")
    if options.out is not None and (not trained(options, train) or options.train_only):
        return
    measure(options.weights or options.out, options.model, options.setting, train, test)


if __name__ == "__main__":
    main()
