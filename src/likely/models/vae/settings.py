"""Settings of the variational autoencoder; torch-free."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from likely.models.common import BySize, HeadSettings
from likely.models.registry import model
from likely.settings import CountsWith, FitSettings, HeadName

if TYPE_CHECKING:
    from likely.data.spec import DataSpec
    from likely.models.vae.hierarchical import HierarchicalVAE as HierarchicalVAE
    from likely.models.vae.pixel_vae import PixelVAE as PixelVAE
    from likely.models.vae.vae import VAE as VAE


@model("vae", "likely.models.vae.vae:VAE")
@dataclasses.dataclass(frozen=True)
class VAESettings(HeadSettings):
    """Variational autoencoder (Kingma and Welling 2014): a bound on the likelihood, and codes.

    Attributes:
        latent: dimensions of the latent code z.
        network: dense (fully connected) or conv (residual, strided).
        hidden: units of each dense layer.
        layers: dense layers of encoder and decoder each.
        channels: feature maps of the convolutional networks at full resolution.
        blocks: residual blocks at each resolution.
        conditional: condition encoder and decoder on the class label.
        prior: of z; normal, flow (RealNVP), autoregressive (a masked flow), vamp (VampPrior: a
            mixture of the posteriors of pseudo-inputs), gaussian (full covariance), or mixture.
        posterior: normal, or iaf (a masked flow after the Gaussian).
        flow_layers: couplings or masked maps of a flow.
        flow_hidden: units of each of the two hidden layers of one.
        pseudo_inputs: components of a VampPrior.
        prior_components: Gaussians of a mixture.
    """

    latent: int = 32
    network: Literal["dense", "conv"] = "conv"
    hidden: int = 500
    layers: int = 2
    channels: int = 32
    blocks: int = 1
    conditional: bool = False
    prior: Literal["normal", "flow", "autoregressive", "vamp", "gaussian", "mixture"] = "normal"
    posterior: Literal["normal", "iaf"] = "normal"
    flow_layers: int = 8
    flow_hidden: int = 128
    pseudo_inputs: int = 500
    prior_components: int = 50

    COUNTS_WITH: ClassVar[dict[str, CountsWith]] = {
        "hidden": {"network": ("dense",)},
        "layers": {"network": ("dense",)},
        "channels": {"network": ("conv",)},
        "blocks": {"network": ("conv",)},
        "flow_layers": {"prior": ("flow", "autoregressive"), "posterior": ("iaf",)},
        "flow_hidden": {"prior": ("flow", "autoregressive"), "posterior": ("iaf",)},
        "pseudo_inputs": {"prior": ("vamp",)},
        "prior_components": {"prior": ("mixture",)},
    }

    @classmethod
    def preset(cls, spec: DataSpec) -> Self:
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


@model("pixel-vae", "likely.models.vae.pixel_vae:PixelVAE")
@dataclasses.dataclass(frozen=True)
class PixelVAESettings(VAESettings):
    """PixelVAE (Gulrajani 2017, Chen 2017): a code and a small autoregressive network given it.

    Attributes:
        local: network of p(x | z), whose sizes follow.
        maps: feature maps that the decoder gives to it.
        local_channels: of that network; a multiple of the colour channels.
        local_layers: of that network, after its first convolution; residual blocks of pixelcnn-pp.
        local_kernel: side of the layers' kernels, odd: how far they see; not of pixelcnn-pp.
        local_first_kernel: side of the first convolution's kernel, odd; not of pixelcnn-pp.
        local_head_channels: feature maps of its output convolutions; not of pixelcnn-pp.
    """

    prior: Literal["normal", "flow", "autoregressive", "vamp", "gaussian", "mixture"] = "flow"
    local: Literal["pixelcnn", "gated-pixelcnn", "pixelcnn-pp"] = "pixelcnn"
    maps: int = 8
    local_channels: int = 12
    local_layers: int = 2
    local_kernel: int = 3
    local_first_kernel: int = 7
    local_head_channels: int = 24

    COUNTS_WITH: ClassVar[dict[str, CountsWith]] = {
        **VAESettings.COUNTS_WITH,
        "local_kernel": {"local": ("pixelcnn", "gated-pixelcnn")},
        "local_first_kernel": {"local": ("pixelcnn", "gated-pixelcnn")},
        "local_head_channels": {"local": ("pixelcnn", "gated-pixelcnn")},
    }

    def of_local(self) -> dict[str, Any]:
        """The settings of the autoregressive network."""
        shared = {"head": self.head, "components": self.components, "conditional": True}
        if self.local == "pixelcnn-pp":
            # One resolution, to stay local. Weight normalisation would have to start at data.
            return {
                "channels": self.local_channels,
                "blocks": self.local_layers,
                "scales": 1,
                "dropout": 0.0,
                "weight_norm": False,
                **shared,
            }
        return {
            "channels": self.local_channels,
            "layers": self.local_layers,
            "kernel": self.local_kernel,
            "first_kernel": self.local_first_kernel,
            "head_channels": self.local_head_channels,
            **shared,
        }


@model("hierarchical-vae", "likely.models.vae.hierarchical:HierarchicalVAE")
@dataclasses.dataclass(frozen=True)
class HierarchicalVAESettings(HeadSettings):
    """Hierarchical VAE (Sonderby 2016): layers of codes, inferred from the top down.

    Attributes:
        layers: stochastic layers; the first at half the image's resolution, each further one at
            half that of the one below, down to four pixels, where all others stay.
        latent: channels of the code in each cell of a layer.
        channels: feature maps at full resolution.
        blocks: residual blocks at each resolution, on the way up and down.
    """

    layers: int = 3
    latent: int = 4
    channels: int = 16
    blocks: int = 1

    @classmethod
    def preset(cls, spec: DataSpec) -> Self:
        """Sizes that work without tuning, by the side of the image and the colour channels."""
        head: HeadName = "auto" if spec.levels == 2 else "logistic-mixture"
        side = spec.side
        if side <= 12:
            return cls(layers=2, latent=2, channels=12, head=head, components=3)
        if side <= 28:
            return cls(head=head, components=5)
        return cls(latent=8, channels=32, blocks=2, head=head)

    FITS = VAESettings.FITS
