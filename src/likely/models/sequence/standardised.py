"""Columns in units of their own spread: what classical models of numbers share."""

from __future__ import annotations

import torch
from torch import Tensor

from likely.data.sequences.dataset import Sequences
from likely.data.spec import DataSpec
from likely.density import SequenceDensity


class Standardised(SequenceDensity):
    """A density of sequences whose columns are read as (x - mean) / deviation.

    Attributes:
        mean: of each column, levels, [K].
        deviation: of each column, levels, [K].
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        levels = torch.tensor([float(column.levels) for column in self.spec.columns])
        self.register_buffer("mean", levels / 2)
        self.register_buffer("deviation", (levels / 6).clamp(min=0.5))

    @torch.no_grad()
    def standardise(self, data: Sequences) -> None:
        """Take mean and deviation from the known values of the training data."""
        values = torch.from_numpy(data.values.astype("int64"))
        for k in range(values.shape[1]):
            part = values[values[:, k] >= 0, k].double()
            if len(part) > 1:
                self.mean[k] = part.mean()
                self.deviation[k] = part.std().clamp(min=0.1)

    def standardised(self, x: Tensor) -> Tensor:
        """Values [..., K] in deviations from the mean, float64."""
        return (x - self.mean.double()) / self.deviation.double()
