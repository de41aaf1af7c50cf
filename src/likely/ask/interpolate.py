"""Points on the line between codes, decoded."""

from __future__ import annotations

from torch import Tensor

from likely.ask.encode import Encodes
from likely.ask.query import Answer, approximate, no_code, query, refusal
from likely.density import Decoder, Ends, Fittable, GenerativeModel


def answer(model: Fittable) -> Answer:
    """A picture of the code, not of the distribution."""
    if not isinstance(model, Decoder):
        return no_code(model)
    sources = {
        "of images": isinstance(model, Encodes),
        "of images by inversion": not isinstance(model, Encodes),
        "drawn": isinstance(model, GenerativeModel),
    }
    whose = ", or ".join(name for name, is_there in sources.items() if is_there)
    return approximate(f"decode points between two codes, {whose}")


@query("latent interpolation", answer)
def interpolate(
    model: Fittable,
    ends: Ends,
    steps: int = 8,
    *,
    spherical: bool = False,
    seed: int = 0,
    context: Tensor | int | None = None,
) -> Tensor:
    """Decode points on the line between pairs of codes, or on a great circle.

    Args:
        model: with latent codes.
        ends: how many pairs to draw, or the two ends, integers [B, *shape] each, as many of
            either, whose codes are the encoder's or else found by `invert`.
        steps: points, both ends included.
        spherical: turn from one code to the other in place of the straight line. Codes drawn from
            N(0, I) in many dimensions have norms near the square root of these, and the middle of
            a line is nearer to 0 than any of them (White 2016, sec. 2.1,
            https://arxiv.org/abs/1609.04468).
        seed: of the codes that are drawn.
        context: labels, as for `sample`.

    Returns:
        int64 [B, steps, *shape].

    Raises:
        Unanswerable: a model without codes, or without a distribution to draw them from.
        InvalidSetting: fewer than two steps, no pairs, or ends of unequal number.
    """
    if not isinstance(model, Decoder):
        raise refusal(model, answer(model))
    return model.interpolate(ends, steps, spherical=spherical, seed=seed, context=context)
