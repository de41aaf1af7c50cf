"""Which modes a generator loses: 25 Gaussians, and stacked MNIST by the protocol of VEEGAN.

    python bench/games.py gaussians --out DIR                   # five seeds of each game
    LIKELY_DATA=... python bench/games.py stacked --out DIR     # all rows, or those named
    LIKELY_DATA=... python bench/games.py stacked --out DIR relativistic

Fits go on where they were stopped, in runs below --out; a row or seed that is measured is replaced
in the result, the others stay. Settings were chosen on other seeds than those of the result.

`gaussians` (Srivastava et al. 2017, https://arxiv.org/abs/1705.07761): 2,500 samples of each fit; a
sample within three standard deviations of a mean is of high quality, a mode with at least one is
covered, and the KL divergence is of the shares of the nearest modes from uniform. Of samples of the
true law they are 98.89 %, 25, and 0.0047.

`stacked`: 128,000 triples of MNIST digits, three channels, 1,000 modes; 26,000 samples, whose
channels a classifier of digits reads. Its test accuracy is printed first, and real triples of the
test split beside the samples. The networks are half as wide as DCGAN's and see 512,000 images (the
published rows: 50 epochs, 6.4 million), so a row takes twelve minutes of one core.

Results: bench/results/gan-gaussians-25.json and gan-stacked-mnist.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import likely
from common import RESULTS, write_result
from likely import data, models
from likely.evaluate.classifier import NetworkFeatures, default_extractor
from likely.settings import FitSettings, to_json
from likely.training.adversarial import Game, NonSaturatingGAN, RelativisticGAN

Integers = npt.NDArray[np.int64]


def coverage(labels: Integers, modes: int) -> tuple[int, float]:
    """(modes with at least one sample, KL of the shares of the modes from uniform in nats)."""
    counts = np.bincount(labels, minlength=modes)
    shares = counts[counts > 0] / counts.sum()
    return len(shares), float((shares * np.log(shares * modes)).sum())


def merged(name: str, key: str, entry: dict[str, Any]) -> dict[str, Any]:
    """The rows that the result has, with this one; read late, as another may have been written."""
    path = RESULTS / f"{name}.json"
    rows: dict[str, Any] = json.loads(path.read_text())["about"]["rows"] if path.exists() else {}
    return {**rows, key: entry}


# -- stacked MNIST --------------------------------------------------------------------------------

STACKED = "gan-stacked-mnist"
SAMPLES = 26_000
_2016 = FitSettings(
    steps=8000, batch_size=64, learning_rate=2e-4, schedule="constant", warmup=0, beta1=0.5,
    clip=0.0, ema=0.0, log_every=50,
)  # fmt: skip
_2024 = dataclasses.replace(
    _2016, learning_rate=5e-4, schedule="cosine", final_learning_rate=0.1, beta1=0.0, beta2=0.9,
    ema=0.999,
)  # fmt: skip
ROWS: dict[str, tuple[str, Game, FitSettings]] = {
    "dcgan": ("batch", NonSaturatingGAN(), _2016),
    "packed": ("batch", NonSaturatingGAN(packing=2), _2016),
    "relativistic": ("none", RelativisticGAN(penalty=1.0), _2024),
    "relativistic-packed": ("none", RelativisticGAN(penalty=1.0, packing=2), _2024),
}
# Srivastava et al. 2017, and Lin et al. 2018 (PacDCGAN2): modes, KL.
PUBLISHED = {"dcgan": (99.0, 3.40), "veegan": (150.0, 2.95), "pac-dcgan-2": (1000.0, 0.06)}


def judged(judge: NetworkFeatures, x: npt.NDArray[Any]) -> Integers:
    """The number that the digits of each triple write, [N], of integers [N, 3, 28, 28]."""
    images = torch.from_numpy(np.ascontiguousarray(x)).reshape(-1, 1, *x.shape[2:])
    digits = judge.labels(images).reshape(-1, 3)
    return (digits @ torch.tensor([100, 10, 1])).numpy()


def stacked(folder: Path, names: list[str], steps: int | None) -> None:
    """Fit, judge and write the rows named."""
    mnist, mnist_test = data.load("mnist")
    judge = default_extractor(mnist)
    assert mnist_test.labels is not None
    read = judge.labels(torch.from_numpy(mnist_test.values)).numpy()
    accuracy = float((read == mnist_test.labels).mean())
    print(f"judge: {accuracy:.2%} of the test digits of MNIST read right", flush=True)
    train, test = data.load("stacked-mnist")
    floor = coverage(judged(judge, test.values[:SAMPLES]), 1000)
    print(f"real triples of the test split: {floor[0]} modes, KL {floor[1]:.4f}", flush=True)
    for name in names:
        normalize, game, fit = ROWS[name]
        fit = fit if steps is None else dataclasses.replace(fit, steps=steps)
        model = models.DCGAN(train.spec, latent=100, channels=32, normalize=normalize)
        run = likely.fit(model, train, game, fit, out=folder / name)
        if not run.finished:
            raise SystemExit(run.status)
        x = run.model.sample(SAMPLES, seed=1).numpy().astype(np.uint8)  # type: ignore[operator]
        modes, kl = coverage(judged(judge, x), 1000)
        print(f"{name}: {modes} of 1000 modes, KL {kl:.3f}", flush=True)
        entry = {
            "modes": modes, "kl": kl, "seconds": run.seconds, "fit": to_json(fit),
            "game": {"name": type(game).__name__, **to_json(game)},
            "network": to_json(model.settings), "findings": [str(f) for f in run.findings],
        }  # fmt: skip
        rows = merged(STACKED, name, entry)
        best = min(rows, key=lambda row: rows[row]["kl"])
        figures = {
            "gan/stacked-mnist/modes": float(rows[best]["modes"]),
            "gan/stacked-mnist/kl": rows[best]["kl"],
            "gan/stacked-mnist/floor-modes": float(floor[0]),
            "gan/stacked-mnist/floor-kl": floor[1],
            "gan/stacked-mnist/judge-accuracy": accuracy,
        }
        for row, values in rows.items():
            figures |= {f"gan/stacked-mnist/{row}/{key}": values[key] for key in ("modes", "kl")}
        about = {"best": best, "rows": rows, "published": PUBLISHED}
        write_result(STACKED, figures, {"samples": SAMPLES, "judge": judge.description}, about)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parts = parser.add_subparsers(dest="part", required=True)
    for name, choices in (("stacked", ROWS),):
        part = parts.add_parser(name)
        part.add_argument("rows", nargs="*", help=f"of {', '.join(choices)}; all by default")
        part.add_argument("--out", type=Path, required=True, help="folder of the runs")
        part.add_argument("--steps", type=int, help="of each fit, to try it out")
    options = parser.parse_args()
    stacked(options.out, options.rows or list(ROWS), options.steps)


if __name__ == "__main__":
    main()
