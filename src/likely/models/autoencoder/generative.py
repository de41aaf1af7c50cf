r"""An autoencoder made generative: a density over its codes (Ghosh et al. 2020, sec. 3.2).

https://arxiv.org/abs/1903.12436

    z ~ p(z),  x = g(z)

The density is fitted to the codes of the training set, with the autoencoder as it is; or both move
side by side, the density on codes that it does not move. Samples only: p(x) has no closed form,
because nothing says which codes decode to a given x.

Deviations: no regularisation of the decoder; a flow beside the paper's Gaussian and mixture.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor

from likely.data.spec import Dataset, DataSpec
from likely.density import EncoderDecoder, ImplicitDensity, Prior
from likely.devices.precision import full_precision
from likely.models.autoencoder.autoencoder import Autoencoder
from likely.models.autoencoder.settings import AutoencoderSettings, GenerativeAutoencoderSettings
from likely.nn.codes import code_density
from likely.noise import Noise

# Examples at whose codes the density starts.
FIRST = 10_000


class GenerativeAutoencoder(ImplicitDensity, EncoderDecoder):
    """The model; see the module's docstring.

    Args:
        spec: of the data, shape (C, H, W) or (D,).
        settings: of the autoencoder and of the density; the preset for the data by default.
    """

    settings: GenerativeAutoencoderSettings
    takes_vectors = True
    loss_unit = "nats of p(z)"

    def __init__(
        self, spec: DataSpec, settings: GenerativeAutoencoderSettings | None = None
    ) -> None:
        s = settings or GenerativeAutoencoderSettings.preset(spec)
        super().__init__(spec, 0)
        self.settings, self.latent = s, s.latent
        shared = {field.name for field in dataclasses.fields(AutoencoderSettings)}
        values = {name: getattr(s, name) for name in shared}
        self.autoencoder = Autoencoder(spec, AutoencoderSettings(**values))
        self.head = self.autoencoder.head
        self.code_density = code_density(
            s.density,
            s.latent,
            components=s.density_components,
            layers=s.density_layers,
            hidden=s.density_hidden,
        )

    @torch.no_grad()
    def start_at(self, data: Dataset) -> None:
        """Start the decoder at the mean image of the data, and the density at its codes."""
        self.autoencoder.start_at(data)
        x = torch.from_numpy(data.batch(slice(0, FIRST)).x.astype(np.int64))
        self.code_density.start_at(self.features(x))

    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.autoencoder.encode(x)

    def decoder_output(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return self.autoencoder.decoder_output(z)

    @property
    def decoded_features(self) -> int:
        return self.autoencoder.decoded_features

    def read(self, output: Tensor) -> tuple[Tensor, Tensor]:
        return self.autoencoder.read(output)

    @property
    def prior(self) -> Prior:
        return self.code_density

    def latents(self, noise: Noise, n: int) -> Tensor:
        return self.code_density.sample(noise, n, next(self.parameters()).dtype)

    @full_precision
    def generate(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return self.autoencoder.image(z)

    def codes_drawn(self, x: Tensor, noise: Noise, context: Tensor | None = None) -> Tensor:
        """The codes that the density is fitted to, [B, latent]."""
        return self.encode(x)

    @full_precision
    def loss(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """-log p(z) of the codes, nats [B]; x integers [B, *shape]."""
        return -self.code_density.log_prob(self.encode(x))
