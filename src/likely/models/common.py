"""What settings of several families share; torch-free."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from likely.settings import FitSettings

if TYPE_CHECKING:
    from likely.data.spec import DataSpec

Corner = Literal["top-left", "top-right", "bottom-left", "bottom-right"]

# Small batches and orthogonal updates: few images teach a convolution of small grey images most.
SMALL_GREY = FitSettings(
    steps=8000,
    batch_size=16,
    optimizer="muon",
    learning_rate=0.01,
    schedule="linear",
    warmup=200,
    beta1=0.95,
    beta2=0.99,
    clip=100.0,
)


def local_prior(spec: DataSpec) -> bool:
    """Whether presets of dense models take the prior between pixels: where it was measured.

    Colour and larger images have too many weights for matrices that are assembled again at
    every update; the dimensions of a vector have no distance.
    """
    side = spec.side
    return (
        len(spec.shape) == 3
        and spec.grid[0] == 1
        and (side <= 12 or (side <= 28 and spec.levels == 2))
    )
