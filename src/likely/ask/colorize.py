"""Colours for a grey image, drawn from p(x | grey)."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from likely.ask.query import Answer, approximate, exact, no_conditionals, none, query, refusal
from likely.density import Autoregressive, Completions, Fittable, SequenceModel
from likely.density.colouring import colourings as by_particles
from likely.density.colouring import grey_of

# Of each image, where colours are drawn by particles.
PARTICLES = 16


@runtime_checkable
class Colorizes(Protocol):
    """A model that knows p(colour | luma) itself."""

    def colorize(
        self, grey: Tensor, n: int = 1, *, seed: int = 0, context: Tensor | int | None = None
    ) -> Tensor:
        """See `colorize`."""

    def colourings(
        self, grey: Tensor, n: int = 1, *, seed: int = 0, context: Tensor | int | None = None
    ) -> Completions:
        """See `colourings`."""

    def luma(self, x: Tensor) -> Tensor:
        """What `colorize` takes, of colour images."""


def answer(model: Fittable) -> Answer:
    """Exact where colour comes after luma; by particles where RGB is drawn pixel by pixel."""
    if isinstance(model, Colorizes):
        return exact("p(Cg, Co | Y) of the model: every draw has the luma that is given")
    if model.spec.grid[0] != 3 and not isinstance(model, SequenceModel):
        return none("its images have no colours")
    if isinstance(model, Autoregressive):
        return approximate(
            "particles whose every pixel has the grey that is given; the likelihood of later grey "
            "is in their weights, and the error falls with particles"
        )
    return no_conditionals(model, "p(colour | grey)")


@query("colouring", answer)
def colorize(
    model: Fittable,
    grey: Tensor,
    n: int = 1,
    *,
    seed: int = 0,
    context: Tensor | int | None = None,
    particles: int = PARTICLES,
) -> Tensor:
    """n colour images of each grey one; every draw has the grey that was given.

    Args:
        model: of colour images: luma and then chroma, or a chain rule.
        grey: levels [B, 1, H, W]: what `grey_image(model, x)` makes of colour images, the luma of
            YCoCg-R or the grey of Rec. 601.
        n: draws of each.
        seed: of the noise.
        context: labels, as for `sample`.
        particles: of each image, where the answer is approximate.

    Returns:
        int64 [B, n, 3, H, W].

    Raises:
        Unanswerable: a model that cannot.
    """
    return colourings(model, grey, n, seed=seed, context=context, particles=particles).images


def colourings(
    model: Fittable,
    grey: Tensor,
    n: int = 1,
    *,
    seed: int = 0,
    context: Tensor | int | None = None,
    particles: int = PARTICLES,
) -> Completions:
    """`colorize`, with log p(grey) and what the draws are worth."""
    if isinstance(model, Colorizes):
        return model.colourings(grey, n, seed=seed, context=context)
    worth = answer(model)
    if not isinstance(model, Autoregressive) or model.spec.grid[0] != 3:
        raise refusal(model, worth)
    return by_particles(model, grey, n, seed, context, particles)


def grey_image(model: Fittable, x: Tensor) -> Tensor:
    """What the model colours, of colour images [B, 3, H, W]: its luma, or the grey of Rec. 601."""
    return model.luma(x) if isinstance(model, Colorizes) else grey_of(model.integers(x))
