"""`likely complete RUN --rows 0:14 -o sheet.png`; of sequences `likely complete RUN FILE`.

Draw the rest of an image given some of its pixels, or what is missing in a series
given all before and after it. A sheet shows the image, what was observed (what was
not in red), the mean of the draws, and the draws; of a series quantiles are written.
Printed are the guarantee, -log p(observed) and -log p(missing | observed) in nats, and
what the draws are worth. (The completion script of a shell is `likely completion`.)
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from likely.cli.output import say, say_json
from likely.cli.parser import Argument, Command, Option, whole
from likely.cli.saved import (
    SPLITS,
    data_of,
    labels_for,
    name_of,
    opened,
    path_of,
    writable,
    write_integers,
    written,
)
from likely.errors import InvalidData, InvalidSetting

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    from likely.data import DataSpec
    from likely.runs.saved import SavedRun

EXAMPLE = """\
  likely complete runs/pixelcnn --example 3 --rows 0:4
  likely complete runs/vae --rows 2:6 --columns 2:6 --missing -n 4
  likely complete runs/pixelcnn pictures/0.png --rows 2:6 --particles 32
  likely complete runs/var --steps 8:12 --plot gap.png
  likely complete runs/gru test --steps 8:16 --series 3 -n 500
"""
OF_SEQUENCES = ("steps", "plot", "time-column", "series-column")
MISSING = (150, 40, 60)  # the colour of what is not observed
OPTIONS: dict[str, Option] = {
    "--split": ("NAME", SPLITS, "test", "where the example is from "
                "[test]"),
    "--example --series": ("I", whole(0), 0, "which example of the split, or series of FILE, from "
                           "0 [0]"),
    "--mask": ("MASK.png", None, None, "image of the same size: white pixels are observed"),
    "--rows": ("A:B", None, None, "rows A to B - 1 are observed, counted from 0"),
    "--columns": ("A:B", None, None, "columns A to B - 1 are observed; with --rows a rectangle"),
    "--missing": ("", None, False, "what is marked is missing, not observed"),
    "--steps": ("A:B", None, None, "of a series: steps A to B - 1 are missing, beside what is"),
    "-n --number": ("N", whole(1), None, "draws of the rest [8; of a series 200]"),
    "--method": ("METHOD", None, "auto", "auto, exact, smc, gibbs, importance or hmc, as the model "
                 "offers [auto]"),
    "--particles": ("N", whole(1), None, "particles, or codes, of an approximate answer [256; of a "
                    "series 2048]"),
    "--label": ("CLASS", None, None, "class of IMAGE, for a conditional run"),
    "--seed": ("N", whole(0), 0, "seed of the draws [0]"),
    "-o --out": ("FILE", None, None, "where the sheet goes [RUN/samples/completed.png]; of a "
                 "series the quantiles [RUN/samples/completed.csv]"),
    "--plot": ("[FILE.png]", None, None, "of a series: fan charts over the gap; of many keys, "
               "rolls [RUN/samples/gap.png]"),
    "--time-column": ("NAME", None, None, "of FILE, which orders its steps"),
    "--series-column": ("NAME", None, None, "of FILE, which tells its series apart"),
    "--npy": ("FILE.npy", None, None, "also write the draws as integers, [N, C, H, W]"),
}  # fmt: skip

COMMAND = Command(
    EXAMPLE,
    OPTIONS,
    about=__doc__,
    of_run=True,
    argument=Argument(
        "image",
        "FILE",
        "image file, or integers (.npy); of a run of sequences a "
        "table (.csv, .tsv, .parquet), .npz or .mat; else --example",
        optional=True,
    ),
)


def run(options: argparse.Namespace) -> int:
    """Draw, print and write."""
    from likely.ask.complete import answer, completed_nats, completions
    from likely.ask.query import refusal
    from likely.cli.progress import working
    from likely.cli.sequences import complete
    from likely.density import SequenceDensity
    from likely.files.sheets import sample_sheet, save_png

    saved = opened(options)
    if isinstance(saved.model, SequenceDensity):
        return complete(options, saved, saved.model)
    if saved.model.takes_sequences:
        raise refusal(saved.model, answer(saved.model))
    for name in OF_SEQUENCES:
        if getattr(options, name.replace("-", "_")) is not None:
            raise InvalidSetting(f"--{name} is of sequences; {saved.name} draws images")
    options.number, options.particles = options.number or 8, options.particles or 256
    out, array = path_of(options.out, ".png", "--out"), path_of(options.npy, ".npy", "--npy")
    spec, model = saved.model.spec, saved.model
    out = out or saved.directory / "samples" / "completed.png"
    writable(out, array)
    observed = _observed(options, spec)
    x, context, name = image_of(options, saved)
    ways = {"seed": options.seed, "context": context, "particles": options.particles}
    with working(f"completing with {saved.name}"):
        drawn = completions(model, x, observed, options.number, method=options.method, **ways)
        numbers = completed_nats(model, x, observed, drawn, context=context)
    images = drawn.images[0].cpu()
    count, pixels = int(observed.sum()), observed.numel()
    what = f"{name}, {count} of {pixels} pixels observed"
    caption = f"{saved.name} on {spec.name}: {what}; the mean of {options.number} draws, the draws"
    pictures = _pictures(x, observed, images, spec)
    columns = min(11, len(pictures))
    save_png(sample_sheet(pictures, 256, columns=columns, caption=caption), out)
    write_integers(array, images.numpy(), spec.levels)
    guarantee = "exact" if drawn.exact else "approximate"
    if options.json:
        say_json(
            {
                "run": str(saved.directory),
                "model": saved.name,
                "image": name,
                "observed": count,
                "pixels": pixels,
                "n": options.number,
                "seed": options.seed,
                "guarantee": guarantee,
                "collapsed": drawn.collapsed,
                "notes": list(drawn.notes),
                "estimates": [number.to_json() for number in numbers],
                "sheet": str(out),
                "array": name_of(array),
            }
        )
        return 0
    say(f"{saved.name} on {spec.name}: {what}")
    of = {"nll-observed": count, "nll-missing": pixels - count, "nll": pixels}
    for number in numbers:
        dimensions = of[number.quantity] * spec.grid[0]
        bits = number.value / math.log(2) / dimensions
        relation = number.relation.value
        say(f"  {number.about:34} {relation} {number.value:.2f} nats, {bits:.4f} bits/dim")
    say(f"  {guarantee}: {'; '.join(drawn.notes).removeprefix('exact: ')}")
    say(written(out, array))
    return 0


def _observed(options: argparse.Namespace, spec: DataSpec) -> Tensor:
    """Which pixels are observed, bool [H, W] ([D] for vectors)."""
    import torch

    height, width = spec.grid[1:]
    rows, columns = options.rows, options.columns
    if (options.mask is None) == (rows is None and columns is None):
        raise InvalidSetting("say what is observed: either --mask MASK.png, or --rows or --columns")
    if options.mask is not None:
        marked = torch.from_numpy(_pixels(options.mask, "--mask", "L") >= 128)
        if marked.shape != (height, width):
            raise InvalidData(
                f"--mask {options.mask} has {marked.shape[0]} x {marked.shape[1]} pixels, and "
                f"{spec.name} {height} x {width}"
            )
    else:
        marked = torch.zeros(height, width, dtype=torch.bool)
        marked[_range(rows, "--rows", height), _range(columns, "--columns", width)] = True
    observed = ~marked if options.missing else marked
    if bool(observed.all()):
        raise InvalidSetting("all pixels are observed: there is nothing to draw")
    if not bool(observed.any()):
        raise InvalidSetting("no pixel is observed: `likely sample` draws whole images")
    return observed[0] if len(spec.shape) == 1 else observed


def _range(text: str | None, option: str, side: int) -> slice:
    """ "0:14" as a slice of a side; all of it where the option was not given."""
    if text is None:
        return slice(None)
    first, colon, last = text.partition(":")
    ends = [word or default for word, default in ((first, "0"), (last, str(side)))]
    if not colon or not all(end.isdecimal() for end in ends) or int(ends[0]) >= int(ends[1]):
        raise InvalidSetting(f'{option}: expected a range, as 0:{side // 2}, given "{text}"')
    if int(ends[1]) > side:
        raise InvalidSetting(f"{option} {text}: the image ends at {side}")
    return slice(int(ends[0]), int(ends[1]))


def _pixels(name: str, option: str, mode: str) -> npt.NDArray[Any]:
    """An image file as an array of bytes, [H, W] or [H, W, 3]."""
    import numpy as np
    from PIL import Image

    path = Path(name).expanduser()
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert(mode))
    except (OSError, ValueError) as error:
        raise InvalidData(f"{option} {name}: no image that can be read ({error})") from error


def image_of(options: argparse.Namespace, saved: SavedRun) -> tuple[Tensor, Tensor | None, str]:
    """(the image, integers [1, *shape]; its context; its name)."""
    import numpy as np
    import torch

    from likely.density import inputs_of
    from likely.jobs.evaluate import split_of

    model, spec = saved.model, saved.model.spec
    if options.image is None:
        part = split_of(*data_of(saved), options.split)
        if options.example >= len(part):
            raise InvalidSetting(
                f"--example {options.example}: the {options.split} split has {len(part):,}, "
                "counted from 0"
            )
        batch = part.batch(slice(options.example, options.example + 1))
        return *inputs_of(model, batch), f"{options.split} example {options.example}"
    if Path(options.image).suffix.lower() == ".npy":
        try:
            values = np.load(Path(options.image).expanduser(), allow_pickle=False)
        except (OSError, ValueError) as error:
            raise InvalidData(f"{options.image}: no array that can be read ({error})") from error
        values = values if values.ndim > len(spec.shape) else values[None]
        if values.dtype.kind not in "iub":
            raise InvalidData(f"{options.image}: expected integers, given {values.dtype}")
        x = torch.from_numpy(values[:1].astype(np.int64))
    else:
        grey = spec.grid[0] == 1
        values = _pixels(options.image, "IMAGE", "L" if grey else "RGB")
        scaled = np.rint(values.astype(np.float64) * ((spec.levels - 1) / 255)).astype(np.int64)
        x = torch.from_numpy(scaled[None] if grey else scaled.transpose(2, 0, 1))[None]
    if tuple(x.shape[1:]) not in (spec.shape, spec.grid):
        raise InvalidData(
            f"{options.image}: expected an image of shape {list(spec.grid)}, as {spec.name} has, "
            f"given {list(x.shape[1:])}"
        )
    return model.integers(x), labels_for(model, 1, options.label), Path(options.image).name


def _pictures(x: Tensor, observed: Tensor, images: Tensor, spec: DataSpec) -> npt.NDArray[Any]:
    """Truth, what was observed, mean and draws, bytes [3 + n, 3, H, W]."""
    import numpy as np
    import torch

    from likely.files.sheets import to_rgb

    grid = images.reshape(-1, *spec.grid).double()
    lines = torch.cat([x.cpu().reshape(1, *spec.grid).double().repeat(2, 1, 1, 1),
                       grid.mean(0, keepdim=True), grid])  # fmt: skip
    rgb = to_rgb(lines, spec.levels).copy()
    rgb[1][~observed.numpy().reshape(spec.grid[1:])] = MISSING
    return np.ascontiguousarray(rgb.transpose(0, 3, 1, 2))
