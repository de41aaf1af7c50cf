r"""Flow on images: multi-scale RealNVP (Dinh, Sohl-Dickstein and Bengio 2017) with steps as in Glow
(Kingma and Dhariwal 2018), and variational dequantisation (Ho et al. 2019, sec. 3.1).

https://arxiv.org/abs/1605.08803, https://arxiv.org/abs/1807.03039,
https://arxiv.org/abs/1902.00275

    y = x + u,  t = Phi^-1(F(y)),  z = f(t),
    log p(y) = log N(z; 0, I) + log |det df/dt| + sum_i log |dt_i/dy_i|
    u = sigmoid(g(e; h(x))),  e ~ N(0, I),  log q(u | x) = log N(e; 0, I) - log |det du/de|
    log P(x) >= E_q[log p(x + u) - log q(u | x)]

Deviations: instead of a logit, F is the distribution function of the levels of each colour channel
in the training data, linear within a level, and Phi that of N(0, 1): each value alone is normal
before the flow begins (Chen and Gopinath 2001), https://papers.nips.cc/paper/1856. The dequantiser
has couplings of one scale, and its sigmoid's argument is bounded by a tanh.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from likely.data.spec import Dataset, DataSpec
from likely.density import Dequantized, Dequantizer, UniformDequantizer, at_least_float, chunks
from likely.devices.precision import full_precision
from likely.models.flow.settings import ImageFlowSettings
from likely.nn.flow import ActNorm, Chain, FlowDensity
from likely.nn.image_flow import MultiScale, image_steps, squeezed
from likely.nn.residual import ResidualBlock
from likely.noise import Noise

# How far F stays from 0 and 1.
MARGIN = 1e-5
# Scale of g's noise at which the sigmoid is nearest to uniform.
NEAR_UNIFORM = 1.7
# The sigmoid's argument stays within this: u is neither 0 nor 1.
FARTHEST = 12.0
# Examples that the flow is started at.
FIRST = 256


class VariationalDequantizer(nn.Module):
    """q(u | x): a conditional flow, pushed through a sigmoid.

    Args:
        spec: of the data.
        couplings: steps of the flow.
        features: maps of h(x), and of the networks of the couplings.
        blocks: residual blocks of each of them.
    """

    about = "variational dequantisation"

    def __init__(self, spec: DataSpec, couplings: int, features: int, blocks: int) -> None:
        super().__init__()
        self.levels = spec.levels
        self.squeeze, self.shape = squeezed(spec.grid)
        self.input = nn.Conv2d(self.shape[0], features, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(features) for _ in range(blocks))
        steps = image_steps(self.shape, couplings, features, blocks, features)
        widened = ActNorm(self.shape)
        widened.log_scale.data += math.log(NEAR_UNIFORM)
        self.flow = Chain([*steps, widened])

    def features(self, x: Tensor) -> Tensor:
        """h(x), [B, features, h, w]; x integers [B, C, H, W]."""
        scaled = x.to(self.input.weight.dtype) * (2.0 / (self.levels - 1)) - 1.0
        h = self.input(self.squeeze(scaled)[0])
        for block in self.blocks:
            h = block(h)
        return at_least_float(h)

    def draw(self, x: Tensor, noise: Noise, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """See `Dequantizer`."""
        e = noise.normal(len(x), *self.shape, dtype=dtype)
        a, log_det = self.flow(e, self.features(x))
        bounded = FARTHEST * (a / FARTHEST).tanh()
        slopes = 2 * (math.log(2) + logsigmoid(2 * a / FARTHEST) - a / FARTHEST)  # of the tanh
        slopes = slopes + logsigmoid(bounded) + logsigmoid(-bounded)
        log_normal = -0.5 * (e.square() + math.log(2 * math.pi))
        log_q = (log_normal - slopes).flatten(1).sum(1) - log_det
        return self.squeeze.inverse(bounded)[0].sigmoid(), log_q


class ImageFlow(Dequantized):
    """The model; see the module's docstring.

    Args:
        spec: of the data, shape (C, H, W).
        settings: sizes; `ImageFlowSettings.preset(spec)` by default.
    """

    frequencies: Tensor

    def __init__(self, spec: DataSpec, settings: ImageFlowSettings | None = None) -> None:
        super().__init__(spec, 0)
        self.settings = s = settings or ImageFlowSettings.preset(spec)
        self.register_buffer("frequencies", torch.ones(spec.grid[0], spec.levels))
        flow = MultiScale(spec.grid, s.scales, s.couplings, s.channels, s.blocks)
        self.density = FlowDensity(flow, spec.dimensions, lowered=True)
        self.variational: VariationalDequantizer | None = None
        if s.dequantizer == "variational":
            self.variational = VariationalDequantizer(
                spec, s.dequantizer_couplings, s.channels, s.blocks
            )

    @property
    def dequantizer(self) -> Dequantizer:
        return UniformDequantizer() if self.variational is None else self.variational

    @torch.no_grad()
    def start_at(self, data: Dataset) -> None:
        """Count the levels, and normalise what reaches each ActNorm on the first examples."""
        channels, levels = self.frequencies.shape
        counts = np.ones((channels, levels))  # each level has been seen once more
        for rows in chunks(len(data), 4096):
            values = data.batch(rows).x.reshape(-1, channels, math.prod(self.spec.grid[1:]))
            for channel in range(channels):
                counts[channel] += np.bincount(values[:, channel].reshape(-1), minlength=levels)
        shares = counts / counts.sum(1, keepdims=True)
        self.frequencies.copy_(torch.from_numpy(shares * levels))
        x = self.integers(torch.from_numpy(data.batch(slice(0, FIRST)).x.astype(np.int64)))
        u = Noise("start").uniform(*x.shape, dtype=self.frequencies.dtype).to(x.device)
        self.density.flow.start_at(self._normal(x + u)[0])

    @full_precision
    def log_density(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        t, log_det = self._normal(y)
        return self.density.log_prob(t) + log_det

    @full_precision
    def real(self, noise: Noise, n: int, context: Tensor | None) -> Tensor:
        t = self.density.sample(noise, n, self.frequencies.dtype)
        below, p = self._levels()
        share = (torch.special.ndtr(t) - MARGIN) / (1 - 2 * MARGIN)
        sides = share.movedim(1, 0).flatten(1).contiguous()  # [C, B H W]
        level = (torch.searchsorted(below, sides, right=True) - 1).clamp(0, p.shape[1] - 1)
        y: Tensor = level + (sides - below.gather(1, level)) / p.gather(1, level)
        return y.reshape(-1, n, *self.spec.grid[1:]).movedim(0, 1)

    def _levels(self) -> tuple[Tensor, Tensor]:
        """F below each level, and the share of the level; [C, levels] each."""
        p = self.frequencies.double() / self.frequencies.double().sum(1, keepdim=True)
        return (p.cumsum(1) - p).to(self.frequencies.dtype), p.to(self.frequencies.dtype)

    def _normal(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """(t [B, C, H, W], log |det dt/dy| [B])."""
        below, p = self._levels()
        level = y.detach().long().clamp(0, p.shape[1] - 1)  # of zero or above: rounded down
        first = torch.arange(len(p), device=y.device)[:, None, None] * p.shape[1]
        share, slope = (table.flatten()[level + first] for table in (below, p))
        t = torch.special.ndtri(MARGIN + (1 - 2 * MARGIN) * (share + slope * (y - level)))
        log_slope = (slope * (1 - 2 * MARGIN)).log() + 0.5 * (t.square() + math.log(2 * math.pi))
        return t, log_slope.flatten(1).sum(1)
