r"""PixelCNN++ (Salimans, Karpathy, Chen, Kingma 2017).

"Improving the PixelCNN with Discretized Logistic Mixture Likelihood and Other Modifications",
https://arxiv.org/abs/1701.05517.

Two streams of features, both hiding the current pixel whole:

    u   all rows above                           2 x 3 kernels, down-shifted at the input
    ul  what u sees, and the pixels to the left  2 x 2 kernels

Both go down through `scales` resolutions and up again; a block on the way up reads its counterpart
on the way down (short-cut), and ul always reads u. A block is

    x + a . sigmoid(b),   (a, b) = conv(drop(f(conv(f(x)) + 1x1(f(other))))) + V h,

f the concatenation of elu(x) and elu(-x). The head's parameters are a 1 x 1 convolution of
elu(ul). A discretized mixture of logistics couples the channels of a pixel (eqs. 2 and 3,
`likely.heads`), so no colour masks are needed. Training uses dropout, normalised weights that
start at the statistics of a first batch, and averaged weights (the fit's `ema`).

Deviations: shifts come before the first convolutions, not after, so that row 0 and column 0 hold
biases and not zeros; the 1 x 1 convolution over [u, short-cut] is two that are added; sides
that are odd round up; Bernoulli and categorical heads for grey images.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import elu, relu

from likely.data.spec import Dataset, DataSpec
from likely.density import conditioned_on, evaluating, inputs_of
from likely.errors import InvalidSetting
from likely.heads import head_for
from likely.models.pixelcnn.settings import PixelCNNPPSettings
from likely.nn.condition import optional_condition
from likely.nn.masked import shift_down
from likely.nn.streams import (
    NormalizedKernel,
    StreamConv,
    StreamGrow,
    concat_elu,
    gated,
    shift_right,
)
from likely.noise import Dropout
from likely.sampling.incremental import Incremental
from likely.sampling.program import Builder, Cells, Tap

M = TypeVar("M", bound=nn.Module)

# Number of classes, and shape of a context, that a model is conditioned on.
Given = tuple[int, tuple[int, ...]]
STARTING_IMAGES = 64


class StreamBlock(nn.Module):
    """A residual block of one stream, [B, F, H, W], reading `others` further maps beside it."""

    def __init__(
        self,
        settings: PixelCNNPPSettings,
        conv: Callable[..., StreamConv],
        others: int,
        context: Given,
        stride: int,
    ) -> None:
        super().__init__()
        features = settings.channels
        self.is_gated = settings.block == "gated"
        wide = 2 if self.is_gated else 1
        self.stride = stride
        self.first = conv(wide * features, features)
        self.others = nn.ModuleList(
            StreamConv(wide * features, features, normalize=settings.weight_norm)
            for _ in range(others)
        )
        self.dropout = Dropout(settings.dropout)
        self.second = conv(wide * features, wide * features, scale=0.1)
        self.condition = optional_condition(*context, wide * features)

    def act(self, x: Tensor) -> Tensor:
        """The nonlinearity before a convolution."""
        return concat_elu(x) if self.is_gated else relu(x)

    def change(self, middle: Tensor) -> Tensor:
        """What is added to x, from the output of the second convolution."""
        return gated(middle) if self.is_gated else middle

    def forward(self, x: Tensor, others: tuple[Tensor, ...], context: Tensor | None) -> Tensor:
        middle = self.first(self.act(x))
        for layer, other in zip(self.others, others, strict=True):
            middle = middle + layer(self.act(other))
        middle = self.second(self.dropout(self.act(middle)))
        if self.condition is not None and context is not None:
            middle = middle + self.condition(context, middle.shape[2], self.stride)
        return x + self.change(middle)

    def incremental(self, build: Builder, x: Cells, others: tuple[Cells, ...]) -> Cells:
        """`forward`, pixel by pixel."""

        def act(x: Cells) -> Cells:
            return build.concat_elu(x) if self.is_gated else build.relu(x)

        read = [
            _as(StreamConv, layer).incremental(build, act(other))
            for layer, other in zip(self.others, others, strict=True)
        ]
        middle = self.first.incremental(build, act(x), read)
        terms = [] if self.condition is None else [self.condition.incremental(build, self.stride)]
        middle = self.second.incremental(build, act(middle), terms)
        return build.add(x, build.linear_gate(middle) if self.is_gated else middle)


def _as(kind: type[M], module: nn.Module) -> M:
    """A member of a list of modules as what it is."""
    assert isinstance(module, kind)
    return module


class BlockPair(nn.Module):
    """A block of each stream: (u, ul) and the short-cut's (u, ul), if any, to (u, ul)."""

    def __init__(
        self, settings: PixelCNNPPSettings, scale: int, shortcut: bool, context: Given
    ) -> None:
        super().__init__()
        strided = settings.resampling == "strided"
        dilation = 2**scale if settings.resampling == "dilated" else 1
        conv = functools.partial(
            StreamConv, above=1, left=1, dilation=dilation, normalize=settings.weight_norm
        )
        stride = 2**scale if strided else 1
        extra = 1 if shortcut else 0
        self.u = StreamBlock(settings, functools.partial(conv, right=1), extra, context, stride)
        self.ul = StreamBlock(settings, conv, 1 + extra, context, stride)

    def forward(
        self, u: Tensor, ul: Tensor, shortcut: tuple[Tensor, Tensor] | None, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        over_u, over_ul = ((), ()) if shortcut is None else ((shortcut[0],), (shortcut[1],))
        u = self.u(u, over_u, context)
        return u, self.ul(ul, (u, *over_ul), context)

    def incremental(
        self, build: Builder, u: Cells, ul: Cells, shortcut: tuple[Cells, Cells] | None
    ) -> tuple[Cells, Cells]:
        """`forward`, pixel by pixel."""
        over_u, over_ul = ((), ()) if shortcut is None else ((shortcut[0],), (shortcut[1],))
        u = self.u.incremental(build, u, over_u)
        return u, self.ul.incremental(build, ul, (u, *over_ul))


class Resample(nn.Module):
    """Both streams to the next coarser or the next finer resolution."""

    def __init__(self, settings: PixelCNNPPSettings, scale: int, finer: bool) -> None:
        super().__init__()
        features, normalize = settings.channels, settings.weight_norm
        self.grows = finer and settings.resampling == "strided"
        if self.grows:
            grow = functools.partial(StreamGrow, features, features, normalize=normalize)
            self.u: StreamGrow | StreamConv = grow(both_sides=True)
            self.ul: StreamGrow | StreamConv = grow(both_sides=False)
            return
        stride = 2 if settings.resampling == "strided" else 1
        dilation = 2**scale if settings.resampling == "dilated" else 1
        conv = functools.partial(
            StreamConv,
            features,
            features,
            above=1,
            left=1,
            stride=stride,
            dilation=dilation,
            normalize=normalize,
        )
        self.u, self.ul = conv(right=1), conv()

    def forward(self, u: Tensor, ul: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """`size` is that of the finer maps; only growing needs it."""
        if self.grows:
            return self.u(u, size), self.ul(ul, size)
        return self.u(u), self.ul(ul)

    def incremental(self, build: Builder, u: Cells, ul: Cells) -> tuple[Cells, Cells]:
        """`forward`, pixel by pixel."""
        return self.u.incremental(build, u), self.ul.incremental(build, ul)


class PixelCNNPP(Incremental):
    """The model; see the module's docstring.

    Args:
        spec: of the data, shape (C, H, W), any sides.
        settings: sizes and switches; `PixelCNNPPSettings.preset(spec)` by default.
    """

    def __init__(self, spec: DataSpec, settings: PixelCNNPPSettings | None = None) -> None:
        settings = settings or PixelCNNPPSettings.preset(spec)
        super().__init__(spec, *conditioned_on(spec, settings.conditional))
        self.settings = settings
        head = settings.head
        if head == "auto" and spec.shape[0] > 1:
            head = "logistic-mixture"  # the one that couples the colours
        self.head = head_for(head, spec, settings.components)
        if spec.shape[0] > 1 and not self.head.couples_channels:
            raise InvalidSetting(
                f"head={head} leaves the {spec.shape[0]} colours of a pixel uncoupled, and "
                "PixelCNN++ hides the whole pixel from its network; take head=logistic-mixture"
            )
        features, normalize = settings.channels, settings.weight_norm
        inputs = spec.shape[0] + 1  # with a map of ones, which tells the border from a zero
        conv = functools.partial(StreamConv, inputs, features, normalize=normalize)
        self.first_u = conv(above=1, left=1, right=1)
        self.first_above = conv(left=1, right=1)
        self.first_left = conv(above=1)
        scales, blocks = range(settings.scales), settings.blocks
        context = self.classes, self.context_shape
        self.down = nn.ModuleList(
            BlockPair(settings, scale, False, context) for scale in scales for _ in range(blocks)
        )
        self.coarser = nn.ModuleList(Resample(settings, scale, False) for scale in scales[1:])
        self.finer = nn.ModuleList(Resample(settings, scale, True) for scale in scales[:0:-1])
        self.up = nn.ModuleList(
            BlockPair(settings, scale, settings.shortcuts, context)
            for scale in reversed(scales)
            for _ in range(self.blocks_up(scale))
        )
        self.output = StreamConv(features, self.head.parameters, normalize=normalize)

    def blocks_up(self, scale: int) -> int:
        """Blocks of a scale on the way up: one for each map on the way down, less the last."""
        settings = self.settings
        return int(settings.blocks + (scale < settings.scales - 1))

    @property
    def has_blind_spot(self) -> bool:
        """Without short-cuts a pixel sees nothing after the corner of its coarse cell."""
        settings = self.settings
        strided = settings.resampling == "strided" and settings.scales > 1
        return strided and not settings.shortcuts

    @torch.no_grad()
    def start_at(self, data: Dataset) -> None:
        """Set gains and biases of normalised weights from a first batch (Salimans 2016)."""
        kernels = [m for m in self.modules() if isinstance(m, NormalizedKernel)]
        x, context = inputs_of(self, data.batch(slice(0, STARTING_IMAGES)))
        try:
            for kernel in kernels:
                kernel.starting = True
            with evaluating(self):  # no dropout: deviations of what is kept
                self.conditionals(x, self.labels(context, len(x)))
        finally:
            for kernel in kernels:
                kernel.starting = False

    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        h = self.scaled(x)
        h = torch.cat([h, torch.ones_like(h[:, :1])], 1)  # [B, C + 1, H, W]
        above = shift_down(h)
        u = self.first_u(above)
        ul = self.first_above(above) + self.first_left(shift_right(h))
        seen = [(u, ul)]
        down, up = iter(self.down), iter(self.up)
        settings = self.settings
        for scale in range(settings.scales):
            if scale:
                u, ul = self.coarser[scale - 1](u, ul, (0, 0))
                seen.append((u, ul))
            for _ in range(settings.blocks):
                u, ul = next(down)(u, ul, None, context)
                seen.append((u, ul))
        seen.pop()
        for scale in reversed(range(settings.scales)):
            for _ in range(self.blocks_up(scale)):
                mirror = seen.pop()
                u, ul = next(up)(u, ul, mirror if settings.shortcuts else None, context)
            if scale:
                finer = self.finer[settings.scales - 1 - scale]
                height, width = seen[-1][0].shape[2:]
                u, ul = finer(u, ul, (height, width))
        parameters: Tensor = self.output(elu(ul))
        return parameters

    def incremental(self, build: Builder) -> Cells:
        channels, height, width = self.spec.shape
        x = build.image()
        ones = build.constant(torch.ones(1, height, width, device=self.device))

        def reads(conv: StreamConv, up: int, left: int) -> list[Tap]:
            return [*conv.taps(x, up, left), *conv.taps(ones, up, left, channels)]

        u = build.linear(reads(self.first_u, 1, 0), self.first_u.bias)
        both = [*reads(self.first_above, 1, 0), *reads(self.first_left, 0, 1)]
        ul = build.linear(both, self.first_above.bias + self.first_left.bias)
        seen = [(u, ul)]
        down, up = iter(self.down), iter(self.up)
        settings = self.settings
        for scale in range(settings.scales):
            if scale:
                u, ul = _as(Resample, self.coarser[scale - 1]).incremental(build, u, ul)
                seen.append((u, ul))
            for _ in range(settings.blocks):
                u, ul = _as(BlockPair, next(down)).incremental(build, u, ul, None)
                seen.append((u, ul))
        seen.pop()
        for scale in reversed(range(settings.scales)):
            for _ in range(self.blocks_up(scale)):
                mirror = seen.pop() if settings.shortcuts else None
                u, ul = _as(BlockPair, next(up)).incremental(build, u, ul, mirror)
            if scale:
                finer = self.finer[settings.scales - 1 - scale]
                u, ul = _as(Resample, finer).incremental(build, u, ul)
        return self.output.incremental(build, build.elu(ul))
