r"""Recurrent bodies: GRU and LSTM.

- GRU: Cho et al. 2014, https://arxiv.org/abs/1406.1078.
- LSTM: Hochreiter and Schmidhuber 1997, https://doi.org/10.1162/neco.1997.9.8.1735, with the forget
  gate of Gers, Schmidhuber and Cummins 2000, whose bias begins at 1.

Deviations: recurrent weights begin orthogonal; dropout (Srivastava et al. 2014) on inputs and
outputs of the layers, never on the state; the first state is learned.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from likely.data.spec import DataSpec
from likely.density.sequence.steps import State
from likely.models.sequence.network import SequenceNetwork
from likely.models.sequence.settings import CausalSettings, GRUSettings, LSTMSettings
from likely.noise import Dropout


class _Recurrent(SequenceNetwork):
    """Layers of recurrent cells; their states one after another."""

    PARTS = 1  # tensors of a layer's state
    CELL: type[nn.GRU | nn.LSTM] = nn.GRU

    def __init__(self, spec: DataSpec, settings: CausalSettings) -> None:
        super().__init__(spec, settings, settings.hidden)
        sizes = [self.input_size, *[settings.hidden] * (settings.layers - 1)]
        self.layers = nn.ModuleList(
            self.CELL(input_size=size, hidden_size=settings.hidden, batch_first=True)
            for size in sizes
        )
        self.between = nn.ModuleList(Dropout(settings.dropout) for _ in sizes)
        self.first = nn.Parameter(torch.zeros(self.PARTS * len(sizes), settings.hidden))
        for layer in self.layers:
            for name, weight in layer.named_parameters():
                if name.startswith("weight_hh"):
                    for gate in weight.data.chunk(weight.shape[0] // settings.hidden):
                        nn.init.orthogonal_(gate)
                elif name.startswith("bias"):
                    nn.init.zeros_(weight)
                    if self.PARTS == 2 and name.startswith("bias_ih"):
                        weight.data[settings.hidden : 2 * settings.hidden] = 1.0

    def initial(self, n: int) -> State:
        return tuple(part.expand(n, -1) for part in self.first)

    def advance(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        after: list[Tensor] = []
        for number, (layer, dropout) in enumerate(zip(self.layers, self.between, strict=True)):
            parts = state[number * self.PARTS : (number + 1) * self.PARTS]
            hidden = tuple(part[None].contiguous() for part in parts)
            inputs, new = layer(dropout(inputs), hidden if self.PARTS > 1 else hidden[0])
            after += [part[0] for part in (new if self.PARTS > 1 else (new,))]
        return inputs, tuple(after)


class GRU(_Recurrent):
    """Gated recurrent units over time.

    Args:
        spec: of sequences.
        settings: sizes; the preset for the data by default.
    """

    def __init__(self, spec: DataSpec, settings: GRUSettings | None = None) -> None:
        super().__init__(spec, settings or GRUSettings.preset(spec))


class LSTM(_Recurrent):
    """Long short-term memory over time.

    Args:
        spec: of sequences.
        settings: sizes; the preset for the data by default.
    """

    PARTS, CELL = 2, nn.LSTM

    def __init__(self, spec: DataSpec, settings: LSTMSettings | None = None) -> None:
        super().__init__(spec, settings or LSTMSettings.preset(spec))
