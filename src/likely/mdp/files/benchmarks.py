"""Explicit models of the Quantitative Verification Benchmark Set, stored as `.npz`.

One file holds one model (arrays `choice_ptr`, `row_ptr`, `col`, `prob`, `reward0..`, `initial`,
`target<k>` and `stay<k>` as packed bits) and, in `meta`, its properties with their published
reference values: the extremal probability of reaching a target (perhaps through allowed states
only), or the extremal expected reward until it is reached.
"""

from __future__ import annotations

import dataclasses
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from likely.errors import InvalidData, InvalidSetting, nearest
from likely.files import parse_json, reading, record_of
from likely.mdp.model.arrays import Array, BoolArray, FloatArray
from likely.mdp.model.problem import MDP, read_npz
from likely.mdp.model.world import Question


@dataclasses.dataclass(frozen=True, eq=False)
class Property:
    """A question about a model.

    Attributes:
        name, formula: as published.
        maximise: True for Pmax, Rmax; False for Pmin, Rmin, Tmin.
        reward: name of the reward structure, or None for a probability.
        target: [S] states to reach.
        stay: [S] states that may be passed on the way, or None for all.
        reference: the published value, or None; a property that asks "with probability one?"
            is given as 1.0 where the answer is yes.
    """

    name: str
    formula: str
    maximise: bool
    reward: str | None
    target: BoolArray
    stay: BoolArray | None
    reference: float | None


@dataclasses.dataclass(frozen=True, eq=False)
class BenchmarkModel:
    """A model with its reward structures and properties.

    Attributes:
        mdp: the rows, without rewards, discount 1, `initial` as in the file.
        rewards: name to [pairs] reward of each choice.
        properties: in the order of the file.
    """

    name: str
    mdp: MDP
    rewards: dict[str, FloatArray]
    properties: tuple[Property, ...]

    def property(self, name: str) -> Property:
        """A property by its name."""
        properties = {p.name: p for p in self.properties}
        if name not in properties:
            raise InvalidSetting(
                f'{self.name} has no property "{name}"; {nearest(name, properties)}'
            )
        return properties[name]

    def with_rewards(self, name: str) -> MDP:
        """The model under one of its reward structures."""
        if name not in self.rewards:
            hint = nearest(name, self.rewards) if self.rewards else "it has none"
            raise InvalidSetting(f'{self.name} has no rewards "{name}"; {hint}')
        return self.mdp.with_reward(self.rewards[name])

    def question(self, asked: Property) -> tuple[MDP, Question]:
        """The problem of a property and what to ask of it, for `likely.mdp.solve`."""
        mdp = self.mdp if asked.reward is None else self.with_rewards(asked.reward)
        criterion = "reachability" if asked.reward is None else "total"
        objective = "max" if asked.maximise else "min"
        return mdp, Question(criterion, objective, asked.target, asked.stay)


def is_benchmark(names: list[str]) -> bool:
    """Whether the arrays of an `.npz` file are a benchmark model's."""
    return {"choice_ptr", "row_ptr", "col", "prob", "meta"} <= set(names)


def read_benchmark(path: str | Path) -> BenchmarkModel:
    """Read one model.

    Raises:
        InvalidData: not a file of this layout.
    """
    path = Path(path)
    arrays = read_npz(path)
    if not is_benchmark(list(arrays)):
        raise InvalidData(
            f"{path}: not a benchmark model; expected choice_ptr, row_ptr, col, "
            f"prob and meta, found {', '.join(sorted(arrays))}"
        )
    with reading(path, what="a damaged benchmark model"):
        fields = ("benchmark", "rewards", "properties")
        meta = record_of(parse_json(bytes(arrays["meta"])), *fields, what="meta")
        pairs = len(arrays["row_ptr"]) - 1
        mdp = MDP.from_pairs(
            arrays["choice_ptr"],
            arrays["row_ptr"],
            arrays["col"],
            arrays["prob"],
            np.zeros(max(0, pairs)),
            1.0,
            initial=int(arrays["initial"][0]),
        )
        rewards = {
            str(label): _reward(arrays, str(key), mdp.pairs)
            for key, label in record_of(meta["rewards"], what="rewards").items()
        }
        properties = []
        for number, entry in enumerate(meta["properties"]):
            with reading(path, f"property {number}"):
                properties.append(_property(record_of(entry), arrays, mdp.states))
    if not properties:
        raise InvalidData(f"{path}: holds no property")
    return BenchmarkModel(str(meta["benchmark"]), mdp, rewards, tuple(properties))


def _reward(arrays: dict[str, Array], key: str, pairs: int) -> FloatArray:
    reward = arrays[key].astype(np.float64)
    if reward.shape != (pairs,) or not np.isfinite(reward).all():
        raise InvalidData(f'"{key}": expected {pairs} finite rewards, one a choice')
    return reward


_FORMULA = re.compile(r'^(P|R|T)(?:\{"([^"]*)"\})?(max|min)')


def _property(entry: dict[str, Any], arrays: dict[str, Array], states: int) -> Property:
    record_of(entry, "name", "formula", "target", what="a property")
    formula = _FORMULA.match(str(entry["formula"]))
    if formula is None:
        raise InvalidData(
            f'the formula "{entry["formula"]}" starts with none of P, R, T and max or min'
        )
    kind, reward, direction = formula.groups()
    return Property(
        name=str(entry["name"]),
        formula=str(entry["formula"]),
        maximise=direction == "max",
        # T counts steps; the files that ask for it hold them as their first reward.
        reward="steps" if kind == "T" else reward,
        target=_bits(arrays, entry["target"], states),
        stay=_bits(arrays, entry["stay"], states) if entry.get("stay") else None,
        reference=_reference(entry.get("reference")),
    )


def _bits(arrays: dict[str, Array], key: str, states: int) -> BoolArray:
    if key not in arrays:
        raise InvalidData(f'the array "{key}" that a property names is missing')
    bits = np.unpackbits(arrays[key])
    if not states <= len(bits) < states + 8:
        raise InvalidData(f'"{key}": holds {len(bits)} bits for {states} states')
    return bits[:states].astype(bool)


def _reference(value: Any) -> float | None:
    """The published value; a fraction is divided exactly before it is rounded."""
    if value is None:
        return None
    if isinstance(value, dict):
        if "num" in value and "den" in value:
            return float(Fraction(int(value["num"]), int(value["den"])))
        return float(value["approx"])
    return float(value)
