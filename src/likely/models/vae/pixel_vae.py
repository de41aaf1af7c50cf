r"""PixelVAE: a latent code for the whole image, a small autoregressive network for its texture.

Gulrajani et al. 2017, https://arxiv.org/abs/1611.05013; Chen et al. 2017 (variational lossy
autoencoder), https://arxiv.org/abs/1611.02731.

    z ~ p(z),  x ~ prod_i p(x_i | x_<i, z),   log p(x) >= E_q[log p(x|z)] - KL(q(z|x) || p(z))

The decoder of a VAE gives maps s(z) in place of parameters, and an autoregressive network is
conditioned on them in each of its layers (van den Oord et al. 2016, eq. 5). A network that sees few
pixels leaves the rest of the image to z; one that sees all of them needs no z, and the code
collapses (Chen et al. 2017, sec. 2.2). So the default is a narrow PixelCNN that reaches five rows
up: a masked 7 x 7 convolution, then two blocks of 12 filters.

With an unconditional network of the same sizes, `likely fit pixelcnn`, the worth of z is measured.
A sample costs one pass of the decoder and the incremental program of the small network.

Deviations: Chen et al. take six masked 3 x 3 layers of 12 filters, which is
`local_first_kernel=3, local_layers=5` here and four times as slow; blocks are those of `PixelCNN`;
maps enter every block instead of standing beside the image in the first layer; encoder and decoder
are those of `VAE`.
"""

from __future__ import annotations

import dataclasses

from likely.data.spec import DataSpec
from likely.density import Autoregressive, AutoregressiveLikelihood
from likely.heads import head_for
from likely.models.pixelcnn.gated_pixelcnn import GatedPixelCNN
from likely.models.pixelcnn.pixelcnn import PixelCNN
from likely.models.pixelcnn.pixelcnn_pp import PixelCNNPP
from likely.models.pixelcnn.settings import (
    GatedPixelCNNSettings,
    PixelCNNPPSettings,
    PixelCNNSettings,
)
from likely.models.vae.settings import PixelVAESettings
from likely.models.vae.vae import VariationalAutoencoder


class PixelVAE(VariationalAutoencoder):
    """The model; see the module's docstring.

    Args:
        spec: of the data, shape (C, H, W).
        settings: sizes; `PixelVAESettings.preset(spec)` by default.
    """

    def __init__(self, spec: DataSpec, settings: PixelVAESettings | None = None) -> None:
        settings = settings or PixelVAESettings.preset(spec)
        head = head_for(settings.head, spec, settings.components)
        super().__init__(spec, settings, head, settings.maps)
        given_z = dataclasses.replace(spec, context=(settings.maps, *spec.grid[1:]))
        sizes = settings.of_local()
        self.local: Autoregressive
        if settings.local == "pixelcnn":
            self.local = PixelCNN(given_z, PixelCNNSettings(**sizes))
        elif settings.local == "pixelcnn-pp":
            self.local = PixelCNNPP(given_z, PixelCNNPPSettings(**sizes))
        else:
            self.local = GatedPixelCNN(given_z, GatedPixelCNNSettings(**sizes))

    @property
    def likelihood_given_z(self) -> AutoregressiveLikelihood:
        return AutoregressiveLikelihood(self.local)
