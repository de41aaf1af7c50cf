"""`load`: problems by name, from files, drawings and environments.

The extension and the content of a file decide:

    .npz             the project's own (`MDP.save`), or a benchmark model (`benchmarks`)
    .tra             PRISM's and Storm's explicit files, with .lab and reward files beside it
    .pomdp, .mdp     Cassandra's format, where the state is fully observed
    .txt, .grid      a grid world drawn in text

`load` takes what some formats need besides (labels, rewards, the property of a benchmark model),
and names and environments as well as files.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from likely.errors import InvalidData, InvalidSetting, nearest
from likely.files import reading
from likely.mdp import worlds
from likely.mdp.files import benchmarks, cassandra, prism
from likely.mdp.files.cassandra_model import CassandraModel
from likely.mdp.model import checks
from likely.mdp.model.arrays import BoolArray, IntArray
from likely.mdp.model.problem import MDP, read_npz
from likely.mdp.model.world import Question, World
from likely.mdp.worlds import gridtext

EXTENSIONS = (".grid", ".mdp", ".npz", ".pomdp", ".tra", ".txt")
_GYMNASIUM = re.compile(r"^[\w./:-]+-v\d+$")


def load(
    source: Any,
    *,
    discount: float | None = None,
    size: Sequence[int] | None = None,
    seed: int = 0,
    labels: str | os.PathLike[str] | None = None,
    rewards: Sequence[str | os.PathLike[str]] = (),
    target: str | None = None,
    objective: str | None = None,
    underlying: bool = False,
    property: str | None = None,
) -> World:
    """A problem by its name, from a file, from a drawing, or from an environment.

    Args:
        source: the name of a built-in world (`worlds.names()`), a file of any known format, a grid
            world drawn in text (several lines), a Gymnasium name such as "FrozenLake-v1", an
            environment, or its table `{state: {action: [(probability, next_state, reward,
            terminated)]}}`.
        discount: in (0, 1]; None takes the source's own: 0.99 for Gymnasium, 1 for explicit models
            and drawings that do not say.
        size: of a built-in world of any size, as `worlds.describe` names it.
        seed: of a random built-in world.
        labels: `.lab` file of an explicit model; None looks for one beside the `.tra` file.
        rewards: reward files of an explicit model, added up; empty looks beside the `.tra` file
            for `.rew`, `.srew` and `.trew`.
        target: label whose states end the episode in an explicit model; where no rewards are
            given, the question is the probability of reaching them.
        objective: "max" (default) or "min", of an explicit model's target.
        underlying: take the underlying MDP of a partially observed `.pomdp`.
        property: of a benchmark model, by name; None takes the first.

    Returns:
        A `World`, which every function takes in place of its `mdp`.

    Raises:
        InvalidSetting: an unknown name, with the nearest; a setting that the source has not.
        InvalidData: one line that names the file, the line and what was expected there.

    >>> load("S.#\\n..G", discount=0.9).mdp
    MDP(states=5, pairs=16, transitions=16, discount=0.9, terminal=1)
    """
    if discount is not None:
        checks.discount(discount)
    settings = {
        "size": size,
        "labels": labels,
        "rewards": tuple(rewards) or None,
        "target": target,
        "objective": objective,
        "underlying": underlying or None,
        "property": property,
    }
    name = os.fspath(source) if isinstance(source, str | os.PathLike) else ""
    path = source if isinstance(source, Path) else None
    if name and path is None and "\n" not in name:
        path = Path(name)
    kind = "" if path is None else path.suffix.lower()
    heeded: dict[str, Any] = {}

    def heed(*names: str) -> None:
        for key, value in settings.items():
            if value is not None and key not in names:
                raise InvalidSetting(f"{key}: {_shown(source)} has no such setting; {_HOMES[key]}")
            heeded[key] = value

    if isinstance(source, str) and source in worlds.REGISTRY:
        heed("size")
        return worlds.build(source, discount, size, seed)
    if path is not None and (path is source or kind in EXTENSIONS or path.is_file()):
        heed(*_HEEDED.get(kind, ()))
        return _read(path, discount, heeded)
    heed()
    if "\n" in name:
        return World("grid", "grid world drawn in text", gridtext.from_grid(name, discount))
    if path is not None and not _GYMNASIUM.match(name):
        raise InvalidSetting(
            f'"{name}" is no built-in world, no file and no Gymnasium name such as FrozenLake-v1; '
            f"{nearest(name, worlds.REGISTRY)}"
        )
    from likely.mdp.worlds.gymnasium import from_table, world_from_gymnasium

    discount = 0.99 if discount is None else discount
    if isinstance(source, Mapping):
        return World("table", "transition table", from_table(source, discount))
    return world_from_gymnasium(source, discount)


# The settings of each kind of file, and where each setting belongs.
_HEEDED = {
    ".tra": ("labels", "rewards", "target", "objective"),
    ".pomdp": ("underlying",),
    ".mdp": ("underlying",),
    ".npz": ("property",),
}
_HOMES = {
    "size": "it is for built-in worlds of any size",
    "labels": "it is for explicit models (.tra)",
    "rewards": "they are for explicit models (.tra)",
    "target": "it is for explicit models (.tra)",
    "objective": "it is for explicit models (.tra)",
    "underlying": "it is for partially observed problems (.pomdp)",
    "property": "it is for benchmark models (.npz)",
}


def _shown(source: Any) -> str:
    named = isinstance(source, str | os.PathLike) and "\n" not in os.fspath(source)
    return str(source) if named else "this source"


def _read(source: Path, discount: float | None, options: dict[str, Any]) -> World:
    kind = source.suffix.lower()
    if kind not in EXTENSIONS:
        raise InvalidData(
            f'{source}: unknown extension "{source.suffix}"; {nearest(kind, EXTENSIONS)}'
        )
    if not source.is_file():
        raise InvalidData(f"{source}: no such file")
    if kind in (".txt", ".grid"):
        return World(source.name, "grid world drawn in text", gridtext.read_grid(source, discount))
    if kind in (".pomdp", ".mdp"):
        with reading(source):
            model = cassandra.read_cassandra(source)
            mdp = from_cassandra(model, str(source), bool(options["underlying"]))
        if discount is not None:
            mdp = mdp.with_discount(discount)
        return World(source.name, "in Cassandra's format", mdp)
    if kind == ".tra":
        mdp, question = _explicit(source, discount, options)
        return World(source.name, "explicit model", mdp, question)
    mdp, about, question = _npz(source, discount, options["property"])
    return World(source.name, about, mdp, question)


def from_cassandra(model: CassandraModel, source: str = "<text>", underlying: bool = False) -> MDP:
    """The MDP of a parsed `.POMDP` or `.MDP` file.

    Args:
        model: what `likely.mdp.files.cassandra` read.
        source: for messages.
        underlying: also accept a partially observed problem, and take the MDP in which the
            state is seen; its value is an upper bound on the POMDP's.

    Raises:
        InvalidData: the observations hide the state, and `underlying` is False.
    """
    if not underlying and not model.fully_observed:
        raise InvalidData(
            f"{source}: the state is only partially observed; `likely mdp beliefs` bounds its "
            "value, and the underlying MDP (--underlying) has one that is at least as large"
        )
    states, actions = len(model.states), len(model.actions)
    rows = [model.rows[a][s] for s in range(states) for a in range(actions)]
    paid, lost = model.move_rewards()
    mdp = MDP.from_pairs(
        np.arange(states + 1) * actions,
        np.concatenate([[0], np.cumsum([len(row) for row in rows])]),
        np.array([t for row in rows for t in row], dtype=np.int64),
        np.array([p for row in rows for p in row.values()]),
        None,
        model.discount,
        successor_reward=paid[np.argsort(model.owners(), kind="stable")],
        pair_action=np.tile(np.arange(actions), states),
        initial=model.start,
        state_names=model.states,
        action_names=model.actions,
        row_tolerance=cassandra.ROW_TOLERANCE,
    )
    return dataclasses.replace(mdp, reward_defect=mdp.reward_defect + lost)


def from_explicit(model: prism.ExplicitModel, discount: float = 1.0) -> MDP:
    """The MDP of an explicit model with all its choices; `init` states are its start."""
    names, labels = _action_labels(model)
    initial = model.labels.get("init")
    moves = model.move_reward if model.move_reward is not None and model.move_reward.any() else None
    return MDP.from_pairs(
        model.pair_ptr,
        model.indptr,
        model.indices,
        model.probability,
        model.reward if moves is None else model.choice_reward,
        discount,
        pair_action=labels,
        successor_reward=moves,
        initial=None if initial is None or not initial.any() else initial / initial.sum(),
        action_names=names,
    )


def _action_labels(model: prism.ExplicitModel) -> tuple[list[str] | None, IntArray | None]:
    """Names and labels of the choices, where every state's names tell its choices apart."""
    names = sorted(set(model.actions))
    if "" in names or not names:
        return None, None
    number = {name: i for i, name in enumerate(names)}
    labels = np.array([number[name] for name in model.actions], dtype=np.int64)
    states = np.repeat(np.arange(model.states), np.diff(model.pair_ptr))
    if len(np.unique(states * len(names) + labels)) < len(labels):
        return None, None
    return names, labels


def _explicit(
    source: Path, discount: float | None, options: dict[str, Any]
) -> tuple[MDP, Question | None]:
    beside = source.with_suffix(".lab")
    labels = beside if options["labels"] is None else Path(options["labels"])
    rewards = [Path(name) for name in options["rewards"] or ()] or [
        file
        for file in (source.with_suffix(s) for s in (".rew", ".srew", ".trew"))
        if file.is_file()
    ]
    known = labels if options["labels"] is not None or labels.is_file() else None
    model = prism.read_explicit(source, known, rewards)
    discount = 1.0 if discount is None else discount
    with reading(source):
        mdp = from_explicit(model, discount)
    if options["target"] is None:
        if not rewards:
            raise InvalidData(
                f"{source}: neither rewards nor a target; give a reward file "
                "(--reward model.srew) or a label to reach (--target done)"
            )
        return mdp, None
    if options["target"] not in model.labels:
        hint = nearest(options["target"], model.labels) if model.labels else "there is no .lab file"
        raise InvalidSetting(f'{source}: no label "{options["target"]}"; {hint}')
    target = model.labels[options["target"]]
    if discount == 1.0:
        criterion = "total" if rewards else "reachability"
        return mdp, Question(criterion, options["objective"] or "max", target)
    return _ending(mdp, target, reach=not rewards), None


def _ending(mdp: MDP, target: BoolArray, reach: bool) -> MDP:
    """The discounted problem that ends in the target; entering pays 1 where `reach` is asked."""
    ending = MDP.from_pairs(
        mdp.pair_ptr,
        mdp.indptr,
        mdp.indices,
        mdp.probability,
        None if reach else mdp.reward,
        mdp.discount,
        successor_reward=target[mdp.indices].astype(np.float64) if reach else None,
        pair_action=mdp.pair_action,
        terminal=target,
        initial=mdp.initial,
        action_names=mdp.action_names,
    )
    return dataclasses.replace(
        ending,
        row_defect=ending.row_defect + mdp.row_defect,
        reward_defect=ending.reward_defect if reach else mdp.reward_defect,
    )


def _npz(
    source: Path, discount: float | None, wanted: str | None
) -> tuple[MDP, str, Question | None]:
    if not benchmarks.is_benchmark(list(read_npz(source))):
        mdp = MDP.load(source)
        if discount is not None:
            mdp = mdp.with_discount(discount)
        return mdp, "written by MDP.save", None
    model = benchmarks.read_benchmark(source)
    asked = model.property(model.properties[0].name if wanted is None else wanted)
    if discount not in (None, 1.0):
        raise InvalidSetting(
            f"{source}: a benchmark property is undiscounted; leave out --discount"
        )
    mdp, question = model.question(asked)
    return mdp, f"{model.name}: {asked.formula}", question
