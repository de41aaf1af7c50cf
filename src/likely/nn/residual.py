"""Residual blocks of unmasked convolutions, for encoders and decoders (He et al. 2016).

No normalisation layers: batch statistics would couple the examples of a batch, and a bound on
log p(x) must be a function of x alone. The last convolution of a block starts at a tenth of its
scale, so a deep stack starts near the identity.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu


class ResidualBlock(nn.Module):
    """x + conv(silu(conv(silu(x)))), [B, F, H, W]."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(features, features, 3, padding=1)
        self.second = nn.Conv2d(features, features, 3, padding=1)
        with torch.no_grad():
            self.second.weight.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.second(silu(self.first(silu(x))))
        return x + change


class Down(nn.Module):
    """Halve height and width (rounding up) by a strided convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(silu(x))
        return y


class Up(nn.Module):
    """Enlarge to a given size by nearest neighbours, then convolve."""

    def __init__(self, inputs: int, outputs: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(interpolate(silu(x), size=self.size))
        return y


class Enlarge(nn.Module):
    """A feature map of the full size from the small image, [B, C, h, w] to [B, M, H, W]."""

    def __init__(self, channels: int, features: int, factor: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.seen = nn.Conv2d(channels, features, 3, padding=1)
        self.up = nn.ConvTranspose2d(features, features, 2 * factor, factor, padding=factor // 2)
        self.after = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, small: Tensor) -> Tensor:
        height, width = self.size
        large: Tensor = self.up(silu(self.seen(small)))
        large = silu(large[:, :, :height, :width])
        mapped: Tensor = silu(self.after(large))
        return mapped


def sizes(height: int, width: int, smallest: int = 4) -> list[tuple[int, int]]:
    """Halvings (rounded up) of an image until a side would fall below `smallest`.

    >>> sizes(28, 28)
    [(28, 28), (14, 14), (7, 7), (4, 4)]
    """
    steps = [(height, width)]
    while min(height, width) > smallest:
        height, width = (height + 1) // 2, (width + 1) // 2
        steps.append((height, width))
    return steps
