"""Image flows on 8-bit MNIST: uniform and variational dequantisation, bits per dimension.

    LIKELY_DATA=... python bench/flows.py --out /somewhere       # trains, measures, writes
    ... python bench/flows.py --out /somewhere --only uniform     # one of the two
    ... python bench/flows.py --out /somewhere --measure          # no training

The same flow twice; only q(u | x) differs. Training goes on where it was stopped, in runs below
--out, and more --steps prolong it (a constant rate, averaged weights). Optimiser and size were
chosen on the validation split; the test split is read once, at the end, with one draw of u (the
ELBO) and with k draws (the importance-weighted bound).
Both bound the code length of the integers from above. The published numbers are those of the UvA
Deep Learning course (tutorial 11), whose networks are trained for hundreds of epochs on a GPU.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import likely
from common import RESULTS, write_result
from likely import data, runs
from likely.models.flow.image_flow import ImageFlow
from likely.models.flow.settings import ImageFlowSettings
from likely.settings import FitSettings, to_json

NAMES = {"uniform": "flow-uniform", "variational": "flow-vardeq"}
PUBLISHED = {"uniform": 1.08, "variational": 1.04}


def settings_of(dequantizer: str, steps: int) -> tuple[ImageFlowSettings, FitSettings]:
    """Of the model and of its fit."""
    network = ImageFlowSettings(dequantizer, channels=32, couplings=6)  # type: ignore[arg-type]
    fit = FitSettings(
        steps=steps, batch_size=64, optimizer="muon", learning_rate=0.015, beta1=0.95, beta2=0.99,
        schedule="constant", warmup=50, clip=100.0, ema=0.997, log_every=50, validate_every=250,
        checkpoint_seconds=60,
    )  # fmt: skip
    return network, fit


def fitted(dequantizer: str, folder: Path, steps: int) -> None:
    """Train, or go on."""
    train, _ = data.load("mnist")
    network, fit = settings_of(dequantizer, steps)
    run = likely.fit(ImageFlow(train.spec, network), train, settings=fit, out=folder)
    if not run.finished:
        raise SystemExit(run.status)


def measured(folder: Path, k: int) -> dict[str, Any]:
    """The numbers of the test split, of the averaged weights that the run has."""
    run = runs.load(folder)
    _, test = data.load("mnist")
    records = run.metrics
    steps, batch = int(records[-1]["step"]), int(run.files.fit()["fit"]["batch_size"])
    checked = [record["validation"] for record in records if "validation" in record]
    about = {
        "status": run.state,
        "steps": steps,
        "images": steps * batch,
        "validation_bits": checked[-1] / test.spec.dimensions / math.log(2) if checked else None,
        "seconds": run.files.seconds(),
        "weights": sum(p.numel() for p in run.model.parameters()),
        "network": to_json(run.model.settings),
        "fit": run.files.fit()["fit"],
    }
    for name, samples in {"test": None, f"test-iw{k}": k or None}.items():
        if name == "test" or samples:
            estimate = likely.bits_per_dim(run.model, test, importance_samples=samples)
            print(f"{folder.name}, {name}: {estimate}", flush=True)
            about[name] = estimate.to_json()
    return about


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--only", choices=sorted(NAMES), help="one of the two")
    parser.add_argument("--steps", type=int, default=1500, help="of each fit; more prolong it")
    parser.add_argument("-k", type=int, default=8, help="draws of the other bound; 0 for none")
    parser.add_argument("--measure", action="store_true", help="the runs as they are, untrained")
    options = parser.parse_args()
    path = RESULTS / "flows.json"
    for dequantizer in [options.only] if options.only else NAMES:
        folder = options.out / NAMES[dequantizer]
        if not options.measure:
            fitted(dequantizer, folder, options.steps)
        entry = measured(folder, options.k)
        # Read late: the other one may have been measured meanwhile.
        about = json.loads(path.read_text())["about"] if path.exists() else {}
        about[dequantizer] = entry
        figures = {}
        for which, entry_of in about.items():
            for name in (name for name in entry_of if name.startswith("test")):
                figure = f"mnist-8bit/{NAMES[which]}/{name}-bits-per-dim"
                figures[figure] = entry_of[name]["value"]
                figures[f"{figure}-standard-error"] = entry_of[name]["standard_error"]
        write_result("flows", figures, {"published": PUBLISHED}, about)


if __name__ == "__main__":
    main()
