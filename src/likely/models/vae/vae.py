r"""Variational autoencoder (Kingma and Welling 2014; Rezende, Mohamed, Wierstra 2014).

https://arxiv.org/abs/1312.6114, https://arxiv.org/abs/1401.4082

    z ~ N(0, I),  x ~ p(x|z),   log p(x) >= E_q[log p(x|z)] - KL(q(z|x) || N(0, I))

The encoder gives a diagonal Gaussian q(z|x), the decoder the parameters of a head over the same
integers as an autoregressive model's, so that the bound is on the same log p(x). The output
bias starts at the data (worth about one nat, according to the code of Burda et al. 2016).

Networks: dense, SiLU layers of one width; or convolutional, residual blocks at each
halving of the image, no normalisation. The class label, if any, enters both networks as a
learned vector.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from likely.data.spec import Dataset, DataSpec
from likely.density import DiagonalGaussian, LatentVariable, at_least_float
from likely.devices.precision import full_precision
from likely.errors import InvalidSetting
from likely.heads import head_for
from likely.models.vae.settings import VAESettings
from likely.nn.residual import Down, ResidualBlock, Up, sizes


class DenseTrunk(nn.Module):
    """Linear layers with SiLU between them, [B, inputs] -> [B, outputs]."""

    def __init__(self, inputs: int, hidden: int, layers: int, outputs: int) -> None:
        super().__init__()
        widths = [inputs] + [hidden] * layers
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.output = nn.Linear(widths[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.hidden:
            x = silu(layer(x))
        y: Tensor = self.output(x)
        return y


class ConvEncoder(nn.Module):
    """[B, C, H, W] -> [B, outputs] through residual blocks at each halving."""

    def __init__(self, shape: tuple[int, ...], features: int, blocks: int, outputs: int) -> None:
        super().__init__()
        channels, height, width = shape
        steps = sizes(height, width)
        layers: list[nn.Module] = [nn.Conv2d(channels, features, 3, padding=1)]
        current = features
        for _index in range(1, len(steps)):
            following = min(4 * features, current * 2)
            layers += [Down(current, following)]
            current = following
            layers += [ResidualBlock(current) for _ in range(blocks)]
        self.layers = nn.ModuleList(layers)
        h, w = steps[-1]
        self.output = nn.Linear(current * h * w, outputs)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        y: Tensor = self.output(silu(x).flatten(1))
        return y


class ConvDecoder(nn.Module):
    """[B, inputs] -> [B, features, H, W], the encoder's sizes backwards."""

    def __init__(
        self, shape: tuple[int, ...], features: int, blocks: int, inputs: int, outputs: int
    ) -> None:
        super().__init__()
        _, height, width = shape
        steps = sizes(height, width)
        widths = [features]
        for _ in steps[1:]:
            widths.append(min(4 * features, widths[-1] * 2))
        self.start = (widths[-1], *steps[-1])
        self.input = nn.Linear(inputs, widths[-1] * steps[-1][0] * steps[-1][1])
        layers: list[nn.Module] = []
        for index in reversed(range(1, len(steps))):
            layers += [ResidualBlock(widths[index]) for _ in range(blocks)]
            layers += [Up(widths[index], widths[index - 1], steps[index - 1])]
        self.layers = nn.ModuleList(layers)
        self.output = nn.Conv2d(widths[0], outputs, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.input(z).unflatten(1, self.start)
        for layer in self.layers:
            x = layer(x)
        y: Tensor = self.output(silu(x))
        return y


class VAE(LatentVariable):
    """The model; see the module's docstring.

    Args:
        spec: of the data, shape (C, H, W) or (D,).
        settings: sizes; `VAESettings.preset(spec)` by default. Vectors need network="dense".
    """

    takes_vectors = True

    def __init__(self, spec: DataSpec, settings: VAESettings | None = None) -> None:
        settings = settings or VAESettings.preset(spec)
        super().__init__(spec, len(spec.classes) if settings.conditional else 0)
        if settings.conditional and not spec.classes:
            raise InvalidSetting(f"conditional=true needs labels; {spec.name} has none")
        if settings.network == "conv" and len(spec.shape) == 1:
            raise InvalidSetting(
                f"network=conv convolves images [C, H, W], and {spec.name} holds vectors of "
                f"{spec.dimensions}: take network=dense"
            )
        self.settings = settings
        self.latent = settings.latent
        self.head = head_for(settings.head, spec, settings.components)
        dims, params = spec.dimensions, self.head.parameters
        s = settings
        self.encoder: nn.Module
        self.decoder: nn.Module
        if s.network == "dense":
            _, h, w = spec.grid
            self.encoder = DenseTrunk(dims, s.hidden, s.layers, 2 * s.latent)
            self.decoder = DenseTrunk(s.latent, s.hidden, s.layers, params * h * w)
        else:
            self.encoder = ConvEncoder(spec.grid, s.channels, s.blocks, 2 * s.latent)
            self.decoder = ConvDecoder(spec.grid, s.channels, s.blocks, s.latent, params)
        # Per pixel, filled by `start_at`; the networks then learn what differs from the mean.
        self.output_bias = nn.Parameter(torch.zeros(params, *spec.grid[1:]))
        self.label_in = nn.Embedding(self.classes, dims) if self.classes else None
        self.label_out = nn.Embedding(self.classes, s.latent) if self.classes else None

    @torch.no_grad()
    def start_at(self, data: Dataset) -> None:
        """Set the output bias so that the decoder starts at the mean image of the data."""
        mean = torch.from_numpy(np.asarray(data.pixel_mean(), np.float64)).reshape(self.spec.grid)
        self.output_bias.copy_(self.head.bias_for(mean))

    @full_precision
    def posterior(self, x: Tensor, context: Tensor | None = None) -> DiagonalGaussian:
        x, labels = self.scaled(self.integers(x)), self.labels(context, len(x))
        if self.label_in is not None:
            x = x + self.label_in(labels).unflatten(1, self.spec.grid)
        code = self.encoder(x.flatten(1) if self.settings.network == "dense" else x)
        mean, log_scale = at_least_float(code).chunk(2, -1)
        # Scales far outside this range only overflow; the clamp never binds in a fitted model.
        return DiagonalGaussian(mean, log_scale.clamp(-8.0, 4.0))

    @full_precision
    def decoder_output(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        if self.label_out is not None:
            z = z + self.label_out(self.labels(context, len(z)))
        parameters: Tensor = self.decoder(z)
        if self.settings.network == "dense":
            parameters = parameters.reshape(-1, *self.output_bias.shape)
        return parameters + self.output_bias
