"""MDPs from files, whatever their format; the extension and the content decide.

    .npz             the project's own (`MDP.save`), or a benchmark model (`benchmarks`)
    .tra             PRISM's and Storm's explicit files, with .lab and reward files beside it
    .pomdp, .mdp     Cassandra's format, where the state is fully observed
    .txt, .grid      a grid world drawn in text

`load` gives the MDP, `load_world` also the geometry and what the file asks, and takes what some
formats need besides (labels, rewards, the property of a benchmark model).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from likely.errors import InvalidData, InvalidSetting, nearest
from likely.files import reading
from likely.mdp.files import benchmarks, cassandra, prism
from likely.mdp.files.cassandra_model import CassandraModel
from likely.mdp.model import checks
from likely.mdp.model.problem import MDP, read_npz
from likely.mdp.model.world import Question, World
from likely.mdp.worlds import gridtext

EXTENSIONS = (".grid", ".mdp", ".npz", ".pomdp", ".tra", ".txt")


@dataclasses.dataclass(frozen=True)
class FileOptions:
    """What some formats need besides the file.

    Attributes:
        discount: overrides the file's; None keeps it (1 for explicit models).
        labels: `.lab` file of an explicit model; None looks for one beside the `.tra` file.
        rewards: reward files of an explicit model, added up; empty looks beside the `.tra` file
            for `.rew`, `.srew` and `.trew`.
        target: label whose states end the episode in an explicit model; where no rewards are
            given, the question is the probability of reaching them.
        objective: "max" or "min", of an explicit model's target.
        underlying: take the underlying MDP of a partially observed `.pomdp`.
        property: of a benchmark model, by name; None takes the first.
    """

    discount: float | None = None
    labels: str | None = None
    rewards: Sequence[str] = ()
    target: str | None = None
    objective: str = "max"
    underlying: bool = False
    property: str | None = None


def load(path: str | os.PathLike[str], discount: float | None = None) -> MDP:
    """Read an MDP from a file of any known format; `discount` overrides the file's.

    Raises:
        InvalidData: one line that names the file, the line and what was expected there.
    """
    return load_world(path, FileOptions(discount=discount)).mdp


def load_world(path: str | os.PathLike[str], options: FileOptions | None = None) -> World:
    """Read an MDP with its name and, for a grid drawn in text, its geometry."""
    given = FileOptions() if options is None else options
    source = Path(path)
    kind = source.suffix.lower()
    if kind not in EXTENSIONS:
        raise InvalidData(
            f'{source}: unknown extension "{source.suffix}"; {nearest(kind, EXTENSIONS)}'
        )
    if not source.is_file():
        raise InvalidData(f"{source}: no such file")
    if given.discount is not None:
        checks.discount(given.discount)
    if kind in (".txt", ".grid"):
        mdp, layout = gridtext.read_grid(source, given.discount)
        return World(source.name, "grid world drawn in text", mdp, layout)
    if kind in (".pomdp", ".mdp"):
        with reading(source):
            mdp = from_cassandra(cassandra.read_cassandra(source), str(source), given.underlying)
        if given.discount is not None:
            mdp = mdp.with_discount(given.discount)
        return World(source.name, "in Cassandra's format", mdp)
    if kind == ".tra":
        mdp, question = _explicit(source, given)
        return World(source.name, "explicit model", mdp, question=question)
    mdp, about, question = _npz(source, given)
    return World(source.name, about, mdp, question=question)


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
            f"{source}: the state is only partially observed; ask for the underlying MDP "
            "(--underlying), whose value is an upper bound, or give a fully observed problem"
        )
    states, actions = len(model.states), len(model.actions)
    rows = [model.rows[a][s] for s in range(states) for a in range(actions)]
    return MDP.from_pairs(
        np.arange(states + 1) * actions,
        np.concatenate([[0], np.cumsum([len(row) for row in rows])]),
        np.array([t for row in rows for t in row], dtype=np.int64),
        np.array([p for row in rows for p in row.values()]),
        None,
        model.discount,
        successor_reward=model.move_rewards()[np.argsort(model.owners(), kind="stable")],
        pair_action=np.tile(np.arange(actions), states),
        initial=model.start,
        state_names=model.states,
        action_names=model.actions,
    )


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


def _action_labels(
    model: prism.ExplicitModel,
) -> tuple[list[str] | None, NDArray[np.int64] | None]:
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


def _explicit(source: Path, given: FileOptions) -> tuple[MDP, Question | None]:
    beside = source.with_suffix(".lab")
    labels = Path(given.labels) if given.labels is not None else beside
    found = [Path(name) for name in given.rewards] or [
        file
        for file in (source.with_suffix(s) for s in (".rew", ".srew", ".trew"))
        if file.is_file()
    ]
    known = labels if given.labels is not None or labels.is_file() else None
    model = prism.read_explicit(source, known, found)
    discount = 1.0 if given.discount is None else given.discount
    with reading(source):
        mdp = from_explicit(model, discount)
    if given.target is None:
        if not found:
            raise InvalidData(
                f"{source}: neither rewards nor a target; give a reward file "
                "(--reward model.srew) or a label to reach (--target done)"
            )
        return mdp, None
    if given.target not in model.labels:
        hint = nearest(given.target, model.labels) if model.labels else "there is no .lab file"
        raise InvalidSetting(f'{source}: no label "{given.target}"; {hint}')
    target = model.labels[given.target]
    if discount == 1.0:
        return mdp, Question("total" if found else "reachability", given.objective, target)
    return _ending(mdp, target, reach=not found), None


def _ending(mdp: MDP, target: NDArray[np.bool_], reach: bool) -> MDP:
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
        row_defect=max(ending.row_defect, mdp.row_defect),
        reward_defect=ending.reward_defect if reach else mdp.reward_defect,
    )


def _npz(source: Path, given: FileOptions) -> tuple[MDP, str, Question | None]:
    if not benchmarks.is_benchmark(list(read_npz(source))):
        mdp = MDP.load(source)
        if given.discount is not None:
            mdp = mdp.with_discount(given.discount)
        return mdp, "written by MDP.save", None
    model = benchmarks.read_benchmark(source)
    wanted = model.properties[0].name if given.property is None else given.property
    asked = model.property(wanted)
    if given.discount not in (None, 1.0):
        raise InvalidSetting(
            f"{source}: a benchmark property is undiscounted; leave out --discount"
        )
    mdp, question = model.question(asked)
    return mdp, f"{model.name}: {asked.formula}", question
