"""Mean codes added and subtracted: smiling woman - woman + man."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from likely.ask.query import Answer, approximate, no_code, query, refusal
from likely.density import Arithmetic, Decoder, EncoderDecoder, Fittable, Group


def answer(model: Fittable) -> Answer:
    """A picture of the code, not of the distribution."""
    whose = "its encoder" if isinstance(model, EncoderDecoder) else "inversion, or drawn ones"
    if not isinstance(model, Decoder):
        return no_code(model)
    return approximate(f"decode a sum of mean codes; those of images by {whose}")


@query("arithmetic of codes", answer)
def arithmetic(
    model: Fittable,
    plus: Sequence[Group],
    minus: Sequence[Group] = (),
    *,
    reach: float = 0.25,
    seed: int = 0,
    context: Tensor | int | None = None,
) -> Arithmetic:
    """Add the mean codes of some groups, subtract those of others, and decode the result.

    One code of a kind says more of itself than of its kind, so a group is at least three, and its
    mean counts (Radford et al. 2016, sec. 6.3.2, https://arxiv.org/abs/1511.06434). The result is
    brought back to where codes lie: to the length of those that are drawn from the prior, about
    sqrt(d) for N(0, I), clipped to the cube where the prior is uniform on one; where images are
    encoded, to the length of their codes.

    Args:
        model: with latent codes.
        plus: groups that are added: codes, floats [n, latent], as `model.drawn_codes(64)` of
            samples, or examples, integers [n, *shape]; each n >= 3.
        minus: groups that are subtracted.
        reach: how far the images around the result are from it: uniform noise of so much, relative
            to a uniform prior on [-1, 1].
        seed: of that noise.
        context: label for all, as for `sample`.

    Returns:
        The code, and 3 x 3 images with that of the code in the middle.

    Raises:
        Unanswerable: a model without codes.
        InvalidSetting: fewer than three codes in a group, or nothing to add.
    """
    if not isinstance(model, Decoder):
        raise refusal(model, answer(model))
    return model.arithmetic(plus, minus, reach=reach, seed=seed, context=context)
