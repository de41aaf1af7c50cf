"""`likely classify RUN --per-class 10`.

Classify with few labels, starting from the run's encoder: accuracy, confusion
matrix and calibration, beside the same network from scratch and classifiers on
the pixels. Draws of labels are stratified and paired; every choice is made by
cross-validation inside the labelled images. Needs scikit-learn.
"""

from __future__ import annotations

import argparse

from likely.cli.parser import Command, Option, Parser, whole
from likely.cli.saved import opened, path_of, shown, writable

EXAMPLE = """\
  likely classify runs/vae --per-class 10
  likely classify runs/vae --per-class 1 10 100 all --seeds 10 -o curve.png
  likely classify runs/vae --labels my-labelled-folder --mode joint --mode scratch
"""
OPTIONS: dict[str, Option] = {
    "--labels": ("DATA", None, None, "a labelled data set of the same shape, by name or path "
                 "[the run's own data]"),
    "--mode": ("NAME", ("joint", "frozen", "scratch", "m1m2"), (), "joint (all weights move), "
               "frozen (a linear probe), scratch (the same network from initial weights) or m1m2 "
               "(semi-supervised, on the codes of a VAE; minutes a draw); may be repeated [the "
               "first three]"),
    "--seeds": ("N", whole(1), 20, "draws of labels; every method sees the same [20]"),
    "--layer": ("NAME", None, "auto", "that the classifier reads; auto chooses by "
                "cross-validation [auto]"),
    "--no-baselines": ("", None, False, "leave out logistic regression, nearest neighbour and "
                       "label spreading on the pixels"),
    "--split": ("NAME", ("test", "validation"), "test", "that is scored; make choices on "
                "validation [test]"),
    "--seed": ("N", whole(0), 0, "seed of the first draw [0]"),
    "-o --out": ("FILE.png", None, None, "where the picture goes [RUN/classify.png]"),
}  # fmt: skip


def _count(text: str) -> int:
    return 0 if text == "all" else whole(1)(text)


def _per_class(parser: Parser, _: str | None) -> None:
    parser.add_argument(
        "--per-class", nargs="+", type=_count, default=[10], metavar="N",
        help="labelled examples of each class, several numbers for a curve; all [10]",
    )  # fmt: skip


COMMAND = Command(EXAMPLE, OPTIONS, about=__doc__, of_run=True, configure=_per_class)


def run(options: argparse.Namespace) -> int:
    """Classify, print, and keep the numbers and the picture in the run."""
    from likely.cli.progress import StageProgress
    from likely.files.figures import PICTURES
    from likely.jobs.classify import MODES, ClassifySettings, classify

    picture = path_of(options.out, PICTURES, "--out")
    settings = ClassifySettings(
        per_class=tuple(options.per_class),
        seeds=options.seeds,
        modes=tuple(dict.fromkeys(options.mode)) or MODES,
        layer=options.layer,
        baselines=not options.no_baselines,
        split=options.split,
        seed=options.seed,
        device=options.device,
    )
    saved = opened(options)
    picture = picture or saved.directory / "classify.png"
    writable(picture)
    with StageProgress() as progress:
        classification = classify(saved, options.labels, settings, progress=progress)
    return shown(options, classification, saved.files / "classify.json", picture)
