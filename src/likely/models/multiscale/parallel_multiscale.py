r"""Parallel multi-scale autoregressive density (Reed, van den Oord, Kalchbrenner et al. 2017).

"Parallel Multiscale Autoregressive Density Estimation", https://arxiv.org/abs/1703.03664.

An image is drawn from coarse to fine.
Of the pixels at every 2s-th row and column, those at every s-th are made in three steps: to the
right of the given ones, below them, and diagonally. All pixels of a step are independent given
the pixels before it:

    log p(x) = log p(x_00) + sum_s sum_{q=1..3} sum_{i in step (s, q)} log p(x_i | earlier steps)

That is a chain rule in another order, so the density is exact. Dependence inside a step is
given up; in return sampling takes 3 log2(side) passes, whatever the number of pixels. Sides need
not be powers of two: pixels beyond the border do not exist.

Each scale has a network of unmasked residual convolutions on the coarse grid. Its input are the
four corners of every 2 x 2 block, zero where they are not known yet, and the step.

Deviations: the paper starts from a small image of a PixelCNN and adds within-step PixelCNNs;
here the start is one pixel and steps are independent inside. Where the head does not couple
colour channels, a step is drawn a channel at a time.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad, pixel_unshuffle, silu

from likely.data.spec import Dataset, DataSpec
from likely.density import CoarseToFine, Drawing
from likely.density.chain import sub_steps
from likely.density.fittable import labels_of
from likely.heads import head_for
from likely.models.multiscale.settings import ParallelMultiscaleSettings
from likely.noise import Dropout


class Block(nn.Module):
    """x + conv(dropout(silu(conv(silu(x))))), [B * steps, F, h, w]."""

    def __init__(self, features: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Conv2d(features, features, 3, padding=1)
        self.second = nn.Conv2d(features, features, 3, padding=1)
        self.dropout = Dropout(dropout)
        with torch.no_grad():
            self.second.weight.mul_(0.1)

    def forward(self, x: Tensor, steps: int) -> Tensor:
        inner = silu(self.first(silu(x)))
        # Noise is drawn for each image of the batch: its steps stand behind it.
        by_image = inner.reshape(-1, steps, *inner.shape[1:])
        change: Tensor = self.second(self.dropout(by_image).flatten(0, 1))
        return x + change


class Scale(nn.Module):
    """The steps that make the pixels at every `stride`-th place of those at every second one.

    Attributes:
        steps: (corner, channel group): corner 2 i + j is at (i, j) of its 2 x 2 block.
    """

    known: Tensor

    def __init__(
        self,
        spec: DataSpec,
        stride: int,
        outputs: int,
        groups: int,
        classes: int,
        settings: ParallelMultiscaleSettings,
    ) -> None:
        super().__init__()
        channels, height, width = spec.shape
        self.shape, self.stride = spec.shape, stride
        self.steps = [
            (corner, group)
            for corner in (1, 2, 3)
            if (corner // 2) * stride < height and (corner % 2) * stride < width
            for group in range(groups)
        ]
        known = torch.zeros(len(self.steps), channels, 4)
        for index, (corner, group) in enumerate(self.steps):
            known[index, :, :corner] = 1
            known[index, :group, corner] = 1
        self.register_buffer("known", known, persistent=False)
        features = settings.channels
        self.stem = nn.Conv2d(4 * channels + 2, features, 3, padding=1)
        self.step = nn.Embedding(len(self.steps), features)
        self.label = nn.Embedding(classes, features) if classes else None
        self.blocks = nn.ModuleList(
            Block(features, settings.dropout) for _ in range(settings.blocks)
        )
        self.outputs = nn.ModuleList(nn.Conv2d(features, outputs, 1) for _ in self.steps)

    def place(self, index: int) -> tuple[slice, slice]:
        """Rows and columns of the image that a step makes."""
        corner, s = self.steps[index][0], self.stride
        return slice((corner // 2) * s, None, 2 * s), slice((corner % 2) * s, None, 2 * s)

    def forward(self, x: Tensor, steps: list[int], context: Tensor | None) -> list[Tensor]:
        """Parameters that some steps give their pixels.

        Args:
            x: the image, scaled, [B, C, H, W]; only what a step knows is read.
            steps: which ones.
            context: int64 [B] or None.

        Returns:
            [B, outputs, h, w] for each step.
        """
        coarse = x[:, :, :: self.stride, :: self.stride]
        coarse = pad(coarse, (0, coarse.shape[3] % 2, 0, coarse.shape[2] % 2))
        corners = pixel_unshuffle(coarse, 2)  # [B, C * 4, h, w]
        b, _, h, w = corners.shape
        # One after another: a list as an index would be copied from the processor every time.
        chosen = torch.stack([self.known[step] for step in steps])
        known = chosen.to(x.dtype).flatten(1)[None, :, :, None, None]
        # The steps stand side by side in the batch, one pass serves all of them.
        seen = (corners[:, None] * known).flatten(0, 1)  # [B * steps, C * 4, h, w]
        coordinates = self._places(h, w, x).expand(len(seen), -1, -1, -1)
        features = self.stem(torch.cat([seen, coordinates], 1))
        shift = torch.stack([self.step.weight[step] for step in steps]).repeat(b, 1)
        if self.label is not None and context is not None:
            shift = shift + self.label(context).repeat_interleave(len(steps), 0)
        features = features + shift[:, :, None, None]
        for block in self.blocks:
            features = block(features, len(steps))
        outputs = []
        features = silu(features).reshape(b, len(steps), *features.shape[1:])
        for index, part in zip(steps, features.unbind(1), strict=True):
            rows, columns = self.place(index)
            _, height, width = self.shape
            rows_made, columns_made = (
                len(range(*span.indices(side))) for span, side in ((rows, height), (columns, width))
            )
            outputs.append(self.outputs[index](part)[:, :, :rows_made, :columns_made])
        return outputs

    def _places(self, h: int, w: int, like: Tensor) -> Tensor:
        """Row and column of each block in [-1, 1], [2, h, w]."""
        _, height, width = self.shape
        rows, columns = (
            torch.arange(n, dtype=like.dtype, device=like.device) * (4 * self.stride / side) - 1
            for n, side in ((h, height), (w, width))
        )
        return torch.stack([rows[:, None].expand(h, w), columns.expand(h, w)])


class ParallelMultiscale(CoarseToFine):
    """The model; see the module's docstring.

    >>> import torch
    >>> from likely import data, models
    >>> train, _ = data.load("digits")
    >>> _ = torch.manual_seed(0)
    >>> model = models.ParallelMultiscale(train.spec)
    >>> int(model.rank.max())  # steps after the first pixel, of an 8 x 8 image
    9

    Args:
        spec: of the data, shape (C, H, W).
        settings: sizes; `ParallelMultiscaleSettings.preset(spec)` by default.
    """

    def __init__(self, spec: DataSpec, settings: ParallelMultiscaleSettings | None = None) -> None:
        settings = settings or ParallelMultiscaleSettings.preset(spec)
        super().__init__(spec, labels_of(spec, settings.conditional))
        self.settings = settings
        self.head = head_for(settings.head, spec, settings.components)
        groups = self.groups
        outputs = self.head.parameters // groups
        _, height, width = spec.shape
        # The first pixel, for each class.
        self.first = nn.Parameter(0.1 * torch.randn(max(1, self.classes), self.head.parameters))
        strides = [2**k for k in reversed(range(math.ceil(math.log2(max(height, width)))))]
        self.scales = nn.ModuleList(
            Scale(spec, stride, outputs, groups, self.classes, settings) for stride in strides
        )
        rank = torch.zeros(height, width, dtype=torch.int64, device="cpu")
        now = 0
        for scale in self._scales():
            for index, (_, group) in enumerate(scale.steps):
                now += group == 0
                rank[scale.place(index)] = now
        self.rank = rank

    def _scales(self) -> list[Scale]:
        return [scale for scale in self.scales if isinstance(scale, Scale)]

    def start_at(self, data: Dataset) -> None:
        """Every step starts at the mean of its pixels over the data."""
        with torch.no_grad():
            mean = torch.from_numpy(np.asarray(data.pixel_mean(), np.float64))
            bias = self.head.bias_for(mean).to(self.device)  # [P, H, W]
            self.first.copy_(bias[:, 0, 0].expand_as(self.first))
            for scale in self._scales():
                for index, (_, group) in enumerate(scale.steps):
                    output = scale.outputs[index]
                    assert isinstance(output, nn.Conv2d)
                    assert output.bias is not None
                    part = self._part(group)
                    output.bias.copy_(bias[part][(slice(None), *scale.place(index))].mean((1, 2)))

    def _part(self, group: int) -> slice:
        """Parameters of a channel group."""
        size = self.head.parameters // self.groups
        return slice(group * size, (group + 1) * size)

    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        image = self.scaled(x)
        out = image.new_zeros(len(x), self.head.parameters, *x.shape[2:])
        out[:, :, 0, 0] = self._first(len(x), context)
        for scale in self._scales():
            steps = list(range(len(scale.steps)))
            for index, block in zip(steps, scale(image, steps, context), strict=True):
                part = self._part(scale.steps[index][1])
                out[(slice(None), part, *scale.place(index))] = block.to(out.dtype)
        return out

    def _first(self, batch: int, context: Tensor | None) -> Tensor:
        return self.first.expand(batch, -1) if context is None else self.first[context]

    def fill_fast(
        self, x: Tensor, uniform: Tensor, known: int, context: Tensor | None, how: Drawing
    ) -> Tensor:
        how.refuse_watch(self)
        x = x.masked_fill(self.rank >= known, 0)
        if known == 0:
            first = self._first(len(x), context)[:, :, None, None]
            for group in range(self.groups):
                self._draw(x, uniform, (slice(1), slice(1)), first, group, how)
        for scale in self._scales():
            for index, (_, group) in enumerate(scale.steps):
                place = scale.place(index)
                if int(self.rank[place][0, 0]) < known:
                    continue
                (outputs,) = scale(self.scaled(x), [index], context)
                parameters = outputs.new_zeros(len(x), self.head.parameters, *outputs.shape[2:])
                parameters[:, self._part(group)] = outputs
                self._draw(x, uniform, place, parameters, group, how)
        return x

    def _draw(
        self,
        x: Tensor,
        uniform: Tensor,
        place: tuple[slice, slice],
        parameters: Tensor,
        group: int,
        how: Drawing,
    ) -> None:
        """Draw the channels of one group at some places of x, in place."""
        drawn, at = x[:, :, *place], uniform[:, :, *place]
        tempered = self.head.tempered(parameters.double(), how.temperature)
        for channel in sub_steps(self.head, x.shape[1])[group]:
            drawn[:, channel] = self.head.quantile(tempered, drawn, channel, at[:, channel])
