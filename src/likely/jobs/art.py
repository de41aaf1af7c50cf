"""Pictures of how a model draws: pixel by pixel, at other temperatures, variations of an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from likely.ask.colorize import Colorizes
from likely.ask.query import no_code
from likely.density import Autoregressive, Fittable, LatentVariable, Split, Upscales
from likely.errors import InvalidSetting, Unanswerable
from likely.files.sheets import to_rgb
from likely.noise import Noise

BLANK = (58, 63, 74)  # of pixels that are not drawn yet
FRAMES = 60  # at most, of an image that is being drawn
HELD = 12  # frames that the finished images stand for


def unfolding(model: Fittable, images: Tensor) -> list[npt.NDArray[np.uint8]]:
    """Images as they were drawn, frame by frame, bytes [N, 3, H, W] each; the last ones finished.

    A chain rule draws a pixel once, so what was there before is the finished image without the
    pixels of higher rank. A pyramid shows its averages, from coarse to fine; luma comes before
    colour.

    Args:
        model: that drew them.
        images: int64 [N, *shape].

    Raises:
        InvalidSetting: a model that draws all pixels at once.
    """
    spec = model.spec
    x = images.reshape(len(images), *spec.grid)
    finished = to_rgb(x, spec.levels).transpose(0, 3, 1, 2)
    frames = []
    if isinstance(model, Autoregressive):
        rank = model.rank.cpu().numpy()
        steps = np.unique(np.linspace(0, int(rank.max()) + 1, FRAMES).astype(np.int64))[:-1]
        blank = np.array(BLANK, np.uint8)[None, :, None]
        for known in steps.tolist():
            frame = finished.copy()
            frame[:, :, rank >= known] = blank
            frames.append(frame)
    elif isinstance(model, Upscales):
        height, width = spec.grid[1:]
        for times in reversed(model.enlargements):
            low = to_rgb(model.smaller(x.to(model.device), times), spec.levels)
            large = low.repeat(times, 1).repeat(times, 2)[:, :height, :width]
            frames += [large.transpose(0, 3, 1, 2)] * HELD
    elif isinstance(model, Colorizes):
        frames = [to_rgb(model.luma(x.to(model.device)), spec.levels).transpose(0, 3, 1, 2)] * HELD
    else:
        raise InvalidSetting(
            f"{type(model).__name__} draws all pixels at once: there is nothing to watch"
        )
    return [*frames, *[finished] * HELD]


def ladder(
    model: Fittable, temperatures: Sequence[float], n: int, seed: int, context: Tensor | None
) -> Tensor:
    """n images at each temperature, of the same noise, int64 [T, n, *shape].

    A temperature other than 1 is not the model: below 1 images are likelier and less varied.

    Raises:
        InvalidSetting: a model without conditionals.
    """
    if not isinstance(model, Autoregressive):
        raise InvalidSetting(
            f"{type(model).__name__} is not autoregressive: it has no temperature of conditionals"
        )
    rows = [model.sample(n, seed=seed, context=context, temperature=t) for t in temperatures]
    return torch.stack(rows)


@torch.no_grad()
def variations(
    model: Fittable, x: Tensor, n: int, rows: int, seed: int, context: Tensor | None
) -> tuple[Tensor, str]:
    """n images like one, int64 [n, *shape], and how they were drawn, in words.

    A chain rule keeps the upper rows and draws the others, a density in two parts keeps the base
    (the luma, or the averages) and draws the rest, a model with latent variables draws codes from
    q(z | x) and images from p(x | z).

    Args:
        model: any of these.
        x: levels [1, *shape].
        n: how many.
        rows: that a chain rule keeps.
        seed: of the noise.
        context: label of the image [1], or None.

    Raises:
        Unanswerable: another model.
        InvalidSetting: as many rows as the image has, or more.
    """
    x = model.integers(x)
    many = None if context is None else context.expand(n)
    if isinstance(model, Split):
        base, _ = model.lifting.split(x)
        what = "luma" if base.shape[2:] == x.shape[2:] else "averages"
        drawn = model.given_base(base, n, seed, context, what).images[0]
        return drawn, f"the {what} kept, the rest drawn: exact"
    if isinstance(model, Autoregressive):
        height = model.spec.grid[1]
        if not 0 <= rows < height:
            raise InvalidSetting(f"--rows {rows}: the image has {height}; fewer of them are kept")
        observed = torch.zeros(model.spec.grid[1:], dtype=torch.bool)
        observed[:rows] = True
        images = x.expand(n, *x.shape[1:])
        mask = observed if len(model.spec.shape) == 3 else observed[0]
        drawn = model.complete(images, mask, seed=seed, context=many)
        in_order = model.known_ranks(observed.to(model.device)) is not None
        word = "exact" if in_order else "approximate"
        return drawn, f"the upper {rows} rows kept, the others drawn: {word}"
    if isinstance(model, LatentVariable):
        noise = Noise(seed, "like", device=model.device)
        q = model.posterior(x.expand(n, *x.shape[1:]), many)
        z = q.sample(noise.normal(*q.mean.shape, dtype=q.mean.dtype))
        uniform = noise.uniform(n, *model.spec.grid)
        return model.decode(z, many, uniform), "codes from q(z | x), images from p(x | z)"
    raise Unanswerable(f"{type(model).__name__}: {no_code(model).reason}")
