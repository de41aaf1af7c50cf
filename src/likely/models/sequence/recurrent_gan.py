r"""A recurrent GAN: a GRU from noise to sequences against a GRU that judges them.

RCGAN: Esteban, Hyland and Raetsch 2017, https://arxiv.org/abs/1706.02633.

    h_t = GRU(h_{t-1}, (z_t, c_t)),  z_t ~ N(0, I),  x_t = round(f(h_t))
    D(x) = mean over steps of d(h'_t),  h'_t = GRU(h'_{t-1}, (x_t, c_t))

Deviations: GRUs in place of LSTMs; D's logit is the mean of those of the steps, and the game is the
house's, relativistic with both gradient penalties unless another is named; D sees integers, as they
are drawn, and the gradient goes straight through the rounding (Bengio, Leonard and Courville 2013,
https://arxiv.org/abs/1308.3432). The fit reads windows; longer sequences are drawn by going on.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from likely.data.sequences.dataset import Sequences
from likely.data.spec import Dataset, DataSpec
from likely.density import ImplicitSequence, State
from likely.density.sequence.within_step import FAR, Features
from likely.models.sequence.network import start_at
from likely.models.sequence.settings import RecurrentGANSettings


class RecurrentGAN(ImplicitSequence):
    """The generator; see the module's docstring.

    Args:
        spec: of sequences.
        settings: sizes; the preset for the data by default.
    """

    def __init__(self, spec: DataSpec, settings: RecurrentGANSettings | None = None) -> None:
        settings = settings or RecurrentGANSettings.preset(spec)
        super().__init__(spec, settings.latent, settings.conditional)
        self.settings = settings
        self.features = Features(self.spec)
        self.body = nn.GRU(self.latent + self.context_size, settings.hidden, batch_first=True)
        self.begins = nn.Parameter(torch.zeros(settings.hidden))
        self.inner = nn.Linear(settings.hidden, settings.hidden)
        sizes = [_outputs(c.kind, c.levels) for c in self.spec.columns]
        self.out = nn.Linear(settings.hidden, sum(sizes))
        self.sizes = sizes

    def adversary(self) -> nn.Module:
        """A fresh network of (features of sequences, context) to logits, [B]."""
        return SequenceDiscriminator(
            self.features.size + 1 + self.context_size, self.settings.discriminator_hidden
        )

    def start_at(self, data: Dataset) -> None:
        """Scales, and biases so that the columns begin with their frequencies."""
        start_at(data, self.features)
        values = torch.from_numpy(cast(Sequences, data).values.astype("int64"))
        first = 0
        for k, (column, size) in enumerate(zip(self.spec.columns, self.sizes, strict=True)):
            if column.kind in ("binary", "categorical"):
                part = values[values[:, k] >= 0, k]
                share = torch.bincount(part, minlength=column.levels).double() + 0.5
                logits = (share / share.sum()).log()
                bias = logits[1:] - logits[:1] if column.kind == "binary" else logits
                self.out.bias.data[first : first + size] = bias.clamp(-3, 3).to(self.out.bias)
            first += size

    def begin(self, n: int) -> State:
        return (self.begins.expand(n, -1),)

    def generate(
        self, z: Tensor, context: Tensor | None, state: State
    ) -> tuple[Tensor, Tensor, State]:
        inputs = z if context is None else torch.cat([z, context.to(z)], -1)
        with torch.backends.cudnn.flags(enabled=False):  # whose gradient has none of its own
            hidden, after = self.body(inputs, state[0][None].contiguous())
        outputs = self.out(torch.relu(self.inner(hidden)) + hidden)
        drawn, smooth = [], []
        for k, part in enumerate(outputs.split(self.sizes, -1)):
            x, features = self._column(k, part)
            drawn.append(x)
            smooth.append(features)
        return torch.stack(drawn, -1), torch.cat(smooth, -1), (after[0],)

    def _column(self, k: int, output: Tensor) -> tuple[Tensor, Tensor]:
        """Integers of a column [B, T], and what they are rounded from as features [B, T, F]."""
        column = self.spec.columns[k]
        if column.kind == "binary":
            return (output[..., 0] > 0).long(), torch.tanh(output / 2)
        if column.kind == "categorical":
            return output.argmax(-1), output.softmax(-1)
        if column.kind == "angle":
            sine, cosine = (output / output.norm(dim=-1, keepdim=True).clamp(min=1e-6)).unbind(-1)
            turn = torch.atan2(sine, cosine) * (column.levels / (2 * math.pi))
            return turn.round().long() % column.levels, torch.stack([sine, cosine], -1)
        number = output[..., 0].clamp(-FAR, FAR)
        level = (self.features.mean[k] + self.features.deviation[k] * number).round().long()
        return level.clamp(0, column.levels - 1), torch.stack([number, 0 * number], -1)

    @property
    def widths(self) -> list[int]:
        return self.features.sizes

    def seen(self, x: Tensor, known: Tensor) -> Tensor:
        return self.features(x, known)


class SequenceDiscriminator(nn.Module):
    """Sequences [B, T, features and whether there is a step] -> logits, [B]."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.body = nn.GRU(inputs, hidden, batch_first=True)
        self.judge = nn.Sequential(
            nn.Linear(hidden + inputs, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, 1)
        )

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        inputs = x if context is None else torch.cat([x, context.to(x)], -1)
        with torch.backends.cudnn.flags(enabled=False):  # whose gradient has none of its own
            hidden, _ = self.body(inputs)
        each = self.judge(torch.cat([hidden, inputs], -1))[..., 0]
        present = x[..., -1]
        logit: Tensor = (each * present).sum(1) / present.sum(1).clamp(min=1.0)
        return logit


def _outputs(kind: str, levels: int) -> int:
    """Outputs of the generator for a column."""
    return {"categorical": levels, "angle": 2}.get(kind, 1)
