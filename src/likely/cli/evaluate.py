"""`likely evaluate RUN --split test`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from likely.cli.output import note, rows, say, say_json
from likely.cli.parser import Parser, one_of, whole
from likely.cli.saved import (
    Conditioned,
    chosen_split,
    data_of,
    kept,
    opened,
    run_argument,
)
from likely.errors import InvalidData, InvalidSetting
from likely.evaluate.quantities import words

if TYPE_CHECKING:
    from likely.data import Dataset
    from likely.estimate import Estimate
    from likely.runs.saved import SavedRun

EXAMPLE = """\
  likely evaluate runs/vae --split test --importance-samples 500
  likely evaluate runs/dcgan --split validation --samples 200
"""
DEFAULT = None
SPLITS = ("test", "validation", "train")


def choices() -> Mapping[str, str]:
    """None."""
    return {}


def configure(parser: Parser, choice: str | None) -> None:
    """The arguments."""
    parser.description = (
        "Measure a run and write report.json in it. Likelihoods are in nats per example\n"
        "and bits/dim, with standard error and n: = exact, <= bound. They are verified\n"
        "first (see `likely verify`); a model without a density says why it has none.\n"
        "Make choices on the validation split, and read the test split once."
    )
    run_argument(parser)
    parser.add_argument(
        "--split", type=one_of(SPLITS), choices=SPLITS, default="test", metavar="NAME",
        help="test, validation or train [test]",
    )  # fmt: skip
    parser.add_argument(
        "--importance-samples", type=whole(0), default=100, metavar="K",
        help="of the importance-weighted bound of a latent-variable model; 0 for the ELBO "
        "alone [100]",
    )  # fmt: skip
    parser.add_argument(
        "--no-sample-metrics", dest="sample_metrics", action="store_false", default=True,
        help="leave the samples out; otherwise: Frechet and kernel distance, precision, recall, "
        "density, coverage, distance to the training images, images per second",
    )  # fmt: skip
    parser.add_argument(
        "--samples", type=whole(1), metavar="N",
        help="images on each side of the distances [those of the split, at most 2000]",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=whole(0), default=0, metavar="N", help="of latents and samples [0]"
    )


def run(options: argparse.Namespace) -> int:
    """Measure, print, and keep the numbers in the run."""
    from likely.ask import answers
    from likely.ask.likelihood import has_likelihood
    from likely.runs.saved import read_report
    from likely.verify import weights_digest

    found = opened(options)
    before = read_report(found.directory)
    train, test = data_of(found)
    part = chosen_split(train, test, options.split)
    model = found.model
    estimates: list[Estimate] = []
    refused: dict[str, str] = {}
    notes: list[str] = []
    if has_likelihood(model):
        estimates += _likelihood(found, part, options.importance_samples, options.seed, notes)
    else:
        refused["nll"] = answers(model)["likelihood"].reason
    if options.sample_metrics:
        number = getattr(options, "samples", None)
        try:
            estimates += _sample_metrics(found, train, part, number, options.seed)
        except (InvalidSetting, InvalidData) as error:
            if number is not None:
                raise
            # The likelihood is measured: few images are no reason to keep it back.
            notes.append(f"no numbers about samples: {error}")
    record = {
        "data": {**part.spec.to_json(), "fingerprint": part.spec.fingerprint},
        "estimates": [estimate.to_json() for estimate in estimates],
        "unanswerable": refused,
        "notes": notes,
    }
    report = _merged(found, before, weights_digest(model), options.split, record)
    if options.json:
        say_json(report)
    else:
        _print(found, part, estimates, refused, notes)
    return kept(found.directory / "report.json", report, told=not options.json)


def _likelihood(
    found: SavedRun, part: Dataset, k: int, seed: int, notes: list[str]
) -> list[Estimate]:
    """Nats and bits/dim: exact, or the ELBO and the importance-weighted bound."""
    from likely.cli.progress import counting, working
    from likely.density import LatentVariable
    from likely.evaluate.likelihood import latent_diagnostics, per_example_nll, proofs_of
    from likely.verify import Proofs

    model = found.model
    saved = found.directory / "proofs.json"
    with working(f"verifying the likelihood of {found.name}"):
        proofs = proofs_of(model, Proofs.load(saved) if saved.exists() else None)
    proofs.require()
    estimates = []
    latent = isinstance(model, LatentVariable)
    for samples in (None, k) if latent and k else (None,):
        what = "reading" if samples is None else f"bound with k = {samples} over"
        with counting(f"{what} {len(part):,} {part.spec.split} examples") as progress:
            values = per_example_nll(
                model, part, importance_samples=samples, seed=seed, proofs=proofs,
                progress=progress,
            )  # fmt: skip
        estimates += [values.nats(), values.bits_per_dim()]
    if latent:
        diagnostics = latent_diagnostics(model, part, seed=seed)
        if diagnostics.active is not None:
            notes.append(
                f"{diagnostics.active} of {diagnostics.latent} latent coordinates are used"
            )
        estimates += [diagnostics.rate, diagnostics.distortion]
        if diagnostics.warning:
            notes.append(diagnostics.warning)
            note(f"likely: warning: {diagnostics.warning}")
    return estimates


def _sample_metrics(
    found: SavedRun, train: Dataset, part: Dataset, number: int | None, seed: int
) -> list[Estimate]:
    """Numbers about samples, each beside what training images score."""
    from likely.cli.progress import working
    from likely.evaluate.classifier import default_extractor
    from likely.evaluate.samples import SampleReference, samples_per_second

    with working("fitting the feature extractor, or finding it in the cache"):
        reference = SampleReference(train, part, default_extractor(train), n=number)
    with working(f"drawing {reference.n:,} images from {found.name}"):
        context = reference.context_for(found.model)
        samples = found.model.sample(reference.n, seed=seed, context=context)
    with working("measuring them"):
        estimates = reference.metrics(samples)
    with working("timing the sampler"):
        speed = samples_per_second(Conditioned(found.model, reference.context_for))
    return [*estimates, speed]


def _merged(
    found: SavedRun, old: dict[str, Any], digest: str, split: str, record: dict[str, Any]
) -> dict[str, Any]:
    """The report with this evaluation in it; numbers of other weights are dropped.

    What was measured before on the same split and not now (sample metrics, say) stays.
    """
    evaluations = old.get("evaluations", {}) if old.get("weights") == digest else {}
    before = evaluations.get(split)
    if before and before["data"]["fingerprint"] == record["data"]["fingerprint"]:
        measured = {estimate["quantity"] for estimate in record["estimates"]}
        kept = [e for e in before["estimates"] if e["quantity"] not in measured]
        record = {**record, "estimates": [*record["estimates"], *kept]}
    from likely.ask import QUERIES, answers

    return {
        "run": str(found.directory),
        "model": found.name,
        "kind": found.model.kind,
        "parameters": sum(p.numel() for p in found.model.parameters()),
        "weights": digest,
        "evaluations": {**evaluations, split: record},
        "answers": {
            QUERIES[name].title: {"guarantee": answer.guarantee.value, "reason": answer.reason}
            for name, answer in answers(found.model).items()
        },
    }


def _print(
    found: SavedRun, part: Dataset, estimates: list[Estimate], refused: dict[str, str],
    notes: list[str],
) -> None:  # fmt: skip
    say(
        f"{found.name} ({found.model.kind}) on {part.spec.name}, {part.spec.split} split, "
        f"n = {len(part):,}\n"
    )
    lines = [(words("nll", short=True), f"no answer: {reason}") for reason in refused.values()]
    floors = False
    for estimate in estimates:
        about, _, floor = estimate.about.partition("; floor ")
        text = str(estimate)
        if estimate.quantity.partition("-given-")[0] == "nll":
            text += f"  ({about})"
        elif floor:
            floors = True
            text += f"  (floor {floor})"
        name = words(estimate.quantity, short=True)
        # A second line on the same quantity, as bits/dim, needs no name again.
        lines.append(("" if lines and _last_name(lines) == name else name, text))
    say(rows(lines).rstrip())
    for text in notes:
        say(f"  {text}")
    if floors:
        say("\nfloor: what training images score as if they were samples")


def _last_name(lines: list[tuple[str, str]]) -> str:
    return next((name for name, _ in reversed(lines) if name), "")
