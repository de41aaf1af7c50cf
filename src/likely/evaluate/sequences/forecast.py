"""Forecasts of a run's data: simulated continuations of a series, and their quantiles.

    likely forecast runs/var --horizon 24 --plot fan.png     the command
    likely.evaluate.sequences.forecast.forecast(model, test)   Python

Draws are from the model's own conditional distribution, so their quantiles are those of its
p(x_{t+h} | x_<=t) but for the number of draws.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from likely.data.sequences.dataset import Sequences
from likely.data.sequences.spec import SequenceSpec
from likely.data.spec import Dataset
from likely.density import Continues
from likely.errors import InvalidData, InvalidSetting

Floats = npt.NDArray[np.float64]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclasses.dataclass(frozen=True)
class Forecast:
    """Continuations of one series, or of a gap in it.

    Attributes:
        spec: of the data.
        series: its number.
        at: scored steps of it that are known, before the first drawn one.
        draws: integers, int64 [n, horizon, K].
        past: what is known, in the units of the columns, [T, K].
        truth: what followed, [horizon, K]; NaN where the data end or a value is missing.
        missing: of a gap, which of its values are drawn, bool [horizon, K]; the others are known.
        after: of a gap, what is known after it, [A, K].
    """

    spec: SequenceSpec
    series: int
    at: int
    draws: npt.NDArray[np.int64]
    past: Floats
    truth: Floats
    missing: npt.NDArray[np.bool_] | None = None
    after: Floats | None = None

    @property
    def quantiles(self) -> Floats:
        """At `QUANTILES`, of the values that were drawn, in the units of the columns, [5, H, K]."""
        values = np.quantile(self.draws, QUANTILES, axis=0, method="inverted_cdf")
        return self._numbers(values)

    @property
    def mean(self) -> Floats:
        """[H, K]."""
        return np.asarray(self._numbers(self.draws).mean(0))

    def likeliest(self, k: int) -> tuple[npt.NDArray[np.int64], Floats]:
        """The most frequent level of a column at each step, and its share, [H] each."""
        levels, shares = [], []
        for drawn in self.draws[:, :, k].T:
            values, counts = np.unique(drawn, return_counts=True)
            levels.append(values[counts.argmax()])
            shares.append(counts.max() / len(drawn))
        return np.array(levels), np.array(shares)

    @property
    def covered(self) -> float:
        """Share of the true numbers from the lowest to the highest quantile; NaN without any."""
        known = np.isfinite(self.truth) & [c.kind != "categorical" for c in self.spec.columns]
        known = known if self.missing is None else known & self.missing
        low, high = self.quantiles[0], self.quantiles[-1]
        inside = (self.truth >= low - 1e-9) & (self.truth <= high + 1e-9)
        return float(inside[known].mean()) if known.any() else float("nan")

    def _numbers(self, x: npt.NDArray[Any]) -> Floats:
        columns = [c.numbers(x[..., k]) for k, c in enumerate(self.spec.columns)]
        return np.stack(columns, -1)

    def rows(self) -> list[dict[str, Any]]:
        """A record of each step and column, as the table has them."""
        quantiles, out = self.quantiles, []
        likeliest = [self.likeliest(k) for k in range(len(self.spec.columns))]
        for h in range(self.draws.shape[1]):
            for k, column in enumerate(self.spec.columns):
                record: dict[str, Any] = {"step": self.at + h}
                if self.missing is None:
                    record["ahead"] = h + 1
                elif not self.missing[h, k]:
                    continue
                record["column"] = column.name
                truth = float(self.truth[h, k])
                if column.kind == "categorical":
                    level, share = int(likeliest[k][0][h]), float(likeliest[k][1][h])
                    value = column.names[level] if column.names else float(column.numbers(level))
                    record |= {"likeliest": value, "share": round(share, 4)}
                    if column.names and np.isfinite(truth):
                        place = round((truth - column.offset) / column.step)
                        record["truth"] = column.names[place]
                        out.append(record)
                        continue
                else:
                    names = (f"q{round(100 * q):02d}" for q in QUANTILES)
                    record |= {n: float(q) for n, q in zip(names, quantiles[:, h, k], strict=True)}
                record["truth"] = truth if np.isfinite(truth) else None
                out.append(record)
        return out

    def table(self) -> str:
        """`rows` as CSV."""
        ahead = ["ahead"] if self.missing is None else []
        names = ["step", *ahead, "column", *(f"q{round(100 * q):02d}" for q in QUANTILES),
                 "likeliest", "share", "truth"]  # fmt: skip
        text = io.StringIO()
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        for row in self.rows():
            writer.writerow({k: f"{v:.8g}" if isinstance(v, float) else v for k, v in row.items()})
        return text.getvalue()


def holding(spec: SequenceSpec, data: Dataset, series: int) -> Sequences:
    """The data, if they are sequences of that kind and hold the one of that number.

    Raises:
        InvalidData: other data.
        InvalidSetting: no such series.
    """
    if not isinstance(data, Sequences):
        raise InvalidData(f"{data.spec.name} holds no sequences")
    if misfit := data.spec.misfit(spec):
        raise InvalidData(misfit)
    if not 0 <= series < len(data):
        raise InvalidSetting(f"there are series 0 to {len(data) - 1}, given {series}")
    return data


def forecast(
    model: Continues,
    data: Dataset,
    *,
    horizon: int = 24,
    at: int | None = None,
    draws: int = 200,
    series: int = 0,
    seed: int = 0,
) -> Forecast:
    """Continue a series of the data from a step of it.

    Args:
        model: of sequences, which can continue them.
        data: of the kind that it was built for.
        horizon: steps to draw.
        at: scored steps that are known; by default as many as leave `horizon` of them to compare
            with, or all where there are no more than that.
        draws: continuations.
        series: number of the sequence.
        seed: of the noise.

    Raises:
        InvalidData: other data; or covariates of steps after the end, which nobody knows.
        InvalidSetting: no such series or step.
    """
    data = holding(model.spec, data, series)
    length, lead = int(data.lengths[series]), int(data.lead[series])
    if at is None:
        at = length - horizon if length > horizon else length
    if not 0 <= at <= length:
        raise InvalidSetting(f"series {series} has {length} steps: given --at {at}")
    known = data[series][: lead + at]
    context = _context(model, data, series, lead + at, horizon)
    x = torch.from_numpy(known)[None]
    drawn = model.forecast(x, horizon, draws=draws, seed=seed, context=context)[0]
    numbers = data.numbers(series)
    truth = np.full((horizon, len(data.spec.columns)), np.nan)
    later = numbers[lead + at : lead + at + horizon]
    truth[: len(later)] = later
    return Forecast(data.spec, series, at, drawn.cpu().numpy(), numbers[: lead + at], truth)


def _context(
    model: Continues, data: Sequences, series: int, known: int, horizon: int
) -> Tensor | None:
    """What the model is told of the known and of the later steps, floats [1, T + H, C]."""
    if not model.context_size:
        return None
    label = None if data.labels is None else torch.tensor([int(data.labels[series])])
    if not data.spec.covariates:
        label = label if model.classes else None
        return model.known_context(label, 1, known + horizon, int(data.start[series]))
    index = np.array([series])
    first = data.offsets[index]
    stop = first + known + horizon
    if stop[0] > data.offsets[series + 1]:
        raise InvalidData(
            f"the covariates {', '.join(data.spec.covariates)} of steps after the end are not "
            f"known: forecast from an earlier step, --at "
            f"{int(data.lengths[series]) - horizon} at most"
        )
    return model.batch_context(data.cut(index, first, stop, first))
