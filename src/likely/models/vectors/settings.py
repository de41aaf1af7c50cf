"""Settings of the networks on vectors: FVSBN, NADE, DeepNADE, MADE; torch-free."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from likely.errors import InvalidSetting
from likely.models.common import BySize, ChainSettings, HeadSettings, local_prior
from likely.models.registry import model
from likely.settings import FitSettings

if TYPE_CHECKING:
    from likely.data.spec import DataSpec
    from likely.models.vectors.deep_nade import DeepNADE as DeepNADE
    from likely.models.vectors.deep_nade import EoNADE as EoNADE
    from likely.models.vectors.fvsbn import FVSBN as FVSBN
    from likely.models.vectors.made import MADE as MADE
    from likely.models.vectors.made import MADEEnsemble as MADEEnsemble
    from likely.models.vectors.nade import NADE as NADE


Prior = Literal["none", "local"]


@model("fvsbn", "likely.models.vectors.fvsbn:FVSBN")
@dataclasses.dataclass(frozen=True)
class FVSBNSettings(HeadSettings):
    """Fully visible sigmoid belief network (Frey 1998): logistic regressions on earlier pixels.

    Attributes:
        prior: of the weights; none, or local: Gaussian by offset and distance of two pixels.
        conditional: condition on the class label (a bias per class).
    """

    components: int = 1
    prior: Prior = "none"
    conditional: bool = False

    @classmethod
    def preset(cls, spec: DataSpec) -> FVSBNSettings:
        """The one size there is; more components and a prior where the images are small."""
        prior: Prior = "local" if local_prior(spec) else "none"
        return cls(components=3 if spec.side <= 12 else 1, prior=prior)

    @classmethod
    def fit_preset(cls, spec: DataSpec) -> FitSettings:
        """A fit that works without tuning."""
        if spec.side <= 12:
            return FitSettings(steps=2000, batch_size=64, learning_rate=5e-3, ema=0.99)
        if local_prior(spec):
            # Concave: a high rate, and a decay to zero.
            return FitSettings(
                steps=4000, batch_size=200, learning_rate=0.02, schedule="linear", warmup=50,
                beta2=0.99, ema=0.998,
            )  # fmt: skip
        return FitSettings(steps=10_000, batch_size=100, learning_rate=2e-3, warmup=200)


@model("nade", "likely.models.vectors.nade:NADE")
@dataclasses.dataclass(frozen=True)
class NADESettings(HeadSettings):
    """NADE (Larochelle and Murray 2011): one hidden layer shared by all pixels.

    Attributes:
        hidden: units of the hidden layer.
        conditional: condition on the class label (biases per class).
    """

    hidden: int = 500
    components: int = 5
    conditional: bool = False

    SIZES = BySize(tiny={"hidden": 200, "components": 3}, large={})
    FITS = BySize(
        FitSettings(steps=1500, batch_size=64, learning_rate=4e-3, ema=0.99),
        FitSettings(steps=10_000, batch_size=100, learning_rate=5e-3, warmup=200),
    )


@dataclasses.dataclass(frozen=True)
class DeepNADESizes(HeadSettings):
    """What DeepNADE and the mixture over orders have in common.

    Attributes:
        hidden: units of each hidden layer.
        layers: hidden layers.
        conditional: condition on the class label (biases per class).
    """

    hidden: int = 500
    layers: int = 2
    components: int = 5
    conditional: bool = False

    SIZES = BySize(tiny={"hidden": 300, "components": 3}, large={})
    FITS = BySize(
        FitSettings(steps=4000, batch_size=64, learning_rate=1e-3, ema=0.99),
        FitSettings(
            steps=50_000, batch_size=100, learning_rate=1e-3, warmup=200, validation_examples=256
        ),
    )


@model("deep-nade", "likely.models.vectors.deep_nade:DeepNADE")
@dataclasses.dataclass(frozen=True)
class DeepNADESettings(DeepNADESizes):
    """DeepNADE (Uria 2014): one network for all orders of the pixels, used in one.

    Attributes:
        order: of the pixels; raster, or a random permutation (channels stay innermost).
    """

    order: Literal["raster", "random"] = "raster"


@model("eonade", "likely.models.vectors.deep_nade:EoNADE")
@dataclasses.dataclass(frozen=True)
class EoNADESettings(DeepNADESizes):
    """EoNADE (Uria 2014): a mixture of a DeepNADE's densities in several orders of the pixels.

    Attributes:
        orders: random orders whose densities are averaged.
    """

    orders: int = 8


@dataclasses.dataclass(frozen=True)
class MADESizes(ChainSettings):
    """What one MADE and the mixture over orders have in common.

    Attributes:
        hidden: units of each hidden layer.
        layers: hidden layers.
        masks: sets of connections; training draws one per step, the fitted model averages all.
        direct: also connect the inputs to the outputs directly.
        dropout: dropout rate of the hidden units.
        conditional: condition on the class label (biases per class).
    """

    hidden: int = 1000
    layers: int = 2
    masks: int = 1
    direct: bool = True
    components: int = 5


@model("made", "likely.models.vectors.made:MADE")
@dataclasses.dataclass(frozen=True)
class MADESettings(MADESizes):
    """MADE (Germain 2015): a dense network with masked connections.

    Attributes:
        hidden: units of each hidden layer; prior=local rounds up to a multiple of the number of
            pixels.
        order: of the pixels; raster, or a random permutation (channels stay innermost).
        prior: of the weights; none, or local: Gaussian by offset and distance of two pixels.
            Each hidden unit then belongs to a pixel, whose place in the order is its degree, and
            there is one mask.
    """

    order: Literal["raster", "random"] = "raster"
    prior: Prior = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prior == "local" and self.masks > 1:
            raise InvalidSetting(
                f"prior=local has one mask, given masks={self.masks}; prior=none has several"
            )

    @classmethod
    def preset(cls, spec: DataSpec) -> MADESettings:
        """Sizes that work without tuning, by the side of the image."""
        side = spec.side
        if local_prior(spec):
            # Ten hidden units for each pixel.
            hidden = 10 * spec.grid[1] * spec.grid[2]
            return cls(hidden=hidden, layers=1, prior="local", components=3 if side <= 12 else 5)
        if side <= 12:
            return cls(hidden=500, masks=4, dropout=0.2, components=3)
        if side <= 28:
            return cls(masks=8, dropout=0.2)
        return cls(hidden=2000, components=2)

    @classmethod
    def fit_preset(cls, spec: DataSpec) -> FitSettings:
        """A fit that works without tuning."""
        if spec.side <= 12:
            return FitSettings(steps=2000, batch_size=64, learning_rate=2e-3, ema=0.99)
        if local_prior(spec):
            return FitSettings(
                steps=1500, batch_size=100, learning_rate=0.01, schedule="linear", warmup=50,
                beta2=0.99, clip=20.0, ema=0.99,
            )  # fmt: skip
        return FitSettings(steps=15_000, batch_size=100, learning_rate=1e-3, warmup=200)


@model("made-ensemble", "likely.models.vectors.made:MADEEnsemble")
@dataclasses.dataclass(frozen=True)
class MADEEnsembleSettings(MADESizes):
    """Mixture of MADEs (Germain 2015) in several orders of the pixels that share weights.

    Attributes:
        orders: number of random pixel orders; training draws one per step.
        masks: sets of connections in each order.
    """

    orders: int = 8

    @classmethod
    def preset(cls, spec: DataSpec) -> MADEEnsembleSettings:
        """Sizes that work without tuning, by the side of the image."""
        side = spec.side
        if side <= 12:
            return cls(hidden=500, dropout=0.1, components=3)
        if side <= 28:
            return cls(dropout=0.1)
        return cls(hidden=2000, components=2)

    FITS = BySize(
        FitSettings(steps=2000, batch_size=64, learning_rate=2e-3, ema=0.99),
        FitSettings(steps=15_000, batch_size=100, learning_rate=1e-3, warmup=200),
    )
