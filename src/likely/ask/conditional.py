"""p(x_i | earlier dimensions) of one dimension, for every level."""

from __future__ import annotations

from torch import Tensor

from likely.ask.query import Answer, exact, no_conditionals, query, refusal
from likely.density import ExpectedStatistics, Fittable, HasConditional


def answer(model: Fittable) -> Answer:
    """Exact for a chain rule and for a mixture of products."""
    if isinstance(model, ExpectedStatistics):
        return exact("the components' levels, weighed by what comes before the pixel")
    if isinstance(model, HasConditional):
        return exact("p(x_i | what comes before it) is what the network computes")
    return no_conditionals(model, "p(x_i | x_<i)")


@query("conditional of a pixel", answer)
def conditional(
    model: Fittable,
    x: Tensor,
    row: int,
    column: int,
    channel: int = 0,
    context: Tensor | int | None = None,
) -> Tensor:
    """p(x_i = level | what comes before it in the model's order), [B, levels].

    Args:
        model: a chain rule, or a mixture of products.
        x: integers [B, *shape]; only what comes before the dimension is read.
        row: of the pixel; 0 for vectors.
        column: of the pixel; the dimension of a vector.
        channel: of the pixel.
        context: labels, as for `sample`.

    Raises:
        Unanswerable: a model without conditionals.
        InvalidSetting: no such dimension.
    """
    if not isinstance(model, HasConditional):
        raise refusal(model, answer(model))
    return model.conditional(x, row, column, channel, context)
