r"""Flow on dequantised data: RealNVP (Dinh, Sohl-Dickstein and Bengio 2017) or MAF (Papamakarios,
Pavlakou and Murray 2017).

https://arxiv.org/abs/1605.08803, https://arxiv.org/abs/1705.07057

    y = x + u,  v = a + (1 - 2a) y / levels,  t = log v - log(1 - v),  z = f(t),
    log p(y) = log N(z; 0, I) + log |det df/dt| + sum_i log |dt_i/dy_i|

The density of y is exact; log P(x) >= E_u[log p(x + u)] (`likely.density.Dequantized`).

Deviations: one scale, on the pixels as a vector; layers are those of `likely.nn.flow`, without the
dense layers between couplings where there are many dimensions.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from likely.data.spec import Dataset, DataSpec
from likely.density import Dequantized
from likely.models.flow.settings import FlowSettings
from likely.nn.flow import FlowDensity, autoregressive_flow, coupling_flow
from likely.noise import Noise

# How far the levels stay from the ends of the logit.
MARGIN = 0.01
# Dimensions up to which a dense layer stands before each coupling.
MOST_DENSE = 256
# Examples that the flow is started at.
FIRST = 512


class Flow(Dequantized):
    """The model; see the module's docstring.

    Args:
        spec: of the data, shape (C, H, W) or (D,).
        settings: sizes; `FlowSettings.preset(spec)` by default.
    """

    takes_vectors = True

    def __init__(self, spec: DataSpec, settings: FlowSettings | None = None) -> None:
        super().__init__(spec, 0)
        self.settings = s = settings or FlowSettings.preset(spec)
        if s.transform == "coupling":
            dense = spec.dimensions <= MOST_DENSE
            flow = coupling_flow(spec.dimensions, s.layers, s.hidden, dense=dense)
        else:
            flow = autoregressive_flow(spec.dimensions, s.layers, s.hidden)
        self.density = FlowDensity(flow, spec.dimensions)

    @torch.no_grad()
    def start_at(self, data: Dataset) -> None:
        """Normalise what reaches each ActNorm, on the first examples."""
        x = self.integers(torch.from_numpy(data.batch(slice(0, FIRST)).x.astype(np.int64)))
        u = Noise("start").uniform(*x.shape, dtype=next(self.parameters()).dtype)
        self.density.flow.start_at(self._logit((x + u.to(x.device)).flatten(1))[0])

    def log_density(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        t, log_det = self._logit(y.flatten(1))
        return self.density.log_prob(t) + log_det

    def real(self, noise: Noise, n: int, context: Tensor | None) -> Tensor:
        dtype = next(self.parameters()).dtype
        v = self.density.sample(noise, n, dtype).sigmoid()
        y = (v - MARGIN) * (self.spec.levels / (1 - 2 * MARGIN))
        return y.reshape(n, *self.spec.grid)

    def _logit(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """(t, log |det dt/dy|), [B, D] and [B]."""
        slope = (1 - 2 * MARGIN) / self.spec.levels
        v = MARGIN + slope * y
        below, above = v.log(), (1 - v).log()
        return below - above, (math.log(slope) - below - above).sum(-1)
