r"""DeepNADE and EoNADE (Uria, Murray and Larochelle 2014).

"A Deep and Tractable Density Estimator", https://arxiv.org/abs/1310.1757.

One network predicts every dimension from any subset of
known ones: its inputs are the known part of x and its mask m,

    h_1 = relu(W [x . m, m] + c),    h_l = relu(W_l h_{l-1} + c_l),    logit = V h_L + b,

and is trained on random orders and random numbers of known dimensions
(`likely.training.objectives.OrderAgnosticLikelihood`). In any one order o it is an autoregressive
density, log p(x) = sum_d log p(x_{o_d} | x_{o_<d}), at the price of a pass for each dimension;
only the first layer is updated as NADE's is. `EoNADE` averages the densities of several orders,

    log p(x) = log (1/K) sum_k p_{o_k}(x),

which is again an exact density.

Deviations: any head, on levels scaled to [0, 1]; orders are of pixels, the channels of a pixel
follow each other; biases per class if conditional; the output bias is initialised at the mean
of the data.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, relu

from likely.data.spec import DataSpec
from likely.density import OrderAgnostic
from likely.models.vectors.made import random_rank, random_ranks
from likely.models.vectors.settings import DeepNADESettings, EoNADESettings
from likely.models.vectors.units import UnitModel, of_label
from likely.sampling.incremental import IncrementalMixture
from likely.sampling.program import Builder, Cells, Tap

BLOCK = 28  # units of the order whose conditionals are computed together


class DeepNADE(UnitModel, OrderAgnostic):
    """One network for all orders, used in one; see the module's docstring.

    Args:
        spec: of the data, shape (C, H, W) or (D,).
        settings: `DeepNADESettings.preset(spec)` by default.

    >>> model = DeepNADE(DataSpec("digits", (1, 28, 28), 2))
    >>> sum(parameter.numel() for parameter in model.parameters())
    1427784
    """

    def __init__(self, spec: DataSpec, settings: DeepNADESettings | None = None) -> None:
        settings = settings or DeepNADESettings.preset(spec)
        super().__init__(spec, settings)
        units, hidden = self.units, settings.hidden
        # Hidden layers are evaluated again for every dimension.
        self.uses_each_weight_once = False
        if settings.order == "random":
            self.rank = random_rank(spec)
        read = units.inputs + 1  # the values of a unit, and whether they are known
        into = units.count * read
        self.weight = nn.Parameter(torch.randn(units.count, read, hidden) * (2.0 / into) ** 0.5)
        self.start = nn.Parameter(torch.zeros(max(1, self.classes), hidden))
        self.deeper = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(settings.layers - 1))
        scale = (0.01 / hidden) ** 0.5
        self.output = nn.Parameter(torch.randn(units.count, units.outputs, hidden) * scale)

    def predictions(self, x: Tensor, known: Tensor, context: Tensor | None = None) -> Tensor:
        inputs = self.units.split(x, self.weight.dtype)  # [B, N, I]
        mask = known.flatten(2).transpose(1, 2).reshape(*inputs.shape[:2], 1).to(inputs.dtype)
        read = torch.cat([inputs * mask, mask], 2)
        h = self.top(linear(read.flatten(1), self.weight.flatten(0, 1).t()) + self.starts(context))
        outputs = linear(h, self.output.flatten(0, 1)).reshape(len(x), self.units.count, -1)
        return self.units.join(outputs + self.biases(context))

    def conditionals(
        self, x: Tensor, context: Tensor | None = None, rank: Tensor | None = None
    ) -> Tensor:
        """As every model, in any order; `rank` is by default the model's own."""
        inputs = self.units.split(x, self.weight.dtype)  # [B, n, I]
        n = inputs.shape[1]
        drawn = self.units.ranks(self.rank if rank is None else rank).argsort()[:n]
        read = torch.cat([inputs, torch.ones_like(inputs[..., :1])], 2)[:, drawn]
        weight, output = self.weight[drawn], self.output[drawn]
        a = self.starts(context).expand(len(x), -1)
        blocks = []
        for first in range(0, n, BLOCK):
            block = slice(first, min(n, first + BLOCK))
            block_inputs = read[:, block]  # [B, K, I + 1]
            size = block_inputs.shape[1]
            before = torch.ones(size, size, dtype=block_inputs.dtype, device=x.device).tril(-1)
            seen = block_inputs[:, None] * before[:, :, None]  # [B, K, K, I + 1]
            change = seen.flatten(2) @ weight[block].flatten(0, 1)
            h = self.top(a[:, None] + change)  # [B, K, H]
            blocks.append(torch.einsum("bkh,koh->bko", h, output[block]))
            a = a + block_inputs.flatten(1) @ weight[block].flatten(0, 1)
        outputs = torch.cat(blocks, 1)[:, drawn.argsort()]
        return self.units.join(outputs + self.biases(context)[:, :n])

    def top(self, a: Tensor) -> Tensor:
        """The last hidden layer, from the activation of the first one."""
        h = relu(a)
        for layer in self.deeper:
            h = relu(layer(h))
        return h

    def starts(self, context: Tensor | None) -> Tensor:
        """The first activation where nothing is known, [B or 1, H]."""
        return self.start if context is None else self.start[context]

    def vectors(self, build: Builder, rank: Tensor) -> Cells:
        drawn = self.units.ranks(rank).argsort()
        a = build.running(of_label(build, self.start))
        weight = self.weight[drawn]  # [N, I + 1, H]
        values, known = weight[:, :-1], torch.zeros_like(weight[:, :-1])
        build.accumulate(a, build.image(1.0 / self.units.top, 0.0), values.flatten(0, 1))
        # That a unit is known counts, too, whatever its values: once, with the first of them.
        known[:, 0] = weight[:, -1]
        build.accumulate(a, build.image(0.0, 1.0), known.flatten(0, 1))
        h = build.relu(a)
        for layer in self.deeper:
            assert isinstance(layer, nn.Linear)
            h = build.relu(build.linear([Tap(h, layer.weight.t())], layer.bias))
        output = self.output[drawn].flatten(0, 1)
        bias = of_label(build, self.bias[:, drawn].flatten(1))
        return self.outputs_of(build, h, output, bias, [self.settings.hidden] * self.units.count)


class EoNADE(IncrementalMixture, OrderAgnostic):
    """A mixture over orders of one DeepNADE; see the module's docstring.

    Args:
        spec: of the data, shape (C, H, W) or (D,).
        settings: `EoNADESettings.preset(spec)` by default.
    """

    takes_vectors = True

    network: DeepNADE

    def __init__(self, spec: DataSpec, settings: EoNADESettings | None = None) -> None:
        settings = settings or EoNADESettings.preset(spec)
        shared = dataclasses.asdict(settings)
        del shared["orders"]
        network = DeepNADE(spec, DeepNADESettings(**shared))
        super().__init__(
            spec, network.classes, network, random_ranks(spec, settings.orders), settings
        )

    def predictions(self, x: Tensor, known: Tensor, context: Tensor | None = None) -> Tensor:
        return self.network.predictions(x, known, context)

    def conditionals_in(self, number: int, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.network.conditionals(x, context, self.ranks[number])

    def incremental_in(self, number: int, build: Builder) -> Cells:
        return self.network.incremental(build, self.ranks[number])
