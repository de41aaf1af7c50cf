"""Optimisers by name, their saved state, and averaged weights."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from likely.settings import FitSettings

Optimizers = Mapping[str, torch.optim.Optimizer]


# Matrices with a shorter side than this (first layers of grey images, outputs, labels) are left
# to Adam: there is little to orthogonalise.
SMALLEST_SIDE = 16
# Adam's rate beside Muon's: an orthogonal update moves every direction, Adam's every weight.
ADAM_SHARE = 0.1


class Muon(torch.optim.Optimizer):
    r"""Momentum whose update is orthogonalised, for weight matrices; Adam for everything else.

        M <- beta1 M + G,   W <- W - rate sqrt(max(1, rows / columns)) orth(G + beta1 M)

    orth(X) = U V^T of the singular value decomposition X = U S V^T, to about a third, by five
    Newton-Schulz steps of degree five. A convolution's kernel [out, in, h, w] counts as a
    matrix [out, in h w]. Biases, and matrices with a side below 16, take Adam (betas 0.9,
    beta2) at a tenth of the rate. Weight decay is decoupled.

    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks",
    https://kellerjordan.github.io/posts/muon/; Nesterov momentum, as there.

    Args:
        parameters: of one player.
        rate: the learning rate of the matrices.
        betas: momentum of the matrices; second moment of Adam.
        weight_decay: decoupled.
    """

    def __init__(
        self,
        parameters: list[nn.Parameter],
        rate: float,
        betas: tuple[float, float],
        weight_decay: float,
    ) -> None:
        super().__init__(parameters, {"lr": rate, "betas": betas, "decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move every weight that has a gradient."""
        for group in self.param_groups:
            rate, kept = group["lr"], 1 - group["lr"] * group["decay"]
            matrices: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if is_matrix(parameter):
                    wanted = self._wanted(parameter, parameter.grad, group["betas"][0])
                    rows, columns = wanted.shape
                    matrices.setdefault((rows, columns), []).append((parameter, wanted))
                else:
                    change = self._adam(parameter, parameter.grad, group["betas"][1])
                    parameter.mul_(kept).sub_(change * (rate * ADAM_SHARE))
            # Matrices of one shape together: many small products are one large one.
            for (rows, columns), same_shape in matrices.items():
                scale = max(1.0, rows / columns) ** 0.5
                changes = orthogonalized(torch.stack([wanted for _, wanted in same_shape]))
                for (parameter, _), change in zip(same_shape, changes, strict=True):
                    moved = change.reshape(parameter.shape) * (scale * rate)
                    parameter.mul_(kept).sub_(moved)
        return None if closure is None else closure()

    def _wanted(self, parameter: Tensor, gradient: Tensor, beta: float) -> Tensor:
        """Nesterov's momentum as a matrix."""
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].mul_(beta).add_(gradient)
        wanted: Tensor = (gradient + beta * state["momentum"]).flatten(1)
        return wanted

    def _adam(self, parameter: Tensor, gradient: Tensor, beta2: float) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), device=parameter.device)
            state["mean"] = torch.zeros_like(parameter)
            state["square"] = torch.zeros_like(parameter)
        state["step"] += 1
        state["mean"].lerp_(gradient, 0.1)
        state["square"].lerp_(gradient.square(), 1 - beta2)
        # A tensor of the device: a captured update counts on.
        count = state["step"] if parameter.is_cuda else float(state["step"])
        mean: Tensor = state["mean"] / (1 - 0.9**count)
        square: Tensor = state["square"] / (1 - beta2**count)
        return mean / (square.sqrt() + 1e-8)


def is_matrix(parameter: Tensor) -> bool:
    """Whether Muon orthogonalises the updates of this weight."""
    if parameter.ndim < 2:
        return False
    rows = parameter.shape[0]
    return min(rows, parameter.numel() // rows) >= SMALLEST_SIDE


def orthogonalized(matrix: Tensor) -> Tensor:
    """U V^T of the singular value decomposition, approximately, of [..., rows, columns].

    Five steps X <- a X + (b A + c A A) X, A = X X^T; the coefficients (Jordan et al. 2024)
    bring singular values from near zero to between 0.7 and 1.2 as fast as possible.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrix.shape[-2] > matrix.shape[-1]
    x: Tensor = matrix.mT if tall else matrix
    x = x / (torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x


def optimizer_for(settings: FitSettings, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Adam (Kingma and Ba 2015), AdamW (Loshchilov and Hutter 2019), RMSProp, Muon or SGD.

    On CUDA the learning rate is a tensor on the device, so that an update can be captured
    (`set_rate`).
    """
    s = settings
    on_cuda = parameters[0].is_cuda
    rate: Any = torch.tensor(s.learning_rate, device=parameters[0].device)
    if not on_cuda:
        rate = s.learning_rate
    if s.optimizer == "muon":
        return Muon(parameters, rate, (s.beta1, s.beta2), s.weight_decay)
    if s.optimizer == "sgd":
        return torch.optim.SGD(parameters, rate, weight_decay=s.weight_decay)
    shared: dict[str, Any] = {"weight_decay": s.weight_decay, "capturable": on_cuda}
    if s.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, rate, alpha=s.beta2, **shared)
    kind = torch.optim.AdamW if s.optimizer == "adamw" else torch.optim.Adam
    # On a processor one pass over the memory of a weight, not one for each operation.
    fused = parameters[0].device.type == "cpu" and all(p.is_floating_point() for p in parameters)
    return kind(parameters, rate, (s.beta1, s.beta2), fused=fused or None, **shared)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The learning rate of all groups; a tensor keeps its place in memory."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def optimizer_tensors(optimizers: Optimizers) -> dict[str, Tensor]:
    """The states of all optimisers as "player.parameter.slot"."""
    return {
        f"{player}.{index}.{slot}": torch.as_tensor(value)
        for player, optimizer in optimizers.items()
        for index, slots in optimizer.state_dict()["state"].items()
        for slot, value in slots.items()
    }


def restore_optimizers(optimizers: Optimizers, saved: Mapping[str, Tensor]) -> None:
    """Give each optimiser its saved state, each tensor in the memory order of its parameter.

    Raises:
        KeyError: a part of the state of a parameter is missing.
        ValueError: a part has another shape or type, or belongs to no parameter.
    """
    for player, optimizer in optimizers.items():
        state = optimizer.state_dict()
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        slots: dict[int, dict[str, Tensor]] = {}
        for name, tensor in saved.items():
            owner, index, slot = name.rsplit(".", 2)
            if owner != player:
                continue
            if not (index.isdecimal() and int(index) < len(parameters)):
                raise ValueError(f"{name}: {player} has {len(parameters)} parameters")
            like = parameters[int(index)]
            if not tensor.is_floating_point() or tensor.shape not in (like.shape, torch.Size()):
                raise ValueError(f"{name} is {tensor.dtype} of shape {tuple(tensor.shape)}")
            if tensor.shape == like.shape:
                tensor = torch.empty_like(like).copy_(tensor)
            slots.setdefault(int(index), {})[slot] = tensor
        for number, kept in slots.items():
            missing = _parts(optimizer, parameters[number]) - kept.keys()
            if missing:
                raise KeyError(f"{player}.{number}.{min(missing)}")
        state["state"] = slots
        optimizer.load_state_dict(state)


def _parts(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> set[str]:
    """What an optimiser keeps for a parameter."""
    if isinstance(optimizer, Muon):
        return {"momentum"} if is_matrix(parameter) else {"step", "mean", "square"}
    if isinstance(optimizer, torch.optim.SGD):
        return set()
    if isinstance(optimizer, torch.optim.RMSprop):
        return {"step", "square_avg"}
    return {"step", "exp_avg", "exp_avg_sq"}


Networks = Mapping[str, nn.Module]


class AveragedWeights:
    """Exponential moving average of the weights and buffers of networks that are fitted together.

    The decay rises to its value over the first steps, min(decay, (1 + step) / (10 + step)), so
    that the average forgets the initial weights (Abadi et al., TensorFlow's
    ExponentialMovingAverage). What is no float (a counter) is copied.

    Attributes:
        tensors: by the names of `state_of`.

    Args:
        networks: by the prefix of their names: "" for the model.
        decay: between 0 (the last weights) and 1.
    """

    def __init__(self, networks: Networks, decay: float) -> None:
        self.networks, self.decay = networks, decay
        self.restart()

    def restart(self) -> None:
        """Begin again at the weights of now."""
        self.tensors = {name: t.detach().clone() for name, t in state_of(self.networks).items()}

    def update(self, step: int) -> None:
        """Update the average with the weights after update `step` (counted from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        state = state_of(self.networks)
        floating = [name for name, tensor in state.items() if tensor.is_floating_point()]
        old = [self.tensors[name] for name in floating]
        torch._foreach_lerp_(old, [state[name].detach() for name in floating], 1 - decay)
        for name, tensor in state.items():
            if not tensor.is_floating_point():
                self.tensors[name].copy_(tensor)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The networks with their averaged weights, in evaluation mode, within the block."""
        current = {name: t.detach().clone() for name, t in state_of(self.networks).items()}
        set_state(self.networks, self.tensors)
        try:
            yield
        finally:
            set_state(self.networks, current)


def state_of(networks: Networks) -> dict[str, Tensor]:
    """Every weight and buffer that is saved, by its name behind the prefix of its network."""
    return {
        prefix + name: tensor
        for prefix, network in networks.items()
        for name, tensor in network.state_dict().items()
    }


def set_state(networks: Networks, tensors: Mapping[str, Tensor]) -> None:
    """Give the networks weights by the names of `state_of`, and put them in evaluation mode."""
    for prefix, network in networks.items():
        network.load_state_dict({n: tensors[prefix + n] for n in network.state_dict()})
        network.eval()
