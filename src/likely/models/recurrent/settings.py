"""Settings of Row LSTM and Diagonal BiLSTM; torch-free."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from likely.models.common import BySize, ChainSettings, Corner, at_most
from likely.models.registry import model
from likely.settings import FitSettings

if TYPE_CHECKING:
    from likely.data.spec import DataSpec
    from likely.models.recurrent.pixelrnn import DiagonalBiLSTM as DiagonalBiLSTM
    from likely.models.recurrent.pixelrnn import DiagonalBiLSTMEnsemble as DiagonalBiLSTMEnsemble
    from likely.models.recurrent.pixelrnn import RowLSTM as RowLSTM


@dataclasses.dataclass(frozen=True)
class PixelRNNSizes(ChainSettings):
    """What Row LSTM and Diagonal BiLSTM have in common.

    Attributes:
        hidden: h, features of each LSTM; the stream has 2 h. A multiple of the colour channels.
        layers: LSTM layers; of the Diagonal BiLSTM, each with two directions.
        first_kernel: side of the first layer's masked convolution, odd.
        head_channels: feature maps of the two output convolutions.
        dropout: dropout rate of the states that leave a layer.
    """

    hidden: int = 16
    layers: int = 4
    first_kernel: int = 7
    head_channels: int = 32

    FITS = BySize(
        FitSettings(steps=700, batch_size=64, learning_rate=4e-3, ema=0.99),
        FitSettings(steps=40_000, batch_size=16, learning_rate=1e-3, warmup=500),
    )


@model("row-lstm", "likely.models.recurrent.pixelrnn:RowLSTM")
@dataclasses.dataclass(frozen=True)
class RowLSTMSettings(PixelRNNSizes):
    """Row LSTM (van den Oord 2016): exact likelihood, row by row, sees a triangle above.

    Attributes:
        kernel: columns of the convolutions to the state, odd.
    """

    kernel: int = 3

    SIZES = BySize(
        tiny={"hidden": 24, "layers": 3, "first_kernel": 5, "head_channels": 48},
        grey={"hidden": 24, "layers": 6, "head_channels": 48},
        large={"hidden": 126, "layers": 12, "head_channels": 1023},
    )


@model("diagonal-bilstm", "likely.models.recurrent.pixelrnn:DiagonalBiLSTM")
@dataclasses.dataclass(frozen=True)
class DiagonalBiLSTMSettings(PixelRNNSizes):
    """Diagonal BiLSTM (van den Oord 2016): exact likelihood, sees all earlier pixels.

    Attributes:
        start: corner where sampling begins; rows follow one another from there.
    """

    layers: int = 7
    start: Corner = "top-left"

    SIZES = BySize(
        tiny={"hidden": 24, "layers": 2, "first_kernel": 5, "head_channels": 48},
        grey={},
        large={"hidden": 126, "layers": 12, "head_channels": 1023},
    )


@model("diagonal-bilstm-ensemble", "likely.models.recurrent.pixelrnn:DiagonalBiLSTMEnsemble")
@dataclasses.dataclass(frozen=True)
class DiagonalBiLSTMEnsembleSettings(PixelRNNSizes):
    """Mixture of Diagonal BiLSTMs that start at different corners: exact likelihood.

    Attributes:
        corners: number of networks, at most 4; training draws one per step.
    """

    layers: int = 7
    corners: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        at_most(4, "an image has 4 corners", corners=self.corners)

    def of_network(self, start: Corner) -> DiagonalBiLSTMSettings:
        """Settings of the network that draws from a corner."""
        shared = dataclasses.asdict(self)
        del shared["corners"]
        return DiagonalBiLSTMSettings(**shared, start=start)

    @classmethod
    def preset(cls, spec: DataSpec) -> DiagonalBiLSTMEnsembleSettings:
        """The sizes of one network, by the side of the image and the colour channels."""
        shared = dataclasses.asdict(DiagonalBiLSTMSettings.preset(spec))
        del shared["start"]
        return cls(**shared)

    @classmethod
    def fit_preset(cls, spec: DataSpec) -> FitSettings:
        """As many steps for each network as for one alone."""
        single = DiagonalBiLSTMSettings.fit_preset(spec)
        return dataclasses.replace(single, steps=single.steps * cls.corners)
