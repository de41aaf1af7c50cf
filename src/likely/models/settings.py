"""Settings of every model: frozen dataclasses, importable without torch.

The command lists and explains them in its help, so they stand apart from the networks. Each
class's docstring opens with the one line that `likely fit --help` prints. `preset` fills in
sizes that work for the data at hand, `fit_preset` how to fit them.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from likely.errors import InvalidSetting
from likely.settings import FitSettings, at_least

if TYPE_CHECKING:
    from likely.data.spec import DataSpec

HeadName = Literal["auto", "bernoulli", "categorical", "logistic-mixture"]


@dataclasses.dataclass(frozen=True)
class GatedPixelCNNSettings:
    """Gated PixelCNN (van den Oord 2016): exact likelihood, two stacks, no blind spot.

    Attributes:
        channels: feature maps of each stack; a multiple of the colour channels.
        layers: gated layers.
        kernel: side of the vertical kernels, odd.
        first_kernel: side of the first layer's kernels, odd.
        dilations: of the layers after the first, in rotation.
        head: distribution of a pixel.
        components: of the logistic mixture.
        head_channels: feature maps of the two output convolutions.
        dropout: rate inside each gated layer.
        conditional: condition on the class label.
    """

    channels: int = 64
    layers: int = 8
    kernel: int = 3
    first_kernel: int = 7
    dilations: tuple[int, ...] = (1,)
    head: HeadName = "auto"
    components: int = 10
    head_channels: int = 128
    dropout: float = 0.0
    conditional: bool = False

    def __post_init__(self) -> None:
        at_least(
            self, 1, "channels", "layers", "kernel", "first_kernel", "dilations", "components",
            "head_channels",
        )  # fmt: skip
        at_least(self, 0, "dropout")
        if not self.dropout < 1:
            raise InvalidSetting(f"dropout must be below 1, given {self.dropout}")

    @classmethod
    def preset(cls, spec: DataSpec) -> GatedPixelCNNSettings:
        """Sizes that work without tuning, by the side of the image and the colour channels."""
        side = max(spec.shape[1:])
        colour = spec.shape[0] > 1
        if side <= 12:
            return cls(channels=48, layers=6, first_kernel=5, head_channels=96, dropout=0.1)
        if side <= 28 and not colour:
            return cls(channels=48, layers=9, dilations=(1, 2, 4), head_channels=96)
        if side <= 32:
            return cls(channels=126, layers=12, kernel=5, head_channels=252, dropout=0.1)
        return cls(channels=126, layers=16, kernel=5, head_channels=252, dropout=0.1)

    @classmethod
    def fit_preset(cls, spec: DataSpec) -> FitSettings:
        """A fit that works without tuning."""
        if max(spec.shape[1:]) <= 12:
            return FitSettings(steps=700, batch_size=64, learning_rate=2e-3, ema=0.99)
        return FitSettings(steps=20_000, batch_size=32, learning_rate=1e-3, warmup=500)


@dataclasses.dataclass(frozen=True)
class VAESettings:
    """Variational autoencoder (Kingma and Welling 2014): a bound on the likelihood, and codes.

    Attributes:
        latent: dimensions of the code z.
        network: dense (fully connected) or conv (residual, strided).
        hidden: units of each dense layer.
        layers: dense layers of encoder and decoder each.
        channels: feature maps of the convolutional networks at full resolution.
        blocks: residual blocks at each resolution.
        head: distribution of a pixel given z.
        components: of the logistic mixture.
        conditional: condition encoder and decoder on the class label.
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

    def __post_init__(self) -> None:
        at_least(self, 1, "latent", "hidden", "layers", "channels", "blocks", "components")

    @classmethod
    def preset(cls, spec: DataSpec) -> VAESettings:
        """Sizes that work without tuning, by the side of the image and the colour channels."""
        side = max(spec.shape[1:])
        # An ordered head learns levels from few images; a softmax has to see each of them.
        head: HeadName = "auto" if spec.levels == 2 else "logistic-mixture"
        if side <= 12:
            return cls(latent=16, channels=16, head=head, components=3)
        if side <= 28:
            return cls(latent=50, channels=16, head=head, components=5)
        if side <= 32:
            return cls(latent=128, channels=64, blocks=2, head=head)
        return cls(latent=256, channels=64, blocks=2, head=head)

    @classmethod
    def fit_preset(cls, spec: DataSpec) -> FitSettings:
        """A fit that works without tuning."""
        if max(spec.shape[1:]) <= 12:
            return FitSettings(steps=2000, batch_size=64, learning_rate=1e-3, ema=0.99)
        return FitSettings(steps=20_000, batch_size=100, learning_rate=1e-3, warmup=500)


@dataclasses.dataclass(frozen=True)
class DCGANSettings:
    """DCGAN (Radford 2016): samples only, no density; generator against discriminator.

    Attributes:
        latent: dimensions of the code z.
        channels: feature maps of both networks at the highest inner resolution.
        normalize: batch (the paper's guideline) or none (for losses with gradient penalties).
        conditional: condition both networks on the class label.
    """

    latent: int = 100
    channels: int = 64
    normalize: Literal["batch", "none"] = "none"
    conditional: bool = False

    def __post_init__(self) -> None:
        at_least(self, 1, "latent", "channels")

    @classmethod
    def preset(cls, spec: DataSpec) -> DCGANSettings:
        """Sizes that work without tuning, by the side of the image."""
        side = max(spec.shape[1:])
        if side <= 12:
            return cls(latent=32, channels=64)
        if side <= 32:
            return cls(latent=64, channels=64)
        return cls(latent=100, channels=128)

    @classmethod
    def fit_preset(cls, spec: DataSpec) -> FitSettings:
        """A fit that works without tuning: Adam without momentum, averaged weights, no clipping.

        The gradient penalty bounds the gradients; clipping them would hide its effect.
        """
        adversarial = FitSettings(
            steps=3000, batch_size=64, learning_rate=1e-3, beta1=0.0, beta2=0.9, clip=0.0,
            ema=0.995, final_learning_rate=0.1,
        )  # fmt: skip
        if max(spec.shape[1:]) <= 12:
            return adversarial
        return dataclasses.replace(adversarial, steps=20_000, learning_rate=3e-4, ema=0.999)
