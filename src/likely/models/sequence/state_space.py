r"""Linear-Gaussian state space, its likelihood by the Kalman filter.

Kalman 1960, https://doi.org/10.1115/1.3662552; the first weights by subspaces, as in Van Overschee
and De Moor 1994, https://doi.org/10.1016/0005-1098(94)90230-5.

    z_1 ~ N(0, P_1),  z_{t+1} = A z_t + w_t,  w ~ N(0, Q)
    y_t = b + D c_t + C z_t + v_t,            v ~ N(0, R), R diagonal

The filter gives p(y_t | y_<t) = N(m, S), exactly; with S = L L', column k given those before it has
mean m_k + sum_{j<k} L_kj e_j and standard deviation L_kk, e = L^-1 (y - m). The probability of an
integer is the mass of that Gaussian over its level, the integers before it read as real numbers:
for levels that are fine beside the noise it is the density (`log_density`) times their width. What
is missing is left out of the filter: summed over.

The fit starts where a regression of the next steps on the last ones, cut to the rank of the state,
puts A and C, and goes on by the gradient of the likelihood.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from likely.data.sequences.dataset import Sequences
from likely.data.spec import Dataset, DataSpec
from likely.density import FillsGaps, State, Steps, chunks
from likely.density.sequence.bins import Bins, Choose, Components
from likely.models.sequence.classical import StateSpaceSettings
from likely.models.sequence.standardised import Standardised
from likely.noise import Noise

JITTER = 1e-9
LAGS = 24  # steps that the first weights are found from


class StateSpace(Standardised, FillsGaps):
    """Linear-Gaussian state space; see the module's docstring.

    Args:
        spec: of sequences; every column counts as a number.
        settings: sizes; `StateSpaceSettings.preset(spec)` by default.
    """

    def __init__(self, spec: DataSpec, settings: StateSpaceSettings | None = None) -> None:
        super().__init__(spec)
        self.settings = settings or StateSpaceSettings.preset(spec)
        width, size = len(self.spec.columns), self.settings.latent
        self.transition = nn.Parameter(0.8 * torch.eye(size) + 0.02 * torch.randn(size, size))
        self.process_root = nn.Parameter(0.5 * torch.eye(size))  # of Q, lower triangular
        self.first_root = nn.Parameter(torch.eye(size))  # of P_1
        self.readout = nn.Parameter(torch.randn(width, size) / math.sqrt(size))  # C
        self.offset = nn.Parameter(torch.zeros(width, 1 + self.context_size))  # b, D
        self.log_scale = nn.Parameter(torch.full((width,), -1.0))  # log of the root of R

    # -- the filter --------------------------------------------------------------------------

    def begin(self, n: int) -> State:
        root = self.first_root.double().tril()
        first = root @ root.T + JITTER * torch.eye(len(root)).to(root)
        return root.new_zeros(n, len(root)), first.expand(n, -1, -1)

    def scan(self, steps: Steps, state: State) -> tuple[Tensor, State]:
        y = self.standardised(steps.x)
        mean, scale, state = self._filtered(y, steps.known, steps.context, state)
        total = torch.zeros(steps.scored.shape, dtype=torch.float64, device=self.device)
        for k in range(len(self.spec.columns)):
            column = self._column(k, mean[..., k], scale[..., k])
            total = total + column.log_prob(steps.x[..., k]) * steps.known[..., k]
        return total * steps.scored, state

    def log_density(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        """log of the density of real numbers in levels, nats, float64 [B]; y [B, T, K]."""
        deviation = self.deviation.double()
        whole = self.known_context(context, *y.shape[:2])
        centred = (y.double() - self.mean.double()) / deviation
        seen = torch.ones_like(centred, dtype=torch.bool)
        mean, scale, _ = self._filtered(centred, seen, whole, self.begin(len(y)))
        each = -0.5 * ((centred - mean) / scale).square() - (scale * deviation).log()
        return (each - 0.5 * math.log(2 * math.pi)).sum((1, 2))

    def next_step(
        self, state: State, context: Tensor | None, choose: Choose, known: Tensor
    ) -> tuple[Tensor, State]:
        base = self._base(context if context is None else context[:, None])
        mean, root, gain = self._ahead(state, known, base[:, 0])
        x = torch.zeros_like(known, dtype=torch.int64)
        whitened = torch.zeros_like(mean)
        for k in range(len(self.spec.columns)):
            centre = mean[:, k] + (root[:, k, :k] * whitened[:, :k]).sum(1)
            x[:, k] = choose(k, self._column(k, centre, root[:, k, k])) * known[:, k]
            y = (x[:, k] - self.mean[k].double()) / self.deviation[k].double()
            whitened[:, k] = (y - centre) / root[:, k, k] * known[:, k]
        return x, self._moved(self._updated(state, gain, whitened))

    def _filtered(
        self, y: Tensor, known: Tensor, context: Tensor | None, state: State
    ) -> tuple[Tensor, Tensor, State]:
        """Mean and standard deviation of each column given all before it, [B, T, K] each."""
        base = self._base(context).expand(*y.shape[:2], -1)
        means, scales = [], []
        for t in range(y.shape[1]):
            mean, root, gain = self._ahead(state, known[:, t], base[:, t])
            rest = ((y[:, t] - mean) * known[:, t])[..., None]
            whitened = torch.linalg.solve_triangular(root, rest, upper=False)[..., 0]
            scale = root.diagonal(dim1=1, dim2=2)
            means.append(y[:, t] - scale * whitened)
            scales.append(scale)
            state = self._moved(self._updated(state, gain, whitened))
        return torch.stack(means, 1), torch.stack(scales, 1), state

    def _ahead(self, state: State, known: Tensor, base: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of the next step: mean [B, K], the root of its covariance, P C' L^-T [B, Z, K]."""
        latent, covariance = state
        readout = self.readout.double()
        seen = readout * known[..., None]  # [B, K, Z]
        # A missing value reads nothing of the state, with a variance that does not matter.
        noise = torch.where(known, self._variance(), torch.ones_like(base))
        across = covariance @ seen.transpose(1, 2)  # P C', [B, Z, K]
        root = torch.linalg.cholesky(seen @ across + torch.diag_embed(noise))
        gain = torch.linalg.solve_triangular(root, across.transpose(1, 2), upper=False)
        return base + latent @ readout.T, root, gain.transpose(1, 2)

    def _updated(self, state: State, gain: Tensor, whitened: Tensor) -> State:
        """Mean and covariance of z_t after the step was seen."""
        latent, covariance = state
        latent = latent + (gain @ whitened[..., None])[..., 0]
        return latent, covariance - gain @ gain.transpose(1, 2)

    def _moved(self, state: State) -> State:
        """Of z_{t+1}, from those of z_t."""
        latent, covariance = state
        move, root = self.transition.double(), self.process_root.double().tril()
        covariance = move @ covariance @ move.T + root @ root.T
        covariance = 0.5 * (covariance + covariance.transpose(1, 2))
        return latent @ move.T, covariance + JITTER * torch.eye(len(move)).to(move)

    def _variance(self) -> Tensor:
        # At least what lies within a level.
        least = 0.02 / self.deviation.double()
        return self.log_scale.double().exp().square() + least.square()

    def _base(self, context: Tensor | None) -> Tensor:
        """b + D c_t, [B, T, K], or [1, 1, K]."""
        offset = self.offset.double()
        if context is None:
            return offset[None, None, :, 0]
        return offset[:, 0] + context.double() @ offset[:, 1:].T

    def _column(self, k: int, mean: Tensor, scale: Tensor) -> Bins:
        deviation = self.deviation[k].double()
        centre = (self.mean[k].double() + deviation * mean)[..., None]
        mixture = Components(torch.zeros_like(centre), centre, (deviation * scale)[..., None])
        return Bins(self.spec.columns[k].levels, mixture, "gaussian")

    # -- a gap -----------------------------------------------------------------------------------

    fills_by = "a draw of the Kalman smoother, rounded to the levels"

    def fill(self, steps: Steps, n: int, noise: Noise) -> Tensor:
        """Forward filter, backward draws of z, and the missing values given them."""
        y = self.standardised(steps.x)
        base = self._base(steps.context).expand(*y.shape[:2], -1)
        state, means, covariances = self.begin(len(y)), [], []
        for t in range(y.shape[1]):
            mean, root, gain = self._ahead(state, steps.known[:, t], base[:, t])
            rest = ((y[:, t] - mean) * steps.known[:, t])[..., None]
            whitened = torch.linalg.solve_triangular(root, rest, upper=False)[..., 0]
            state = self._updated(state, gain, whitened)
            means.append(state[0])
            covariances.append(state[1])
            state = self._moved(state)
        mean, covariance = torch.stack(means, 1), torch.stack(covariances, 1)  # of z_t | y_<=t
        move, root = self.transition.double(), self.process_root.double().tril()
        eye = torch.eye(len(move)).to(move)
        process = root @ root.T + JITTER * eye
        ahead = covariance @ move.T  # [B, T, Z, Z]
        back = torch.linalg.solve(move @ ahead + process, ahead.transpose(2, 3)).transpose(2, 3)
        left = eye - back @ move
        spread = left @ covariance @ left.transpose(2, 3) + back @ process @ back.transpose(2, 3)
        spread[:, -1] = covariance[:, -1]
        roots = torch.linalg.cholesky(0.5 * (spread + spread.transpose(2, 3)) + JITTER * eye)
        latent = mean[:, -1, None] + self._around(roots[:, -1], n, noise)  # [B, n, Z]
        drawn = [latent]
        for t in range(y.shape[1] - 2, -1, -1):
            off = latent - (mean[:, t] @ move.T)[:, None]
            latent = mean[:, t, None] + off @ back[:, t].transpose(1, 2)
            latent = latent + self._around(roots[:, t], n, noise)
            drawn.append(latent)
        values = base[:, None] + torch.stack(drawn[::-1], 2) @ self.readout.double().T
        noises = noise.normal(*values.shape, dtype=torch.float64)
        values = values + noises.to(values) * self._variance().sqrt()
        levels = torch.tensor([c.levels for c in self.spec.columns], device=y.device)
        whole = (self.mean.double() + self.deviation.double() * values).round().long()
        return whole.clamp(min=torch.zeros_like(levels), max=levels - 1)

    @staticmethod
    def _around(root: Tensor, n: int, noise: Noise) -> Tensor:
        """Gaussian draws around 0, [B, n, Z]."""
        normal = noise.normal(len(root), n, root.shape[1], dtype=torch.float64).to(root)
        return normal @ root.transpose(1, 2)

    # -- the first weights -------------------------------------------------------------------

    @torch.no_grad()
    def start_at(self, data: Dataset) -> None:
        """A reduced regression of what follows on what was; see the module's docstring."""
        sequences = cast(Sequences, data)
        self.standardise(sequences)
        series = self._residuals(sequences)
        size, width = self.settings.latent, len(self.spec.columns)
        lags = max(1, min(LAGS, 400 // width, max(map(len, series)) // 3))
        windows = [s.unfold(0, 2 * lags, 1).transpose(1, 2) for s in series if len(s) > 2 * lags]
        if sum(map(len, windows)) < 2 * size:
            return
        stacked = torch.cat([w.flatten(1) for w in windows])  # [M, 2 lags K], oldest first
        past, future = stacked[:, : lags * width], stacked[:, lags * width :]
        coefficients = _regression(past, future)
        _, _, directions = torch.linalg.svd(past @ coefficients, full_matrices=False)
        project = coefficients @ directions[:size].T  # [lags K, at most Z]
        scale = (past @ project).std(0).clamp(min=1e-6)
        pairs: list[tuple[Tensor, Tensor, Tensor]] = []
        for s in series:
            if len(s) > lags:
                z = s.unfold(0, lags, 1).transpose(1, 2).flatten(1) @ project / scale
                pairs.append((z[:-1], z[1:], s[lags - 1 : -1]))
        now, then, seen = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        move, read = _regression(now, then).T, _regression(now, seen).T
        rank = now.shape[1]
        eye = 1e-3 * torch.eye(rank).to(now)
        self.transition[:rank, :rank] = move.to(self.transition)
        self.readout.zero_()
        self.readout[:, :rank] = read.to(self.readout)
        for weight, rest in ((self.process_root, then - now @ move.T), (self.first_root, now)):
            root = torch.linalg.cholesky(rest.T @ rest / len(rest) + eye)
            weight[:rank, :rank] = root.to(weight)
        error = (seen - now @ read.T).square().mean(0).clamp(min=1e-4)
        self.log_scale.copy_((0.5 * error.log()).to(self.log_scale))

    def _residuals(self, data: Sequences) -> list[Tensor]:
        """Standardised sequences less b + D c, which are set by least squares; [T, K] each."""
        series, contexts = [], []
        for rows in chunks(len(data), data.together):
            batch = data.batch(rows)
            steps = self.steps(torch.from_numpy(batch.x), self.batch_context(batch))
            y = self.standardised(steps.x) * steps.known
            for row, length in enumerate((batch.x[:, :, 0] != -1).sum(1)):
                context = y.new_ones(int(length), 1)
                if steps.context is not None:
                    context = torch.cat([context, steps.context[row, :length].double()], 1)
                series.append(y[row, :length])
                contexts.append(context)
        offset = _regression(torch.cat(contexts), torch.cat(series))
        self.offset.copy_(offset.T.to(self.offset))
        return [s - c @ offset for s, c in zip(series, contexts, strict=True)]


def _regression(x: Tensor, y: Tensor) -> Tensor:
    """Least squares with a small ridge, [inputs, outputs]."""
    ridge = (1e-4 * len(x) + 1e-6) * torch.eye(x.shape[1]).to(x)
    coefficients: Tensor = torch.linalg.solve(x.T @ x + ridge, x.T @ y)
    return coefficients
