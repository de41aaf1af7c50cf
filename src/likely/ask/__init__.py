"""The questions to a fitted model: a verb, one signature, and what the answer is worth.

    likely.ask(model, "complete", x, observed, seed=1)  # as model.complete(x, observed, seed=1)
    likely.answers(model)["likelihood"]                 # Answer(Guarantee.EXACT, "the chain rule")

What a model cannot answer raises `Unanswerable` with the reason. Which models answer is decided by
what their class offers, so a model of a user's own is asked like those here.
"""

# What is imported here is what the room offers, in the order in which queries are listed.
# mypy: implicit-reexport
# ruff: noqa: F401, I001

from __future__ import annotations

import inspect
from typing import Any

from likely.ask.sample import sample
from likely.ask.likelihood import likelihood
from likely.ask.encode import features, features_answer, posterior, reconstruct
from likely.ask.interpolate import interpolate
from likely.ask.arithmetic import arithmetic
from likely.ask.walk import walk
from likely.ask.invert import invert
from likely.ask.complete import complete, completions
from likely.ask.colorize import colorize
from likely.ask.upscale import upscale
from likely.ask.conditional import conditional
from likely.ask.surprise import surprise
from likely.ask.stream import stream
from likely.ask.forecast import forecast
from likely.ask.compress import Compressed, Decompressed, compress, decompress
from likely.ask.query import QUERIES, Answer, Answers, Guarantee, Query
from likely.density import Fittable
from likely.errors import InvalidSetting, nearest


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
