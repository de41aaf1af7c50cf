"""The unobserved pixels, drawn from p(rest | observed)."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from likely.ask.query import Answer, exact, no_conditionals, query, refusal
from likely.density import ExpectedStatistics, Fittable


@runtime_checkable
class Completes(Protocol):
    """A model that answers."""

    def complete(
        self, x: Tensor, observed: Tensor, *, seed: int = 0, context: Tensor | int | None = None
    ) -> Tensor:
        """See `complete`."""


def answer(model: Fittable) -> Answer:
    """Exact for a chain rule where the observed pixels come first, for a mixture everywhere."""
    if isinstance(model, ExpectedStatistics):
        return exact("a component from p(k | observed), whichever pixels are observed")
    if isinstance(model, Completes):
        return exact("where the observed pixels come first in the model's order, as the top rows")
    return no_conditionals(model, "p(unobserved | observed)")


@query("completion", answer)
def complete(
    model: Fittable,
    x: Tensor,
    observed: Tensor,
    *,
    seed: int = 0,
    context: Tensor | int | None = None,
) -> Tensor:
    """Draw the unobserved pixels from p(rest | observed); the observed ones are kept.

    Args:
        model: a chain rule, or a mixture of products.
        x: integers [B, *shape]; unobserved values are ignored.
        observed: bool [H, W] ([D] for vectors); of a chain rule the first pixels of its order.
        seed: of the noise.
        context: labels, as for `sample`.

    Returns:
        int64 [B, *shape].

    Raises:
        Unanswerable: a model without conditionals, or pixels that do not come first.
    """
    if not isinstance(model, Completes):
        raise refusal(model, answer(model))
    return model.complete(x, observed, seed=seed, context=context)
