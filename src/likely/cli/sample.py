"""`likely sample RUN -n 64 -o samples.png`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from likely.cli import sequences
from likely.cli.output import answer
from likely.cli.parser import Command, Option, Parser, add_options, positive, whole
from likely.cli.saved import (
    SPLITS,
    labels_for,
    name_of,
    opened,
    path_of,
    writable,
    write_integers,
    written,
)
from likely.errors import InvalidSetting

if TYPE_CHECKING:
    from torch import Tensor

    from likely.density import GenerativeModel
    from likely.runs.saved import SavedRun

EXAMPLE = """\
  likely sample runs/vae -n 64 -o samples.png
  likely sample runs/vae -n 1000 --seed 1 --npy samples.npy
  likely sample runs/vae --mean -o means.png
  likely sample runs/conditional -n 80
  likely sample runs/conditional --label 3 -n 16
  likely sample runs/dcgan --truncation 0.7
  likely sample runs/pixelcnn -n 8 --progressive rows.png --gif drawing.gif
  likely sample runs/pixelcnn -n 8 --temperatures 0.6,0.8,1,1.2
  likely sample runs/vae --like test:3 -n 16
"""
SHOWN = 8  # images of a progressive sheet
WIDEST = 20  # columns of a sheet by class
OPTIONS: dict[str, Option] = {
    "-n --number": ("N", whole(1), 64, "how many images [64]"),
    "-o --out": ("FILE.png", None, None, "where the sheet goes [RUN/samples/seed-SEED.png]"),
    "--npy": ("FILE.npy", None, None, "also write the images as integers in [0, levels), uint8 or "
              "uint16 [N, C, H, W]; vectors [N, D]; means as float32 in the same units"),
    "--seed": ("N", whole(0), 0, "the images are a function of weights, seed and label [0]"),
    "--label": ("CLASS", None, None, "name or number of a class, for a conditional run [all in "
                "turn, a row of the sheet each]"),
    "--mean": ("", None, False, "of a model with latent variables (vae): the mean E[x | z] of each "
               "drawn code, as papers show, in place of a draw from p(x | z)"),
    "--truncation": ("T", positive, None, "of a model without a density (dcgan): codes moved to "
                     "their mean by 1 - T, which is not the model's law: less varied, often "
                     "cleaner"),
    "--columns": ("N", whole(1), None, "images per row"),
    "--gif": ("[FILE.gif]", None, None, "also an animation of the images as they are drawn: pixel "
              "by pixel, or scale by scale [RUN/samples/drawing.gif]"),
    "--like": ("IMAGE", None, None, "variations of an image file, or of an example as test:3: a "
               "chain rule keeps the upper rows, luma-chroma the luma, haar-pyramid the averages, "
               "a model with latent variables the code"),
    "--rows": ("N", whole(0), None, "upper rows that --like keeps [half]"),
    "--steps": ("N", whole(1), None, "of sequences: how many steps of each [the longest in the "
                "data]; --out may end in .csv (a table in the units of the columns), .png, and for "
                "music in .mid or .wav"),
}  # fmt: skip
AUTOREGRESSIVE: dict[str, Option] = {
    "--temperature": ("T", positive, 1.0, "temperature of every conditional; below 1: likelier, "
                      "less varied; 1: the model [1]"),
    "--temperatures": ("T,T,...", None, None, "a ladder: a row of -n images at each temperature, "
                       "of the same noise; other than 1 it is not the model"),
    "--method": ("METHOD", None, "auto", "auto, incremental, naive, jacobi or wavefront: same "
                 "images, different speed [auto]"),
    "--progressive": ("FILE.png", None, None, f"also a sheet of the first {SHOWN} images after "
                      "each row of pixels, a line per image"),
}  # fmt: skip


def _of_chain_rules(parser: Parser, _: str | None) -> None:
    add_options(parser.add_argument_group("autoregressive models"), AUTOREGRESSIVE)


COMMAND = Command(
    EXAMPLE,
    OPTIONS,
    of_run=True,
    configure=_of_chain_rules,
)


def run(options: argparse.Namespace) -> int:
    """Draw and write."""
    import numpy as np

    from likely.cli.progress import counting
    from likely.density import SequenceModel, generative
    from likely.files import write_array, write_bytes
    from likely.files.sheets import animation, sample_sheet, save_png
    from likely.jobs.art import unfolding
    from likely.training.progress import duration

    tabular = str(options.out).lower().endswith((".csv", ".mid", ".wav"))
    out = None if tabular else path_of(options.out, ".png", "--out")
    array = path_of(options.npy, ".npy", "--npy")
    trace = path_of(options.progressive, ".png", "--progressive")
    gif = path_of(options.gif, ".gif", "--gif", Path(options.run) / "samples" / "drawing.gif")
    saved = opened(options)
    model = generative(saved.model)
    if isinstance(model, SequenceModel):
        return sequences.sample(options, saved, model)
    if options.steps is not None or tabular:
        raise InvalidSetting(
            f"--steps, .csv, .mid and .wav are for sequences; {saved.name} draws images"
        )
    out = out or saved.directory / "samples" / f"seed-{options.seed}.png"
    writable(out, array, trace, gif)
    if options.like is not None or options.temperatures is not None:
        return drawn_from_something(options, saved, out, array)
    labels = labels_for(saved.model, options.number, options.label)
    began = time.monotonic()
    with counting(f"drawing {options.number} images from {saved.name}") as show:
        images, frames = _drawn(model, saved.name, options, labels, trace is not None, show)
    seconds = time.monotonic() - began
    steps = [] if gif is None else unfolding(saved.model, images[:SHOWN])
    levels, title = saved.model.spec.levels, f"{saved.name} on {saved.model.spec.name}"
    what = "means E[x | z] of drawn codes" if options.mean else "samples"
    if options.truncation is not None:
        what += f" of codes truncated to {options.truncation:g} (not the model's law)"
    shown, columns = images, options.columns
    if labels is not None and options.label is None and columns is None:
        shown, columns = by_class(images, labels)
        what += ", by class"
    sheet = sample_sheet(
        shown,
        levels,
        columns=columns,
        caption=f"{title}: {options.number} {what}, seed {options.seed}, not chosen",
    )
    save_png(sheet, out)
    if array is not None and options.mean:
        write_array(array, images.numpy().astype(np.float32))
    else:
        write_integers(array, images.numpy(), levels)
    if trace is not None:
        caption = f"{title}: after each row of pixels, seed {options.seed}"
        rows = sample_sheet(frames, levels, columns=saved.model.spec.grid[1], caption=caption)
        save_png(rows, trace)
    if gif is not None:
        write_bytes(gif, animation(steps, 256, seconds=0.08))
    record: dict[str, Any] = {
        "run": str(saved.directory),
        "model": saved.name,
        "n": options.number,
        "seed": options.seed,
        "shape": list(images.shape[1:]),
        "levels": levels,
        "labels": None if labels is None else labels.tolist(),
        "sheet": str(out),
        "array": name_of(array),
        "seconds": round(seconds, 3),
        "progressive": name_of(trace),
        "gif": name_of(gif),
        "mean": options.mean,
        "temperature": options.temperature,
        "truncation": options.truncation,
        "method": options.method,
    }
    drawn = f"{options.number} {'means' if options.mean else 'images'} from {saved.name}"
    files = written(out, array, trace, gif)
    return answer(options, record, f"{drawn} in {duration(seconds)}, {files}")


def drawn_from_something(
    options: argparse.Namespace, saved: SavedRun, out: Path, array: Path | None
) -> int:
    """`--like` and `--temperatures`: a sheet of rows."""
    import torch

    from likely.cli.queries.complete import image_of
    from likely.files.sheets import sample_sheet, save_png
    from likely.jobs.art import ladder, variations

    model, title = saved.model, f"{saved.name} on {saved.model.spec.name}"
    if options.like is not None:
        part, _, number = options.like.partition(":")
        is_example = part in SPLITS and number.isdecimal()
        asked = argparse.Namespace(
            image=None if is_example else options.like, label=options.label, split=part,
            example=int(number) if is_example else 0,
        )  # fmt: skip
        x, context, name = image_of(asked, saved)
        rows = model.spec.grid[1] // 2 if options.rows is None else options.rows
        images, how = variations(model, x, options.number, rows, options.seed, context)
        caption = f"{title}: {name}, then {options.number} like it, seed {options.seed}; {how}"
        shown, columns = torch.cat([model.as_data(x), images]).cpu(), options.columns
    else:
        try:
            temperatures = [positive(word) for word in options.temperatures.split(",")]
        except (ValueError, argparse.ArgumentTypeError) as error:
            raise InvalidSetting(
                f"--temperatures {options.temperatures}: expected numbers above 0, as 0.6,0.8,1"
            ) from error
        labels = labels_for(model, options.number, options.label)
        images = ladder(model, temperatures, options.number, options.seed, labels)
        words = ", ".join(f"{t:g}" + " (not the model)" * (t != 1.0) for t in temperatures)
        caption = f"{title}: a row at each temperature, {words}; seed {options.seed}, not chosen"
        images = images.flatten(0, 1)
        shown, columns = images.cpu(), options.number
    sheet = sample_sheet(shown, model.spec.levels, columns=columns, caption=caption)
    save_png(sheet, out)
    write_integers(array, images.cpu().numpy(), model.spec.levels)
    record = {"run": str(saved.directory), "n": len(images), "about": caption}
    return answer(
        options, record | {"sheet": str(out), "array": name_of(array)}, f"{caption}: {out}"
    )


def by_class(images: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    """Images for a sheet whose rows are of one class each, and its columns.

    A class that was drawn once less than others ends on an empty cell.
    """
    import torch

    parts = [images[labels == label] for label in sorted(set(labels.tolist()))]
    most = max(map(len, parts))
    columns = min(most, WIDEST)
    cells = torch.zeros(len(parts), -(-most // columns) * columns, *images.shape[1:])
    for row, part in zip(cells, parts, strict=True):
        row[: len(part)] = part
    return cells.flatten(0, 1).to(images.dtype), columns


def _drawn(
    model: GenerativeModel,
    name: str,
    options: argparse.Namespace,
    labels: Tensor | None,
    traced: bool,
    show: Callable[[int, int | None], None],
) -> tuple[Tensor, Tensor]:
    """The images, and the first of them after each row of pixels, [SHOWN * H, C, H, W]."""
    import torch

    from likely.density import Autoregressive, ImplicitDensity, LatentVariable

    if options.truncation is not None:
        if not isinstance(model, ImplicitDensity):
            raise InvalidSetting(
                f"{name} is no implicit density: --truncation is for generators without a density"
            )
        images = model.sample_truncated(
            options.number, options.truncation, seed=options.seed, context=labels
        )
        return images.cpu(), torch.empty(0)
    if options.mean:
        if not isinstance(model, LatentVariable):
            raise InvalidSetting(
                f"{name} has no decoder p(x | z): --mean is for models with latent variables"
            )
        means = model.sample_means(options.number, seed=options.seed, context=labels)
        return means.cpu(), torch.empty(0)
    frames: list[Tensor] = []
    if not isinstance(model, Autoregressive):
        if traced or options.temperature != 1.0 or options.method != "auto":
            raise InvalidSetting(
                f"{name} is not autoregressive: it has no --temperature, --method or --progressive"
            )
        return model.sample(options.number, seed=options.seed, context=labels).cpu(), torch.empty(0)

    def watch(row: int, x: Tensor) -> None:
        if len(frames) < model.spec.grid[1]:  # of the first chunk only
            frames.append(x[:SHOWN].cpu().clone())

    images = model.sample(
        options.number,
        seed=options.seed,
        context=labels,
        temperature=options.temperature,
        method=options.method,
        watch=watch if traced else None,
        progress=lambda done: show(done, options.number),
    ).cpu()
    lines = torch.stack(frames, 1).flatten(0, 1) if frames else torch.empty(0)
    return images, lines
