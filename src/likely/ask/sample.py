"""Samples x ~ p(x): a function of the weights, n, the seed and the context."""

from __future__ import annotations

from torch import Tensor

from likely.ask.query import Answer, approximate, exact, none, query
from likely.density import (
    Autoregressive,
    Decoder,
    DiscreteLatent,
    EnergyBased,
    ExpectedStatistics,
    Fittable,
    GenerativeModel,
    ImplicitDensity,
    ImplicitSequence,
    LatentSequence,
    Mixture,
    SequenceModel,
    Split,
    generative,
    no_density,
)


def answer(model: Fittable) -> Answer:
    """Exact for every generative model: it is what makes it one."""
    if not isinstance(model, GenerativeModel):
        return none(no_density(model))
    if isinstance(model, Autoregressive):
        return exact("ancestral sampling, one pixel or one rank of pixels after another")
    if isinstance(model, SequenceModel):
        if isinstance(model, LatentSequence):
            return exact("at each step z_t from its prior, then x_t from p(x_t | z_<=t, x_<t)")
        if isinstance(model, ImplicitSequence):
            return exact("the generator, one step of noise after another from a state")
        return exact("ancestral sampling, one step after another from a state that is carried")
    if isinstance(model, Mixture):
        return exact("a member at random, then ancestral sampling")
    if isinstance(model, Split):
        return exact("the base, then the rest given it, each a pixel after another")
    if isinstance(model, ExpectedStatistics):
        return exact("a component at random, then each dimension by itself")
    if isinstance(model, ImplicitDensity):
        return exact("one pass of the generator")
    if isinstance(model, Decoder):
        return exact("z from the prior, then x from p(x|z)")
    if isinstance(model, EnergyBased):
        if model.draws_exactly:
            return exact("a hidden state from the table of all of them, then x from p(x|h)")
        return approximate("the end of a Markov chain, whose distance from p is not known")
    if isinstance(model, DiscreteLatent):
        return exact("codes from the prior, then x from p(x|c)")
    return exact("drawn from the model's distribution")


@query("sample", answer)
def sample(
    model: Fittable, n: int, *, seed: int = 0, context: Tensor | int | None = None
) -> Tensor:
    """Draw n examples.

    Args:
        model: any.
        n: number of examples.
        seed: of the noise.
        context: label for all, int64 [n], floats [n, *context_shape], or None.

    Returns:
        Integers in [0, levels), int64 [n, *shape].

    Raises:
        Unanswerable: it is no generative model.
    """
    return generative(model).sample(n, seed=seed, context=context)
