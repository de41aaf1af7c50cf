"""Settings of the variational autoencoder; torch-free."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from likely.models.common import BySize, NetworkSettings
from likely.models.registry import model
from likely.settings import FitSettings, HeadName

if TYPE_CHECKING:
    from likely.data.spec import DataSpec
    from likely.models.vae.vae import VAE as VAE


@model("vae", "likely.models.vae.vae:VAE")
@dataclasses.dataclass(frozen=True)
class VAESettings(NetworkSettings):
    """Variational autoencoder (Kingma and Welling 2014): a bound on the likelihood, and codes.

    Attributes:
        latent: dimensions of the latent code z.
        network: dense (fully connected) or conv (residual, strided).
        hidden: units of each dense layer.
        layers: dense layers of encoder and decoder each.
        channels: feature maps of the convolutional networks at full resolution.
        blocks: residual blocks at each resolution.
        head: distribution of a pixel given z.
        components: number of components of the logistic mixture.
        conditional: condition encoder and decoder on the class label.
        prior: of z; normal, flow (RealNVP), autoregressive (a masked flow), or vamp (VampPrior: a
            mixture of the posteriors of pseudo-inputs).
        posterior: normal, or iaf (a masked flow after the Gaussian).
        flow_layers: couplings or masked maps of a flow.
        flow_hidden: units of each of the two hidden layers of one.
        pseudo_inputs: components of a VampPrior.
    """

    latent: int = 32
    network: Literal["dense", "conv"] = "conv"
    hidden: int = 500
    layers: int = 2
    channels: int = 32
    blocks: int = 1
    head: HeadName = "auto"
    components: int = 10
    conditional: bool = False
    prior: Literal["normal", "flow", "autoregressive", "vamp"] = "normal"
    posterior: Literal["normal", "iaf"] = "normal"
    flow_layers: int = 8
    flow_hidden: int = 128
    pseudo_inputs: int = 500

    @classmethod
    def preset(cls, spec: DataSpec) -> VAESettings:
        """Sizes that work without tuning, by the side of the image and the colour channels."""
        side = spec.side
        # An ordered head learns levels from few images; a softmax has to see each of them.
        head: HeadName = "auto" if spec.levels == 2 else "logistic-mixture"
        if len(spec.shape) == 1:
            small = side <= 12
            return cls(
                latent=16 if small else 50, network="dense", head=head, components=3 if small else 5
            )
        if side <= 12:
            return cls(latent=16, channels=16, head=head, components=3)
        if side <= 28:
            return cls(latent=50, channels=16, head=head, components=5)
        if side <= 32:
            return cls(latent=128, channels=64, blocks=2, head=head)
        return cls(latent=256, channels=64, blocks=2, head=head)

    FITS = BySize(
        FitSettings(steps=1300, batch_size=64, learning_rate=2e-3, ema=0.99),
        FitSettings(steps=20_000, batch_size=100, learning_rate=1e-3, warmup=500),
    )
