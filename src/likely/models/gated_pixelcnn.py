r"""Gated PixelCNN (van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves, Kavukcuoglu 2016).

"Conditional Image Generation with PixelCNN Decoders". log p(x) = sum_i log p(x_i | x_<i) from
two stacks: the vertical one sees all rows above, the horizontal one the pixels to the left in
the current row and, through a 1 x 1 convolution, the vertical stack of the row above. So every
earlier pixel within reach is seen: no blind spot. Each layer computes (eq. 2)

    y = tanh(W_f * x + V_f h) . sigmoid(W_g * x + V_g h)

with h a one-hot class label. The horizontal stack is residual; the vertical one is not.

Deviations: skip connections from every layer to the head (as in the 2016 PixelRNN's ablation);
a ReLU head of two 1 x 1 convolutions; optional dropout after the gate (Salimans 2017) and
dilation; Bernoulli and logistic-mixture heads beside the softmax. The vertical stack includes
its own row and is shifted once, where it feeds the horizontal stack.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from likely.data.spec import Dataset, DataSpec
from likely.density import Autoregressive
from likely.errors import InvalidSetting
from likely.heads import head_for
from likely.models.settings import GatedPixelCNNSettings
from likely.nn.masked import GroupedPointwise, HorizontalConv, Mask, VerticalConv, shift_down
from likely.noise import Dropout
from likely.sampling import Stepper


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
        classes: int,
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
        self.label = nn.Embedding(classes, 4 * features) if classes else None

    def forward(self, v: Tensor, h: Tensor, context: Tensor | None) -> tuple[Tensor, ...]:
        v_in = self.vertical(v)
        h_in = self.horizontal(h) + self.across(shift_down(v_in))
        if self.label is not None and context is not None:
            for_v, for_h = self.label(context)[:, :, None, None].chunk(2, 1)
            v_in, h_in = v_in + for_v, h_in + for_h
        gated = self.dropout(gate(h_in, self.groups))
        out, skip = halves(self.out(gated), self.groups)
        return gate(v_in), h + out if self.residual else out, skip


class GatedPixelCNN(Autoregressive):
    """The model; see the module's docstring.

    Args:
        spec: of the data, shape (C, H, W).
        settings: sizes; `GatedPixelCNNSettings.preset(spec)` by default.
    """

    def __init__(self, spec: DataSpec, settings: GatedPixelCNNSettings | None = None) -> None:
        settings = settings or GatedPixelCNNSettings.preset(spec)
        super().__init__(spec, len(spec.classes) if settings.conditional else 0)
        if settings.conditional and not spec.classes:
            raise InvalidSetting(f"conditional=true needs labels; {spec.name} has none")
        self.settings = settings
        self.head = head_for(settings.head, spec, settings.components)
        image_channels = spec.shape[0]
        self.groups = groups = 1 if self.head.couples_channels else image_channels
        if settings.channels % groups or settings.head_channels % groups:
            raise InvalidSetting(
                f"channels={settings.channels} and head_channels={settings.head_channels} must be "
                f"multiples of the {groups} colour channels"
            )
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
                classes=self.classes,
            )
            for index in range(settings.layers)
        )
        self.hidden = GroupedPointwise(features, settings.head_channels, groups)
        self.output = GroupedPointwise(settings.head_channels, self.head.parameters, groups)

    def start_at(self, data: Dataset) -> None:
        """Nothing: the output bias is one for all pixels, and the first steps find it."""

    @property
    def has_blind_spot(self) -> bool:
        return False

    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        v = h = self.scaled(x)  # [B, C, H, W]
        total: Tensor | None = None
        for layer in self.layers:
            v, h, skip = layer(v, h, context)
            total = skip if total is None else total + skip
        assert total is not None
        parameters: Tensor = self.output(relu(self.hidden(relu(total))))
        return parameters

    def stepper(self, batch: int, context: Tensor | None) -> Stepper:
        return GatedStepper(self, batch, context)


class GatedStepper(Stepper):
    """A Gated PixelCNN that evaluates a row of the vertical stack, a pixel of the horizontal.

    The vertical stack's contribution to a row waits in `across`; the horizontal stack's features
    of the current row are kept column by column, as many as a kernel reaches back.
    """

    def __init__(self, model: GatedPixelCNN, batch: int, context: Tensor | None) -> None:
        self.model, self.batch = model, batch
        self.groups, self.width = model.groups, model.spec.shape[2]
        self.layers = [layer for layer in model.layers if isinstance(layer, GatedLayer)]
        self.rings = [layer.vertical.ring(batch, self.width) for layer in self.layers]
        self.horizontal = [layer.horizontal.matrices(self.groups) for layer in self.layers]
        self.out = [layer.out.matrices(self.groups) for layer in self.layers]
        self.head = [m.matrices(self.groups) for m in (model.hidden, model.output)]
        self.labels: list[Tensor | None] = [
            layer.label(context) if layer.label is not None and context is not None else None
            for layer in self.layers
        ]
        self.across: list[list[Tensor]] = []
        self.lines: list[Tensor] = []
        self.here: list[Tensor] = []
        self.parameters = model.output.weight.new_zeros(batch, model.head.parameters)

    def begin_row(self, above: Tensor | None) -> None:
        v = None if above is None else self.model.scaled(above)[:, :, None]  # [B, C, 1, W]
        self.across = []
        for layer, ring, label in zip(self.layers, self.rings, self.labels, strict=True):
            if v is None:
                shifted = layer.across.weight.new_zeros(
                    self.batch, layer.across.in_channels, 1, self.width
                )
            else:
                shifted = layer.vertical.row(ring, v)
                above_label = 0 if label is None else label.chunk(2, 1)[0][:, :, None, None]
                v = gate(shifted + above_label)
            total = layer.across(shifted)[:, :, 0]  # [B, 2F, W]
            bias = layer.horizontal.bias
            assert bias is not None
            total = total + bias[:, None]
            if label is not None:
                total = total + label.chunk(2, 1)[1][:, :, None]
            # Column by column, and colour group by group: [W, B, 2F / G].
            columns = total.permute(2, 0, 1)
            self.across.append([part.contiguous() for part in columns.chunk(self.groups, 2)])
        # What a horizontal kernel reads: its input features of this row, with padding in front.
        self.lines = [
            layer.horizontal.weight.new_zeros(
                layer.horizontal.taps * layer.horizontal.dilation + self.width,
                self.batch,
                layer.horizontal.weight.shape[1],
            )
            for layer in self.layers
        ]

    def pixel(self, row: Tensor, column: int, channel: int) -> Tensor:
        group = channel if self.groups > 1 else 0
        if self.groups == 1 and channel > 0:
            return self.parameters
        first = self.layers[0].horizontal
        side = first.taps * first.dilation
        if column and group == 0:
            # The pixel to the left is complete now.
            self.lines[0][side + column - 1] = self.model.scaled(row[:, :, column - 1])
        if group:
            self.lines[0][side + column] = self.model.scaled(row[:, :, column])
        h: Tensor | None = None
        total: Tensor | None = None
        for index, layer in enumerate(self.layers):
            conv, line = layer.horizontal, self.lines[index]
            side = conv.taps * conv.dilation
            if h is not None:
                part = h.shape[1]
                line[side + column, :, group * part : (group + 1) * part] = h
            taps = [line[side + c] for c in conv.columns(column)]
            seen = torch.cat(taps, 1) if len(taps) > 1 else taps[0]
            h_in = torch.addmm(
                self.across[index][group][column], seen, self.horizontal[index][group]
            )
            gated = self._with_groups_before(index, gate(h_in), group)
            out, skip = torch.addmm(
                layer.out.biases(self.groups)[group], gated, self.out[index][group]
            ).chunk(2, 1)
            h = out if h is None else h + out
            total = skip if total is None else total + skip
        assert total is not None
        hidden = self._with_groups_before(-2, relu(total), group)
        hidden = torch.addmm(
            self.model.hidden.biases(self.groups)[group], hidden, self.head[0][group]
        )
        hidden = self._with_groups_before(-1, relu(hidden), group)
        found = torch.addmm(
            self.model.output.biases(self.groups)[group], hidden, self.head[1][group]
        )
        size = found.shape[1]
        self.parameters[:, group * size : (group + 1) * size] = found
        return self.parameters

    def _with_groups_before(self, place: int, x: Tensor, group: int) -> Tensor:
        """Join the features of this pixel's earlier colour groups and these, [B, F so far]."""
        if self.groups == 1:
            return x
        if group == 0 and place == 0:
            self.here = [torch.empty(0)] * (len(self.layers) + 2)
        joined = x if group == 0 else torch.cat([self.here[place], x], 1)
        self.here[place] = joined
        return joined
