"""What each dimension costs in nats, beside what the model expected."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from likely.ask.query import Answer, exact, no_conditionals, query, refusal
from likely.density import Fittable, Split, Surprise


@runtime_checkable
class Surprises(Protocol):
    """A model that answers."""

    def surprise(self, x: Tensor, context: Tensor | int | None = None) -> Surprise:
        """See `surprise`."""


def answer(model: Fittable) -> Answer:
    """Exact for a chain rule."""
    if isinstance(model, Split):
        return exact("of each average and difference, spread over the pixels that it covers")
    if isinstance(model, Surprises):
        return exact("-log p(x_i | x_<i), with its mean and variance under the model")
    return no_conditionals(model, "p(x_i | x_<i)")


@query("surprise map", answer)
def surprise(model: Fittable, x: Tensor, context: Tensor | int | None = None) -> Surprise:
    """-log p(x_i | what comes before it) of every dimension, its mean and its variance.

    Under the model the nats less their mean are a sequence of martingale differences, so that
    `Surprise.z` has mean 0 and variance near 1 for images that it draws: a test of an image with
    a null of its own.

    Args:
        model: a chain rule, or a density in parts, whose averages and differences are spread over
            what they cover.
        x: integers [B, *shape].
        context: labels, as for `sample`.

    Returns:
        float64 [B, *shape] each; the sum of `nats` is -log p(x).

    Raises:
        Unanswerable: a model without conditionals.
    """
    if not isinstance(model, Surprises):
        raise refusal(model, answer(model))
    return model.surprise(x, context)
