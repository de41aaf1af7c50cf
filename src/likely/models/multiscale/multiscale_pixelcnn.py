r"""Multi-scale PixelCNN (van den Oord, Kalchbrenner, Kavukcuoglu 2016, section 3.6).

"Pixel Recurrent Neural Networks", https://arxiv.org/abs/1601.06759.

A small image s(x), every f-th pixel of x in both directions,
comes first, the other pixels in raster order after it:

    log p(x) = log p(s(x)) + sum_{i not in s(x)} log p(x_i | s(x), x_j of earlier raster places)

The pixels of the small image are not drawn again: only the others are modelled. So this is the
chain rule in another order, and the density is exact. (A second
model of *all* pixels, as in the paper, also gives mass to images that disagree with s(x); its
product with p(s(x)) is only a lower bound.)

The small image is modelled by a Gated PixelCNN. Of it, transposed convolutions make a feature
map of the full size, which enters every layer of the second network through an unmasked 1 x 1
convolution. That network is a stack of gated causal windows,

    h <- h + W2 [a . sigmoid(b)],   (a, b) = window(norm(h)) + U map + V y

Deviations: PixelCNN layers instead of the paper's LSTMs.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from likely.data.spec import DataSpec
from likely.density.fittable import labels_of
from likely.heads import head_for
from likely.models.common import divided
from likely.models.multiscale.settings import MultiscalePixelCNNSettings
from likely.models.pixelcnn.gated_pixelcnn import GatedPixelCNN
from likely.models.pixelcnn.settings import GatedPixelCNNSettings
from likely.nn.channel_norm import ChannelNorm
from likely.nn.masked import GroupedPointwise, linear_gate, pointwise
from likely.nn.residual import Enlarge
from likely.nn.square import MaskedConv
from likely.noise import Dropout
from likely.sampling.ancestral import Stepper
from likely.sampling.program import Builder, Cells, Program
from likely.sampling.small_first import SmallFirst
from likely.sampling.torch_executor import TorchExecutor


class MappedWindow(nn.Module):
    """h + W2 gate(window(norm(h)) + U map + V y), [B, F, H, W]."""

    def __init__(
        self, features: int, mapped: int, kernel: int, groups: int, dropout: float, classes: int
    ) -> None:
        super().__init__()
        self.groups = groups
        self.norm = ChannelNorm(features, groups)
        self.window = MaskedConv(features, 2 * features, kernel, "B", groups)
        # Unmasked: the small image is known before all other pixels.
        self.map = nn.Conv2d(mapped, 2 * features, 1, bias=False)
        self.label = nn.Embedding(classes, 2 * features) if classes else None
        self.dropout = Dropout(dropout)
        self.out = GroupedPointwise(features, features, groups)

    def forward(self, h: Tensor, mapped: Tensor, context: Tensor | None) -> Tensor:
        seen = self.window(self.norm(h)) + self.map(mapped)
        if self.label is not None and context is not None:
            seen = seen + self.label(context)[:, :, None, None]
        change: Tensor = self.out(self.dropout(linear_gate(seen, self.groups)))
        return h + change

    def incremental(self, build: Builder, h: Cells, mapped: Cells) -> Cells:
        """`forward`."""
        maps = [pointwise(build, mapped, self.map.weight, None)]
        if self.label is not None:
            maps.append(build.by_label(self.label.weight))
        seen = self.window.incremental(build, self.norm.incremental(build, h), maps)
        return self.out.incremental(build, build.linear_gate(seen, self.groups), [h])


class MultiscalePixelCNN(SmallFirst):
    """The model; see the module's docstring.

    >>> import torch
    >>> from likely import data, models
    >>> train, _ = data.load("digits")
    >>> _ = torch.manual_seed(0)
    >>> model = models.MultiscalePixelCNN(train.spec)
    >>> x = torch.zeros(1, 1, 8, 8, dtype=torch.int64)
    >>> small = model.rank < 16  # the pixels of the 4 x 4 image
    >>> model.complete(x, small, seed=0).shape  # p(x | small image), exactly
    torch.Size([1, 1, 8, 8])

    Args:
        spec: of the data, shape (C, H, W).
        settings: sizes; `MultiscalePixelCNNSettings.preset(spec)` by default.
    """

    def __init__(self, spec: DataSpec, settings: MultiscalePixelCNNSettings | None = None) -> None:
        settings = s = settings or MultiscalePixelCNNSettings.preset(spec)
        super().__init__(spec, labels_of(spec, settings.conditional))
        self.settings = settings
        self.head = head_for(settings.head, spec, settings.components)
        channels, height, width = spec.shape
        groups = self.groups
        divided(groups, channels=settings.channels, head_channels=settings.head_channels)
        small = dataclasses.replace(
            spec, shape=(channels, -(-height // s.factor), -(-width // s.factor))
        )
        of_small = GatedPixelCNN(
            small,
            GatedPixelCNNSettings(
                channels=s.channels,
                layers=s.small_layers,
                kernel=s.kernel,
                first_kernel=s.first_kernel,
                head=s.head,
                components=s.components,
                head_channels=s.head_channels,
                dropout=s.dropout,
                conditional=s.conditional,
            ),
        )
        self.begin_with(of_small, s.factor)
        self.enlarge = Enlarge(channels, s.map_channels, s.factor, (height, width))
        self.first = MaskedConv(channels, s.channels, s.first_kernel, "A", groups)
        self.layers = nn.ModuleList(
            MappedWindow(s.channels, s.map_channels, s.kernel, groups, s.dropout, self.classes)
            for _ in range(s.layers)
        )
        self.norm = ChannelNorm(s.channels, groups)
        self.hidden = GroupedPointwise(s.channels, s.head_channels, groups)
        self.output = GroupedPointwise(s.head_channels, self.head.parameters, groups)

    def mapped(self, x: Tensor) -> Tensor:
        """The feature map of the small image, [B, M, H, W]."""
        mapped: Tensor = self.enlarge(self.of_small(self.scaled(x)))
        return mapped

    def other_conditionals(self, x: Tensor, context: Tensor | None) -> Tensor:
        mapped, h = self.mapped(x), self.first(self.scaled(x))
        for layer in self.layers:
            h = layer(h, mapped, context)
        parameters: Tensor = self.output(silu(self.hidden(self.norm(h))))
        return parameters

    def other_stepper(self, x: Tensor, context: Tensor | None) -> Stepper:
        program = self.program(self.mapped(x))
        return Stepper(program, TorchExecutor(program, len(x), context))

    @torch.no_grad()
    def program(self, mapped: Tensor) -> Program:
        """Incremental evaluation of the second network, given its feature map [B, M, H, W]."""
        build = Builder(self.spec.shape, self.spec.levels, self.groups)
        maps = build.by_image(mapped)
        h = self.first.incremental(build, build.image())
        for layer in self.layers:
            assert isinstance(layer, MappedWindow)
            h = layer.incremental(build, h, maps)
        hidden = self.hidden.incremental(build, self.norm.incremental(build, h))
        return build.finish(self.output.incremental(build, build.map("silu", hidden)))
