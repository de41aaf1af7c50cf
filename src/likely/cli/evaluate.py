"""`likely evaluate RUN --split test`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from likely.cli.output import rows, say, say_json
from likely.cli.parser import Option, Parser, add_options, no_choices, whole
from likely.cli.saved import data_of, kept, opened, run_argument
from likely.evaluate.quantities import words

if TYPE_CHECKING:
    from likely.jobs.evaluate import Evaluation
    from likely.runs.saved import SavedRun

EXAMPLE = """\
  likely evaluate runs/vae --split test --importance-samples 500
  likely evaluate runs/dcgan --split validation --samples 200
"""
DEFAULT = None
OPTIONS: dict[str, Option] = {
    "--split": ("NAME", ("test", "validation", "train"), "test", "test, validation or train "
                "[test]"),
    "--importance-samples": ("K", whole(0), 100, "of the importance-weighted bound of a "
                             "latent-variable model; 0 for the ELBO alone [100]"),
    "--no-sample-metrics": ("", None, False, "leave the samples out; otherwise: Frechet and kernel "
                            "distance, precision, recall, density, coverage, distance to the "
                            "training images, images per second"),
    "--samples": ("N", whole(1), 0, "images on each side of the distances [those of the split, "
                  "at most 2000]"),
    "--seed": ("N", whole(0), 0, "of latents and samples [0]"),
}  # fmt: skip


choices = no_choices


def configure(parser: Parser, choice: str | None) -> None:
    """The arguments."""
    parser.description = (
        "Measure a run and write report.json in it. Likelihoods are in nats per example\n"
        "and bits/dim, with standard error and n: = exact, <= bound. They are verified\n"
        "first (see `likely verify`); a model without a density says why it has none.\n"
        "Make choices on the validation split, and read the test split once."
    )
    run_argument(parser)
    add_options(parser, OPTIONS)


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
    if floors:
        say("\nfloor: what training images score as if they were samples")
