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
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure

import likely
from common import RESULTS, write_result
from likely import data, models
from likely.data.made import MEANS, SPREAD, coordinates
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


# -- 25 Gaussians -----------------------------------------------------------------------------

GRID = "gan-gaussians-25"
SEEDS = (0, 1, 2, 3, 4)
NETWORK = {"latent": 8, "hidden": 256, "discriminator_hidden": 128, "layers": 3}
_GRID_FIT = FitSettings(
    steps=14_000, batch_size=256, learning_rate=2e-3, final_learning_rate=0.05, beta1=0.0,
    beta2=0.9, clip=0.0, ema=0.999, log_every=100, precision="float32",
)  # fmt: skip
# The same networks with the loss of 2014, at the best of three settings of Adam; half the updates.
GAMES: dict[str, tuple[Game, FitSettings]] = {
    "relativistic": (
        RelativisticGAN(penalty=2e-5, first_penalty=1e-2, penalty_steps=6000),
        _GRID_FIT,
    ),
    "2014": (
        NonSaturatingGAN(),
        dataclasses.replace(_GRID_FIT, steps=7000, learning_rate=5e-4, beta2=0.99),
    ),
}
# 1 - exp(-9/2); every mode; and 24 degrees of freedom over twice 2,500 samples.
CEILINGS = {"modes": 25.0, "high-quality": 0.9889, "kl": 0.0047}


def of_grid(x: npt.ArrayLike) -> dict[str, float]:
    """Modes with a sample of high quality, share of such samples, KL of the nearest modes."""
    points, side = coordinates(x), len(MEANS)
    nearest = np.abs(points[..., None] - np.array(MEANS)).argmin(-1)  # [N, 2]
    labels = nearest @ np.array([side, 1])
    away = np.linalg.norm(points - np.array(MEANS)[nearest], axis=1)
    good = away <= 3 * SPREAD
    modes = coverage(labels[good], side**2)[0] if good.any() else 0
    return {
        "modes": float(modes), "high-quality": float(good.mean()),
        "kl": coverage(labels, side**2)[1],
    }  # fmt: skip


def gaussians(folder: Path, names: list[str], steps: int | None) -> None:
    """Fit every seed of the games named, and write the medians."""
    train, test = data.load("gaussians-25")
    real = of_grid(test.values[:2500])
    print("true law:", CEILINGS, "; real points of the test split:", real, flush=True)
    for name in names:
        game, fit = GAMES[name]
        fit = fit if steps is None else dataclasses.replace(fit, steps=steps)
        seeds = []
        for seed in SEEDS:
            model = models.GAN(train.spec, **NETWORK, seed=seed)
            wanted = dataclasses.replace(fit, seed=seed)
            run = likely.fit(model, train, game, wanted, out=folder / f"{name}-{seed}")
            if not run.finished:
                raise SystemExit(run.status)
            assert isinstance(run.model, models.GAN)
            x = run.model.sample(2500, seed=1).numpy()
            np.save(folder / f"{name}-{seed}.npy", x)
            numbers = of_grid(x)
            print(f"{name}, seed {seed}:", numbers, flush=True)
            findings = [str(finding) for finding in run.findings]
            seeds.append({**numbers, "seconds": run.seconds, "findings": findings})
        entry = {
            "seeds": seeds, "fit": to_json(fit), "game": {"name": type(game).__name__,
            **to_json(game)}, "network": NETWORK,
        }  # fmt: skip
        rows, figures = merged(GRID, name, entry), {}
        for row, values in rows.items():
            prefix = "gan/gaussians-25/" + ("" if row == "relativistic" else f"{row}/")
            for key in CEILINGS:
                figures[prefix + key] = statistics.median(seed[key] for seed in values["seeds"])
        print(f"{name}, medians of {len(seeds)} seeds; ceilings {CEILINGS}:", flush=True)
        for key, value in figures.items():
            print(f"  {key}: {value:.4g}", flush=True)
        write_result(GRID, figures, {"ceilings": CEILINGS, "real": real}, {"rows": rows})
    drawn(folder, {"the data": test.values[:2500]}, RESULTS / f"{GRID}.png")


def drawn(folder: Path, points: dict[str, npt.NDArray[Any]], path: Path) -> None:
    """Samples of the first seed of each game that was fitted, beside points of the data."""
    for name in GAMES:
        if (kept := folder / f"{name}-{SEEDS[0]}.npy").exists():
            points = {**points, name: np.load(kept)}
    figure = Figure(figsize=(3.6 * len(points), 3.8), layout="constrained")
    for axes, (name, x) in zip(np.atleast_1d(figure.subplots(1, len(points))), points.items(),
                               strict=True):  # fmt: skip
        axes.plot(*coordinates(x).T, ".", ms=1.5, color="#4477aa")
        axes.set(title=name, xlim=(-5, 5), ylim=(-5, 5), aspect="equal", xticks=[], yticks=[])
    figure.savefig(path, dpi=110)


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
    read = judge.labels(torch.from_numpy(mnist_test.batch(slice(None)).x)).numpy()
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
        assert isinstance(run.model, models.DCGAN)
        x = run.model.sample(SAMPLES, seed=1).numpy().astype(np.uint8)
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
    doors: dict[str, tuple[Any, Any]] = {
        "gaussians": (gaussians, GAMES),
        "stacked": (stacked, ROWS),
    }
    for name, (_, choices) in doors.items():
        part = parts.add_parser(name)
        part.add_argument("rows", nargs="*", help=f"of {', '.join(choices)}; all by default")
        part.add_argument("--out", type=Path, required=True, help="folder of the runs")
        part.add_argument("--steps", type=int, help="of each fit, to try it out")
    options = parser.parse_args()
    measure, choices = doors[options.part]
    for name in options.rows:
        if name not in choices:
            parser.error(f'no row is called "{name}": {", ".join(choices)}')
    measure(options.out, options.rows or list(choices), options.steps)


if __name__ == "__main__":
    main()
