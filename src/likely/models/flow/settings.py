"""Settings of flows on data; torch-free."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from likely.models.common import BySize, NetworkSettings
from likely.models.registry import model
from likely.settings import FitSettings

if TYPE_CHECKING:
    from likely.models.flow.flow import Flow as Flow


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
