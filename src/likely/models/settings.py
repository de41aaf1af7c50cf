"""Settings of every model: frozen dataclasses, importable without torch.

The command lists and explains them in its help, so they stand apart from the networks. Each
class's docstring opens with the one line that `likely fit --help` prints. `preset` fills in
sizes that work for the data at hand.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

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

    @classmethod
    def preset(cls, spec: DataSpec) -> GatedPixelCNNSettings:
        """Sizes that work without tuning, by the side of the image and the colour channels."""
        side = max(spec.shape[1:])
        colour = spec.shape[0] > 1
        if side <= 12:
            return cls(channels=48, layers=6, first_kernel=5, head_channels=96, dropout=0.1)
        if side <= 28 and not colour:
            return cls(channels=64, layers=10, kernel=5, head_channels=128)
        if side <= 32:
            return cls(channels=126, layers=12, kernel=5, head_channels=252, dropout=0.1)
        return cls(channels=126, layers=16, kernel=5, head_channels=252, dropout=0.1)
