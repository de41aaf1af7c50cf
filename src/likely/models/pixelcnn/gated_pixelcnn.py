r"""Gated PixelCNN (van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves, Kavukcuoglu 2016).

"Conditional Image Generation with PixelCNN Decoders", https://arxiv.org/abs/1606.05328.

log p(x) = sum_i log p(x_i | x_<i) from two stacks: the vertical one sees all rows above, the
horizontal one the pixels to the left in the current row and, through a 1 x 1 convolution, the
vertical stack of the row above. So every earlier pixel within reach is seen: no blind spot. Each
layer computes (eq. 2)

    y = tanh(W_f * x + V_f h) . sigmoid(W_g * x + V_g h)

with h a one-hot class label or a vector; a map s instead enters as V * s, an unmasked 1 x 1
convolution (eq. 5), and so depends on the place. The horizontal stack is residual; the vertical
one is not.

Deviations: skip connections from every layer to the head (as in the 2016 PixelRNN's ablation);
a ReLU head of two 1 x 1 convolutions; optional dropout after the gate (Salimans 2017) and
dilation; Bernoulli and logistic-mixture heads beside the softmax. The vertical stack includes
its own row and is shifted once, where it feeds the horizontal stack. Drawing may begin at
another corner of the image than the top left; `GatedPixelCNNEnsemble` is the mixture of networks
that begin at different corners, log p(x) = log (1/K) sum_k p_k(x) (as Uria, Murray and Larochelle
2014 mix orders). `GatedPixelCNNOrders` mixes one network's densities in eight orders, by rows or by
columns from each corner: the order enters as a label, and each training example is shown in an
order drawn at random, which also keeps the network from overfitting (Jain,
Abbeel and Pathak 2020 share a network between orders, Jun et al. 2020 between augmentations).
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from likely.data.spec import DataSpec
from likely.density import Ensemble, conditioned_on
from likely.devices.precision import full_precision
from likely.errors import InvalidSetting
from likely.heads import head_for
from likely.models.common import divided
from likely.models.pixelcnn.corners import (
    CORNERS,
    REVERSED,
    rank_from,
    rank_in,
    turned,
    turned_back,
)
from likely.models.pixelcnn.settings import (
    GatedPixelCNNEnsembleSettings,
    GatedPixelCNNOrdersSettings,
    GatedPixelCNNSettings,
)
from likely.nn.condition import optional_condition
from likely.nn.masked import (
    GroupedPointwise,
    HorizontalConv,
    Mask,
    VerticalConv,
    pointwise,
    shift_down,
)
from likely.noise import Dropout, Noise
from likely.sampling.incremental import Incremental, IncrementalMixture
from likely.sampling.program import Builder, Cells, shifted


def halves(x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Split the features in two, keeping the colour groups in order in each half."""
    if groups == 1:
        first, second = x.chunk(2, 1)
        return first, second
    b, features = x.shape[:2]
    by_group = x.reshape(b, groups, features // groups, *x.shape[2:])  # [B, G, F / G, H, W]
    first, second = by_group.chunk(2, 2)
    return first.flatten(1, 2), second.flatten(1, 2)


def gate(x: Tensor, groups: int = 1) -> Tensor:
    """tanh of one half of the features times sigmoid of the other."""
    f, g = halves(x, groups)
    return torch.tanh(f) * torch.sigmoid(g)


class GatedLayer(nn.Module):
    """One layer of both stacks: (v, h) -> (v, h, skip), each [B, F, H, W]."""

    def __init__(
        self,
        inputs: int,
        features: int,
        kernel: int,
        dilation: int,
        *,
        first: bool,
        groups: int,
        dropout: float,
        context: tuple[int, tuple[int, ...]],
    ) -> None:
        super().__init__()
        self.groups = groups
        self.vertical = VerticalConv(inputs, 2 * features, kernel, dilation)
        mask: Mask = "A" if first else "B"
        self.horizontal = HorizontalConv(inputs, 2 * features, kernel // 2, mask, groups, dilation)
        self.across = nn.Conv2d(2 * features, 2 * features, 1)
        self.dropout = Dropout(dropout)
        self.out = GroupedPointwise(features, 2 * features, groups)
        self.residual = not first
        self.condition = optional_condition(*context, 4 * features)

    def forward(self, v: Tensor, h: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
        v_in = self.vertical(v)
        h_in = self.horizontal(h) + self.across(shift_down(v_in))
        if self.condition is not None and context is not None:
            for_v, for_h = self.condition(context, v_in.shape[2]).chunk(2, 1)
            v_in, h_in = v_in + for_v, h_in + for_h
        gated = self.dropout(gate(h_in, self.groups))
        out, skip = halves(self.out(gated), self.groups)
        return gate(v_in), h + out if self.residual else out, skip

    def incremental(
        self, build: Builder, v: Cells, h: Cells, total: Cells | None, labels: slice = slice(None)
    ) -> tuple[Cells, Cells, Cells]:
        """`forward`, with the skip connection added to `total`; `labels` as in `Condition`."""
        v_in = self.vertical.incremental(build, v)
        v_given = v_in
        for_h: tuple[Cells, ...] = ()
        if self.condition is not None:
            half = v_in.features
            parts = slice(half), slice(half, None)
            for_v, below = (
                self.condition.incremental(build, features=part, labels=labels) for part in parts
            )
            v_given, for_h = build.add(v_in, for_v), (below,)
        across = pointwise(build, shifted(v_in, 1), self.across.weight, self.across.bias, for_h)
        h_in = self.horizontal.incremental(build, h, [across])
        gated = build.gate(h_in, self.groups)
        features = torch.arange(2 * gated.features)[None]
        first, second = (half[0] for half in halves(features, self.groups))
        out = self.out.incremental(build, gated, [h] if self.residual else (), first)
        skips = self.out.incremental(build, gated, () if total is None else [total], second)
        return build.gate(v_given), out, skips


class GatedPixelCNN(Incremental):
    """The model; see the module's docstring.

    Args:
        spec: of the data, shape (C, H, W).
        settings: sizes; `GatedPixelCNNSettings.preset(spec)` by default.
    """

    def __init__(self, spec: DataSpec, settings: GatedPixelCNNSettings | None = None) -> None:
        settings = settings or GatedPixelCNNSettings.preset(spec)
        super().__init__(spec, *conditioned_on(spec, settings.conditional))
        self.settings = settings
        self.head = head_for(settings.head, spec, settings.components)
        self.reversed = REVERSED[settings.start]
        if self.reversed and len(self.context_shape) > 1:
            raise InvalidSetting(
                f"start={settings.start} cannot be combined with a map as context, whose "
                "places count from the top left"
            )
        self.rank = rank_from(settings.start, spec)
        image_channels = spec.shape[0]
        groups = self.groups
        divided(groups, channels=settings.channels, head_channels=settings.head_channels)
        features = settings.channels
        self.layers = nn.ModuleList(
            GatedLayer(
                image_channels if index == 0 else features,
                features,
                settings.first_kernel if index == 0 else settings.kernel,
                1 if index == 0 else settings.dilations[(index - 1) % len(settings.dilations)],
                first=index == 0,
                groups=groups,
                dropout=settings.dropout,
                context=(self.classes, self.context_shape),
            )
            for index in range(settings.layers)
        )
        self.hidden = GroupedPointwise(features, settings.head_channels, groups)
        self.output = GroupedPointwise(settings.head_channels, self.head.parameters, groups)

    @property
    def has_blind_spot(self) -> bool:
        return False

    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        v = h = self.scaled(x).flip(self.reversed)  # [B, C, H, W]
        total: Tensor | None = None
        for layer in self.layers:
            v, h, skip = layer(v, h, context)
            total = skip if total is None else total + skip
        assert total is not None
        parameters: Tensor = self.output(relu(self.hidden(relu(total))))
        return parameters.flip(self.reversed)

    def incremental(self, build: Builder, labels: slice = slice(None)) -> Cells:
        v = h = build.image()
        total: Cells | None = None
        for layer in self.layers:
            assert isinstance(layer, GatedLayer)
            v, h, total = layer.incremental(build, v, h, total, labels)
        assert total is not None
        hidden = self.hidden.incremental(build, build.relu(total))
        return self.output.incremental(build, build.relu(hidden))


class GatedPixelCNNEnsemble(Ensemble):
    """A mixture of Gated PixelCNNs, each with its own weights, from different corners.

    Args:
        spec: of the data, shape (C, H, W).
        settings: `GatedPixelCNNEnsembleSettings.preset(spec)` by default.
    """

    def __init__(
        self, spec: DataSpec, settings: GatedPixelCNNEnsembleSettings | None = None
    ) -> None:
        settings = settings or GatedPixelCNNEnsembleSettings.preset(spec)
        super().__init__(
            [
                GatedPixelCNN(spec, GatedPixelCNNSettings(**settings.of_one(start=corner)))
                for corner in CORNERS[: settings.corners]
            ],
            settings,
        )


class GatedPixelCNNOrders(IncrementalMixture):
    """A mixture of one Gated PixelCNN's densities in several orders; see the module's docstring.

    The label of the network is the image's times the number of orders, plus the order.

    Args:
        spec: of the data, shape (C, H, W); H = W for more than four orders.
        settings: `GatedPixelCNNOrdersSettings.preset(spec)` by default.

    Raises:
        InvalidSetting: more orders than the shape has, or a condition on labels that are not there.
    """

    def __init__(self, spec: DataSpec, settings: GatedPixelCNNOrdersSettings | None = None) -> None:
        settings = settings or GatedPixelCNNOrdersSettings.preset(spec)
        if settings.orders > 4 and spec.grid[1] != spec.grid[2]:
            raise InvalidSetting(
                f"an image of {spec.grid[1]} x {spec.grid[2]} has four orders by rows only: "
                f"it cannot be turned; given orders={settings.orders}"
            )
        classes, _ = conditioned_on(dataclasses.replace(spec, context=()), settings.conditional)
        labels = tuple(map(str, range(settings.orders * max(1, classes))))
        of_orders = dataclasses.replace(spec, classes=labels, context=())
        network = GatedPixelCNN(of_orders, settings.of_network())
        ranks = torch.stack([rank_in(spec, number) for number in range(settings.orders)])
        super().__init__(spec, classes, network, ranks, settings)

    def choices(self, noise: Noise) -> tuple[int, ...]:
        """Nothing: each example is shown in an order of its own."""
        return ()

    @full_precision
    def surrogate(self, x: Tensor, noise: Noise, context: Tensor | None = None) -> Tensor:
        x, context, orders = self.integers(x), self.labels(context, len(x)), self.alternatives
        numbers = (noise.uniform(len(x), dtype=torch.float32) * orders).long().to(self.device)
        every = torch.stack([turned(x, number) for number in range(orders)])
        shown = every[numbers, torch.arange(len(x), device=x.device)]
        labels = numbers if context is None else context * orders + numbers
        return self.network.log_prob(shown, labels)

    def conditionals_in(self, number: int, x: Tensor, context: Tensor | None = None) -> Tensor:
        labels = torch.full((len(x),), number, device=x.device)
        if context is not None:
            labels = labels + context * self.alternatives
        return turned_back(self.network.conditionals(turned(x, number), labels), number)

    def incremental_in(self, number: int, build: Builder) -> Cells:
        assert isinstance(self.network, GatedPixelCNN)
        return self.network.incremental(build, slice(number, None, self.alternatives))
