"""Raster order from any corner of the image, and mixtures of networks from several corners.

log p(x) = log (1/K) sum_k p_k(x) over networks k that draw from different corners, each with
its own weights (as Uria, Murray and Larochelle 2014, https://arxiv.org/abs/1310.1757, mix
orders).
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from likely.data.spec import Dataset, DataSpec
from likely.density import Autoregressive, Mixture
from likely.models.pixelcnn.settings import Corner
from likely.noise import Choice

# The sides of an image [.., H, W] to reverse so that drawing begins at the top left.
REVERSED: dict[Corner, tuple[int, ...]] = {
    "top-left": (),
    "top-right": (-1,),
    "bottom-left": (-2,),
    "bottom-right": (-2, -1),
}


def order_from(start: Corner, spec: DataSpec) -> Tensor | None:
    """`Autoregressive.order` of row after row from a corner, [H * W]; None from the top left."""
    if not REVERSED[start]:
        return None
    pixels = torch.arange(spec.shape[1] * spec.shape[2]).reshape(spec.shape[1:])
    return pixels.flip(REVERSED[start]).flatten()


class OfCorners(Protocol):
    """Settings of a mixture over corners."""

    @property
    def corners(self) -> int: ...

    @property
    def conditional(self) -> bool: ...


class CornerEnsemble(Mixture):
    """A mixture of networks that draw from different corners; see the module's docstring.

    A leaf gives `network`. While it is trained, each step draws one of the networks, so that K
    networks need K times the steps of one. Networks that were trained apart can be put together
    (`networks`).

    Args:
        spec: of the data, shape (C, H, W).
        settings: how many corners, and whether the networks are conditioned on labels.
    """

    def __init__(self, spec: DataSpec, settings: OfCorners) -> None:
        super().__init__(spec, len(spec.classes) if settings.conditional else 0)
        self.settings = settings
        corners = list(REVERSED)[: settings.corners]
        self.networks = nn.ModuleList(self.network(corner) for corner in corners)
        self.choice = Choice(settings.corners)

    @abc.abstractmethod
    def network(self, start: Corner) -> Autoregressive:
        """A fresh network that draws from a corner."""

    def start_at(self, data: Dataset) -> None:
        """Nothing, as for one network."""

    def members(self) -> Sequence[Autoregressive]:
        """The networks; while they are trained, one of them."""
        index = self.choice()
        networks = [n for n in self.networks if isinstance(n, Autoregressive)]
        return networks if index is None else [networks[index]]
