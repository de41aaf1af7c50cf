"""`likely encode RUN -o codes.npz`.

Encode a split of the data of a run, decode the codes, and say how far what is
decoded is from the examples: squared error of values in [0, 1], summed over an
example, with its standard error. Codes of data with known factors (shapes) are
held against them, too. For models with an encoder.
"""

from __future__ import annotations

import argparse
import io
from typing import Any

from likely.cli.output import answer
from likely.cli.parser import Command, Option, whole
from likely.cli.saved import SPLITS, data_of, name_of, opened, path_of, writable, written

EXAMPLE = """\
  likely encode runs/autoencoder
  likely encode runs/vae --split train -o codes.npz
"""
OPTIONS: dict[str, Option] = {
    "--split": ("NAME", SPLITS, "test", "test, validation or train "
                "[test]"),
    "-o --out": ("FILE.npz", None, None, "also write the codes, float32 [N, latent], as `codes`, "
                 "and the labels, where there are some, as `labels`"),
    "--sheet": ("FILE.png", None, None, "where examples and their reconstructions are drawn "
                "[RUN/samples/reconstructions.png]"),
    "--shown": ("N", whole(1), 12, "examples on the sheet [12]"),
}  # fmt: skip

COMMAND = Command(EXAMPLE, OPTIONS, about=__doc__, of_run=True)


def run(options: argparse.Namespace) -> int:
    """Encode, print and write."""
    import numpy as np
    import torch

    from likely.cli.progress import counting
    from likely.evaluate.disentangle import disentanglement
    from likely.files import write_bytes
    from likely.files.sheets import grid_sheet, save_png
    from likely.jobs.codes.encode import encode
    from likely.jobs.evaluate import split_of

    out = path_of(options.out, ".npz", "--out")
    sheet = path_of(options.sheet, ".png", "--sheet")
    saved = opened(options)
    sheet = sheet or saved.directory / "samples" / "reconstructions.png"
    writable(out, sheet)
    part = split_of(*data_of(saved), options.split)
    with counting(f"encoding {len(part):,} examples with {saved.name}") as show:
        encoding = encode(saved.model, part, shown=options.shown, progress=show)
    spec = saved.model.spec
    caption = (
        f"{saved.name} on {spec.name}: {options.split} examples (first row) and what is decoded "
        "from their codes"
    )
    pairs = torch.stack([encoding.examples, encoding.reconstructions])
    save_png(grid_sheet(pairs, spec.levels, caption), sheet)
    if out is not None:
        arrays: dict[str, Any] = {"codes": encoding.codes}
        if encoding.labels is not None:
            arrays["labels"] = encoding.labels
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        write_bytes(out, buffer.getvalue())
    scores = (
        disentanglement(encoding.codes.astype(np.float64), part.factors) if part.factors else None
    )
    n, latent = encoding.codes.shape
    record = {
        "run": str(saved.directory), "model": saved.name, "split": options.split, "n": n,
        "latent": latent, "error": encoding.error.to_json(),
        "disentanglement": None if scores is None else scores.to_json(),
        "sheet": str(sheet), "codes": name_of(out),
    }  # fmt: skip
    return answer(
        options,
        record,
        f"{saved.name} on {spec.name}, {options.split} split: {n:,} codes of {latent} numbers",
        f"  reconstruction error  {encoding.error}",
        *([] if scores is None else [f"  {scores}"]),
        written(out, sheet),
    )
