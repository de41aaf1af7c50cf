r"""R3GAN at small size (Huang, Gokaslan, Kuleshov, Tompkin 2024): residual networks that play.

https://arxiv.org/abs/2501.05441

No normalisation layer at all. Both networks are stages of inverted residual blocks, one resolution
each, and bilinear resampling between them:

    x + W3 f(W2 f(W1 x)),    f = LeakyReLU(0.2)

W1 widens by a 1 x 1 convolution, W2 is a grouped 3 x 3 convolution, W3 narrows again. W3 starts at
zero; W1 and W2 at He scale times L^(-1/4), L blocks in the network, so that the output's scale does
not grow with depth (fixup; Zhang, Dauphin and Ma 2019, https://arxiv.org/abs/1901.09321).

G starts from a learned map, multiplied by a linear function of z. D ends with a weight for each
pixel of each feature, and a linear layer; of a conditional model with the projection on the label
(Miyato and Koyama 2018, https://arxiv.org/abs/1802.05637), whose embedding also joins z in G.

Deviations: widths double as the resolution halves, where the paper's are 768 throughout; the
resampling is F.interpolate's bilinear one, with taps (1, 3, 3, 1), where the paper's are (1, 2, 1);
the smallest map has sides of 4 to 7; z is uniform on [-1, 1], as everywhere in this family. With
`patch=2` D begins with a strided convolution and G ends with a fractionally strided one, so that
nothing is computed at the resolution of the image: a quarter of the work.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu

from likely.data.spec import DataSpec
from likely.density.fittable import labels_of
from likely.errors import InvalidSetting
from likely.models.gan.images import (
    ConvolutionalDiscriminator,
    FromUniformCodes,
    initialise,
    refuse_small,
)
from likely.models.gan.settings import R3GANSettings

SLOPE = 0.2
# LeakyReLU keeps the second moment of its input times this, squared.
GAIN = math.sqrt(2.0 / (1.0 + SLOPE**2))


def sides_of(height: int, width: int) -> list[tuple[int, int]]:
    """Sides of the map of every stage, the image's first: halves, none shorter than 4."""
    sides = [(height, width)]
    while min(height, width) >= 8:
        height, width = -(-height // 2), -(-width // 2)
        sides.append((height, width))
    return sides


def _patches(side: int) -> tuple[int, int, int]:
    """(kernel, stride, padding) of a convolution of patches, which overlap by half."""
    return (2 * side, side, side // 2) if side > 1 else (1, 1, 0)


class Block(nn.Module):
    """An inverted residual block, [B, F, H, W] -> the same."""

    def __init__(self, features: int, settings: R3GANSettings, blocks: int) -> None:
        super().__init__()
        inner = features * settings.expansion
        groups = max(1, inner // settings.group_size)
        if inner % groups:
            raise InvalidSetting(
                f"group_size={settings.group_size} does not divide {inner} features"
            )
        self.widen = nn.Conv2d(features, inner, 1)
        self.mix = nn.Conv2d(inner, inner, 3, padding=1, groups=groups)
        self.narrow = nn.Conv2d(inner, features, 1, bias=False)
        for layer in (self.widen, self.mix):
            initialise(layer, GAIN * blocks**-0.25)
        nn.init.zeros_(self.narrow.weight)

    def forward(self, x: Tensor) -> Tensor:
        hidden = leaky_relu(self.widen(x), SLOPE)
        out: Tensor = x + self.narrow(leaky_relu(self.mix(hidden), SLOPE))
        return out


class Stages(nn.Module):
    """Blocks at one resolution after another: maps [B, F0, *sides[0]] -> [B, F1, *sides[-1]]."""

    def __init__(
        self, widths: list[int], sides: list[tuple[int, int]], settings: R3GANSettings
    ) -> None:
        super().__init__()
        self.sides = sides
        count = settings.blocks * len(widths)
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(width, settings, count) for _ in range(settings.blocks)))
            for width in widths
        )
        self.changes = nn.ModuleList(
            nn.Conv2d(a, b, 1, bias=False) for a, b in itertools.pairwise(widths)
        )
        for change in self.changes:
            initialise(change, 1.0)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The map after every stage."""
        maps = [self.stages[0](x)]
        for stage, change, side in zip(self.stages[1:], self.changes, self.sides[1:], strict=True):
            x = maps[-1]
            if side[0] > x.shape[2]:  # the narrower map is convolved at the lower resolution
                x = interpolate(change(x), side, mode="bilinear")
            else:
                x = change(interpolate(x, side, mode="bilinear"))
            maps.append(stage(x))
        return maps


class Generator(nn.Module):
    """z [B, latent] -> images in [-1, 1], [B, C, H, W]."""

    def __init__(self, spec: DataSpec, settings: R3GANSettings, classes: int) -> None:
        super().__init__()
        channels, self.height, self.width = spec.shape
        patch = settings.patch
        sides = sides_of(-(-self.height // patch), -(-self.width // patch))[::-1]
        widths = [settings.channels * 2**index for index in range(len(sides))][::-1]
        self.label = nn.Embedding(classes, settings.latent) if classes else None
        inputs = settings.latent * (2 if classes else 1)
        self.basis = nn.Parameter(torch.randn(widths[0], *sides[0]))
        self.first = nn.Linear(inputs, widths[0])
        nn.init.normal_(self.first.weight, 0.0, math.sqrt(3.0 / inputs))  # Var z = 1/3
        nn.init.zeros_(self.first.bias)
        self.trunk = Stages(widths, sides, settings)
        self.last = nn.ConvTranspose2d(widths[-1], channels, *_patches(patch))
        initialise(self.last, 1.0)

    def forward(self, z: Tensor, context: Tensor | None) -> Tensor:
        if self.label is not None and context is not None:
            z = torch.cat([z, self.label(context)], 1)
        x = self.basis * self.first(z)[:, :, None, None]
        x = torch.tanh(self.last(self.trunk(x)[-1]))
        return x[:, :, : self.height, : self.width]


class Discriminator(ConvolutionalDiscriminator):
    """Images in [-1, 1], [B, C, H, W] -> logit that they are real, [B]."""

    def __init__(self, spec: DataSpec, settings: R3GANSettings, classes: int) -> None:
        super().__init__()
        channels, height, width = spec.shape
        sides = sides_of(height // settings.patch, width // settings.patch)
        widths = [settings.channels * 2**index for index in range(len(sides))]
        self.first = nn.Conv2d(channels, widths[0], *_patches(settings.patch))
        initialise(self.first, 1.0)
        self.trunk = Stages(widths, sides, settings)
        self.pixels = nn.Conv2d(widths[-1], widths[-1], sides[-1], groups=widths[-1], bias=False)
        initialise(self.pixels, 1.0)
        self.last = nn.Linear(widths[-1], 1)
        nn.init.normal_(self.last.weight, 0.0, 1 / math.sqrt(widths[-1]))
        self.label = nn.Embedding(classes, widths[-1]) if classes else None

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        x = self.pixels(self.maps(x)[-1]).flatten(1)
        logit: Tensor = self.last(x)[:, 0]
        if self.label is not None and context is not None:
            logit = logit + (x * self.label(context)).sum(1) / math.sqrt(x.shape[1])
        return logit

    def maps(self, x: Tensor) -> list[Tensor]:
        """The map of every stage, [B, F, H, W] each."""
        maps: list[Tensor] = self.trunk(self.first(x))
        return maps


class R3GAN(FromUniformCodes):
    """The model; see the module's docstring.

    Args:
        spec: of the data, shape (C, H, W), sides of at least 4 pixels.
        settings: sizes; `R3GANSettings.preset(spec)` by default.
    """

    def __init__(self, spec: DataSpec, settings: R3GANSettings | None = None) -> None:
        settings = settings or R3GANSettings.preset(spec)
        super().__init__(spec, labels_of(spec, settings.conditional))
        refuse_small(spec, "R3GAN")
        self.settings = settings
        self.latent, self.rounds = settings.latent, settings.rounds
        self.generator = Generator(spec, settings, self.classes)

    def adversary(self) -> Discriminator:
        """A fresh discriminator of the same sizes, for the objective."""
        return Discriminator(self.spec, self.settings, self.classes)
