"""A mixture of networks that draw from different corners, on statically binarised MNIST.

    python bench/mnist_ensemble.py gated-pixelcnn --out runs/corners               # one by one
    python bench/mnist_ensemble.py diagonal-bilstm --corners 4 --out runs/corners  # all four
    python bench/mnist_ensemble.py gated-pixelcnn --out runs/corners --corner top-right   # one only
    python bench/mnist_ensemble.py gated-pixelcnn --weights DIRECTORY    # measure only

The networks are independent, so each is trained alone, by the recipe of `bench/mnist.py MODEL`,
into OUT/<corner> (several at once where there are processors, or on a GPU); each resumes where it
was stopped, and a finished one is taken as it is, also where OUT/<corner> is a copy of a folder
under bench/results. When all are finished they are put together, proven, and the test split is
read once; the result is written like those of `bench/mnist.py`.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import torch

from common import write_result
from likely import data, runs
from likely.density import Ensemble
from likely.devices import choose_device
from likely.models.pixelcnn.corners import CORNERS
from likely.runs.checkpoint import read_json, read_tensors
from likely.runs.resume import Description, describe_model
from likely.settings import to_json
from likely.training.loop import fit
from mnist import folder_of, keep, last_record, measure, show
from recipes import ON_A_GPU, RECIPES, Recipe


def trained(
    folder: Path, corner: str, recipe: Recipe, train: data.Dataset, steps: int | None, device: str
) -> dict[str, Any]:
    """Train one network, or resume; what it took."""
    settings = dataclasses.replace(recipe.fit, device=device)
    # A run that is there keeps its length, and a finished one is taken as it is.
    if (folder / "fit.json").exists():
        steps = int(read_json(folder / "fit.json")["fit"]["steps"])
        if int(last_record(folder / "metrics.jsonl")["step"]) == steps:
            timing, kept = folder / "timing.jsonl", folder.with_suffix(".json")
            seconds = (
                last_record(timing)["seconds"]
                if timing.exists()
                else read_json(kept)["about"]["seconds"]
            )
            environment = read_json(folder / "environment.json")
            on = environment.get("cuda_device") or environment["processor"]
            return {"steps": steps, "seconds": round(float(seconds), 1), "trained on": on}
    if steps is not None:
        settings = dataclasses.replace(settings, steps=steps)
    model = runs.build(recipe.model, train.spec, recipe.changes | {"start": corner}, settings.seed)
    run = fit(model, train, recipe.objective, settings, out=folder, progress=show)
    print(f"{corner}: {run.status}", flush=True)
    if not run.finished:
        raise SystemExit(1)
    return trained(folder, corner, recipe, train, steps, device)


def together(
    name: str, recipe: Recipe, out: Path, corners: list[str], train: data.Dataset
) -> Ensemble:
    """The mixture of the finished networks."""
    model = runs.build(name, train.spec, recipe.changes | {"corners": len(corners)})
    assert isinstance(model, Ensemble)
    for network, corner in zip(model.networks, corners, strict=True):
        tensors, _ = read_tensors(out / corner / "weights.safetensors")
        network.load_state_dict(tensors)
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=("gated-pixelcnn", "diagonal-bilstm"))
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=Path, help="directory of the runs, one per corner")
    where.add_argument("--weights", type=Path, help="a finished ensemble: measure only")
    parser.add_argument("--corners", type=int, default=2, help="how many, at most 4")
    parser.add_argument("--corner", choices=CORNERS, help="train this one and stop")
    parser.add_argument("--steps", type=int, help="in place of the recipe's, for new runs")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu", help="cuda takes larger networks, where known")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train, test = data.load("mnist", binarize="static")
    on_gpu = choose_device(options.device).type == "cuda"
    recipe = (ON_A_GPU if on_gpu else RECIPES).get(options.model, RECIPES[options.model])
    name = f"{options.model}-ensemble"
    folder = folder_of(name)
    took: dict[str, Any] = {}
    if options.out is not None:
        corners = list(CORNERS[: options.corners]) if options.corner is None else [options.corner]
        each = {
            corner: trained(
                options.out / corner, corner, recipe, train, options.steps, options.device
            )
            for corner in corners
        }
        if options.corner is not None:
            return
        # The networks' own sizes, wherever they were trained.
        sizes = read_json(options.out / corners[0] / "config.json")["settings"]
        recipe = dataclasses.replace(
            recipe, changes={key: sizes[key] for key in recipe.changes if key in sizes}
        )
        model = together(name, recipe, options.out, list(corners), train)
        files = runs.RunDirectory(folder)
        files.describe(Description(describe_model(model, train), {}))
        files.write_weights(model.state_dict(), {})
        took = {
            "steps": sum(network["steps"] for network in each.values()),
            "seconds": round(sum(network["seconds"] for network in each.values()), 1),
            "trained on": " and ".join(
                sorted({network["trained on"] for network in each.values()})
            ),
            "networks": each,
        }
    # As anyone will read it: from the files.
    model = runs.load(options.weights or folder).model
    figures, about = measure(name, model, train, test, folder)
    about |= {"parameters": sum(p.numel() for p in model.parameters()), **took}
    settings = {"model": to_json(model.settings), "fit": to_json(recipe.fit)}
    keep(folder, folder_of(name), model)
    path = write_result(f"mnist-static-{name}", figures, settings, about)
    for figure, value in figures.items():
        print(f"{figure}: {value:.4f}")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
