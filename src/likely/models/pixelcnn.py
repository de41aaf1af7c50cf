r"""PixelCNN (van den Oord, Kalchbrenner, Kavukcuoglu 2016, "Pixel Recurrent Neural Networks").

log p(x) = sum_i log p(x_i | x_<i) from a stack of masked square convolutions: a 7 x 7 one with
mask A, then residual blocks (fig. 5, with h and 2 h feature maps)

    x + 1x1(relu(3x3(relu(1x1(relu(x))))))      2 h -> h -> h -> 2 h, all with mask B,

then two layers (relu, 1 x 1 with mask B) and the parameters of the head. With R, G, B the
features come in three groups, and group c sees groups up to c of its own pixel; that split holds
through every layer.

The blind spot: m rows up the context ends 2 + m columns to the right (7 x 7, then any number of
3 x 3), so part of the past is never seen, whatever the depth. `reach` says so and a test
measures it; `GatedPixelCNN` has none.

Deviations: Bernoulli and logistic-mixture heads beside the softmax; optional dropout in the
blocks; a label is a bias of each block's 3 x 3 convolution.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from likely.data.spec import Dataset, DataSpec
from likely.density import Autoregressive
from likely.errors import InvalidSetting
from likely.heads import head_for
from likely.models.settings import PixelCNNSettings
from likely.nn.masked import GroupedPointwise
from likely.nn.square import MaskedConv
from likely.noise import Dropout
from likely.sampling import Stepper


class ResidualBlock(nn.Module):
    """x + 1x1(relu(kxk(relu(1x1(relu(x)))))), [B, 2 h, H, W]."""

    def __init__(
        self, channels: int, kernel: int, *, groups: int, dropout: float, classes: int
    ) -> None:
        super().__init__()
        self.reduce = GroupedPointwise(2 * channels, channels, groups)
        self.conv = MaskedConv(channels, channels, kernel, "B", groups)
        self.dropout = Dropout(dropout)
        self.expand = GroupedPointwise(channels, 2 * channels, groups)
        self.label = nn.Embedding(classes, channels) if classes else None

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        middle = self.conv(relu(self.reduce(relu(x))))
        if self.label is not None and context is not None:
            middle = middle + self.label(context)[:, :, None, None]
        change: Tensor = self.expand(self.dropout(relu(middle)))
        return x + change


class PixelCNN(Autoregressive):
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
        h = settings.channels
        self.first = MaskedConv(image_channels, 2 * h, settings.first_kernel, "A", groups)
        self.layers = nn.ModuleList(
            ResidualBlock(
                h, settings.kernel, groups=groups, dropout=settings.dropout, classes=self.classes
            )
            for _ in range(settings.layers)
        )
        self.hidden = nn.ModuleList(
            GroupedPointwise(2 * h if index == 0 else settings.head_channels,
                             settings.head_channels, groups)
            for index in range(2)
        )  # fmt: skip
        self.output = GroupedPointwise(settings.head_channels, self.head.parameters, groups)

    def start_at(self, data: Dataset) -> None:
        """Nothing: the output bias is one for all pixels, and the first steps find it."""

    @property
    def has_blind_spot(self) -> bool:
        return True

    def reach(self, rows: int) -> int:
        """How many columns to the right of a pixel its context extends, `rows` >= 1 rows up.

        Each layer that takes k // 2 columns to the right also takes at least one row up; a
        first layer that stays in the row takes a column to the left, or an earlier channel.
        """
        first, other = self.settings.first_kernel // 2, self.settings.kernel // 2
        upwards = first + other * min(rows - 1, self.settings.layers)
        in_row = other * min(rows, self.settings.layers) - (1 if self.groups == 1 else 0)
        return int(max(upwards, in_row))

    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        h = self.first(self.scaled(x))  # [B, 2 h, H, W]
        for layer in self.layers:
            h = layer(h, context)
        for layer in self.hidden:
            h = layer(relu(h))
        parameters: Tensor = self.output(relu(h))
        return parameters

    def stepper(self, batch: int, context: Tensor | None) -> Stepper:
        return PixelCNNStepper(self, batch, context)


class PixelCNNStepper(Stepper):
    """A PixelCNN that evaluates a pixel at a time.

    What the rows above contribute to a row is computed when the row begins, for all its columns;
    a pixel then costs the left half of each kernel. The input features of each masked
    convolution are kept for the current row in `lines`, with padding in front.
    """

    def __init__(self, model: PixelCNN, batch: int, context: Tensor | None) -> None:
        self.model, self.groups, self.width = model, model.groups, model.spec.shape[2]
        self.blocks = [block for block in model.layers if isinstance(block, ResidualBlock)]
        self.convs = [model.first, *(block.conv for block in self.blocks)]
        self.rings = [conv.ring(batch, self.width) for conv in self.convs]
        self.lines = [
            ring.new_zeros(conv.taps + self.width, batch, ring.shape[1])
            for conv, ring in zip(self.convs, self.rings, strict=True)
        ]
        self.kernels = [conv.row.matrices(self.groups) for conv in self.convs]
        self.reduce = [_Pointwise(block.reduce, self.groups) for block in self.blocks]
        self.expand = [_Pointwise(block.expand, self.groups) for block in self.blocks]
        last = [layer for layer in model.hidden if isinstance(layer, GroupedPointwise)]
        self.last = [_Pointwise(layer, self.groups) for layer in (*last, model.output)]
        labels = [
            None if block.label is None or context is None else block.label(context)
            for block in self.blocks
        ]
        self.labels: list[Tensor | None] = [None, *labels]
        self.across: list[list[Tensor]] = []
        self.stepped = 0
        self.parameters = model.output.weight.new_zeros(batch, model.head.parameters)

    def begin_row(self, above: Tensor | None) -> None:
        if above is not None:
            # A row that was given, not drawn: its features are computed here.
            for column in range(self.stepped, self.width):
                for channel in range(above.shape[1]):
                    self.pixel(above, column, channel)
            # The last pixel of the row above is complete now.
            self.lines[0][self.convs[0].taps :] = self.model.scaled(above).permute(2, 0, 1)
        self.stepped = 0
        self.across = []
        for conv, ring, line, label in zip(
            self.convs, self.rings, self.lines, self.labels, strict=True
        ):
            complete = None if above is None else line[conv.taps :].permute(1, 2, 0)
            total = conv.from_above(ring, complete)  # [B, F, W]
            if label is not None:
                total = total + label[:, :, None]
            columns = total.permute(2, 0, 1)
            self.across.append([part.contiguous() for part in columns.chunk(self.groups, 2)])
            line.zero_()

    def pixel(self, row: Tensor, column: int, channel: int) -> Tensor:
        group = channel if self.groups > 1 else 0
        if self.groups == 1 and channel > 0:
            return self.parameters
        self.stepped = column + 1
        side = self.convs[0].taps
        if column and group == 0:
            self.lines[0][side + column - 1] = self.model.scaled(row[:, :, column - 1])
        if group:
            self.lines[0][side + column] = self.model.scaled(row[:, :, column])
        h = self._masked(0, column, group)
        for index in range(len(self.blocks)):
            middle = relu(self.reduce[index](relu(h), group))
            line, part = self.lines[index + 1], middle.shape[1]
            here = line[self.convs[index + 1].taps + column]
            here[:, group * part : (group + 1) * part] = middle
            h = h + self.expand[index](relu(self._masked(index + 1, column, group)), group)
        for layer in self.last:
            h = layer(relu(h), group)
        size = h.shape[1]
        self.parameters[:, group * size : (group + 1) * size] = h
        return self.parameters

    def _masked(self, index: int, column: int, group: int) -> Tensor:
        """A masked convolution at a pixel, one colour group of it: [B, out / G]."""
        conv, line = self.convs[index], self.lines[index]
        taps = line[column : column + conv.row.weight.shape[3]]  # [width, B, in]
        seen = taps.transpose(0, 1).flatten(1)
        return torch.addmm(self.across[index][group][column], seen, self.kernels[index][group])


class _Pointwise:
    """A `GroupedPointwise` at one pixel, a colour group after another."""

    def __init__(self, layer: GroupedPointwise, groups: int) -> None:
        self.matrices, self.biases = layer.matrices(groups), layer.biases(groups)
        self.before: list[Tensor] = []

    def __call__(self, x: Tensor, group: int) -> Tensor:
        """The group's outputs from its inputs, [B, in / G] to [B, out / G]."""
        self.before = [*self.before[:group], x]
        seen = x if group == 0 else torch.cat(self.before, 1)
        return torch.addmm(self.biases[group], seen, self.matrices[group])
