r"""Restricted Boltzmann machine (Smolensky 1986; Hinton 2002).

"Training products of experts by minimizing contrastive divergence", Neural Computation 14(8),
https://www.cs.toronto.edu/~hinton/absps/tr00-004.pdf. With scaled levels s(x) in [0, 1],

    E(x, h) = -sum_i b_i(x_i) - (s(x) - m)' W (h - 1/2) - c' h,     p(x, h) = exp(-E) / Z,
    F(x) = -log sum_h exp(-E(x, h)) = -sum_i b'_i(x_i) - sum_j softplus(c'_j + (s(x)' W)_j)

with b'_i(x_i) = b_i(x_i) - s(x_i) (W 1)_i / 2 and c' = c - W' m. Given x the hidden units are
independent, and given h the pixels: block Gibbs sampling draws them in turn. The gradient of
log p(x) is that of -F(x) less its mean under the model, which chains estimate: from the data
(contrastive divergence) or persistent (Tieleman 2008,
https://www.cs.toronto.edu/~tijmen/pcd/pcd.pdf).

log Z is summed over the hidden states where they are few. Otherwise it is annealed (Salakhutdinov
and Murray 2008, https://www.cs.toronto.edu/~rsalakhu/papers/dbn_ais.pdf) through

    log f_t(x) = sum_i (1 - t) a_i(x_i) + t b'_i(x_i) + sum_j softplus(t (c'_j + (s(x)' W)_j)),

from pixels that are independent with the frequencies a of the data (Z_0 is known) to exp(-F): the
weight is updated before the move.

Deviations: pixels of any number of levels, each level with a bias of its own; binary ones are the
usual units. Offsets m (the data's mean) and 1/2 centre both layers (Montavon and Mueller 2012,
https://arxiv.org/abs/1203.3783).
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from likely.data.spec import Dataset, DataSpec
from likely.density import EnergyBased, LogPartition, chunks
from likely.devices.precision import full_precision
from likely.heads import invert
from likely.models.boltzmann.settings import RBMSettings
from likely.noise import Noise

# Hidden units up to which Z is summed over all their states, and up to which samples are exact.
SUMMED, LISTED = 20, 12
# States that are summed at a time.
STATES = 4096


class RBM(EnergyBased):
    """The model; see the module's docstring.

    Args:
        spec: of the data, shape (C, H, W) or (D,).
        settings: sizes; `RBMSettings.preset(spec)` by default.
    """

    takes_vectors = True

    frequencies: Tensor
    offset: Tensor
    chains: Tensor

    def __init__(self, spec: DataSpec, settings: RBMSettings | None = None) -> None:
        super().__init__(spec, 0)
        self.settings = s = settings or RBMSettings.preset(spec)
        self.hidden = s.hidden
        pixels, above = spec.dimensions, spec.levels - 1
        self.weight = nn.Parameter(0.01 * torch.randn(pixels, s.hidden))
        # Of level 0 it is zero: only differences matter.
        self.bias = nn.Parameter(torch.zeros(pixels, above))
        self.hidden_bias = nn.Parameter(torch.zeros(s.hidden))
        # Logarithms of the frequencies of levels, against level 0, and mean scaled levels.
        self.register_buffer("frequencies", torch.zeros(pixels, above))
        self.register_buffer("offset", torch.full((pixels,), 0.5))
        self.register_buffer("chains", torch.zeros(s.chains, pixels, dtype=torch.int16))

    @torch.no_grad()
    def start_at(self, data: Dataset) -> None:
        """Start at independent pixels with the frequencies of the data, and chains at examples."""
        x = self.integers(torch.from_numpy(data.batch(slice(0, 10_000)).x.astype(np.int64)))
        flat, levels = x.flatten(1), self.spec.levels
        counts = torch.stack([(flat == level).sum(0) for level in range(levels)], 1).double()
        logs = (counts + 20.0 / levels).log()
        self.frequencies.copy_(logs[:, 1:] - logs[:, :1])
        self.offset.copy_(self._scaled(flat).mean(0))
        self.bias.copy_(self.frequencies)
        self.bias.add_(self._levels()[1:] * self.weight.sum(1, keepdim=True) / 2)
        every = torch.arange(len(self.chains), device=flat.device) % len(flat)
        self.chains.copy_(flat[every])

    # -- energies ----------------------------------------------------------------------------

    @full_precision
    def free_energy(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        flat = self.integers(x).flatten(1)
        table, bias = self._plain()
        return -_looked_up(table, flat) - softplus(self._scaled(flat) @ self.weight + bias).sum(1)

    @full_precision
    def energy(self, x: Tensor, h: Tensor) -> Tensor:
        flat = self.integers(x).flatten(1)
        table = nn.functional.pad(self.bias, (1, 0))
        s, h = self._scaled(flat), h.to(table.dtype)
        centred = ((s - self.offset) @ self.weight * (h - 0.5)).sum(1)
        # F leaves out what depends on neither.
        constant = 0.5 * (self.offset @ self.weight).sum()
        return -_looked_up(table, flat) - centred - h @ self.hidden_bias + constant

    def _plain(self) -> tuple[Tensor, Tensor]:
        """(b' of all levels [D, L], c' [hidden]) of the same machine without offsets."""
        table = nn.functional.pad(self.bias, (1, 0))
        table = table - self._levels() * self.weight.sum(1, keepdim=True) / 2
        return table, self.hidden_bias - self.offset @ self.weight

    def _levels(self) -> Tensor:
        """s of each level, [L]."""
        return torch.arange(self.spec.levels, device=self.device).to(self.weight.dtype) / (
            self.spec.levels - 1
        )

    def _scaled(self, flat: Tensor) -> Tensor:
        return flat.to(self.weight.dtype) / (self.spec.levels - 1)

    # -- chains ------------------------------------------------------------------------------

    def _hidden_given(self, scores: Tensor, noise: Noise) -> Tensor:
        """h of 0 and 1 from their logits [B, hidden]."""
        uniform = noise.uniform(*scores.shape, dtype=torch.float32)
        return (uniform < scores.sigmoid()).to(self.weight.dtype)

    def _pixels_given(self, table: Tensor, scores: Tensor, noise: Noise) -> Tensor:
        """Levels from their biases [D, L] and what the hidden units add to s = 1, [B, D]."""
        if self.spec.levels == 2:
            uniform = noise.uniform(*scores.shape, dtype=torch.float32)
            return (uniform < (table[:, 1] - table[:, 0] + scores).sigmoid()).long()
        log_table = (table + scores.unsqueeze(-1) * self._levels()).log_softmax(-1)
        return invert(log_table.transpose(1, 2), noise.uniform(*scores.shape))

    def _moved(
        self, flat: Tensor, table: Tensor, bias: Tensor, beta: float, noise: Noise
    ) -> Tensor:
        """One step of block Gibbs sampling of f_beta, whose pixel biases are in `table`."""
        h = self._hidden_given(beta * (self._scaled(flat) @ self.weight + bias), noise)
        return self._pixels_given(table, beta * (h @ self.weight.t()), noise)

    @torch.no_grad()
    @full_precision
    def advanced(self, x: Tensor, steps: int, noise: Noise) -> Tensor:
        table, bias = self._plain()
        flat = x.flatten(1)
        for _ in range(steps):
            flat = self._moved(flat, table, bias, 1.0, noise)
        return flat.reshape(-1, *self.spec.grid)

    @torch.no_grad()
    def negative(self, x: Tensor, steps: int, noise: Noise, *, persistent: bool) -> Tensor:
        if not persistent:
            return self.advanced(self.integers(x), steps, noise)
        # The same in every process that holds a part of the batch.
        (key,) = noise.pick(2**62)
        chains = self.chains.long().reshape(-1, *self.spec.grid)
        ends = self.advanced(chains, steps, Noise("chains", key, device=self.device))
        self.chains.copy_(ends.flatten(1))
        return ends

    def draw(self, noise: Noise, n: int, context: Tensor | None) -> Tensor:
        if self.draws_exactly:
            return self._drawn_exactly(noise, n)
        which = (noise.uniform(n) * len(self.chains)).long()
        start = self.chains.long()[which].reshape(-1, *self.spec.grid)
        return self.advanced(start, self.settings.gibbs, noise)

    def _drawn_exactly(self, noise: Noise, n: int) -> Tensor:
        """A hidden state from the table of all of them, then pixels."""
        states = self._states(0, 2**self.hidden)
        table, _ = self._plain()
        log_p = self._log_of_states(states).log_softmax(0)
        h = states[invert(log_p.expand(n, -1), noise.uniform(n))]
        return self._pixels_given(table, h @ self.weight.t(), noise).reshape(-1, *self.spec.grid)

    @property
    def draws_exactly(self) -> bool:
        return self.hidden <= LISTED

    # -- log Z -------------------------------------------------------------------------------

    @property
    def is_summed(self) -> bool:
        return self.hidden <= SUMMED

    @torch.no_grad()
    @full_precision
    def log_partition(self, noise: Noise, *, temperatures: int, chains: int) -> LogPartition:
        if self.is_summed:
            parts = [
                self._log_of_states(self._states(part.start, part.stop)).double().logsumexp(0)
                for part in chunks(2**self.hidden, STATES)
            ]
            value = float(torch.stack(parts).logsumexp(0))
            return LogPartition(value, 0.0, True, f"the sum over 2^{self.hidden} hidden states")
        weights = self.log_weights(noise, temperatures=temperatures, chains=chains)
        value = float(weights.logsumexp(0)) - math.log(chains)
        relative = (weights - value).exp()
        error = float(relative.std() / math.sqrt(chains)) if chains > 1 else math.inf
        about = f"annealed importance sampling, {temperatures:,} temperatures, {chains} chains"
        return LogPartition(value, error, False, about)

    @torch.no_grad()
    @full_precision
    def log_weights(
        self, noise: Noise, *, temperatures: int, chains: int, start: Tensor | None = None
    ) -> Tensor:
        table, bias = self._plain()
        base = nn.functional.pad(self.frequencies, (1, 0))
        zeros = torch.zeros(chains, len(base), dtype=base.dtype, device=base.device)
        betas = schedule(temperatures)
        if start is None:
            flat = self._pixels_given(base, zeros, noise)
        else:
            flat, betas = start.flatten(1), betas[::-1]
        total = torch.zeros(chains, dtype=torch.float64, device=base.device)
        for before, beta in itertools.pairwise(betas):
            scores = self._scaled(flat) @ self.weight + bias
            change = softplus(beta * scores).sum(1) - softplus(before * scores).sum(1)
            total += change + (beta - before) * _looked_up(table - base, flat)
            h = self._hidden_given(beta * scores, noise)
            biases = (1 - beta) * base + beta * table
            flat = self._pixels_given(biases, beta * (h @ self.weight.t()), noise)
        of_base = base.double().logsumexp(1).sum() + self.hidden * math.log(2.0)
        return of_base + (total if start is None else -total)

    def _states(self, first: int, last: int) -> Tensor:
        """Hidden states of these numbers, [S, hidden] of 0 and 1."""
        numbers = torch.arange(first, last, device=self.device)[:, None]
        places = torch.arange(self.hidden, device=self.device)
        return ((numbers >> places) & 1).to(self.weight.dtype)

    def _log_of_states(self, states: Tensor) -> Tensor:
        """log of the sum over all x of exp(-E(x, h)), [S]."""
        table, bias = self._plain()
        scores = states @ self.weight.t()  # [S, D]
        total = states @ bias
        for low in chunks(scores.shape[1], 64):
            each = table[low] + scores[:, low].unsqueeze(-1) * self._levels()
            total = total + each.logsumexp(-1).sum(1)
        return total

    # -- features ----------------------------------------------------------------------------

    @torch.no_grad()
    @full_precision
    def features(self, x: Tensor, context: Tensor | int | None = None) -> Tensor:
        """p(h = 1 | x) of each hidden unit, exactly, [B, hidden]."""
        _, bias = self._plain()
        return (self._scaled(self.integers(x).flatten(1)) @ self.weight + bias).sigmoid()

    @torch.no_grad()
    @full_precision
    def reconstruct(self, x: Tensor, context: Tensor | int | None = None) -> Tensor:
        """The mean of the pixels given the hidden units' means, rounded, int64 [B, *shape]."""
        table, _ = self._plain()
        scores = self.features(x) @ self.weight.t()
        shares = (table + scores.unsqueeze(-1) * self._levels()).softmax(-1)
        levels = torch.arange(self.spec.levels, device=x.device).to(shares.dtype)
        return self.as_data((shares @ levels).round().long().reshape(-1, *self.spec.grid))


def schedule(temperatures: int) -> list[float]:
    """b_0 = 0 ... b_T = 1, denser towards 1 (as Salakhutdinov and Murray 2008, sec. 4)."""
    places = np.linspace(0.0, 1.0, temperatures)
    betas: list[float] = np.interp(places, (0.0, 0.034, 0.31, 1.0), (0.0, 0.5, 0.9, 1.0)).tolist()
    return betas


def _looked_up(table: Tensor, flat: Tensor) -> Tensor:
    """sum over pixels of the table's entry [D, L] at their level, [B]."""
    if table.shape[1] == 2:
        return flat.to(table.dtype) @ (table[:, 1] - table[:, 0]) + table[:, 0].sum()
    return table.expand(len(flat), -1, -1).gather(2, flat.unsqueeze(-1)).sum((1, 2))
