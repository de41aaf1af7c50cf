r"""GAN (Goodfellow et al. 2014): fully connected generator against discriminator.

https://arxiv.org/abs/1406.2661

x = G(z), z uniform on [-1, 1]^latent; G has hidden layers of rectifiers and tanh at its output, D
hidden layers of maxout units (Goodfellow et al. 2013, https://arxiv.org/abs/1302.4389), each the
largest of `pieces` linear ones. It takes vectors of numbers on a lattice as well as images.

Deviations: no dropout in D, whose gradient the default objective penalises instead; one piece is
a LeakyReLU; weights start at He scale; labels shift the first layer of G and are projected on
the last of D (Miyato and Koyama 2018).
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, relu

from likely.data.spec import DataSpec
from likely.density.fittable import labels_of
from likely.models.gan.images import FromUniformCodes
from likely.models.gan.settings import GANSettings


class DenseGenerator(nn.Module):
    """z [B, latent] -> vectors or images in [-1, 1], [B, *shape]."""

    def __init__(self, spec: DataSpec, settings: GANSettings, classes: int) -> None:
        super().__init__()
        self.shape = spec.shape
        widths = [settings.latent, *[settings.hidden] * settings.layers]
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.last = nn.Linear(settings.hidden, spec.dimensions)
        self.label = nn.Embedding(classes, settings.hidden) if classes else None

    def forward(self, z: Tensor, context: Tensor | None) -> Tensor:
        x = z
        for number, layer in enumerate(self.hidden):
            x = layer(x)
            if number == 0 and self.label is not None and context is not None:
                x = x + self.label(context)
            x = relu(x)
        return torch.tanh(self.last(x)).reshape(-1, *self.shape)


class DenseDiscriminator(nn.Module):
    """Vectors or images in [-1, 1], [B, *shape] -> logit of being real, [B].

    Args:
        dimensions: numbers of an example.
        classes: of the label; 0 for none.
        hidden: units of a layer.
        layers: hidden ones.
        pieces: of a maxout unit; 1 for LeakyReLU.
    """

    def __init__(
        self, dimensions: int, classes: int, hidden: int = 256, layers: int = 2, pieces: int = 1
    ) -> None:
        super().__init__()
        self.pieces = pieces
        widths = [dimensions, *[hidden] * layers]
        self.hidden = nn.ModuleList(nn.Linear(a, b * pieces) for a, b in itertools.pairwise(widths))
        self.last = nn.Linear(hidden, 1)
        self.label = nn.Embedding(classes, hidden) if classes else None

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        hidden = self._layers(x)[-1]
        logit: Tensor = self.last(hidden)[:, 0]
        if self.label is not None and context is not None:
            logit = logit + (hidden * self.label(context)).sum(1) / math.sqrt(hidden.shape[1])
        return logit

    def features(self, x: Tensor) -> Tensor:
        """All hidden layers, [B, features]."""
        return torch.cat(self._layers(x), 1)

    def activations(self, x: Tensor) -> dict[str, Tensor]:
        """Every hidden layer by name, [B, hidden]."""
        return {f"layer-{number}": layer for number, layer in enumerate(self._layers(x), 1)}

    def _layers(self, x: Tensor) -> list[Tensor]:
        layers, x = [], x.flatten(1)
        for layer in self.hidden:
            x = layer(x)
            maxout = self.pieces > 1
            x = x.reshape(len(x), -1, self.pieces).amax(2) if maxout else leaky_relu(x, 0.2)
            layers.append(x)
        return layers


class GAN(FromUniformCodes):
    """The model; see the module's docstring.

    Args:
        spec: of the data, images (C, H, W) or vectors (D,).
        settings: sizes; `GANSettings.preset(spec)` by default.
    """

    takes_vectors = True

    def __init__(self, spec: DataSpec, settings: GANSettings | None = None) -> None:
        settings = settings or GANSettings.preset(spec)
        super().__init__(spec, labels_of(spec, settings.conditional))
        self.settings = settings
        self.latent, self.rounds = settings.latent, settings.rounds
        self.generator = DenseGenerator(spec, settings, self.classes)

    def adversary(self) -> DenseDiscriminator:
        """A fresh discriminator of as many layers, for the objective."""
        s = self.settings
        return DenseDiscriminator(
            self.spec.dimensions, self.classes, s.discriminator_hidden, s.layers, s.pieces
        )
