"""`likely compare RUN RUN ...` or `likely compare --data digits`."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from likely.cli.fields import DATA, add_field
from likely.cli.output import note, say, say_json, wrapped
from likely.cli.parser import UNSET, Command, Option, Parser, device_option, whole
from likely.cli.values import set_fields
from likely.errors import InvalidSetting
from likely.models import ONE_OF_EACH_KIND, SEQUENCES_OF_EACH_KIND
from likely.training.stopping import exit_code

if TYPE_CHECKING:
    from likely.jobs.compare import Outcome
    from likely.report.report import Report

EXAMPLE = """\
  likely compare --data digits
  likely compare runs/pixelcnn runs/vae runs/dcgan --out comparison
  likely compare runs/gru runs/var --out series
"""
OPTIONS: dict[str, Option] = {
    "--out": ("DIR", None, UNSET, "where the report goes [runs/compare-DATA, or runs/compare for "
              "given runs]"),
    "--models": ("NAMES", str, UNSET, "that are fitted, as gru,tcn [one of each kind]"),
    "--split": ("NAME", ("test", "validation"), UNSET, "test, or validation while choices are "
                "still being made [test]"),
    "--steps": ("N", whole(1), UNSET, "updates of every fit [each model's preset]"),
    "--importance-samples": ("K", whole(0), UNSET, "of the importance-weighted bound, particles of "
                             "FIVO; 0 for the ELBO alone [100]"),
    "--samples": ("N", whole(1), UNSET, "images on each side of the distances [those of the "
                  "split, at most 2000]"),
    "--seed": ("N", whole(0), UNSET, "seed of fits, samples and bounds [0]"),
}  # fmt: skip


def _data(parser: Parser, _: str | None) -> None:
    parser.add_argument("runs", nargs="*", default=[], metavar="RUN", help="directories of runs")
    device_option(parser)
    group = parser.add_argument_group("data")
    for field in DATA:
        add_field(group, field)


COMMAND = Command(
    EXAMPLE,
    OPTIONS,
    about=(
        "Compare runs; or with --data and no runs, fit one model of each kind first\n"
        f"({', '.join(ONE_OF_EACH_KIND)}; of sequences {', '.join(SEQUENCES_OF_EACH_KIND)},\n"
        "var where a column is a number). Prints the table, and writes report.html,\n"
        "report.json, sample sheets and, of music, MIDI and WAV files. The order is\n"
        "partial: = against <= may be UNDECIDED, and numbers on different data never meet.\n"
        "A comparison that was stopped resumes."
    ),
    configure=_data,
)


def run(options: argparse.Namespace) -> int:
    """Compare and print."""
    request = set_fields(DATA, options) or None
    if request is not None and "name" not in request:
        raise InvalidSetting("options for data need --data; for given runs, leave them out")
    if request is None and not options.runs:
        raise InvalidSetting(
            "nothing to compare: give runs, as `likely compare runs/vae runs/dcgan`, or data to "
            "fit one model of each kind to, as `likely compare --data digits`"
        )
    from likely.cli.progress import StageProgress, settle
    from likely.jobs import compare as compare_job

    names = ("split", "steps", "importance_samples", "samples", "seed", "device")
    settings = {name: getattr(options, name) for name in names if name in options}
    if "models" in options:
        if options.runs:
            raise InvalidSetting("--models are fitted; for given runs, leave it out")
        settings["models"] = tuple(name.strip() for name in options.models.split(","))
    default = "runs/compare"
    if request is not None and not options.runs:
        default += f"-{Path(str(request['name'])).stem or 'data'}"
    out = getattr(options, "out", default)
    if options.runs:  # fits choose their own
        settle()
    with StageProgress() as progress:
        outcome = compare_job.run(
            options.runs,
            request,
            out,
            compare_job.CompareSettings(**settings),
            command=shlex.join(["likely", *sys.argv[1:]]),
            progress=progress,
        )
    return _conclude(outcome, options.json)


def _conclude(outcome: Outcome, as_json: bool) -> int:
    if outcome.report is None:
        note(f"likely: {outcome.status}")
        return exit_code(outcome.status)
    if as_json:
        from likely.report.report import report_json

        say_json(report_json(outcome.report))
    else:
        _print(outcome.report)
    if outcome.files is None:
        note(f"likely: {outcome.status}")
        return 2
    if not as_json:
        say(f"\nreport: {outcome.files.html}\nnumbers: {outcome.files.json}")
        for what, files in (("sheets", outcome.files.sheets), ("sounds", outcome.files.sounds)):
            if files:
                say(f"{what}: {files[0]} and others")
    return 0


def _print(report: Report) -> None:
    from rich.console import Console

    from likely.evaluate.quantities import QUANTITIES
    from likely.report.tables import terminal_table

    Console().print(terminal_table(report.comparison))
    sentences = report.comparison.sentences()
    decisive = [quantity for quantity in QUANTITIES.values() if quantity.decisive]
    # Nats stand for nats per step, too.
    titles = tuple(f"{q.label} [{q.unit}" if q.unit else q.label for q in decisive)
    told = [sentence for sentence in sentences if sentence.startswith(titles)]
    for sentence in told:
        say(wrapped(sentence))
    say(f"and {len(sentences) - len(told)} more verdicts in the report")
