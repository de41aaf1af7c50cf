"""What the hidden layers of a network say of an example: features for a classifier, by layer.

A model that was fitted to images without labels has learned more than its density: its hidden
layers are features. Which layer says most about a class is not known beforehand; in an
autoregressive model it lies in the middle (Chen et al. 2020, "Generative Pretraining from Pixels",
sec. 4.1, https://proceedings.mlr.press/v119/chen20s.html), so every layer can be asked.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from likely.ask.encode import features, features_answer
from likely.ask.query import Guarantee
from likely.density import Autoregressive, EncoderDecoder, Fittable
from likely.devices.precision import without_autocast
from likely.errors import InvalidSetting, Unanswerable, nearest

# Maps are averaged to at most this many rows and columns.
POOLED = 4
# The one layer of a model that has features and gives no hidden layers.
FEATURES = "features"


@runtime_checkable
class HasActivations(Protocol):
    """A network that gives its hidden layers by name.

    A model takes integers [B, *shape]; the adversary of one floats in [-1, 1], [B, *shape].
    """

    def activations(self, x: Tensor) -> dict[str, Tensor]:
        """Layers from the first to the last, [B, F] or [B, F, H, W] each, with gradients."""


class Layers(nn.Module):
    """The hidden layers of a model as features, with gradients to its weights.

    A model that gives none and has features (`likely.ask.features`) has them as its one layer,
    "features", without gradients.

    Args:
        model: any.
        adversary: take the layers of this network instead, `run.adversary` of a GAN.

    Raises:
        Unanswerable: the network gives no hidden layers and no features, or a conditional model
            would be told the label.

    Attributes:
        names: of the layers, from the first to the last.
    """

    def __init__(self, model: Fittable, adversary: nn.Module | None = None) -> None:
        super().__init__()
        self.model = model
        self.adversary = adversary
        if model.classes or model.context_shape:
            raise Unanswerable(
                f"{type(model).__name__} is conditional: its layers are told the label that a "
                "classifier is to find; fit it without conditional=true"
            )
        self.eval()
        with torch.no_grad():
            example = torch.zeros(1, *model.spec.grid, dtype=torch.int64, device=model.device)
            self.names = tuple(self._activations(example))

    def forward(self, x: Tensor, layer: str | None = None) -> Tensor:
        """The features of one layer, [B, F]; the last one where none is named."""
        return self.all(x)[layer or self.names[-1]]

    def all(self, x: Tensor) -> dict[str, Tensor]:
        """Every layer as a vector; maps are averaged to at most 4 x 4.

        Args:
            x: integers [B, *shape].

        Returns:
            [B, F] for each name.
        """
        with without_autocast(self.model.device):
            return {name: as_vectors(layer) for name, layer in self._activations(x).items()}

    def movable(self, layer: str) -> bool:
        """Whether a gradient reaches weights of the network through this layer.

        None does through features that are asked for as they are, as those of a VQ-VAE.
        """
        return layer != FEATURES

    def usual(self, layer: str) -> str:
        """The layer of this name; the last one where "code" is asked of a network without it."""
        last = layer == "code" and "code" not in self.names
        return self.names[-1] if last else self.chosen(layer)

    def chosen(self, layer: str) -> str:
        """The layer of this name.

        Raises:
            InvalidSetting: there is none; the message lists those that there are.
        """
        if layer in self.names:
            return layer
        raise InvalidSetting(f'there is no layer "{layer}": {nearest(layer, self.names)}')

    def _activations(self, x: Tensor) -> dict[str, Tensor]:
        model, adversary = self.model, self.adversary
        x = model.integers(x)
        if adversary is not None:
            if isinstance(adversary, HasActivations):
                return adversary.activations(model.scaled(model.as_data(x)))
            raise Unanswerable(f"the adversary, {type(adversary).__name__}, gives no hidden layers")
        if isinstance(model, HasActivations):
            return model.activations(x)
        if isinstance(model, EncoderDecoder):
            return {"code": model.encode(x)}
        if isinstance(model, Autoregressive) and (layers := _recorded(model, x)):
            return layers
        if features_answer(model).guarantee is not Guarantee.NONE:
            return {FEATURES: features(model, x)}
        raise Unanswerable(
            f"{type(model).__name__} gives no hidden layers and no features: models with an "
            "encoder or components, a GAN's run that kept its adversary, and convolutional "
            "autoregressive models do"
        )


def as_vectors(layer: Tensor) -> Tensor:
    """[B, F] as it is; maps [B, F, H, W] averaged to at most 4 x 4, [B, F * h * w]."""
    if layer.ndim == 4:
        sides = (min(POOLED, layer.shape[2]), min(POOLED, layer.shape[3]))
        layer = adaptive_avg_pool2d(layer, sides)
    return layer.flatten(1)


def _recorded(model: Autoregressive, x: Tensor) -> dict[str, Tensor]:
    """The maps that leave each layer of a stack while the conditionals are computed.

    A layer of two streams (rows above, pixels to the left) gives both, one after the other.
    """
    recorded: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: Tensor | tuple[Tensor, ...]) -> None:
        streams = output[:2] if isinstance(output, tuple) else (output,)
        maps = [s for s in streams if s.ndim == 4 and s.shape[0] == len(x)]
        if maps:
            recorded.append(torch.cat(maps, 1))

    stacks = [child for child in model.children() if isinstance(child, nn.ModuleList)]
    handles = [layer.register_forward_hook(keep) for stack in stacks for layer in stack]
    try:
        model.conditionals(x)
    finally:
        for handle in handles:
            handle.remove()
    return {f"layer-{number}": maps for number, maps in enumerate(recorded, 1)}
