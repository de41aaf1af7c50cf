"""The network that plays against a generator, and belongs to the objective of its fit."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

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

    def adversary(self) -> nn.Module:
        """A fresh network, called with (images in [-1, 1] [B, *shape], context); logits [B]."""


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


def adversary_of(model: Fittable) -> nn.Module:
    """A fresh network against a model: `model.adversary()`, or one that suits the data.

    Without such a method it is DCGAN's discriminator at the preset for the data, or a dense
    network where a side is shorter than 4.

    Raises:
        InvalidSetting: the model is conditioned on numbers, which neither of the two takes.
    """
    if isinstance(model, OffersAdversary):
        return model.adversary()
    if model.context_shape:
        raise InvalidSetting(
            f"{type(model).__name__} is conditioned on numbers of shape {model.context_shape}, and "
            "the adversaries here take labels: give its class a method `adversary()` that returns "
            "a network of (images, context)"
        )
    spec = model.spec
    if min(spec.grid[1:]) < 4:
        return DenseDiscriminator(spec.dimensions, model.classes)
    return Discriminator(spec, DCGANSettings.preset(spec), model.classes)
