"""Values that arrive one after another: scored, or their conditionals inspected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import Tensor

from likely.ask.query import Answer, exact, no_conditionals, none, query, refusal
from likely.density import Autoregressive, Fittable

if TYPE_CHECKING:
    from likely.sampling.ancestral import Stream


@runtime_checkable
class Streams(Protocol):
    """A model that answers."""

    def stream(self, batch: int = 1, context: Tensor | int | None = None) -> Stream:
        """See `stream`."""


def answer(model: Fittable) -> Answer:
    """Exact for a chain rule with an incremental form."""
    if isinstance(model, Streams):
        return exact("each conditional once, in the model's order")
    if isinstance(model, Autoregressive):
        return none("it has no incremental form: a new value costs a pass of the whole network")
    return no_conditionals(model, "p(x_i | x_<i)")


@query("stream of conditionals", answer)
def stream(model: Fittable, batch: int = 1, context: Tensor | int | None = None) -> Stream:
    """Examples that arrive dimension by dimension, in the model's order.

    Args:
        model: a chain rule with an incremental form.
        batch: number of examples.
        context: labels, as for `sample`.

    Returns:
        `push` takes the next values [B]; `log_table()` is the distribution of those to come,
        [B, levels]; `log_prob` that of the values so far, nats [B].

    Raises:
        Unanswerable: a model without an incremental form.
    """
    if not isinstance(model, Streams):
        raise refusal(model, answer(model))
    return model.stream(batch, context)
