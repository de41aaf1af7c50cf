"""Draw what a pixel of an autoregressive model sees: docs/pictures/context-<model>.png.

    python docs/make_context_pictures.py fvsbn nade           # trained weights, where they are kept
    python docs/make_context_pictures.py --fresh fvsbn        # fresh weights of the 28x28 preset
    python docs/make_context_pictures.py --run runs/mine mine # weights of a run of your own

Trained weights are those of bench/results/mnist-static-<model>; without them the weights are
fresh ones, set at random so that no path through the network is hidden by a zero.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from likely import runs
from likely.data.spec import DataSpec
from likely.density import Autoregressive
from likely.report.context import save_context_picture

DOCS = Path(__file__).parent
RESULTS = DOCS.parent / "bench" / "results"


def model_for(name: str, run: Path, fresh: bool) -> Autoregressive:
    """The trained model where its weights are kept, or a fresh one."""
    if not fresh and (run / "weights.safetensors").exists():
        model = runs.load(run).model
    else:
        model = runs.build(name, DataSpec("binary", (1, 28, 28), 2), {}, 0)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    assert isinstance(model, Autoregressive), f"{name} has no conditionals to look at"
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--fresh", action="store_true", help="weights that were never trained")
    parser.add_argument("--run", type=Path, help="directory of a run, for one model")
    parser.add_argument("--folder", type=Path, default=DOCS / "pictures")
    options = parser.parse_args()
    for name in options.models:
        run = options.run or RESULTS / f"mnist-static-{name}"
        path = options.folder / f"context-{name}.png"
        save_context_picture(model_for(name, run, options.fresh), path)
        print(path)


if __name__ == "__main__":
    main()
