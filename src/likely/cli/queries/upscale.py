"""`likely upscale RUN test --times 2 -n 8`.

Enlarge small images by the model's own p(x | small image). SOURCE is a split of the
run's data (test, validation, train), a folder of images or integers (.npy). Images of
the run's size are made small first, and the draws are measured against them. A row of
the sheet: the image, the small one, the mean of the draws, four draws, and where the
details cost bits.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from likely.cli.output import answer
from likely.cli.parser import Argument, Command, Option, whole
from likely.cli.saved import (
    SPLITS,
    data_of,
    labels_for,
    opened,
    path_of,
    writable,
    write_integers,
    written,
)
from likely.errors import InvalidData, InvalidSetting

if TYPE_CHECKING:
    from torch import Tensor

    from likely.jobs.restore import Task
    from likely.runs.saved import SavedRun

EXAMPLE = """\
  likely upscale runs/scale test --times 2 -n 64
  likely upscale runs/scale pictures/ --kernel bicubic -o large.png
"""
SHARED: dict[str, Option] = {
    "-n --number": ("N", whole(1), 8, "draws per image [8]"),
    "--images": ("N", whole(1), 8, "the first N images of SOURCE [8]"),
    "--label": ("CLASS", None, None, "class of all images of a folder or an array, for a "
                "conditional run"),
    "--seed": ("N", whole(0), 0, "seed of the draws [0]"),
    "-o --out": ("FILE.png", None, None, "where the sheet goes [RUN/samples/VERB.png]"),
    "--npy": ("FILE.npy", None, None, "also write the draws as integers, [N, n, C, H, W]"),
    "--intervals": ("FILE.npy", None, None, "also write the lowest and the highest level of each "
                    "dimension's 90 %% interval, [2, N, C, H, W]"),
    "--calibrate": ("N", whole(0), 0, "choose the share of the draws that an interval spans so "
                    "that it holds 90 %% of N images of the validation split [0: the central "
                    "90 %%]"),
}  # fmt: skip
SOURCE = Argument("source", "SOURCE", "a split of the run's data, a folder of images, or integers "
                  "(.npy)")  # fmt: skip
OPTIONS: dict[str, Option] = {
    "--times": ("N", whole(2), 2, "by which the sides grow [2]"),
    "--kernel": ("NAME", ("model", "area", "bicubic", "nearest"), "model", "how the small images "
                 "were made: model (its averages rounded down, or every N-th pixel: exact), or a "
                 "filter, which is approximate [model]"),
    **SHARED,
}  # fmt: skip

COMMAND = Command(EXAMPLE, OPTIONS, about=__doc__, of_run=True, argument=SOURCE)


def run(options: argparse.Namespace) -> int:
    """Draw, measure, print and write."""
    from likely.jobs.restore import Task

    kernel = "" if options.kernel == "model" else options.kernel
    return restored(options, Task(options.times, kernel), "upscale")


def restored(options: argparse.Namespace, task: Task, verb: str) -> int:
    """What both commands do."""
    from likely.cli.progress import counting
    from likely.files.sheets import save_png
    from likely.jobs.restore import restore

    out, array = path_of(options.out, ".png", "--out"), path_of(options.npy, ".npy", "--npy")
    bounds = path_of(options.intervals, ".npy", "--intervals")
    saved = opened(options)
    out = out or saved.directory / "samples" / f"{verb}.png"
    writable(out, array, bounds)
    x, context, fingerprint = _source(saved, options.source, options.images, options.label)
    whole_size = tuple(x.shape[1:]) == saved.model.spec.grid
    base, truth = (None, x) if whole_size else (x, None)
    if base is not None:
        _refuse_size(base, saved, task, options.source)
    particles = {} if task.times > 1 else {"particles": options.particles}
    how: dict[str, Any] = {"seed": options.seed, **particles}
    if options.calibrate and options.number < 2:
        raise InvalidSetting("--calibrate: intervals need at least 2 draws of each image (-n)")
    with counting(f"drawing {options.number} of each image with {saved.name}") as show:
        result = restore(
            saved.model, task, base, truth, options.number, context=context,
            fingerprint=fingerprint, progress=show, **how,
        )  # fmt: skip
    if options.calibrate:
        others, of_others, _ = _source(saved, "validation", options.calibrate)
        with counting("drawing validation images") as show:
            result = result.calibrated(
                restore(
                    saved.model, task, None, others, options.number, context=of_others,
                    progress=show, **how,
                )
            )  # fmt: skip
    caption = f"{saved.name} on {saved.model.spec.name}"
    save_png(result.sheet(caption), out)
    write_integers(array, result.draws, saved.model.spec.levels)
    write_integers(bounds, result.intervals, saved.model.spec.levels)
    files = [str(path) for path in (out, array, bounds) if path is not None]
    done = "coloured" if task.times == 1 else f"enlarged {task.times} times"
    return answer(
        options,
        {"run": str(saved.directory), "model": saved.name}
        | result.to_json()
        | {"seed": options.seed, "files": files},
        f"{caption}: {len(result.draws)} images {done}, {options.number} draws each",
        *(f"  {line}" for line in result.lines()),
        written(out, array, bounds),
    )


def _refuse_size(base: Tensor, saved: SavedRun, task: Task, source: str) -> None:
    channels, height, width = saved.model.spec.grid
    wanted = (1 if task.times == 1 else channels, -(-height // task.times), -(-width // task.times))
    if tuple(base.shape[1:]) != wanted:
        kind = "grey images" if task.times == 1 else "small images"
        raise InvalidData(
            f"{source}: expected images of shape {list(saved.model.spec.grid)}, or {kind} of "
            f"{list(wanted)}, given {list(base.shape[1:])}"
        )


def _source(
    saved: SavedRun, source: str, images: int, label: str | None = None
) -> tuple[Tensor, Tensor | None, str]:
    """(images, levels [B, C, H, W]; their context; the fingerprint of their data, or "")."""
    import numpy as np
    import torch

    from likely.density import inputs_of
    from likely.jobs.evaluate import split_of

    model, spec = saved.model, saved.model.spec
    if source in SPLITS:
        part = split_of(*data_of(saved), source)
        part = part.take(slice(0, images))
        x, context = inputs_of(model, part.batch(slice(0, len(part))))
        return x.reshape(len(x), *spec.grid), context, part.spec.fingerprint
    path = Path(source).expanduser()
    if path.is_dir():
        values = _folder(path, images)
        values = np.rint(values * ((spec.levels - 1) / 255))
    else:
        values = _array(path)[:images]
    x = torch.from_numpy(values.astype(np.int64)).to(model.device)
    if len(x) and not 0 <= int(x.min()) <= int(x.max()) < spec.levels:
        raise InvalidData(
            f"{path}: expected values in [0, {spec.levels}), given {int(x.min())} to {int(x.max())}"
        )
    return x, labels_for(model, len(x), label), ""


def _array(path: Path) -> Any:
    """Integers [N, C, H, W] of a file; a missing side of channels is one channel."""
    import numpy as np

    if path.suffix.lower() != ".npy" or not path.exists():
        raise InvalidSetting(
            f"{path}: expected test, validation or train, a folder of images, or an .npy file"
        )
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InvalidData(f"{path}: no array that can be read ({error})") from error
    values = values[:, None] if values.ndim == 3 else values
    if values.dtype.kind not in "iu" or values.ndim != 4 or not len(values):
        raise InvalidData(
            f"{path}: expected integers [N, C, H, W] or [N, H, W], given {values.dtype} "
            f"{list(values.shape)}"
        )
    return values


def _folder(path: Path, count: int) -> Any:
    """Images of a folder by name, bytes [N, C, H, W], as they are; all of one shape."""
    import numpy as np

    from likely.data.pixels import Unreadable, read_image

    values, shape = [], None
    for file in sorted(each for each in path.iterdir() if each.is_file())[:count]:
        try:
            image = read_image(file, None, None if shape is None else shape[0])
        except Unreadable as error:
            raise InvalidData(f"{file}: {error}") from error
        shape = shape or image.shape
        if image.shape != shape:
            raise InvalidData(
                f"{file}: expected images of one size, {list(shape)}, given {list(image.shape)}"
            )
        values.append(image)
    if not values:
        raise InvalidData(f"{path}: no images in this folder")
    return np.stack(values)
