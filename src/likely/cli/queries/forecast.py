"""`likely forecast RUN`.

Continue a series of a run's data from a step of it: draws from the model's own
p(later steps | steps so far), exact but for their number, as quantiles of every
column and step beside what followed, in the units of the columns.
"""

from __future__ import annotations

import argparse

from likely.cli.output import say, say_json
from likely.cli.parser import Command, Option, one_of, whole
from likely.cli.saved import SPLITS, data_of, folder_of, name_of, opened, path_of, writable, written
from likely.cli.sequences import tell_draws
from likely.errors import InvalidSetting

EXAMPLE = """\
  likely forecast runs/var --horizon 24 --plot fan.png
  likely forecast runs/gru --series 3 --at 32 --horizon 16 -n 500 -o continued.csv
"""
OPTIONS: dict[str, Option] = {
    "--horizon": ("H", whole(1), 24, "steps to forecast [24]"),
    "--at": ("STEP", whole(0), None, "steps of the series that are known [all but the last H]"),
    "-n --draws": ("N", whole(1), 200, "simulated continuations [200]"),
    "--series": ("I", whole(0), 0, "number of the sequence [0]"),
    "--split": ("SPLIT", one_of(SPLITS), "test", "whose sequences: test, validation, train [test]"),
    "--seed": ("S", whole(0), 0, "seed of the noise [0]"),
    "-o --out": ("FILE.csv", None, None, "a line for each step and column: quantiles 5, 25, 50, 75 "
                 "and 95, and what followed [RUN/samples/forecast.csv]"),
    "--plot": ("[FILE.png]", None, None, "fan charts; of many keys, piano rolls "
               "[RUN/samples/forecast.png]"),
}  # fmt: skip

COMMAND = Command(EXAMPLE, OPTIONS, about=__doc__, of_run=True)


def run(options: argparse.Namespace) -> int:
    """Draw, print and write."""
    from likely.ask import answers
    from likely.cli.progress import working
    from likely.density import Continues, generative
    from likely.evaluate.sequences.forecast import forecast
    from likely.files import write_bytes
    from likely.jobs.evaluate import split_of

    out = path_of(options.out, ".csv", "--out")
    saved = opened(options)
    folder = saved.directory / "samples"
    plot = path_of(options.plot, ".png", "--plot", folder / "forecast.png")
    model = generative(saved.model)
    worth = answers(model)["forecast"]
    if not isinstance(model, Continues):
        raise InvalidSetting(
            f"{saved.name}: {worth.reason}. Fit a model that forecasts: likely fit gru --data "
            "regimes"
        )
    out = out or folder / "forecast.csv"
    writable(out, plot)
    data = split_of(*data_of(saved), options.split)
    with working(f"drawing {options.draws} continuations from {saved.name}"):
        drawn = forecast(
            model, data, horizon=options.horizon, at=options.at, draws=options.draws,
            series=options.series, seed=options.seed,
        )  # fmt: skip
    write_bytes(out, drawn.table().encode())
    if plot is not None:
        from likely.files.figures import save_figure
        from likely.report.forecast import forecast_figure

        title = (
            f"{data.spec.name}, {options.split}, series {drawn.series} after {drawn.at:,} steps: "
            f"{options.draws} draws of {saved.name}"
        )
        with folder_of(plot):
            save_figure(forecast_figure(drawn, title), plot)
    if options.json:
        say_json(
            {
                "run": str(saved.directory), "model": saved.name,
                "guarantee": worth.guarantee.value,
                "split": options.split, "series": drawn.series, "at": drawn.at,
                "horizon": options.horizon, "draws": options.draws, "seed": options.seed,
                "csv": str(out), "plot": name_of(plot),
                "covered": drawn.covered if drawn.covered == drawn.covered else None,
                "rows": drawn.rows(),
            }
        )  # fmt: skip
        return 0
    spec = model.spec
    say(f"{spec.name}, {options.split}, series {drawn.series} after {drawn.at:,} of its steps; "
        f"{options.draws} draws of {saved.name}, {worth.guarantee.value}: median [5 %, 95 %] of "
        f"each {spec.time_step} ahead")  # fmt: skip
    tell_draws(drawn, "ahead")
    say(written(out, plot))
    return 0
