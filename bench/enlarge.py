"""Colouring CIFAR-10, enlarging CIFAR-10 and Fashion-MNIST, on a processor; resumable.

    python bench/enlarge.py fit cifar10-colour --work runs/enlarge       # 54 minutes, core shared
    python bench/enlarge.py fit cifar10-scale --work runs/enlarge        # 83
    python bench/enlarge.py fit fashion-mnist-scale --work runs/enlarge  # 2
    python bench/enlarge.py measure --work runs/enlarge                  # what is fitted so far

`measure` draws 64 images of each of the first test images, given their luma or their averages,
and writes bench/results/enlarge.json: bits of a dimension that was not given, PSNR of the mean of
the draws and of single ones (of each image, then averaged) beside floors without a model, how many
of the true values 90 % intervals hold, as drawn and with their width chosen on as many validation
images, diversity, and the consistency error. Blocks of images that
were measured are kept in the run, so that it goes on where it was stopped. Rows of networks that
are not in the folder stay. Sheets go beside.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common import RESULTS, write_result
from likely import data, runs
from likely.density import Split
from likely.evaluate.likelihood import per_example_nll
from likely.files.sheets import save_png
from likely.jobs.evaluate import split_of
from likely.jobs.restoration import calibrated, coverage, floors
from likely.jobs.restore import Task, made_smaller, restore
from likely.settings import FitSettings, to_json
from likely.training.loop import fit
from likely.verify import verify

DRAWS, BLOCK = 64, 4
SPLITS = ("test", "validation")  # what is measured, and what the width of intervals is chosen on
FIT = FitSettings(
    steps=2000, batch_size=16, optimizer="muon", learning_rate=0.01, schedule="linear",
    warmup=100, beta1=0.95, beta2=0.99, clip=0.0, ema=0.99, validate_every=500,
    validation_examples=300, log_every=10,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is fitted, and what it is asked.

    Attributes:
        data, model, changes, steps: of the fit.
        tasks: name of the figures, by what is asked.
    """

    data: str
    model: str
    changes: dict[str, Any]
    steps: int
    tasks: dict[str, Task]


RECIPES = {
    "cifar10-colour": Recipe(
        "cifar10",
        "luma-chroma",
        {"channels": 24, "base_layers": 4, "layers": 3, "head_channels": 48, "features": 32},
        6000,
        {"colorize/cifar10": Task()},
    ),
    "cifar10-scale": Recipe(
        "cifar10",
        "haar-pyramid",
        {"channels": 32, "base_layers": 4, "layers": 4, "head_channels": 64, "features": 48},
        20_000,
        {"upscale/cifar10-x2": Task(2), "upscale/cifar10-x4": Task(4)},
    ),
    "fashion-mnist-scale": Recipe(
        "fashion-mnist",
        "haar-pyramid",
        {"channels": 32, "base_layers": 4, "layers": 3, "head_channels": 64, "features": 32},
        1500,
        {"upscale/fashion-mnist-x2": Task(2), "upscale/fashion-mnist-x4": Task(4)},
    ),
}


def fitted(name: str, folder: Path) -> None:
    """Fit, or go on with it."""
    recipe = RECIPES[name]
    train, _ = data.load(recipe.data)
    settings = dataclasses.replace(FIT, steps=recipe.steps)
    model = runs.build(recipe.model, train.spec, recipe.changes, settings.seed)
    print(fit(model, train, settings=settings, out=folder).status)


def blocks(folder: Path, label: str, task: Task, split: str, images: int) -> list[dict[str, float]]:
    """Measures of each block of images of a split; those that are kept are read.

    How eccentric the truth of each dimension is among the draws goes into a file a block.
    """
    path = folder / f"{label.replace('/', '-')}-{split}.jsonl"
    done = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    run = runs.load(folder)
    test = split_of(*data.load(run.model.spec.name), split)
    for first in range(BLOCK * len(done), images, BLOCK):
        x = torch.from_numpy(test[first : first + BLOCK].astype("int64"))
        began = time.perf_counter()
        result = restore(run.model, task, None, x, DRAWS, seed=first, block=BLOCK)
        assert result.bits is not None
        record = {**result.measures(first), "bits": result.bits.value, "exact": result.exact}
        record["seconds"] = (time.perf_counter() - began) / BLOCK
        masses_of(path, first).parent.mkdir(exist_ok=True)
        np.save(masses_of(path, first), result.eccentricities(first).astype(np.float32))
        with path.open("a") as file:
            file.write(json.dumps(record) + "\n")
        done.append(record)
        if first == 0 and split == "test":
            save_png(result.sheet(label), RESULTS / f"enlarge-{label.replace('/', '-')}.png")
        print(f"{time.strftime('%H:%M:%S')} {label} {split} {first + BLOCK}/{images}: "
              f"mean {record['psnr-mean']:.2f} dB", flush=True)  # fmt: skip
    return done


def masses_of(path: Path, first: int) -> Path:
    """The eccentricities of the block that begins with an image."""
    return path.with_suffix("") / f"{first}.npy"


def with_calibration(folder: Path, label: str, records: list[dict[str, float]]) -> float:
    """The mass of intervals that hold 90 % of validation images; what they hold goes to records."""
    tested, others = (folder / f"{label.replace('/', '-')}-{part}.jsonl" for part in SPLITS)
    seen = [np.load(file) for file in sorted(others.with_suffix("").glob("*.npy"))]
    mass = calibrated(np.concatenate(seen))
    for block, record in enumerate(records):
        masses = np.load(masses_of(tested, BLOCK * block))
        record["coverage-calibrated"] = coverage(masses, mass)
    return mass


def parts(folder: Path, examples: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Bits/dim of test images, what the parts hold of them, and the proofs of the density."""
    run = runs.load(folder)
    model = run.model
    assert isinstance(model, Split)
    _, test = data.load(model.spec.name)
    kept = folder / "parts.json"
    if not kept.exists():
        some = test.take(slice(0, examples))
        proofs = verify(model, test, quick=True)
        estimate = per_example_nll(model, some, proofs=proofs).bits_per_dim()
        x = torch.from_numpy(some[:].astype("int64"))
        with torch.no_grad():
            of_parts = [model.log_parts(part) for part in x.split(50)]
            whole = torch.cat([model.log_prob(part) for part in x.split(50)])
        base, rest = (torch.cat(part) for part in zip(*of_parts, strict=True))
        scale = -model.spec.dimensions * math.log(2)
        figures = {
            "bits-per-dim": estimate.value,
            "bits-per-dim-standard-error": estimate.standard_error,
            "bits-of-the-base": float(base.mean()) / scale,
            "bits-of-the-rest": float(rest.mean()) / scale,
            "parts-off-by": float((base.double() + rest.double() - whole.double()).abs().max())
            / -scale,
        }
        kept.write_text(json.dumps({"figures": figures, "proofs": proofs.to_json()}))
    record = json.loads(kept.read_text())
    fields = to_json(model.settings)
    return record["figures"], {"settings": fields, "proofs": record["proofs"], "n": examples}


def without_a_model(folder: Path, task: Task, images: int) -> dict[str, tuple[float, float]]:
    """PSNR of the floors on the same images."""
    model = runs.load(folder).model
    _, test = data.load(model.spec.name)
    x = torch.from_numpy(test[:images].astype("int64"))
    base = made_smaller(model, x, task).numpy()
    values = floors(base, x.numpy(), model.spec.levels)
    error = images**-0.5
    return {f"psnr-{key}": (float(v.mean()), float(v.std(ddof=1)) * error)
            for key, v in values.items()}  # fmt: skip


def mean_and_error(records: list[dict[str, float]], key: str) -> tuple[float, float]:
    values = torch.tensor([record[key] for record in records], dtype=torch.float64)
    error = values.std() / math.sqrt(len(values)) if len(values) > 1 else torch.tensor(math.nan)
    return float(values.mean()), float(error)


def measure(work: Path, images: int, examples: int, wanted: list[str] | None) -> None:
    """Everything that is fitted, or more images of some tasks; writes the result after each run.

    Rows of runs that are not in `work` stay.
    """
    path = RESULTS / "enlarge.json"
    before = json.loads(path.read_text()) if path.exists() else {"figures": {}, "about": {}}
    figures: dict[str, float] = before["figures"]
    about: dict[str, Any] = before["about"] | {"draws": DRAWS}
    consistency: list[float] = [figures.get("upscale/consistency-error", 0.0)]
    for name, recipe in RECIPES.items():
        folder = work / name
        if not (folder / "weights.safetensors").exists():
            continue
        of_parts, about[name] = parts(folder, examples)
        about[name]["steps"] = recipe.steps
        figures |= {f"enlarge/{name}/{key}": value for key, value in of_parts.items()}
        for label, task in recipe.tasks.items():
            more = wanted is None or label in wanted
            records, others = (
                blocks(folder, label, task, split, images if more else 0) for split in SPLITS
            )
            mass = with_calibration(folder, label, records)
            assert all(record["exact"] for record in records)
            about[label] = {key: mean_and_error(records, key) for key in records[0]}
            about[label] |= without_a_model(folder, task, BLOCK * len(records))
            about[label] |= {
                "images": BLOCK * len(records),
                "interval-mass": mass,
                "calibrated-on": BLOCK * len(others),
            }
            for key in about[label]:
                if key.startswith(("psnr", "bits", "coverage", "diversity", "seconds")):
                    figures[f"{label}/{key}"] = about[label][key][0]
            consistency += [record["consistency"] for record in records]
        figures["upscale/consistency-error"] = max(consistency)
        write_result("enlarge", figures, {"fit": to_json(FIT)}, about, part=name)
    for label, value in figures.items():
        print(f"{label}: {value:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("fit", "measure"))
    parser.add_argument("name", nargs="?", choices=RECIPES, help="of what is fitted")
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--images", type=int, default=100, help="test images that are drawn for, "
                        "where fewer were")  # fmt: skip
    parser.add_argument("--task", action="append", help="of the tasks these alone draw for more "
                        "images; what is kept of the others stays")  # fmt: skip
    parser.add_argument("--examples", type=int, default=1000, help="test images of the bits/dim")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.what == "fit":
        fitted(options.name, options.work / options.name)
    else:
        measure(options.work, options.images, options.examples, options.task)


if __name__ == "__main__":
    main()
