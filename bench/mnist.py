"""Training to a published number on statically binarised MNIST, or Fashion-MNIST; resumable.

    python bench/mnist.py gated-pixelcnn --out runs/mnist-gated-pixelcnn
    python bench/mnist.py attention      --out runs/mnist-attention --steps 60000
    python bench/mnist.py pixelcnn       --out runs/mnist-pixelcnn
    python bench/mnist.py pixelcnn-pp    --out runs/mnist-pixelcnn-pp
    python bench/mnist.py fvsbn          --out runs/mnist-fvsbn
    python bench/mnist.py nade           --out runs/mnist-nade
    python bench/mnist.py made           --out runs/mnist-made
    python bench/mnist.py made-small     --out runs/mnist-made-small
    python bench/mnist.py deep-nade      --out runs/mnist-deep-nade
    python bench/mnist.py vae            --out runs/mnist-vae
    python bench/mnist.py vae-flow-prior --out runs/mnist-vae-flow-prior
    python bench/mnist.py pixel-vae      --out runs/mnist-pixel-vae
    python bench/mnist.py vq-vae         --out runs/mnist-vq-vae
    python bench/mnist.py rbm            --out runs/mnist-rbm
    python bench/mnist.py vae-dense      --out runs/mnist-vae-dense
    python bench/mnist.py iwae-5         --out runs/mnist-iwae-5 --train-only
    python bench/mnist.py iwae-50        --out runs/mnist-iwae-50 --start-from runs/mnist-iwae-5
    python bench/mnist.py dcgan          --out runs/mnist-dcgan
    python bench/mnist.py dcgan          --out runs/fashion-dcgan --data fashion

    python bench/mnist.py pixelcnn --out runs/more --start-from runs/mnist-pixelcnn --steps 3000
    python bench/mnist.py vae --weights bench/results/mnist-static-vae    # measure only

Each command trains (or resumes where it was stopped), proves the density, reads the test split
once at the end, and writes bench/results/mnist-static-<model>.json, with the run (weights,
settings, records, samples) in the folder of the same name beside it. Weights over 5 MB are
rounded to half precision before they are measured: what is kept is what was measured.
Anyone can recheck:

    likely evaluate bench/results/mnist-static-vae --importance-samples 500

Needs the data: LIKELY_DATA, or a network for the first download.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common import RESULTS, portable, sha256, write_result
from likely import data, runs
from likely.ask.likelihood import has_likelihood
from likely.density import DiscreteLatent, GenerativeModel, LatentVariable, TractableDensity
from likely.devices import choose_device
from likely.estimate import Relation
from likely.evaluate.codes import code_usage
from likely.evaluate.likelihood import latent_diagnostics
from likely.files.sheets import sample_sheet, save_png
from likely.jobs import evaluate as jobs
from likely.jobs.evaluate import EvaluateSettings, reference_for
from likely.runs.checkpoint import read_json, read_tensors, write_json, write_tensors
from likely.settings import to_json
from likely.training.loop import fit
from likely.training.run import Run
from likely.verify import verify
from recipes import CONTINUED, FASHION, ON_A_GPU, RECIPES

BEFORE = "fit-before.json"  # of the run whose weights a warm restart began with
KEPT = ("config.json", "fit.json", "environment.json", "metrics.jsonl", "weights.safetensors")
LARGEST = 5_000_000  # bytes; larger weights are not kept
PER_IMAGE = "test-nats.npy"
MNIST = "mnist-static"
# Arguments of `likely.data.load` by what figures and results call the data.
DATA: dict[str, dict[str, Any]] = {
    MNIST: {"source": "mnist", "binarize": "static"},
    "fashion": {"source": "fashion-mnist"},
}
LABELS = {
    Relation.EXACT: "test-nats",
    Relation.UPPER: "test-bound-nats",
    Relation.LOWER: "test-ais-nats",  # log Z by annealing
}
HALF = "half"  # the folder of a run whose weights are rounded


def show(run: Run, record: dict[str, float]) -> None:
    """One line a validation, or now and then where there is none."""
    if "validation" in record or run.step % 500 == 0:
        losses = ", ".join(
            f"{name} {record[name]:.3f}"
            for name in ("validation", "generator_loss", "discriminator_loss")
            if name in record
        )
        clock = time.strftime("%H:%M:%S")
        print(
            f"{clock} step {run.step} of {run.settings.steps}: {losses}, {run.seconds:.0f} s",
            flush=True,
        )


def measure(
    name: str,
    model: GenerativeModel,
    train: data.Dataset,
    test: data.Dataset,
    folder: Path,
    where: str = MNIST,
) -> tuple[dict[str, float], dict[str, Any]]:
    """Figures and what stands behind them; the one reading of the test split.

    The nats of each test image go to test-nats.npy in `folder`, for paired comparisons.
    """
    proofs = verify(model, test)
    samples = (RECIPES | ON_A_GPU)[name].importance_samples
    settings = EvaluateSettings(importance_samples=samples)
    reference = reference_for(train, test)
    measured = jobs.measure(
        model, train, test, settings, proofs=proofs, reference=reference, progress=told
    )
    if measured.per_example is None and has_likelihood(model):
        raise SystemExit(f"nothing is written: {measured.unanswerable['nll']}")
    figures: dict[str, float] = {}
    about: dict[str, Any] = {
        "test": test.spec.to_json(), "fingerprint": test.spec.fingerprint,
        "proofs": proofs.to_json(), "extractor": reference.extractor.description,
        "floor": [estimate.to_json() for estimate in reference.floor], "samples": [],
    }  # fmt: skip
    prefix = f"{where}/{name}"
    if measured.per_example is not None:
        nats = measured["nll"]
        label = LABELS[nats.relation]
        if isinstance(model, LatentVariable):
            label = f"test-iw{samples}-nats"
        np.save(folder / PER_IMAGE, np.array(measured.per_example, np.float32))
        figures[f"{prefix}/{label}"] = nats.value
        figures[f"{prefix}/{label}-standard-error"] = nats.standard_error
        about["estimate"] = nats.to_json()
    if isinstance(model, LatentVariable):
        figures[f"{prefix}/test-elbo-nats"] = measured.estimates[0].value
        figures[f"{prefix}/kl-nats"] = measured["rate"].value
        figures |= {
            f"{prefix}/kl-layer-{i}-nats": measured[f"rate-layer-{i}"].value
            for i in range(1, model.layers + 1)
            if model.layers > 1
        }
        about["active units"] = latent_diagnostics(model, test).active
    if isinstance(model, DiscreteLatent):
        usage = code_usage(model, train)  # an epoch of the images that it was fitted to
        figures[f"{prefix}/codes-used-percent"] = 100.0 * usage.used / usage.codes
        figures[f"{prefix}/code-perplexity"] = usage.perplexity.value
        figures[f"{prefix}/rate-nats"] = measured["rate"].value
    for estimate in measured.estimates:
        if estimate.quantity in {each.quantity for each in reference.floor}:
            about["samples"].append(estimate.to_json())
        elif estimate.quantity != "sampling-speed":
            continue
        figures[f"{prefix}/{estimate.quantity}"] = estimate.value
    for estimate in reference.floor:
        figures[f"{prefix}/floor/{estimate.quantity}"] = estimate.value
    return figures, about


def told(stage: str, done: float, total: float) -> None:
    """A line where a stage ends."""
    if done >= total:
        print(stage, flush=True)


def folder_of(name: str, where: str = MNIST) -> Path:
    """Where what is kept of a model goes."""
    folder = RESULTS / f"{where}-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def keep(out: Path, folder: Path, model: GenerativeModel) -> None:
    """Copy what is needed to use and recheck the run, and draw a sheet."""
    for file in (*KEPT, BEFORE):
        if file == BEFORE and not (out / file).exists():
            continue
        if out.resolve() != folder.resolve() and (out / file).stat().st_size <= LARGEST:
            shutil.copyfile(out / file, folder / file)
    sheet = sample_sheet(model.sample(100, seed=1), model.spec.levels, columns=20)
    save_png(sheet, folder / "samples.png")


def trained(options: argparse.Namespace) -> bool:
    """Train, or resume; whether it finished."""
    recipes = RECIPES
    if choose_device(options.device).type == "cuda":
        recipes = RECIPES | ON_A_GPU
    if options.start_from is not None:
        recipes = recipes | CONTINUED
    recipe = recipes[options.model] if options.data == MNIST else FASHION[options.model]
    train, _ = data.load(**DATA[options.data])
    settings = dataclasses.replace(recipe.fit, device=options.device)
    if options.steps is not None:
        settings = dataclasses.replace(settings, steps=options.steps)
    if options.learning_rate is not None:
        settings = dataclasses.replace(settings, learning_rate=options.learning_rate)
    model = runs.build(recipe.model, train.spec, recipe.changes, settings.seed)
    if options.start_from is not None:
        begin_from(model, runs.load(options.start_from).model)
        model.origin = portable(str(options.start_from))
    run = fit(model, train, recipe.objective, settings, out=options.out, progress=show)
    if options.start_from is not None:
        write_json(options.out / BEFORE, before(options.start_from))
    print(run.status, flush=True)
    return run.finished


def before(folder: Path) -> dict[str, Any]:
    """Settings of the run whose weights are gone on from, and what all its updates took."""
    fitted: dict[str, Any] = read_json(folder / "fit.json")
    return {**fitted, "took": took(folder)}


def took(folder: Path) -> dict[str, Any]:
    """Updates, seconds and hardware of a finished run, and of the runs that it went on from.

    The seconds are those of the clock beside the records, or of the result of a kept run.
    """
    made = read_json(folder / "environment.json")
    record: dict[str, Any] = {
        "steps": int(last_record(folder / "metrics.jsonl")["step"]),
        "trained on": made.get("cuda_device") or made["processor"],
    }
    result = folder.with_suffix(".json")
    if (folder / "timing.jsonl").exists():
        record["seconds"] = round(last_record(folder / "timing.jsonl")["seconds"], 1)
    elif result.exists() and "seconds" in (about := read_json(result)["about"]):
        record["seconds"] = about["seconds"]
    if (folder / BEFORE).exists() and "took" in (earlier := read_json(folder / BEFORE)):
        record["before"] = earlier["took"]
    return record


def begin_from(model: GenerativeModel, trained: GenerativeModel) -> None:
    """Give a model the weights of another whose kernels may be narrower; new taps are zero.

    Both have the same density. Kernels are known by their names: those that reach to both sides
    grow on both, the others where they reach, up or to the left, which comes first.
    """
    state = trained.state_dict()
    for name, target in model.state_dict().items():
        room = [new - old for new, old in zip(target.shape, state[name].shape, strict=True)]
        sides = [(more, 0) for more in room]
        if name == "first.above" or ".lstm.weights." in name:
            sides[-1] = (room[-1] // 2, room[-1] - room[-1] // 2)
        flat = [side for pair in reversed(sides) for side in pair]
        state[name] = torch.nn.functional.pad(state[name], flat)
    model.load_state_dict(state)
    x = torch.zeros(1, *model.spec.shape, dtype=torch.int64)
    if isinstance(model, TractableDensity) and isinstance(trained, TractableDensity):
        with torch.no_grad():
            apart = float((model.eval().log_prob(x) - trained.eval().log_prob(x)).abs())
        assert apart < 1e-2, f"the wider kernels changed the density by {apart} nats"


def halved(folder: Path) -> Path:
    """The same run with weights of half precision, in a folder inside."""
    half = folder / HALF
    half.mkdir(exist_ok=True)
    for file in (*KEPT, BEFORE):
        if file in KEPT or (folder / file).exists():
            shutil.copyfile(folder / file, half / file)
    weights, about = read_tensors(folder / "weights.safetensors")
    write_tensors(
        half / "weights.safetensors",
        {n: w.half() if w.is_floating_point() else w for n, w in weights.items()},
        about,
    )
    return half


def last_record(path: Path) -> dict[str, float]:
    """The last line of a file of records."""
    record: dict[str, float] = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=RECIPES | ON_A_GPU)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=Path, help="directory of the run: train, then measure")
    where.add_argument("--weights", type=Path, help="directory of a finished run: measure only")
    parser.add_argument("--data", choices=DATA, default=MNIST)
    parser.add_argument("--steps", type=int, help="in place of the recipe's")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu", help="cuda takes larger networks, where known")
    parser.add_argument(
        "--start-from",
        type=Path,
        help="a finished run of the same model: go on "
        "from its weights (a warm restart, Loshchilov and Hutter 2017)",
    )
    parser.add_argument("--learning-rate", type=float, help="in place of the recipe's")
    parser.add_argument("--train-only", action="store_true", help="measure later, by --weights")
    options = parser.parse_args()
    if options.data != MNIST and options.model not in FASHION:
        parser.error(f"recipes for {options.data}: {', '.join(FASHION)}")
    torch.set_num_threads(options.threads)
    if options.weights is None and (not trained(options) or options.train_only):
        return
    folder = options.weights or options.out
    seconds = took(folder)
    if (folder / "weights.safetensors").stat().st_size > LARGEST:
        folder = halved(folder)
    # As anyone will read it: from the files.
    model = runs.load(folder).model
    train, test = data.load(**DATA[options.data])
    kept = folder_of(options.model, options.data)
    figures, about = measure(options.model, model, train, test, kept, options.data)
    about |= {"parameters": sum(p.numel() for p in model.parameters()), **seconds}
    about["weights sha256"] = sha256(folder / "weights.safetensors")
    settings = {"model": to_json(model.settings), **read_json(folder / "fit.json")}
    if (folder / BEFORE).exists():
        settings["before"] = read_json(folder / BEFORE)
    keep(folder, kept, model)
    path = write_result(kept.name, figures, settings, about)
    for name, value in figures.items():
        print(f"{name}: {value:.4f}")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
