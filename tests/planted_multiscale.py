"""Multi-scale models with one defect each, for the proofs to find."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from likely.data.spec import DataSpec
from likely.density import Drawing
from likely.models.multiscale.multiscale_pixelcnn import MultiscalePixelCNN
from likely.models.multiscale.parallel_multiscale import ParallelMultiscale, Scale
from likely.models.multiscale.settings import MultiscalePixelCNNSettings, ParallelMultiscaleSettings

PARALLEL = ParallelMultiscaleSettings(channels=6, blocks=1, components=2)
MULTISCALE = MultiscalePixelCNNSettings(
    channels=12, small_layers=1, layers=1, first_kernel=3, map_channels=4, head_channels=12,
    components=2,
)  # fmt: skip


class SeesItsStep(ParallelMultiscale):
    """Each step is shown the corner that it makes."""

    def __init__(self, spec: DataSpec, settings: Any = None) -> None:
        super().__init__(spec, settings)
        for scale in self.scales:
            assert isinstance(scale, Scale)
            for index, (corner, _) in enumerate(scale.steps):
                scale.known[index, :, corner] = 1


class SeesTheNextStep(ParallelMultiscale):
    """The first step of a scale is shown the corner below, which is made after it."""

    def __init__(self, spec: DataSpec, settings: Any = None) -> None:
        super().__init__(spec, settings)
        for scale in self.scales:
            assert isinstance(scale, Scale)
            scale.known[0, :, 2] = 1


class SeesAllChannels(ParallelMultiscale):
    """Red's step is shown green and blue."""

    def __init__(self, spec: DataSpec, settings: Any = None) -> None:
        super().__init__(spec, settings)
        for scale in self.scales:
            assert isinstance(scale, Scale)
            for index, (corner, group) in enumerate(scale.steps):
                scale.known[index, group + 1 :, corner] = 1


class StaleSteps(ParallelMultiscale):
    """All steps of a scale are computed before the first of them is drawn."""

    def fill_fast(
        self, x: Tensor, uniform: Tensor, known: int, context: Tensor | None, how: Drawing
    ) -> Tensor:
        for scale in self._scales():
            scale.early = None  # type: ignore[assignment]
        handles = [scale.register_forward_hook(_once) for scale in self._scales()]
        try:
            return super().fill_fast(x, uniform, known, context, how)
        finally:
            for handle in handles:
                handle.remove()


def _once(scale: Any, given: tuple[Tensor, list[int], Tensor | None], found: Any) -> list[Tensor]:
    """What the step would have been when its scale began."""
    x, (index,), context = given
    if scale.early is None:
        scale.early = scale.forward(x, list(range(len(scale.steps))), context)
    early: list[Tensor] = [scale.early[index]]
    return early


class MapOfTheWhole(MultiscalePixelCNN):
    """The feature map is made of means of blocks: it has seen all pixels."""

    def of_small(self, values: Tensor) -> Tensor:
        if values.is_floating_point() and values.shape[1] == self.spec.shape[0]:
            return avg_pool2d(values, self.settings.factor, ceil_mode=True)
        return super().of_small(values)


class SmallNotGiven(MultiscalePixelCNN):
    """The second network models the given pixels too, and sees them in its map."""

    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.other_conditionals(x, context)


class StaleMap(MultiscalePixelCNN):
    """Sampling makes the map before the small image is drawn."""

    def fill_fast(
        self, x: Tensor, uniform: Tensor, known: int, context: Tensor | None, how: Drawing
    ) -> Tensor:
        before = self.enlarge(self.of_small(self.scaled(torch.zeros_like(x))))
        handle = self.enlarge.register_forward_hook(lambda module, given, out: before)
        try:
            return super().fill_fast(x, uniform, known, context, how)
        finally:
            handle.remove()
