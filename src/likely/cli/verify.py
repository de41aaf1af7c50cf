"""`likely verify RUN`.

Check the likelihood of a run on its fitted weights, by independent code:
conditionals sum to one, no pixel sees itself or later ones, bounds are bounds,
every weight gets a gradient; a DCGAN keeps the five guidelines of its paper.
Of sequences: causality over time, padding, state, sampler, scales.
Exit code 0 if all checks pass, 1 if one fails.
"""

from __future__ import annotations

import argparse
import textwrap
from typing import TYPE_CHECKING

from likely.cli.output import say, say_json, width
from likely.cli.parser import Command, Option, whole
from likely.cli.saved import data_of, kept, opened

if TYPE_CHECKING:
    from likely.runs.saved import SavedRun
    from likely.verify import Proofs

EXAMPLE = """\
  likely verify runs/vae
  likely verify runs/vae --json > proofs.json
"""
OPTIONS: dict[str, Option] = {
    "--seed": ("N", whole(0), 0, "seed of the probe images [0]"),
    "--quick": ("", None, False, "the short version that `likely evaluate` runs"),
}

COMMAND = Command(EXAMPLE, OPTIONS, about=__doc__, of_run=True)


def run(options: argparse.Namespace) -> int:
    """Run the checks and print a sentence for each."""
    from likely.cli.progress import working
    from likely.verify import verify

    saved = opened(options)
    train, test = data_of(saved)
    with working(f"verifying {saved.name} in {saved.directory}"):
        proofs = verify(
            saved.model,
            test,
            options.seed,
            quick=options.quick,
            adversary=saved.adversary,
            train=train,
        )
    if options.json:
        say_json({"run": str(saved.directory), **proofs.to_json()})
    else:
        _print(saved, proofs)
    written = 0
    if not options.quick:
        written = kept(saved.directory / "proofs.json", proofs.to_json(), told=False)
    return written if proofs.passed else 1


def _print(saved: SavedRun, proofs: Proofs) -> None:
    for proof in proofs.proofs:
        word = "passed" if proof.passed else "FAILED"
        head = f"{word}  {proof.name}"
        measured = f"measured {proof.measured:.3g}, allowed {proof.tolerance:.3g}"
        say(f"{head}  ({measured})" if len(head) + len(measured) < width() - 5 else head)
        _indented(proof.about)
    for number, each in enumerate(proofs.guidelines, 1):
        word = "kept  " if each.kept else "BREACH"
        say(f"{word}  guideline {number} of DCGAN: {each.rule}")
        _indented(each.about)
    say(f"\n{saved.name}: {proofs.verdict}")


def _indented(text: str) -> None:
    if text:
        space = " " * 8
        say(textwrap.fill(text, width() - 1, initial_indent=space, subsequent_indent=space))
