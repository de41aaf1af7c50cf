"""`likely compress RUN SOURCE -o FILE`.

Write images or series in the bits that the model says they hold, to be read
back bit for bit: a proof of the likelihood. The file is read with the same
weights, on the same kind of machine.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from likely.cli.output import rows, say, say_json
from likely.cli.parser import Argument, Command, Option, whole
from likely.cli.saved import SPLITS, class_number, data_of, opened
from likely.errors import InvalidSetting

if TYPE_CHECKING:
    from likely.ask import Compressed
    from likely.data.spec import Dataset
    from likely.density import SequenceDensity
    from likely.runs.saved import SavedRun

EXAMPLE = """\
  likely compress runs/pixelcnn images/ -o images.likely
  likely compress runs/pixelcnn test -o test.likely
  likely compress runs/pixelcnn array.npy -o array.likely --alone
  likely compress runs/var mine.csv -o mine.likely --time-column taken
"""
OPTIONS: dict[str, Option] = {
    "-o --out": ("FILE", None, ..., "the compressed file"),
    "--label": ("CLASS", None, None, "name or number of the class of all images, for a conditional "
                "run"),
    "--block": ("N", whole(1), None, "images that are coded together; a fault costs a block [as "
                "many as memory allows, at most 1024]"),
    "--time-column": ("NAME", None, None, "of SOURCE, which orders its steps"),
    "--series-column": ("NAME", None, None, "of SOURCE, which tells its series apart"),
    "--alone": ("", None, False, "do not try the other coders (PNG, WebP, JBIG1, JPEG XL, xz)"),
}  # fmt: skip

COMMAND = Command(
    EXAMPLE,
    OPTIONS,
    about=__doc__,
    of_run=True,
    argument=Argument(
        "source",
        "SOURCE",
        "folder of images, .npy of integers [N, C, H, W] in [0, levels), or "
        "test, validation or train of the run's data; of a run of sequences a table (.csv, .tsv), "
        ".npz or .mat in its columns",
    ),
)


def run(options: argparse.Namespace) -> int:
    """Compress and print the table of sizes."""
    from likely.cli.progress import counting
    from likely.density import SequenceDensity
    from likely.files import refuse_unwritable
    from likely.jobs.compress import compress_file, other_coders
    from likely.training.progress import duration

    out = Path(options.out).expanduser()
    refuse_unwritable(out)
    saved = opened(options)
    if isinstance(saved.model, SequenceDensity):
        return _of_series(options, saved, saved.model)
    if options.time_column or options.series_column:
        raise InvalidSetting(f"time and series columns are of tables; {saved.name} codes images")
    label = class_number(saved.model, options.label)
    began = time.monotonic()
    with counting(f"compressing with {saved.name}") as show:
        compressed, examples = compress_file(
            saved.model, _source(saved, options.source), out, label, options.block,
            str(saved.directory.resolve()), lambda done: show(done, None),
        )  # fmt: skip
    seconds = time.monotonic() - began
    others = {} if options.alone else other_coders(examples.x, saved.model.spec.levels)
    if options.json:
        say_json({"run": str(saved.directory), "file": str(out), **record(compressed),
                  "others": others, "seconds": round(seconds, 3)})  # fmt: skip
        return 0
    say(f"{compressed.examples} images in {duration(seconds)}: {out}\n")
    say(table(compressed, saved.name, others))
    return 0


def _source(saved: SavedRun, name: str) -> Path | Dataset:
    """What SOURCE names: a path, or else a split."""
    from likely.jobs.evaluate import split_of

    path = Path(name).expanduser()
    return path if name not in SPLITS or path.exists() else split_of(*data_of(saved), name)


def _of_series(options: argparse.Namespace, saved: SavedRun, model: SequenceDensity) -> int:
    """Of a run of sequences."""
    from likely.cli.progress import counting
    from likely.cli.sequences import labels_for_sequences
    from likely.jobs.series import compress_series
    from likely.training.progress import duration

    source, out = Path(options.source).expanduser(), Path(options.out).expanduser()
    if model.classes and options.label is None:
        raise InvalidSetting("this run is conditional: give the class of the series as --label")
    named = labels_for_sequences(model, 1, options.label)
    label = None if named is None else int(named)
    began = time.monotonic()
    with counting(f"compressing with {saved.name}") as show:
        compressed, sizes = compress_series(
            model, source, out, label=label, block=options.block, time=options.time_column,
            series=options.series_column, run=str(saved.directory.resolve()),
            progress=lambda done: show(done, None),
        )  # fmt: skip
    seconds, layout = time.monotonic() - began, sizes.pop("layout")
    others = {} if options.alone else sizes
    values, whole = compressed.examples, source.stat().st_size
    if options.json:
        say_json({
            "run": str(saved.directory), "file": str(out), "values": values,
            "bytes": len(compressed.content), "source_bytes": whole,
            "claimed_bits": compressed.claimed, "block_bits": compressed.stream,
            "over_claimed": compressed.over_claimed, "blocks": compressed.blocks,
            "layout_bits": layout, "others": others, "seconds": round(seconds, 3),
        })  # fmt: skip
        return 0
    say(f"{values:,} values in {duration(seconds)}: {out}\n")
    ends = compressed.stream - compressed.claimed
    lines = [
        ("claimed", f"{compressed.claimed / values:8.4f} bits/value  what the model says: "
                    "-log2 p(x)"),
        ("net", f"{compressed.stream / values:8.4f} bits/value  {ends:+.0f} bits in all, "
                f"{100 * compressed.over_claimed:+.3f} % of what is claimed; blocks: "
                f"{compressed.blocks}"),
        ("the rest", f"{layout / 8:8,.0f} bytes  names, times and how the numbers are printed"),
        (saved.name, f"{len(compressed.content):8,} bytes  of {whole:,}, with header and "
                     "checksums"),
    ]  # fmt: skip
    lines += [(name, f"{size / 8:8,.0f} bytes  {size / compressed.bits:.2f} times as long")
              for name, size in sorted(others.items(), key=lambda item: item[1])]  # fmt: skip
    say(rows(lines))
    return 0


def record(compressed: Compressed) -> dict[str, Any]:
    """Its numbers as plain values."""
    return {
        "images": compressed.examples,
        "dimensions": compressed.dimensions,
        "bytes": len(compressed.content),
        "bits_per_dim": compressed.bits_per_dim,
        "claimed_bits": compressed.claimed,
        "block_bits": compressed.stream,
        "initial_bits": compressed.initial,
        "blocks": compressed.blocks,
        "over_claimed": compressed.over_claimed,
        "overhead_bits_per_image": compressed.overhead,
    }


def table(compressed: Compressed, model: str, others: dict[str, int]) -> str:
    """Bits per dimension of each part of the file, and of other coders."""
    count = compressed.examples * compressed.dimensions

    def line(bits: float, about: str) -> str:
        return f"{bits / count:8.4f} bits/dim  {about}"

    net = compressed.stream - compressed.initial
    over = f"{100 * compressed.over_claimed:+.3f} %"
    lines = [
        ("claimed", line(compressed.claimed, "what the model says: -log2 p(x), or its bound")),
        ("net", line(net, f"{over} of what is claimed; blocks: {compressed.blocks}")),
    ]
    if compressed.initial:
        lines.append(("initial", line(compressed.initial, "given, for codes to be read from")))
    about = f"with header and checksums, {compressed.overhead:.1f} bits an image above claimed"
    lines.append((model, line(compressed.bits, about)))
    ranked = sorted(others.items(), key=lambda item: item[1])
    lines += [(name, line(bits, f"{bits / compressed.bits:.2f} times as long"))
              for name, bits in ranked]  # fmt: skip
    return rows(lines)
