"""A query: a verb, the function that answers it, and what its answer is worth for a model."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import Any, TypeVar

from likely.density import (
    ApproximateDensity,
    Autoregressive,
    DiscreteLatent,
    EnergyBased,
    ExpectedStatistics,
    Fittable,
    Mixture,
    SequenceModel,
    Split,
    TractableDensity,
    no_density,
)
from likely.errors import Unanswerable


class Guarantee(enum.Enum):
    """How an answer relates to the true answer of the model."""

    EXACT = "exact"
    BOUND = "bound"
    APPROXIMATE = "approximate"
    NONE = "no answer"


@dataclasses.dataclass(frozen=True)
class Answer:
    """The guarantee of an answer and the reason in words."""

    guarantee: Guarantee
    reason: str

    def __repr__(self) -> str:
        return f"Answer({self.guarantee.name}, {self.reason!r})"


class Answers(dict[str, Answer]):
    """Answers by the name of the query; as text one per line."""

    def __repr__(self) -> str:
        return "\n".join(
            f"{name:12} {answer.guarantee.value:12} {answer.reason}"
            for name, answer in self.items()
        )


@dataclasses.dataclass(frozen=True)
class Query:
    """A query to a fitted model.

    Attributes:
        name: the verb, as "complete"; also of the method of the models that answer it.
        title: in a table, as "completion".
        answer: what the answer of a model is worth, and why; decided by what its class offers.
        run: the function, called with the model first.
    """

    name: str
    title: str
    answer: Callable[[Fittable], Answer]
    run: Callable[..., Any]


# Every query by its name, in the order of the tables.
QUERIES: dict[str, Query] = {}

Run = TypeVar("Run", bound=Callable[..., Any])


def query(title: str, answer: Callable[[Fittable], Answer]) -> Callable[[Run], Run]:
    """Register the decorated function under its name."""

    def register(run: Run) -> Run:
        QUERIES[run.__name__] = Query(run.__name__, title, answer, run)
        return run

    return register


def exact(reason: str) -> Answer:
    """The true answer of the model."""
    return Answer(Guarantee.EXACT, reason)


def approximate(reason: str) -> Answer:
    """An answer without a known distance from the true one."""
    return Answer(Guarantee.APPROXIMATE, reason)


def none(reason: str) -> Answer:
    """No answer."""
    return Answer(Guarantee.NONE, reason)


def refusal(model: Fittable, answer: Answer) -> Unanswerable:
    """The error for a query whose guarantee is NONE."""
    return Unanswerable(f"{type(model).__name__}: {answer.reason}")


def no_code(model: Fittable) -> Answer:
    """Why a model without an encoder knows no code of a given x."""
    if isinstance(model, SequenceModel):
        return none("what it carries is the state of a step: there is no code of a whole sequence")
    if isinstance(model, Autoregressive):
        return none("it has no latent variables: every hidden unit is a function of x")
    if isinstance(model, EnergyBased):
        return none("its hidden units are on or off: there is nothing between two states")
    if isinstance(model, DiscreteLatent):
        return none("its codes are whole numbers without an order: there is nothing between two")
    if isinstance(model, Mixture):
        return none("it has no latent variables beside the choice of a member")
    if isinstance(model, ExpectedStatistics):
        return none("its hidden variable is a component: features give p(k|x)")
    if callable(getattr(model, "features", None)):
        return none("it has no encoder: ask for features, which it has without one")
    return none("it has no encoder: the code of a given image is not known")


def no_conditionals(model: Fittable, wanted: str) -> Answer:
    """Why a model without conditionals does not know what is wanted, as "p(x_i | x_<i)"."""
    if isinstance(model, Mixture):
        return none("its members draw in different orders: no pixels come first in all of them")
    if isinstance(model, Split):
        return none("it draws averages, then differences: no pixel comes after another")
    if isinstance(model, SequenceModel) and not isinstance(model, ApproximateDensity):
        return none("its examples are sequences: what it knows is of steps, not of pixels")
    if isinstance(model, TractableDensity):
        return none("its density is known as a whole: it gives no conditionals")
    if isinstance(model, EnergyBased):
        return none(f"{wanted} is a sum over all other pixels")
    if isinstance(model, DiscreteLatent):
        return none(f"{wanted} is a sum over all codes")
    if isinstance(model, ApproximateDensity):
        return none(f"{wanted} is an integral over z without closed form")
    return none(no_density(model))
