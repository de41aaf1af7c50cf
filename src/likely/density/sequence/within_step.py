r"""p(x_t | state): the columns of one step, given what a body makes of the steps before.

What pays in music and in measurements alike is a joint head within the step:

- `Keys`, all columns binary, as 88 keys: NADE (Larochelle and Murray 2011,
  https://proceedings.mlr.press/v15/larochelle11a.html) whose biases are linear in the state, as in
  the RNN-NADE of Boulanger-Lewandowski, Bengio and Vincent 2012, https://arxiv.org/abs/1206.6392.
  p(key k) = sigma(b_k(h) + V_k g(c(h) + sum of W_j over the keys j < k that are on)). Between two
  keys that are on, the hidden units do not change: they are computed once for each of those, by
  dense products, instead of once a key. With `likely.density.sequence.neighbours` the keys around
  each, by weights that all keys share, add to its logit.
- `Turns`, any columns: one after another, each given the state and the columns before it. A number
  on a lattice has a mixture of logistic or Student-t components over the bins, around its last
  value; a category a softmax; an angle a mixture of von Mises densities over the bins of a circle.
"""

from __future__ import annotations

import abc
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, one_hot, softplus

from likely.data.sequences.spec import Column, SequenceSpec
from likely.density.sequence.bins import (
    Binary,
    Bins,
    Choose,
    ColumnDensity,
    Components,
    Family,
    Table,
    quantiles,
)
from likely.density.sequence.neighbours import Neighbours

# Scales are kept between these, in the spread of a column's differences.
FLOOR, CEILING = 1e-4, 1e4
LEAST_BIN = 0.02  # and at least so many steps of the lattice: finer is all in one bin
FAR = 20.0  # standard deviations to which inputs are cut


class Past(NamedTuple):
    """What the columns of a step are predicted from.

    Attributes:
        state: what the body made of the steps before, [M, H].
        last: the step before, int64 [M, K].
        last_known: which of its values are known, bool [M, K].
        traces: of the steps before, where the density reads them, [M, R, K].
    """

    state: Tensor
    last: Tensor
    last_known: Tensor
    traces: Tensor | None = None


class Features(nn.Module):
    """Values as numbers that a network takes: one of each category, a number with whether it is
    known, sine and cosine of an angle.

    Attributes:
        size: numbers of a step.
        mean, deviation, spread: of each column and of its differences over the training data, in
            levels, [K]; set by `start_at`.
    """

    mean: Tensor
    deviation: Tensor
    spread: Tensor

    def __init__(self, spec: SequenceSpec) -> None:
        super().__init__()
        self.columns = spec.columns
        self.binary = all(column.kind == "binary" for column in spec.columns)
        levels = torch.tensor([float(c.levels) for c in spec.columns])
        self.register_buffer("mean", levels / 2)
        self.register_buffer("deviation", (levels / 6).clamp(min=0.5))
        self.register_buffer("spread", (levels / 12).clamp(min=0.5))
        self.sizes = [_size(column) for column in spec.columns]
        self.size = sum(self.sizes)

    def start_at(self, x: Tensor, known: Tensor) -> None:
        """Mean and spread of the training data; x int64 [T, K], known bool [T, K]."""
        for k in range(x.shape[1]):
            values = x[known[:, k], k].double()
            both = known[1:, k] & known[:-1, k]
            moves = (x[1:, k] - x[:-1, k])[both].double()
            if len(values) > 1:
                self.mean[k] = values.mean()
                self.deviation[k] = values.std().clamp(min=0.5)
                # Half of the interquartile range would be 0 where most steps repeat.
                self.spread[k] = moves.std().clamp(min=0.1) if len(moves) > 1 else self.deviation[k]

    def __call__(self, x: Tensor, known: Tensor, first: int = 0, stop: int | None = None) -> Tensor:
        """As `forward`."""
        out: Tensor = super().__call__(x, known, first, stop)
        return out

    def forward(self, x: Tensor, known: Tensor, first: int = 0, stop: int | None = None) -> Tensor:
        """Columns [first, stop) of x [..., stop - first], as floats [..., size]."""
        stop = len(self.columns) if stop is None else stop
        dtype = self.mean.dtype
        parts = [x.new_zeros((*x.shape[:-1], 0), dtype=dtype)]
        if self.binary:
            return (2 * x - 1).to(dtype) * known
        for k in range(first, stop):
            column, value, seen = self.columns[k], x[..., k - first], known[..., k - first]
            if column.kind in ("lattice", "continuous"):
                number = (value.to(dtype) - self.mean[k]) / self.deviation[k]
                parts.append(torch.stack([number.clamp(-FAR, FAR) * seen, seen.to(dtype)], -1))
            elif column.kind == "angle":
                angle = value.to(dtype) * (2 * math.pi / column.levels)
                parts.append(torch.stack([angle.sin(), angle.cos()], -1) * seen[..., None])
            elif column.kind == "binary":
                parts.append(((2 * value - 1).to(dtype) * seen)[..., None])
            else:
                parts.append(one_hot(value, column.levels).to(dtype) * seen[..., None])
        return torch.cat(parts, -1)


def _size(column: Column) -> int:
    if column.kind == "categorical":
        return column.levels
    return 1 if column.kind == "binary" else 2


class StepDensity(nn.Module, abc.ABC):
    """p of the columns of a step."""

    @abc.abstractmethod
    def log_prob(self, past: Past, x: Tensor, known: Tensor) -> Tensor:
        """log p of the columns that are known, nats, float64 [M]; x int64 [M, K]."""

    @abc.abstractmethod
    def turns(self, past: Past, choose: Choose, known: Tensor) -> Tensor:
        """The columns one after another, each as `choose` says, int64 [M, K].

        `known` bool [M, K]: what is not stays 0 and out of what later columns are given.
        """

    def draw(self, past: Past, uniform: Tensor) -> Tensor:
        """The columns from uniform numbers float64 [M, K]: int64 [M, K]."""
        return self.turns(past, quantiles(uniform), torch.ones_like(uniform, dtype=torch.bool))

    @abc.abstractmethod
    def start_at(self, x: Tensor, known: Tensor) -> None:
        """Output biases from the training data, int64 [T, K]."""


class Keys(StepDensity):
    """NADE over binary columns, its biases linear in the state."""

    def __init__(self, columns: int, state: int, hidden: int, neighbours: int = 0) -> None:
        super().__init__()
        self.near = Neighbours(columns, state, neighbours) if neighbours else None
        self.inner = nn.Linear(state, hidden)  # c(h)
        self.outer = nn.Linear(state, columns)  # b(h)
        self.weight = nn.Parameter(torch.randn(columns, hidden) * 0.1)  # W
        self.readout = nn.Parameter(torch.randn(hidden, columns) / math.sqrt(hidden))  # V
        nn.init.normal_(self.outer.weight, std=0.01)

    def start_at(self, x: Tensor, known: Tensor) -> None:
        share = (x * known).sum(0).double() + 0.5
        share = share / (known.sum(0) + 1.0)
        self.outer.bias.data.copy_(torch.logit(share))

    def log_prob(self, past: Past, x: Tensor, known: Tensor) -> Tensor:
        on = x * known
        until = on.cumsum(1)  # keys that are on, up to and with k
        counts = on.sum(1)
        first = torch.cumsum(counts + 1, 0) - counts - 1  # row of no key yet, of each step
        rows = torch.repeat_interleave(torch.arange(len(x), device=x.device), counts + 1)
        number = torch.arange(len(rows), device=x.device) - first[rows]
        prefix = on[rows] * (until[rows] <= number[:, None])  # the first keys that are on, [R, 88]
        inner, outer = self.inner(past.state), self.outer(past.state)
        active = torch.relu(inner[rows] + prefix.to(inner.dtype) @ self.weight)
        logits = active @ self.readout  # [R, 88]
        chosen = logits.gather(0, first[:, None] + until - on) + outer
        if self.near is not None and past.traces is not None:
            chosen = chosen + self.near(past.state, past.traces, on)
        signed = torch.where(x > 0, chosen, -chosen).double()
        return -(softplus(-signed) * known).sum(1)

    def turns(self, past: Past, choose: Choose, known: Tensor) -> Tensor:
        inner, outer = self.inner(past.state), self.outer(past.state)
        x = torch.zeros_like(known, dtype=torch.int64)
        active, stale = torch.relu(inner), False
        near = None
        if self.near is not None and past.traces is not None:
            near = self.near.turns(past.state, past.traces)
        for k in range(x.shape[1]):
            if stale:
                active = torch.relu(inner + x.to(inner.dtype) @ self.weight)
            logit = active @ self.readout[:, k] + outer[:, k]
            if near is not None:
                logit = logit + near(x, k)
            logit = logit.double()
            x[:, k] = choose(k, Binary(logit)) * known[:, k]
            stale = bool(x[:, k].any())
        return x


class Turns(StepDensity):
    """Columns of any kind, one after another."""

    def __init__(
        self, features: Features, state: int, hidden: int, components: int, family: Family
    ) -> None:
        super().__init__()
        self.columns, self.components, self.family = features.columns, components, family
        self._shared = (features,)  # of the network, whose weights name it once
        self.inner, self.outer, self.direct = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        before = 0
        for column, size in zip(self.columns, features.sizes, strict=True):
            outputs = self._outputs(column)
            self.inner.append(nn.Linear(state + before, hidden))
            direct, outer = (
                nn.Linear(state + before, outputs, bias=False),
                nn.Linear(hidden, outputs),
            )
            nn.init.zeros_(direct.weight)
            outer.weight.data.mul_(0.1)
            if column.kind in ("lattice", "continuous", "angle"):
                # Components begin apart, from narrow to wide.
                outer.bias.data[2 * components :] = torch.linspace(-1.0, 1.5, components)
            self.direct.append(direct)
            self.outer.append(outer)
            before += size

    @property
    def features(self) -> Features:
        """Of the columns, and their scales."""
        return self._shared[0]

    def _outputs(self, column: Column) -> int:
        if column.kind in ("binary", "categorical"):
            return column.levels
        return 3 * self.components

    def start_at(self, x: Tensor, known: Tensor) -> None:
        for k, column in enumerate(self.columns):
            if column.kind in ("binary", "categorical"):
                counts = torch.bincount(x[known[:, k], k], minlength=column.levels) + 0.5
                bias = self.outer[k].get_parameter("bias")
                bias.data.copy_((counts / counts.sum()).log())

    def log_prob(self, past: Past, x: Tensor, known: Tensor) -> Tensor:
        total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        seen = self.features(x, known)  # of all columns; each is given those before it
        before = 0
        for k, size in enumerate(self.features.sizes):
            column = self._column(k, self._outputs_for(past, seen[:, :before], k), past)
            total = total + column.log_prob(x[:, k]) * known[:, k]
            before += size
        return total

    def turns(self, past: Past, choose: Choose, known: Tensor) -> Tensor:
        x = torch.zeros_like(known, dtype=torch.int64)
        seen = past.state[:, :0]
        for k in range(len(self.columns)):
            column = self._column(k, self._outputs_for(past, seen, k), past)
            x[:, k] = choose(k, column) * known[:, k]
            part = slice(k, k + 1)
            seen = torch.cat([seen, self.features(x[:, part], known[:, part], k, k + 1)], -1)
        return x

    def _outputs_for(self, past: Past, before: Tensor, k: int) -> Tensor:
        """Outputs for column k, float64 [M, ...]; `before` are features of earlier columns."""
        inputs = torch.cat([past.state, before], -1)
        hidden = torch.relu(self.inner[k](inputs))
        return torch.as_tensor(self.outer[k](hidden) + self.direct[k](inputs)).double()

    def _mixture(self, k: int, parameters: Tensor, past: Past) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights, means and scales in levels, [M, components] each."""
        logits, shift, log_scale = parameters.chunk(3, -1)
        spread = float(self.features.spread[k])
        last = past.last[:, k].double()
        base = torch.where(past.last_known[:, k], last, self.features.mean[k].double())
        least = max(LEAST_BIN, FLOOR * spread)
        scale = (spread * log_scale.clamp(-20, 20).exp()).clamp(least, CEILING * spread)
        return log_softmax(logits, -1), base[:, None] + spread * shift, scale

    def _table(self, k: int, parameters: Tensor) -> Tensor:
        """log p of every level, [M, levels], of columns with few of them."""
        column = self.columns[k]
        if column.kind != "angle":
            return log_softmax(parameters, -1)
        logits, first, second = parameters.chunk(3, -1)
        angle = torch.arange(column.levels, dtype=torch.float64, device=parameters.device)
        angle = angle * (2 * math.pi / column.levels)
        # kappa cos(angle - mu), with (kappa cos mu, kappa sin mu) as outputs.
        bumps = first[..., None] * angle.cos() + second[..., None] * angle.sin()
        return (log_softmax(logits, -1)[..., None] + log_softmax(bumps, -1)).logsumexp(1)

    def _column(self, k: int, parameters: Tensor, past: Past) -> ColumnDensity:
        column = self.columns[k]
        if column.kind not in ("lattice", "continuous"):
            return Table(self._table(k, parameters))
        return Bins(column.levels, Components(*self._mixture(k, parameters, past)), self.family)
