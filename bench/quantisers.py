"""Which quantiser a VQ-VAE should have: three of 512 codes, one network, equal updates.

    python bench/quantisers.py --work runs/quantisers    # an hour of one core; resumable

Static MNIST, four seeds, the loss of the paper. Every quantiser takes the same batches. The bound
is of the validation split (the test split is not read), codes are counted over an epoch of training
images. Differences from the default are paired by seed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from common import write_result
from likely import data, runs
from likely.evaluate.codes import code_usage
from likely.runs.checkpoint import write_json
from likely.settings import to_json
from likely.training.loop import fit
from likely.training.objectives import QuantisedBound
from recipes import VQ

KINDS: dict[str, dict[str, Any]] = {
    "ema": {"quantiser": "ema"},
    "simvq": {"quantiser": "simvq"},
    "fsq": {"quantiser": "fsq", "grid_levels": (8, 8, 8)},
}
FIT = dataclasses.replace(VQ, steps=2000, validate_every=2000, validation_examples=200)


def measure(kind: str, seed: int, folder: Path) -> dict[str, float]:
    """Bound and codes of one fit."""
    train, _ = data.load("mnist", binarize="static")
    assert train.validation is not None
    model = runs.build("vq-vae", train.spec, KINDS[kind], seed)
    began = time.process_time()
    run = fit(
        model, train, QuantisedBound(encoder_steps=FIT.steps * 3 // 5),
        settings=dataclasses.replace(FIT, seed=seed), out=folder,
    )  # fmt: skip
    seconds = time.process_time() - began
    unseen, epoch = (code_usage(run.model, part) for part in (train.validation, train))
    return {
        "nats": unseen.rate.value + unseen.distortion.value,
        "rate": unseen.rate.value,
        "used-percent": 100 * epoch.used / epoch.codes,
        "perplexity": epoch.perplexity.value,
        "processor-seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/quantisers"), help="folder of runs")
    parser.add_argument("--seeds", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    measured: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for seed in range(options.seeds):
        for kind, records in measured.items():
            folder = options.work / f"{kind}-{seed}"
            path = folder / "measured.json"
            if not path.exists():
                write_json(path, measure(kind, seed, folder))
            records.append(json.loads(path.read_text(encoding="utf-8")))
            print(f"{kind}, seed {seed}: {records[-1]}", flush=True)
    figures: dict[str, float] = {}
    for kind, records in measured.items():
        at = f"quantisers/{kind}"
        worse = [r["nats"] - d["nats"] for r, d in zip(records, measured["ema"], strict=True)]
        for figure, values in {
            "validation-bound-nats": [r["nats"] for r in records],
            "validation-rate-nats": [r["rate"] for r in records],
            "codes-used-percent": [r["used-percent"] for r in records],
            "code-perplexity": [r["perplexity"] for r in records],
            **({} if kind == "ema" else {"worse-nats": worse}),
        }.items():
            figures[f"{at}/{figure}"] = round(statistics.mean(values), 3)
            if len(values) > 1 and figure in ("validation-bound-nats", "worse-nats"):
                figures[f"{at}/{figure}-spread"] = round(max(values) - min(values), 3)
    about = {"runs": measured, "seeds": options.seeds}
    path = write_result("quantisers", figures, {"fit": to_json(FIT), "kinds": KINDS}, about)
    print(f"written to {path}")


if __name__ == "__main__":
    main()
