"""What may follow: draws from p(later steps | the steps so far)."""

from __future__ import annotations

from torch import Tensor

from likely.ask.query import Answer, approximate, exact, none, query, refusal
from likely.density import Continues, Fittable, LatentSequence, SequenceModel


def answer(model: Fittable) -> Answer:
    """Exact for a density of sequences, by particles for one with latents."""
    if isinstance(model, LatentSequence):
        return approximate("by the particles of a filter over the steps so far, then step by step")
    if isinstance(model, Continues):
        return exact("draws from its own p(x_t | x_<t), step after step from the state so far")
    if isinstance(model, SequenceModel):
        return none("it makes sequences from noise: what noise is behind given steps is not known")
    return none("its examples have no order in time: nothing comes after them")


@query("forecast", answer)
def forecast(
    model: Fittable,
    x: Tensor,
    horizon: int,
    *,
    draws: int = 1,
    seed: int = 0,
    context: Tensor | int | None = None,
) -> Tensor:
    """Draw what follows from p(x_T+1..T+horizon | x).

    Args:
        model: a density of sequences.
        x: integers [B, T, K], the steps so far.
        horizon: steps to draw.
        draws: of each sequence.
        seed: of the noise.
        context: as `likelihood` takes it, for all T + horizon steps.

    Returns:
        int64 [B, draws, horizon, K].

    Raises:
        Unanswerable: a model of anything but sequences.
    """
    if not isinstance(model, Continues):
        raise refusal(model, answer(model))
    return model.forecast(x, horizon, draws=draws, seed=seed, context=context)
