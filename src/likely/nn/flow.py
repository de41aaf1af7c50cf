r"""Change of variables: invertible maps with the logarithm of their Jacobian's determinant.

With u = f(z), log p(z) = log N(f(z); 0, I) + log |det df/dz|; samples are f^-1 of normal noise.

- affine coupling with a mask b (Dinh, Sohl-Dickstein and Bengio 2017, eqs. 7 and 9),
  https://arxiv.org/abs/1605.08803: u = b z + (1 - b) (z exp(s(b z)) + t(b z));
- ActNorm and the invertible dense layer (Kingma and Dhariwal 2018, secs. 3.1 and 3.2),
  https://arxiv.org/abs/1807.03039;
- masked affine autoregressive maps, u_i = z_i exp(s_i(z_<i)) + t_i(z_<i): from data to noise they
  are MAF (Papamakarios, Pavlakou and Murray 2017), https://arxiv.org/abs/1705.07057, from noise to
  data IAF (Kingma et al. 2016), https://arxiv.org/abs/1606.04934.

Deviations: log-scales are bounded, s = 2 tanh(raw / 2), so that a chain of maps stays finite; the
dense layer is L U without a permutation, and the masks of couplings alternate instead.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from likely.density import DiagonalGaussian, StandardNormal
from likely.devices.precision import without_autocast
from likely.noise import Noise

# Of the last layer of a network of scales and shifts: the map starts near the identity, yet every
# weight has a gradient.
SMALL = 0.01
# Below this standard deviation, relative to the mean, numbers differ by their rounding alone.
STILL = 1e-6


class Bijection(nn.Module, abc.ABC):
    """An invertible map of tensors [..., *shape], and how it changes volume."""

    @abc.abstractmethod
    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(u, log |det du/dz|), [..., *shape] and [...], nats."""

    @abc.abstractmethod
    def inverse(self, u: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(z, log |det dz/du|), [..., *shape] and [...], nats."""

    def start_at(self, z: Tensor) -> None:
        """Initialise from examples that the map is applied to, [B, *shape], or nothing."""


class Chain(Bijection):
    """Maps one after another."""

    def __init__(self, maps: Iterable[Bijection]) -> None:
        super().__init__()
        self.maps = nn.ModuleList(maps)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = z.new_zeros(())
        for bijection in self.maps:
            z, log_det = bijection(z, context)
            total = total + log_det
        return z, total

    def inverse(self, u: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = u.new_zeros(())
        for bijection in reversed(self.maps):
            assert isinstance(bijection, Bijection)
            u, log_det = bijection.inverse(u, context)
            total = total + log_det
        return u, total

    def start_at(self, z: Tensor) -> None:
        for bijection in self.maps:
            assert isinstance(bijection, Bijection)
            bijection.start_at(z)
            z, _ = bijection(z)


class AffineCoupling(Bijection):
    """Scale and shift what the mask leaves free, as a function of what it holds.

    Args:
        mask: of 0 and 1, [D] or [C, H, W]; where it is 1, the values stay.
        network: from [..., *shape] (and the context, where there is one) to [..., *shape] with its
            first side doubled: raw log-scales, then shifts.
    """

    mask: Tensor

    def __init__(self, mask: Tensor, network: nn.Module) -> None:
        super().__init__()
        self.register_buffer("mask", mask, persistent=False)
        self.network = network

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._map(z, context)
        return z * log_scale.exp() + shift, self._sum(log_scale)

    def inverse(self, u: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._map(u, context)
        return (u - shift) * (-log_scale).exp(), -self._sum(log_scale)

    def _map(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """(log-scale, shift), both 0 where the mask is 1."""
        held = z * self.mask
        parameters = self.network(held) if context is None else self.network(held, context)
        raw, shift = parameters.chunk(2, -self.mask.ndim)
        free = 1 - self.mask
        return _bounded(raw) * free, shift * free

    def _sum(self, log_scale: Tensor) -> Tensor:
        return log_scale.flatten(-self.mask.ndim).sum(-1)


class ActNorm(Bijection):
    """u = (z + shift) exp(log_scale), for each coordinate of a vector or channel of an image.

    It starts as the identity; `start_at` makes examples zero on average, of variance one. Where all
    of them are the same, as a single one is, their scale is kept: enlarged by a thousand in each of
    several layers, they would leave what floats can hold.

    Args:
        shape: of what is normalised, (D,) or (C, H, W).
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        sides = (shape[0], *[1] * (len(shape) - 1))
        self.repeats = math.prod(shape[1:])
        self.shift = nn.Parameter(torch.zeros(sides))
        self.log_scale = nn.Parameter(torch.zeros(sides))

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return (z + self.shift) * self.log_scale.exp(), self.log_scale.sum() * self.repeats

    def inverse(self, u: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return u * (-self.log_scale).exp() - self.shift, -self.log_scale.sum() * self.repeats

    @torch.no_grad()
    def start_at(self, z: Tensor) -> None:
        each = z.movedim(1, 0).flatten(1)  # [C, B * ...]
        mean, spread = each.mean(1), each.std(1, correction=0)
        same = spread <= STILL * (1 + mean.abs())
        scale = torch.where(same, torch.ones_like(spread), spread.clamp(min=1e-3))
        self.shift.copy_(-mean.reshape(self.shift.shape))
        self.log_scale.copy_(-scale.log().reshape(self.shift.shape))


class InvertibleLinear(Bijection):
    """u = L U z, L lower triangular with ones on its diagonal, U upper triangular, [D, D].

    One matrix holds both: its diagonal is the logarithm of that of U. It starts as the identity.
    """

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(dimensions, dimensions))

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        lower, upper = self._factors()
        return linear(z, lower @ upper), self.weight.diagonal().sum()

    def inverse(self, u: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        lower, upper = self._factors()
        columns = u.reshape(-1, u.shape[-1]).T
        columns = torch.linalg.solve_triangular(lower, columns, upper=False, unitriangular=True)
        z = torch.linalg.solve_triangular(upper, columns, upper=True).T
        return z.reshape(u.shape), -self.weight.diagonal().sum()

    def _factors(self) -> tuple[Tensor, Tensor]:
        ones = torch.eye(len(self.weight), dtype=self.weight.dtype, device=self.weight.device)
        diagonal = self.weight.diagonal().exp().diag()
        return self.weight.tril(-1) + ones, self.weight.triu(1) + diagonal


class Reversal(Bijection):
    """The coordinates of a vector in the opposite order."""

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z.flip(-1), z.new_zeros(())

    def inverse(self, u: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return u.flip(-1), u.new_zeros(())


class MaskedAffine(Bijection):
    """u_i = z_i exp(s_i(z_<i)) + t_i(z_<i): one pass forwards, D passes backwards.

    Scales and shifts come from a MADE (Germain et al. 2015) of two hidden layers.

    Args:
        dimensions: of z.
        hidden: units of each hidden layer.
        context: numbers that scales and shifts depend on, too; 0 for none.
    """

    def __init__(self, dimensions: int, hidden: int, context: int = 0) -> None:
        super().__init__()
        self.dimensions = dimensions
        order = torch.arange(dimensions)
        # A unit of degree m sees z_0 to z_{m-1}; those of degree 0 see the context alone.
        degree = torch.arange(hidden) % dimensions
        self.input = MaskedLinear(order[None, :] < degree[:, None])
        self.middle = MaskedLinear(degree[None, :] <= degree[:, None])
        self.output = MaskedLinear((degree[None, :] <= order[:, None]).repeat(2, 1))
        self.output.weight.data *= SMALL
        self.context = nn.Linear(context, hidden, bias=False) if context else None

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._map(z, context)
        return z * log_scale.exp() + shift, log_scale.sum(-1)

    def inverse(self, u: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z = log_scale = torch.zeros_like(u)
        # After i rounds the first i coordinates are exact.
        for _ in range(self.dimensions):
            log_scale, shift = self._map(z, context)
            z = (u - shift) * (-log_scale).exp()
        return z, -log_scale.sum(-1)

    def _map(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """(log-scale, shift), both [..., D]."""
        units = self.input(z)
        if self.context is not None:
            units = units + self.context(context)
        raw, shift = self.output(silu(self.middle(silu(units)))).chunk(2, -1)
        return _bounded(raw), shift


class MaskedLinear(nn.Linear):
    """A linear layer whose weight is zero where its mask is, bool [outputs, inputs]."""

    seen: Tensor

    def __init__(self, seen: Tensor) -> None:
        super().__init__(seen.shape[1], seen.shape[0])
        self.register_buffer("seen", seen.float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight * self.seen, self.bias)


class FlowDensity(nn.Module):
    """p(z) = N(f(z); 0, I) |det df/dz| over vectors [..., D]; f is `flow`.

    Args:
        flow: to vectors [..., D], from such or from images [B, C, H, W].
        dimensions: D.
        lowered: whether networks of the flow may follow an autocast block; they give float32.
    """

    def __init__(self, flow: Bijection, dimensions: int, *, lowered: bool = False) -> None:
        super().__init__()
        self.flow = flow
        self.base = StandardNormal(dimensions)
        self.lowered = lowered

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z), nats [...]; z as the flow takes it."""
        with contextlib.nullcontext() if self.lowered else without_autocast(z.device):
            u, log_det = self.flow(z)
            log_prob: Tensor = self.base.log_prob(u) + log_det
            return log_prob

    def sample(self, noise: Noise, n: int, dtype: torch.dtype) -> Tensor:
        """f^-1(u), u ~ N(0, I), [n, ...]."""
        u = self.base.sample(noise, n, dtype)
        with without_autocast(u.device):
            return self.flow.inverse(u)[0]

    @torch.no_grad()
    def start_at(self, z: Tensor) -> None:
        """Normalise codes [N, D] on their way through the flow."""
        self.flow.start_at(z)


@dataclasses.dataclass(frozen=True)
class FlowPosterior:
    """q(z | x) of z = f(e; h), e ~ N(mean, scale^2), h a function of x (Kingma et al. 2016).

    Attributes:
        base: of e, [B, Z].
        flow: f.
        context: h, [B, H].
    """

    base: DiagonalGaussian
    flow: Bijection
    context: Tensor

    @property
    def mean(self) -> Tensor:
        """f at the mean of e, [B, Z]: a code, though not the mean of z."""
        return self._push(self.base.mean)[0]

    @property
    def log_scale(self) -> Tensor:
        """Of e, [B, Z]."""
        return self.base.log_scale

    def sample(self, noise: Tensor) -> Tensor:
        """z from standard normal noise."""
        return self.draw(noise)[0]

    def draw(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """(z, log q(z | x)), from standard normal noise."""
        e = self.base.sample(noise)
        z, log_det = self._push(e)
        return z, self.base.log_prob(e) - log_det

    def log_prob(self, z: Tensor) -> Tensor:
        """log density in nats: f is inverted, one coordinate after another."""
        with without_autocast(z.device):
            e, log_det = self.flow.inverse(z, self.context)
            return self.base.log_prob(e) + log_det

    def unsqueezed(self) -> FlowPosterior:
        """The same with a side for several draws, [B, 1, Z]."""
        return FlowPosterior(self.base.unsqueezed(), self.flow, self.context[:, None])

    def _push(self, e: Tensor) -> tuple[Tensor, Tensor]:
        with without_autocast(e.device):
            pushed: tuple[Tensor, Tensor] = self.flow(e, self.context)
            return pushed


def coupling_flow(dimensions: int, couplings: int, hidden: int, *, dense: bool = True) -> Chain:
    """RealNVP on vectors: couplings whose masks alternate, each between a dense layer and ActNorm.

    Args:
        dimensions: of the vectors.
        couplings: how many.
        hidden: units of each of the two hidden layers of a coupling's network.
        dense: whether a dense layer stands before each coupling.
    """
    maps: list[Bijection] = []
    for index in range(couplings):
        mask = ((torch.arange(dimensions) + index) % 2).float()
        coupling = AffineCoupling(mask, dense_network(dimensions, hidden))
        maps += [InvertibleLinear(dimensions)] if dense else []
        maps += [coupling, ActNorm((dimensions,))]
    return Chain(maps)


def autoregressive_flow(dimensions: int, layers: int, hidden: int, context: int = 0) -> Chain:
    """Masked affine maps, in the opposite order of coordinates from one to the next.

    Args:
        dimensions: of the vectors.
        layers: how many.
        hidden: units of each of the two hidden layers of a map.
        context: numbers that the maps depend on, too; 0 for none.
    """
    maps: list[Bijection] = []
    for index in range(layers):
        maps += [Reversal()] if index else []
        maps += [MaskedAffine(dimensions, hidden, context)]
    return Chain(maps)


def dense_network(dimensions: int, hidden: int) -> nn.Module:
    """Scales and shifts of a coupling on vectors, from D to 2 D."""
    output = nn.Linear(hidden, 2 * dimensions)
    output.weight.data *= SMALL
    first, middle = nn.Linear(dimensions, hidden), nn.Linear(hidden, hidden)
    return nn.Sequential(first, nn.SiLU(), middle, nn.SiLU(), output)


def _bounded(raw: Tensor) -> Tensor:
    """A log-scale in (-2, 2), near the raw one where that is small."""
    return 2.0 * (raw / 2.0).tanh()
