"""Settings of flows on data; torch-free."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Literal

from likely.models.common import BySize, NetworkSettings
from likely.models.registry import model
from likely.settings import CountsWith, FitSettings

if TYPE_CHECKING:
    from likely.models.flow.flow import Flow as Flow
    from likely.models.flow.image_flow import ImageFlow as ImageFlow


@model("flow", "likely.models.flow.flow:Flow")
@dataclasses.dataclass(frozen=True)
class FlowSettings(NetworkSettings):
    """Flow on dequantised data (Dinh et al. 2017): an exact density, a bound on integers.

    Attributes:
        transform: coupling (RealNVP: one pass each way), or autoregressive (MAF: sampled one
            dimension after another).
        layers: couplings or masked maps.
        hidden: units of each of the two hidden layers of one.
    """

    transform: Literal["coupling", "autoregressive"] = "coupling"
    layers: int = 8
    hidden: int = 512

    SIZES = BySize({"hidden": 256}, {"hidden": 128}, {})
    FITS = BySize(
        FitSettings(steps=2000, batch_size=64, learning_rate=1e-3, ema=0.99),
        FitSettings(steps=20_000, batch_size=100, learning_rate=5e-4, warmup=500),
    )


@model("image-flow", "likely.models.flow.image_flow:ImageFlow")
@dataclasses.dataclass(frozen=True)
class ImageFlowSettings(NetworkSettings):
    """Multi-scale flow on images (Dinh et al. 2017), with a fitted dequantiser (Ho et al. 2019).

    Attributes:
        dequantizer: how u of y = x + u is drawn; variational (a flow given x), or uniform.
        scales: at most; each halves the sides that are even.
        couplings: at each scale.
        channels: feature maps of the networks at the first scale; twice as many at every other.
        blocks: residual blocks of each network.
        dequantizer_couplings: of the variational dequantiser.
    """

    dequantizer: Literal["variational", "uniform"] = "variational"
    scales: int = 3
    couplings: int = 8
    channels: int = 32
    blocks: int = 1
    dequantizer_couplings: int = 4

    COUNTS_WITH: ClassVar[dict[str, CountsWith]] = {
        "dequantizer_couplings": {"dequantizer": ("variational",)}
    }
    SIZES = BySize({"couplings": 4, "dequantizer_couplings": 2}, {"channels": 64}, {"couplings": 6})
    FITS = BySize(
        FitSettings(steps=1500, batch_size=64, learning_rate=2e-3, ema=0.99),
        FitSettings(steps=20_000, batch_size=64, learning_rate=1e-3, warmup=500),
    )
