r"""PixelCNN (van den Oord, Kalchbrenner, Kavukcuoglu 2016, "Pixel Recurrent Neural Networks").

https://arxiv.org/abs/1601.06759

log p(x) = sum_i log p(x_i | x_<i) from a stack of masked square convolutions: a 7 x 7 one with
mask A, then residual blocks (fig. 5, with h and 2 h feature maps)

    x + 1x1(relu(3x3(relu(1x1(relu(x))))))      2 h -> h -> h -> 2 h, all with mask B,

then two layers (relu, 1 x 1 with mask B) and the parameters of the head. With R, G, B the
features come in three groups, and group c sees groups up to c of its own pixel; that split holds
through every layer.

The blind spot: m rows up the context ends 2 + m columns to the right (7 x 7, then any number of
3 x 3), so some earlier pixels are never seen, whatever the depth. `reach` returns the limit
and a test measures it; `GatedPixelCNN` has no blind spot.

Deviations: Bernoulli and logistic-mixture heads beside the softmax; optional dropout in the
blocks, and dilation, which learns distant dependencies in fewer updates (the blind spot
stays as it is); a label, a vector or a map is a term of each block's 3 x 3 convolution.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from likely.data.spec import DataSpec
from likely.density import conditioned_on
from likely.heads import head_for
from likely.models.common import divided
from likely.models.pixelcnn.settings import PixelCNNSettings
from likely.nn.condition import optional_condition
from likely.nn.masked import GroupedPointwise
from likely.nn.square import MaskedConv
from likely.noise import Dropout
from likely.sampling.incremental import Incremental
from likely.sampling.program import Builder, Cells


class ResidualBlock(nn.Module):
    """x + 1x1(relu(kxk(relu(1x1(relu(x)))))), [B, 2 h, H, W]."""

    def __init__(
        self,
        channels: int,
        kernel: int,
        dilation: int,
        *,
        groups: int,
        dropout: float,
        context: tuple[int, tuple[int, ...]],
    ) -> None:
        super().__init__()
        self.reduce = GroupedPointwise(2 * channels, channels, groups)
        self.conv = MaskedConv(channels, channels, kernel, "B", groups, dilation)
        self.dropout = Dropout(dropout)
        self.expand = GroupedPointwise(channels, 2 * channels, groups)
        self.condition = optional_condition(*context, channels)

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        middle = self.conv(relu(self.reduce(relu(x))))
        if self.condition is not None and context is not None:
            middle = middle + self.condition(context, middle.shape[2])
        change: Tensor = self.expand(self.dropout(relu(middle)))
        return x + change

    def incremental(self, build: Builder, x: Cells) -> Cells:
        """`forward`, pixel by pixel."""
        terms = [] if self.condition is None else [self.condition.incremental(build)]
        middle = build.relu(self.reduce.incremental(build, build.relu(x)))
        middle = self.conv.incremental(build, middle, terms)
        return self.expand.incremental(build, build.relu(middle), [x])


def largest_sum(terms: Sequence[int], limit: int) -> int:
    """The largest sum of some of the terms that is at most `limit`.

    >>> largest_sum([1, 2, 4], 5), largest_sum([4, 4], 7)
    (5, 4)
    """
    sums = {0}
    for term in terms:
        sums |= {total + term for total in sums if total + term <= limit}
    return max(sums)


class PixelCNN(Incremental):
    """The model; see the module's docstring.

    Args:
        spec: of the data, shape (C, H, W).
        settings: sizes; `PixelCNNSettings.preset(spec)` by default.

    >>> spec = DataSpec("toy", (1, 8, 8), 2)
    >>> model = PixelCNN(spec, PixelCNNSettings(channels=4, layers=2))
    >>> [model.reach(rows) for rows in (1, 2, 3)]
    [3, 4, 5]
    """

    def __init__(self, spec: DataSpec, settings: PixelCNNSettings | None = None) -> None:
        settings = settings or PixelCNNSettings.preset(spec)
        super().__init__(spec, *conditioned_on(spec, settings.conditional))
        self.settings = settings
        self.head = head_for(settings.head, spec, settings.components)
        image_channels = spec.shape[0]
        groups = self.groups
        divided(groups, channels=settings.channels, head_channels=settings.head_channels)
        rotation = settings.dilations
        self.dilations = [rotation[index % len(rotation)] for index in range(settings.layers)]
        h = settings.channels
        self.first = MaskedConv(image_channels, 2 * h, settings.first_kernel, "A", groups)
        self.layers = nn.ModuleList(
            ResidualBlock(
                h,
                settings.kernel,
                dilation,
                groups=groups,
                dropout=settings.dropout,
                context=(self.classes, self.context_shape),
            )
            for dilation in self.dilations
        )
        self.hidden = nn.ModuleList(
            GroupedPointwise(
                2 * h if index == 0 else settings.head_channels, settings.head_channels, groups
            )
            for index in range(2)
        )
        self.output = GroupedPointwise(settings.head_channels, self.head.parameters, groups)

    def reach(self, rows: int) -> int:
        """How many columns to the right of a pixel its context extends, `rows` >= 1 rows up.

        A layer of dilation d that takes d (k // 2) columns to the right also takes at least d
        rows up; a first layer that stays in the row takes a column to the left, or an earlier
        channel.
        """
        first, other = self.settings.first_kernel // 2, self.settings.kernel // 2
        upwards = first + other * largest_sum(self.dilations, rows - 1)
        in_row = other * largest_sum(self.dilations, rows) - (1 if self.groups == 1 else 0)
        return int(max(upwards, in_row))

    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        # A convolution of one channel forgets the order of memory in which the others are fast.
        h = self.first(self.scaled(x)).contiguous(memory_format=torch.channels_last)
        for layer in self.layers:
            h = layer(h, context)
        for layer in self.hidden:
            h = layer(relu(h))
        parameters: Tensor = self.output(relu(h))
        return parameters

    def incremental(self, build: Builder) -> Cells:
        h = self.first.incremental(build, build.image())
        for block in self.layers:
            assert isinstance(block, ResidualBlock)
            h = block.incremental(build, h)
        for layer in self.hidden:
            assert isinstance(layer, GroupedPointwise)
            h = layer.incremental(build, build.relu(h))
        return self.output.incremental(build, build.relu(h))
