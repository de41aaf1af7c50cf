"""A problem with what people need beside it: its name, a line about it, what its file asks."""

from __future__ import annotations

import dataclasses
from typing import Any

from likely.errors import InvalidSetting
from likely.mdp.model.arrays import BoolArray
from likely.mdp.model.layout import GridLayout
from likely.mdp.model.problem import MDP


@dataclasses.dataclass(frozen=True, eq=False)
class Question:
    """What a file asks of its problem.

    Attributes:
        criterion: "total" (`likely.mdp.total_reward`) or "reachability" (`likely.mdp.reach`).
        objective: "max" or "min".
        target: [S] states to reach.
        stay: [S] states that may be passed on the way, or None for all.
    """

    criterion: str
    objective: str
    target: BoolArray
    stay: BoolArray | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class World:
    """A problem with what a picture needs. Whatever takes an `MDP` takes a `World`.

    Attributes:
        name: as given to `load`.
        about: one line for people.
        mdp: the problem.
        question: what the file asks, or None for the optimal value.
    """

    name: str
    about: str
    mdp: MDP
    question: Question | None = None

    @property
    def layout(self) -> GridLayout | None:
        """Where the states lie on paper, or None."""
        return self.mdp.layout

    def __repr__(self) -> str:
        return f"{self.name}: {self.about}; {self.mdp}"


Problem = MDP | World


def stored(problem: Any) -> MDP:
    """The stored rows of a problem: an `MDP` itself, that of a `World`.

    Raises:
        InvalidSetting: anything else, a `MatrixFree` included.
    """
    if isinstance(problem, World):
        return problem.mdp
    if not isinstance(problem, MDP):
        kind = type(problem).__name__
        hint = "give problem.stored()" if kind == "MatrixFree" else "`mdp.load` makes one"
        raise InvalidSetting(f"{kind}: expected stored rows, an MDP or a World; {hint}")
    return problem


def layout_of(problem: Problem) -> GridLayout:
    """Where the states of a problem lie on paper.

    Raises:
        InvalidSetting: it has no layout.
    """
    mdp = stored(problem)
    if mdp.layout is None:
        raise InvalidSetting(
            f"{mdp} has no layout to draw on; grid worlds have one, and "
            "problem.with_layout(GridLayout.of(states)) gives it one"
        )
    return mdp.layout
