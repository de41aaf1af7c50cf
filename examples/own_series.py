"""A CSV of one's own: its lattices, a fit, nats per step, and a forecast.

python examples/own_series.py [table.csv]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

import likely
from likely import data, models


def made(path: Path) -> Path:
    """Four weeks of hours: a temperature to tenths of a degree, and whether a fan runs."""
    hours, noise = np.arange(24 * 28), np.random.default_rng(0).standard_normal(24 * 28)
    warmth = np.round(20 + 4 * np.sin(2 * np.pi * hours / 24) + noise, 1)
    dates = np.datetime64("2024-03-01T00") + hours.astype("timedelta64[h]")
    rows = [f"{d},{w},{int(w > 22)}" for d, w in zip(dates, warmth, strict=True)]
    path.write_text("date,temperature,fan\n" + "\n".join(rows) + "\n")
    return path


def main(table: str | None = None, steps: int = 60) -> float:
    """Fit a GRU to a table with a column called date or time; returns nats per step."""
    path = Path(table) if table else made(Path(tempfile.mkdtemp()) / "house.csv")
    train, test = data.load(path)
    print(train.spec, *(f"  {c.name}: {c.words}" for c in train.spec.columns), sep="\n")
    model = models.GRU(train.spec, hidden=16, step_hidden=16)
    settings = likely.FitSettings(steps=steps, batch_size=4, learning_rate=0.02, ema=0.9, warmup=5)
    likely.fit(model, train, settings=settings, progress=False)
    print(nats := likely.nats(model, test))
    days = model.forecast(
        train[:1], 24, draws=200, start=int(train.start[0])
    )  # int64 [1, 200, 24, K]
    drawn = train.spec.columns[0].numbers(days[0, :, :, 0].numpy())
    low, middle, high = np.quantile(drawn, [0.05, 0.5, 0.95], axis=0)
    for hour in range(0, 24, 6):
        print(
            f"in {hour + 1:2} steps: {low[hour]:.1f} to {high[hour]:.1f}, median {middle[hour]:.1f}"
        )
    return float(nats.value)


if __name__ == "__main__":
    main(*sys.argv[1:2])
