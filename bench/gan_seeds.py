"""Does the DCGAN of bench/mnist.py train through, whatever the seed? Counted by the health monitor.

    python bench/gan_seeds.py --out runs/seeds               # 5 seeds at two learning rates
    python bench/gan_seeds.py --out runs/seeds --seeds 2 --steps 300 --dry

Short fits on static MNIST with the recipe's settings, at its learning rate and at twice that. A fit
trains through if it ends and the monitor has nothing to say at its end: no diverging loss, no
discriminator that is too strong, no vanishing gradient, no oscillation, no mode collapse. Each fit
is a run of its own and resumes where it was stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import torch

from common import write_result
from likely import data, runs
from likely.errors import Diverged
from likely.settings import to_json
from likely.training.loop import fit
from recipes import RECIPES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--dry", action="store_true", help="print, write nothing")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = RECIPES["dcgan"]
    train, _ = data.load("mnist", binarize="static")
    base = dataclasses.replace(recipe.fit, steps=options.steps, log_every=10)
    figures: dict[str, float] = {"gan-seeds/seeds": options.seeds}
    about: dict[str, Any] = {"runs": []}
    for factor in (1, 2):
        rate, through = factor * base.learning_rate, 0
        for seed in range(options.seeds):
            settings = dataclasses.replace(base, seed=seed, learning_rate=rate)
            model = runs.build(recipe.model, train.spec, recipe.changes, seed)
            try:
                run = fit(
                    model, train, recipe.objective, settings,
                    out=options.out / f"rate-{factor}-seed-{seed}", progress=False,
                )  # fmt: skip
            except Diverged as error:
                told = [str(error)]
            else:
                if not run.finished:
                    return
                told = [str(finding) for finding in run.findings]
            through += not told
            about["runs"].append({"seed": seed, "learning_rate": rate, "findings": told})
            print(f"seed {seed} at {rate:g}: {'; '.join(told) or 'trained through'}", flush=True)
        figures[f"gan-seeds/trained-through-at-rate-{factor}"] = through
    if not options.dry:
        settings = {"model": recipe.changes, "fit": to_json(base)}
        write_result("gan-seeds", figures, settings, about)


if __name__ == "__main__":
    main()
