r"""Fully visible sigmoid belief network (Frey 1998, "Graphical Models for Machine Learning").

Also Neal 1992 (sigmoid belief networks), https://doi.org/10.1016/0004-3702(92)90065-6. Each
dimension is a logistic regression on those before it (recent name: the logistic autoregressive
model):

    p(x_i = 1 | x_<i) = sigma(b_i + sum_{j < i} W_ij x_j)

The log-likelihood is concave in (W, b), so a converged fit is optimal. The triangle is
stored as such: D (D + 1) / 2 numbers for D binary dimensions, nothing to mask.

With `prior=local` the fit is the maximum a posteriori under a Gaussian prior in which weights of
equal offset resemble each other and decay with distance (`likely.nn.local`); the
log-posterior is concave, too, and the triangle holds the part of each weight alone.

Deviations: any head (a regression of the head's parameters on levels scaled to [0, 1]); a bias
per class if conditional; the bias is initialised at the mean of the data.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from likely.data.spec import DataSpec
from likely.models.vectors.settings import FVSBNSettings
from likely.models.vectors.units import UnitModel, of_label
from likely.nn.local import REGRESSION, LocalWeights
from likely.sampling.program import Builder, Cells


class FVSBN(UnitModel):
    """The model; see the module's docstring.

    Args:
        spec: of the data, shape (C, H, W) or (D,).
        settings: `FVSBNSettings.preset(spec)` by default.

    >>> model = FVSBN(DataSpec("digits", (1, 28, 28), 2), FVSBNSettings(prior="none"))
    >>> sum(parameter.numel() for parameter in model.parameters())
    307720
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, spec: DataSpec, settings: FVSBNSettings | None = None) -> None:
        super().__init__(spec, settings or FVSBNSettings.preset(spec))
        units = self.units
        rows, columns = torch.tril_indices(units.count, units.count, -1)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)
        # One block [O, I] for each pair of units j < i, row by row.
        self.weight = nn.Parameter(torch.zeros(len(rows), units.outputs, units.inputs))
        self.local = None
        if self.settings.prior == "local":
            above, below = units.groups * units.outputs, units.groups * units.inputs
            self.local = LocalWeights(units.height, units.width, above, below, REGRESSION)

    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        inputs = self.units.split(x, self.weight.dtype)  # [B, n, I]
        n = inputs.shape[1]
        outputs = inputs.flatten(1) @ self.matrix(n).t()  # [B, n O]
        outputs = outputs.reshape(len(x), n, -1) + self.biases(context)[:, :n]
        return self.units.join(outputs)

    def matrix(self, n: int) -> Tensor:
        """The weights between the first n units as a matrix, [n O, n I], zero from the diagonal."""
        units, both = self.units, self.square(n)
        if self.local is None:
            return both
        before = torch.ones(n, n, device=both.device).tril(-1)
        return both * torch.kron(before, before.new_ones(units.outputs, units.inputs))

    def square(self, n: int) -> Tensor:
        """`matrix`, with what the prior's parts give beyond the diagonal."""
        if self.local is None:
            return self.triangle(n)
        both: Tensor = self.local(self.triangle(self.units.count))
        return both[: n * self.units.outputs, : n * self.units.inputs]

    def negative_log_prior(self) -> Tensor | None:
        return None if self.local is None else self.local.negative_log_prior(self.weight)

    def triangle(self, n: int) -> Tensor:
        """What is stored of the weights between the first n units, as `matrix` gives them."""
        units, pairs = self.units, n * (n - 1) // 2
        places = self.rows[:pairs] * n + self.columns[:pairs]
        blocks = self.weight.new_zeros(n * n, units.outputs, units.inputs)
        blocks = blocks.index_copy(0, places, self.weight[:pairs])
        by_row = blocks.reshape(n, n, units.outputs, units.inputs).transpose(1, 2)
        return by_row.reshape(n * units.outputs, n * units.inputs)

    def vectors(self, build: Builder, rank: Tensor) -> Cells:
        bias = of_label(build, self.bias.flatten(1))
        weight = self.square(self.units.count)  # only what comes before a unit is read
        return self.outputs_of(build, self.known(build), weight, bias, self.before)
