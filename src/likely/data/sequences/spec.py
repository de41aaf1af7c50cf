"""What sequences are: their columns, the lattice of each, the split, and the unit of log p.

Every value is an integer: x = offset + step v for a number that lies on a lattice, a position in
names for a category. So log p(x) is the log of a probability, and bits can be counted. A column
without a lattice is read at a resolution far below its noise, and its log p is reported as a
density: log P(bin) - log(step).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from likely.data.spec import DataSpec
from likely.errors import InvalidData, InvalidSetting, nearest

Kind = Literal["binary", "categorical", "lattice", "continuous", "angle"]
KINDS: tuple[Kind, ...] = ("binary", "categorical", "lattice", "continuous", "angle")

# In the integers of a batch: a step after the end of its sequence, a value that is not known, and
# one that is not known of a step that is given and not scored.
PADDING, MISSING = -1, -(1 << 30)
GIVEN_MISSING = MISSING - 1


def unscored(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Values of steps that are given and not scored, -2 - v: what came before a window, say."""
    return np.where(x >= 0, -2 - x, np.where(x == MISSING, GIVEN_MISSING, x))


@dataclasses.dataclass(frozen=True)
class Column:
    """One number of a step.

    Attributes:
        name: as in the header of a table.
        kind: binary; categorical (no order); lattice (equal steps); continuous (no lattice was
            found: read at the resolution `step`); angle (equal steps around a circle).
        levels: integers are in [0, levels).
        offset: the number that 0 stands for.
        step: between neighbouring levels, in the unit of the column.
        residual: largest distance of a number in the file from its level; for a continuous column
            half the resolution.
        names: of the categories, or ().
    """

    name: str
    kind: Kind
    levels: int
    offset: float = 0.0
    step: float = 1.0
    residual: float = 0.0
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InvalidSetting(f"{self.name}: {nearest(self.kind, KINDS)} (kind of a column)")
        if not 2 <= self.levels < -MISSING - 1 or (self.kind == "binary" and self.levels != 2):
            raise InvalidSetting(f"{self.name}: {self.levels} levels of a {self.kind} column")
        if not self.step > 0 or not math.isfinite(self.offset):
            raise InvalidSetting(f"{self.name}: step {self.step} from {self.offset}")

    def numbers(self, x: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The numbers that integers stand for; NaN for what is missing, padded or given."""
        integers = np.asarray(x)
        return np.where(integers < 0, np.nan, self.offset + self.step * integers)

    @property
    def words(self) -> str:
        """Kind, lattice and residual in words."""
        if self.kind in ("binary", "categorical"):
            return self.kind if self.kind == "binary" else f"categorical, {self.levels} values"
        if self.kind == "continuous":
            return f"continuous: no lattice, read to {self.step:.3g}"
        shape = "angle" if self.kind == "angle" else "lattice"
        return f"{shape}, step {self.step:.6g}, residual {self.residual:.2g}"


@dataclasses.dataclass(frozen=True)
class SequenceSpec(DataSpec):
    """What sequences are; `shape` is that of one step, (K,), and `n` the number of sequences.

    Attributes:
        columns: of a step, in the order in which a model predicts them.
        steps: scored, over all sequences.
        longest: steps of the longest sequence.
        time_step: what one step is, as "hour".
        rule: how the data was split, in words.
        missing: values that are not known, which are never scored.
        clock: periods in steps, as (24,) for hours of a day; models see the place in each.
        covariates: names of further numbers of each step that are given, never predicted.
    """

    columns: tuple[Column, ...] = ()
    steps: int = 0
    longest: int = 0
    time_step: str = "step"
    rule: str = ""
    missing: int = 0
    clock: tuple[int, ...] = ()
    covariates: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.columns or self.shape != (len(self.columns),):
            raise InvalidSetting(f"{self.name}: {len(self.columns)} columns, shape {self.shape}")
        if min(self.clock, default=2) < 2:
            raise InvalidSetting(f"{self.name}: periods of at least 2 steps, given {self.clock}")

    @property
    def context_dimensions(self) -> int:
        """Numbers that are given with each step: covariates, and sine and cosine of each clock."""
        return len(self.covariates) + sum(map(clock_width, self.clock))

    @property
    def unit(self) -> str:
        """Of log p."""
        of_density = any(column.kind == "continuous" for column in self.columns)
        return "nats of a density" if of_density else "nats"

    def log_volume(self, known: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """What log P of some values is larger than the log of their density, nats, [...].

        Args:
            known: which values count, bool [..., K]; of continuous columns each adds log(step).
        """
        steps = [c.step if c.kind == "continuous" else 1.0 for c in self.columns]
        return np.asarray(known @ np.log(steps))

    @functools.cached_property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that identify the data a number is about."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def __str__(self) -> str:
        columns = f"{len(self.columns)} columns" if len(self.columns) > 1 else "1 column"
        count = f"{self.n:,} sequences" if self.n != 1 else "1 sequence"
        gaps = f", {self.missing:,} values missing" if self.missing else ""
        return (
            f"{self.name}, {self.split}: {count} of {columns}, "
            f"{self.steps:,} steps ({self.time_step}s){gaps}"
        )

    def misfit(self, built: DataSpec) -> str:
        """Why a model that was built for other data cannot take this; "" where it can."""
        if not isinstance(built, SequenceSpec):
            return f"the model was built for {built.name}, and {self.name} holds sequences"
        if (self.columns, self.clock, self.covariates) == (
            built.columns,
            built.clock,
            built.covariates,
        ):
            return ""
        return (
            f"the model was built for the columns, lattices and clock of {built.name}, and those "
            f"of {self.name} differ"
        )

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> SequenceSpec:
        """Read what `to_json` wrote (lists become tuples again)."""
        fields = {field.name for field in dataclasses.fields(cls)}
        for key in record:
            if key not in fields:
                raise InvalidData(f'a specification has no field "{key}": {nearest(key, fields)}')
        plain: dict[str, Any] = dict(record)
        columns = tuple(Column(**_plain(each)) for each in plain.pop("columns"))
        return cls(**_plain(plain), columns=columns)


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in record.items()}


def clock_width(period: int) -> int:
    """Numbers that tell the place in a period: one of each place up to 16, else a circle's four."""
    return period if period <= 16 else 4


def clock_features(
    position: npt.NDArray[np.int64], clock: tuple[int, ...]
) -> npt.NDArray[np.float32]:
    """The places in each period, float32 [..., sum of widths]; position int64 [...]."""
    parts = []
    for period in clock:
        if period <= 16:
            parts.append(np.eye(period, dtype=np.float32)[position % period])
            continue
        angle = (position % period) * (2 * np.pi / period)
        waves = (np.sin(angle), np.cos(angle), np.sin(2 * angle), np.cos(2 * angle))
        parts.append(np.stack(waves, -1).astype(np.float32))
    return np.concatenate(parts, -1) if parts else np.zeros((*position.shape, 0), np.float32)


def spec_of(record: dict[str, Any]) -> DataSpec:
    """The specification that `to_json` wrote, of images or of sequences."""
    return SequenceSpec.from_json(record) if "columns" in record else DataSpec.from_json(record)
