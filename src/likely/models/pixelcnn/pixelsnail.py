r"""PixelSNAIL (Chen, Mishra, Rohaninejad, Abbeel 2018), in the form of a causal transformer.

"PixelSNAIL: An Improved Autoregressive Generative Model", https://arxiv.org/abs/1712.09763.

log p(x) = sum_i log p(x_i | x_<i)
from one stack of causal windows with attention in between: convolutions learn local
structure from few images, attention reaches every earlier pixel at once.

    h <- h + W2 [a . sigmoid(b)],  (a, b) = window(norm(h)) + V y     gated convolution
    h <- h + W3 sum_{j < i} softmax_j(q_i . k_j / sqrt(d)) v_j           attention

Query q_i sees the features of pixel i, that is x_<i; key k_j and value v_j see the features of
pixel j and x_j itself, so the sum runs over j < i (`likely.nn.attention`). y is a one-hot label.

Deviations: windows of 2 x 3 taps in place of two shifted streams; one convolution per layer;
residual layers with a normalisation over the channels of one pixel and colour group in front
(no weight normalisation, no statistics of images or batches); several heads; rotary positions
in two dimensions, and smooth functions of the position as inputs, in place of two planes of
coordinates; Bernoulli and softmax heads beside the logistic mixture.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from likely.data.spec import DataSpec
from likely.density.fittable import labels_of
from likely.heads import head_for
from likely.models.common import divided
from likely.models.pixelcnn.settings import PixelSNAILSettings
from likely.nn.attention import CausalAttention, TurnMaps, turns
from likely.nn.channel_norm import ChannelNorm
from likely.nn.masked import GroupedPointwise, linear_gate
from likely.nn.square import MaskedConv
from likely.noise import Dropout
from likely.sampling.incremental import Incremental
from likely.sampling.program import Builder, Cells

# Waves of the position: half a period, one and two over the image, besides the line itself.
WAVES = (1, 2, 4)
PLANES = 2 * (1 + 2 * len(WAVES))


def positions(rows: int, spec: DataSpec, like: Tensor) -> Tensor:
    """Smooth functions of the place of each pixel, [PLANES, rows, W]; those of `spec`'s images."""
    _, height, width = spec.shape
    planes = []
    for count, side, axis in ((rows, height, 0), (width, width, 1)):
        place = (torch.arange(count, dtype=like.dtype, device=like.device) + 0.5) / side
        curves = [2 * place - 1]
        for wave in WAVES:
            curves += [(math.pi * wave * place).sin(), (math.pi * wave * place).cos()]
        lines = torch.stack(curves)  # [PLANES / 2, count]
        planes.append(lines[:, :, None] if axis == 0 else lines[:, None])
    return torch.cat([plane.expand(-1, rows, width) for plane in planes])


class GatedWindow(nn.Module):
    """h + W2 gate(window(norm(h)) + V y), [B, F, H, W]."""

    def __init__(
        self, features: int, kernel: int, groups: int, dropout: float, classes: int, depth: int
    ) -> None:
        super().__init__()
        self.groups = groups
        self.norm = ChannelNorm(features, groups)
        self.window = MaskedConv(features, 2 * features, kernel, "B", groups)
        self.label = nn.Embedding(classes, 2 * features) if classes else None
        self.dropout = Dropout(dropout)
        self.out = GroupedPointwise(features, features, groups)
        with torch.no_grad():
            # A sum of many layers starts no larger than one.
            self.out.weight.mul_(depth**-0.5)

    def forward(self, h: Tensor, context: Tensor | None) -> Tensor:
        seen = self.window(self.norm(h))
        if self.label is not None and context is not None:
            seen = seen + self.label(context)[:, :, None, None]
        change: Tensor = self.out(self.dropout(linear_gate(seen, self.groups)))
        return h + change

    def incremental(self, build: Builder, h: Cells) -> Cells:
        """`forward`."""
        by_label = [] if self.label is None else [build.by_label(self.label.weight)]
        seen = self.window.incremental(build, self.norm.incremental(build, h), by_label)
        return self.out.incremental(build, build.linear_gate(seen, self.groups), [h])


class PixelSNAIL(Incremental):
    """The model; see the module's docstring.

    >>> import torch
    >>> from likely import data, models
    >>> train, _ = data.load("digits")
    >>> _ = torch.manual_seed(0)
    >>> model = models.PixelSNAIL(train.spec, models.PixelSNAILSettings(channels=8, blocks=1))
    >>> model.log_prob(torch.zeros(2, 1, 8, 8, dtype=torch.int64)).shape
    torch.Size([2])

    Args:
        spec: of the data, shape (C, H, W).
        settings: sizes; `PixelSNAILSettings.preset(spec)` by default.
    """

    def __init__(self, spec: DataSpec, settings: PixelSNAILSettings | None = None) -> None:
        settings = settings or PixelSNAILSettings.preset(spec)
        super().__init__(spec, labels_of(spec, settings.conditional))
        self.settings = settings
        self.head = head_for(settings.head, spec, settings.components)
        channels = spec.shape[0]
        groups = self.groups
        divided(groups, channels=settings.channels, head_channels=settings.head_channels)
        features = settings.channels
        self.first = MaskedConv(channels, features, settings.first_kernel, "A", groups)
        self.place = nn.Conv2d(PLANES, features, 1, bias=False)
        self.layers = nn.ModuleList()
        depth = settings.blocks * (settings.convolutions + 1)
        for _ in range(settings.blocks):
            for index in range(settings.convolutions):
                if index == settings.convolutions // 2:
                    self.layers.append(
                        CausalAttention(
                            features,
                            channels,
                            settings.heads,
                            settings.head_size,
                            groups,
                            settings.dropout,
                        )
                    )
                self.layers.append(
                    GatedWindow(
                        features, settings.kernel, groups, settings.dropout, self.classes, depth
                    )
                )
        self.norm = ChannelNorm(features, groups)
        self.hidden = GroupedPointwise(features, settings.head_channels, groups)
        self.output = GroupedPointwise(settings.head_channels, self.head.parameters, groups)

    @property
    def has_blind_spot(self) -> bool:
        return False

    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        image = self.scaled(x)  # [B, C, H, W]
        h = self.first(image) + self.place(positions(x.shape[2], self.spec, image)[None])
        turn = turns(x.shape[2], x.shape[3], self.settings.head_size, image)
        for layer in self.layers:
            attends = isinstance(layer, CausalAttention)
            h = layer(h, image, turn) if attends else layer(h, context)
        parameters: Tensor = self.output(silu(self.hidden(self.norm(h))))
        return parameters

    def incremental(self, build: Builder) -> Cells:
        image, like = build.image(), self.place.weight
        place = self.place(positions(self.spec.shape[1], self.spec, like)[None])[0]
        h = self.first.incremental(build, image, [build.constant(place)])
        turn: TurnMaps | None = None
        for layer in self.layers:
            if isinstance(layer, CausalAttention):
                turn = turn or TurnMaps.of(build, layer.heads, layer.size, like)
                h = layer.incremental(build, h, image, turn)
            else:
                assert isinstance(layer, GatedWindow)
                h = layer.incremental(build, h)
        hidden = self.hidden.incremental(build, self.norm.incremental(build, h))
        return self.output.incremental(build, build.map("silu", hidden))
