"""What the commands read, say and write of sequences: tables, pictures, MIDI, sound."""

from __future__ import annotations

import argparse
import csv
import io
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from likely.cli.output import aligned, answer, say, say_json, width
from likely.cli.saved import (
    SPLITS,
    data_of,
    folder_of,
    labels_for,
    name_of,
    path_of,
    writable,
    written,
)
from likely.errors import InvalidSetting

if TYPE_CHECKING:
    import numpy.typing as npt

    from likely.data import Dataset
    from likely.density import SequenceDensity, SequenceModel
    from likely.evaluate.sequences.forecast import Forecast
    from likely.runs.saved import SavedRun

MOST_LINES = 48  # of a table on the screen
SUFFIXES = (".csv", ".png", ".mid", ".wav")
# Options of `likely sample` that images alone have.
OF_IMAGES = {"mean": False, "truncation": None, "progressive": None, "temperature": 1.0,
             "method": "auto", "columns": None, "gif": None, "like": None}  # fmt: skip


def sample(options: argparse.Namespace, saved: SavedRun, model: SequenceModel) -> int:
    """`likely sample` of a run of sequences: a table, and the integers."""
    import numpy as np

    from likely.files import write_array, write_bytes
    from likely.training.progress import duration

    for name, nothing in OF_IMAGES.items():
        if getattr(options, name) != nothing:
            raise InvalidSetting(f"--{name} is for images; {saved.name} draws sequences")
    suffix = Path(options.out).suffix.lower() if options.out else ".csv"
    if suffix not in SUFFIXES:
        raise InvalidSetting(f"--out {options.out}: expected a name that ends in "
                             f"{', '.join(SUFFIXES)}")  # fmt: skip
    out = path_of(options.out, suffix, "--out")
    array = path_of(options.npy, ".npy", "--npy")
    out = out or saved.directory / "samples" / f"seed-{options.seed}.csv"
    writable(out, array)
    context = labels_for_sequences(model, options.number, options.label)
    began = time.monotonic()
    steps = options.steps or model.spec.longest
    x = model.sample(options.number, seed=options.seed, context=context, steps=steps)
    seconds = time.monotonic() - began
    integers = x.cpu().numpy()
    write_bytes(out, content(suffix, saved.name, model, integers, options.seed))
    if array is not None:
        write_array(array, integers.astype(np.int32))
    record = {
        "run": str(saved.directory), "model": saved.name, "n": options.number, "steps": steps,
        "seed": options.seed, "columns": [c.name for c in model.spec.columns],
        "file": str(out), "array": name_of(array), "seconds": round(seconds, 3),
    }  # fmt: skip
    drawn = f"{options.number} sequences of {steps} steps from {saved.name}"
    return answer(options, record, f"{drawn} in {duration(seconds)}, {written(out, array)}")


def series_of(options: argparse.Namespace, saved: SavedRun, name: str | None) -> Dataset:
    """The sequences of a file, coded as the run's data, or a split of those."""
    from likely.data.sequences.like import read_like
    from likely.data.sequences.spec import SequenceSpec
    from likely.jobs.evaluate import split_of

    if name is None or (name in SPLITS and not Path(name).exists()):
        return split_of(*data_of(saved), name or options.split)
    spec = saved.model.spec
    assert isinstance(spec, SequenceSpec)
    return read_like(
        Path(name).expanduser(), spec, time=options.time_column, series=options.series_column
    )


def complete(options: argparse.Namespace, saved: SavedRun, model: SequenceDensity) -> int:
    """`likely complete` of a run of sequences: what may be in a gap."""
    from likely.cli.progress import working
    from likely.evaluate.sequences.gap import fill_gap
    from likely.files import write_bytes

    for name in ("mask", "rows", "columns", "npy", "label"):
        if getattr(options, name) is not None:
            raise InvalidSetting(f"--{name} is of images; {saved.name} fills gaps of sequences")
    steps = None
    if options.steps is not None:
        ends = options.steps.split(":")
        if len(ends) != 2 or not all(end.isdecimal() for end in ends):
            raise InvalidSetting(f'--steps: expected a range, as 8:16, given "{options.steps}"')
        steps = (int(ends[0]), int(ends[1]))
    out = path_of(options.out, ".csv", "--out") or saved.directory / "samples" / "completed.csv"
    plot = path_of(options.plot, ".png", "--plot", saved.directory / "samples" / "gap.png")
    writable(out, plot)
    data, count = series_of(options, saved, options.image), options.number or 200
    with working(f"drawing {count} fillings from {saved.name}"):
        gap = fill_gap(
            model, data, steps=steps, series=options.example, draws=count, seed=options.seed,
            method=options.method, particles=options.particles or 2048,
        )  # fmt: skip
    drawn, done = gap.drawn, gap.completions
    write_bytes(out, drawn.table().encode())
    guarantee = "exact" if done.exact else "approximate"
    assert drawn.missing is not None
    missing, horizon = int(drawn.missing.sum()), len(drawn.missing)
    title = (
        f"{data.spec.name}, series {drawn.series}: {missing:,} values missing in steps "
        f"{drawn.at:,} to {drawn.at + horizon - 1:,}, {count} draws of {saved.name}"
    )
    if plot is not None:
        from likely.files.figures import save_figure
        from likely.report.forecast import forecast_figure

        with folder_of(plot):
            save_figure(forecast_figure(drawn, title), plot)
    if options.json:
        say_json(
            {
                "run": str(saved.directory), "model": saved.name, "data": data.spec.name,
                "series": drawn.series, "at": drawn.at, "steps": horizon, "missing": missing,
                "n": count, "seed": options.seed, "guarantee": guarantee,
                "collapsed": done.collapsed, "notes": list(done.notes),
                "estimates": [number.to_json() for number in gap.estimates],
                "csv": str(out), "plot": name_of(plot),
                "covered": drawn.covered if drawn.covered == drawn.covered else None,
                "rows": drawn.rows(),
            }
        )  # fmt: skip
        return 0
    say(f"{title}: median [5 %, 95 %]")
    tell_draws(drawn, "step")
    for number in gap.estimates:
        say(f"  {number.about:34} {number.relation.value} {number.value:.2f} nats")
    say(f"  {guarantee}: {'; '.join(done.notes).removeprefix('exact: ')}")
    say(written(out, plot))
    return 0


def score(options: argparse.Namespace, saved: SavedRun, model: SequenceDensity) -> int:
    """`likely score` of a run of sequences: the stretches that cost more than the model's own."""
    from likely.cli.progress import counting
    from likely.data.sequences import Sequences
    from likely.data.sequences.like import times
    from likely.evaluate.sequences.odd import stretches
    from likely.files import write_bytes

    if options.background is not None or options.regret or options.importance_samples is not None:
        raise InvalidSetting(
            f"--background, --regret and --importance-samples are of images; {saved.name} scores "
            "sequences against its own continuations"
        )
    out = path_of(options.out, ".csv", "--out")
    plot = path_of(options.plot, ".png", "--plot", saved.directory / "samples" / "odd.png")
    writable(out, plot)
    data, moments = series_of(options, saved, options.data), None
    assert isinstance(data, Sequences)
    if options.data not in SPLITS or Path(options.data).exists():
        moments = times(Path(options.data).expanduser(), data.spec, time=options.time_column,
                        series=options.series_column)  # fmt: skip
    with counting(f"drawing what {saved.name} expects") as show:
        result = stretches(model, data, window=options.window, draws=options.draws,
                           seed=options.seed, progress=show)  # fmt: skip
    if out is not None:
        write_bytes(out, result.table().encode())
    if plot is not None:
        from likely.files.figures import save_figure
        from likely.report.stretches import stretches_figure

        title = f"{data.spec.name} ({data.spec.split}) under {saved.name}: the oddest stretches"
        with folder_of(plot):
            save_figure(stretches_figure(data, result, title), plot)
    rows = result.rows(moments)
    if options.json:
        say_json(
            {
                "run": str(saved.directory), "model": saved.name, "data": data.spec.name,
                "window": options.window, "windows": len(rows), "draws": result.draws,
                "seed": options.seed, "nats_per_step": result.value, "flagged": result.flagged,
                "csv": name_of(out),
                "plot": name_of(plot), "stretches": rows[: options.shown],
            }
        )  # fmt: skip
        return 0
    say(f"{data.spec.name} ({data.spec.split}) under {saved.name}: {result.value:.3f} nats per "
        f"{data.spec.time_step}, in {len(rows):,} windows of {options.window}")  # fmt: skip
    say(f"  {100 * result.flagged:.1f} % of them have p <= 5 % among {result.draws} continuations "
        "that the model draws there; 5 % would, of data of its own")  # fmt: skip
    lines = [["series", f"{data.spec.time_step}s", "nats", "the model's own", "excess", "p"]]
    for row in rows[: options.shown]:
        where = f"{row['first']:,} to {row['last']:,}"
        if "from" in row:
            where = f"{row['from']} to {row['to']}"
        numbers = (f"{row['nats_per_step']:.3f}", f"{row['expected']:.3f}",
                   f"{row['excess']:+.1f}", f"{row['p']:.3f}")  # fmt: skip
        lines.append([str(row["series"]), where, *numbers])
    for line in aligned(lines):
        say(f"  {line}")
    say("  (excess: in standard deviations of what the model's own cost there)")
    if out or plot:
        say(written(out, plot))
    return 0


def tell_draws(drawn: Forecast, key: str) -> None:
    """Median and 90 % interval of the first columns at each step, called by `key` of its rows."""
    columns = drawn.spec.columns
    rows = {(row[key], row["column"]): row for row in drawn.rows()}
    places = list(dict.fromkeys(place for place, _ in rows))
    lines = [[key, *(c.name for c in columns)]]
    for place in places[:MOST_LINES]:
        cells = [str(place)]
        for column in columns:
            row = rows.get((place, column.name))
            if row is None:
                cells.append("known")
            elif "likeliest" in row:
                value = row["likeliest"]
                word = value if isinstance(value, str) else f"{value:.6g}"
                cells.append(f"{word} ({100 * row['share']:.0f} %)")
            else:
                cells.append(f"{row['q50']:.4g} [{row['q05']:.4g}, {row['q95']:.4g}]")
        lines.append(cells)
    widths = [max(map(len, side)) for side in zip(*lines, strict=True)]
    # As many columns as the terminal has room for.
    room = [sum(widths[:count]) + 2 * count < width() for count in range(1, len(widths) + 1)]
    shown = max(2, sum(room))
    for line in lines:
        padded = [cell.rjust(size) for cell, size in zip(line, widths, strict=True)][:shown]
        say(f"  {'  '.join(padded)}")
    if len(places) > MOST_LINES:
        say(f"  and {len(places) - MOST_LINES} more steps in the file")
    if len(columns) >= shown:
        say(f"  and {len(columns) + 1 - shown} more columns in the file")
    if drawn.covered == drawn.covered:
        what = "what followed" if drawn.missing is None else "the truth"
        say(f"{100 * drawn.covered:.0f} % of {what} lies from the 5 % to the 95 % quantile")


def content(suffix: str, name: str, model: SequenceModel, x: npt.NDArray[Any], seed: int) -> bytes:
    """What a file of that ending holds of sequences [n, T, K]."""
    from likely.data.sequences import music

    series, spec = list(x), model.spec
    if suffix == ".mid":
        return music.midi(series, spec)
    if suffix == ".wav":
        return music.sound(series, spec)
    if suffix == ".png":
        return music.picture(series, spec, f"{name} on {spec.name}: seed {seed}, not chosen")
    return table(model, x).encode()


def labels_for_sequences(model: SequenceModel, n: int, label: str | None) -> Any:
    """Classes to draw with: the one asked for, or all in turn; None for an unconditional run."""
    if model.spec.covariates:
        raise InvalidSetting(
            f"this run is given covariates ({', '.join(model.spec.covariates)}), which the command "
            "cannot take; draw in Python: likely.load(DIR).model.sample(n, context=numbers)"
        )
    shape, model.context_shape = model.context_shape, ()
    try:
        return labels_for(model, n, label)
    finally:
        model.context_shape = shape


def table(model: SequenceModel, x: npt.NDArray[Any]) -> str:
    """Sequences [n, T, K] as rows of a table in the units of their columns."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["series", "t", *(column.name for column in model.spec.columns)])
    for series, rows in enumerate(x):
        for t, row in enumerate(rows):
            cells = [
                c.names[v] if c.names else f"{c.offset + c.step * v:.10g}"
                for c, v in zip(model.spec.columns, row.tolist(), strict=True)
            ]
            writer.writerow([series, t, *cells])
    return text.getvalue()
