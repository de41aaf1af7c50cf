"""Runs as arguments of commands."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from likely.cli.output import answer, fail, say
from likely.errors import InvalidSetting, nearest

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    from likely.data import Dataset, DataSpec
    from likely.density import Fittable
    from likely.jobs.classify import Classification
    from likely.jobs.clusters import Structure
    from likely.runs.saved import SavedRun

# What an argument may call the parts of a run's data.
SPLITS = ("test", "validation", "train")


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


def shown(
    options: argparse.Namespace, result: Classification | Structure, path: Path, picture: Path
) -> int:
    """Print a result, draw it, and keep its numbers; returns the exit code."""
    record = result.to_json()
    answer(options, record, str(result))
    with folder_of(picture):
        result.plot(picture)
    code = kept(path, record, told=False)
    if not options.json and not code:
        say(f"\n{written(path, picture)}")
    return code


def path_of(
    text: str | None, suffix: str | tuple[str, ...], option: str, usual: Path | None = None
) -> Path | None:
    """The file that an option names, which must end in `suffix`; None where it was not given.

    A tuple of suffixes allows each, as `PICTURES`.

    `usual`, in a folder of the run, is taken where the option was given without a name.
    """
    if text is None:
        return None
    if not text and usual is not None:
        if usual.parent.parent.is_dir():
            usual.parent.mkdir(exist_ok=True)
        return usual
    path = Path(text).expanduser()
    suffixes = (suffix,) if isinstance(suffix, str) else suffix
    if path.suffix.lower() not in suffixes:
        endings = " or ".join(suffixes)
        raise InvalidSetting(f"{option} {text}: expected a file name that ends in {endings}")
    if path.is_dir():
        raise InvalidSetting(f"{option} {text} is a folder; give a file name")
    return path


def writable(*paths: Path | None) -> None:
    """Refuse, before the work begins, a file that is asked for and cannot be written."""
    from likely.files import refuse_unwritable

    for path in paths:
        if path is not None:
            refuse_unwritable(path)


@contextlib.contextmanager
def folder_of(path: Path) -> Iterator[None]:
    """Make the folder of a figure first, as the writers of other files do."""
    from likely.files import writing

    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        yield


def written(*paths: Path | None) -> str:
    """A line that names the files that were asked for; "" of none."""
    names = " and ".join(str(path) for path in paths if path is not None)
    return f"written to {names}" if names else ""


def name_of(path: Path | None) -> str | None:
    """A file in a JSON document."""
    return None if path is None else str(path)


def write_integers(path: Path | None, values: npt.NDArray[Any], levels: int) -> None:
    """Integers in [0, levels) as .npy of the narrowest type, if a file is asked for."""
    import numpy as np

    from likely.files import write_array

    if path is not None:
        write_array(path, values.astype(np.uint8 if levels <= 256 else np.uint16))


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
