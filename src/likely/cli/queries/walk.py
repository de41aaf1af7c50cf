"""`likely walk RUN`.

Walk closed loops through the codes of a run, at constant speed where codes lie: a
circle in a random plane, at the distance of drawn codes from their mean. An
animation, and a sheet with a loop a row. For models that decode codes.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from likely.cli.output import answer
from likely.cli.parser import Command, Option, positive, whole
from likely.cli.saved import labels_for, opened, path_of, writable

if TYPE_CHECKING:
    from torch import Tensor

EXAMPLE = """\
  likely walk runs/dcgan
  likely walk runs/vae --loops 12 --steps 96 --seed 3 -o walk.gif
"""
OPTIONS: dict[str, Option] = {
    "--loops": ("N", whole(1, 100), 6, "loops, side by side, at most 100 [6]"),
    "--steps": ("N", whole(3, 1000), 48, "images per loop, at most 1000 [48]"),
    "--seconds": ("X", positive, 0.1, "seconds per image of the animation [0.1]"),
    "--seed": ("N", whole(0), 0, "seed of the planes [0]"),
    "--label": ("CLASS", None, None, "name or number of a class, for a conditional run [all in "
                "turn]"),
    "-o --out": ("FILE.gif", None, None, "the animation; a sheet of 12 of its images goes beside "
                 "it [RUN/samples/walk-SEED.gif]"),
}  # fmt: skip
SHOWN = 12  # images of a loop on the sheet

COMMAND = Command(EXAMPLE, OPTIONS, about=__doc__, of_run=True)


def run(options: argparse.Namespace) -> int:
    """Decode and write."""
    from likely.ask import walk
    from likely.cli.progress import working
    from likely.files import write_bytes
    from likely.files.sheets import animation, grid_sheet, save_png

    out = path_of(options.out, ".gif", "--out")
    saved = opened(options)
    out = out or saved.directory / "samples" / f"walk-{options.seed}.gif"
    sheet = out.with_suffix(".png")
    writable(out, sheet)
    labels = labels_for(saved.model, options.loops, options.label)
    with working(f"walking through the codes of {saved.name}"):
        loops: Tensor = walk(
            saved.model, options.loops, options.steps, seed=options.seed, context=labels
        ).cpu()
    levels = saved.model.spec.levels
    write_bytes(out, animation([*loops.unbind(1)], levels, seconds=options.seconds))
    shown = [step * options.steps // SHOWN for step in range(SHOWN)]
    columns = loops[:, shown if options.steps >= SHOWN else slice(None)]
    caption = (
        f"{saved.name} on {saved.model.spec.name}: a loop through the codes a row, "
        f"{columns.shape[1]} of its {options.steps} images, seed {options.seed}"
    )
    save_png(grid_sheet(columns, levels, caption), sheet)
    record = {
        "run": str(saved.directory), "loops": options.loops, "steps": options.steps,
        "seed": options.seed, "files": [str(out), str(sheet)],
    }  # fmt: skip
    text = f"{options.loops} loops of {options.steps} images: {out}\n  {sheet}"
    return answer(options, record, text)
