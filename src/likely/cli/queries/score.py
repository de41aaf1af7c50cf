"""`likely score RUN DATA`.

Say how odd each example of DATA is under a run: a data set of the same shape,
a folder of images, an array, or a split of the run's own data (test,
validation, train); of a data set by name its test split. Several statistics,
each with p-values by rank among held-out examples of the run's data, and
always the length of a losslessly compressed file beside them, which knows no
model. Draws the oddest and the most usual examples and, where the model has
conditionals, where they are odd. Of sequences, which stretches cost more nats than
what the run itself would have drawn there, with p-values that are uniform for data
of its own; DATA is a table, .npz or .mat in the run's columns, or a split.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from likely.cli.output import aligned, say, say_json
from likely.cli.parser import Argument, Command, Option, whole
from likely.cli.saved import SPLITS, data_of, name_of, opened, path_of, writable, written
from likely.errors import InvalidSetting

if TYPE_CHECKING:
    from likely.data import Dataset
    from likely.runs.saved import SavedRun

EXAMPLE = """\
  likely score runs/pixelcnn test
  likely score runs/pixelcnn pictures/ -o scores.csv
  likely score runs/var test --window 12 --plot odd.png
"""
OPTIONS: dict[str, Option] = {
    "-n": ("N", whole(1), 1000, "examples, spread evenly, of the data and of what is held out "
           "[1000]"),
    "--background": ("RUN", None, None, "a second run on the same shape: its nats are taken off "
                     "(likelihood ratio)"),
    "--regret": ("", None, False, "of VAEs: also fit q(z|x) to each example (slow)"),
    "--importance-samples": ("K", whole(1), None, "of the nats of a latent-variable model [its "
                             "ELBO]"),
    "--shown": ("N", whole(1), 12, "examples on the sheets [12]"),
    "-o --out": ("FILE.csv", None, None, "also write a line for each example: statistics and "
                 "p-values"),
    "--window": ("STEPS", whole(1), 24, "of sequences: steps of a stretch [24]"),
    "--draws": ("N", whole(1), 99, "of sequences: continuations that it is ranked among [99]"),
    "--seed": ("S", whole(0), 0, "seed of their noise [0]"),
    "--plot": ("[FILE.png]", None, None, "of sequences: the oddest stretches, and their nats "
               "[RUN/samples/odd.png]"),
    "--time-column": ("NAME", None, None, "of a table, which orders its steps"),
    "--series-column": ("NAME", None, None, "of a table, which tells its series apart"),
    "--sheet": ("FILE.png", None, None, "where the oddest and the most usual examples are drawn "
                "[RUN/samples/odd.png]"),
}  # fmt: skip
COMMAND = Command(
    EXAMPLE,
    OPTIONS,
    about=__doc__,
    of_run=True,
    argument=Argument("data", "DATA", "a name, a path, or a split of the run's data"),
)


def run(options: argparse.Namespace) -> int:
    """Score, print, draw and write."""
    import numpy as np

    from likely import runs
    from likely.cli.progress import working
    from likely.cli.sequences import score as score_sequences
    from likely.density import SequenceDensity
    from likely.devices import place
    from likely.evaluate.odd import Asked
    from likely.files import write_bytes
    from likely.files.sheets import save_png
    from likely.jobs.score import score

    saved = opened(options)
    if isinstance(saved.model, SequenceDensity):
        return score_sequences(options, saved, saved.model)
    if saved.model.takes_sequences:
        raise InvalidSetting(
            f"{saved.name} has no exact log p of each step to score stretches of sequences by: "
            "take an exact model, as gru or hmm"
        )
    out = path_of(options.out, ".csv", "--out")
    sheet = path_of(options.sheet, ".png", "--sheet")
    sheet = sheet or saved.directory / "samples" / "odd.png"
    writable(out, sheet)
    train, test = data_of(saved)
    examples = _examples(saved, options.data, train, test)
    held_out = test if options.data != "test" else (train.validation or train)
    background = None
    if options.background is not None:
        background = runs.load(options.background).model
        place(background, saved.model.device)
    asked = Asked(background, options.regret, importance_samples=options.importance_samples)
    rows = _spread(examples, options.n)
    part = examples.take(rows)
    origins = rows if part.origins is None else part.origins
    names = [o.decode() if isinstance(o, bytes) else o for o in origins.tolist()]
    with working(f"scoring {examples.spec.name} with {saved.name}"):
        result = score(saved.model, part, held_out.take(_spread(held_out, options.n)), asked)
        order = result.order
        shown = min(options.shown, len(part))
        picked = np.concatenate([order[:shown], order[::-1][:shown]])
        picture = _sheet(saved, part, picked, result, shown)
        if picture is not None:
            save_png(picture, sheet)
    if out is not None:
        write_bytes(out, result.table(names).encode())
    if options.json:
        say_json(
            {
                "run": str(saved.directory),
                "data": examples.spec.name,
                "sheet": None if picture is None else str(sheet),
                "csv": name_of(out),
                "oddest": [names[row] for row in result.order[:5]],
                **result.to_json(),
            }
        )
        return 0
    _tell(saved, part, held_out, result, names)
    if out or picture is not None:
        say(written(out, sheet if picture is not None else None))
    return 0


def _examples(saved: SavedRun, name: str, train: Dataset, test: Dataset) -> Dataset:
    """What DATA names, in the run's shape."""
    from pathlib import Path

    import numpy as np

    from likely.data import from_array, load
    from likely.data.arrays import Layout
    from likely.data.catalogue import CATALOGUE
    from likely.jobs.evaluate import split_of

    if name in SPLITS:
        return split_of(train, test, name)
    asked, spec = saved.options(), saved.model.spec
    changes: dict[str, Any] = {}
    folder = name not in CATALOGUE and Path(name).expanduser().is_dir()
    if folder:
        changes |= {"size": spec.grid[1:], "channels": spec.grid[0]}
    if asked.get("binarize"):
        static = asked["binarize"] == "static" and name != "mnist"
        changes["binarize"] = "threshold" if static else asked["binarize"]
    else:
        changes["levels"] = spec.levels
    first, other = load(name, **changes)
    if name not in CATALOGUE and not saved.model.classes:  # all of it, in its own order
        parts = [part for part in (first, first.validation, other) if part is not None]
        x = np.concatenate([part.batch(slice(0, len(part))).x for part in parts])
        known = [part.origins for part in parts if part.origins is not None]
        origins = np.concatenate(known) if len(known) == len(parts) else None
        x = x if origins is None else x[np.argsort(origins)]
        layout: Layout = "channels-first" if x.ndim == 4 else "auto"
        name, levels = other.spec.name, other.spec.levels
        other = from_array(x, levels, name=name, split="test", layout=layout)
        other.origins = None if origins is None else np.sort(origins)
    if misfit := other.spec.misfit(spec):
        raise InvalidSetting(misfit)
    return other


def _spread(data: Dataset, n: int) -> Any:
    """Positions of at most n examples, spread evenly."""
    import numpy as np

    return np.unique(np.linspace(0, len(data) - 1, min(n, len(data))).astype(np.int64))


def _sheet(saved: SavedRun, data: Dataset, picked: Any, result: Any, shown: int) -> Any:
    """The oddest and the most usual examples and, where there are some, their surprise maps."""
    import numpy as np
    import torch

    from likely.ask.surprise import Surprises
    from likely.density import reading_of
    from likely.files.sheets import grid_sheet

    model, spec = saved.model, saved.model.spec
    if len(spec.shape) != 3 or spec.grid[0] not in (1, 3):
        return None
    part = data.take(picked)
    _, x, context = next(reading_of(model, part, len(part)))
    rows = [x[:shown].cpu(), x[shown:].cpu()]
    caption = (
        f"{data.spec.name} under {saved.name}, by {result.rule}: the oddest, and the most usual"
    )
    if isinstance(model, Surprises):
        told = model.surprise(x, context)
        bits = told.nats.cpu() / np.log(2)
        scale = max(float(bits.sum(1).quantile(0.995)), 1e-9)
        map_ = (bits.sum(1, keepdim=True) / scale).clamp(0, 1).expand(-1, spec.grid[0], -1, -1)
        maps = (map_ * (spec.levels - 1)).round().long()
        if spec.levels == 2:  # a grey map on a sheet of black and white
            rows, maps = [row * 255 for row in rows], (map_ * 255).round().long()
        rows = [rows[0], maps[:shown], rows[1], maps[shown:]]
        caption += f"; below each its surprise, white at {scale:.3g} bits a pixel"
    levels = 256 if spec.levels == 2 and isinstance(model, Surprises) else spec.levels
    return grid_sheet(torch.stack(rows), levels, caption)


def _tell(saved: SavedRun, data: Dataset, held_out: Dataset, result: Any, names: Any) -> None:
    spec = data.spec
    say(
        f"{len(data):,} examples of {spec.name} ({spec.split}) under {saved.name}, beside held-out "
        f"examples of {held_out.spec.name} ({held_out.spec.split})"
    )
    lines = [["", "median", "held out", "odd", "p <= 5 %", "AUROC"], *result.rows()]
    for line in aligned(lines, left=1):
        say(f"  {line}")
    say("  (file-length knows no model: what it finds, no network need be thanked for)")
    if result.null is not None:
        say(
            f"the model's own null: {float((result.null <= 0.05).mean()):.1%} of the examples have "
            "p <= 5 % by their surprise"
        )
    if result.batch is not None:
        apart, p = result.batch
        say(f"as one batch: mean nats {apart:+.2f} from the held-out ones, p = {p:.3g}")
    oddest = ", ".join(str(names[row]) for row in result.order[:5])
    say(f"ranked by {result.rule}; the oddest examples: {oddest}")
