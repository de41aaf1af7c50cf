r"""Invertible maps of images: squeezes, steps of couplings, several scales.

A scale trades space for channels (a squeeze, [C, H, W] to [4 C, H/2, W/2]), applies steps, and
passes half of the channels on to the next scale; the other half is done (Dinh, Sohl-Dickstein and
Bengio 2017, secs. 3.4 to 3.6, https://arxiv.org/abs/1605.08803). A step is ActNorm, an invertible
1 x 1 convolution and an affine coupling (Kingma and Dhariwal 2018,
https://arxiv.org/abs/1807.03039). After a squeeze a mask of channels is the checkerboard, at a
quarter of the pixels; where a side is odd, that side stays, and a single channel is masked as a
checkerboard.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from likely.density import at_least_float
from likely.devices.precision import without_autocast
from likely.nn.flow import SMALL, ActNorm, AffineCoupling, Bijection, Chain, InvertibleLinear
from likely.nn.residual import ResidualBlock


class Squeeze(Bijection):
    """Blocks of fh x fw pixels become channels, [B, C, H, W] -> [B, C fh fw, H / fh, W / fw]."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        n, c, h, w = z.shape
        down, across = self.height, self.width
        blocks = z.reshape(n, c, h // down, down, w // across, across)
        return blocks.permute(0, 1, 3, 5, 2, 4).flatten(1, 3), z.new_zeros(())

    def inverse(self, u: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        n, c, h, w = u.shape
        down, across = self.height, self.width
        blocks = u.reshape(n, c // (down * across), down, across, h, w)
        return blocks.permute(0, 1, 4, 2, 5, 3).flatten(4, 5).flatten(2, 3), u.new_zeros(())


class ChannelMix(Bijection):
    """`InvertibleLinear` of the channels of each pixel, [B, C, H, W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = InvertibleLinear(channels)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        pixels = z.movedim(1, -1)
        with without_autocast(z.device):
            u, log_det = self.mix(pixels.reshape(-1, pixels.shape[-1]))
        return u.reshape(pixels.shape).movedim(-1, 1), log_det * math.prod(z.shape[2:])

    def inverse(self, u: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        pixels = u.movedim(1, -1)
        with without_autocast(u.device):
            z, log_det = self.mix.inverse(pixels.reshape(-1, pixels.shape[-1]))
        return z.reshape(pixels.shape).movedim(-1, 1), log_det * math.prod(u.shape[2:])


class ConvNetwork(nn.Module):
    """Scales and shifts of a coupling on images, [B, C, H, W] -> [B, 2 C, H, W].

    Args:
        channels: of the images.
        features: maps inside.
        blocks: residual blocks.
        context: channels of what scales and shifts depend on, too; 0 for none.
    """

    def __init__(self, channels: int, features: int, blocks: int, context: int = 0) -> None:
        super().__init__()
        self.input = nn.Conv2d(channels + context, features, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(features) for _ in range(blocks))
        self.output = nn.Conv2d(features, 2 * channels, 3, padding=1)
        self.output.weight.data *= SMALL

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        x = self.input(z if context is None else torch.cat([z, context], 1))
        for block in self.blocks:
            x = block(x)
        return at_least_float(self.output(silu(x)))


class MultiScale(Bijection):
    """Scales one after another, [B, C, H, W] -> [B, D].

    Args:
        shape: (C, H, W).
        scales: at most; fewer where both sides are odd before.
        steps: at each scale.
        features: maps of the networks of the first scale, twice as many at every other.
        blocks: residual blocks of each network.
    """

    def __init__(
        self, shape: tuple[int, int, int], scales: int, steps: int, features: int, blocks: int
    ) -> None:
        super().__init__()
        self.scales = nn.ModuleList()
        self.shapes: list[tuple[int, int, int]] = []  # of what is done after each scale
        for index in range(scales):
            squeeze, shape = squeezed(shape)
            maps = image_steps(shape, steps, features * 2 ** min(index, 1), blocks)
            self.scales.append(Chain([squeeze, *maps]))
            channels, height, width = shape
            following = squeezed((channels // 2, height, width))[1]
            last = index == scales - 1 or channels < 2 or following == (channels // 2, *shape[1:])
            done = channels if last else channels - channels // 2
            self.shapes.append((done, height, width))
            shape = (channels // 2, height, width)
            if last:
                break

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total, done = z.new_zeros(()), []
        for scale, (channels, _, _) in zip(self.scales, self.shapes, strict=True):
            z, log_det = scale(z, context)
            total = total + log_det
            done.append(z[:, :channels].flatten(1))
            z = z[:, channels:]
        return torch.cat(done, 1), total

    def inverse(self, u: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        sizes = [math.prod(shape) for shape in self.shapes]
        parts = torch.split(u, sizes, 1)
        total, z = u.new_zeros(()), u[:, :0]
        for scale, shape, part in reversed(list(zip(self.scales, self.shapes, parts, strict=True))):
            assert isinstance(scale, Chain)
            part = part.reshape(-1, *shape)
            z, log_det = scale.inverse(torch.cat([part, z], 1) if z.ndim == 4 else part, context)
            total = total + log_det
        return z, total

    def start_at(self, z: Tensor) -> None:
        for scale, (channels, _, _) in zip(self.scales, self.shapes, strict=True):
            assert isinstance(scale, Chain)
            scale.start_at(z)
            z = scale(z)[0][:, channels:]


def squeezed(shape: tuple[int, int, int]) -> tuple[Squeeze, tuple[int, int, int]]:
    """(the squeeze of the even sides, the shape afterwards)."""
    channels, height, width = shape
    down, across = (2 if side % 2 == 0 else 1 for side in (height, width))
    return Squeeze(down, across), (channels * down * across, height // down, width // across)


def image_steps(
    shape: tuple[int, int, int], steps: int, features: int, blocks: int, context: int = 0
) -> list[Bijection]:
    """ActNorm, 1 x 1 convolution and coupling, this many times; arguments as for `ConvNetwork`."""
    channels, height, width = shape
    maps: list[Bijection] = []
    for index in range(steps):
        if channels == 1:
            rows, columns = torch.arange(height)[:, None], torch.arange(width)
            mask = ((rows + columns + index) % 2)[None]
        else:
            c = torch.arange(channels)[:, None, None]
            mask = ((c + c // 2 if index % 4 < 2 else c) + index) % 2
        network = ConvNetwork(channels, features, blocks, context)
        coupling = AffineCoupling(mask.float(), network)
        maps += [ActNorm((channels, height, width)), ChannelMix(channels), coupling]
    return maps
