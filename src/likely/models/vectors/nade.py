r"""NADE (Larochelle and Murray 2011, "The Neural Autoregressive Distribution Estimator").

https://proceedings.mlr.press/v15/larochelle11a.html

One hidden layer, shared by all conditionals; from one dimension to the next its activation
changes by one column of W only (eqs. 8-10):

    a_1 = c,    h_i = sigma(a_i),    p(x_i = 1 | x_<i) = sigma(b_i + V_i . h_i),
    a_{i+1} = a_i + W_i x_i

So a likelihood and a sample both cost O(D H).

A loop over 784 dimensions is slow in Python. The likelihood takes the dimensions in blocks instead,
with one matrix product for all activations of a block. Where x_i = 0 the activation does not
change: each distinct activation is computed once, one in six on binary digits, of which an eighth
is ink. If a derivative with respect to x is needed, every activation is computed.

Deviations: any head, on levels scaled to [0, 1] (a colour image's channels are dimensions, unless
the head couples them); biases per class if conditional; the output bias is initialised at the
mean of the data.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from likely.data.spec import DataSpec
from likely.density import captured
from likely.models.vectors.settings import NADESettings
from likely.models.vectors.units import UnitModel, of_label
from likely.sampling.program import Builder, Cells

BLOCK = 28  # units whose activations one matrix product gives


class NADE(UnitModel):
    """The model; see the module's docstring.

    Args:
        spec: of the data, shape (C, H, W) or (D,).
        settings: `NADESettings.preset(spec)` by default.

    >>> model = NADE(DataSpec("digits", (1, 28, 28), 2))
    >>> sum(parameter.numel() for parameter in model.parameters())
    785284
    """

    def __init__(self, spec: DataSpec, settings: NADESettings | None = None) -> None:
        settings = settings or NADESettings.preset(spec)
        super().__init__(spec, settings)
        units, hidden = self.units, settings.hidden
        # An activation is a sum over few inputs that are on, an output a sum over all h.
        into = units.count * units.inputs
        self.weight = nn.Parameter(torch.randn(units.count, units.inputs, hidden) / into**0.5)
        self.output = nn.Parameter(
            torch.randn(units.count, units.outputs, hidden) * 0.2 / hidden**0.5
        )
        self.start = nn.Parameter(torch.zeros(max(1, self.classes), hidden))

    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        inputs = self.units.split(x, self.weight.dtype)  # [B, n, I]
        n = inputs.shape[1]
        a = self.starts(len(x), context)
        outputs = []
        sizes = [min(BLOCK, n - first) for first in range(0, n, BLOCK)]
        # Split once: a slice's gradient is as large as the whole.
        weights = torch.split_with_sizes(self.weight[:n], sizes)
        readouts = torch.split_with_sizes(self.output[:n], sizes)
        blocks = torch.split_with_sizes(inputs, sizes, 1)
        for block_inputs, weight, readout in zip(blocks, weights, readouts, strict=True):
            outputs.append(block_outputs(a, block_inputs, weight, readout))
            a = a + block_inputs.flatten(1) @ weight.flatten(0, 1)
        return self.units.join(torch.cat(outputs, 1) + self.biases(context)[:, :n])

    def starts(self, batch: int, context: Tensor | None) -> Tensor:
        """The activation before the first unit, [B, H]."""
        return self.start.expand(batch, -1) if context is None else self.start[context]

    def vectors(self, build: Builder, rank: Tensor) -> Cells:
        a = build.running(of_label(build, self.start))
        image = build.image(factor=1.0 / self.units.top, offset=0.0)
        build.accumulate(a, image, self.weight.flatten(0, 1))
        h, output = build.map("sigmoid", a), self.output.flatten(0, 1)
        bias = of_label(build, self.bias.flatten(1))
        return self.outputs_of(build, h, output, bias, [self.settings.hidden] * self.units.count)


def block_outputs(a: Tensor, inputs: Tensor, weight: Tensor, readout: Tensor) -> Tensor:
    """V_i . h_i for the units of a block.

    Args:
        a: activation at the first of them, [B, H].
        inputs: of these K units, [B, K, I].
        weight: W of these units, [K, I, H].
        readout: V of these units, [K, O, H].

    Returns:
        [B, K, O].
    """
    size = inputs.shape[1]
    image, step, index = distinct(inputs)
    before = torch.arange(size, device=inputs.device) < step[:, None]  # [S, K]
    seen = inputs.index_select(0, image) * before[:, :, None]
    change = seen.flatten(1) @ weight.flatten(0, 1)
    h = torch.sigmoid(a.index_select(0, image) + change)  # [S, H]
    table = h @ readout.flatten(0, 1).t()  # [S, K O]: each activation read by every unit
    wanted = table.reshape(len(image) * size, -1).index_select(0, index)
    return wanted.reshape(len(inputs), size, -1)


def distinct(inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The different activations within a block: a unit whose input is zero leaves it as it was.

    Args:
        inputs: of K units, [B, K, I].

    Returns:
        image: of each of the S activations, [S].
        step: unit at which it is first met, [S].
        index: of the activation at each unit, as state * K + unit, [B K].
    """
    batch, size = inputs.shape[:2]
    units = torch.arange(size, device=inputs.device)
    if inputs.requires_grad or inputs.is_meta or captured():
        # Zeros have derivatives, too; and how many there are cannot be asked in a recording.
        image = torch.arange(batch, device=inputs.device).repeat_interleave(size)
        step = units.repeat(batch)
        state = torch.arange(batch * size, device=inputs.device).reshape(batch, size)
    else:
        moved = torch.ones(batch, size, dtype=torch.bool, device=inputs.device)
        moved[:, 1:] = (inputs[:, :-1] != 0).any(2)
        image, step = moved.nonzero(as_tuple=True)
        state = moved.flatten().cumsum(0).reshape(batch, size) - 1
    return image, step, (state * size + units).flatten()
