"""`likely invert RUN [IMAGES]`.

Find the codes of real images by descent: inversion.png has each image above the
nearest one that the model makes, inverted.png paths between the codes of real
images. Without IMAGES: training images, held-out ones and the model's own samples,
and what their errors say of memorising and of what is missing. For models that
decode codes.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from likely.cli.output import answer
from likely.cli.parser import Argument, Command, Option, whole
from likely.cli.saved import data_of, opened

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from likely.density import Decoder
    from likely.runs.saved import SavedRun

EXAMPLE = """\
  likely invert runs/dcgan
  likely invert runs/dcgan pictures/ --steps 500 --restarts 8
"""
OPTIONS: dict[str, Option] = {
    "--number": ("N", whole(2), 32, "images of each kind [32]"),
    "--steps": ("N", whole(0), 200, "updates per descent; 0 takes the best start [200]"),
    "--restarts": ("N", whole(1), 4, "descents per image [4]"),
    "--seed": ("N", whole(0), 0, "seed of the codes that descents start at [0]"),
    "--out": ("DIR", None, None, "where the pictures go [RUN/samples]"),
}  # fmt: skip
SHOWN, PAIRS, PATH = 12, 4, 8  # images of a sheet; pairs and steps of the interpolation

COMMAND = Command(
    EXAMPLE,
    OPTIONS,
    about=__doc__,
    of_run=True,
    argument=Argument(
        "images",
        "IMAGES",
        "a folder or a data set, as `likely data describe` reads "
        "it, brought to the size of the run's images [the data of the run]",
        optional=True,
    ),
)


def run(options: argparse.Namespace) -> int:
    """Invert, print and write."""
    from pathlib import Path

    from likely.ask.query import no_code, refusal
    from likely.density import Decoder
    from likely.files import refuse_unwritable

    saved = opened(options)
    model = saved.model
    if not isinstance(model, Decoder):
        raise refusal(model, no_code(model))
    folder = Path(options.out).expanduser() if options.out else saved.directory / "samples"
    refuse_unwritable(folder / "inversion.png")
    if options.images is not None:
        return _others(saved, model, options, folder)
    from likely.cli.progress import counting
    from likely.jobs.codes.invert import inversions

    train, test = data_of(saved)
    with counting(f"inverting images of {saved.name}") as show:
        result = inversions(
            model, train, test, options.number, steps=options.steps, restarts=options.restarts,
            seed=options.seed, progress=show,
        )  # fmt: skip
    rows = [r for part in (result.train, result.held_out) for r in (part.x, part.images)]
    written = _sheets(saved, model, folder, rows, "training images, and held-out images", result)
    parts = zip(
        ("own samples", "training images", "held-out"),
        (result.samples, result.train, result.held_out),
        strict=True,
    )
    lines = [
        f"  {name:16} {part.error}, n = {part.error.n}" for name, part in parts if part is not None
    ]
    classes = result.held_out.by_class(model.spec.classes)
    if len(classes) > 1:
        worst = sorted(classes.items(), key=lambda item: -item[1])
        lines.append(
            "  held-out by class: " + ", ".join(f"{name} {value:.3g}" for name, value in worst)
        )
    record = {"run": str(saved.directory), **result.to_json(), "files": written}
    return answer(options, record, *lines, *result.words, *(f"  {path}" for path in written))


def _others(saved: SavedRun, model: Decoder, options: argparse.Namespace, folder: Path) -> int:
    """Images that are not of the run's data."""
    import torch

    from likely import data
    from likely.cli.progress import working
    from likely.errors import InvalidSetting
    from likely.jobs.codes.invert import recovered

    if model.classes or model.context_shape:
        raise InvalidSetting(f"{saved.name} is conditional: it inverts the data of its run alone")
    channels, height, width = model.spec.grid
    with working(f"inverting {options.images} with {saved.name}"):
        levels = model.spec.levels
        train, test = data.load(
            options.images, size=(height, width), channels=channels, levels=levels
        )
        parts = [part for part in (train, train.validation, test) if part is not None]
        if misfit := train.spec.misfit(model.spec):
            raise InvalidSetting(f"{options.images}: {misfit}")
        images = [torch.from_numpy(part[: options.number].astype("int64")) for part in parts]
        x = torch.cat(images)[: options.number].to(model.device)
        result = recovered(
            model, x, str(options.images), fingerprint=train.spec.fingerprint, steps=options.steps,
            restarts=options.restarts, seed=options.seed,
        )  # fmt: skip
    written = _sheets(saved, model, folder, [result.x, result.images], str(options.images), result)
    return answer(
        options,
        {"run": str(saved.directory), "error": result.error.to_json(), "files": written},
        f"  {options.images} {result.error}, n = {result.error.n}",
        *(f"  {path}" for path in written),
    )


def _sheets(
    saved: SavedRun, model: Decoder, folder: Path, rows: list[Tensor], whose: str, result: Any
) -> list[str]:
    """Real above inverted, and paths between real images."""
    import torch

    from likely.files.sheets import grid_sheet, save_png
    from likely.jobs.codes.invert import Recovered, interpolated

    title, levels = f"{saved.name} on {model.spec.name}", model.spec.levels
    shown = min(SHOWN, *(len(row) for row in rows))
    grid = torch.stack([row[:shown] for row in rows])
    caption = f"{title}: {whose}, the nearest image that the model makes below each"
    written = [folder / "inversion.png"]
    save_png(grid_sheet(grid, levels, caption), written[0])
    part = result if isinstance(result, Recovered) else result.held_out
    pairs = min(PAIRS, len(part.x) // 2)
    if not (model.classes or model.context_shape) and pairs:
        caption = f"{title}: between the codes of two real images, which stand left and right"
        written.append(folder / "inverted.png")
        save_png(grid_sheet(interpolated(model, part, pairs, PATH), levels, caption), written[1])
    return [str(path) for path in written]
