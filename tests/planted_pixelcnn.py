"""PixelCNNs with one defect each, for the proofs to find."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from likely.data.spec import DataSpec
from likely.models.pixelcnn.pixelcnn import PixelCNN
from likely.models.pixelcnn.settings import PixelCNNSettings
from likely.nn.masked import GroupedPointwise
from likely.nn.square import MaskedConv
from likely.sampling.program import Builder, Cells

SETTINGS = PixelCNNSettings(channels=6, layers=3, first_kernel=3, head_channels=12, components=2)


class MaskSwapped(PixelCNN):
    """Mask B in the first layer: the pixel sees itself."""

    def __init__(self, spec: DataSpec, settings: Any = None) -> None:
        super().__init__(spec, settings)
        first = self.first
        self.first = MaskedConv(
            spec.shape[0], first.above.shape[0], 2 * first.taps + 1, "B", self.groups
        )


class Centred(MaskedConv):
    """Padded as an unmasked convolution is: the row below and the right half are seen."""

    def forward(self, x: Tensor) -> Tensor:
        current = self.row.kernel()
        current = pad(current, (0, self.above.shape[3] - current.shape[3]))
        weight = torch.cat([self.above, current], 2)
        return conv2d(pad(x, (self.taps, self.taps, self.taps - 1, 1)), weight, self.row.bias)


class RowBelow(PixelCNN):
    """One block of the stack is padded at the wrong side."""

    def __init__(self, spec: DataSpec, settings: Any = None) -> None:
        super().__init__(spec, settings)
        block = self.layers[1]
        block.conv = Centred(self.settings.channels, self.settings.channels,
                             self.settings.kernel, "B", self.groups)  # fmt: skip


class PlainPointwise(PixelCNN):
    """A 1 x 1 convolution of a residual block mixes the colour groups."""

    def __init__(self, spec: DataSpec, settings: Any = None) -> None:
        super().__init__(spec, settings)
        h = self.settings.channels
        self.layers[0].expand = GroupedPointwise(h, 2 * h, 1)


class RowForgotten(PixelCNN):
    """The incremental sampler forgets a row above."""

    def incremental(self, build: Builder) -> Cells:
        twin = copy.deepcopy(self)
        with torch.no_grad():
            twin.layers[1].conv.above[:, :, -1] = 0
        return PixelCNN.incremental(twin, build)
