"""The code whose image is nearest to a given one."""

from __future__ import annotations

from torch import Tensor

from likely.ask.query import Answer, approximate, no_code, query, refusal
from likely.density import Decoder, EncoderDecoder, Fittable, Inversion


def answer(model: Fittable) -> Answer:
    """Found by descent, so no more is known than the error."""
    start = "the encoder's code" if isinstance(model, EncoderDecoder) else "drawn codes"
    if not isinstance(model, Decoder):
        return no_code(model)
    return approximate(f"descent on |G(z) - x|^2 from {start}; there may be a nearer code")


@query("inversion", answer)
def invert(
    model: Fittable,
    x: Tensor,
    *,
    steps: int = 200,
    restarts: int = 4,
    seed: int = 0,
    context: Tensor | int | None = None,
) -> Inversion:
    """Find the codes whose images are nearest to examples, by Adam on the squared error.

    A descent starts at the encoder's code, where there is an encoder, and at those of 1,000 drawn
    codes whose images are nearest; the best code of all descents is kept. Coordinates that leave
    the cube of a uniform prior are drawn again (Lipton and Tripathi 2017,
    https://arxiv.org/abs/1702.04782).

    Args:
        model: with latent codes.
        x: integers [B, *shape].
        steps: updates of a descent; 0 takes the best start.
        restarts: descents of an example.
        seed: of the codes that are drawn.
        context: labels, as for `sample`.

    Returns:
        Codes [B, latent], what they decode to, and its squared distance from x, values in [0, 1].

    Raises:
        Unanswerable: a model without codes.
        InvalidSetting: no descent.
    """
    if not isinstance(model, Decoder):
        raise refusal(model, answer(model))
    return model.invert(x, steps=steps, restarts=restarts, seed=seed, context=context)
