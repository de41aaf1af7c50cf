"""The network that plays against a generator, and belongs to the objective of its fit."""

from __future__ import annotations

import dataclasses
import inspect
import math
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from likely.data.spec import DataSpec
from likely.density import Fittable
from likely.errors import InvalidSetting
from likely.models.gan.dcgan import Discriminator
from likely.models.gan.settings import DCGANSettings

# The name of its weights in the files of a run.
DISCRIMINATOR = "discriminator"
HIDDEN = 256


@runtime_checkable
class OffersAdversary(Protocol):
    """A model whose class knows the network that suits it."""

    def adversary(self, packing: int = 1) -> nn.Module:
        """A fresh network, called with (images in [-1, 1] [B, *shape], context); logits [B].

        With packing m it takes as many channels (of vectors: numbers), those of m images.
        """


class DenseDiscriminator(nn.Module):
    """Vectors, or images too small to halve, in [-1, 1] [B, *shape] -> logit of being real, [B].

    Two hidden layers (Goodfellow et al. 2014 play with dense networks), LeakyReLU, and the
    projection of the second on the label (Miyato and Koyama 2018).
    """

    def __init__(self, dimensions: int, classes: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(dimensions, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.last = nn.Linear(HIDDEN, 1)
        self.label = nn.Embedding(classes, HIDDEN) if classes else None

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        hidden = self._hidden(x)[-1]
        logit: Tensor = self.last(hidden)[:, 0]
        if self.label is not None and context is not None:
            logit = logit + (hidden * self.label(context)).sum(1) / math.sqrt(HIDDEN)
        return logit

    def features(self, x: Tensor) -> Tensor:
        """Both hidden layers, [B, features]."""
        return torch.cat(self._hidden(x), 1)

    def activations(self, x: Tensor) -> dict[str, Tensor]:
        """Both hidden layers by name, [B, features]."""
        return {f"layer-{number}": layer for number, layer in enumerate(self._hidden(x), 1)}

    def _hidden(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = leaky_relu(self.first(x.flatten(1)), 0.2)
        return first, leaky_relu(self.second(first), 0.2)


class PackedDiscriminator(nn.Module):
    """Images [B, *shape] -> logits of their packs, [B / packing].

    Images of a pack are stacked on the channel axis (Lin et al. 2018,
    https://arxiv.org/abs/1712.04086), so that D sees when samples are alike.
    """

    def __init__(self, network: nn.Module, packing: int) -> None:
        super().__init__()
        self.network, self.packing = network, packing

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        logit: Tensor = self.network(x.reshape(-1, self.packing * x.shape[1], *x.shape[2:]), None)
        return logit


def packed_spec(spec: DataSpec, packing: int) -> DataSpec:
    """The specification of examples that are packs of as many."""
    return dataclasses.replace(spec, shape=(packing * spec.shape[0], *spec.shape[1:]))


def adversary_of(model: Fittable, packing: int = 1) -> nn.Module:
    """A fresh network against a model: `model.adversary()`, or one that suits the data.

    Without such a method it is DCGAN's discriminator at the preset for the data, or a dense
    network where a side is shorter than 4.

    Args:
        model: the generator.
        packing: images that the network judges together.

    Raises:
        InvalidSetting: the model is conditioned on numbers, which neither of the two takes, or
            packs are asked of one with labels, or of one whose method takes no packing.
    """
    if packing > 1:
        if model.classes or model.context_shape:
            raise InvalidSetting(
                f"packing={packing} joins images of several labels, and {type(model).__name__} is "
                "conditioned on them: leave one of the two out"
            )
        return PackedDiscriminator(_network(model, packing), packing)
    return _network(model, packing)


def _network(model: Fittable, packing: int) -> nn.Module:
    if isinstance(model, OffersAdversary):
        if packing == 1:
            return model.adversary()
        if "packing" not in inspect.signature(model.adversary).parameters:
            raise InvalidSetting(
                f"packing={packing}: {type(model).__name__}.adversary() takes no packing"
            )
        return model.adversary(packing)
    if model.context_shape:
        raise InvalidSetting(
            f"{type(model).__name__} is conditioned on numbers of shape {model.context_shape}, and "
            "the adversaries here take labels: give its class a method `adversary()` that returns "
            "a network of (images, context)"
        )
    spec = packed_spec(model.spec, packing)
    if min(spec.grid[1:]) < 4:
        return DenseDiscriminator(spec.dimensions, model.classes)
    return Discriminator(spec, DCGANSettings.preset(spec), model.classes)
