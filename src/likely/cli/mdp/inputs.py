"""What the command is given: worlds by name or file, policies and values by word or file."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from likely.errors import InvalidData, InvalidSetting, nearest
from likely.files import parse_json, reading, record_of
from likely.mdp.files.loading import load
from likely.mdp.model.operators import policy_weights
from likely.mdp.model.problem import MDP, read_npz
from likely.mdp.model.world import World
from likely.mdp.robust.counts import Counts


def world_of(options: argparse.Namespace) -> World:
    """The world that the arguments name.

    Raises:
        LikelyError: an unknown name, an unreadable file, options that do not belong to it.
    """
    return load(
        options.world, discount=options.discount, size=options.size, seed=options.seed,
        labels=options.labels, rewards=options.reward, target=options.target,
        underlying=options.underlying, property=options.property,
    )  # fmt: skip


def arrays_of(path: str | Path) -> dict[str, NDArray[Any]]:
    """The arrays of a solution that `likely mdp solve --out` wrote (.npz or .json)."""
    source = Path(path)
    if not source.is_file():
        raise InvalidData(f"{source}: no such file")
    if source.suffix.lower() == ".json":
        with reading(source, what="is not JSON"):
            record = record_of(parse_json(source.read_bytes()), what='a record with "value"')
        arrays: dict[str, NDArray[Any]] = {}
        for key in ("value", "policy"):
            if key in record:
                with reading(source, f'"{key}"', what="expected a list of numbers"):
                    arrays[key] = np.asarray(record[key], dtype=np.float64)
        return arrays
    return read_npz(source, "a solution")


def value_of(path: str | Path, mdp: MDP) -> NDArray[np.float64]:
    """[S] the value in a solution file."""
    arrays = arrays_of(path)
    if "value" not in arrays:
        raise InvalidData(f'{path}: has no array "value"')
    value = np.asarray(arrays["value"], dtype=np.float64)
    if value.shape != (mdp.states,):
        raise InvalidData(
            f"{path}: the value has shape {list(value.shape)}, the world has {mdp.states} states"
        )
    if not np.isfinite(value).all():
        raise InvalidData(f"{path}: the value of state {np.isfinite(value).argmin()} is not finite")
    return value


def counts_of(path: str) -> Counts | None:
    """The counts of a log in an `.npz` file, or None where `path` is a world.

    A log has `state`, `action` and `next_state` [N], `reward` ([S, A] or [S, A, S] where rewards
    are known, else [N] with `reward_range` [2]), perhaps `support` ([S, A, S], else all states are
    possible), `shape` (S, A) and `terminal` [S].
    """
    if Path(path).suffix.lower() != ".npz":
        return None
    arrays = read_npz(Path(path), "a log or a world")
    if "next_state" not in arrays:
        return None
    for name in ("state", "action", "reward"):
        if name not in arrays:
            raise InvalidData(f'{path}: a log of states needs "{name}"')
    with reading(Path(path)):
        return Counts.of_transitions(
            arrays["state"], arrays["action"], arrays["next_state"], reward=arrays["reward"],
            support=arrays.get("support", "all"), terminal=arrays.get("terminal"),
            initial=arrays.get("initial"), shape=_pair(arrays, "shape", int),
            reward_range=_pair(arrays, "reward_range", float),
        )  # fmt: skip


def _pair(arrays: Mapping[str, Any], name: str, kind: Callable[[Any], Any]) -> Any:
    """Two numbers of a file, or None."""
    if name not in arrays:
        return None
    values = np.ravel(arrays[name])
    if len(values) != 2:
        raise InvalidData(f'"{name}" has {len(values)} numbers, expected 2')
    return kind(values[0]), kind(values[1])


def policy_of(word: str, mdp: MDP) -> NDArray[Any]:
    """A policy [S], [S, A] or [pairs] from "uniform", the name of an action, or a solution file.

    "optimal" is not handled here: it needs a solver.
    """
    if word == "uniform":
        return policy_weights(mdp, "uniform")
    names = mdp.action_names or ()
    if word in names:
        return np.full(mdp.states, names.index(word), dtype=np.int64)
    if Path(word).suffix.lower() in (".npz", ".json"):
        arrays = arrays_of(word)
        if "policy" not in arrays:
            raise InvalidData(f'{word}: has no array "policy"')
        policy = np.asarray(arrays["policy"])
        if policy.shape not in ((mdp.states,), (mdp.states, mdp.actions)):
            raise InvalidData(
                f"{word}: the policy has shape {list(policy.shape)}, expected [{mdp.states}] or "
                f"[{mdp.states}, {mdp.actions}]"
            )
        if policy.ndim == 2:
            return policy.astype(np.float64)
        whole = np.rint(policy)
        if not (np.abs(policy) < 2**31).all() or (whole != policy).any():
            raise InvalidData(f'{word}, "policy": expected numbers of actions, whole from 0')
        return policy.astype(np.int64)
    valid = ["uniform", "optimal", *names]
    raise InvalidSetting(
        f'unknown policy "{word}"; {nearest(word, valid)}; or give a .npz or .json file'
    )
