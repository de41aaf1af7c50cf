"""A small image enlarged, drawn from p(x | small image)."""

from __future__ import annotations

from torch import Tensor

from likely.ask.query import Answer, exact, no_conditionals, none, query, refusal
from likely.density import Autoregressive, Completions, Fittable, Mixture, Split, Upscales


def answer(model: Fittable) -> Answer:
    """Exact where a small image comes first."""
    averages = isinstance(model, Split)
    if isinstance(model, Upscales):
        if averages:
            return exact("p(details | averages): every draw has the averages that are given")
        return exact("the pixels of the small image come first in the model's order")
    if isinstance(model, Autoregressive | Mixture):
        return none("no small image comes first in its order; `complete` takes its pixels")
    return no_conditionals(model, "p(x | small image)")


@query("enlarging", answer)
def upscale(
    model: Fittable,
    low: Tensor,
    n: int = 1,
    *,
    times: int = 2,
    seed: int = 0,
    context: Tensor | int | None = None,
) -> Tensor:
    """n images of each small one; made small again every draw is what was given.

    Args:
        model: one that draws a small image first.
        low: levels [B, C, ceil(H / times), ceil(W / times)]: what `model.smaller(x, times)` makes
            of images, averages or every `times`-th pixel.
        n: draws of each.
        times: by which the sides grow, one of `model.enlargements`.
        seed: of the noise.
        context: labels, as for `sample`.

    Returns:
        int64 [B, n, C, H, W].

    Raises:
        Unanswerable: a model that cannot.
        InvalidSetting: another `times`.
        InvalidData: images of another shape.
    """
    return enlargings(model, low, n, times=times, seed=seed, context=context).images


def enlargings(
    model: Fittable,
    low: Tensor,
    n: int = 1,
    *,
    times: int = 2,
    seed: int = 0,
    context: Tensor | int | None = None,
) -> Completions:
    """`upscale`, with log p(small image) and what the draws are worth."""
    if not isinstance(model, Upscales):
        raise refusal(model, answer(model))
    return model.enlargings(low, n, times=times, seed=seed, context=context)
