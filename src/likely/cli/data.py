"""`likely data [list | describe DATA | report FOLDER]`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from likely.cli.fields import DATA, Field, add_field
from likely.cli.output import rows, say, say_json
from likely.cli.parser import Command, Parser
from likely.cli.values import set_fields
from likely.data.catalogue import CATALOGUE, MADE_HERE, Entry
from likely.data.sequences.catalogue import SEQUENCES

if TYPE_CHECKING:
    from likely.data import Dataset, SequenceSpec

EXAMPLE = """\
  likely data
  likely data describe mnist --binarize static
  likely data report ~/pictures
"""
ACTIONS = {
    "list": "the named data sets, and whether their files are here",
    "describe": "shape, levels, splits and fingerprints of a data set",
    "report": "what becomes of each file of a folder of images",
}


def _configure(parser: Parser, choice: str | None) -> None:
    parser.epilog = "example:\n" + {
        "list": "  likely data list",
        "describe": "  likely data describe mnist --binarize static",
        "report": "  likely data report ~/pictures --image-size 32",
    }.get(choice or "", "")
    if choice == "describe":
        parser.add_argument("source", metavar="DATA", help=DATA[0].about)
    elif choice == "report":
        parser.add_argument("source", metavar="FOLDER", help="of images, sub-folders included")
    for field in _options(choice):
        add_field(parser, field)


def _options(choice: str | None) -> tuple[Field, ...]:
    if choice == "describe":
        return DATA[1:]
    return tuple(f for f in DATA if choice == "report" and f.key in ("size", "channels"))


COMMAND = Command(EXAMPLE, choices=lambda: ACTIONS, default="list", configure=_configure)


def run(options: argparse.Namespace) -> int:
    """Do what was chosen."""
    if options.choice == "list":
        return _list(options.json)
    shaping = set_fields(_options(options.choice), options)
    action = _report if options.choice == "report" else _describe
    return action(options.source, shaping, options.json)


def _list(as_json: bool) -> int:
    named = {**CATALOGUE, **SEQUENCES}
    entries = {name: (entry, _where(entry)) for name, entry in named.items()}
    if as_json:
        records = [
            {
                "name": name,
                "summary": entry.summary,
                "shape": list(entry.shape),
                "levels": entry.levels,
                "classes": list(entry.classes),
                "source": entry.source,
                "files": where,
            }
            for name, (entry, where) in entries.items()
        ]
        say_json({"data": records})
        return 0
    say(rows(((n, f"{e.summary} [{where}]") for n, (e, where) in entries.items()), 0).rstrip())
    say("\nAlso a folder of images, .npy, .npz, .parquet files and Hugging Face folders;")
    say("sequences in .csv, .npz, .mat and .ts files, and tables in .parquet files.")
    say("More on one: likely data describe NAME")
    return 0


def _where(entry: Entry) -> str:
    """Whether the files are here, in a word or two."""
    if entry.layout in MADE_HERE:
        return entry.layout
    from likely.data.places import folders

    if any(folder.is_dir() and any(folder.iterdir()) for folder in folders(entry)):
        return "here"
    return "downloaded when first used" if entry.files else "not here, no download"


def _describe(source: str, shaping: dict[str, Any], as_json: bool) -> int:
    from likely import data
    from likely.cli.progress import loading
    from likely.data import SequenceSpec

    with loading() as progress:
        train, test = data.load(source, progress=progress, **shaping)
    parts = {"train": train, "validation": train.validation, "test": test}
    splits = {name: part for name, part in parts.items() if part is not None}
    spec = train.spec
    if as_json:
        records = {
            name: {
                **part.spec.to_json(),
                "fingerprint": part.spec.fingerprint,
                "examples_by_class": _by_class(part),
            }
            for name, part in splits.items()
        }
        say_json({"name": spec.name, "splits": records})
        return 0
    if isinstance(spec, SequenceSpec):
        say(f"{spec.name}\n{rows(_facts(spec, splits)).rstrip()}")
        return 0
    channels, *sides = spec.shape
    colour = {1: "grey", 3: "colour"}.get(channels, f"{channels} channels")
    what = f"{'x'.join(map(str, sides))}, {colour}, {spec.levels} levels"
    facts = [("images", f"{what}, {spec.dimensions} dimensions")]
    if not sides:
        facts = [("vectors", f"{spec.dimensions} dimensions, {spec.levels} levels")]
    if spec.preprocessing:
        facts.append(("prepared by", ", ".join(spec.preprocessing)))
    facts.extend(
        (name, f"{len(part):,} examples, fingerprint {part.spec.fingerprint}")
        for name, part in splits.items()
    )
    if spec.classes:
        facts.append(("classes", ", ".join(spec.classes)))
    if train.factors:
        facts.append(("factors", ", ".join(train.factors)))
    if train.attributes:
        facts.append(("attributes", f"{len(train.attributes)}: " + ", ".join(train.attributes)))
    if source in CATALOGUE:
        facts.append(("source", CATALOGUE[source].source))
    say(f"{spec.name}\n{rows(facts).rstrip()}")
    return 0


def _facts(spec: SequenceSpec, splits: Mapping[str, Dataset]) -> list[tuple[str, str]]:
    """What sequences are: columns with their lattices, splits, clock, unit of log p."""
    alike: dict[str, list[str]] = {}
    for column in spec.columns:
        alike.setdefault(column.words, []).append(column.name)
    facts = [("time step", spec.time_step), ("columns", str(len(spec.columns)))]
    for words, names in alike.items():
        listed = ", ".join(names) if len(names) <= 8 else f"{names[0]} to {names[-1]}"
        facts.append(("", f"{listed}: {words}"))
    facts += [("log p", f"{spec.unit} per step"), ("split", spec.rule)]
    for name, part in splits.items():
        assert isinstance(part.spec, type(spec))
        gaps = f", {part.spec.missing:,} values missing" if part.spec.missing else ""
        facts.append(
            (name, f"{len(part):,} sequences, {part.spec.steps:,} steps{gaps}, "
             f"fingerprint {part.spec.fingerprint}")
        )  # fmt: skip
    if spec.clock:
        facts.append(("clock", f"periods of {', '.join(map(str, spec.clock))} steps"))
    if spec.classes:
        facts.append(("classes", ", ".join(spec.classes)))
    if spec.name in SEQUENCES:
        facts.append(("source", SEQUENCES[spec.name].source))
    return facts


def _by_class(part: Dataset) -> dict[str, int] | None:
    import numpy as np

    if part.labels is None:
        return None
    counts = np.bincount(part.labels, minlength=len(part.spec.classes))
    names = part.spec.classes or tuple(map(str, range(len(counts))))
    return {name: int(count) for name, count in zip(names, counts, strict=True)}


def _report(source: str, shaping: dict[str, Any], as_json: bool) -> int:
    from likely.cli.progress import loading
    from likely.data.images import from_folder

    with loading() as progress:
        folder = from_folder(source, progress=progress, **shaping)
    report, spec = folder.report, folder.train.spec
    if as_json:
        skipped = [{"path": s.path, "reason": s.reason} for s in report.skipped]
        say_json(
            {
                "folder": report.folder,
                "read": report.read,
                "ignored": report.ignored,
                "skipped": skipped,
                "remarks": list(report.remarks),
                "shape": list(spec.shape),
                "levels": spec.levels,
            }
        )
        return 0
    say(str(report))
    say(f"as {'x'.join(map(str, spec.shape[1:]))} images with {spec.shape[0]} channel(s)")
    return 0
