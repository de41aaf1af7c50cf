"""The network that plays against a generator, and belongs to the objective of its fit."""

from __future__ import annotations

import dataclasses
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from likely.density import Fittable
from likely.errors import InvalidSetting
from likely.models.gan.dcgan import Discriminator
from likely.models.gan.gan import DenseDiscriminator
from likely.models.gan.settings import DCGANSettings
from likely.models.registry import MODELS

# The name of its weights in the files of a run.
DISCRIMINATOR = "discriminator"


@runtime_checkable
class OffersAdversary(Protocol):
    """A model whose class knows the network that suits it."""

    def adversary(self) -> nn.Module:
        """A fresh network, called with (images in [-1, 1] [B, *shape], context); logits [B]."""


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


def adversary_of(model: Fittable, packing: int = 1) -> nn.Module:
    """A fresh network against a model: `model.adversary()`, or one that suits the data.

    Without such a method it is DCGAN's discriminator at the preset for the data, or a dense
    network where a side is shorter than 4.

    Args:
        model: the generator.
        packing: images that the network judges together.

    Raises:
        InvalidSetting: the model is conditioned on numbers, which neither of the two takes, or
            packs are asked of one with labels, or of one that is not registered.
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
    # A pack is an example of as many times the channels (of a vector: numbers).
    spec = dataclasses.replace(
        model.spec, shape=(packing * model.spec.shape[0], *model.spec.shape[1:])
    )
    if isinstance(model, OffersAdversary):
        if packing == 1:
            return model.adversary()
        if MODELS.of(type(model)) is None:
            raise InvalidSetting(
                f"packing={packing} needs {type(model).__name__}.adversary() for packs, and only "
                "registered models can be built for other shapes: register it"
            )
        other: nn.Module = type(model)(spec, model.settings).adversary()
        return other
    if model.context_shape:
        raise InvalidSetting(
            f"{type(model).__name__} is conditioned on numbers of shape {model.context_shape}, and "
            "the adversaries here take labels: give its class a method `adversary()` that returns "
            "a network of (images, context)"
        )
    if min(spec.grid[1:]) < 4:
        return DenseDiscriminator(spec.dimensions, model.classes)
    return Discriminator(spec, DCGANSettings.preset(spec), model.classes)
