r"""Variational autoencoder (Kingma and Welling 2014; Rezende, Mohamed, Wierstra 2014).

https://arxiv.org/abs/1312.6114, https://arxiv.org/abs/1401.4082

    z ~ p(z),  x ~ p(x|z),   log p(x) >= E_q[log p(x|z)] - KL(q(z|x) || p(z))

The encoder gives a diagonal Gaussian q(z|x), the decoder the parameters of a head over the same
integers as an autoregressive model's, so that the bound is on the same log p(x). The output
bias starts at the data (worth about one nat, according to the code of Burda et al. 2016).

Networks: dense, SiLU layers of one width; or convolutional, residual blocks at each
halving of the image, no normalisation. The class label, if any, enters both networks as a
learned vector.

The prior is N(0, I) or learned, independent of the label:

- a flow p(z) = N(f(z); 0, I) |det df/dz| (`likely.nn.flow`), of couplings (RealNVP) or of masked
  maps (an autoregressive flow, Chen et al. 2017, https://arxiv.org/abs/1611.02731);
- a Gaussian with full covariance, or a mixture of Gaussians (`likely.nn.codes`);
- VampPrior (Tomczak and Welling 2018, https://arxiv.org/abs/1705.07120), eq. 9:
  p(z) = (1/K) sum_k q(z|u_k), the u_k learned, in [-1, 1], and at training images to begin with.

The posterior is the Gaussian, or IAF (Kingma et al. 2016, https://arxiv.org/abs/1606.04934): a
masked flow of z, given a part of the encoder's output. A bound with either holds the same log p(x).
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from likely.data.spec import Dataset, DataSpec
from likely.density import (
    DiagonalGaussian,
    FactorizedLikelihood,
    GaussianMixture,
    LatentVariable,
    Posterior,
    Prior,
    StandardNormal,
    at_least_float,
)
from likely.devices.precision import full_precision
from likely.errors import InvalidSetting
from likely.heads import Head, head_for
from likely.models.vae.settings import VAESettings
from likely.nn.codes import FullGaussian, Startable, WeightedMixture
from likely.nn.flow import (
    Bijection,
    FlowDensity,
    FlowPosterior,
    autoregressive_flow,
    coupling_flow,
)
from likely.nn.residual import Down, ResidualBlock, Up, sizes
from likely.noise import Noise


class DenseTrunk(nn.Module):
    """Linear layers with SiLU between them, [B, inputs] -> [B, outputs]."""

    def __init__(self, inputs: int, hidden: int, layers: int, outputs: int) -> None:
        super().__init__()
        widths = [inputs] + [hidden] * layers
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.output = nn.Linear(widths[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.output(self.trace(x)[-1])
        return y

    def trace(self, x: Tensor) -> list[Tensor]:
        """The input and every hidden layer after it, [B, features] each."""
        layers = [x]
        for layer in self.hidden:
            layers.append(silu(layer(layers[-1])))
        return layers


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
        y: Tensor = self.output(silu(self.trace(x)[-1]).flatten(1))
        return y

    def trace(self, x: Tensor) -> list[Tensor]:
        """The image and what leaves every layer after it, [B, F, H, W] each."""
        layers = [x]
        for layer in self.layers:
            layers.append(layer(layers[-1]))
        return layers


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


class VariationalAutoencoder(LatentVariable):
    """Encoder, prior and posterior of the settings, and the network of the decoder.

    A leaf says what is made of the decoder's output: `likelihood_given_z`.

    Args:
        spec: of the data, shape (C, H, W) or (D,).
        settings: sizes; vectors need network="dense".
        head: the distribution of a pixel.
        outputs: K of `decoder_output`.
    """

    def __init__(self, spec: DataSpec, settings: VAESettings, head: Head, outputs: int) -> None:
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
        self.head = head
        dims = spec.dimensions
        s = settings
        iaf = s.posterior == "iaf"
        encoded = (3 if iaf else 2) * s.latent
        self.encoder: nn.Module
        self.decoder: nn.Module
        if s.network == "dense":
            _, h, w = spec.grid
            self.encoder = DenseTrunk(dims, s.hidden, s.layers, encoded)
            self.decoder = DenseTrunk(s.latent, s.hidden, s.layers, outputs * h * w)
        else:
            self.encoder = ConvEncoder(spec.grid, s.channels, s.blocks, encoded)
            self.decoder = ConvDecoder(spec.grid, s.channels, s.blocks, s.latent, outputs)
        # Per pixel; of a head's parameters `start_at` makes it their value at the mean image.
        self.output_bias = nn.Parameter(torch.zeros(outputs, *spec.grid[1:]))
        self.label_in = nn.Embedding(self.classes, dims) if self.classes else None
        self.label_out = nn.Embedding(self.classes, s.latent) if self.classes else None
        self.prior_flow: FlowDensity | Startable | None = None
        self.posterior_flow: Bijection | None = None
        self.pseudo_inputs: nn.Parameter | None = None
        if s.prior in ("flow", "autoregressive"):
            build = coupling_flow if s.prior == "flow" else autoregressive_flow
            flow = build(s.latent, s.flow_layers, s.flow_hidden)
            self.prior_flow = FlowDensity(flow, s.latent)
        if s.prior == "gaussian":
            self.prior_flow = FullGaussian(s.latent)
        if s.prior == "mixture":
            self.prior_flow = WeightedMixture(s.latent, s.prior_components)
        if s.prior == "vamp":
            pseudo = torch.rand(s.pseudo_inputs, *spec.grid) * 2 - 1
            self.pseudo_inputs = nn.Parameter(pseudo)
        if iaf:
            self.posterior_flow = autoregressive_flow(
                s.latent, s.flow_layers, s.flow_hidden, s.latent
            )

    @torch.no_grad()
    def start_at(self, data: Dataset) -> None:
        """Start a factorised decoder at the data's mean image, and pseudo-inputs at examples."""
        if isinstance(self.likelihood_given_z, FactorizedLikelihood):
            mean = np.asarray(data.pixel_mean(), np.float64).reshape(self.spec.grid)
            self.output_bias.copy_(self.head.bias_for(torch.from_numpy(mean)))
        if self.pseudo_inputs is not None:
            every = np.arange(len(self.pseudo_inputs)) * len(data) // len(self.pseudo_inputs)
            x = torch.from_numpy(data.batch(every).x.astype(np.int64))
            self.pseudo_inputs.copy_(self.scaled(self.integers(x)))

    @property
    def inference_network(self) -> nn.Module:
        parts = [self.encoder, self.posterior_flow, self.label_in]
        return nn.ModuleList(part for part in parts if part is not None)

    @property
    def prior(self) -> Prior:
        if self.prior_flow is not None:
            return self.prior_flow
        if self.pseudo_inputs is not None:
            return GaussianMixture(self._encoded(self.pseudo_inputs.clamp(-1.0, 1.0))[0])
        return StandardNormal(self.latent)

    @full_precision
    def posterior(self, x: Tensor, context: Tensor | None = None) -> Posterior:
        x, labels = self.scaled(self.integers(x)), self.labels(context, len(x))
        if self.label_in is not None:
            x = x + self.label_in(labels).unflatten(1, self.spec.grid)
        gaussian, rest = self._encoded(x)
        if self.posterior_flow is None:
            return gaussian
        return FlowPosterior(gaussian, self.posterior_flow, rest)

    @property
    def code_density(self) -> FlowDensity | Startable | None:
        """The prior, where it is learned and has weights of its own."""
        return self.prior_flow

    def codes_drawn(self, x: Tensor, noise: Noise, context: Tensor | None = None) -> Tensor:
        """z ~ q(z | x), [B, latent]: what a prior is fitted to."""
        q = self.posterior(x, context)
        return q.sample(noise.normal(*q.mean.shape, dtype=q.mean.dtype))

    def _encoded(self, x: Tensor) -> tuple[DiagonalGaussian, Tensor]:
        """(a Gaussian, the rest of the encoder's output); x floats in [-1, 1], [B, C, H, W]."""
        code = self.encoder(x.flatten(1) if self.settings.network == "dense" else x)
        mean, log_scale, rest = at_least_float(code).tensor_split(
            (self.latent, 2 * self.latent), -1
        )
        # Scales far outside this range only overflow; the clamp never binds in a fitted model.
        return DiagonalGaussian(mean, log_scale.clamp(-8.0, 4.0)), rest

    @full_precision
    def activations(self, x: Tensor) -> dict[str, Tensor]:
        """Hidden layers of the encoder, and the mean of the Gaussian as "code".

        Args:
            x: integers [B, *shape].

        Returns:
            [B, F] or [B, F, H, W] for each layer.
        """
        x = self.scaled(self.integers(x))
        assert isinstance(self.encoder, DenseTrunk | ConvEncoder)
        if isinstance(self.encoder, DenseTrunk):
            traced = self.encoder.trace(x.flatten(1))
            hidden, last = traced[1:], traced[-1]
        else:
            hidden = [silu(maps) for maps in self.encoder.trace(x)[1:]]
            last = hidden[-1].flatten(1)
        layers = {f"layer-{number}": layer for number, layer in enumerate(hidden, 1)}
        return {**layers, "code": self.encoder.output(last)[:, : self.latent]}

    @full_precision
    def decoder_output(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        if self.label_out is not None:
            z = z + self.label_out(self.labels(context, len(z)))
        parameters: Tensor = self.decoder(z)
        if self.settings.network == "dense":
            parameters = parameters.reshape(-1, *self.output_bias.shape)
        return parameters + self.output_bias


class VAE(VariationalAutoencoder):
    """The model; see the module's docstring.

    Args:
        spec: of the data, shape (C, H, W) or (D,).
        settings: sizes; `VAESettings.preset(spec)` by default. Vectors need network="dense".
    """

    takes_vectors = True

    def __init__(self, spec: DataSpec, settings: VAESettings | None = None) -> None:
        settings = settings or VAESettings.preset(spec)
        head = head_for(settings.head, spec, settings.components)
        super().__init__(spec, settings, head, head.parameters)
