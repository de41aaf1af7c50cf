r"""DCGAN (Radford, Metz, Chintala 2016): convolutional generator against discriminator.

https://arxiv.org/abs/1511.06434

x = G(z), z uniform on [-1, 1]^latent. The paper's five guidelines:

1. strided convolutions in D and fractionally strided ones in G, no pooling;
2. batch normalisation in both, except at G's output and D's input;
3. no hidden dense layers;
4. ReLU in G, tanh at its output;
5. LeakyReLU (0.2) in D.

Weights start at N(0, 0.02). `likely fit dcgan --preset paper` is the paper's: 5 x 5 kernels,
N(0, 0.02), Adam with beta1 0.5 against the loss of 2014, no average of the weights. Deviations of
the default: 4 x 4 kernels with stride 2 (no checkerboard, as in the widely used
re-implementations); with `normalize="none"` guideline 2 is dropped for losses that penalise
gradients (Huang et al. 2024 need no normalisation), and weights start at He scale. With
`normalize="spectral"` the layers of D have spectral norm 1 in place of batch normalisation (Miyato
et al. 2018, https://arxiv.org/abs/1802.05957). Always: sizes that are no power of two are cropped
at G's output; generation uses running statistics, so an image does not depend on its batch.

A conditional model multiplies z by an embedding of the label, and D adds the projection of its
features on another (Miyato and Koyama 2018, https://arxiv.org/abs/1802.05637).
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, relu
from torch.nn.utils.parametrizations import spectral_norm

from likely.data.spec import DataSpec
from likely.density.fittable import labels_of
from likely.models.gan.images import (
    ConvolutionalDiscriminator,
    FromUniformCodes,
    initialise,
    refuse_small,
)
from likely.models.gan.settings import DCGANSettings
from likely.nn.normalization import BatchNorm2d

REASONS = {
    "none": "the objective keeps the gradient of D small at each image, and the statistics of a "
    "batch would couple the images",
    "spectral": "the largest singular value of every layer of D is held at 1, in place of the "
    "scale of its features",
}


def _doublings(height: int, width: int) -> tuple[int, tuple[int, int]]:
    """(number of doublings, first map): the smallest map of side >= 2 that grows to the image."""
    side = max(height, width)
    doublings = max(1, round(math.log2(side / 4))) if side > 8 else 1
    scale = 2**doublings
    return doublings, (math.ceil(height / scale), math.ceil(width / scale))


class Generator(nn.Module):
    """z [B, latent] -> images in [-1, 1], [B, C, H, W]."""

    def __init__(self, spec: DataSpec, settings: DCGANSettings, classes: int) -> None:
        super().__init__()
        channels, self.height, self.width = spec.shape
        doublings, self.start = _doublings(self.height, self.width)
        batch = settings.normalize != "none"
        widths = [settings.channels * 2**index for index in reversed(range(doublings))]
        self.label = nn.Embedding(classes, settings.latent) if classes else None
        # A fractionally strided convolution of a 1 x 1 map: no hidden dense layer (guideline 3).
        self.first = nn.ConvTranspose2d(settings.latent, widths[0], self.start, bias=not batch)
        self.norms = nn.ModuleList(BatchNorm2d(w) if batch else nn.Identity() for w in widths)
        self.ups = nn.ModuleList(
            _doubling(a, b, settings.kernel, bias=not batch) for a, b in itertools.pairwise(widths)
        )
        self.last = _doubling(widths[-1], channels, settings.kernel)
        _initialise(self, None if batch else math.sqrt(2.0))

    def forward(self, z: Tensor, context: Tensor | None) -> Tensor:
        if self.label is not None and context is not None:
            z = z * self.label(context)
        x = relu(self.norms[0](self.first(z[:, :, None, None])))
        for up, norm in zip(self.ups, self.norms[1:], strict=True):
            x = relu(norm(up(x)))
        x = torch.tanh(self.last(x))
        return x[:, :, : self.height, : self.width]


class Discriminator(ConvolutionalDiscriminator):
    """Images in [-1, 1], [B, C, H, W] -> logit that they are real, [B]."""

    def __init__(self, spec: DataSpec, settings: DCGANSettings, classes: int) -> None:
        super().__init__()
        channels, height, width = spec.shape
        doublings, _start = _doublings(height, width)
        batch = settings.normalize == "batch"
        widths = [channels] + [settings.channels * 2**index for index in range(doublings)]
        self.downs = nn.ModuleList(
            nn.Conv2d(
                a,
                b,
                settings.kernel,
                stride=2,
                padding=(settings.kernel - 1) // 2,
                bias=not batch or index == 0,
            )
            for index, (a, b) in enumerate(itertools.pairwise(widths))
        )
        # None at D's input (guideline 2).
        self.norms = nn.ModuleList(
            BatchNorm2d(w) if batch and index else nn.Identity()
            for index, w in enumerate(widths[1:])
        )
        odd = settings.kernel % 2  # rounds up
        for _ in range(doublings):
            height, width = (height + odd) // 2, (width + odd) // 2
        self.last = nn.Conv2d(widths[-1], 1, (height, width))
        self.label = nn.Embedding(classes, widths[-1]) if classes else None
        _initialise(self, None if batch else math.sqrt(2.0))
        if settings.normalize == "spectral":
            for layer in (*self.downs, self.last, *([self.label] if self.label else [])):
                spectral_norm(layer)

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        x = self.maps(x)[-1]
        logit: Tensor = self.last(x).flatten(1).sum(1)
        if self.label is not None and context is not None:
            # Projection of the pooled features on the label.
            logit = logit + (x.sum((2, 3)) * self.label(context)).sum(1) / math.sqrt(x.shape[1])
        return logit

    def maps(self, x: Tensor) -> list[Tensor]:
        """Activations of every convolution, [B, F, H, W] each."""
        maps = []
        for down, norm in zip(self.downs, self.norms, strict=True):
            x = leaky_relu(norm(down(x)), 0.2)
            maps.append(x)
        return maps


class DCGAN(FromUniformCodes):
    """The model; see the module's docstring.

    Args:
        spec: of the data, shape (C, H, W), sides of at least 4 pixels.
        settings: sizes; `DCGANSettings.preset(spec)` by default.
    """

    def __init__(self, spec: DataSpec, settings: DCGANSettings | None = None) -> None:
        settings = settings or DCGANSettings.preset(spec)
        super().__init__(spec, labels_of(spec, settings.conditional))
        refuse_small(spec, "DCGAN")
        self.settings = settings
        self.latent, self.rounds = settings.latent, settings.rounds
        self.generator = Generator(spec, settings, self.classes)

    def adversary(self) -> Discriminator:
        """A fresh discriminator of the same sizes, for the objective."""
        # Its initial weights come after a generator's in the stream of random numbers.
        Generator(self.spec, self.settings, self.classes)
        return Discriminator(self.spec, self.settings, self.classes)

    @property
    def dropped_guidelines(self) -> dict[int, str]:
        """The guidelines that the settings breach, by number, with the reason."""
        normalize = self.settings.normalize
        reason = REASONS.get(normalize)
        return {2: f'asked for by normalize="{normalize}": {reason}'} if reason else {}


def _doubling(inputs: int, outputs: int, kernel: int, bias: bool = True) -> nn.ConvTranspose2d:
    """A fractionally strided convolution to a map of twice the sides."""
    return nn.ConvTranspose2d(
        inputs,
        outputs,
        kernel,
        stride=2,
        padding=(kernel - 1) // 2,
        output_padding=kernel % 2,
        bias=bias,
    )


def _initialise(network: nn.Module, gain: float | None) -> None:
    """Every layer, and the gains of batch normalisation."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            initialise(layer, gain)
        elif isinstance(layer, BatchNorm2d):
            nn.init.normal_(layer.gain, 1.0, 0.02)
