r"""Simulated sequences held against held-out ones, for models of any kind.

Windows of consecutive steps are vectors: numbers in standard deviations of the training data, keys
0 or 1, categories one of each over the root of 2, angles as sine and cosine.

- window-energy: the energy distance (Szekely and Rizzo 2013, https://doi.org/10.1016/
  j.jspi.2013.03.018) of simulated and held-out windows, 2 E|X - Y| - E|X - X'| - E|Y - Y'| without
  bias, over the root of the length of a vector; 0 for equal distributions.
- autocorrelation-error: mean |difference| of the autocorrelations of columns at lags 1 to 10.
- spectrum-error: sum of |difference| of the power spectra of columns over that of held-out data,
  from periodograms of windows (Welch 1967), in variances of the training data.
- run-length-error: total variation distance of the lengths of runs, those of 32 steps and more
  together: of a key that is on, of a category, of a number on one side of its training median.
- copy-ratio: mean distance of simulated windows to the nearest training window, over that of
  held-out windows; far below 1 the model repeats its training data.

Beside all but the last stands their floor: the same with training data in place of simulations. The
error is that of groups of simulated sequences; the held-out data are given.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from likely.data.sequences.dataset import Sequences
from likely.data.sequences.spec import Column
from likely.data.spec import Dataset
from likely.density import SequenceModel
from likely.errors import InvalidData
from likely.estimate import Estimate, Relation

Floats = npt.NDArray[np.float64]

SEQUENCES, STEPS, GROUPS = 64, 256, 8
WINDOW, WINDOWS, TRAINING = 16, 400, 8000
LAGS = 10
LONGEST_RUN = 32


@torch.no_grad()
def simulated(
    model: SequenceModel, data: Dataset, train: Dataset, *, seed: int = 0
) -> tuple[Estimate, ...]:
    """Simulate, and measure.

    Args:
        model: of sequences, of any kind.
        data: held-out sequences of the kind that it was built for.
        train: its training set.
        seed: of the simulations.

    Raises:
        InvalidData: other data; covariates, which simulations are not given; sequences so short, or
            with so many missing values, that there are no windows.
    """
    held = _held_out(data, train)
    if misfit := data.spec.misfit(model.spec):
        raise InvalidData(misfit)
    data, train, width = held.data, held.train, held.width
    spec, steps = data.spec, min(train.spec.longest, STEPS)
    labels = None
    if model.classes:
        assert train.labels is not None
        labels = torch.from_numpy(train.labels[np.arange(SEQUENCES) % len(train)]).long()
    drawn = model.sample(SEQUENCES, seed=seed, context=labels, steps=steps).cpu().numpy()
    simulations = [_vectors(x, spec.columns, held.deviation) for x in drawn]
    real, training = held.real, held.training
    nearest = _nearest(real, training)
    fingerprint = data.fingerprint_given("label" if model.classes else "")

    def estimate(
        name: str, measure: Callable[[list[Floats]], float], lower: bool | None, floor: float | None
    ) -> Estimate:
        error = _spread([measure(simulations[i::GROUPS]) for i in range(GROUPS)])
        about = f"{len(simulations)} simulations of {steps} steps"
        if floor is not None:
            about += f"; training data in their place have {floor:.3g}"
        return Estimate(
            measure(simulations), "", Relation.APPROXIMATE, name, error, len(simulations),
            fingerprint, lower, about,
        )  # fmt: skip

    def ratio(sequences: list[Floats]) -> float:
        return _nearest(_windows(sequences, width), training) / max(nearest, 1e-12)

    energy_floor = energy_distance(held.few, real)
    return (
        estimate("window-energy", held.energy, True, energy_floor),
        *(estimate(name, m, True, m(held.known)) for name, m in held.measures.items()),
        estimate("copy-ratio", ratio, None, None),
    )


def simulation_floor(data: Dataset, train: Dataset) -> tuple[Estimate, ...]:
    """The numbers of `simulated` but the last, with training data in place of simulations.

    Raises:
        InvalidData: as `simulated`.
    """
    held = _held_out(data, train)
    about = "training data in place of simulations"
    few, known = held.few, held.known
    energies = [energy_distance(few[i::GROUPS], held.real) for i in range(GROUPS)]
    several = len(known) >= 2 * GROUPS  # one long series tells no error
    numbers = {"window-energy": (energy_distance(few, held.real), _spread(energies))}
    for name, measure in held.measures.items():
        parts = [measure(known[i::GROUPS]) for i in range(GROUPS)] if several else []
        numbers[name] = (measure(known), _spread(parts))
    return tuple(
        Estimate(value, "", Relation.APPROXIMATE, name, error, len(train), data.spec.fingerprint,
                 True, about)
        for name, (value, error) in numbers.items()
    )  # fmt: skip


def _spread(parts: list[float]) -> float:
    """The standard error of a measure, from its values on interleaved parts; infinite of none."""
    return float(np.std(parts, ddof=1)) / math.sqrt(len(parts)) if parts else math.inf


@dataclasses.dataclass(frozen=True)
class _HeldOut:
    """Held-out and training sequences as vectors of steps, [T, F] each, and as windows, [n, W F].

    Attributes:
        data, train: what they were made of.
        deviation: of each column of the training data, [K].
        held_out, known: held-out and training sequences.
        real, training: windows of held-out data, and of training data.
        width: steps of a window.
        median: of each number of the training data, [F].
        number: which are numbers, bool [F], beside categories and keys.
    """

    data: Sequences
    train: Sequences
    deviation: Floats
    held_out: list[Floats]
    known: list[Floats]
    real: Floats
    training: Floats
    width: int
    median: Floats
    number: npt.NDArray[np.bool_]

    @property
    def few(self) -> Floats:
        """About as many windows of training data as of held-out data."""
        return self.training[:: max(1, len(self.training) // WINDOWS)]

    @property
    def measures(self) -> dict[str, Callable[[list[Floats]], float]]:
        """Of sequences, each a distance from held-out data."""
        return {
            "autocorrelation-error": self.correlation,
            "spectrum-error": self.spectrum,
            "run-length-error": self.runs,
        }

    def energy(self, sequences: list[Floats]) -> float:
        """Energy distance of windows."""
        return energy_distance(_windows(sequences, self.width), self.real)

    def correlation(self, sequences: list[Floats]) -> float:
        """Mean |difference| of the autocorrelations."""
        return float(np.abs(_correlations(sequences) - _correlations(self.held_out)).mean())

    def spectrum(self, sequences: list[Floats]) -> float:
        """Sum of |difference| of the power spectra over that of held-out data."""
        wanted = _spectrum(self.held_out, self.width)
        return float(
            np.abs(_spectrum(sequences, self.width) - wanted).sum() / max(wanted.sum(), 1e-12)
        )

    def runs(self, sequences: list[Floats]) -> float:
        """Total variation distance of the lengths of runs."""
        lengths = [_run_lengths(s, self.median, self.number) for s in (sequences, self.held_out)]
        return float(np.abs(lengths[0] - lengths[1]).sum() / 2)


def _held_out(data: Dataset, train: Dataset) -> _HeldOut:
    if not isinstance(data, Sequences) or not isinstance(train, Sequences):
        raise InvalidData(f"{data.spec.name} holds no sequences")
    if data.spec.covariates:
        raise InvalidData("no simulations are measured: their covariates are not known")
    columns, width = data.spec.columns, min(WINDOW, train.spec.longest, STEPS)
    deviation = np.nanstd(np.where(train.values >= 0, train.values, np.nan), axis=0).clip(1e-9)
    held_out = [_vectors(data[i][int(data.lead[i]) :], columns, deviation)
                for i in range(len(data))]  # fmt: skip
    known = [_vectors(train[i], columns, deviation) for i in range(len(train))]
    real, training = _windows(held_out, width), _windows(known, width, TRAINING)
    if min(len(real), len(training)) < 2 * GROUPS:
        raise InvalidData(f"no simulations are measured: few windows of {width} known steps")
    median = np.nanmedian(np.concatenate(known), 0)
    number = np.concatenate([
        np.full(c.levels, False) if c.kind == "categorical"
        else np.full(2 if c.kind == "angle" else 1, c.kind != "binary")
        for c in columns
    ])  # fmt: skip
    return _HeldOut(data, train, deviation, held_out, known, real, training, width, median, number)


def energy_distance(x: Floats, y: Floats) -> float:
    """Of two samples of vectors, [n, D] and [m, D], without bias; over the root of D."""
    n, m = len(x), len(y)
    within = _distances(x, x).sum() / (n * (n - 1)) + _distances(y, y).sum() / (m * (m - 1))
    return float(2 * _distances(x, y).mean() - within) / math.sqrt(x.shape[1])


def _distances(x: Floats, y: Floats) -> Floats:
    square = (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T
    return np.asarray(np.sqrt(square.clip(0)))


def _nearest(x: Floats, y: Floats) -> float:
    """Mean distance of vectors to the nearest of others."""
    return float(_distances(x, y).min(1).mean())


def _vectors(x: npt.NDArray[np.int64], columns: tuple[Column, ...], deviation: Floats) -> Floats:
    """Steps as numbers, [T, F]; NaN where a value is missing."""
    parts = []
    for k, column in enumerate(columns):
        value = np.where(x[:, k] < 0, np.nan, x[:, k])
        if column.kind == "categorical":
            same = value[:, None] == np.arange(column.levels)
            hot = np.where(np.isnan(value)[:, None], np.nan, same / math.sqrt(2))
            parts.append(hot)
        elif column.kind == "angle":
            turn = value * (2 * math.pi / column.levels)
            parts.append(np.stack([np.sin(turn), np.cos(turn)], 1))
        else:
            scale = 1.0 if column.kind == "binary" else deviation[k]
            parts.append(value[:, None] / scale)
    return np.concatenate(parts, 1)


def _windows(sequences: list[Floats], width: int, count: int = WINDOWS) -> Floats:
    """Every so-many-th window, at most `count`; those without missing values, [n, width F].

    Where there are fewer than twice as many, they are the first ones.
    """
    starts = [(i, t) for i, s in enumerate(sequences) for t in range(len(s) - width + 1)]
    chosen = starts[:: max(1, len(starts) // count)][:count]
    windows = [sequences[i][t : t + width].ravel() for i, t in chosen]
    whole = [w for w in windows if np.isfinite(w).all()]
    return np.stack(whole) if whole else np.zeros((0, width))


def _correlations(sequences: list[Floats]) -> Floats:
    """Autocorrelations of each number at lags 1 to `LAGS`, pooled over sequences, [lags, F]."""
    every = np.concatenate(sequences)
    mean = np.nanmean(every, 0)
    variance = np.nanvar(every, 0)
    out = []
    for lag in range(1, LAGS + 1):
        pairs = [(s[lag:] - mean) * (s[:-lag] - mean) for s in sequences if len(s) > lag]
        product = np.nanmean(np.concatenate(pairs), 0) if pairs else np.zeros_like(mean)
        out.append(np.where(variance > 1e-9, product / variance.clip(1e-9), 0.0))
    return np.stack(out)


def _spectrum(sequences: list[Floats], width: int) -> Floats:
    """Mean power at frequencies above 0 in windows with a Hann taper, [frequencies, F]."""
    taper = np.hanning(width + 2)[1:-1, None]
    powers = []
    for s in sequences:
        for first in range(0, len(s) - width + 1, max(1, width // 2)):
            window = s[first : first + width]
            if np.isfinite(window).all():
                waves = np.fft.rfft((window - window.mean(0)) * taper, axis=0)[1:]
                powers.append(np.abs(waves) ** 2 / (taper**2).sum())
    return np.mean(powers, 0) if powers else np.zeros((width // 2, sequences[0].shape[1]))


def _run_lengths(sequences: list[Floats], median: Floats, number: npt.NDArray[np.bool_]) -> Floats:
    """The distribution of the lengths of runs, [LONGEST_RUN]."""
    counts = np.zeros(LONGEST_RUN + 1)
    for s in sequences:
        gap = np.isnan(s).any(1, keepdims=True)
        states = [np.where(gap, False, s > np.where(number, median, 1e-9))]
        states.append(np.where(gap, False, s <= median)[:, number])
        # A step that is in no run before and after: runs begin and end.
        state = np.pad(np.concatenate(states, 1).astype(np.int8), ((1, 1), (0, 0)))
        edges = np.diff(state.T, axis=1)
        lengths = np.nonzero(edges == -1)[1] - np.nonzero(edges == 1)[1]
        counts += np.bincount(lengths.clip(max=LONGEST_RUN), minlength=LONGEST_RUN + 1)
    return np.asarray(counts[1:] / max(counts.sum(), 1.0))
