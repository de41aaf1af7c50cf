"""Classifiers from few labels on MNIST; resumable.

    python bench/classify.py --out runs/classify                # pre-train, classify, write
    python bench/classify.py --out runs/classify --pretrain     # pre-train only
    python bench/classify.py --out runs/classify --validation   # for choices; writes nothing
    python bench/classify.py --out runs/classify --only m1      # a part; the others stay

An encoder is fitted to the 50,000 training images without their labels: a dense denoising
autoencoder, a convolutional one, and a VAE as M1. Then, in 20 paired draws of 10 labels a class
(fewer of 1 and of 100, once all), the classifier that starts from it stands beside the same network
from scratch and beside classifiers on the pixels; the convolutional one has 5 draws, M1+M2 has 3.
The encoders were chosen by `--validation`, which draws other labels and scores validation images.
The test split is read at the end of each draw. Finished draws are kept in the folder.

Needs scikit-learn, and the data: LIKELY_DATA, or a network for the first download.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common import RESULTS, write_result
from likely import data, runs
from likely.evaluate.scores import Scores
from likely.evaluate.semi_supervised import SemiSupervised
from likely.jobs.classify import Classification, ClassifySettings, Draws, Result
from likely.runs.checkpoint import read_json, write_json
from likely.settings import FitSettings, to_json
from likely.training.loop import fit

PER_CLASS = 10
OTHER_DRAWS = 10_000  # first seed of the draws that choices are made on
FIT = FitSettings(steps=2_000, batch_size=250, learning_rate=2e-3, warmup=200, precision="bfloat16")
DENOISING = {"latent": 50, "noise": "masking", "corruption": 0.5}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """An encoder, and what is made of it.

    Attributes:
        model: its name.
        changes: settings that differ from the preset.
        fit: of the encoder.
        classify: which classifiers.
        draws: of labels, by how many of each class are labelled; 0 for all.
        binarize: of the data.
    """

    model: str
    changes: dict[str, Any]
    fit: FitSettings
    classify: ClassifySettings
    draws: dict[int, int] = dataclasses.field(default_factory=lambda: {PER_CLASS: 20})
    binarize: data.Binarize | None = None


RECIPES = {
    "dense": Recipe(
        "autoencoder",
        {"network": "dense", **DENOISING},
        FIT,
        ClassifySettings(),
        draws={1: 5, PER_CLASS: 20, 100: 5, 0: 1},
    ),
    "conv": Recipe(
        "autoencoder",
        {"network": "conv", "channels": 8, **DENOISING},
        dataclasses.replace(FIT, steps=1_200),
        ClassifySettings(baselines=False),
        draws={PER_CLASS: 5},
    ),
    "m1": Recipe(
        "vae",
        {"network": "dense", "latent": 50},
        dataclasses.replace(FIT, steps=12_000),
        ClassifySettings(
            modes=("m1m2",), baselines=False, semi_supervised=SemiSupervised(steps=15_000)
        ),
        draws={PER_CLASS: 3},
        binarize="dynamic",
    ),
}


def encoder(name: str, out: Path) -> Path:
    """The run of a recipe: fitted, resumed, or as it is."""
    recipe = RECIPES[name]
    train, _ = data.load("mnist", binarize=recipe.binarize)
    model = runs.build(recipe.model, train.spec, recipe.changes, seed=0)
    fit(model, train, settings=recipe.fit, out=out / name, progress=True)
    return out / name


def classified(
    name: str, out: Path, settings: ClassifySettings, draws: dict[int, int]
) -> Classification:
    """Every method on every draw; those that are on file are read back."""
    run = runs.load(encoder(name, out))
    job = Draws(run, None, settings)
    fractions = []
    for per_class, count in draws.items():
        results = []
        for number in range(count):
            stem = f"{name}-{settings.split}-{per_class or 'all'}-draw-{number}"
            path = out / f"{stem}.json"
            if not path.exists():
                drawn = job.draw(per_class, number)
                write_json(path, {method: _plain(result) for method, result in drawn.items()})
                line = ", ".join(f"{m} {r.scores.accuracy:.4f}" for m, r in drawn.items())
                print(f"{stem}, of {count}: {line}", flush=True)
            record = read_json(path, "delete it, and it is made again")
            results.append({method: _read(result) for method, result in record.items()})
        fractions.append(job.together(per_class, results))
    return Classification(name, run.name, tuple(fractions), settings)


def _plain(result: Result) -> dict[str, Any]:
    return {
        "confusion": result.scores.confusion.tolist(),
        "binned": result.scores.binned.tolist(),
        "choices": result.choices,
        "seconds": result.seconds,
    }


def _read(record: dict[str, Any]) -> Result:
    scores = Scores(np.array(record["confusion"], np.int64), np.array(record["binned"]))
    return Result(scores, record["choices"], record["seconds"])


def figures_of(name: str, classification: Classification) -> dict[str, float]:
    """Figures of the draws of an encoder."""
    figures: dict[str, float] = {}
    for fraction in classification.fractions:
        if name == "m1":
            right = fraction.accuracy("m1m2")
            stem = f"classify/mnist-{fraction.labelled}-total/m1m2"
            figures[f"{stem}-error-percent"] = 100 - right.value
            figures[f"{stem}-draws"] = float(right.n)
            if right.n > 1:
                figures[f"{stem}-error-percent-standard-error"] = right.standard_error
            continue
        prefix = f"classify/mnist-{fraction.per_class or 'all'}"
        several = len(fraction.methods["joint"].accuracies) > 1
        if several:
            difference = fraction.difference("joint", "scratch")
            for end, value in dataclasses.asdict(difference).items():
                figures[f"{prefix}/{name}-gain-{end}"] = value
        for method in fraction.methods:
            label = method if name == "dense" else f"{name}-{method}"
            estimate = fraction.accuracy(method)
            figures[f"{prefix}/{label}-accuracy"] = estimate.value
            if several:
                figures[f"{prefix}/{label}-accuracy-standard-error"] = estimate.standard_error
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--only", choices=RECIPES, action="append", help="an encoder [all]")
    parser.add_argument("--pretrain", action="store_true", help="fit the encoders only")
    parser.add_argument("--validation", action="store_true", help="other draws, validation split")
    parser.add_argument("--draws", type=int, default=0, help="of labels [that of the recipe]")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    path = RESULTS / "classify.json"
    before = json.loads(path.read_text()) if path.exists() else {"figures": {}, "about": {}}
    figures, about = before["figures"], before["about"]
    for name in args.only or RECIPES:
        if args.pretrain:
            encoder(name, args.out)
            continue
        recipe = RECIPES[name]
        settings = recipe.classify
        if args.validation:
            settings = dataclasses.replace(settings, split="validation", seed=OTHER_DRAWS)
        draws = {per: args.draws or count for per, count in recipe.draws.items()}
        measured = classified(name, args.out, settings, draws)
        print(measured, flush=True)
        if args.validation:
            continue
        figures |= figures_of(name, measured)
        about[name] = {**measured.to_json(), "encoder": recipe.changes, "fit": to_json(recipe.fit)}
        if name != "m1":
            measured.plot(RESULTS / f"classify-{name}.png")
        write_result("classify", figures, {"per_class": PER_CLASS}, about)


if __name__ == "__main__":
    main()
