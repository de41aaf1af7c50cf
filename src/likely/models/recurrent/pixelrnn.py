r"""PixelRNN: Row LSTM and Diagonal BiLSTM (van den Oord, Kalchbrenner, Kavukcuoglu 2016).

"Pixel Recurrent Neural Networks", https://arxiv.org/abs/1601.06759.

log p(x) = sum_i log p(x_i | x_<i) from a masked 7 x 7
convolution (mask A), residual layers of two-dimensional LSTMs (`likely.nn.recurrent`; mask B),
two 1 x 1 convolutions after rectifiers (mask B) and a head. Each layer computes, in a sweep over
the rows or the diagonals of the image,

    [o, f, i, g] = K_ss * h + K_is * x
    c = sigmoid(f) c' + sigmoid(i) tanh(g),   h = sigmoid(o) tanh(c)                      (eq. 3)

The Row LSTM sees a triangle above each pixel, the Diagonal BiLSTM everything before it.

Deviations. With masks A and B as printed, the features of a pixel never show the pixel itself, and
the map from the upper right corner shows features of the rows above only; so the last pixel of a
row is seen by no pixel of the next row further left than the first convolution reaches. The first
Diagonal BiLSTM layer's sweep from the right therefore reads the image, too. A cell of the skewed
map that lies left of the image holds the learned initial state, unchanged. Forget gates begin open;
class labels add to the input-to-state maps; dropout of the states that leave a layer; Bernoulli and
logistic-mixture heads stand beside the softmax. No skip connections. Drawing of a Diagonal BiLSTM
may begin at another corner than the top left; `DiagonalBiLSTMEnsemble` is the exact mixture of
networks from several corners.
"""

from __future__ import annotations

import abc

from torch import Tensor, nn
from torch.nn.functional import relu

from likely.data.spec import DataSpec
from likely.density import Ensemble
from likely.density.fittable import labels_of
from likely.heads import head_for
from likely.models.common import divided
from likely.models.pixelcnn.corners import CORNERS, REVERSED, rank_from
from likely.models.recurrent.settings import (
    DiagonalBiLSTMEnsembleSettings,
    DiagonalBiLSTMSettings,
    RowLSTMSettings,
)
from likely.nn import recurrent
from likely.nn.masked import GroupedPointwise
from likely.nn.recurrent import on_cells, skew
from likely.nn.square import MaskedConv
from likely.sampling.incremental import Incremental
from likely.sampling.program import Builder, Cells


class PixelRNN(Incremental):
    """What both models share: all but the layers.

    Attributes:
        layers: of the model.

    Args:
        spec: of the data, shape (C, H, W).
        settings: sizes.
    """

    layers: nn.ModuleList

    def __init__(self, spec: DataSpec, settings: RowLSTMSettings | DiagonalBiLSTMSettings) -> None:
        super().__init__(spec, labels_of(spec, settings.conditional))
        self.settings = settings
        self.head = head_for(settings.head, spec, settings.components)
        channels, hidden = spec.shape[0], settings.hidden
        groups = self.groups
        divided(groups, hidden=hidden, head_channels=settings.head_channels)
        self.first = MaskedConv(channels, 2 * hidden, settings.first_kernel, "A", groups)
        start = settings.start if isinstance(settings, DiagonalBiLSTMSettings) else "top-left"
        self.reversed = REVERSED[start]
        self.rank = rank_from(start, spec)
        self.before_head = GroupedPointwise(2 * hidden, settings.head_channels, groups)
        self.output = GroupedPointwise(settings.head_channels, self.head.parameters, groups)

    @abc.abstractmethod
    def through_layers(
        self, x: Tensor, image: Tensor, height: int, width: int, context: Tensor | None
    ) -> Tensor:
        """The stream after all layers, [2h, H * W, B] to the same, both in raster order."""

    def incremental(self, build: Builder) -> Cells:
        x = self.first.incremental(build, build.image())
        for layer in self.layers:
            assert isinstance(layer, recurrent.RowLSTM | recurrent.DiagonalBiLSTM)
            x = layer.incremental(build, x)
        hidden = self.before_head.incremental(build, build.relu(x))
        return self.output.incremental(build, build.relu(hidden))

    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        image = self.scaled(x).flip(self.reversed)  # [B, C, H, W]
        height, width = x.shape[2:]
        stream = cells_first(self.first(image))
        stream = self.through_layers(stream, cells_first(image), height, width, context)
        hidden = relu(on_cells(self.before_head, relu(stream.flatten(1))))
        parameters = on_cells(self.output, hidden)  # [P, H * W * B]
        parameters = parameters.view(-1, height, width, len(x)).permute(3, 0, 1, 2)
        return parameters.flip(self.reversed) if self.reversed else parameters


def cells_first(x: Tensor) -> Tensor:
    """[B, F, H, W] to [F, H * W, B]."""
    return x.permute(1, 2, 3, 0).flatten(1, 2).contiguous()


class RowLSTM(PixelRNN):
    """Row LSTM; see the module's docstring.

    Args:
        spec: of the data, shape (C, H, W).
        settings: sizes; `RowLSTMSettings.preset(spec)` by default.

    >>> import torch
    >>> spec = DataSpec("toy", (1, 6, 6), 2)
    >>> model = RowLSTM(spec, RowLSTMSettings(hidden=4, layers=2, first_kernel=3))
    >>> model.log_prob(model.sample(5, seed=0)).shape
    torch.Size([5])
    """

    def __init__(self, spec: DataSpec, settings: RowLSTMSettings | None = None) -> None:
        settings = settings or RowLSTMSettings.preset(spec)
        super().__init__(spec, settings)
        self.layers = nn.ModuleList(
            recurrent.RowLSTM(
                settings.hidden, settings.kernel, self.groups, self.classes, settings.dropout
            )
            for _ in range(settings.layers)
        )

    def through_layers(
        self, x: Tensor, image: Tensor, height: int, width: int, context: Tensor | None
    ) -> Tensor:
        for layer in self.layers:
            x = layer(x, height, width, context)
        return x


class DiagonalBiLSTM(PixelRNN):
    """Diagonal BiLSTM; see the module's docstring.

    Args:
        spec: of the data, shape (C, H, W).
        settings: sizes; `DiagonalBiLSTMSettings.preset(spec)` by default.

    >>> import torch
    >>> spec = DataSpec("toy", (1, 6, 6), 2)
    >>> model = DiagonalBiLSTM(spec, DiagonalBiLSTMSettings(hidden=4, layers=2, first_kernel=3))
    >>> model.conditionals(torch.zeros(2, 1, 6, 6, dtype=torch.int64)).shape
    torch.Size([2, 1, 6, 6])
    >>> model.has_blind_spot
    False
    """

    def __init__(self, spec: DataSpec, settings: DiagonalBiLSTMSettings | None = None) -> None:
        settings = settings or DiagonalBiLSTMSettings.preset(spec)
        super().__init__(spec, settings)
        self.layers = nn.ModuleList(
            recurrent.DiagonalBiLSTM(
                settings.hidden,
                self.groups,
                self.classes,
                0 if index else spec.shape[0],
                settings.dropout,
            )
            for index in range(settings.layers)
        )

    @property
    def has_blind_spot(self) -> bool:
        return False

    def through_layers(
        self, x: Tensor, image: Tensor, height: int, width: int, context: Tensor | None
    ) -> Tensor:
        ways = skew(height, width, str(x.device))
        x, image = x[:, ways.order], image[:, ways.order]
        for layer in self.layers:
            x = layer(x, image, height, width, context)
        return x[:, ways.back]


class DiagonalBiLSTMEnsemble(Ensemble):
    """A mixture of Diagonal BiLSTMs, each with its own weights, from different corners.

    Args:
        spec: of the data, shape (C, H, W).
        settings: `DiagonalBiLSTMEnsembleSettings.preset(spec)` by default.
    """

    def __init__(
        self, spec: DataSpec, settings: DiagonalBiLSTMEnsembleSettings | None = None
    ) -> None:
        settings = settings or DiagonalBiLSTMEnsembleSettings.preset(spec)
        corners = CORNERS[: settings.corners]
        networks = [DiagonalBiLSTM(spec, settings.of_network(corner)) for corner in corners]
        super().__init__(networks, settings)
