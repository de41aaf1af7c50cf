r"""`regimes`: series drawn here by a known law, so that a model can be held against the truth.

A mode m follows a Markov chain over calm, rising and storm; the level moves on the lattice of
tenths, y_t = round(a_m y_{t-1} + b_m + s_m e_t) with standard normal e. Both are observed, so that
the truth's log p is a sum of known terms: `regimes_log_prob`. Lengths differ, from 20 to 79 steps.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import scipy.special

from likely.data.sequences.dataset import Sequences
from likely.data.sequences.spec import Column, SequenceSpec
from likely.data.spec import Split, digest_of

MODES = ("calm", "rising", "storm")
CHAIN = np.array([[0.9, 0.07, 0.03], [0.1, 0.85, 0.05], [0.2, 0.1, 0.7]])
# Of the level, in tenths, by mode: autoregressive coefficient, drift, standard deviation.
COEFFICIENT, DRIFT, DEVIATION = (
    np.array([0.9, 1.0, 0.5]), np.array([0.0, 1.5, 0.0]), np.array([0.8, 1.0, 4.0])
)  # fmt: skip
COUNTS: dict[Split, int] = {"train": 240, "validation": 40, "test": 40}
SEED, LEVELS = 20_161_128, 201  # tenths from -10 to 10; what is beyond ends there
_MIDDLE = LEVELS // 2


def regimes() -> tuple[Sequences, Sequences]:
    """Training set (240 series, 40 more as `.validation`) and test set (40)."""
    parts = []
    for number, (split, n) in enumerate(COUNTS.items()):
        rows, lengths = [], []
        raw = np.random.Philox(SEED + number).random_raw(n * 240).reshape(n, 80, 3)
        uniform = (raw >> np.uint64(11)) * 2.0**-53
        for series in uniform:
            length = 20 + int(series[0, 2] * 60)
            rows.append(_drawn(series[:length]))
            lengths.append(length)
        values = np.concatenate(rows).astype(np.int32)
        columns = (
            Column("mode", "categorical", len(MODES), names=MODES),
            Column("level", "lattice", LEVELS, -_MIDDLE / 10, 0.1),
        )
        spec = SequenceSpec(
            "regimes", (2,), LEVELS, split, n=n, digest=digest_of(values), columns=columns,
            steps=len(values), longest=max(lengths), time_step="step",
            rule="by sequence, drawn apart",
        )  # fmt: skip
        parts.append(Sequences(spec, values, offsets=np.concatenate([[0], np.cumsum(lengths)])))
    train, train.validation, test = parts
    return train, dataclasses.replace(test)


def _drawn(uniform: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """A series from uniform numbers [T, 3]: int64 [T, 2]."""
    mode, level, out = 0, 0, np.zeros((len(uniform), 2), np.int64)
    below = CHAIN.cumsum(1)[:, :-1].tolist()
    noise = scipy.special.ndtri(uniform[:, 1] + 2.0**-54)
    for t, u in enumerate(uniform[:, 0]):
        mode = sum(edge <= u for edge in below[mode])
        level = round(COEFFICIENT[mode] * level + DRIFT[mode] + DEVIATION[mode] * noise[t])
        level = max(-_MIDDLE, min(_MIDDLE, level))
        out[t] = mode, level + _MIDDLE
    return out


def regimes_log_prob(data: Sequences) -> npt.NDArray[np.float64]:
    """log p of each sequence of `regimes` under the law that drew it, nats [N]."""
    out = np.zeros(len(data))
    for i, x in enumerate(data):
        mode, level = x[:, 0], x[:, 1] - _MIDDLE
        before = np.concatenate([[0], mode[:-1]]), np.concatenate([[0], level[:-1]])
        mean = COEFFICIENT[mode] * before[1] + DRIFT[mode]
        edges = np.stack([level - 0.5, level + 0.5])
        edges = np.where(np.stack([level <= -_MIDDLE, np.zeros_like(level) > 0]), -np.inf, edges)
        edges = np.where(np.stack([np.zeros_like(level) > 0, level >= _MIDDLE]), np.inf, edges)
        below = (edges - mean) / DEVIATION[mode]
        below = np.where(below.sum(0) > 0, -below[::-1], below)  # where the tail is accurate
        mass = scipy.special.ndtr(below[1]) - scipy.special.ndtr(below[0])
        out[i] = np.log(CHAIN[before[0], mode]).sum() + np.log(mass).sum()
    return out
