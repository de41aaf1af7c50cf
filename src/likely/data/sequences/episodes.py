"""Trajectories of a controlled process as sequences: an episode each, observation and action.

A step holds what was seen and the action that was taken then; the last step of an episode what was
seen at its end, its action missing. Rewards and ends are functions of these or of a law that a
model of sequences has no part in, so they are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from likely.data.sequences.dataset import Sequences
from likely.data.sequences.splits import from_sequences
from likely.errors import InvalidData

FIELDS = ("observation", "action", "next_observation", "episode")


def holds_episodes(names: Mapping[str, Any] | list[str]) -> bool:
    """Whether arrays of these names are logged transitions."""
    return all(field in names for field in FIELDS)


def episodes(arrays: Mapping[str, npt.NDArray[Any]], name: str) -> list[npt.NDArray[np.float64]]:
    """Each episode as numbers [T + 1, observation and action].

    Args:
        arrays: `observation` and `next_observation` [N, o], `action` [N] or [N, k], `episode` [N].
        name: of the data, for errors.

    Raises:
        InvalidData: pictures, or arrays of different lengths.
    """
    seen, action, then, number = (np.asarray(arrays[field]) for field in FIELDS)
    seen, action, then = (a[:, None] if a.ndim == 1 else a for a in (seen, action, then))
    if seen.ndim != 2 or len({len(a) for a in (seen, action, then, number)}) != 1:
        raise InvalidData(
            f"{name}: expected observations [N, o] of N transitions, given {list(seen.shape)}, "
            f"{list(action.shape)} and {list(number.shape)}"
        )
    borders = np.flatnonzero(number[1:] != number[:-1]) + 1
    out = []
    for rows in np.split(np.arange(len(number)), borders):
        end = np.full((1, action.shape[1]), np.nan)
        steps = np.concatenate([seen[rows], then[rows[-1:]]])
        out.append(np.concatenate([steps, np.concatenate([action[rows], end])], 1))
    return out


def from_episodes(
    arrays: Mapping[str, npt.NDArray[Any]], name: str = "episodes"
) -> tuple[Sequences, Sequences]:
    """Training and test set of logged transitions; see `episodes`. Whole episodes are held out."""
    series = episodes(arrays, name)
    actions = np.asarray(arrays["action"]).reshape(len(arrays["episode"]), -1).shape[1]
    width = series[0].shape[1] - actions
    columns = [
        *(f"observation {i}" for i in range(width)),
        *(["action"] if actions == 1 else [f"action {i}" for i in range(actions)]),
    ]
    return from_sequences(series, name=name, columns=columns)
