"""The questions to a fitted model: a verb, one signature, and what the answer is worth.

    likely.ask(model, "complete", x, observed, seed=1)  # as model.complete(x, observed, seed=1)
    likely.answers(model)["likelihood"]                 # Answer(Guarantee.EXACT, "the chain rule")

What a model cannot answer raises `Unanswerable` with the reason. Which models answer is decided by
what their class offers, so a model of a user's own is asked like those here.
"""

from __future__ import annotations

import inspect
from typing import Any

from likely.ask.sample import sample  # isort: skip
from likely.ask.likelihood import likelihood  # isort: skip
from likely.ask.encode import features, features_answer, posterior, reconstruct  # isort: skip
from likely.ask.interpolate import interpolate  # isort: skip
from likely.ask.arithmetic import arithmetic  # isort: skip
from likely.ask.walk import walk  # isort: skip
from likely.ask.invert import invert  # isort: skip
from likely.ask.complete import complete, completions  # isort: skip
from likely.ask.colorize import colorize  # isort: skip
from likely.ask.upscale import upscale  # isort: skip
from likely.ask.conditional import conditional  # isort: skip
from likely.ask.surprise import surprise  # isort: skip
from likely.ask.stream import stream  # isort: skip
from likely.ask.forecast import forecast  # isort: skip
from likely.ask.compress import Compressed, Decompressed, compress, decompress  # isort: skip
from likely.ask.query import QUERIES, Answer, Answers, Guarantee, Query
from likely.density import Fittable
from likely.errors import InvalidSetting, nearest

__all__ = [
    "QUERIES",
    "Answer",
    "Answers",
    "Compressed",
    "Decompressed",
    "Guarantee",
    "Query",
    "answers",
    "arithmetic",
    "ask",
    "colorize",
    "complete",
    "completions",
    "compress",
    "conditional",
    "decompress",
    "features",
    "forecast",
    "interpolate",
    "invert",
    "likelihood",
    "posterior",
    "reconstruct",
    "sample",
    "stream",
    "surprise",
    "upscale",
    "walk",
]


def ask(model: Fittable, query: str, *arguments: Any, **options: Any) -> Any:
    """Put a query to a model; the same as its method of that name.

    Args:
        model: any.
        query: a name in `QUERIES`, as "complete".
        arguments: of the function of that name in this module, without the model.
        options: of that function.

    Raises:
        Unanswerable: the model has no answer; the reason says why.
        InvalidSetting: no such query, or other arguments than it has.
    """
    if query not in QUERIES:
        raise InvalidSetting(f'unknown query "{query}": {nearest(query, QUERIES)}')
    run = QUERIES[query].run
    signature = inspect.signature(run)
    try:
        signature.bind(model, *arguments, **options)
    except TypeError as error:
        raise InvalidSetting(f'query "{query}": {error}; its form is {query}{signature}') from error
    return run(model, *arguments, **options)


def answers(model: Fittable, *, adversary: object = None) -> Answers:
    """Every query by its name, with what the model's answer is worth and why.

    Args:
        model: any.
        adversary: the network that played against it, `run.adversary` of a GAN, which has features.
    """
    worth = Answers((name, query.answer(model)) for name, query in QUERIES.items())
    if adversary is not None:
        worth["features"] = features_answer(model, adversary)
    return worth
