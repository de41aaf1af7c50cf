r"""Whether forecasts of the next step mean what they say: PIT, coverage, CRPS, energy score.

At steps spread evenly over the data, m draws X_1..m of the step given all before it are held
against the step y itself.

- Randomised PIT of a column (Czado, Gneiting and Held 2009,
  https://doi.org/10.1111/j.1541-0420.2009.01191.x), by ranks: v = (#{X < y} + u (#{X = y} + 1)) /
  (m + 1), u uniform. It is uniform for any m if the model is right. The central 90 % interval
  covers y where v lies from 0.05 to 0.95. The largest distance of its distribution from the uniform
  one (Kolmogorov and Smirnov) has a p-value by resampling blocks of steps.
- CRPS (Gneiting and Raftery 2007, https://doi.org/10.1198/016214506000001437), of numbers in
  standard deviations of the column over the training data, without bias:
  mean |X - y| - sum_{i<j} |X_i - X_j| / (m (m - 1)). The energy score is the same of the whole
  step, with the Euclidean distance over columns.

Columns that are numbers are measured; a category has no interval, and of a binary one every
interval covers too much.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from typing import cast

import numpy as np
import numpy.typing as npt
import torch

from likely.data.sequences.dataset import Sequences
from likely.data.spec import Dataset
from likely.density import Continues, evaluating
from likely.density.sequence.steps import State, Steps
from likely.devices.precision import without_autocast
from likely.errors import InvalidData
from likely.estimate import Estimate, Relation
from likely.noise import Noise

Floats = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]

STEPS, DRAWS = 600, 99
LEVELS = (50, 80, 90, 95)  # percent
BLOCKS = 30  # of consecutive measured steps
RESAMPLED = 1000


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What was measured, at N steps of K columns.

    Attributes:
        pit: randomised ranks in [0, 1], NaN where the value is missing, [N, K].
        crps: in standard deviations of the column, [N, K].
        energy: of whole steps, [N]; NaN where a value is missing.
        columns: names.
        draws: m.
        fingerprint: of the data.
    """

    pit: Floats
    crps: Floats
    energy: Floats
    columns: tuple[str, ...]
    draws: int
    fingerprint: str

    def covered(self, level: float) -> Floats:
        """Whether each value lies in the central interval of so many percent; NaN unknown."""
        tail = (1 - level / 100) / 2
        inside = ((self.pit >= tail) & (self.pit <= 1 - tail)).astype(np.float64)
        return np.where(np.isfinite(self.pit), inside, np.nan)

    @property
    def estimates(self) -> list[Estimate]:
        """Coverage in percent, CRPS, and of several columns the energy score, where any of the
        steps is known whole."""
        about = f"{len(self.pit):,} steps spread evenly, {self.draws} draws of each"
        out = [
            self._estimate(100 * self.covered(level), f"coverage-{level}", "%", about)
            for level in LEVELS
        ]
        unit = "standard deviations"
        out.append(self._estimate(self.crps, "crps", unit, about))
        if len(self.columns) > 1 and np.isfinite(self.energy).any():
            out.append(self._estimate(self.energy[:, None], "energy-score", unit, about))
        return out

    def _estimate(self, values: Floats, name: str, unit: str, about: str) -> Estimate:
        """The mean, with its error from blocks of steps."""
        sums = [np.nansum(block) for block in _blocks(values)]
        counts = [np.isfinite(block).sum() for block in _blocks(values)]
        total, count = float(np.sum(sums)), int(np.sum(counts))
        mean = total / count
        rest = np.array(sums) - mean * np.array(counts)
        many = len(rest)
        error = math.sqrt((rest**2).sum() * many / (many - 1)) / count if many > 1 else math.inf
        lower = None if name.startswith("coverage") else True
        return Estimate(
            mean,
            unit,
            Relation.APPROXIMATE,
            name,
            error,
            len(values),
            self.fingerprint,
            lower,
            about,
        )

    def uniformity(self, seed: int = 0) -> tuple[float, float]:
        """(largest distance of the distribution of the PIT from the uniform one, p-value)."""
        grid = np.linspace(0.01, 0.99, 99)
        below = [(block[..., None] <= grid).sum((0, 1)) for block in _blocks(self.pit)]
        counts = np.array([np.isfinite(block).sum() for block in _blocks(self.pit)])
        sums = np.array(below, dtype=np.float64)
        shares = sums.sum(0) / counts.sum()
        distance = float(np.abs(shares - grid).max())
        picks = np.random.default_rng(seed).integers(0, len(sums), (RESAMPLED, len(sums)))
        again = sums[picks].sum(1) / counts[picks].sum(1).clip(1)[:, None]
        beyond = (np.abs(again - shares).max(1) >= distance).sum()
        return distance, float((1 + beyond) / (1 + RESAMPLED))

    @property
    def sentence(self) -> str:
        """Of the PIT."""
        distance, p = self.uniformity()
        return (
            f"PIT of the next step: at most {distance:.3f} from uniform, p = {p:.2g} by blocks of "
            f"steps; {', '.join(self.columns[:8])}"
        )


def _blocks(values: Floats) -> list[Floats]:
    return cast(list[Floats], np.array_split(values, max(1, min(BLOCKS, len(values) // 8))))


@torch.no_grad()
def calibration(
    model: Continues,
    data: Dataset,
    train: Dataset,
    *,
    steps: int = STEPS,
    draws: int = DRAWS,
    seed: int = 0,
    progress: Progress | None = None,
) -> Calibration:
    """Hold draws of the next step against what came.

    Args:
        model: of sequences, which can continue them; one with latents by its particles.
        data: of the kind that it was built for.
        train: its training set, whose standard deviations are the unit of scores.
        steps: at most so many steps of the data, spread evenly.
        draws: of each.
        seed: of the draws.
        progress: told of (steps done, of how many).

    Raises:
        InvalidData: other data, or none of whose columns is a number that is known at those steps.
    """
    if not isinstance(data, Sequences) or not isinstance(train, Sequences):
        raise InvalidData(f"{data.spec.name} holds no sequences")
    if misfit := data.spec.misfit(model.spec):
        raise InvalidData(misfit)
    chosen = [k for k, c in enumerate(data.spec.columns) if c.kind in ("lattice", "continuous")]
    if not chosen:
        raise InvalidData(f"no column of {data.spec.name} is a number: there are no intervals")
    values = train.values[:, chosen].astype(np.float64)
    deviation = np.nanstd(np.where(values >= 0, values, np.nan), axis=0).clip(1e-9)
    noise, parts = Noise(seed, "calibration", device=model.device), []
    picks = Noise(seed, "particles", device=model.device)
    with evaluating(model), without_autocast(model.device):
        where = places(data, steps)
        for state, whole, at in moments(model, data, where, seed):
            context = None if whole.context is None else whole.context[:, at]
            now = torch.where(whole.known[0, at], whole.x[0, at], -1).cpu().numpy()
            repeated = model.spread(state, draws, picks)
            known = None if context is None else context.expand(draws, -1)
            uniform = noise.uniform(draws, model.uniforms)
            drawn, _ = model.draw_step(repeated, known, uniform)
            parts.append((drawn[:, chosen].cpu().numpy(), now[chosen]))
            if progress is not None:
                progress(len(parts), len(where))
    x = np.stack([drawn for drawn, _ in parts]).astype(np.float64)  # [N, m, K]
    y = np.stack([now for _, now in parts]).astype(np.float64)
    missing, y = y < 0, y[:, None]
    if missing.all():
        raise InvalidData(f"no number of {data.spec.name} is known at the {len(y)} measured steps")
    less, same = (x < y).sum(1), (x == y).sum(1)
    tie = np.random.default_rng(seed).random(less.shape)
    pit = np.where(missing, np.nan, (less + tie * (same + 1)) / (draws + 1))
    far = np.abs(x - y).mean(1)
    weights = 2 * np.arange(draws) - draws + 1  # sum over pairs of |X_i - X_j|, of sorted draws
    apart = (np.sort(x, 1) * weights[:, None]).sum(1) / (draws * (draws - 1))
    crps = np.where(missing, np.nan, (far - apart) / deviation)
    energy = [_energy(drawn / deviation, now / deviation) for drawn, now in zip(x, y, strict=True)]
    return Calibration(
        pit, crps, np.where(missing.any(1), np.nan, energy),
        tuple(data.spec.columns[k].name for k in chosen), draws,
        data.fingerprint_given("label" if model.classes else ""),
    )  # fmt: skip


def _energy(x: Floats, y: Floats) -> float:
    """Without bias; draws [m, K], the step [1, K]."""
    m = len(x)
    square = (x**2).sum(1)
    pairs = np.sqrt((square[:, None] + square - 2 * x @ x.T).clip(0))
    return float(np.sqrt(((x - y) ** 2).sum(1)).mean() - pairs.sum() / (2 * m * (m - 1)))


def places(data: Sequences, count: int, room: int = 1) -> list[tuple[int, int]]:
    """(series, scored steps before) spread evenly, `room` steps before the end of each series."""
    free = np.maximum(data.lengths - room + 1, 0)
    ends = np.cumsum(free)
    count = min(count, int(ends[-1]))
    flat = (np.arange(count) * int(ends[-1])) // max(1, count)
    owner = np.searchsorted(ends, flat, side="right")
    return [(int(i), int(p - ends[i] + free[i])) for i, p in zip(owner, flat, strict=True)]


def moments(
    model: Continues, data: Sequences, where: list[tuple[int, int]], seed: int = 0
) -> Iterator[tuple[State, Steps, int]]:
    """(the state before a step, all steps of its series, its number among them), at `places`."""
    noise = Noise(seed, "moments", device=model.device)
    for series, group in itertools.groupby(where, key=lambda place: place[0]):
        batch = data.batch(np.array([series]))
        whole: Steps = model.steps(torch.from_numpy(batch.x), model.batch_context(batch))
        state, at = model.state_after(whole.part(slice(None), 0, 0), None, noise), 0
        for _, step in group:
            until = int(data.lead[series]) + step
            if until > at:
                state = model.state_after(whole.part(slice(None), at, until), state, noise)
            at = until
            yield state, whole, at
