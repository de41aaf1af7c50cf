r"""Averages and then details, scale by scale: p(x) = p(low) p(details | low), by the S-transform.

Said and Pearlman 1996, https://doi.org/10.1109/83.536880: the Haar wavelet of integers. Of every
2 x 2 pixels of a channel the rows are averaged and then the two averages,

    s_top = (a + b) >> 1,  s_bottom = (c + d) >> 1,   low = (s_top + s_bottom) >> 1,

and three differences are kept: s_top - s_bottom, a - b, c - d. So an image is one of half the
sides and as many levels, and three planes of differences a channel; nothing is lost. The same
again of the low image gives the next scale. Each difference is bounded by the average that
it splits (`likely.density.split`), so all factors sum to one over the images.

At every scale a Gated PixelCNN draws the details on the grid of the low image, all of a place
coupled in its head, and is told maps that a network without masks makes of the whole low image;
another one draws the smallest image. So a small image is enlarged by the model's own
p(x | low), and the average of every draw is the small image, to the last integer. A pyramid of
conditional densities is that of Wavelet Flow (Yu, Derpanis and Brubaker 2020,
https://arxiv.org/abs/2010.13821), autoregressive enlargement that of Dahl, Norouzi and Shlens 2017
(https://arxiv.org/abs/1702.00783).

Of a side that is odd the last row or column has no partner: it is its own average, and the
differences that are not there are zero, with probability one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from likely.data.spec import DataSpec
from likely.density.coarse import Upscales
from likely.density.completion import Completions
from likely.density.fittable import labels_of
from likely.density.split import Lifting, Split, average, both, reach
from likely.errors import InvalidSetting
from likely.models.pixelcnn.gated_pixelcnn import GatedPixelCNN
from likely.models.split.networks import Reader, rest_network
from likely.models.split.settings import HaarPyramidSettings


class Halving(Lifting):
    """2 x 2 pixels to their average and three differences: between the rows, and in each."""

    def __init__(self, spec: DataSpec) -> None:
        channels, height, width = spec.shape
        grid = (height + 1) // 2, (width + 1) // 2
        # The last two planes say where there is a lower row, and a right column.
        super().__init__(
            spec.shape, spec.levels, (channels, *grid), (3 * channels, *grid), channels + 2
        )

    def _partners(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Whether each place has a lower row, and a right column; bool [h, w] each."""
        _, height, width = self.shape
        grid = self.grid
        rows = torch.arange(grid[0], device=device) < height // 2
        columns = torch.arange(grid[1], device=device) < width // 2
        return rows[:, None].expand(grid), columns.expand(grid)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        _, height, width = self.shape
        right, bottom = width % 2, height % 2
        if right or bottom:
            x = pad(x.double(), (0, right, 0, bottom), mode="replicate").to(torch.int64)
        a, b, c, d = (x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1))
        top, low = average(a, b), average(c, d)
        rows, _ = self._partners(x.device)
        rest = torch.stack([top - low, a - b, (c - d) * rows], 2)
        return average(top, low), rest.flatten(1, 2) + (self.levels - 1)

    def merge(self, base: Tensor, rest: Tensor) -> Tensor:
        d = rest - (self.levels - 1)
        between, in_top, in_low = (d[:, which::3] for which in range(3))  # [B, C, h, w] each
        top, low = both(base, between)
        rows = [torch.stack(both(*pair), -1).flatten(-2) for pair in ((top, in_top), (low, in_low))]
        _, height, width = self.shape
        return torch.stack(rows, -2).flatten(-3, -2)[..., :height, :width]

    def known(self, base: Tensor) -> Tensor:
        flags = torch.stack(self._partners(base.device)).to(base.dtype) * (self.levels - 1)
        return torch.cat([base, flags.expand(len(base), -1, -1, -1)], 1)

    def reaches(self, known: Tensor, d: Sequence[Tensor], channel: int) -> Tensor:
        colour, which = divmod(channel, 3)
        rows, columns = (2 * known[:, -2:] > self.levels - 1).unbind(1)
        s = known[:, colour]
        if which == 0:
            return reach(s, self.levels) * rows
        s = both(s, d[3 * colour])[which - 1]
        return reach(s, self.levels) * (columns & rows if which == 2 else columns)

    def spread(self, base: Tensor, rest: Tensor) -> Tensor:
        between, in_top, in_low = (rest[:, which::3] for which in range(3))
        rows, columns = self._partners(base.device)
        shared = (base + between) / (1 + rows.to(base.dtype))
        each = [(part + shared) / (1 + columns.to(base.dtype)) for part in (in_top, in_low)]
        lines = torch.stack([line.repeat_interleave(2, -1) for line in each], -2).flatten(-3, -2)
        _, height, width = self.shape
        return lines[..., :height, :width]


class HaarPyramid(Upscales, Split):
    """The model; see the module's docstring.

    Args:
        spec: of the data, shape (C, H, W).
        settings: sizes; `HaarPyramidSettings.preset(spec)` by default.

    Raises:
        InvalidSetting: a single pixel.
    """

    def __init__(self, spec: DataSpec, settings: HaarPyramidSettings | None = None) -> None:
        settings = settings or HaarPyramidSettings.preset(spec)
        super().__init__(spec, labels_of(spec, settings.conditional))
        if spec.side == 1:
            raise InvalidSetting(
                "haar-pyramid halves images: a single pixel has no half; take gated-pixelcnn"
            )
        self.settings = settings
        self.lifting = lifting = Halving(spec)
        of_base = dataclasses.replace(spec, shape=lifting.base, context=())
        if settings.scales > 1 and of_base.side > 1:
            fewer = dataclasses.replace(settings, scales=settings.scales - 1)
            self.base = HaarPyramid(of_base, fewer)
        else:
            self.base = GatedPixelCNN(of_base, settings.of_base())
        self.head = self.base.head
        self.rest = rest_network(spec, lifting, settings.features, settings.of_rest())
        self.reader = Reader(
            lifting.planes, settings.features, settings.blocks, self.classes, lifting.grid
        )

    @property
    def enlargements(self) -> tuple[int, ...]:
        """By how much `upscale` enlarges: 2, and as many doublings as there are scales."""
        if isinstance(self.base, HaarPyramid):
            return (2, *(2 * times for times in self.base.enlargements))
        return (2,)

    def smaller(self, x: Tensor, times: int = 2) -> Tensor:
        """The averages of images [B, C, H, W], their sides divided by `times`, levels."""
        low, _ = self.lifting.split(self.integers(x))
        below = self._below(times)
        return low if below is None else below.smaller(low, times // 2)

    def enlargings(
        self,
        low: Tensor,
        n: int = 1,
        *,
        times: int = 2,
        seed: int = 0,
        context: Tensor | int | None = None,
    ) -> Completions:
        """`upscale`, with log p(low) and what the draws are worth."""
        about = "p(details | low), every draw has those averages"
        below = self._below(times)
        if below is None:
            return self.given_base(low, n, seed, context, about)
        drawn = below.enlargings(low, n, times=times // 2, seed=seed, context=context)
        labels = self.labels(context, len(drawn.images))
        many = None if labels is None else labels.repeat_interleave(n, 0)
        images = self.enlarged(drawn.images.flatten(0, 1), many, seed, "rest", times)
        return dataclasses.replace(
            drawn, images=images.reshape(len(drawn.images), n, *self.spec.shape)
        )

    def _below(self, times: int) -> HaarPyramid | None:
        """The pyramid that enlarges first; None where this one is enough."""
        self.refuse_other(times)
        return self.base if times > 2 and isinstance(self.base, HaarPyramid) else None
