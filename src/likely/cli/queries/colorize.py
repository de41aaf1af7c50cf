"""`likely colorize RUN test -n 8`.

Colour grey images by the model's own p(x | grey). SOURCE is a split of the run's data
(test, validation, train), a folder of images or integers (.npy). Colour images are
made grey first, and the draws are measured against them. A row of the sheet: the
image, the grey one, the mean of the draws, four draws, and where colours cost bits.
"""

from __future__ import annotations

import argparse

from likely.cli.parser import Command, Option, whole
from likely.cli.queries.upscale import SHARED, SOURCE, restored

EXAMPLE = """\
  likely colorize runs/colour pictures/ -n 64
  likely colorize runs/colour pictures/ --images 20 -o coloured.png
"""
OPTIONS: dict[str, Option] = {
    "--grey": ("NAME", ("model", "rec601"), "model", "what grey is: model (the luma of "
               "luma-chroma: exact; of chain rules over RGB Rec. 601), or rec601, as cameras and "
               "Pillow make it, which is approximate [model]"),
    "--particles": ("N", whole(1), 16, "per image, where a chain rule over RGB draws [16]"),
    **SHARED,
}  # fmt: skip

COMMAND = Command(EXAMPLE, OPTIONS, about=__doc__, of_run=True, argument=SOURCE)


def run(options: argparse.Namespace) -> int:
    """Draw, measure, print and write."""
    from likely.jobs.restore import Task

    return restored(options, Task(kernel="" if options.grey == "model" else "rec601"), "colorize")
