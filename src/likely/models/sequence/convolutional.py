r"""Dilated causal convolutions over time: TCN and, with `gated`, WaveNet.

- TCN: Bai, Kolter and Koltun 2018, https://arxiv.org/abs/1803.01271: residual blocks of dilations
  1, 2, 4, ..., a field of 1 + (kernel - 1) sum of dilations steps.
- WaveNet: van den Oord et al. 2016, https://arxiv.org/abs/1609.03499: tanh(f * x) sigma(g * x) in
  each block, and an output that is the sum of what all blocks skip to.

Deviations: one convolution a block and layer normalisation in place of two with weight
normalisation; every block skips to the output, which the last one joins. The state is a ring: the
last (kernel - 1) dilation inputs of each block, zero before the first step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from likely.data.spec import DataSpec
from likely.density.sequence.steps import State
from likely.models.sequence.network import SequenceNetwork
from likely.models.sequence.settings import TCNSettings
from likely.noise import Dropout


class _Block(nn.Module):
    """x + W act(conv(norm(x))), and what it skips to the output."""

    def __init__(self, settings: TCNSettings, dilation: int) -> None:
        super().__init__()
        channels = settings.hidden
        self.gated = settings.gated
        self.kept = (settings.kernel - 1) * dilation  # steps of the ring
        self.norm = nn.LayerNorm(channels)
        width = channels * (2 if self.gated else 1)
        self.convolution = nn.Conv1d(channels, width, settings.kernel, dilation=dilation)
        self.dropout = Dropout(settings.dropout)
        self.residual, self.skip = nn.Linear(channels, channels), nn.Linear(channels, channels)
        nn.init.zeros_(self.residual.weight)
        nn.init.zeros_(self.residual.bias)

    def forward(self, x: Tensor, ring: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(next x, skipped, next ring); x [B, T, C], ring [B, kept, C]."""
        padded = torch.cat([ring, self.norm(x)], 1)
        out = self.convolution(padded.transpose(1, 2)).transpose(1, 2)
        if self.gated:
            signal, gate = out.chunk(2, -1)
            out = signal.tanh() * gate.sigmoid()
        else:
            out = out.relu()
        out = self.dropout(out)
        return x + self.residual(out), self.skip(out), padded[:, padded.shape[1] - self.kept :]


class TCN(SequenceNetwork):
    """Dilated causal convolutions over time.

    Args:
        spec: of sequences.
        settings: sizes; the preset for the data by default.
    """

    settings: TCNSettings

    def __init__(self, spec: DataSpec, settings: TCNSettings | None = None) -> None:
        settings = settings or TCNSettings.preset(spec)
        super().__init__(spec, settings, settings.hidden)
        self.entry = nn.Linear(self.input_size, settings.hidden)
        self.before_entry = Dropout(settings.dropout)
        self.blocks = nn.ModuleList(_Block(settings, 2**n) for n in range(settings.layers))

    @property
    def field(self) -> int:
        """Steps before one that its conditional may depend on."""
        return 1 + (self.settings.kernel - 1) * ((1 << self.settings.layers) - 1)

    def initial(self, n: int) -> State:
        dtype, device = self.entry.weight.dtype, self.device
        kept = [(self.settings.kernel - 1) * 2**i for i in range(self.settings.layers)]
        shape = self.settings.hidden
        return tuple(torch.zeros(n, length, shape, dtype=dtype, device=device) for length in kept)

    def advance(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        x = self.entry(self.before_entry(inputs))
        rings = []
        total = torch.zeros_like(x)
        for block, ring in zip(self.blocks, state, strict=True):
            x, skipped, ring = block(x, ring)
            total = total + skipped
            rings.append(ring)
        return (x + total).relu(), tuple(rings)
