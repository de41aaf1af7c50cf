"""Settings of autoencoders; torch-free."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from likely.errors import InvalidSetting
from likely.models.common import BySize, HeadSettings
from likely.models.registry import model
from likely.settings import CountsWith, FitSettings, HeadName, not_negative

if TYPE_CHECKING:
    from likely.data.spec import DataSpec
    from likely.models.autoencoder.autoencoder import Autoencoder as Autoencoder
    from likely.models.autoencoder.generative import GenerativeAutoencoder as GenerativeAutoencoder


@model("autoencoder", "likely.models.autoencoder.autoencoder:Autoencoder")
@dataclasses.dataclass(frozen=True)
class AutoencoderSettings(HeadSettings):
    """Autoencoder (Hinton and Salakhutdinov 2006): codes and reconstructions, no density.

    Attributes:
        latent: dimensions of the code.
        network: linear (one map each way), dense (fully connected, ReLU) or conv (strided, ReLU).
        hidden: units of each dense layer.
        layers: dense layers of encoder and decoder each.
        channels: feature maps of the convolutional networks at full resolution.
        loss: squared (of values in [0, 1], summed over an image) or likelihood (-log p(x | z) of
            the head).
        output: of the squared loss: sigmoid, or linear.
        head: distribution of a pixel given the code, of the loss likelihood.
        noise: on what the encoder sees in training: none, masking (values set to 0) or gaussian.
        corruption: share of the values that masking sets to 0; standard deviation of gaussian.
        sparsity: of codes in training: none, l1 (of codes after a ReLU) or kl (of the mean of each
            unit, a sigmoid, from the target).
        sparsity_weight: of that penalty, in units of the loss; none: 0.003 of l1 and 0.1 of kl.
        sparsity_target: mean activity of a unit that the penalty kl aims at.
    """

    latent: int = 32
    network: Literal["linear", "dense", "conv"] = "conv"
    hidden: int = 500
    layers: int = 2
    channels: int = 32
    loss: Literal["squared", "likelihood"] = "squared"
    output: Literal["sigmoid", "linear"] = "sigmoid"
    noise: Literal["none", "masking", "gaussian"] = "none"
    corruption: float = 0.3
    sparsity: Literal["none", "l1", "kl"] = "none"
    sparsity_weight: float | None = None
    sparsity_target: float = 0.05

    COUNTS_WITH: ClassVar[dict[str, CountsWith]] = {
        "hidden": {"network": ("dense",)},
        "layers": {"network": ("dense",)},
        "channels": {"network": ("conv",)},
        "output": {"loss": ("squared",)},
        "head": {"loss": ("likelihood",)},
        "components": {"loss": ("likelihood",)},
        "corruption": {"noise": ("masking", "gaussian")},
        "sparsity_weight": {"sparsity": ("l1", "kl")},
        "sparsity_target": {"sparsity": ("kl",)},
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sparsity_weight is not None:
            not_negative(self, "sparsity_weight")
        if not self.sparsity_target > 0:
            raise InvalidSetting(
                f"sparsity_target must be in (0, 1), given {self.sparsity_target}: no unit that "
                "is a sigmoid reaches 0"
            )

    @property
    def penalty(self) -> float:
        """Weight of the penalty of codes: the one that is set, or that of its kind.

        With l1, 0.03 leaves the codes of digits nothing but zeros; 0.003 keeps most units.
        """
        usual = {"none": 0.0, "l1": 0.003, "kl": 0.1}[self.sparsity]
        return usual if self.sparsity_weight is None else self.sparsity_weight

    @classmethod
    def preset(cls, spec: DataSpec) -> Self:
        """Sizes that work without tuning, by the side of the image."""
        head: HeadName = "auto" if spec.levels == 2 else "logistic-mixture"
        if len(spec.shape) == 1 or spec.side <= 12:
            latent = 16 if spec.side <= 12 else 32
            return cls(latent=latent, network="dense", hidden=256, head=head, components=3)
        if spec.side <= 32:
            return cls(latent=32, channels=16, head=head, components=5)
        return cls(latent=128, head=head)

    FITS = BySize(
        FitSettings(steps=1500, batch_size=64, learning_rate=2e-3, ema=0.99),
        FitSettings(steps=10_000, batch_size=100, learning_rate=1e-3, warmup=500),
    )


@model("generative-autoencoder", "likely.models.autoencoder.generative:GenerativeAutoencoder")
@dataclasses.dataclass(frozen=True)
class GenerativeAutoencoderSettings(AutoencoderSettings):
    """Autoencoder whose codes have a density (Ghosh et al. 2020): samples, no likelihood.

    Attributes:
        density: of the codes; gaussian (full covariance), mixture, flow (RealNVP), or
            autoregressive (a masked flow).
        density_components: of a mixture.
        density_layers: couplings or masked maps of a flow.
        density_hidden: units of each of the two hidden layers of one.
    """

    density: Literal["gaussian", "mixture", "flow", "autoregressive"] = "flow"
    density_components: int = 50
    density_layers: int = 6
    density_hidden: int = 128

    COUNTS_WITH: ClassVar[dict[str, CountsWith]] = {
        **AutoencoderSettings.COUNTS_WITH,
        "density_components": {"density": ("mixture",)},
        "density_layers": {"density": ("flow", "autoregressive")},
        "density_hidden": {"density": ("flow", "autoregressive")},
    }
