"""Row LSTMs and Diagonal BiLSTMs with one defect each, for the proofs to find."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from likely.data.spec import DataSpec
from likely.density import Autoregressive
from likely.models.recurrent.pixelrnn import DiagonalBiLSTM, RowLSTM
from likely.nn import fronts, recurrent
from likely.nn.masked import GroupedPointwise, group_mask
from likely.nn.square import MaskedConv
from likely.sampling.program import Builder, Cells


@contextmanager
def instead(name: str, wrong: Any) -> Iterator[None]:
    """Something else under a name of `likely.nn.recurrent` for the time of the block."""
    right = vars(recurrent)[name]
    setattr(recurrent, name, wrong)
    try:
        yield
    finally:
        setattr(recurrent, name, right)


def seeing_itself(model: RowLSTM | DiagonalBiLSTM) -> MaskedConv:
    """The first convolution with mask B."""
    features, channels = model.first.above.shape[:2]
    return MaskedConv(channels, features, 2 * model.first.taps + 1, "B", model.groups)


class Naive:
    """Without an incremental form: sampling follows whatever the model computes."""

    methods = ("auto", "naive")
    fill_fast = Autoregressive.fill_fast


class RowSeesItself(Naive, RowLSTM):
    """Mask B in the first layer."""

    def __init__(self, spec: DataSpec, settings: Any = None) -> None:
        super().__init__(spec, settings)
        self.first = seeing_itself(self)


class RowGatesAsOne(Naive, RowLSTM):
    """Colour groups of all gates together, not of each gate: g sees what o may not."""

    def __init__(self, spec: DataSpec, settings: Any = None) -> None:
        super().__init__(spec, settings)
        for layer in self.layers:
            rows, columns = layer.lstm.seen.shape
            last = columns // (layer.taps + 1)
            layer.lstm.seen[:, -last:] = group_mask(rows, last, self.groups, "B")


class RowMixedUp(Naive, RowLSTM):
    """The convolution back to the stream mixes the colour groups."""

    def __init__(self, spec: DataSpec, settings: Any = None) -> None:
        super().__init__(spec, settings)
        for layer in self.layers:
            features, hidden = layer.up.weight.shape[:2]
            layer.up = GroupedPointwise(hidden, features, 1)


class RowSeesRight(Naive, RowLSTM):
    """The input-to-state convolution reads the pixel to the right."""

    def through_layers(
        self, x: Tensor, image: Tensor, height: int, width: int, context: Tensor | None
    ) -> Tensor:
        line = x.unflatten(1, (height, width))
        line = line + pad(line[:, :, 1:], (0, 0, 0, 1))
        return super().through_layers(line.flatten(1, 2), image, height, width, context)


class RowLeftOnly(Naive, RowLSTM):
    """The state-to-state convolution is padded on the left only: its right half is lost."""

    def through_layers(self, *given: Any) -> Tensor:
        def wrong(height: int, width: int, kernel: int, device: str) -> fronts.Fronts:
            order = torch.arange(height * width)
            spans = [(row * width, width, 0) for row in range(height)]
            return fronts._fronts(order, spans, width, tuple(range(1 - kernel, 1)), device)

        with instead("row_fronts", wrong):
            return super().through_layers(*given)


class RowStaleMemory(RowLSTM):
    """The incremental sampler takes the memory of the pixel to the left, not above."""

    def incremental(self, build: Builder) -> Cells:
        right = recurrent.shifted
        with instead("shifted", lambda x, up=0, left=0: right(x, 0, up)):
            return super().incremental(build)


class DiagonalSeesItself(Naive, DiagonalBiLSTM):
    """Mask B in the first layer."""

    def __init__(self, spec: DataSpec, settings: Any = None) -> None:
        super().__init__(spec, settings)
        self.first = seeing_itself(self)


class DiagonalGatesAsOne(Naive, DiagonalBiLSTM):
    """Colour groups of all gates together, not of each gate."""

    def __init__(self, spec: DataSpec, settings: Any = None) -> None:
        super().__init__(spec, settings)
        for layer in self.layers:
            layer.lstm.seen[:] = group_mask(*layer.lstm.seen.shape, self.groups, "B")


class NotShiftedDown(Naive, DiagonalBiLSTM):
    """The map from the right is added as it is: it shows the pixels to the right."""

    def through_layers(self, *given: Any) -> Tensor:
        def wrong(height: int, width: int, device: str) -> recurrent.Skew:
            ways = skew(height, width, device)
            here = fronts.diagonal_fronts(height, width, True).order.argsort()[ways.order]
            return dataclasses.replace(ways, above=here)

        skew = recurrent.skew
        with instead("skew", wrong):
            return super().through_layers(*given)


class WrongLean(Naive, DiagonalBiLSTM):
    """The second tap reads the line below in the front before: the skew is off."""

    def through_layers(self, *given: Any) -> Tensor:
        def wrong(height: int, width: int, device: str) -> fronts.Fronts:
            right = fronts.diagonal_fronts(height, width, device=device)
            spans, first = [], 0
            for diagonal, size in enumerate(right.sizes):
                spans.append((first, size, max(0, diagonal - width + 1)))
                first += size
            return fronts._fronts(right.order, spans, height, (0, 1), device)

        with instead("diagonal_fronts", wrong):
            return super().through_layers(*given)


class AsPrinted(Naive, DiagonalBiLSTM):
    """The sweep from the right reads features only: the last pixel of the row above is lost."""

    def __init__(self, spec: DataSpec, settings: Any = None) -> None:
        super().__init__(spec, settings)
        self.layers[0].pixels = None


class OneDirection(Naive, DiagonalBiLSTM):
    """The map from the right is lost: what is above and far to the right is not seen."""

    def through_layers(self, *given: Any) -> Tensor:
        right = recurrent.pad
        with instead("pad", lambda x, sides: 0 * right(x, sides)):
            return super().through_layers(*given)


class BothReadThePixel(Naive, DiagonalBiLSTM):
    """The sweep from the left, too, reads the image beside the features."""

    def through_layers(
        self, x: Tensor, image: Tensor, height: int, width: int, context: Tensor | None
    ) -> Tensor:
        seen = self.layers[0].pixels
        wide = torch.cat([seen, seen])[: len(x)]
        x = x + (wide @ image.flatten(1)).view_as(x)
        return super().through_layers(x, image, height, width, context)
