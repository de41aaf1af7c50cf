"""log p(x) of a VAE as near as it can be had: bounds beside quadrature.

    LIKELY_DATA=... python bench/annealed.py --out /somewhere    # a few minutes

A dense VAE of two latents is fitted to statically binarised MNIST (a run below --out that resumes).
On 1,000 test images ELBO, L_k and the annealed bound are held against log p(x) by quadrature, image
by image. Nothing is chosen by these numbers.

Result: bench/results/annealed.json and annealed.png.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import likely
from common import RESULTS, write_result
from likely import data
from likely.evaluate.annealed import Annealed, AnnealedSettings, annealed
from likely.models.vae.settings import VAESettings
from likely.models.vae.vae import VAE
from likely.settings import FitSettings, to_json

NAMES = ("ELBO", "L_k", "AIS", "exact")


def fit_on_two_latents(out: Path, steps: int) -> VAE:
    """A dense VAE of two latents on static MNIST."""
    train, _ = data.load("mnist", binarize="static")
    settings = VAESettings(latent=2, network="dense", hidden=200, layers=2)
    fit = FitSettings(steps=steps, batch_size=100, learning_rate=1e-3, warmup=100, ema=0.999)
    run = likely.fit(VAE(train.spec, settings), train, settings=fit, out=out / "vae-2")
    assert isinstance(run.model, VAE)
    return run.model


def quadrature(options: argparse.Namespace) -> None:
    """Four numbers for each image."""
    model = fit_on_two_latents(options.out, options.steps)
    _, test = data.load("mnist", binarize="static")
    settings = AnnealedSettings(
        n=options.images, temperatures=options.temperatures, chains=options.chains,
        leapfrogs=options.leapfrogs, simulated=0, importance_samples=options.importance_samples,
    )  # fmt: skip
    measured = annealed(model, test, settings)
    values = [-bound.values for bound in measured.bounds]  # log p(x), from the loosest on
    names = [NAMES[0], f"L_{options.importance_samples}", *NAMES[2:]]
    drawn(values, names, RESULTS / "annealed.png")
    rises = {
        f"{below} to {above}": paired(b - a)
        for below, above, a, b in zip(names, names[1:], values, values[1:], strict=False)
    }
    figures = {
        "quadrature/vae-2/" + name: float(-value.mean())
        for name, value in zip(
            ("elbo-nats", f"iw{options.importance_samples}-nats", "ais-nats", "exact-nats"),
            values,
            strict=True,
        )
    }
    about = {
        "images": len(values[0]),
        "rises": rises,
        "above exact": {
            name: {
                "images": int((value > values[3]).sum()),
                "most": float((value - values[3]).max()),
            }
            for name, value in zip(names[:3], values[:3], strict=True)
        },
        "fit": {"steps": options.steps},
        **about_of(measured),
    }
    write_result("annealed", figures, {}, {"quadrature": about})
    print(json.dumps({"figures": figures, "rises": rises, "above": about["above exact"]}, indent=1))
    print(measured)


def about_of(measured: Annealed) -> dict[str, Any]:
    """How it was measured."""
    return {
        "settings": to_json(measured.settings),
        "relations": [str(bound.nats()) for bound in measured.bounds],
        "acceptance": measured.acceptance,
        "effective": measured.effective,
        "seconds": measured.seconds,
        "notes": [bound.about for bound in measured.bounds],
    }


def paired(rise: np.ndarray[Any, Any]) -> dict[str, float]:
    """Mean and standard error of a difference, image by image, and its quantiles."""
    return {
        "mean": float(rise.mean()),
        "standard_error": float(rise.std(ddof=1) / math.sqrt(len(rise))),
        "least": float(rise.min()),
        "most": float(rise.max()),
    }


def drawn(values: list[np.ndarray[Any, Any]], names: list[str], path: Path) -> None:
    """How far below log p(x) each bound is: an image a point, and the share of images within."""
    exact = values[-1]
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    order = np.argsort(exact)
    colours = ("#b5b5b5", "#4477aa", "#cc3311")
    for value, name, colour in zip(values[:-1], names, colours, strict=False):
        below = exact - value
        left.plot(exact[order], below[order], ".", ms=3, color=colour, label=name)
        size = np.sort(np.abs(below))
        right.step(
            np.maximum(size, 1e-6), np.arange(1, len(size) + 1) / len(size), color=colour,
            label=f"{name}, mean {below.mean():.3g} nats",
        )  # fmt: skip
    left.axhline(0, color="black", lw=0.8)
    left.set_yscale("symlog", linthresh=0.01)
    left.set_xlabel("log p(x) by quadrature, nats")
    left.set_ylabel("how far the bound lies below it, nats")
    left.set_title(f"{len(exact)} test images, a VAE of two latents")
    left.legend(loc="upper right", markerscale=3)
    right.set_xscale("log")
    right.set_xlabel("distance from log p(x), nats")
    right.set_ylabel("share of images within")
    right.set_ylim(0, 1)
    right.legend(loc="upper left")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--steps", type=int, default=4000, help="of the fit")
    parser.add_argument("--images", type=int, default=1000, help="of the test split")
    parser.add_argument("--importance-samples", type=int, default=100, help="k of L_k")
    parser.add_argument("--temperatures", type=int, default=50)
    parser.add_argument("--chains", type=int, default=8)
    parser.add_argument("--leapfrogs", type=int, default=3)
    quadrature(parser.parse_args())


if __name__ == "__main__":
    main()
