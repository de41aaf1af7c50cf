"""Optimisers by name, their saved state, and averaged weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from likely.settings import FitSettings

Optimizers = Mapping[str, torch.optim.Optimizer]


def optimizer_for(settings: FitSettings, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Adam (Kingma and Ba 2015), AdamW (Loshchilov and Hutter 2019) or RMSProp."""
    s = settings
    if s.optimizer == "rmsprop":
        return torch.optim.RMSprop(
            parameters, s.learning_rate, alpha=s.beta2, weight_decay=s.weight_decay
        )
    kind = torch.optim.AdamW if s.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, s.learning_rate, (s.beta1, s.beta2), weight_decay=s.weight_decay)


def optimizer_tensors(optimizers: Optimizers) -> dict[str, Tensor]:
    """The states of all optimisers as "player.parameter.slot"."""
    return {
        f"{player}.{index}.{slot}": torch.as_tensor(value)
        for player, optimizer in optimizers.items()
        for index, slots in optimizer.state_dict()["state"].items()
        for slot, value in slots.items()
    }


def restore_optimizers(optimizers: Optimizers, saved: Mapping[str, Tensor]) -> None:
    """Give each optimiser its saved state, each tensor in the memory order of its parameter."""
    for player, optimizer in optimizers.items():
        state = optimizer.state_dict()
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        slots: dict[int, dict[str, Tensor]] = {}
        for name, tensor in saved.items():
            owner, index, slot = name.rsplit(".", 2)
            if owner != player:
                continue
            like = parameters[int(index)]
            if tensor.shape == like.shape:
                tensor = torch.empty_like(like).copy_(tensor)
            slots.setdefault(int(index), {})[slot] = tensor
        state["state"] = slots
        optimizer.load_state_dict(state)


class AveragedWeights:
    """Exponential moving average of a model's weights and buffers.

    The decay rises to its value over the first steps, min(decay, (1 + step) / (10 + step)), so
    that the average forgets the initial weights (Abadi et al., TensorFlow's
    ExponentialMovingAverage). What is no float (a counter) is copied.

    Attributes:
        tensors: by the names of the model's state.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.tensors = copied_state(model)

    def restart(self) -> None:
        """Begin again at the model's weights of now."""
        self.tensors = copied_state(self.model)

    def update(self, step: int) -> None:
        """Take in the weights after update `step` (counted from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        state = self.model.state_dict()
        floating = [name for name, tensor in state.items() if tensor.is_floating_point()]
        old = [self.tensors[name] for name in floating]
        torch._foreach_lerp_(old, [state[name].detach() for name in floating], 1 - decay)
        for name, tensor in state.items():
            if not tensor.is_floating_point():
                self.tensors[name].copy_(tensor)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The model with its averaged weights, in evaluation mode, for the time of the block."""
        current = copied_state(self.model)
        self.model.load_state_dict(self.tensors)
        self.model.eval()
        try:
            yield
        finally:
            self.model.load_state_dict(current)


def copied_state(model: nn.Module) -> dict[str, Tensor]:
    """A copy of every weight and buffer that is saved."""
    return {name: t.detach().clone() for name, t in model.state_dict().items()}
