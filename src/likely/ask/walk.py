"""Closed loops through the codes, decoded: the frames of an animation without an end."""

from __future__ import annotations

from torch import Tensor

from likely.ask.query import Answer, approximate, no_code, query, refusal
from likely.density import Decoder, Ends, Fittable


def answer(model: Fittable) -> Answer:
    """A picture of the code, not of the distribution."""
    if not isinstance(model, Decoder):
        return no_code(model)
    return approximate("decode a circle of codes, in a random plane or through two examples")


@query("walk in a plane of codes", answer)
def walk(
    model: Fittable,
    ends: Ends = 1,
    steps: int = 48,
    *,
    seed: int = 0,
    context: Tensor | int | None = None,
) -> Tensor:
    """Decode a closed loop in a plane of the codes, in steps of equal length.

    A drawn loop is a circle around the mean of the prior at the distance of drawn codes, sqrt(d)
    for N(0, I); of a uniform prior one that stays in the cube. With a learned prior it is an
    ellipse through two drawn codes. Through examples it is the circle of which `interpolate` with
    `spherical=True` decodes an arc.

    Args:
        model: with latent codes.
        ends: how many loops to draw, or two batches of examples to go through, integers
            [B, *shape] each.
        steps: images of a loop; after the last comes the first again.
        seed: of the planes that are drawn.
        context: labels, as for `sample`.

    Returns:
        int64 [B, steps, *shape].

    Raises:
        Unanswerable: a model without codes, or without a distribution to draw them from.
        InvalidSetting: fewer than three steps, no loop, or batches of unequal number.
    """
    if not isinstance(model, Decoder):
        raise refusal(model, answer(model))
    return model.walk(ends, steps, seed=seed, context=context)
