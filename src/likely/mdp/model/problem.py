"""Finite Markov decision processes as sparse state-action rows.

An MDP has states s in 0..S-1, and for each state a set of actions that may differ by state.
Every available (s, a) is a *pair*. The pairs of state s are the consecutive rows
`pair_ptr[s]:pair_ptr[s + 1]`; row i holds p(s' | pair i) in CSR form, and `reward[i]` is the
expected reward of taking the pair. Terminal states have no pairs, their value is 0.

This one form serves every solver. Action sets that differ need no padding, and a backup reads
memory once from front to back (Puterman 1994, chapter 6, for the theory).
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from likely import files
from likely.errors import InvalidData, InvalidSetting
from likely.mdp.kernels.rows import Rows
from likely.mdp.model import checks
from likely.mdp.model.arrays import Array, BoolArray, FloatArray
from likely.mdp.model.layout import GridLayout

IntArray = Array


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class MDP:
    """A finite Markov decision process. Build it by one of the `from_...` constructors.

    All arrays are read-only. Rows are sorted by successor, without duplicates and zeros, and
    sum to one up to rounding.

    Attributes:
        pair_ptr: [S + 1] the pairs of state s are rows `pair_ptr[s]:pair_ptr[s + 1]`.
        indptr: [pairs + 1] CSR row pointer. `pair_ptr`, `indptr` and `indices` share one
            integer type: int32 where the number of transitions fits, else int64.
        indices: [transitions] successor states.
        probability: [transitions] p(s' | s, a), float64.
        reward: [pairs] expected reward r(s, a).
        discount: in (0, 1]; 1 is for total reward, finite horizon and average reward.
        terminal: [S] True where the episode has ended (value 0, no pairs).
        pair_action: [pairs] action label of each pair, 0..A-1.
        row_defect: bound on |sum of a row - 1|, rounding of the sum included, and on the relative
            difference between a stored probability and the one that is meant: the row that was
            given, divided by its sum.
        reward_defect: bound on what `reward` lost, beyond one rounding, when rewards of
            transitions were folded; 0 for rewards of pairs.
        initial: [S] distribution of the first state, or None.
        successor_reward: [transitions] r(s, a, s') where given, or None. `reward` is its
            expectation; simulation uses it.
        state_names, action_names: names for people, or None.
        layout: where the states lie on paper, for pictures, or None.
    """

    pair_ptr: IntArray
    indptr: IntArray
    indices: IntArray
    probability: FloatArray
    reward: FloatArray
    discount: float
    terminal: BoolArray
    pair_action: IntArray
    row_defect: float
    initial: FloatArray | None = None
    successor_reward: FloatArray | None = None
    state_names: tuple[str, ...] | None = None
    action_names: tuple[str, ...] | None = None
    reward_defect: float = 0.0
    layout: GridLayout | None = None

    # ------------------------------------------------------------------ shape
    @property
    def states(self) -> int:
        """Number of states S."""
        return len(self.pair_ptr) - 1

    @property
    def pairs(self) -> int:
        """Number of available state-action pairs."""
        return len(self.reward)

    @property
    def transitions(self) -> int:
        """Number of stored transitions (s, a, s')."""
        return len(self.indices)

    @property
    def actions(self) -> int:
        """Number of action labels A."""
        if self.action_names is not None:
            return len(self.action_names)
        return int(self.pair_action.max()) + 1 if self.pairs else 0

    @property
    def transition(self) -> Any:
        """The rows as a SciPy CSR array [pairs, S]; it shares this object's memory."""
        from scipy import sparse

        shape = (self.pairs, self.states)
        return sparse.csr_array((self.probability, self.indices, self.indptr), shape=shape)

    @property
    def rows(self) -> Rows:
        """What kernels over stored rows take."""
        return Rows(
            self.pair_ptr, self.indptr, self.indices, self.probability, self.reward, self.discount
        )

    @property
    def pair_state(self) -> IntArray:
        """[pairs] the state that each pair belongs to."""
        return np.repeat(np.arange(self.states, dtype=self.indices.dtype), np.diff(self.pair_ptr))

    def state_name(self, state: int) -> str:
        """Name of a state for messages."""
        return self.state_names[state] if self.state_names is not None else f"state {state}"

    def action_name(self, action: int) -> str:
        """Name of an action label for messages."""
        return self.action_names[action] if self.action_names is not None else f"action {action}"

    def __repr__(self) -> str:
        return (
            f"MDP(states={self.states}, pairs={self.pairs}, transitions={self.transitions}, "
            f"discount={self.discount:g}, terminal={int(self.terminal.sum())})"
        )

    def with_discount(self, discount: float) -> MDP:
        """The same process under another discount; arrays are shared."""
        checks.discount(discount)
        return dataclasses.replace(self, discount=float(discount))

    def with_reward(self, reward: npt.ArrayLike) -> MDP:
        """The same process with another expected reward [pairs]; arrays are shared."""
        new = np.ascontiguousarray(reward, dtype=np.float64)
        if new.shape != (self.pairs,):
            raise InvalidData(f"rewards have shape {new.shape}, expected [{self.pairs}] (pairs)")
        checks.rewards(new, self.pair_ptr, self.pair_action, self.state_names, self.action_names)
        return dataclasses.replace(
            self, reward=frozen(new), successor_reward=None, reward_defect=0.0
        )

    def with_layout(self, layout: GridLayout) -> MDP:
        """The same process with a layout, which pictures need; arrays are shared."""
        for state in (int(layout.state.max()), int(layout.state.min())):
            if not -1 <= state < self.states:
                raise InvalidData(
                    f"the layout has a state {state}; states are 0..{self.states - 1}, walls -1"
                )
        return dataclasses.replace(self, layout=layout)

    def negated(self) -> MDP:
        """The same process with all rewards negated: to minimise is to maximise in it."""
        parts = self.successor_reward
        return dataclasses.replace(
            self, reward=frozen(-self.reward),
            successor_reward=None if parts is None else frozen(-parts),
        )  # fmt: skip

    def pair_of(self, policy: npt.ArrayLike) -> IntArray:
        """[S] row of each state's chosen pair for a deterministic policy [S] of action labels.

        Terminal states get -1. Raises InvalidData, naming the state, where the action is not
        available.
        """
        return checks.pairs_of_policy(self, np.asarray(policy))

    # ----------------------------------------------------------- constructors
    @classmethod
    def from_pairs(
        cls,
        pair_ptr: npt.ArrayLike,
        indptr: npt.ArrayLike,
        indices: npt.ArrayLike,
        probability: npt.ArrayLike,
        reward: npt.ArrayLike | None,
        discount: float,
        *,
        pair_action: npt.ArrayLike | None = None,
        successor_reward: npt.ArrayLike | None = None,
        terminal: npt.ArrayLike | None = None,
        initial: npt.ArrayLike | None = None,
        state_names: Iterable[str] | None = None,
        action_names: Iterable[str] | None = None,
        missing: str = "refuse",
        row_tolerance: float = 1e-9,
    ) -> MDP:
        """From CSR pieces; every other constructor ends here.

        Arrays that already have the right type are taken over without a copy.

        Args:
            pair_ptr: [S + 1]; the pairs of state s are rows `pair_ptr[s]:pair_ptr[s + 1]`.
            indptr, indices, probability: CSR rows [pairs, S]. Repeated successors are merged.
            reward: [pairs] r(s, a), or None where `successor_reward` alone is given. Where both
                are given they add up.
            discount: in (0, 1].
            pair_action: [pairs] action labels, which differ within a state; by default 0, 1, ...
            successor_reward: [transitions] r(s, a, s'), folded into the expected reward.
            terminal: [S] bool, or a list of states. Pairs of terminal states are dropped.
            initial: [S] distribution, or one state.
            state_names, action_names: for people; [S] and [A].
            missing: what a row that sums to less than one means: "refuse" (an error), or
                "terminate" (the rest ends the episode: one terminal state is appended).
            row_tolerance: how far a row may be from one. Within it, rows are divided by their
                sum, also for the expectation of `successor_reward`.

        Raises:
            InvalidData: negative, NaN or not-summing-to-one probabilities, states without
                actions or with two pairs of one label, non-finite rewards; the message names
                the state and the action.
            InvalidSetting: a discount outside (0, 1], an unknown `missing`.
        """
        from likely.mdp.model import build

        return build.from_pairs(
            pair_ptr, indptr, indices, probability, reward, discount,
            marks=build.Marks(terminal, initial, state_names, action_names),
            pair_action=pair_action, successor_reward=successor_reward, missing=missing,
            row_tolerance=row_tolerance,
        )  # fmt: skip

    @classmethod
    def from_arrays(
        cls,
        transition: npt.ArrayLike,
        reward: npt.ArrayLike,
        discount: float,
        *,
        layout: str = "ass",
        available: npt.ArrayLike | None = None,
        terminal: npt.ArrayLike | None = None,
        initial: npt.ArrayLike | None = None,
        state_names: Iterable[str] | None = None,
        action_names: Iterable[str] | None = None,
    ) -> MDP:
        """From dense arrays.

        Args:
            transition: [A, S, S] with layout "ass" (pymdptoolbox, bettermdptools), or
                [S, A, S] with layout "sas" (QuantEcon). Where S = A the shapes are the same and
                nothing can be noticed: rows that sum to one either way are taken as the layout
                says.
            reward: [S], [S, A], or the shape of `transition`.
            available: [S, A] bool; False marks an action that the state does not have, as
                `reward > -np.inf` where QuantEcon marks it by a reward of -inf.
        """
        from likely.mdp.model import build

        return build.from_arrays(
            transition, reward, discount, layout=layout, available=available,
            marks=build.Marks(terminal, initial, state_names, action_names),
        )  # fmt: skip

    @classmethod
    def from_sparse(
        cls,
        transition: Sequence[Any],
        reward: Any,
        discount: float,
        *,
        terminal: npt.ArrayLike | None = None,
        initial: npt.ArrayLike | None = None,
        state_names: Iterable[str] | None = None,
        action_names: Iterable[str] | None = None,
    ) -> MDP:
        """From one SciPy sparse matrix [S, S] an action.

        An empty row means that the state does not have the action. `reward` is [S], [S, A], or
        a list of sparse matrices like `transition`. Nothing is made dense.
        """
        from likely.mdp.model import build

        marks = build.Marks(terminal, initial, state_names, action_names)
        return build.from_sparse(transition, reward, discount, marks)

    @classmethod
    def from_gymnasium(cls, environment: Any, discount: float = 0.99) -> MDP:
        """From a Gymnasium environment's table, by name, by instance, or the table itself."""
        from likely.mdp.worlds.gymnasium import from_gymnasium

        return from_gymnasium(environment, discount=discount)

    @classmethod
    def from_step(
        cls,
        step: Callable[[Any, Any], Iterable[tuple[float, Any, float]]],
        initial: Iterable[Hashable],
        actions: Any,
        discount: float = 1.0,
        max_states: int = 1_000_000,
    ) -> MDP:
        """From a function `step(state, action) -> [(probability, next_state, reward)]`.

        Args:
            initial: states to begin in; whatever can be reached from them is explored.
            actions: a list for every state, or a function of the state.
            max_states: an error beyond so many, for state spaces without an end.
        """
        from likely.mdp.model.explore import from_step

        return from_step(step, initial, actions, discount, max_states)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], discount: float | None = None) -> MDP:
        """From a file: `.npz`, PRISM or Storm explicit, Cassandra's `.POMDP` or `.MDP`."""
        from likely.mdp.files.loading import load

        return load(Path(path), discount=discount).mdp

    @classmethod
    def from_grid(cls, text: str, discount: float | None = None) -> MDP:
        """From a grid world drawn in text; `discount` overrides the text's (default 1)."""
        from likely.mdp.worlds.gridtext import from_grid

        return from_grid(text, discount=discount)

    # ------------------------------------------------------------ own format
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `.npz` (no pickle), atomically."""
        target = Path(path)
        arrays: dict[str, Array] = {
            "pair_ptr": self.pair_ptr,
            "indptr": self.indptr,
            "indices": self.indices,
            "probability": self.probability,
            "reward": self.reward,
            "terminal": self.terminal,
            "pair_action": self.pair_action,
        }
        if self.initial is not None:
            arrays["initial"] = self.initial
        if self.successor_reward is not None:
            arrays["successor_reward"] = self.successor_reward
        header: dict[str, Any] = {
            "format": "likely.mdp",
            "version": 1,
            "discount": self.discount,
            "row_defect": self.row_defect,
            "reward_defect": self.reward_defect,
            "state_names": self.state_names,
            "action_names": self.action_names,
        }
        if self.layout is not None:
            parts, header["layout"] = self.layout.parts()
            arrays |= parts
        arrays["header"] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
        write_npz(target, arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> MDP:
        """Read what `save` wrote; the rows are validated again."""
        source = Path(path)
        arrays = read_npz(source)
        with files.reading(source, what="not an MDP written by MDP.save"):
            return cls._of_arrays(arrays)

    @classmethod
    def _of_arrays(cls, arrays: dict[str, Array]) -> MDP:
        header = files.record_of(
            files.parse_json(bytes(arrays["header"])), "format", "version", "discount",
            "state_names", "action_names", what="a header",
        )  # fmt: skip
        if (header["format"], header["version"]) != ("likely.mdp", 1):
            raise InvalidData("header: unknown format or version")
        names = [header["state_names"], header["action_names"]]
        for name, listed in zip(("state_names", "action_names"), names, strict=True):
            if not (listed is None or isinstance(listed, list)):
                raise InvalidData(f"header: {name} must be a list of texts or null")
        loaded = cls.from_pairs(
            arrays["pair_ptr"], arrays["indptr"], arrays["indices"], arrays["probability"],
            arrays["reward"], header["discount"], pair_action=arrays["pair_action"],
            terminal=arrays["terminal"], initial=arrays.get("initial"),
            state_names=names[0], action_names=names[1],
        )  # fmt: skip
        # The rounding of the rows that were given first: those in the file are already rescaled.
        defects = [float(header.get(name, 0.0)) for name in ("row_defect", "reward_defect")]
        if not all(0.0 <= defect < math.inf for defect in defects):
            raise InvalidData(
                f"header: the bounds on rounding are {defects}, expected numbers >= 0"
            )
        rows = arrays["probability"].astype(np.float64)
        sums = np.add.reduceat(rows, loaded.indptr[:-1]) if loaded.pairs else np.ones(0)
        as_saved = bool((abs(sums - 1.0) <= defects[0]).all())
        if as_saved and np.array_equal(loaded.indices, arrays["indices"]):
            # To the bit: a sum of many numbers may round by more than what is worth a rescale.
            loaded = dataclasses.replace(loaded, probability=frozen(rows), row_defect=0.0)
        loaded = dataclasses.replace(
            loaded, row_defect=loaded.row_defect + defects[0], reward_defect=defects[1]
        )
        if "layout" in arrays:
            loaded = loaded.with_layout(GridLayout.of_parts(arrays, header["layout"]))
        parts = arrays.get("successor_reward")
        if parts is None:
            return loaded
        # `reward` already holds the expectation, so the parts must not be added again.
        parts = parts.astype(np.float64)
        if parts.shape != loaded.indices.shape or not np.isfinite(parts).all():
            raise InvalidData("successor_reward: expected a finite number for each transition")
        return dataclasses.replace(loaded, successor_reward=frozen(parts))


def frozen(array: Array) -> Array:
    """A read-only view."""
    view = array.view()
    view.flags.writeable = False
    return view


def read_npz(source: Path, what: str = "an MDP") -> dict[str, Array]:
    """The arrays of an `.npz` that should be `what`; no pickle is loaded.

    Raises:
        InvalidData: no such file, or one that is damaged or no `.npz`.
    """
    with files.reading(source, what=f"not {what}; damaged, or no .npz"):
        return files.read_npz(source, files.NUMBERS)


def write_npz(target: Path, arrays: dict[str, Array]) -> None:
    """Write an `.npz` file atomically.

    Raises:
        CheckpointError: it cannot be written; what was there before is kept.
    """
    if not target.parent.is_dir():
        raise InvalidSetting(f"{target}: the folder {target.parent} does not exist")
    with files.replacing(target) as temporary, temporary.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def smallest_int(largest: int) -> type[np.signedinteger[Any]]:
    """The smallest of int8, int16, int32, int64 that holds `largest`."""
    for kind in (np.int8, np.int16, np.int32):
        if largest <= np.iinfo(kind).max:
            return kind
    return np.int64


def is_discounting(discount: float) -> bool:
    """Whether the discounted criterion is defined."""
    return math.isfinite(discount) and 0.0 < discount < 1.0
