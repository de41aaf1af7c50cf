"""Runs as arguments of commands."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from likely.cli.output import fail, say
from likely.cli.parser import Parser, device_option
from likely.errors import InvalidSetting, nearest

if TYPE_CHECKING:
    from torch import Tensor

    from likely.data import Dataset, DataSpec
    from likely.density import Fittable
    from likely.runs.saved import SavedRun


def run_argument(parser: Parser) -> None:
    """RUN and --device."""
    parser.add_argument("run", metavar="RUN", help="directory that `likely fit --out` wrote")
    device_option(parser)


def opened(options: argparse.Namespace) -> SavedRun:
    """The run, its model on the chosen device."""
    from likely import runs
    from likely.cli.progress import settle
    from likely.devices import choose_device, place

    settle()
    device = choose_device(options.device)
    run = runs.load(options.run)
    place(run.model, device)
    return run


def data_of(run: SavedRun) -> tuple[Dataset, Dataset]:
    """Training and test set of a run; refused where they are not what it was fitted to."""
    from likely.cli.progress import loading

    with loading() as progress:
        return run.datasets(progress)


def kept(path: Path, record: dict[str, Any], *, told: bool) -> int:
    """Save results that have been printed; returns the exit code.

    If the run is not writable (read-only, full disk), only the file is lost.
    """
    from likely.runs import checkpoint

    try:
        checkpoint.write_json(path, record)
    except checkpoint.CheckpointError as error:
        return fail(error, "measured, but not kept")
    if told:
        say(f"\nwritten to {path}")
    return 0


def path_of(text: str | None, suffix: str, option: str) -> Path | None:
    """The file that an option names, which must end in `suffix`; None where it was not given."""
    if text is None:
        return None
    path = Path(text).expanduser()
    if path.suffix.lower() != suffix:
        raise InvalidSetting(f"{option} {text}: expected a file name that ends in {suffix}")
    if path.is_dir():
        raise InvalidSetting(f"{option} {text} is a folder; give a file name")
    return path


def labels_for(model: Fittable, n: int, label: str | None) -> Tensor | None:
    """Labels to draw with: the one asked for, or all classes in turn."""
    import torch

    if model.context_shape:
        raise InvalidSetting(
            f"this run is conditional on numbers of shape {model.context_shape}, which the command "
            "cannot take; draw in Python: likely.load(DIR).model.sample(n, context=numbers)"
        )
    if model.classes == 0:
        if label is not None:
            raise InvalidSetting(
                f'--label "{label}": this run is unconditional; fit with --conditional to choose '
                "a class"
            )
        return None
    if label is None:
        return torch.arange(n) % model.classes
    return torch.full((n,), _class(model.spec, model.classes, label))


def class_number(model: Fittable, label: str | None) -> int | None:
    """The class that an option names; None for an unconditional run."""
    if not model.classes:
        labels_for(model, 1, label)  # refuses any
        return None
    if label is None:
        raise InvalidSetting("this run is conditional: give the class of the images as --label")
    return _class(model.spec, model.classes, label)


def _class(spec: DataSpec, classes: int, label: str) -> int:
    """The number of a class, given by name or number; a name goes first."""
    if label in spec.classes:
        return spec.classes.index(label)
    names = spec.classes or tuple(map(str, range(classes)))
    # Where a class is called by a number, a number is a name: "0" is not the first of 1, 2, 3.
    numbered = spec.classes and all(name.lstrip("-").isdecimal() for name in spec.classes)
    if label.isdecimal() and int(label) < classes and not numbered:
        return int(label)
    raise InvalidSetting(f'--label "{label}" is no class of {spec.name}: {nearest(label, names)}')
