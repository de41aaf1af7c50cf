"""`likely decompress FILE -o FOLDER`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from likely.cli.output import answer, note
from likely.cli.parser import Argument, Command, Option, device_option
from likely.errors import InvalidSetting

if TYPE_CHECKING:
    from likely.runs.saved import SavedRun

EXAMPLE = """\
  likely decompress images.likely -o restored/
  likely decompress array.likely -o again.npy --run runs/pixelcnn
  likely decompress images.likely -o others/ --salvage
"""
OPTIONS: dict[str, Option] = {
    "-o --out": ("FOLDER", None, ..., "a new or empty folder; of an array a folder or FILE.npy; of "
                 "series a file that ends as the one that was read"),
    "--run": ("RUN", None, None, "the run that the file was written with [the one it names]"),
    "--anyway": ("", None, False, "also where it was written on another machine; every image is "
                 "checked"),
    "--salvage": ("", None, False, "leave out blocks that are damaged, in place of an error"),
}  # fmt: skip

COMMAND = Command(
    EXAMPLE,
    OPTIONS,
    argument=Argument("file", "FILE", "file that `likely compress` wrote"),
    configure=lambda parser, _: device_option(parser),
)


def run(options: argparse.Namespace) -> int:
    """Decompress; exit code 1 where blocks were left out."""
    from likely.ask.codec.container import read_container
    from likely.cli.progress import counting
    from likely.cli.saved import opened
    from likely.files import reading
    from likely.jobs.compress import decompress_file

    file, out = Path(options.file).expanduser(), Path(options.out).expanduser()
    with reading(file):
        header, _ = read_container(file.read_bytes(), str(file))
    options.run = options.run or header.about.get("run")
    if not isinstance(options.run, str) or not options.run:
        raise InvalidSetting(f"{file} does not say which run wrote it; give --run")
    saved = opened(options)
    if header.about.get("kind") == "series":
        return _of_series(options, saved, file, out)
    with counting(f"decompressing with {saved.name}") as show:
        result = decompress_file(
            saved.model, file, out, anyway=options.anyway, salvage=options.salvage,
            progress=lambda done: show(done, header.examples),
        )  # fmt: skip
    lost = [about for about, _, _ in result.damaged]
    kept = header.examples - sum(last - first for _, first, last in result.damaged)
    record = {"file": str(file), "out": str(out), "images": kept, "damaged": lost}
    answer(options, record, f"{kept} of {header.examples} images: {out}")
    for about in lost:
        note(f"likely: {file}: {about}")
    return 1 if lost else 0


def _of_series(options: argparse.Namespace, saved: SavedRun, file: Path, out: Path) -> int:
    """Of a run of sequences."""
    from likely.ask import decompress
    from likely.cli.progress import counting
    from likely.data.sequences import SequenceSpec
    from likely.files import refuse_unwritable
    from likely.jobs.series import restore

    refuse_unwritable(out)
    spec = saved.model.spec
    if not isinstance(spec, SequenceSpec):
        raise InvalidSetting(f"{file} holds sequences, and {saved.name} is a model of images")
    with counting(f"decompressing with {saved.name}") as show:
        result = decompress(
            saved.model, file.read_bytes(), anyway=options.anyway, name=str(file),
            progress=lambda done: show(done, None),
        )  # fmt: skip
    target = restore(result, spec, out, str(file))
    values = result.header.examples
    return answer(
        options,
        {"file": str(file), "out": str(target), "values": values, "damaged": []},
        f"{values:,} values of {len(result.x):,} series: {target}",
    )
