"""A gap of a series: draws of what is missing given all the rest, and what they are worth.

    likely complete runs/hmm --steps 100:124 --plot gap.png     the command
    likely.evaluate.sequences.gap.fill_gap(model, test, ...)    Python

The gap is where values are missing, or the steps that are named, whose values are then compared.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from likely.ask.complete import completed_nats, completions
from likely.data.sequences.spec import MISSING
from likely.data.spec import Dataset
from likely.density import PARTICLES, Completions, SequenceDensity
from likely.errors import InvalidSetting
from likely.estimate import Estimate
from likely.evaluate.sequences.forecast import Forecast, holding


@dataclasses.dataclass(frozen=True)
class Gap:
    """What may be in a gap.

    Attributes:
        drawn: from the first missing step to the last.
        completions: how, and what the draws are worth.
        estimates: -log p of what is known and, where the truth is, of it given that, in nats.
    """

    drawn: Forecast
    completions: Completions
    estimates: tuple[Estimate, ...]


def fill_gap(
    model: SequenceDensity,
    data: Dataset,
    *,
    steps: tuple[int, int] | None = None,
    series: int = 0,
    draws: int = 200,
    seed: int = 0,
    method: str = "auto",
    particles: int = PARTICLES,
) -> Gap:
    """Draw what is missing in a series.

    Args:
        model: a density of sequences.
        data: of the kind that it was built for.
        steps: [first, stop) of the scored steps that count as missing, beside what is.
        series: number of the sequence.
        draws: of the gap.
        seed: of the noise.
        method, particles: as `likely.ask.complete` takes them.

    Raises:
        InvalidData: other data.
        InvalidSetting: no such series or steps, or nothing is missing.
        Unanswerable: method "exact" of a model that has particles alone for this gap.
    """
    data = holding(model.spec, data, series)
    length, lead = int(data.lengths[series]), int(data.lead[series])
    batch = data.batch(np.array([series]))
    observed = batch.x[0] > MISSING
    if steps is not None:
        if not 0 <= steps[0] < steps[1] <= length:
            raise InvalidSetting(
                f"series {series} has steps 0 to {length}: given {steps[0]}:{steps[1]}"
            )
        observed[lead + steps[0] : lead + steps[1]] = False
    gap = np.flatnonzero(~observed[lead:].all(1))
    if not len(gap):
        raise InvalidSetting(f"nothing is missing in series {series}; say which steps are, as 8:16")
    x, context = torch.from_numpy(batch.x), model.batch_context(batch)
    mask = torch.from_numpy(observed)
    done = completions(
        model, x, mask, draws, seed=seed, context=context, method=method, particles=particles
    )
    first, stop = lead + int(gap[0]), lead + int(gap[-1]) + 1
    numbers = data.numbers(series)
    drawn = Forecast(
        data.spec, series, int(gap[0]), done.images[0, :, first:stop].cpu().numpy(),
        numbers[:first], numbers[first:stop], ~observed[first:stop], numbers[stop:],
    )  # fmt: skip
    estimates = completed_nats(
        model, x, mask, done, context=context, fingerprint=data.spec.fingerprint
    )
    return Gap(drawn, done, estimates)
