"""A mixture of Gated PixelCNNs that draw from different corners, on statically binarised MNIST.

    python bench/mnist_ensemble.py --out runs/corners                      # all, one by one
    python bench/mnist_ensemble.py --out runs/corners --corner top-right   # one network only
    python bench/mnist_ensemble.py --weights bench/results/mnist-static-gated-pixelcnn-ensemble

The networks are independent, so each is trained alone, by the recipe of `bench/mnist.py
gated-pixelcnn`, into OUT/<corner> (several at once where there are processors); each is resumed
where it was stopped. When all are finished they are put together, proven, and the test split is
read once; the result is written like those of `bench/mnist.py`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import torch

from common import write_result
from likely import data, runs
from likely.checkpoint import read_tensors, write_tensors
from likely.fit import fit
from likely.models.gated_pixelcnn import REVERSED, GatedPixelCNNEnsemble
from likely.settings import to_json
from mnist import folder_of, keep, measure, show
from recipes import RECIPES

NAME = "gated-pixelcnn-ensemble"
RECIPE = RECIPES["gated-pixelcnn"]
DATA = {"name": "mnist", "binarize": "static"}


def trained(folder: Path, corner: str, train: data.Dataset, steps: int | None) -> dict[str, Any]:
    """Train one network, or go on; what it took."""
    settings = RECIPE.fit
    # A run that is there keeps its length, and a finished one is taken as it is.
    fitted = folder / "fit.json"
    if fitted.exists():
        steps = int(json.loads(fitted.read_text(encoding="utf-8"))["fit"]["steps"])
        _, about = read_tensors(folder / "state.safetensors")
        if int(about["step"]) == steps:
            return {"steps": steps, "seconds": round(float(about["seconds"]), 1)}
    if steps is not None:
        settings = dataclasses.replace(settings, steps=steps)
    changes = RECIPE.changes | {"start": corner}
    model = runs.build(RECIPE.model, train.spec, changes, settings.seed)
    runs.describe(folder, RECIPE.model, model, DATA)
    run = fit(model, train, RECIPE.objective, settings, out=folder, progress=show)
    print(f"{corner}: {run.status}", flush=True)
    if not run.finished:
        raise SystemExit(1)
    return {"steps": run.step, "seconds": round(run.seconds, 1)}


def together(out: Path, corners: list[str], train: data.Dataset) -> GatedPixelCNNEnsemble:
    """The mixture of the finished networks."""
    changes = RECIPE.changes | {"corners": len(corners)}
    model = runs.build(NAME, train.spec, changes)
    assert isinstance(model, GatedPixelCNNEnsemble)
    for network, corner in zip(model.networks, corners, strict=True):
        tensors, _ = read_tensors(out / corner / "weights.safetensors")
        network.load_state_dict(tensors)
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=Path, help="directory of the runs, one a corner")
    where.add_argument("--weights", type=Path, help="a finished ensemble: measure only")
    parser.add_argument("--corners", type=int, default=2, help="how many, at most 4")
    parser.add_argument("--corner", choices=REVERSED, help="train this one and stop")
    parser.add_argument("--steps", type=int, help="in place of the recipe's, for new runs")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train, test = data.load("mnist", binarize="static")
    folder = folder_of(NAME)
    took: dict[str, Any] = {}
    if options.out is not None:
        corners = list(REVERSED)[: options.corners] if options.corner is None else [options.corner]
        each = {
            corner: trained(options.out / corner, corner, train, options.steps)
            for corner in corners
        }
        if options.corner is not None:
            return
        model = together(options.out, list(corners), train)
        runs.describe(folder, NAME, model, DATA)
        write_tensors(folder / "weights.safetensors", model.state_dict(), {})
        took = {
            "steps": sum(one["steps"] for one in each.values()),
            "seconds": round(sum(one["seconds"] for one in each.values()), 1),
            "networks": each,
        }
    # As anyone will read it: from the files.
    model = runs.load(options.weights or folder).model
    figures, about = measure(NAME, model, train, test, folder)
    about |= {"parameters": sum(p.numel() for p in model.parameters()), **took}
    settings = {"model": to_json(model.settings), "fit": to_json(RECIPE.fit)}
    keep(folder, NAME, model)
    path = write_result(f"mnist-static-{NAME}", figures, settings, about)
    for name, value in figures.items():
        print(f"{name}: {value:.4f}")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
