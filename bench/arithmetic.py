"""Arithmetic of codes, judged by a classifier of attributes; resumable.

    python bench/arithmetic.py --out runs/arithmetic              # shapes: fit, measure, write
    python bench/arithmetic.py --out runs/arithmetic --as-it-is   # unfinished fits, too
    python bench/arithmetic.py --out runs/faces --data faces64 --side 32   # stays local

A VAE and a DCGAN are fitted to the synthetic shapes. A classifier is fitted to their attributes
(what is drawn, and whether size, angle, place and shade are above the middle), and says its test
accuracy first. Then images without an attribute are moved by the difference of two mean codes, of
100 examples with it and 100 without and of 3 as in the lecture, drawn again for each image: how
often does the attribute come, how often do the others stay, and how often by a random direction of
the same length? Codes of the VAE are its encoder's for training images; those of the GAN are drawn
and labelled by the classifier. The images that are moved are test images (VAE) and other samples
(GAN). Sheets of both go beside the result, except for faces: these are photographs of people, which
`--data faces64` (LIKELY_DATA) keeps in --out, numbers and pictures alike.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common import RESULTS, write_result
from likely import data, runs
from likely.data.spec import Dataset
from likely.density import Decoder, EncoderDecoder
from likely.files.sheets import save_png
from likely.jobs.codes import steering
from likely.jobs.codes.arithmetic import chosen_groups, sum_sheet
from likely.jobs.codes.steering import AttributeClassifier, Flips
from likely.runs.checkpoint import read_json, write_json
from likely.settings import FitSettings
from likely.training.loop import fit
from likely.training.objectives import NegativeELBO, Objective, RelativisticGAN

POOL, STARTS = 4000, 600
GROUPS = (100, 3)
# Of faces: those of the 40 that a small image shows.
FACES = ("Smiling", "Male", "Eyeglasses", "Blond_Hair", "Black_Hair", "Wearing_Lipstick", "Young")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A model and its fit; see `likely fit`."""

    model: str
    changes: dict[str, Any]
    fit: FitSettings
    objective: Objective


ADAM = FitSettings(
    steps=2000, batch_size=64, learning_rate=1.5e-3, warmup=100, ema=0.99, validate_every=1000,
    validation_examples=500, log_every=50,
)  # fmt: skip
PLAY = FitSettings(
    steps=3000, batch_size=64, learning_rate=1e-3, beta1=0.0, beta2=0.9, clip=0.0, ema=0.995,
    final_learning_rate=0.1, validate_every=1500, log_every=50,
)  # fmt: skip
RECIPES = {
    "vae": Recipe(
        "vae",
        {"network": "dense", "latent": 16, "hidden": 400, "components": 2},
        ADAM,
        NegativeELBO(),
    ),
    "gan": Recipe("dcgan", {"latent": 32, "channels": 32}, PLAY, RelativisticGAN()),
}


def fitted(
    name: str, train: Dataset, out: Path, steps: int | None, *, as_it_is: bool
) -> tuple[Decoder, int]:
    """The model of a recipe, fitted, resumed, or as it is; and how many steps it has done."""
    recipe = RECIPES[name]
    settings = recipe.fit if steps is None else dataclasses.replace(recipe.fit, steps=steps)
    if not (as_it_is and (out / name).exists()):
        model = runs.build(recipe.model, train.spec, recipe.changes, seed=0)
        run = fit(model, train, recipe.objective, settings=settings, out=out / name, progress=True)
        if not run.finished:
            raise SystemExit(run.status)
    saved = runs.load(out / name)
    assert isinstance(saved.model, Decoder)
    return saved.model.eval(), max(int(row["step"]) for row in saved.metrics)


def measured(
    name: str,
    model: Decoder,
    classifier: AttributeClassifier,
    train: Dataset,
    test: Dataset,
    wanted: tuple[str, ...],
    out: Path,
) -> dict[str, list[dict[str, Any]]]:
    """Flips of every attribute by the size of the groups; those on file are read back."""
    pool = steering.labelled_codes(model, classifier, train, POOL)
    if isinstance(model, EncoderDecoder):
        start = steering.labelled_codes(model, classifier, test, STARTS).codes[:STARTS]
    else:
        start = model.drawn_codes(STARTS, seed=1)
    by_group: dict[str, list[dict[str, Any]]] = {}
    for group in GROUPS:
        path = out / f"{name}-flips-{group}.json"
        if not path.exists():
            rows = []
            for attribute in wanted:
                flips = steering.flips(model, classifier, attribute, pool, start, group=group)
                print(f"{name}, groups of {group}: {line(flips)}", flush=True)
                rows.append(flips.to_json())
            write_json(path, {"rows": rows})
        by_group[str(group)] = read_json(path, "delete it, and it is made again")["rows"]
    return by_group


def line(flips: Flips) -> str:
    """A row of the table."""
    return (
        f"{flips.attribute:18} comes {flips.flipped} (by chance {flips.by_chance}), others stay "
        f"{flips.kept} (by chance {flips.kept_by_chance})"
    )


def figures_of(prefix: str, groups: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    """Means over the attributes: minus chance, and the rates themselves; percent or points."""
    figures: dict[str, float] = {}
    for group, rows in groups.items():
        stem = f"{prefix}/arithmetic" + ("" if group == str(GROUPS[0]) else f"-{group}")
        names = {
            "flip": "gained", "kept": "spared", "flip-rate": "flipped", "kept-rate": "kept",
            "flip-by-chance": "by_chance", "kept-by-chance": "kept_by_chance",
        }  # fmt: skip
        for end, field in names.items():
            values = [row[field]["value"] for row in rows]
            errors = [row[field]["standard_error"] for row in rows]
            figures[f"{stem}-{end}"] = sum(values) / len(values)
            figures[f"{stem}-{end}-standard-error"] = math.hypot(*errors) / len(errors)
    return figures


def small(part: Dataset, side: int) -> Dataset:
    """Faces of a smaller side: means of squares of pixels."""
    factor = part.spec.shape[1] // side
    if factor == 1:
        return part
    x = np.asarray(part.x).astype(np.float64)
    n, channels = x.shape[:2]
    means = x.reshape(n, channels, side, factor, side, factor).mean((3, 5))
    small_part = data.from_array(means.round().astype(np.uint8), levels=256, name=part.spec.name)
    held = None if part.validation is None else small(part.validation, side)
    return dataclasses.replace(
        part, spec=dataclasses.replace(part.spec, shape=(channels, side, side),
                                       digest=small_part.spec.digest),
        values=small_part.values, validation=held, source=None,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", default="shapes", choices=("shapes", "faces64"))
    parser.add_argument("--side", type=int, default=64, help="of faces: 32 or 64")
    parser.add_argument("--models", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--as-it-is", action="store_true", help="do not finish unfinished fits")
    parser.add_argument("--steps", type=int, default=None, help="of the fits; the recipe's")
    options = parser.parse_args()
    torch.set_num_threads(1)
    out: Path = options.out
    train, test = data.load(options.data)
    # A trial with fewer steps stays local, too.
    is_public = options.data == "shapes" and options.steps is None
    if options.data != "shapes":
        train, test = (small(part, options.side) for part in (train, test))
        train, test = (only(part, FACES) for part in (train, test))
    classifier = steering.attribute_classifier(train, test, cache=out)
    print(classifier, flush=True)
    about: dict[str, Any] = {
        "data": test.spec.to_json(),
        "classifier": {name: a.to_json() for name, a in classifier.accuracy.items()},
    }
    figures: dict[str, float] = {}
    kind = "shapes" if options.data == "shapes" else f"faces-{options.side}"
    for name in options.models:
        model, done = fitted(name, train, out, options.steps, as_it_is=options.as_it_is)
        print(f"{name}: {done:,} of {RECIPES[name].fit.steps:,} steps", flush=True)
        rows = measured(f"{name}-{done}", model, classifier, train, test, classifier.names, out)
        about[name] = {"groups": rows, "changes": RECIPES[name].changes, "steps": done}
        figures |= figures_of(f"{name}/{kind}", rows)
        folder = RESULTS if is_public else out
        for number, (plus, minus) in enumerate(sums(classifier.names)):
            texts = [*plus, *minus]
            groups, _ = chosen_groups(model, texts, train, lambda: classifier, seed=2)
            result = model.arithmetic(groups[: len(plus)], groups[len(plus) :])
            picture = sum_sheet(model, result, plus, minus, f"{name} on {kind}: {result.about}")
            save_png(picture, folder / f"arithmetic-{kind}-{name}-{number}.png")
    for figure, value in figures.items():
        if not figure.endswith("-standard-error"):
            print(f"{figure} {value:.1f} +- {figures[figure + '-standard-error']:.1f}")
    if is_public:
        about["fits"] = {name: dataclasses.asdict(RECIPES[name].fit) for name in options.models}
        write_result("arithmetic", figures, {"pool": POOL, "starts": STARTS}, about)
    else:
        write_json(out / f"arithmetic-{kind}.json", {"figures": figures, "about": about})


def sums(names: tuple[str, ...]) -> list[tuple[list[str], list[str]]]:
    """What the sheets show: the lecture's sum, and one or two more."""
    if "Smiling" in names:
        return [
            (["Smiling, not Male", "not Smiling, Male"], ["not Smiling, not Male"]),
            (["Male, Eyeglasses", "not Male, not Eyeglasses"], ["Male, not Eyeglasses"]),
        ]
    return [
        (["size, not x", "not size, x"], ["not size, not x"]),
        (["shade, triangle", "not shade, ellipse"], ["not shade, triangle"]),
    ]


def only(part: Dataset, names: tuple[str, ...]) -> Dataset:
    """The data set with these attributes alone."""
    held = None if part.validation is None else only(part.validation, names)
    kept = {name: part.attributes[name] for name in names}
    return dataclasses.replace(part, attributes=kept, validation=held)


if __name__ == "__main__":
    main()
