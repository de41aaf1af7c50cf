"""A CSV of one's own: its lattices, a fit, nats per step, a forecast: own_series.py [table.csv]."""

import sys
import tempfile
from pathlib import Path

import numpy as np

import likely
from likely import data, models
from likely.evaluate.sequences.forecast import forecast
from likely.files.figures import save_figure
from likely.report.forecast import forecast_figure


def house(path: Path) -> Path:
    """Four weeks of hours: a temperature to tenths of a degree, and whether a fan runs."""
    hours, noise = np.arange(24 * 28), np.random.default_rng(0).standard_normal(24 * 28)
    warmth = np.round(20 + 4 * np.sin(2 * np.pi * hours / 24) + noise, 1)
    dates = np.datetime64("2024-03-01T00") + hours.astype("timedelta64[h]")
    rows = [f"{d},{w},{int(w > 22)}" for d, w in zip(dates, warmth, strict=True)]
    path.write_text("\n".join(["date,temperature,fan", *rows]))
    return path


def main(table: str | None = None, steps: int = 300) -> float:
    """Fit a GRU to a table with a column called date or time; returns nats per step."""
    path = Path(table) if table else house(Path(tempfile.mkdtemp()) / "house.csv")
    train, test = data.load(path)
    print(train.spec, *(f"{c.name}: {c.words}" for c in train.spec.columns), sep="\n")
    model = likely.fit(models.GRU(train.spec, hidden=32), train, steps=steps).model
    print(nats := likely.nats(model, test))  # the test part, every step scored
    day = forecast(model, test, horizon=24)  # 200 draws of its end given all before
    print(day.table(), f"{day.covered:.0%} is from q05 to q95", sep="")
    save_figure(forecast_figure(day, path.name), path.with_suffix(".png"))
    return float(nats.value)


if __name__ == "__main__":
    main(*sys.argv[1:2])
