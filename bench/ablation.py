"""What each improvement of PixelCNN++ is worth: one switched off at a time, at equal steps.

    python bench/ablation.py                       # some minutes of one core
    python bench/ablation.py --steps 800 --seeds 3

On the embedded digits (8 x 8, 17 levels). Every variant takes the same number of steps on the
same batches and is scored by the averaged weights on the validation split; the test split is
not read. Differences are paired by seed. Finished runs are kept in `--out`, so a stopped
benchmark resumes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from common import write_result
from likely import data, runs
from likely.runs.checkpoint import write_json
from likely.settings import FitSettings, to_json
from likely.training.loop import fit

BASE: dict[str, Any] = {
    "channels": 16, "blocks": 1, "scales": 2, "head": "logistic-mixture", "components": 5,
    "dropout": 0.1,
}  # fmt: skip
FIT = FitSettings(
    steps=400, batch_size=32, learning_rate=2e-3, warmup=40, ema=0.99, validate_every=10**6,
    validation_examples=0, log_every=50,
)  # fmt: skip

# Name: what differs in the settings, and in the fit.
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "full": ({}, {}),
    "relu-blocks": ({"block": "relu"}, {}),
    "no-shortcuts": ({"shortcuts": False}, {}),
    "categorical-head": ({"head": "categorical"}, {}),
    "dilated": ({"resampling": "dilated"}, {}),
    "one-scale-kernels": ({"resampling": "plain"}, {}),
    "no-dropout": ({"dropout": 0.0}, {}),
    "no-weight-norm": ({"weight_norm": False}, {}),
    "no-averaging": ({}, {"ema": 0.0}),
    "none": (
        {
            "block": "relu", "shortcuts": False, "head": "categorical", "resampling": "plain",
            "dropout": 0.0, "weight_norm": False,
        },
        {"ema": 0.0},
    ),
}  # fmt: skip


def measure(name: str, seed: int, settings: FitSettings) -> dict[str, float]:
    """Validation nats of one variant."""
    train, _ = data.load("digits")
    changes, of_fit = VARIANTS[name]
    model = runs.build("pixelcnn-pp", train.spec, {**BASE, **changes}, seed)
    began = time.process_time()
    run = fit(model, train, settings=dataclasses.replace(settings, seed=seed, **of_fit))
    return {
        "nats": run.metrics[-1]["validation"],
        "parameters": float(sum(p.numel() for p in model.parameters())),
        "processor-seconds": round(time.process_time() - began, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=FIT.steps)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, help="folder of finished runs; temporary by default")
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = dataclasses.replace(FIT, steps=options.steps)
    folder = options.out or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    for seed in range(options.seeds):
        for name, records in measured.items():
            path = folder / f"{name}-{seed}-{options.steps}.json"
            if not path.exists():
                write_json(path, measure(name, seed, settings))
            records.append(json.loads(path.read_text(encoding="utf-8")))
            print(f"{name}, seed {seed}: {records[-1]['nats']:.2f} nats", flush=True)
    train, _ = data.load("digits")
    bits = train.spec.dimensions * math.log(2)
    figures: dict[str, float] = {}
    for name, records in measured.items():
        nats = [record["nats"] for record in records]
        figures[f"ablation/{name}/validation-nats"] = round(statistics.mean(nats), 3)
        figures[f"ablation/{name}/validation-bits-per-dim"] = round(
            statistics.mean(nats) / bits, 4
        )  # fmt: skip
        if name != "full":
            worth = [
                record["nats"] - full["nats"]
                for record, full in zip(records, measured["full"], strict=True)
            ]
            figures[f"ablation/{name}/worth-nats"] = round(statistics.mean(worth), 3)
            if len(worth) > 1:
                figures[f"ablation/{name}/worth-nats-spread"] = round(max(worth) - min(worth), 3)
    about = {"runs": measured, "data": train.spec.to_json(), "seeds": options.seeds}
    described = {"model": BASE, "fit": to_json(settings), "variants": VARIANTS}
    path = write_result("ablation", figures, described, about)
    print(f"written to {path}")


if __name__ == "__main__":
    main()
