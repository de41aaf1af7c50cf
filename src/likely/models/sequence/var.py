r"""Vector autoregression with Student-t noise on the lattice of each column.

Sims 1980, https://doi.org/10.2307/1912017; noise and its fit as in Lange, Little and Taylor 1989,
https://doi.org/10.1080/01621459.1989.10478852.

    x_tk = b_k + sum_l A_l x_{t-l} + D c_t + sum_{j<k} L_kj x_tj + noise_k

Columns in turn: the noise of a step is correlated through the columns that come first (a triangular
L), so that the step has a joint distribution. c_t is what is known of the step: the place on the
clock, covariates. The noise of a column is a mixture of Student-t distributions (4 degrees of
freedom) of different scales; P(x_tk) is its mass over the level, so log p(x) is that of integers.

The fit is in closed form but for its weights: EM of the scale mixture, each round of which is a
weighted least squares with a ridge, before the first update (`start_at`). It is of the density at
the middle of each level with the variance 1/12 within it added; gradient updates (more steps of
`likely fit`) would maximise the probabilities themselves. More than 32 columns, as 88 keys, have
one round of least squares.

Every column counts as a number, a category by its position. A missing value is predicted from as
the last one known.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from likely.data.sequences.dataset import Sequences
from likely.data.spec import Dataset, DataSpec
from likely.density import State, Steps, chunks
from likely.density.sequence.bins import Bins, Choose, Components
from likely.models.sequence.classical import VARSettings
from likely.models.sequence.standardised import Standardised

DEGREES = 4.0  # of freedom, of the noise
WITHIN = 1 / 12  # variance within a level
MANY = 32  # columns


class VAR(Standardised):
    """Vector autoregression; see the module's docstring.

    Args:
        spec: of sequences.
        settings: sizes; `VARSettings.preset(spec)` by default.
    """

    def __init__(self, spec: DataSpec, settings: VARSettings | None = None) -> None:
        super().__init__(spec)
        self.settings = settings or VARSettings.preset(spec)
        width, components = len(self.spec.columns), self.settings.components
        # Of standardised values: 1, context, lags from the oldest, columns of the step.
        self.known_before = 1 + self.context_size + width * self.settings.lags
        self.weight = nn.Parameter(0.02 * torch.randn(width, self.known_before + width))
        self.log_weight = nn.Parameter(torch.zeros(width, components))
        spread = torch.linspace(-1.0, 1.0, components) if components > 1 else torch.zeros(1)
        self.log_scale = nn.Parameter(spread.repeat(width, 1))  # in deviations of the column

    # -- over time ---------------------------------------------------------------------------

    def begin(self, n: int) -> State:
        """No steps before: at their mean."""
        shape = (n, self.settings.lags, len(self.spec.columns))
        return (torch.zeros(shape, dtype=torch.float64, device=self.device),)

    def scan(self, steps: Steps, state: State) -> tuple[Tensor, State]:
        before, now, history = self._features(steps, state)
        mean = before @ self._before().T + now @ self._within().T
        out = torch.zeros(steps.scored.shape, dtype=torch.float64, device=self.device)
        for k in range(len(self.spec.columns)):
            column = self._column(k, mean[..., k])
            out = out + column.log_prob(steps.x[..., k]) * steps.known[..., k]
        return out * steps.scored, (history,)

    def next_step(
        self, state: State, context: Tensor | None, choose: Choose, known: Tensor
    ) -> tuple[Tensor, State]:
        (history,) = state
        told = None if context is None else context[:, None]
        before = self._before_step(history[:, None], told)[:, 0]
        mean, within = before @ self._before().T, self._within()
        x, now = torch.zeros_like(known, dtype=torch.int64), history[:, -1].clone()
        for k in range(len(self.spec.columns)):
            x[:, k] = choose(k, self._column(k, mean[:, k] + now @ within[k])) * known[:, k]
            value = (x[:, k] - self.mean[k].double()) / self.deviation[k].double()
            # The last known value stands for one that is not.
            now[:, k] = value.where(known[:, k], now[:, k])
        return x, (torch.cat([history[:, 1:], now[:, None]], 1),)

    def _before(self) -> Tensor:
        return self.weight[:, : self.known_before].double()

    def _within(self) -> Tensor:
        """L, strictly below the diagonal."""
        return self.weight[:, self.known_before :].double().tril(-1)

    def _features(self, steps: Steps, state: State) -> tuple[Tensor, Tensor, Tensor]:
        """(what comes before each step [B, T, F], the step [B, T, K], the last lags)."""
        (history,) = state
        y = self.standardised(steps.x)
        place = torch.arange(1, y.shape[1] + 1, device=y.device)[:, None] * steps.known
        # The last known value, at 0 that of the steps before.
        y = torch.cat([history[:, -1:], y], 1).gather(1, place.cummax(1).values)
        whole = torch.cat([history, y], 1)
        lags = whole.unfold(1, history.shape[1], 1)[:, : y.shape[1]].transpose(2, 3)
        return (
            self._before_step(lags, steps.context),
            y,
            whole[:, whole.shape[1] - len(history[0]) :],
        )

    def _before_step(self, lags: Tensor, context: Tensor | None) -> Tensor:
        """Features of steps [B, T, F] from lags [B, T, lags, K]."""
        parts = [torch.ones_like(lags[:, :, 0, :1])]
        parts += [] if context is None else [context.double()]
        return torch.cat([*parts, lags.flatten(2)], 2)

    def _column(self, k: int, mean: Tensor) -> Bins:
        """The distribution of column k around standardised means [...]."""
        deviation = self.deviation[k].double()
        centre = self.mean[k].double() + deviation * mean
        scale = (self.log_scale[k].double().exp() * deviation).clamp(min=0.02)
        log_weight = self.log_weight[k].double().log_softmax(0)
        mixture = Components(log_weight, centre[..., None], scale)
        return Bins(self.spec.columns[k].levels, mixture, "student-t")

    # -- the fit -----------------------------------------------------------------------------

    @torch.no_grad()
    def start_at(self, data: Dataset) -> None:
        """The fit of the module's docstring."""
        sequences = cast(Sequences, data)
        self.standardise(sequences)
        width = len(self.spec.columns)
        self.weight.zero_()
        noises = [self._first_noise(sequences, k) for k in range(width)] if width <= MANY else []
        rounds = self.settings.rounds if width <= MANY else 0
        self._solve(sequences, [None] * width)
        for number in range(rounds + 1):
            noises = self._noises(sequences, noises, again=1 if number < rounds else 10)
            if number < rounds:
                self._solve(sequences, noises)
        for k, (share, square) in enumerate(noises):
            self.log_weight[k] = share.clamp(min=1e-6).log()
            self.log_scale[k] = 0.5 * (square.log()) - self.deviation[k].double().log()

    def _first_noise(self, data: Sequences, k: int) -> tuple[Tensor, Tensor]:
        """(shares, squared scales in levels) of the components."""
        spread = torch.linspace(-1.5, 1.0, self.settings.components, dtype=torch.float64)
        square = (spread.exp() * self.deviation[k].double() * 0.3) ** 2 + WITHIN
        return torch.full_like(square, 1 / len(square)), square

    def _pieces(self, data: Sequences) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """(features before [M, F], values [M, K], known [M, K]) of some sequences at a time."""
        for rows in chunks(len(data), data.together):
            batch = data.batch(rows)
            steps = self.steps(torch.from_numpy(batch.x), self.batch_context(batch))
            before, now, _ = self._features(steps, self.begin(len(batch.x)))
            yield before.flatten(0, 1), now.flatten(0, 1), steps.known.flatten(0, 1)

    def _solve(self, data: Sequences, noises: list[tuple[Tensor, Tensor]] | list[None]) -> None:
        """Weighted least squares of each column; of equal weights without a noise."""
        width, size = len(self.spec.columns), self.weight.shape[1]
        shared = noises[0] is None
        grams = torch.zeros(1 if shared else width, size, size, dtype=torch.float64)
        grams = grams.to(self.device)
        right = torch.zeros(width, size, dtype=torch.float64, device=self.device)
        for before, now, known in self._pieces(data):
            every = torch.cat([before, now], 1)
            if shared:
                rows = every * known.any(1, keepdim=True)
                grams[0] += rows.T @ rows
                right += now.T @ rows
                continue
            mean = before @ self._before().T + now @ self._within().T
            for k, noise in enumerate(noises):
                assert noise is not None
                residual = (now[:, k] - mean[:, k]) * self.deviation[k].double()
                _, weight = _weights(residual, noise)
                weighted = every * (weight * known[:, k])[:, None]
                grams[k] += weighted.T @ every
                right[k] += now[:, k] @ weighted
        for k in range(width):
            gram, used = grams[0 if shared else k], self.known_before + k
            # The first feature is 1: its own product is the sum of the weights.
            total = float(gram[0, 0]) / max(1, int((data.values[:, k] >= 0).sum()))
            penalty = self.settings.ridge * max(total, 1e-12) + 1e-9
            inner = gram[:used, :used] + penalty * torch.eye(used).to(gram)
            self.weight[k, :used] = torch.linalg.solve(inner, right[k, :used]).to(self.weight)

    def _noises(
        self, data: Sequences, noises: list[tuple[Tensor, Tensor]], again: int
    ) -> list[tuple[Tensor, Tensor]]:
        """Steps of EM of the noise of each column, the coefficients fixed."""
        residuals: list[list[Tensor]] = [[] for _ in self.spec.columns]
        for before, now, known in self._pieces(data):
            mean = before @ self._before().T + now @ self._within().T
            for k, column in enumerate(residuals):
                rest = (now[:, k] - mean[:, k])[known[:, k]]
                column.append(rest * self.deviation[k].double())
        out = []
        for k, parts in enumerate(residuals):
            residual = torch.cat(parts)
            noise = noises[k] if noises else self._first_noise(data, k)
            for _ in range(again):
                if not len(residual):
                    break
                shares, _ = _weights(residual, noise)
                square = residual.square()[:, None] + WITHIN
                pull = shares * (DEGREES + 1) / (DEGREES + square / noise[1])
                total = shares.sum(0)
                noise = (
                    total / len(residual),
                    ((pull * square).sum(0) / total.clamp(min=1e-9)).clamp(min=1e-3),
                )
            out.append(noise)
        return out


def _weights(residual: Tensor, noise: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """p(component | residual) [M, C], and the weight of each residual in least squares [M]."""
    share, square = noise
    distance = (residual.square()[:, None] + WITHIN) / square
    log_p = share.clamp(min=1e-12).log() - 0.5 * square.log()
    log_p = log_p - (DEGREES + 1) / 2 * torch.log1p(distance / DEGREES)
    shares = log_p.softmax(1)
    return shares, (shares * (DEGREES + 1) / (DEGREES + distance) / square).sum(1)
