r"""Hidden Markov model by EM (Baum et al. 1970; Rabiner 1989, https://doi.org/10.1109/5.18626).

    p(x_1..T) = sum over s_1..T of p(s_1) prod_t p(s_t | s_{t-1}) prod_k p(x_tk | s_t)

The sum over all paths is exact, by the forward algorithm: the state that is carried over time is
log p(s_t = . | x_<t). Columns are independent given the hidden state: a table of a category, of a
number with few levels, or of bins of a number with many, where all levels of a bin are equally
likely (the bins are quantiles of the training values, one beyond each end). What is missing is
summed over, so log p of any part of the values is exact, too.

The weights are the statistics that EM averages (`likely.density.statistics`): the expected number
of starts, moves and values in each state, per sequence. They are the gradient of log p(x) by the
log-probabilities (Fisher's identity), so that the backward pass is that of automatic
differentiation. An update on the whole data never lowers log p(data) + log p(weights), nor without
smoothing the likelihood.

Deviation: states start at random steps of the data, half-way to the mean, and at staying.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

from likely.data.sequences.dataset import Sequences
from likely.data.sequences.spec import MISSING
from likely.data.spec import Dataset, DataSpec
from likely.density import FillsGaps, HasExpectation, SequenceDensity, State, Steps
from likely.density.sequence.bins import Choose, Histogram
from likely.heads import invert
from likely.models.sequence.classical import HMMSettings
from likely.noise import Noise

STAY = 0.8  # probability with which a state stays, before the first update
TOGETHER = 40_000  # steps whose forward pass is kept for the backward one


class HMM(SequenceDensity, HasExpectation, FillsGaps):
    """Hidden Markov model; see the module's docstring.

    Args:
        spec: of sequences; the clock and covariates are not read.
        settings: sizes; `HMMSettings.preset(spec)` by default.
    """

    first: Tensor
    examples: Tensor

    def __init__(self, spec: DataSpec, settings: HMMSettings | None = None) -> None:
        super().__init__(spec)
        self.settings = settings or HMMSettings.preset(spec)
        states, columns = self.settings.states, self.spec.columns
        self.bins = [min(column.levels, self.settings.bins) for column in columns]
        # The lowest level of each bin, of all columns one after another.
        ranges = [
            torch.arange(bins) * column.levels // bins
            for bins, column in zip(self.bins, columns, strict=True)
        ]
        self.register_buffer("first", torch.cat(ranges))
        self.register_buffer("examples", torch.tensor(1000.0))
        counts = 0.5 + torch.rand(states, sum(self.bins))
        self.shares = nn.Parameter(torch.full((states,), 1.0 / states))  # p(s_1)
        self.moves = nn.Parameter(_staying(states))
        self.counts = nn.Parameter(counts)
        self._start = int(torch.randint(2**31, (), device="cpu"))
        self._leaves: tuple[Tensor, Tensor, Tensor] | None = None

    # -- the distributions -------------------------------------------------------------------

    def _logs(self) -> tuple[Tensor, Tensor, Tensor]:
        """log p(s_1) [S], log p(s' | s) [S, S], log p(bin | s) [S, all bins], float64."""
        if self._leaves is not None:
            return self._leaves
        prior = self.settings.smoothing / self.examples.double()
        shares, moves, counts = (
            p.abs().double() + torch.finfo(torch.float32).tiny
            for p in (self.shares, self.moves, self.counts)
        )
        shares = shares + prior / len(shares)
        moves = moves + prior / len(shares)
        owner = [k for k, bins in enumerate(self.bins) for _ in range(bins)]
        column = torch.tensor(owner, device=counts.device)
        sizes = torch.tensor(self.bins, dtype=torch.float64, device=counts.device)
        counts = counts + prior / sizes[column]
        sums = counts.new_zeros(len(shares), len(self.bins)).index_add(1, column, counts)
        return (
            (shares / shares.sum()).log(),
            (moves / moves.sum(1, keepdim=True)).log(),
            (counts / sums[:, column]).log(),
        )

    def _widths(self, k: int) -> Tensor:
        """Levels in each bin of a column."""
        part = self._part(k)
        end = part.new_tensor([self.spec.columns[k].levels])
        return torch.diff(torch.cat([part, end]))

    def _part(self, k: int) -> Tensor:
        begin = sum(self.bins[:k])
        return self.first[begin : begin + self.bins[k]]

    def _emissions(self, theta: Tensor, x: Tensor, known: Tensor) -> Tensor:
        """log p(x_t | s), [..., S]; x int64 [..., K], what is not known left out."""
        rows, widths, begin = [], [], 0
        for k, bins in enumerate(self.bins):
            at = torch.searchsorted(self._part(k), x[..., k].contiguous(), right=True) - 1
            rows.append(at + begin)
            widths.append(self._widths(k).double().log()[at])
            begin += bins
        weights = known.to(theta.dtype)
        index = torch.stack(rows, -1).flatten(0, -2)
        of_bins: Tensor = embedding_bag(
            index, theta.T, mode="sum", per_sample_weights=weights.flatten(0, -2)
        )
        width = (torch.stack(widths, -1) * weights).sum(-1, keepdim=True)
        return of_bins.reshape(*x.shape[:-1], -1) - width

    # -- over time ---------------------------------------------------------------------------

    def begin(self, n: int) -> State:
        return (self._logs()[0].expand(n, -1),)

    def scan(self, steps: Steps, state: State) -> tuple[Tensor, State]:
        """The forward algorithm."""
        _, log_moves, theta = self._logs()
        emissions, moves = self._emissions(theta, steps.x, steps.known), log_moves.exp()
        (ahead,), out = state, []
        for emission in emissions.unbind(1):
            joint = ahead + emission  # log p(s_t, x_t | x_<t)
            log_p = joint.logsumexp(1)
            ahead = ((joint - log_p[:, None]).exp() @ moves).log()
            out.append(log_p)
        return torch.stack(out, 1) * steps.scored, (ahead,)

    def next_step(
        self, state: State, context: Tensor | None, choose: Choose, known: Tensor
    ) -> tuple[Tensor, State]:
        """Columns in turn, each from the states that the ones before it leave."""
        _, log_moves, theta = self._logs()
        x, log_s, begin = torch.zeros_like(known, dtype=torch.int64), state[0], 0
        for k, bins in enumerate(self.bins):
            table = theta[:, begin : begin + bins]
            p = log_s.softmax(1) @ table.exp()  # [B, bins]
            column = Histogram(p, self._part(k), self.spec.columns[k].levels)
            x[:, k] = choose(k, column) * known[:, k]
            log_s = log_s + table.T[column.bin_of(x[:, k])] * known[:, k, None]
            begin += bins
        joint = state[0] + self._emissions(theta, x[:, None], known[:, None])[:, 0]
        posterior = (joint - joint.logsumexp(1, keepdim=True)).exp()
        return x, ((posterior @ log_moves.exp()).log(),)

    # -- a gap -----------------------------------------------------------------------------------

    fills_by = "forward filtering, backward sampling"

    def fill(self, steps: Steps, n: int, noise: Noise) -> Tensor:
        """A path of states from the last back to the first, and the missing values given it."""
        _, log_moves, theta = self._logs()
        moves, ahead = log_moves.exp(), self.begin(len(steps.x))[0]
        filtered = []
        for emission in self._emissions(theta, steps.x, steps.known).unbind(1):
            filtered.append((ahead + emission).log_softmax(1))  # log p(s_t | x_<=t)
            ahead = (filtered[-1].exp() @ moves).log()
        path: list[Tensor] = []
        for log_s in reversed(filtered):
            log_p = log_s[:, None].expand(-1, n, -1)
            if path:
                log_p = (log_p + log_moves.T[path[-1]]).log_softmax(2)
            uniform = noise.uniform(*log_p.shape[:2])
            path.append(invert(log_p.flatten(0, 1), uniform.flatten()).view(uniform.shape))
        states = torch.stack(path[::-1], 2)  # [B, n, T]
        out, begin = [], 0
        for k, bins in enumerate(self.bins):
            p = theta[:, begin : begin + bins].exp()[states.flatten()]
            column = Histogram(p, self._part(k), self.spec.columns[k].levels)
            out.append(column.quantile(noise.uniform(len(p))).view(states.shape))
            begin += bins
        return torch.stack(out, 3)

    # -- EM ----------------------------------------------------------------------------------

    def expectation(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weights = (self.shares, self.moves, self.counts)
        with torch.no_grad():
            leaves = tuple(log.detach() for log in self._logs())
        log_p = torch.zeros(len(x), dtype=torch.float64, device=self.device)
        totals = [torch.zeros_like(leaf) for leaf in leaves]
        order = torch.argsort((x[..., 0] != -1).sum(1))  # little is padded
        size = max(1, TOGETHER // max(1, x.shape[1]))
        for first in range(0, len(x), size):
            rows = order[first : first + size]
            self._leaves = cast(
                tuple[Tensor, Tensor, Tensor],
                tuple(leaf.clone().requires_grad_() for leaf in leaves),
            )
            try:
                with torch.enable_grad():
                    scores = self._whole(x[rows])
                    # Sequences of one step have no moves.
                    expected = torch.autograd.grad(
                        scores.sum(), self._leaves, materialize_grads=True
                    )
            finally:
                self._leaves = None
            log_p[rows] = scores.detach()
            totals = [total + part for total, part in zip(totals, expected, strict=True)]
        match = sum(
            0.5 * w.square().sum() - (w * (total / len(x)).to(w)).sum()
            for w, total in zip(weights, totals, strict=True)
        )
        return log_p, cast(Tensor, match).expand(len(x))

    def _whole(self, x: Tensor) -> Tensor:
        """log p of each sequence, its lead included, [B]."""
        lead = (x <= -2) & (x > MISSING)
        every = torch.where(lead, -2 - x, x.clamp(min=MISSING))
        width = self.context_size
        known = None if not width else every.new_zeros(*x.shape[:2], width, dtype=torch.float64)
        return self.per_step(every, known).sum(1)

    @torch.no_grad()
    def start_at(self, data: Dataset) -> None:
        """Bins at quantiles; states at random steps, half-way to the mean."""
        sequences = cast(Sequences, data)
        values = torch.from_numpy(sequences.values.astype("int64"))
        self.examples.fill_(len(data))
        states, length = self.settings.states, len(values) / max(1, len(data))
        noise, begin = Noise(self._start, "start"), 0
        picked = (noise.uniform(states) * len(values)).long()
        for k, (bins, column) in enumerate(zip(self.bins, self.spec.columns, strict=True)):
            part, known = values[:, k], values[:, k] >= 0
            if bins < column.levels:
                self._part(k).copy_(_quantile_bins(part[known], bins, column.levels))
            at = torch.searchsorted(self._part(k).cpu(), part.clamp(min=0), right=True) - 1
            share = torch.bincount(at[known], minlength=bins).double() + 1.0 / bins
            share = (share / share.sum()).expand(states, -1).clone()
            seen = known[picked]
            share[seen] *= 0.5
            share[seen, at[picked][seen]] += 0.5
            self.counts[:, begin : begin + bins] = (share * length / states).to(self.counts)
            begin += bins
        self.shares.fill_(1 / states)
        self.moves.copy_(_staying(states) * length / states)


def _staying(states: int) -> Tensor:
    if states == 1:
        return torch.ones(1, 1)
    moves = torch.full((states, states), (1 - STAY) / (states - 1))
    return moves.fill_diagonal_(STAY)


def _quantile_bins(values: Tensor, bins: int, levels: int) -> Tensor:
    """The lowest levels of bins of about equally many values, int64 [bins], ascending from 0.

    The first and the last bin hold what no value is in, where there is room below and above.
    """
    low, high = (int(values.min()), int(values.max())) if len(values) else (0, levels - 1)
    inner = bins - 2
    if len(values):
        place = torch.linspace(0, 1, inner + 1, dtype=torch.float64)[:-1] * len(values)
        edges = values.sort().values[place.long()].tolist()
    else:
        edges = []
    chosen = {0, low, *edges, min(high + 1, levels - 1)}
    while len(chosen) < bins:  # the widest is halved
        ordered = sorted(chosen)
        ends = [*ordered[1:], levels]
        width, start = max((end - a, a) for a, end in zip(ordered, ends, strict=True))
        chosen.add(start + width // 2)
    return torch.tensor(sorted(chosen)[:bins])
