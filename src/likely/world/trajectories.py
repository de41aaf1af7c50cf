"""Logged transitions of a controlled process, and their files.

`terminated` and `truncated` are kept apart (Gymnasium since 0.26). A terminated episode is over:
nothing is earned after it. A truncated one was only cut, by a time limit or by the end of the log;
what would have come is unknown, so its last row says nothing about ends. Taking one for the other
is the classic error in logs whose only flag is "done".

Files: `.npz` with the fields below, or Minari's HDF5 (`main_data.hdf5`: a group `episode_<i>` with
`observations` [T + 1, o], `actions`, `rewards`, `terminations` and `truncations` [T]); source:
https://minari.farama.org/content/dataset_standards/.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from likely.data.sequences.dataset import Sequences
from likely.data.sequences.episodes import from_episodes
from likely.errors import InvalidData, InvalidSetting, MissingDependency
from likely.files import read_npz, reading, replacing, write_bytes
from likely.mdp.model.arrays import Array, BoolArray, FloatArray, IntArray

FIELDS = (
    "observation", "action", "reward", "next_observation", "terminated", "truncated", "episode"
)  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Trajectories:
    """N transitions, episode after episode in the order of time.

    Attributes:
        observation: [N, o] before the action; float64, or bytes where they are pictures.
        action: [N] or [N, k] as `environment.step` took it.
        reward: [N].
        next_observation: [N, o] after the action, also in the last row of an episode.
        terminated: [N] the episode ended there.
        truncated: [N] the record was cut there; what follows is unknown.
        episode: [N] number of the episode, not decreasing.
        environment: its name, or "".
    """

    observation: Array
    action: Array
    reward: FloatArray
    next_observation: Array
    terminated: BoolArray
    truncated: BoolArray
    episode: IntArray
    environment: str = ""

    def __len__(self) -> int:
        return len(self.reward)

    def __repr__(self) -> str:
        return (
            f"Trajectories({len(self)} transitions, {self.episodes} episodes: "
            f"{int(self.terminated.sum())} terminated, {int(self.truncated.sum())} truncated; "
            f"{self.environment or 'no environment'})"
        )

    @property
    def episodes(self) -> int:
        """Number of episodes."""
        return len(np.unique(self.episode))

    @property
    def first(self) -> BoolArray:
        """[N] True in the first row of each episode."""
        return np.append(True, np.diff(self.episode) != 0)[: len(self)]

    @property
    def returns(self) -> FloatArray:
        """[episodes] sum of the rewards of each."""
        return np.bincount(np.cumsum(self.first) - 1, self.reward).astype(np.float64)

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits of all the arrays."""
        digest = hashlib.sha256()
        for name in FIELDS:
            digest.update(np.ascontiguousarray(getattr(self, name)).tobytes())
        return digest.hexdigest()[:12]

    def rows(self, which: Any) -> Trajectories:
        """Some of the rows, by a mask or a slice."""
        return dataclasses.replace(self, **{name: getattr(self, name)[which] for name in FIELDS})

    def split(self, fraction: float = 0.2) -> tuple[Trajectories, Trajectories]:
        """The first rows to fit, the last ones, of about this fraction, to hold out.

        Whole episodes are held out where there are several; of one long episode, its end.
        """
        if not 0.0 < fraction < 1.0:
            raise InvalidSetting(f"a fraction lies between 0 and 1, given {fraction}")
        at = round(len(self) * (1.0 - fraction))
        starts = np.append(np.flatnonzero(self.first), len(self))
        middle = starts[(starts > 0) & (starts < len(self))]
        if len(middle):
            at = int(middle[abs(middle - at).argmin()])
        if not 0 < at < len(self):
            raise InvalidData(f"{len(self)} transitions are too few to hold some out")
        return self.rows(slice(0, at)), self.rows(slice(at, len(self)))

    @classmethod
    def from_arrays(
        cls,
        observation: npt.ArrayLike,
        action: npt.ArrayLike,
        reward: npt.ArrayLike,
        *,
        terminated: npt.ArrayLike,
        truncated: npt.ArrayLike | None = None,
        next_observation: npt.ArrayLike | None = None,
        episode: npt.ArrayLike | None = None,
        environment: str = "",
    ) -> Trajectories:
        """From a log of N rows in the order of time.

        Args:
            observation: [N, o]; [N] is taken as one column.
            action: [N] or [N, k].
            reward: [N].
            terminated: [N] where an episode ended.
            truncated: [N] where a record was cut. Required, if only as zeros, unless `episode` says
                where episodes change: a log whose only flag is "done" does not say which it was.
            next_observation: [N, o]. Without it the next row of the episode is taken; the last row
                of a truncated episode, whose successor is unknown, is dropped.
            episode: [N] number or name of the episode of each row; by default a new one follows
                each end.

        Raises:
            InvalidData: lengths that differ, numbers that are not finite, flags that are neither
                true nor false, ends inside an episode, or terminated rows whose next observation is
                missing: where an episode ends is what a world must learn.
        """
        seen = _columns(observation)
        n = len(seen)
        if not n:
            raise InvalidData("the log has no transition")
        ended = _flags("terminated", terminated)
        if truncated is None and episode is None:
            raise InvalidData(
                'the log has "terminated" but neither "truncated" nor "episode": ends by a time '
                "limit would be taken for terminal states; give truncated=numpy.zeros(N) if no "
                "episode was cut"
            )
        cut = np.zeros(n, dtype=bool) if truncated is None else _flags("truncated", truncated)
        acted, paid = np.asarray(action), np.asarray(reward, dtype=np.float64)
        if acted.dtype.kind not in "biuf":
            raise InvalidData(f"expected actions as numbers, given {acted.dtype}")
        for name, array in (
            ("action", acted), ("reward", paid), ("terminated", ended), ("truncated", cut)
        ):  # fmt: skip
            if len(array) != n or (array.ndim != 1 and name != "action"):
                raise InvalidData(f"{name} has shape {list(array.shape)}, expected [{n}]")
        if episode is None:
            number = np.append(0, np.cumsum(ended | cut))[:n]
        else:
            labels = np.asarray(episode)
            if len(labels) != n:
                raise InvalidData(f"episode has {len(labels)} rows, expected {n}")
            number = np.append(0, np.cumsum(labels[1:] != labels[:-1]))[:n]
        last = np.append(np.diff(number) != 0, True)[:n]
        for name, array in (("terminated", ended), ("truncated", cut)):
            if (array & ~last).any():
                raise InvalidData(
                    f"row {int(np.argmax(array & ~last))} is {name}, and the next one is of the "
                    "same episode: number them apart, or leave `episode` out"
                )
        cut = cut | (last & ~ended)
        keep = np.ones(n, dtype=bool)
        if next_observation is not None:
            after = _columns(next_observation)
            if after.shape != seen.shape:
                raise InvalidData(
                    f"next_observation has shape {list(after.shape)}, expected {list(seen.shape)}"
                )
        else:
            after = np.vstack([seen[1:], seen[-1:]])
            if (last & ended).any():
                raise InvalidData(
                    f"row {int(np.flatnonzero(last & ended)[0])} is terminated, but the log has no "
                    "next_observation: the state in which the episode ended is missing"
                )
            keep = ~last
            # The row before a dropped one is the last of what is known.
            cut = cut | np.append(last[1:], False)
        for name, array in (
            ("observation", seen), ("action", acted), ("reward", paid), ("next_observation", after)
        ):  # fmt: skip
            bad = np.flatnonzero(~np.isfinite(array.reshape(n, -1)).all(axis=1) & keep)
            if len(bad):
                raise InvalidData(f"{name}: row {int(bad[0])} is not finite")
        if not keep.any():
            raise InvalidData("the log has no transition whose successor is known")
        whole = cls(
            seen, acted, paid, after, ended, cut & ~ended, number.astype(np.int64), environment
        )
        return whole if keep.all() else whole.rows(keep)

    # ------------------------------------------------------------------------------- files
    def sequences(self) -> tuple[Sequences, Sequences]:
        """Training and test set of a model of sequences: an episode each, observation and action.

        Raises:
            InvalidData: pictures, or too few episodes to split.
        """
        fields = {name: getattr(self, name) for name in FIELDS}
        return from_episodes(fields, self.environment or "episodes")

    def save(self, path: str | Path) -> Path:
        """Write `.npz`, or Minari's layout as `.hdf5`; atomically."""
        target = Path(path)
        if target.suffix.lower() in (".hdf5", ".h5"):
            write_bytes(target, _hdf5(self))
            return target
        if target.suffix.lower() != ".npz":
            raise InvalidSetting(f"{target}: trajectories are .npz or .hdf5 files")
        arrays = {name: getattr(self, name) for name in FIELDS}
        name = np.frombuffer(self.environment.encode(), dtype=np.uint8)
        with replacing(target) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, allow_pickle=False, environment=name, **arrays)
        return target

    @classmethod
    def load(cls, path: str | Path) -> Trajectories:
        """Read `.npz` or Minari's `.hdf5`.

        A `.npz` of another program needs `observation`, `action`, `reward` and `terminated`
        (plurals and `terminations` also), and `truncated` or `episode`.

        Raises:
            InvalidData: damaged, or a field is missing; names it.
            MissingDependency: HDF5 without h5py.
        """
        source = Path(path)
        if source.is_dir():  # a Minari data set
            source = next(iter(sorted(source.rglob("main_data.hdf5"))), source / "main_data.hdf5")
        with reading(source, what="not a log of transitions"):
            if source.suffix.lower() in (".hdf5", ".h5"):
                return _read_hdf5(source)
            arrays = read_npz(source)
            return cls.from_arrays(**_named(arrays))


_OTHER_NAMES = {
    "observation": ("observations", "obs"),
    "next_observation": ("next_observations", "next_obs"),
    "action": ("actions",),
    "reward": ("rewards",),
    "terminated": ("terminations", "terminals"),
    "truncated": ("truncations", "timeouts"),
    "episode": ("episodes",),
}


def _named(arrays: Mapping[str, Array]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, others in _OTHER_NAMES.items():
        for key in (name, *others):
            if key in arrays:
                fields[name] = arrays[key]
                break
    for name in ("observation", "action", "reward", "terminated"):
        if name not in fields:
            hint = ""
            if name == "terminated" and {"done", "dones"} & set(arrays):
                hint = ' (it has "done", which does not say whether an episode ended or was cut)'
            raise InvalidData(
                f'"{name}" is missing{hint}; the file has {", ".join(sorted(arrays))}'
            )
    if "environment" in arrays and arrays["environment"].dtype == np.uint8:
        fields["environment"] = bytes(arrays["environment"]).decode(errors="replace")
    return fields


def numbers(array: npt.ArrayLike) -> Array:
    """Observations as float64; bytes, which are pictures, stay bytes."""
    table = np.asarray(array)
    if table.dtype == np.uint8:
        return table
    try:
        return np.asarray(table, dtype=np.float64)
    except ValueError as error:
        raise InvalidData(f"expected observations as numbers: {error}") from error


def _flags(name: str, array: npt.ArrayLike) -> BoolArray:
    """[N] true or false, also as 1 and 0."""
    table = np.asarray(array)
    if table.dtype.kind not in "biuf" or not np.isin(table, (0, 1)).all():
        raise InvalidData(f"{name}: expected true or false in each row, given {table.dtype}")
    return table.astype(bool)


def _columns(array: npt.ArrayLike) -> Array:
    table = numbers(array)
    if table.ndim == 1:
        table = table[:, None]
    if table.ndim != 2:
        raise InvalidData(f"observations have shape {list(table.shape)}, expected [N, o]")
    return table


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise MissingDependency("HDF5 files need h5py: pip install h5py") from None
    return h5py


def _hdf5(log: Trajectories) -> bytes:
    content = io.BytesIO()
    with _h5py().File(content, "w") as file:
        file.attrs["total_steps"], file.attrs["total_episodes"] = len(log), log.episodes
        file.attrs["env_spec"] = log.environment
        for i, number in enumerate(np.unique(log.episode)):
            rows = np.flatnonzero(log.episode == number)
            group = file.create_group(f"episode_{i}")
            group.attrs["id"], group.attrs["total_steps"] = i, len(rows)
            last = log.next_observation[rows[-1:]]
            group["observations"] = np.concatenate([log.observation[rows], last])
            group["actions"], group["rewards"] = log.action[rows], log.reward[rows]
            group["terminations"], group["truncations"] = log.terminated[rows], log.truncated[rows]
    return content.getvalue()


def _read_hdf5(path: Path) -> Trajectories:
    parts: list[dict[str, Array]] = []
    if not path.is_file():
        raise InvalidData(f"{path}: no such file")
    with _h5py().File(path, "r") as file:
        names = [name for name in file if name.startswith("episode_")]
        for number, name in enumerate(sorted(names, key=lambda name: int(name.split("_")[1]))):
            group = file[name]
            if not hasattr(group["observations"], "shape"):
                raise InvalidData(f"{name}: observations of several parts are not supported")
            seen = numbers(group["observations"])
            steps = len(group["rewards"])
            if len(seen) != steps + 1:
                raise InvalidData(f"{name}: {len(seen)} observations for {steps} rewards")
            parts.append({
                "observation": seen[:-1], "next_observation": seen[1:],
                "action": np.asarray(group["actions"]), "reward": np.asarray(group["rewards"]),
                "terminated": np.asarray(group["terminations"]),
                "truncated": np.asarray(group["truncations"]), "episode": np.full(steps, number),
            })  # fmt: skip
        named = str(file.attrs.get("env_spec", ""))
    if not parts:
        raise InvalidData("no group episode_0: expected Minari's layout")
    fields = {name: np.concatenate([part[name] for part in parts]) for name in FIELDS}
    return Trajectories.from_arrays(**fields, environment="" if "{" in named else named)
