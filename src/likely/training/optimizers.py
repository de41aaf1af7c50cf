"""Optimisers by name, their saved state, and averaged weights."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.rmsprop import rmsprop
from torch.optim.sgd import sgd

from likely.settings import FitSettings

Slots = dict[str, Tensor]
EPSILON = 1e-8


class Optimizer(ABC):
    """Moves weights along their gradients; what it remembers of each weight is its state.

    Not torch.optim.Optimizer: the first of those in a process imports torch's compiler, which takes
    longer than torch itself. The arithmetic of Adam, RMSProp and SGD is torch's, bit for bit.

    Attributes:
        parameters: the weights.
        rate: the learning rate; a tensor of the device where an update can be captured.
        state: by weight, from its first gradient on.

    Args:
        parameters: of one player.
        rate: the learning rate.
        weight_decay: added to the gradient, or decoupled from it, as the optimiser says.
    """

    def __init__(
        self, parameters: Sequence[Tensor], rate: float | Tensor, weight_decay: float = 0.0
    ) -> None:
        self.parameters, self.rate, self.weight_decay = list(parameters), rate, weight_decay
        self.capturable = self.parameters[0].is_cuda
        self.state: dict[Tensor, Slots] = {}

    @abstractmethod
    def step(self) -> None:
        """Move every weight that has a gradient."""

    @abstractmethod
    def slots(self, parameter: Tensor) -> Slots:
        """The state of a weight before its first step."""

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def with_gradient(self) -> tuple[list[Tensor], list[Tensor], list[Slots]]:
        """The weights that have a gradient, their gradients and their states."""
        pairs = [(p, p.grad) for p in self.parameters if p.grad is not None]
        for parameter, _ in pairs:
            if parameter not in self.state:
                self.state[parameter] = self.slots(parameter)
        return [p for p, _ in pairs], [g for _, g in pairs], [self.state[p] for p, _ in pairs]


def _count(parameter: Tensor) -> Tensor:
    """No steps yet; counted on the device where an update can be captured."""
    device = parameter.device if parameter.is_cuda else "cpu"
    return torch.zeros((), dtype=torch.float32, device=device)


class Adam(Optimizer):
    """Moves weights as torch.optim.Adam (Kingma and Ba 2015, https://arxiv.org/abs/1412.6980).

    With decoupled weight decay it is AdamW (Loshchilov and Hutter 2019,
    https://arxiv.org/abs/1711.05101), as torch.optim.AdamW.

    Args:
        parameters: the weights.
        rate: the learning rate.
        betas: decay of the first and of the second moment.
        weight_decay: of the weights.
        decoupled: shrink the weights, rather than add them to the gradient.
        fused: one pass over the memory of a weight, not one for each operation; rounds otherwise.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        rate: float | Tensor,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
        *,
        decoupled: bool = False,
        fused: bool = False,
    ) -> None:
        super().__init__(parameters, rate, weight_decay)
        self.betas, self.decoupled, self.fused = betas, decoupled, fused

    @torch.no_grad()
    def step(self) -> None:
        """Move every weight that has a gradient."""
        moved, gradients, states = self.with_gradient()
        adam(
            moved,
            gradients,
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=self.fused or None,
            capturable=self.capturable,
            decoupled_weight_decay=self.decoupled,
            amsgrad=False,
            beta1=self.betas[0],
            beta2=self.betas[1],
            lr=self.rate,
            weight_decay=self.weight_decay,
            eps=EPSILON,
            maximize=False,
        )

    def slots(self, parameter: Tensor) -> Slots:
        """Both moments and the number of steps."""
        mean, square = torch.zeros_like(parameter), torch.zeros_like(parameter)
        return {"step": _count(parameter), "exp_avg": mean, "exp_avg_sq": square}


class RMSProp(Optimizer):
    """The gradient over its root mean square, as torch.optim.RMSprop moves weights.

    Source: Tieleman and Hinton 2012, lecture 6.5 of "Neural networks for machine learning",
    https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf

    Args:
        parameters: the weights.
        rate: the learning rate.
        alpha: decay of the mean square.
        weight_decay: added to the gradient.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        rate: float | Tensor,
        alpha: float,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, rate, weight_decay)
        self.alpha = alpha

    @torch.no_grad()
    def step(self) -> None:
        """Move every weight that has a gradient."""
        moved, gradients, states = self.with_gradient()
        squares, counts = [s["square_avg"] for s in states], [s["step"] for s in states]
        rmsprop(
            moved,
            gradients,
            squares,
            [],
            [],
            counts,
            capturable=self.capturable,
            lr=self.rate,  # type: ignore[arg-type]
            alpha=self.alpha,
            eps=EPSILON,
            weight_decay=self.weight_decay,
            momentum=0.0,
            centered=False,
            maximize=False,
        )

    def slots(self, parameter: Tensor) -> Slots:
        """The mean square and the number of steps."""
        return {"step": _count(parameter), "square_avg": torch.zeros_like(parameter)}


class SGD(Optimizer):
    """Down the gradient, as torch.optim.SGD moves weights; weight decay is added to it."""

    @torch.no_grad()
    def step(self) -> None:
        """Move every weight that has a gradient."""
        moved, gradients, _ = self.with_gradient()
        sgd(
            moved,
            gradients,
            [None] * len(moved),
            weight_decay=self.weight_decay,
            momentum=0.0,
            lr=self.rate,  # type: ignore[arg-type]
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )

    def slots(self, parameter: Tensor) -> Slots:
        """Nothing is remembered."""
        return {}


Optimizers = Mapping[str, Optimizer]

# Matrices with a shorter side than this (first layers of grey images, outputs, labels) are left
# to Adam: there is little to orthogonalise.
SMALLEST_SIDE = 16
# Adam's rate beside Muon's: an orthogonal update moves every direction, Adam's every weight.
ADAM_SHARE = 0.1


class Muon(Optimizer):
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
        parameters: Sequence[Tensor],
        rate: float | Tensor,
        betas: tuple[float, float],
        weight_decay: float,
    ) -> None:
        super().__init__(parameters, rate, weight_decay)
        self.betas = betas

    @torch.no_grad()
    def step(self) -> None:
        """Move every weight that has a gradient."""
        rate, kept = self.rate, 1 - self.rate * self.weight_decay
        matrices: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
        for parameter, gradient, state in zip(*self.with_gradient(), strict=True):
            if is_matrix(parameter):
                # Nesterov's momentum as a matrix.
                momentum = state["momentum"].mul_(self.betas[0]).add_(gradient)
                wanted = (gradient + self.betas[0] * momentum).flatten(1)
                rows, columns = wanted.shape
                matrices.setdefault((rows, columns), []).append((parameter, wanted))
            else:
                change = self._adam(state, gradient, self.betas[1])
                parameter.mul_(kept).sub_(change * (rate * ADAM_SHARE))
        # Matrices of one shape together: many small products are one large one.
        for (rows, columns), same_shape in matrices.items():
            scale = max(1.0, rows / columns) ** 0.5
            changes = orthogonalized(torch.stack([wanted for _, wanted in same_shape]))
            for (parameter, _), change in zip(same_shape, changes, strict=True):
                moved = change.reshape(parameter.shape) * (scale * rate)
                parameter.mul_(kept).sub_(moved)

    def slots(self, parameter: Tensor) -> Slots:
        """Momentum of a matrix; Adam's moments of any other weight."""
        if is_matrix(parameter):
            return {"momentum": torch.zeros_like(parameter)}
        mean, square = torch.zeros_like(parameter), torch.zeros_like(parameter)
        return {"step": _count(parameter), "mean": mean, "square": square}

    def _adam(self, state: Slots, gradient: Tensor, beta2: float) -> Tensor:
        state["step"] += 1
        state["mean"].lerp_(gradient, 0.1)
        state["square"].lerp_(gradient.square(), 1 - beta2)
        # A tensor of the device: a captured update counts on.
        count = state["step"] if self.capturable else float(state["step"])
        mean: Tensor = state["mean"] / (1 - 0.9**count)
        square: Tensor = state["square"] / (1 - beta2**count)
        return mean / (square.sqrt() + EPSILON)


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


def optimizer_for(settings: FitSettings, parameters: Sequence[Tensor]) -> Optimizer:
    """Adam, AdamW, RMSProp, Muon or SGD.

    On CUDA the learning rate is a tensor on the device, so that an update can be captured
    (`set_rate`).
    """
    s, device = settings, parameters[0].device
    rate: float | Tensor = s.learning_rate
    if device.type == "cuda":
        rate = torch.tensor(s.learning_rate, device=device)
    betas, decay = (s.beta1, s.beta2), s.weight_decay
    if s.optimizer == "muon":
        return Muon(parameters, rate, betas, decay)
    if s.optimizer == "sgd":
        return SGD(parameters, rate, decay)
    if s.optimizer == "rmsprop":
        return RMSProp(parameters, rate, s.beta2, decay)
    fused = device.type == "cpu" and all(p.is_floating_point() for p in parameters)
    return Adam(parameters, rate, betas, decay, decoupled=s.optimizer == "adamw", fused=fused)


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """The learning rate; a tensor keeps its place in memory."""
    if isinstance(optimizer.rate, Tensor):
        optimizer.rate.fill_(rate)
    else:
        optimizer.rate = rate


def optimizer_tensors(optimizers: Optimizers) -> dict[str, Tensor]:
    """The states of all optimisers as "player.parameter.slot"."""
    return {
        f"{player}.{index}.{slot}": value
        for player, optimizer in optimizers.items()
        for index, parameter in enumerate(optimizer.parameters)
        for slot, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizers(optimizers: Optimizers, saved: Mapping[str, Tensor]) -> None:
    """Give each optimiser its saved state, each tensor in the memory order of its parameter.

    Raises:
        KeyError: a part of the state of a parameter is missing.
        ValueError: a part has another shape or type, or belongs to no parameter.
    """
    parts: dict[tuple[str, int], Slots] = {}
    for name, tensor in saved.items():
        player, index, slot = name.rsplit(".", 2)
        if player not in optimizers:
            continue
        count = len(optimizers[player].parameters)
        if not (index.isdecimal() and int(index) < count):
            raise ValueError(f"{name}: {player} has {count} parameters")
        parts.setdefault((player, int(index)), {})[slot] = tensor
    for optimizer in optimizers.values():
        optimizer.state = {}
    for (player, number), slots in parts.items():
        parameter = optimizers[player].parameters[number]
        state = optimizers[player].slots(parameter)
        if missing := state.keys() - slots.keys():
            raise KeyError(f"{player}.{number}.{min(missing)}")
        for slot, value in state.items():
            tensor = slots[slot]
            if not tensor.is_floating_point() or tensor.shape != value.shape:
                name = f"{player}.{number}.{slot}"
                raise ValueError(f"{name} is {tensor.dtype} of shape {tuple(tensor.shape)}")
            value.copy_(tensor)
        optimizers[player].state[parameter] = state


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
