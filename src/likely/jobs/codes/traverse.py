"""Pictures of a code: units and directions moved, the plane of two units, codes by class.

likely traverse runs/vae            the command; every picture goes to RUN/samples
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from likely.ask.encode import features
from likely.ask.query import no_code, refusal
from likely.data.spec import Dataset
from likely.density import (
    DiagonalGaussian,
    EncoderDecoder,
    Fittable,
    LatentVariable,
    LayeredPosterior,
    StandardNormal,
    reading_of,
)
from likely.devices.precision import without_autocast
from likely.errors import InvalidSetting, nearest
from likely.noise import Noise

# Examples whose codes are read.
LIMIT = 2000
# Of the manifold: quantiles of the prior at the rim of the grid.
RIM = 0.03


@dataclasses.dataclass(frozen=True)
class Codes:
    """The codes of some data, and how much each unit says.

    Attributes:
        data: the examples whose codes these are.
        z: [N, latent], on the model's device.
        context: labels or contexts of the examples, or None.
        labels: class of each example, int64 [N], or None.
        factors: columns to hold codes against, by name: factors and attributes, float64 [N].
        strength: of each unit, [latent]: the mean KL to the prior in nats where it is known by
            unit, which it is for independent coordinates under N(0, 1) and, given the layers above,
            for those of a hierarchy; else the variance of the code.
        unit: of the strength, "nats" or "variance".
        measure: what the strength is, in words.
    """

    data: Dataset
    z: Tensor
    context: Tensor | None
    labels: npt.NDArray[np.int64] | None
    factors: dict[str, npt.NDArray[np.float64]]
    strength: Tensor
    unit: str
    measure: str

    @property
    def order(self) -> list[int]:
        """Units, the strongest first."""
        ranked: list[int] = self.strength.argsort(descending=True, stable=True).tolist()
        return ranked


def codes_of(model: Fittable, data: Dataset, limit: int = LIMIT) -> Codes:
    """Encode examples, spread evenly over the data.

    Raises:
        Unanswerable: a model without an encoder.
    """
    part = data.take(np.arange(0, len(data), max(1, -(-len(data) // limit))))
    codes, kls, contexts = [], [], []
    measure = "variance of the codes"
    with torch.no_grad(), without_autocast(model.device):
        for rows, x, context in reading_of(model, part, 256):
            codes.append(features(model, x, context))
            contexts.append(context)
            if isinstance(model, LatentVariable):
                q = model.posterior(x, context)
                if isinstance(q, DiagonalGaussian) and isinstance(model.prior, StandardNormal):
                    measure = "KL to N(0, 1), nats"
                    kls.append(q.kl_to_standard())
                elif isinstance(q, LayeredPosterior):
                    measure = "KL to the prior given the layers above, nats"
                    kls.append(_kl_in_layers(q, Noise("traverse", rows.start, device=x.device)))
    z = torch.cat(codes)
    strength = torch.cat(kls).mean(0) if kls else z.var(0, correction=0)
    known = None if contexts[0] is None else torch.cat([c for c in contexts if c is not None])
    factors = part.factors | {name: c.astype(np.float64) for name, c in part.attributes.items()}
    unit = "nats" if kls else "variance"
    return Codes(part, z, known, part.labels, factors, strength, unit, measure)


def _kl_in_layers(posterior: LayeredPosterior, noise: Noise) -> Tensor:
    """KL of each unit given a draw of the layers above it, nats [B, latent]."""
    kls: list[Tensor] = []

    def choose(p: DiagonalGaussian, q: DiagonalGaussian) -> Tensor:
        kls.append(q.kl_to(p))
        return q.sample(noise.normal(*q.mean.shape, dtype=q.mean.dtype))

    posterior.chosen(choose)
    return torch.cat(kls, 1)


def with_encoder(model: Fittable) -> EncoderDecoder:
    """The model itself.

    Raises:
        Unanswerable: it has no encoder or no codes of numbers.
    """
    if isinstance(model, EncoderDecoder):
        return model
    raise refusal(model, no_code(model))


@torch.no_grad()
def traversal(
    model: EncoderDecoder,
    codes: Codes,
    units: Sequence[int],
    example: int = 0,
    steps: int = 9,
    reach: float = 2.5,
) -> Tensor:
    """One example with each unit moved over the range of the codes, int64 [units, steps, *shape].

    A unit moves between `reach` standard deviations below and above the mean of the codes; the
    others stay.

    Raises:
        InvalidSetting: no such unit or example.
    """
    latent, n = codes.z.shape[1], len(codes.z)
    for name, value, most in (("example", example, n), *(("unit", u, latent) for u in units)):
        if not 0 <= value < most:
            raise InvalidSetting(f"{name} must be in [0, {most}), given {value}")
    mean, spread = codes.z.mean(0), codes.z.std(0, correction=0)
    shifts = torch.linspace(-reach, reach, steps, device=codes.z.device)
    rows = codes.z[example].repeat(len(units), steps, 1)
    for row, unit in enumerate(units):
        rows[row, :, unit] = mean[unit] + shifts * spread[unit]
    return _decoded(model, rows, codes, [example] * len(units))


def _decoded(model: EncoderDecoder, rows: Tensor, codes: Codes, examples: list[int]) -> Tensor:
    """Codes [R, steps, latent], each row with the context of its example, decoded."""
    count, steps = rows.shape[:2]
    context = None
    if codes.context is not None:
        context = codes.context[torch.tensor(examples)].repeat_interleave(steps, 0)
    images = model.decode(rows.flatten(0, 1), context).cpu()
    return images.reshape(count, steps, *images.shape[1:])


def direction(codes: Codes, name: str) -> Tensor:
    """The change of the code that goes with a standard deviation of a factor, [latent].

    The factor's covariance with each unit, over the factor's standard deviation: for an attribute
    that is there or not, the difference of the mean codes with it and without it, to scale (Larsen
    et al. 2016, sec. 4.2, https://arxiv.org/abs/1512.09300).

    Raises:
        InvalidSetting: no such factor, or one that is the same for all.
    """
    if name not in codes.factors:
        valid = ", ".join(codes.factors) or "none: the data has neither factors nor attributes"
        hint = nearest(name, codes.factors) if codes.factors else valid
        raise InvalidSetting(f'there is no attribute "{name}": {hint}')
    column = torch.from_numpy(codes.factors[name]).to(codes.z)
    spread = column.std(correction=0)
    if float(spread) == 0:
        raise InvalidSetting(f'the attribute "{name}" is the same for all examples')
    centred = codes.z - codes.z.mean(0)
    return ((column - column.mean())[:, None] * centred).mean(0) / spread


@torch.no_grad()
def along(
    model: EncoderDecoder,
    codes: Codes,
    name: str,
    examples: Sequence[int] = (0, 1, 2, 3),
    steps: int = 9,
    reach: float = 2.5,
) -> Tensor:
    """Examples moved along the direction of a factor, int64 [examples, steps, *shape]."""
    shifts = torch.linspace(-reach, reach, steps, device=codes.z.device)
    path = shifts[:, None] * direction(codes, name)
    rows = codes.z[list(examples)][:, None] + path
    return _decoded(model, rows, codes, list(examples))


@torch.no_grad()
def manifold(model: EncoderDecoder, codes: Codes, side: int = 15) -> Tensor:
    """Two-dimensional codes on a grid, decoded: int64 [side, side, *shape].

    The grid is even in probability: quantiles of N(0, 1) where that is the prior (Kingma and
    Welling 2014, app. A), else of the codes of the data. The first unit runs to the right, the
    second one up.

    Raises:
        InvalidSetting: codes of other than two numbers.
    """
    if codes.z.shape[1] != 2:
        raise InvalidSetting(
            f"the manifold is a plane of codes of two numbers; these have {codes.z.shape[1]}: fit "
            "with --latent 2"
        )
    share = torch.linspace(RIM, 1 - RIM, side, device=codes.z.device, dtype=codes.z.dtype)
    if isinstance(model, LatentVariable) and isinstance(model.prior, StandardNormal):
        right = up = torch.special.ndtri(share)
    else:
        right, up = codes.z.quantile(share, 0).T
    grid = torch.stack(torch.meshgrid(up.flip(0), right, indexing="ij")[::-1], -1)
    return _decoded(model, grid, codes, [0] * side)


def plane(codes: Codes) -> tuple[npt.NDArray[np.float64], str]:
    """The codes as points [N, 2], and what the two axes are: units, or principal components."""
    z = codes.z.double().cpu()
    if z.shape[1] == 2:
        return z.numpy(), "the two units of the code"
    if z.shape[1] == 1:
        return torch.cat([z, torch.zeros_like(z)], 1).numpy(), "the unit of the code"
    centred = z - z.mean(0)
    _, singular, components = torch.linalg.svd(centred, full_matrices=False)
    share = float((singular[:2] ** 2).sum() / (singular**2).sum().clamp(min=1e-300))
    words = f"two principal components, {share:.0%} of the variance of the codes"
    return (centred @ components[:2].T).numpy(), words


def code_map(codes: Codes, classes: Sequence[str], title: str) -> Any:
    """The codes as points of a plane, coloured by class: a matplotlib figure."""
    from likely.files.figures import new_figure

    points, words = plane(codes)
    figure = new_figure(6.4, 6.0)
    axes = figure.add_subplot()
    labels = np.zeros(len(points), np.int64) if codes.labels is None else codes.labels
    for number in np.unique(labels):
        name = None if codes.labels is None else str(classes[number] if classes else number)
        of_class = points[labels == number]
        x, y = of_class.T
        axes.scatter(
            x,
            y,
            s=14 if len(points) < 1000 else 6,
            alpha=0.7,
            linewidths=0,
            label=name,
            color=f"C{number % 10}",
        )
    if codes.labels is not None:
        axes.legend(markerscale=2.5, fontsize=8, loc="upper right", framealpha=0.9)
    axes.set_title(f"{title}\n{words}", fontsize=10)
    axes.set_aspect("equal", adjustable="datalim")
    axes.tick_params(labelsize=8)
    return figure
