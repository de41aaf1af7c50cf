"""Samples x ~ p(x): a function of the weights, n, the seed and the context."""

from __future__ import annotations

from torch import Tensor

from likely.ask.query import Answer, exact, query
from likely.density import Autoregressive, Decoder, GenerativeModel, ImplicitDensity, Mixture


def answer(model: GenerativeModel) -> Answer:
    """Exact for every model: it is what makes a model generative."""
    if isinstance(model, Autoregressive):
        return exact("ancestral sampling, one pixel or one rank of pixels after another")
    if isinstance(model, Mixture):
        return exact("a member at random, then ancestral sampling")
    if isinstance(model, ImplicitDensity):
        return exact("one pass of the generator")
    if isinstance(model, Decoder):
        return exact("z from the prior, then x from p(x|z)")
    return exact("drawn from the model's distribution")


@query("sample", answer)
def sample(
    model: GenerativeModel, n: int, *, seed: int = 0, context: Tensor | int | None = None
) -> Tensor:
    """Draw n examples.

    Args:
        model: any.
        n: number of examples.
        seed: of the noise.
        context: label for all, int64 [n], floats [n, *context_shape], or None.

    Returns:
        Integers in [0, levels), int64 [n, *shape].
    """
    return model.sample(n, seed=seed, context=context)
