r"""Autoencoder (Hinton and Salakhutdinov 2006; Vincent et al. 2008; Ng 2011).

https://doi.org/10.1126/science.1127647, https://doi.org/10.1145/1390156.1390294,
https://web.stanford.edu/class/cs294a/sparseAutoencoder.pdf

    z = f(x),  x' = g(z),  minimise |x - x'|^2  or  -log p(x | z)

It encodes, decodes and reconstructs. It is no generative model: nothing says which codes there
are. The ladder of the lecture is the setting `network`: one linear map each way, whose squared
loss is least where it spans the subspace of the first principal components (Baldi and Hornik 1989,
https://doi.org/10.1016/0893-6080(89)90014-2); fully connected; convolutions, halving the image.

- Denoising: the encoder sees x with a share of its values set to 0, or with Gaussian noise; the
  target is x itself.
- Sparse: codes after a ReLU with the penalty sum_j |z_j|; or codes in (0, 1) with
  sum_j KL(target || mean of z_j over the batch).

What is reported, on the validation set, too, is the loss of clean examples without a penalty.

Deviations: Adam from small random weights in place of layer-wise pre-training; ReLU in place of
sigmoid hidden units; encoder and decoder do not share their weights. With l1, codes may shrink
while the decoder's weights grow: weight_decay bounds that.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

from likely.data.spec import Dataset, DataSpec
from likely.density import EncoderDecoder, FactorizedLikelihood, at_least_float
from likely.devices.precision import full_precision
from likely.errors import InvalidSetting
from likely.heads import head_for, log_likelihood
from likely.models.autoencoder.settings import AutoencoderSettings
from likely.nn.residual import sizes
from likely.noise import Noise

# How far the mean image stays from 0 and 1, where a sigmoid has no bias.
MARGIN = 1e-3


class ConvEncoder(nn.Module):
    """[B, C, H, W] -> [B, outputs] through strided convolutions and ReLU."""

    def __init__(self, shape: tuple[int, ...], features: int, outputs: int) -> None:
        super().__init__()
        widths, steps = _widths(shape, features)
        self.first = nn.Conv2d(shape[0], features, 3, padding=1)
        self.halvings = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in itertools.pairwise(widths)
        )
        self.output = nn.Linear(widths[-1] * steps[-1][0] * steps[-1][1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.output(self.trace(x)[-1].flatten(1))
        return y

    def trace(self, x: Tensor) -> list[Tensor]:
        """What leaves every convolution, [B, F, H, W] each."""
        layers = [relu(self.first(x))]
        for layer in self.halvings:
            layers.append(relu(layer(layers[-1])))
        return layers


class ConvDecoder(nn.Module):
    """[B, inputs] -> [B, outputs, H, W], the encoder's sizes backwards, by nearest neighbours."""

    def __init__(self, shape: tuple[int, ...], features: int, inputs: int, outputs: int) -> None:
        super().__init__()
        widths, self.steps = _widths(shape, features)
        self.start = (widths[-1], *self.steps[-1])
        self.input = nn.Linear(inputs, widths[-1] * self.steps[-1][0] * self.steps[-1][1])
        self.doublings = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(reversed(widths))
        )
        self.output = nn.Conv2d(features, outputs, 3, padding=1, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        x = relu(self.input(z)).reshape(-1, *self.start)
        for layer, size in zip(self.doublings, self.steps[-2::-1], strict=True):
            x = relu(layer(interpolate(x, size=size)))
        y: Tensor = self.output(x)
        return y


def _widths(shape: tuple[int, ...], features: int) -> tuple[list[int], list[tuple[int, int]]]:
    """Feature maps and sizes at each halving, the full resolution first."""
    steps = sizes(*shape[1:])
    return [min(4 * features, features * 2**index) for index in range(len(steps))], steps


def _dense(widths: list[int], *, bias: bool) -> nn.Sequential:
    """Linear layers with ReLU between them, [B, first width] -> [B, last width]."""
    *inner, last = itertools.pairwise(widths)
    layers: list[nn.Module] = []
    for inputs, outputs in inner:
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(*last, bias=bias))


class Autoencoder(EncoderDecoder):
    """The model; see the module's docstring.

    Args:
        spec: of the data, shape (C, H, W) or (D,).
        settings: sizes; `AutoencoderSettings.preset(spec)` by default. Vectors need a network that
            is linear or dense.
    """

    settings: AutoencoderSettings
    takes_vectors = True
    instead = (
        "it only encodes, decodes and reconstructs. Give its codes a density: "
        "`likely prior RUN --density flow --out RUN2`, in Python likely.with_prior(model, train)"
    )

    def __init__(self, spec: DataSpec, settings: AutoencoderSettings | None = None) -> None:
        s = settings or AutoencoderSettings.preset(spec)
        super().__init__(spec, 0)
        if s.network == "conv" and len(spec.shape) == 1:
            raise InvalidSetting(
                f"network=conv convolves images [C, H, W], and {spec.name} holds vectors of "
                f"{spec.dimensions}: take network=dense"
            )
        self.settings, self.latent = s, s.latent
        self.head = head_for(s.head, spec, s.components) if s.loss == "likelihood" else None
        channels, height, width = spec.grid
        maps = channels if self.head is None else self.head.parameters
        self.encoder: nn.Module
        self.decoder: nn.Module
        if s.network == "conv":
            self.encoder = ConvEncoder(spec.grid, s.channels, s.latent)
            self.decoder = ConvDecoder(spec.grid, s.channels, s.latent, maps)
        else:
            between = [] if s.network == "linear" else [s.hidden] * s.layers
            self.encoder = _dense([spec.dimensions, *between, s.latent], bias=True)
            self.decoder = _dense([s.latent, *between, maps * height * width], bias=False)
        # Per pixel, filled by `start_at`; the decoder then learns what differs from the mean.
        self.output_bias = nn.Parameter(torch.zeros(maps, height, width))

    @property
    def kind(self) -> str:
        return "without a density"

    @property
    def loss_unit(self) -> str:
        """Of the loss."""
        return "squared error" if self.head is None else "nats of p(x | z)"

    @torch.no_grad()
    def start_at(self, data: Dataset) -> None:
        """Start the decoder at the mean image of the data."""
        mean = torch.from_numpy(np.asarray(data.pixel_mean(), np.float64)).reshape(self.spec.grid)
        if self.head is not None:
            self.output_bias.copy_(self.head.bias_for(mean))
            return
        share = mean / (self.spec.levels - 1)
        linear = self.settings.output == "linear"
        self.output_bias.copy_(share if linear else share.clamp(MARGIN, 1 - MARGIN).logit())

    @full_precision
    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self._code(self._shares(self.integers(x)))

    @full_precision
    def activations(self, x: Tensor) -> dict[str, Tensor]:
        """Hidden layers of the encoder, [B, F] or [B, F, H, W], and the code; x integers."""
        shares = self._shares(self.integers(x))
        layers = []
        if isinstance(self.encoder, ConvEncoder):
            layers = self.encoder.trace(shares)
        else:
            x = shares.flatten(1)
            for step in self.encoder.children():
                x = step(x)
                if isinstance(step, nn.ReLU):
                    layers.append(x)
        named = {f"layer-{number}": layer for number, layer in enumerate(layers, 1)}
        return {**named, "code": self._code(shares)}

    @full_precision
    def decoder_output(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        output: Tensor = self.decoder(z).reshape(-1, *self.output_bias.shape) + self.output_bias
        squashed = self.head is None and self.settings.output == "sigmoid"
        return output.sigmoid() if squashed else output

    @property
    def decoded_features(self) -> int:
        return len(self.output_bias)

    def read(self, output: Tensor) -> tuple[Tensor, Tensor]:
        if self.head is not None:
            return FactorizedLikelihood(self.head).mean(output)
        means = output.double().clamp(0.0, 1.0) * (self.spec.levels - 1)
        return means, means.round().to(torch.int64)

    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return self.as_data(self.decoded_means(z, context)[1])

    @full_precision
    def loss(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The loss of clean examples without a penalty, [B]; x integers [B, *shape]."""
        x = self.integers(x)
        return self._error(self._code(self._shares(x)), x)

    @full_precision
    def reconstruction_terms(self, x: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """(loss of the reconstruction of corrupted examples, penalty of their codes), both [B]."""
        x = self.integers(x)
        z = self._code(self._corrupted(self._shares(x), noise))
        return self._error(z, x), self._penalty(at_least_float(z))

    def _shares(self, x: Tensor) -> Tensor:
        """Integers as shares of the highest level, [B, C, H, W]."""
        return x.to(next(self.parameters()).dtype) / (self.spec.levels - 1)

    def _code(self, shares: Tensor) -> Tensor:
        """Codes [B, latent]."""
        conv = self.settings.network == "conv"
        z: Tensor = self.encoder(shares if conv else shares.flatten(1))
        squash = {"none": nn.Identity(), "l1": nn.ReLU(), "kl": nn.Sigmoid()}
        code: Tensor = squash[self.settings.sparsity](z)
        return code

    def _error(self, z: Tensor, x: Tensor) -> Tensor:
        """The loss of the integers x given their codes, [B]."""
        output = at_least_float(self.decoder_output(z))
        if self.head is not None:
            return -log_likelihood(self.head, output, x)
        return (output - self._shares(x)).square().flatten(1).sum(1)

    def _corrupted(self, shares: Tensor, noise: Noise) -> Tensor:
        """What the encoder sees in training."""
        s = self.settings
        if s.noise == "masking":
            return shares * (noise.uniform(*shares.shape) >= s.corruption)
        if s.noise == "gaussian":
            return shares + s.corruption * noise.normal(*shares.shape, dtype=shares.dtype)
        return shares

    def _penalty(self, z: Tensor) -> Tensor:
        """Of the codes, [B]."""
        s = self.settings
        if s.sparsity == "l1":
            return s.penalty * z.abs().sum(1)
        if s.sparsity == "kl":
            mean, target = z.mean(0).clamp(1e-6, 1 - 1e-6), s.sparsity_target
            on, off = target / mean, (1 - target) / (1 - mean)
            kl = target * on.log() + (1 - target) * off.log()
            return (s.penalty * kl.sum()).expand(len(z))
        return z.new_zeros(len(z))
