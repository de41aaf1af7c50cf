r"""Vector quantisation: each vector of a feature map becomes the nearest of K codes.

    c = argmin_k |z - e_k|^2,    e = z + stop(e_c - z)

The second line is the straight-through estimator: the gradient of e goes to z (van den Oord,
Vinyals and Kavukcuoglu 2017, sec. 3.2), https://arxiv.org/abs/1711.00937. The codes are one of:

- `MovingCodes`: exponential moving averages of the vectors that they stand for (there, app. A.1);
  codes that hardly any vector is near are put at vectors of the batch, far ones first;
- `MappedCodes`: fixed random vectors through one learned matrix, which moves all codes at once, so
  that none is left behind (SimVQ: Zhu et al. 2024), https://arxiv.org/abs/2411.02038;
- `GridCodes`: the points of a grid, z bounded to it; nothing is learned (finite scalar
  quantisation: Mentzer et al. 2023), https://arxiv.org/abs/2309.15505.
"""

from __future__ import annotations

import abc
import math

import torch
from torch import Tensor, nn

from likely.devices import of_all_processes
from likely.noise import Noise

# Of the moving averages, for each batch.
DECAY = 0.99
# Share of the vectors that an average code stands for, below which a code counts as dead.
DEAD = 0.05


class Codes(nn.Module, abc.ABC):
    """K vectors of D numbers.

    Attributes:
        dimensions: D.
    """

    dimensions: int

    @abc.abstractmethod
    def vectors(self) -> Tensor:
        """All codes, [K, D]."""

    def bounded(self, z: Tensor) -> Tensor:
        """What is compared with the codes, [..., D]."""
        return z

    def start_at(self, z: Tensor) -> None:
        """Begin at some of these vectors [N, D], all different, or nothing."""

    def penalties(self, z: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        """(what moves the codes, what moves the vectors), `squared` distances, [B].

        Args:
            z: vectors as `bounded` returned them, [B, N, D].
            e: their codes.
        """
        return squared(z.detach(), e), squared(z, e.detach())

    def update(self, z: Tensor, index: Tensor, noise: Noise) -> None:
        """Move the codes after a batch, where no gradient does.

        Args:
            z: [B, N, D].
            index: of the nearest codes, int64 [B, N].
            noise: its rows are those of the batch.
        """


class MappedCodes(Codes):
    """Fixed vectors through one learned matrix."""

    fixed: Tensor

    def __init__(self, count: int, dimensions: int) -> None:
        super().__init__()
        self.dimensions = dimensions
        self.register_buffer("fixed", torch.randn(count, dimensions))
        self.matrix = nn.Parameter(torch.eye(dimensions))

    def vectors(self) -> Tensor:
        return scaled(self.fixed @ self.matrix)

    def bounded(self, z: Tensor) -> Tensor:
        return scaled(z)

    def start_at(self, z: Tensor) -> None:
        self.fixed.copy_(spread(z, len(self.fixed)))


class MovingCodes(Codes):
    """Means of the vectors that they stand for, of late.

    Several processes move them by the vectors of all, as one process with the whole batch does.
    """

    codes: Tensor
    counts: Tensor

    def __init__(self, count: int, dimensions: int) -> None:
        super().__init__()
        self.dimensions = dimensions
        self.register_buffer("codes", torch.randn(count, dimensions))
        # Vectors of a batch that each code stands for.
        self.register_buffer("counts", torch.zeros(count))

    def vectors(self) -> Tensor:
        # A copy: an update comes before the gradients of what was computed from them.
        return self.codes.clone()

    def bounded(self, z: Tensor) -> Tensor:
        return scaled(z)

    def start_at(self, z: Tensor) -> None:
        self.codes.copy_(spread(z, len(self.codes)))

    def penalties(self, z: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        return z.new_zeros(len(z)), squared(z, e.detach())

    @torch.no_grad()
    def update(self, z: Tensor, index: Tensor, noise: Noise) -> None:
        mine, count = len(z), len(self.codes)
        z, index = of_all_processes(z), of_all_processes(index)
        draws = of_all_processes(noise.uniform(mine, -(-count // len(z))).to(z.device))
        flat, chosen = z.flatten(0, 1), index.flatten()
        new = torch.bincount(chosen, minlength=count).to(self.counts.dtype)
        sums = torch.zeros_like(self.codes).index_add_(0, chosen, flat)
        total = DECAY * self.counts + (1 - DECAY) * new
        moved = DECAY * self.counts[:, None] * self.codes + (1 - DECAY) * sums
        codes = torch.where(
            total[:, None] > 0, scaled(moved / total[:, None].clamp(min=1e-9)), self.codes
        )
        dead = total < DEAD * len(flat) / count
        # Vectors in proportion to their squared distances from their codes, as in k-means++.
        far = (flat - codes[chosen]).square().sum(-1).double() + 1e-12
        places = torch.searchsorted(far.cumsum(0) / far.sum(), draws.flatten()[:count])
        places = places.clamp(max=len(flat) - 1)
        self.codes.copy_(torch.where(dead[:, None], flat[places], codes))
        self.counts.copy_(torch.where(dead, len(flat) / count, total))


class GridCodes(Codes):
    """The points of a grid.

    Args:
        levels: points along each side.
    """

    grid: Tensor

    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__()
        self.levels, self.dimensions = levels, len(levels)
        sides = [(torch.arange(n, device="cpu") - n // 2) / max(1, n // 2) for n in levels]
        grid = torch.cartesian_prod(*sides).reshape(-1, len(levels))
        self.register_buffer("grid", grid, persistent=False)

    def vectors(self) -> Tensor:
        return self.grid

    def bounded(self, z: Tensor) -> Tensor:
        """(half tanh(z + shift) - offset) / (L // 2), between the ends of the grid (sec. 3.1)."""
        sides = []
        for value, n in zip(z.unbind(-1), self.levels, strict=True):
            half, offset = (n - 1) * (1 + 1e-3) / 2, 0.5 if n % 2 == 0 else 0.0
            shift = math.atanh(offset / half) if half > offset else 0.0
            sides.append(((value + shift).tanh() * half - offset) / max(1, n // 2))
        return torch.stack(sides, -1)

    def penalties(self, z: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        return z.new_zeros(len(z)), z.new_zeros(len(z))


def scaled(z: Tensor) -> Tensor:
    """Vectors [..., D] of mean square 1: a distance between two is at most 4."""
    return z * (z.square().mean(-1, keepdim=True) + 1e-8).rsqrt()


def distances(z: Tensor, codes: Tensor) -> Tensor:
    """Mean squared distances of vectors [..., D] from codes [K, D], [..., K]."""
    apart = z.square().sum(-1, keepdim=True) - 2 * z @ codes.t() + codes.square().sum(-1)
    return apart / z.shape[-1]


def spread(z: Tensor, count: int) -> Tensor:
    """So many of the different vectors among [N, D], and near them where there are too few."""
    different = torch.unique(z, dim=0)
    order = Noise("codes").uniform(len(different)).argsort().to(z.device)
    near = 0.1 * different.std(0, correction=0) * Noise("near").normal(count, z.shape[1]).to(z)
    places = torch.arange(count, device=z.device)
    chosen = different[order[places % len(order)]]
    return torch.where((places < len(order))[:, None], chosen, chosen + near)


def squared(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared distances between two [B, N, D], summed over N, [B]."""
    return (a - b).square().mean(-1).sum(1)
