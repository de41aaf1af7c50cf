r"""Priors over codes, and where their draws lie: on a shell, in a cube, or around a mean.

The length of a draw of N(0, I) in d dimensions is near sqrt(d), that of a uniform one of the cube
[-1, 1]^d near sqrt(d / 3). The mean of n draws is shorter by sqrt(n), a sum of such means anything:
decoded as it is, it is an image that the model never draws (White 2016, sec. 2.1,
https://arxiv.org/abs/1609.04468). So what is computed from codes is brought back to their length.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Protocol

import torch
from torch import Tensor

from likely.noise import Noise


class Prior(Protocol):
    """p(z), a density over codes that is sampled and evaluated."""

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) in nats, [...]; z [..., Z]."""

    def sample(self, noise: Noise, n: int, dtype: torch.dtype) -> Tensor:
        """Codes drawn from it, [n, Z]."""


@dataclasses.dataclass(frozen=True)
class StandardNormal:
    """N(0, I) over codes of this many dimensions."""

    dimensions: int

    def log_prob(self, z: Tensor) -> Tensor:
        """log density in nats, summed over the last side."""
        return (-0.5 * z**2 - 0.5 * math.log(2 * math.pi)).sum(-1)

    def sample(self, noise: Noise, n: int, dtype: torch.dtype) -> Tensor:
        """The noise itself, [n, Z]."""
        return noise.normal(n, self.dimensions, dtype=dtype)


@dataclasses.dataclass(frozen=True)
class UniformCube:
    """The uniform density on [-1, 1]^dimensions (Radford et al. 2016 draw their codes from it)."""

    dimensions: int

    def log_prob(self, z: Tensor) -> Tensor:
        """log density in nats, [...]; z [..., Z]."""
        inside = (z.abs() <= 1.0).all(-1)
        level = torch.full_like(z[..., 0], -self.dimensions * math.log(2.0))
        return level.where(inside, torch.full_like(level, -math.inf))

    def sample(self, noise: Noise, n: int, dtype: torch.dtype) -> Tensor:
        """Codes drawn from it, [n, Z]."""
        return (2.0 * noise.uniform(n, self.dimensions) - 1.0).to(dtype)


@dataclasses.dataclass(frozen=True)
class Shell:
    """The sphere that codes are near.

    Attributes:
        centre: mean of the codes, [Z].
        radius: root of the mean squared distance from it.
        is_cube: whether they fill the cube [-1, 1]^Z and nothing outside.
        about: whose shell it is, in words.
    """

    centre: Tensor
    radius: float
    is_cube: bool
    about: str

    @classmethod
    def of(cls, codes: Tensor, about: str, centre: Tensor | None = None) -> Shell:
        """That of some codes, [N, Z]."""
        middle = codes.mean(0) if centre is None else centre
        radius = float((codes - middle).double().square().sum(1).mean().sqrt())
        return cls(middle, radius, False, about)

    @property
    def scale(self) -> float:
        """Standard deviation of a coordinate."""
        return self.radius / math.sqrt(len(self.centre))

    def settled(self, z: Tensor) -> Tensor:
        """Codes [..., Z] moved from the centre to the radius, and clipped where there is a cube."""
        moved = self._moved(z)
        return moved.clamp(-1.0, 1.0) if self.is_cube else moved

    def outside(self, z: Tensor) -> float:
        """Share of the coordinates that `settled` clips."""
        return float((self._moved(z).abs() > 1.0).double().mean()) if self.is_cube else 0.0

    def _moved(self, z: Tensor) -> Tensor:
        offset = z - self.centre
        length = offset.norm(dim=-1, keepdim=True)
        moved = self.centre + offset * (self.radius / length.clamp(min=1e-12))
        return torch.where(length > 1e-12, moved, z)

    def near(self, z: Tensor, noise: Noise, n: int, reach: float) -> Tensor:
        """n codes around one, [n, Z], which stay where codes lie.

        The noise is uniform, its deviation `reach` times that of a prior on [-1, 1].
        """
        uniform = (2.0 * noise.uniform(n, len(z)) - 1.0).to(z)
        nearby = z + uniform * (math.sqrt(3.0) * self.scale * reach)
        return nearby.clamp(-1.0, 1.0) if self.is_cube else self.settled(nearby)

    def circle(self, noise: Noise, n: int) -> tuple[Tensor, Tensor]:
        """Two orthogonal vectors [n, Z] of its radius: the axes of a random circle on it.

        In a cube each coordinate is a cosine of another phase, so the circle stays inside; the
        phases are spread evenly, which makes the axes orthogonal and equally long.
        """
        dimensions = len(self.centre)
        if self.is_cube:
            order = noise.uniform(n, dimensions).argsort(1)
            turned = math.pi * (noise.uniform(n, dimensions) < 0.5)
            phase = order * (math.pi / dimensions) + turned
            axes = torch.stack([phase.cos(), phase.sin()], -1) * math.sqrt(2.0 / 3.0)
        else:
            drawn = noise.normal(n, dimensions, 2, dtype=torch.float64)
            axes = torch.linalg.qr(drawn)[0] * self.radius
        first, second = axes.to(self.centre).unbind(-1)
        return first, second


def around(first: Tensor, last: Tensor, centre: Tensor, steps: int) -> Tensor:
    """`steps` points of the ellipse about a centre through two codes, [B, steps, Z].

    From `first` the way that `slerp` takes to `last`, past it, and on until just before `first`
    again, in equal turns. A circle where both are equally far from the centre.
    """
    a, b = first - centre, last - centre
    cosine = (a * b).sum(-1, keepdim=True) / (a.norm(dim=-1) * b.norm(dim=-1))[:, None].clamp(1e-12)
    cosine = cosine.clamp(-1.0 + 1e-6, 1.0 - 1e-6)
    across = (b - cosine * a) / (1.0 - cosine**2).sqrt()
    return turned(a, across, centre, steps)


def turned(first: Tensor, second: Tensor, centre: Tensor, steps: int) -> Tensor:
    """centre + cos t first + sin t second at equal steps of t over a turn, [B, steps, Z]."""
    angle = torch.arange(steps, dtype=torch.float64) * (2.0 * math.pi / steps)
    cosine, sine = (f.to(first)[None, :, None] for f in (angle.cos(), angle.sin()))
    return centre + cosine * first[:, None] + sine * second[:, None]
