"""`likely evaluate RUN --split test`.

Measure a run and write report.json in it. Likelihoods are in nats per example
and bits/dim, with standard error and n: = exact, <= bound. They are verified
first (see `likely verify`); a model without a density says why it has none.
Make choices on the validation split, and read the test split once.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from likely.cli.output import rows, say, say_json
from likely.cli.parser import UNSET, Command, Option, whole
from likely.cli.saved import SPLITS, data_of, kept, opened
from likely.errors import InvalidSetting
from likely.evaluate.quantities import words

if TYPE_CHECKING:
    from likely.evaluate.annealed import AnnealedSettings
    from likely.jobs.evaluate import Evaluation
    from likely.runs.saved import SavedRun

EXAMPLE = """\
  likely evaluate runs/vae --split test --importance-samples 500
  likely evaluate runs/vae --annealed --annealed-n 200 --temperatures 50
  likely evaluate runs/dcgan --split validation --samples 200
"""
OPTIONS: dict[str, Option] = {
    "--split": ("NAME", SPLITS, "test", "test, validation or train "
                "[test]"),
    "--importance-samples": ("K", whole(0), 100, "of the importance-weighted bound of a "
                             "latent-variable model, particles of FIVO for sequences; 0 for the "
                             "ELBO alone [100]"),
    "--factors": ("", None, False, "also hold the codes against the known factors of the data "
                  "(shapes): MIG, DCI, SAP"),
    "--annealed": ("", None, False, "also bound log p(x) of a latent-variable model by annealed "
                   "importance sampling, the nearest there is, with the gap on images that it "
                   "draws; minutes"),
    "--annealed-n": ("N", whole(1), UNSET, "images to anneal [1000]"),
    "--temperatures": ("T", whole(2), UNSET, "from q(z|x) to p(x, z): more is tighter, slower "
                       "[100]"),
    "--chains": ("K", whole(1), UNSET, "annealed chains averaged per image [16]"),
    "--no-sample-metrics": ("", None, False, "leave the samples out; otherwise: Frechet and kernel "
                            "distance, precision, recall, density, coverage, distance to the "
                            "training images, images per second"),
    "--samples": ("N", whole(1), 0, "images on each side of the distances [those of the split, "
                  "at most 2000]"),
    "--seed": ("N", whole(0), 0, "seed of latents and samples [0]"),
}  # fmt: skip

# Options of the annealing, and the fields of its settings.
ANNEALED = {"annealed_n": "n", "temperatures": "temperatures", "chains": "chains"}

COMMAND = Command(EXAMPLE, OPTIONS, about=__doc__, of_run=True)


def run(options: argparse.Namespace) -> int:
    """Measure, print, and keep the numbers in the run."""
    from likely.cli.progress import StageProgress
    from likely.jobs.evaluate import EvaluateSettings, evaluated

    settings = EvaluateSettings(
        options.split,
        options.importance_samples,
        not options.no_sample_metrics,
        options.samples,
        options.seed,
        options.device,
        _annealed(options),
        options.factors,
    )
    saved = opened(options)
    data_of(saved)
    with StageProgress() as progress:
        evaluation, report = evaluated(saved, settings, progress)
    if options.json:
        say_json(report)
    else:
        _print(saved, evaluation)
    return kept(saved.files / "report.json", report, told=not options.json)


def _annealed(options: argparse.Namespace) -> AnnealedSettings | None:
    """How to anneal; None where that is not asked for."""
    from likely.evaluate.annealed import AnnealedSettings

    fields = {ANNEALED[name]: getattr(options, name) for name in ANNEALED if name in options}
    if not options.annealed:
        if fields:
            names = (f"--{name.replace('_', '-')}" for name in ANNEALED if name in options)
            raise InvalidSetting(f"{', '.join(names)}: only with --annealed")
        return None
    if not options.importance_samples:
        raise InvalidSetting(
            "--annealed compares with the bound of K importance samples: leave out "
            "--importance-samples 0"
        )
    return AnnealedSettings(importance_samples=options.importance_samples, **fields)


def _print(saved: SavedRun, evaluation: Evaluation) -> None:
    spec = evaluation.data
    say(f"{saved.name} ({saved.model.kind}) on {spec.name}, {spec.split} split, n = {spec.n:,}\n")
    reasons = evaluation.unanswerable.values()
    lines = [(words("nll", short=True), f"no answer: {reason}") for reason in reasons]
    floors = False
    for estimate in evaluation.estimates:
        about, _, floor = estimate.about.partition("; floor ")
        text = str(estimate)
        if estimate.quantity.partition("-given-")[0] == "nll":
            text += f"  ({about})"
        elif floor:
            floors = True
            text += f"  (floor {floor})"
        name = words(estimate.quantity, short=True)
        # A second line on the same quantity, as bits/dim, needs no name again.
        last = next((other for other, _ in reversed(lines) if other), "")
        lines.append(("" if last == name else name, text))
    say(rows(lines).rstrip())
    for text in evaluation.notes:
        say(f"  {text}")
    if evaluation.disentanglement is not None:
        say(f"\ncodes against the factors\n\n  {evaluation.disentanglement}")
    if evaluation.annealed is not None:
        near = evaluation.annealed
        say(f"\nof {near.gain.n:,} of these images\n")
        lines = [(words(e.quantity, short=True), f"{e}  ({e.about})") for e in near.estimates]
        say(rows(lines).rstrip())
        for text in near.notes:
            say(f"  {text}")
    if floors:
        say("\nfloor: what training images score as if they were samples")
