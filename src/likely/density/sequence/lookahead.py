r"""Looking ahead over a gap: which particles will meet what is known after it.

Sequential Monte Carlo learns only after a gap which of its draws fit what follows, and then few are
left. So particles are weighed in the gap, too, by psi_t(x_t), a guess of p(what is known next |
x_t), and psi is divided out after it: the estimate of p(known) stays unbiased whatever psi is, and
its variance falls as psi gets better (the iterated auxiliary particle filter of Guarniero,
Johansen and Lee 2017, https://arxiv.org/abs/1511.06286).

Both come from pilot draws: some particles are drawn through the gap and to the first step after it
that is known. Numbers of that step are regressed on those of each step of the gap, with a Student-t
density of what is left; of a key or a category it is how often its value led to what is known, with
some counts of how often that is met at all.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from likely.data.sequences.spec import Column

FEWEST, PILOTS = 16, 256
RIDGE = 1.0  # in standardised numbers, of as many pilots
FREEDOM = 4.0  # degrees of freedom
SAME = 1e-6  # a standard deviation of pilots that are all alike
LEAST = 0.05  # of a standard deviation, that a residual has
COUNTS = 8.0  # of pilots, that what is met at all counts as


class Lookahead:
    """log psi of each step of a gap.

    Args:
        columns: of a step.
        pilots: draws of the gap, int64 [N, G, K].
        after: draws of the step after it, int64 [N, K].
        target: that step, int64 [K].
        known: which of its values are known, bool [K].
    """

    def __init__(
        self,
        columns: tuple[Column, ...],
        pilots: Tensor,
        after: Tensor,
        target: Tensor,
        known: Tensor,
    ) -> None:
        self._columns = columns
        self._tables: dict[int, Tensor] = {}
        for k, column in enumerate(columns):
            if column.kind in ("binary", "categorical") and bool(known[k]):
                self._tables[k] = _led_to(pilots[:, :, k], after[:, k] == target[k], column.levels)
        steps, met = self._numbers(pilots), self._numbers(after)  # [N, G, F], [N, F]
        widths = torch.tensor([_width(column) for column in columns], device=known.device)
        seen = known.repeat_interleave(widths) & (_deviation(met) > SAME)
        met, wanted = met[:, seen], self._numbers(target)[seen]
        self._mean, scale = steps.mean(0), _deviation(met)
        self._scale = _deviation(steps).clamp(min=SAME)
        x = (steps - self._mean) / self._scale
        y, self._wanted = (met - met.mean(0)) / scale, (wanted - met.mean(0)) / scale
        x = x.transpose(0, 1)  # [G, N, F]
        eye = RIDGE * torch.eye(x.shape[2], dtype=x.dtype, device=x.device)
        self._weight = torch.linalg.solve(x.mT @ x + eye, x.mT @ y)  # [G, F, D]
        self._spread = (y - x @ self._weight).square().mean(1).sqrt().clamp(min=LEAST)  # [G, D]

    def log(self, step: int, x: Tensor) -> Tensor:
        """log psi, float64 [M], of draws int64 [M, K] of a step of the gap."""
        numbers = (self._numbers(x) - self._mean[step]) / self._scale[step]
        off = (self._wanted - numbers.clamp(-8, 8) @ self._weight[step]) / self._spread[step]
        order = (FREEDOM + off.shape[1]) / 2
        total: Tensor = -order * torch.log1p(off.square().sum(1) / FREEDOM)
        for k, table in self._tables.items():
            total = total + table[step, x[:, k]]
        return total

    def _numbers(self, x: Tensor) -> Tensor:
        """Numbers and angles, float64 [..., F]."""
        parts = [x[..., :0].double()]
        for k, column in enumerate(self._columns):
            value = x[..., k, None].double()
            if column.kind == "angle":
                turn = value * (2 * math.pi / column.levels)
                parts += [turn.sin(), turn.cos()]
            elif column.kind in ("lattice", "continuous"):
                parts.append(value)
        return torch.cat(parts, -1)


def _deviation(x: Tensor) -> Tensor:
    return (x - x.mean(0)).square().mean(0).sqrt()


def _width(column: Column) -> int:
    return {"binary": 0, "categorical": 0, "angle": 2}.get(column.kind, 1)


def _led_to(pilots: Tensor, met: Tensor, levels: int) -> Tensor:
    """log of the share of pilots [N, G] with each level that met what is known, [G, levels]."""
    held = torch.nn.functional.one_hot(pilots, levels).double()  # [N, G, levels]
    share = (met.double().sum() + 0.5) / (len(met) + 1)
    counts = held.sum(0) + COUNTS
    return ((held * met[:, None, None]).sum(0) + COUNTS * share).log() - counts.log()
