"""Settings of the convolutional networks: PixelCNN and its successors; torch-free."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

from likely.models.common import (
    LARGE,
    SMALL_GREY,
    TINY,
    BySize,
    ChainSettings,
    Corner,
    MaskedSettings,
    at_most,
)
from likely.models.registry import model
from likely.settings import FitSettings, at_least

if TYPE_CHECKING:
    from likely.data.spec import DataSpec
    from likely.models.pixelcnn.gated_pixelcnn import GatedPixelCNN as GatedPixelCNN
    from likely.models.pixelcnn.gated_pixelcnn import GatedPixelCNNEnsemble as GatedPixelCNNEnsemble
    from likely.models.pixelcnn.gated_pixelcnn import GatedPixelCNNOrders as GatedPixelCNNOrders
    from likely.models.pixelcnn.pixelcnn import PixelCNN as PixelCNN
    from likely.models.pixelcnn.pixelcnn_pp import PixelCNNPP as PixelCNNPP
    from likely.models.pixelcnn.pixelsnail import PixelSNAIL as PixelSNAIL


@model("pixelcnn", "likely.models.pixelcnn.pixelcnn:PixelCNN")
@dataclasses.dataclass(frozen=True)
class PixelCNNSettings(MaskedSettings):
    """PixelCNN (van den Oord 2016): exact likelihood, masked convolutions, has a blind spot.

    Attributes:
        channels: h; the residual stream has 2 h feature maps. A multiple of the colour channels.
        layers: residual blocks after the first convolution.
        dilations: dilations of the blocks, in rotation.
        conditional: condition on the context that examples come with, or else on the class label.
    """

    channels: int = 64
    layers: int = 15
    dilations: tuple[int, ...] = (1,)

    SIZES = BySize(
        tiny={"channels": 24, "layers": 6, "first_kernel": 5, "head_channels": 96, "dropout": 0.1},
        grey={"channels": 16, "dilations": (1, 2, 4), "head_channels": 64},
        large={"channels": 129, "layers": 15, "head_channels": 1023},
    )
    FITS = BySize(TINY, LARGE, SMALL_GREY)

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 3, "kernel", "first_kernel")


@dataclasses.dataclass(frozen=True)
class GatedPixelCNNSizes(MaskedSettings):
    """What one Gated PixelCNN and the mixtures of several have in common.

    Attributes:
        channels: feature maps of each stack; a multiple of the colour channels.
        layers: gated layers.
        kernel: side of the vertical kernels, odd.
        dilations: dilations of the layers after the first, in rotation.
    """

    channels: int = 64
    layers: int = 8
    dilations: tuple[int, ...] = (1,)

    def of_one(self, **changes: Any) -> dict[str, Any]:
        """The fields that are common, with some changed."""
        names = [field.name for field in dataclasses.fields(GatedPixelCNNSizes)]
        return {name: getattr(self, name) for name in names} | changes


_COLOUR = {"channels": 126, "kernel": 5, "head_channels": 252, "dropout": 0.1}


@model("gated-pixelcnn", "likely.models.pixelcnn.gated_pixelcnn:GatedPixelCNN")
@dataclasses.dataclass(frozen=True)
class GatedPixelCNNSettings(GatedPixelCNNSizes):
    """Gated PixelCNN (van den Oord 2016): exact likelihood, two stacks, no blind spot.

    Attributes:
        conditional: condition on the context that examples come with, or else on the class label.
        start: corner where sampling begins; rows follow one another from there.
    """

    start: Corner = "top-left"

    SIZES = BySize(
        tiny={"channels": 48, "layers": 6, "first_kernel": 5, "head_channels": 96, "dropout": 0.1},
        grey={"channels": 48, "layers": 9, "dilations": (1, 2, 4), "head_channels": 96},
        medium=_COLOUR | {"layers": 12},
        large=_COLOUR | {"layers": 16},
    )
    FITS = BySize(
        FitSettings(steps=450, batch_size=64, learning_rate=5e-3, ema=0.98, warmup=60),
        LARGE,
        SMALL_GREY,
    )


@model("gated-pixelcnn-ensemble", "likely.models.pixelcnn.gated_pixelcnn:GatedPixelCNNEnsemble")
@dataclasses.dataclass(frozen=True)
class GatedPixelCNNEnsembleSettings(GatedPixelCNNSizes):
    """Mixture of Gated PixelCNNs that start at different corners: exact likelihood.

    Attributes:
        corners: number of networks, at most 4; training draws one per step.
    """

    corners: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        at_most(4, "an image has 4 corners", corners=self.corners)

    @classmethod
    def preset(cls, spec: DataSpec) -> GatedPixelCNNEnsembleSettings:
        """The sizes of one network, by the side of the image and the colour channels."""
        return cls(**GatedPixelCNNSettings.preset(spec).of_one())

    @classmethod
    def fit_preset(cls, spec: DataSpec) -> FitSettings:
        """As many steps for each network as for one alone."""
        preset = GatedPixelCNNSettings.fit_preset(spec)
        return dataclasses.replace(preset, steps=preset.steps * cls.corners)


@model("gated-pixelcnn-orders", "likely.models.pixelcnn.gated_pixelcnn:GatedPixelCNNOrders")
@dataclasses.dataclass(frozen=True)
class GatedPixelCNNOrdersSettings(GatedPixelCNNSizes):
    """Mixture of one Gated PixelCNN's densities in eight orders of the pixels: exact likelihood.

    Attributes:
        orders: number of orders, at most 8: by rows from each corner, then by columns (square
            images).
    """

    orders: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        at_most(8, "there are 8 orders by rows or columns", orders=self.orders)

    def of_network(self) -> GatedPixelCNNSettings:
        """Settings of the network that the orders share; its label is at least the order."""
        return GatedPixelCNNSettings(**self.of_one(conditional=True))

    @classmethod
    def preset(cls, spec: DataSpec) -> GatedPixelCNNOrdersSettings:
        """The sizes of one network; all orders that the shape of the image has."""
        orders = 8 if spec.grid[1] == spec.grid[2] else 4
        return cls(**GatedPixelCNNSettings.preset(spec).of_one(orders=orders))

    @classmethod
    def fit_preset(cls, spec: DataSpec) -> FitSettings:
        """Twice the steps of one network: it learns eight orders, and shares most of them."""
        preset = GatedPixelCNNSettings.fit_preset(spec)
        return dataclasses.replace(preset, steps=2 * preset.steps)


@model("pixelcnn-pp", "likely.models.pixelcnn.pixelcnn_pp:PixelCNNPP")
@dataclasses.dataclass(frozen=True)
class PixelCNNPPSettings(ChainSettings):
    """PixelCNN++ (Salimans 2017): exact likelihood, two streams over several resolutions.

    Every improvement of the paper can be switched off, to see what it is worth.

    Attributes:
        channels: feature maps of each stream.
        blocks: residual blocks at each resolution, on the way down (one more on the way up).
        scales: resolutions, each half the one before; sides round up.
        resampling: strided (the paper's), or at full resolution with dilated or plain kernels.
        block: gated (concat-ELU, tanh-free gate) or relu (plain residual).
        shortcuts: connect each block on the way down to its counterpart on the way up.
        weight_norm: normalised weights with data-dependent initialisation.
        head: distribution of a pixel; auto is the logistic mixture for colour.
        conditional: condition on the context that examples come with, or else on the class label.
    """

    channels: int = 64
    blocks: int = 3
    scales: int = 3
    resampling: Literal["strided", "dilated", "plain"] = "strided"
    block: Literal["gated", "relu"] = "gated"
    shortcuts: bool = True
    weight_norm: bool = True
    dropout: float = 0.5

    SIZES = BySize(
        tiny={"channels": 24, "blocks": 2, "scales": 2, "components": 5, "dropout": 0.2},
        grey={"channels": 32, "blocks": 2, "dropout": 0.2},
        medium={"channels": 160, "blocks": 5},
        large={"channels": 160, "blocks": 5, "scales": 4},
    )
    # Large images as in the paper's code.
    FITS = BySize(TINY, dataclasses.replace(LARGE, beta1=0.95, beta2=0.9995, ema=0.9995))


@model("attention", "likely.models.pixelcnn.pixelsnail:PixelSNAIL")
@dataclasses.dataclass(frozen=True)
class PixelSNAILSettings(MaskedSettings):
    """PixelSNAIL (Chen 2018): exact likelihood, causal convolutions and attention.

    Attributes:
        channels: feature maps; a multiple of the colour channels.
        blocks: each of some convolutions and one attention.
        convolutions: gated convolutions of a block.
        heads: of each attention (for each colour channel, where the network masks colours).
        head_size: components of a query; a multiple of 4.
    """

    channels: int = 64
    blocks: int = 3
    convolutions: int = 3
    heads: int = 4
    head_size: int = 16

    SIZES = BySize(
        tiny={
            "channels": 48, "blocks": 2, "convolutions": 2, "first_kernel": 5, "heads": 3,
            "head_channels": 96, "dropout": 0.2,
        },
        grey={"head_channels": 64, "dropout": 0.2},
        large={
            "channels": 144, "blocks": 4, "convolutions": 4, "heads": 4, "head_size": 32,
            "head_channels": 144, "dropout": 0.1,
        },
    )  # fmt: skip
    FITS = BySize(
        TINY,
        FitSettings(steps=60_000, batch_size=16, learning_rate=1e-3, warmup=500, ema=0.9995),
    )
