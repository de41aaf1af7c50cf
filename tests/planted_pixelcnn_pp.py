"""PixelCNN++ models with one defect each, for the proofs to find."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv_transpose2d, pad

from likely.data.spec import DataSpec
from likely.heads import DiscretizedLogisticMixture
from likely.models.pixelcnn.pixelcnn_pp import PixelCNNPP
from likely.models.pixelcnn.settings import PixelCNNPPSettings
from likely.nn.streams import StreamConv, StreamGrow
from likely.sampling.program import Builder, Cells

SETTINGS = PixelCNNPPSettings(channels=4, blocks=1, scales=2, components=2, dropout=0.2)


class Raised(StreamConv):
    """Undoes the shift of its input by a row."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(pad(x, (0, 0, -1, 1)))


class Leftward(StreamConv):
    """Undoes the shift of its input by a column."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(pad(x, (-1, 1)))


class NoDownShift(PixelCNNPP):
    """The stream of rows above is not shifted down."""

    def __init__(self, spec: DataSpec, settings: Any = None) -> None:
        super().__init__(spec, settings)
        self.first_u = Raised(
            spec.shape[0] + 1, self.settings.channels, above=1, left=1, right=1
        )  # fmt: skip


class CurrentPixel(PixelCNNPP):
    """The other stream is not shifted right: it holds the current pixel."""

    def __init__(self, spec: DataSpec, settings: Any = None) -> None:
        super().__init__(spec, settings)
        self.first_left = Leftward(spec.shape[0] + 1, self.settings.channels, above=1)


class CroppedAtTheWrongSide(StreamGrow):
    """Column j writes to 2 j - 1 and 2 j: a coarse cell reaches the pixel before its corner."""

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        out = conv_transpose2d(x, self.kernel().transpose(0, 1), self.bias, stride=2)
        return pad(out, (0, 1))[:, :, : size[0], 1 : 1 + size[1]]


class LeakyGrowth(PixelCNNPP):
    """Upsampling of the stream that hides the right side shows it."""

    def __init__(self, spec: DataSpec, settings: Any = None) -> None:
        super().__init__(spec, settings)
        features = self.settings.channels
        self.finer[0].ul = CroppedAtTheWrongSide(features, features, both_sides=False)


class ShortcutFromBelow(PixelCNNPP):
    """Short-cuts are read one row too low."""

    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        for pair in self.up:
            pair.ul.others[1].register_forward_pre_hook(
                lambda _, given: (pad(given[0], (0, 0, -1, 1)),)
            )
        try:
            return super().conditionals(x, context)
        finally:
            for pair in self.up:
                pair.ul.others[1]._forward_pre_hooks.clear()


class LaterChannel(DiscretizedLogisticMixture):
    """The mean of red depends on blue."""

    def _mean(self, means: Tensor, couplings: Tensor, x: Tensor, channel: int) -> Tensor:
        mean = super()._mean(means, couplings, x, channel)
        if channel == 0:
            mean = mean + 0.1 * self._scaled(x[:, None, self.channels - 1], mean.dtype)
        return mean


class WrongCoupling(PixelCNNPP):
    """A head whose first channel sees the last."""

    def __init__(self, spec: DataSpec, settings: Any = None) -> None:
        super().__init__(spec, settings)
        self.head = LaterChannel(spec.shape[0], spec.levels, self.settings.components)


class ForgetfulGrow(StreamGrow):
    """The incremental form forgets what an odd column gets from the right."""

    def incremental(self, build: Builder, x: Cells) -> Cells:
        with torch.no_grad():
            self.direction[..., 0] = 0
        return super().incremental(build, x)


class ForgetfulSampler(PixelCNNPP):
    """Its incremental sampler drops a tap of a transposed convolution."""

    def incremental(self, build: Builder) -> Cells:
        features, old = self.settings.channels, self.finer[0].u
        self.finer[0].u = ForgetfulGrow(features, features, both_sides=True).to(old.bias)
        self.finer[0].u.load_state_dict(old.state_dict())
        try:
            return super().incremental(build)
        finally:
            self.finer[0].u = old
