r"""Luma and then chroma: p(x) = p(Y) p(Cg, Co | Y), by the reversible colours of YCoCg-R.

Malvar and Sullivan 2003, https://www.microsoft.com/en-us/research/publication/ycocg-r-a-color-space-with-rgb-reversibility-and-low-dynamic-range/.

    Co = R - B,  t = (R + B) >> 1,  Cg = G - t,  Y = (t + G) >> 1

are two averages of pairs and their differences, so a colour image of integers is Y, an image of
as many levels, and two planes of differences; nothing is lost. Given Y, |Cg| <= reach(Y), and given
both, t is known and |Co| <= reach(t) (`likely.density.split`): the head of the chroma holds these
alone, so both factors sum to one over the RGB cube.

A Gated PixelCNN, or a pyramid of them, draws Y. Another one draws (Cg, Co), coupled in its head,
and is told maps that a network without masks makes of all of Y. So a grey image is coloured by the
model's own p(Cg, Co | Y), and every draw has that luma, to the last integer. In raster order a
pixel's neighbours say most of its colour, and what is wrong with the first ones spreads; so every
fourth place may come first, then every second one, each scale by a network of its own: the chain
rule in another order. Colouring by an autoregressive model of chroma is PixColor's way (Guadarrama
et al. 2017, https://arxiv.org/abs/1705.07208), coarse colours first ColTran's (Kumar, Weissenborn
and Kalchbrenner 2021, https://arxiv.org/abs/2102.04432).

Deviations from PixColor: the chroma has the full size, Y is modelled, too, and no network refines
what is drawn.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from likely.data.spec import DataSpec
from likely.density.completion import Completions
from likely.density.fittable import labels_of
from likely.density.split import Lifting, Split, average, both, reach
from likely.errors import InvalidSetting
from likely.models.pixelcnn.gated_pixelcnn import GatedPixelCNN
from likely.models.split.haar_pyramid import HaarPyramid
from likely.models.split.networks import Reader, rest_network
from likely.models.split.settings import LumaChromaSettings


class Colours(Lifting):
    """YCoCg-R: (R, G, B) to Y and (Cg, Co)."""

    def __init__(self, spec: DataSpec) -> None:
        _, height, width = spec.shape
        base, rest = (1, height, width), (2, height, width)
        super().__init__(spec.shape, spec.levels, base, rest, 1)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        red, green, blue = x.unbind(1)
        t = average(red, blue)
        rest = torch.stack([green - t, red - blue], 1) + (self.levels - 1)
        return average(green, t)[:, None], rest

    def merge(self, base: Tensor, rest: Tensor) -> Tensor:
        cg, co = (rest - (self.levels - 1)).unbind(1)
        green, t = both(base[:, 0], cg)
        red, blue = both(t, co)
        return torch.stack([red, green, blue], 1)

    def known(self, base: Tensor) -> Tensor:
        return base

    def reaches(self, known: Tensor, d: Sequence[Tensor], channel: int) -> Tensor:
        luma = known[:, 0]
        return reach(both(luma, d[0])[1] if channel else luma, self.levels)

    def spread(self, base: Tensor, rest: Tensor) -> Tensor:
        total = base + rest.sum(1, keepdim=True)
        return total.expand(-1, 3, -1, -1) / 3


class LumaChroma(Split):
    """The model; see the module's docstring.

    Args:
        spec: of the data, shape (3, H, W).
        settings: sizes; `LumaChromaSettings.preset(spec)` by default.

    Raises:
        InvalidSetting: images of another number of channels.
    """

    def __init__(self, spec: DataSpec, settings: LumaChromaSettings | None = None) -> None:
        settings = settings or LumaChromaSettings.preset(spec)
        super().__init__(spec, labels_of(spec, settings.conditional))
        if spec.shape[0] != 3:
            raise InvalidSetting(
                f"luma-chroma splits colours, images of three channels; {spec.name} has "
                f"{spec.shape[0]}: take gated-pixelcnn or haar-pyramid"
            )
        self.settings = settings
        self.lifting = lifting = Colours(spec)
        of_base = dataclasses.replace(spec, shape=lifting.base, context=())
        if settings.luma == "haar-pyramid" and spec.side > 1:
            self.base = HaarPyramid(of_base, settings.of_pyramid())
        else:
            self.base = GatedPixelCNN(of_base, settings.of_base())
        self.head = self.base.head
        self.rest = rest_network(
            spec, lifting, settings.features, settings.of_rest(), settings.chroma_scales
        )
        self.reader = Reader(
            lifting.planes, settings.features, settings.blocks, self.classes, lifting.grid
        )

    def colorize(
        self, grey: Tensor, n: int = 1, *, seed: int = 0, context: Tensor | int | None = None
    ) -> Tensor:
        """n colour images of each luma, from p(x | Y) itself, int64 [B, n, 3, H, W].

        Args:
            grey: luma (Y of YCoCg-R), levels [B, 1, H, W]; of x it is `luma(x)`.
            n: draws of each.
            seed: of the noise.
            context: labels, as for `sample`.
        """
        return self.colourings(grey, n, seed=seed, context=context).images

    def colourings(
        self, grey: Tensor, n: int = 1, *, seed: int = 0, context: Tensor | int | None = None
    ) -> Completions:
        """`colorize`, with log p(Y) and what the draws are worth."""
        return self.given_base(grey, n, seed, context, "p(Cg, Co | Y), every draw has the luma")

    def luma(self, x: Tensor) -> Tensor:
        """The luma of images [B, 3, H, W], levels [B, 1, H, W]."""
        return self.lifting.split(self.integers(x))[0]
