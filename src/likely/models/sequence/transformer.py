r"""A small causal transformer over time, with a cache of keys and values.

Vaswani et al. 2017, https://arxiv.org/abs/1706.03762; layers normalise their inputs (Radford et al.
2019); a learned bias for each head and distance says where a key stands (as the relative positions
of Huang et al. 2019, https://arxiv.org/abs/1809.04281, without their product with the query).

A step sees itself, as the body's input, and the `reach` - 1 steps before it. So the state is a
cache of that many keys and values, of any sequence however long; those before the first step are
masked. Long pieces are read `reach` steps at a time.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from likely.data.spec import DataSpec
from likely.density.sequence.steps import State
from likely.errors import InvalidSetting
from likely.models.sequence.network import SequenceNetwork
from likely.models.sequence.settings import TransformerSettings
from likely.noise import Dropout


class _Layer(nn.Module):
    """Attention to the steps before, and a layer of each step alone."""

    def __init__(self, settings: TransformerSettings) -> None:
        super().__init__()
        width, self.heads, self.reach = settings.hidden, settings.heads, settings.reach
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.mix = nn.Linear(width, width)
        self.bias = nn.Parameter(torch.zeros(self.heads, self.reach))  # by distance
        self.inner, self.outer = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = Dropout(settings.dropout)

    def forward(self, x: Tensor, cache: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """(next x, all keys and values); x [B, T, D], cache [B, reach - 1, 2 D]; seen: which keys
        there are, bool [B, reach - 1 + T]."""
        inside = self.first(x)
        cache = torch.cat([cache, self.key_value(inside)], 1)
        query = self._by_head(self.query(inside))  # [B, H, T, d]
        key, value = (self._by_head(part) for part in cache.chunk(2, 2))
        steps, keys = query.shape[2], key.shape[2]
        place = torch.arange(steps, device=x.device)[:, None] + self.reach - 1
        distance = place - torch.arange(keys, device=x.device)  # [T, S]
        near = (distance >= 0) & (distance < self.reach)
        bias = self.bias[:, distance.clamp(0, self.reach - 1)]  # [H, T, S]
        allowed = (near & seen[:, None])[:, None]  # [B, 1, T, S]
        scores = (query @ key.transpose(2, 3)) * (query.shape[3] ** -0.5) + bias
        weights = scores.masked_fill(~allowed, float("-inf")).softmax(-1)
        mixed = (weights @ value).transpose(1, 2).flatten(2)
        x = x + self.dropout(self.mix(mixed))
        hidden = torch.nn.functional.gelu(self.inner(self.second(x)))
        return x + self.dropout(self.outer(hidden)), cache

    def _by_head(self, x: Tensor) -> Tensor:
        batch, steps, width = x.shape
        return x.view(batch, steps, self.heads, width // self.heads).transpose(1, 2)


class Transformer(SequenceNetwork):
    """A causal transformer over time.

    Args:
        spec: of sequences.
        settings: sizes; the preset for the data by default.
    """

    settings: TransformerSettings

    def __init__(self, spec: DataSpec, settings: TransformerSettings | None = None) -> None:
        settings = settings or TransformerSettings.preset(spec)
        if settings.hidden % settings.heads:
            raise InvalidSetting(
                f"hidden={settings.hidden} must be a multiple of heads={settings.heads}"
            )
        super().__init__(spec, settings, settings.hidden)
        self.entry = nn.Linear(self.input_size, settings.hidden)
        self.before_entry = Dropout(settings.dropout)
        self.layers = nn.ModuleList(_Layer(settings) for _ in range(settings.layers))
        self.norm = nn.LayerNorm(settings.hidden)

    def initial(self, n: int) -> State:
        kept, width = self.settings.reach - 1, self.settings.hidden
        dtype, device = self.entry.weight.dtype, self.device
        caches = [torch.zeros(n, kept, 2 * width, dtype=dtype, device=device) for _ in self.layers]
        return (torch.zeros(n, kept, dtype=torch.bool, device=device), *caches)

    def advance(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        reach, outputs = self.settings.reach, []
        for x in self.entry(self.before_entry(inputs)).split(max(reach, 2), 1):
            seen = torch.cat([state[0], torch.ones_like(x[:, :, 0], dtype=torch.bool)], 1)
            caches, kept = [], x.shape[1]
            for layer, cache in zip(self.layers, state[1:], strict=True):
                x, cache = layer(x, cache, seen)
                caches.append(cache[:, kept:])
            state = (seen[:, kept:], *caches)
            outputs.append(self.norm(x))
        return torch.cat(outputs, 1), state
