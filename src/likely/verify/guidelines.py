"""The five guidelines of DCGAN, read off the networks while they run.

Radford, Metz and Chintala 2016, section 3, https://arxiv.org/abs/1511.06434. Both networks run
once, in training mode, on a copy. Hooks on every module say which layer is at work and where it
normalises, and every operation that reaches the processor is noted: convolutions with their
strides, products of matrices, pooling, activations. Settings are not read, so a layer that somebody
exchanged is seen, and so is a function that no module stands for.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from likely.density import ImplicitDensity
from likely.nn.normalization import BatchNorm2d
from likely.noise import noise_for, weights_from
from likely.verify.proofs import Guideline
from likely.verify.subject import Subject

BATCH_NORMS = (BatchNorm2d, nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)
OTHER_NORMS = (
    nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm, nn.modules.instancenorm._InstanceNorm,
)  # fmt: skip
# Operations of the processor by what they are.
DENSE = {"mm", "addmm", "bmm", "baddbmm", "linear"}
ACTIVATIONS = {
    "celu", "elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "mish",
    "log_sigmoid_forward", "_prelu_kernel", "relu", "rrelu_with_noise", "sigmoid", "silu",
    "softplus", "tanh",
}  # fmt: skip
NORMS = {"native_batch_norm": "batch norm", "native_layer_norm": "layer norm",
         "native_group_norm": "group norm"}  # fmt: skip
RESAMPLING = ("pool", "upsample", "grid_sampler", "pixel_shuffle", "pixel_unshuffle")
RULES = (
    "strided convolutions in place of pooling",
    "batch norm in both networks, but not at G's output and D's input",
    "no hidden dense layer",
    "ReLU in G, tanh at its output",
    "LeakyReLU in D",
)


@runtime_checkable
class Guided(Protocol):
    """A DCGAN.

    Attributes:
        generator: called with (z, context).
        dropped_guidelines: what its settings breach, by the number of the guideline, with the
            reason.
    """

    generator: nn.Module

    @property
    def dropped_guidelines(self) -> dict[int, str]: ...

    def adversary(self) -> nn.Module:
        """A fresh discriminator, called with (images, context)."""


@dataclasses.dataclass
class Event:
    """Something that a network did.

    Attributes:
        what: convolution, dense, activation, normalisation or resampling.
        name: of the operation.
        layer: name of the innermost module at work.
        before, after: sides of the map that went in and came out; () for vectors.
        strided: whether it is a convolution with a stride of at least 2.
    """

    what: str
    name: str
    layer: str
    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    strided: bool = False

    @property
    def weighs(self) -> bool:
        """Whether it is a layer: a convolution, or a dense one."""
        return self.what in ("convolution", "dense")

    @property
    def dense(self) -> bool:
        """Whether it is a product of matrices, or a convolution from or to a single pixel."""
        return self.what == "dense" or 1 in (_pixels(self.before), _pixels(self.after))


def _pixels(sides: tuple[int, ...]) -> int:
    return sides[0] * sides[1] if len(sides) == 2 else 0


class _Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """What a network does, in order."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.events: list[Event] = []
        self._layers = [type(network).__name__]
        self._silent = 0  # depth inside layers that normalise
        for name, module in network.named_modules():
            label = name or type(network).__name__
            module.register_forward_pre_hook(lambda m, _, label=label: self._enter(m, label))
            module.register_forward_hook(lambda m, _, __: self._leave(m))

    def _enter(self, module: nn.Module, name: str) -> None:
        self._layers.append(name)
        kind = isinstance(module, BATCH_NORMS)
        if kind or isinstance(module, OTHER_NORMS):
            if not self._silent:
                what = "batch norm" if kind else type(module).__name__
                self.events.append(Event("normalisation", what, name))
            self._silent += 1

    def _leave(self, module: nn.Module) -> None:
        self._layers.pop()
        self._silent -= isinstance(module, BATCH_NORMS + OTHER_NORMS)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if not self._silent:
            self._note(func.overloadpacket.__name__.removesuffix("_"), args, out)
        return out

    def _note(self, name: str, args: Any, out: Any) -> None:
        layer = self._layers[-1]
        if name == "convolution":
            before, after = (tuple(t.shape[2:]) for t in (args[0], out))
            strided = max(args[3]) > 1
            kind = "fractionally strided " * bool(args[6]) + "convolution"
            self.events.append(Event("convolution", kind, layer, before, after, strided))
        elif name in DENSE:
            self.events.append(Event("dense", name, layer))
        elif name in ACTIVATIONS:
            self.events.append(Event("activation", name, layer))
        elif name in NORMS:
            self.events.append(Event("normalisation", NORMS[name], layer))
        elif any(word in name for word in RESAMPLING):
            self.events.append(Event("resampling", name, layer))


@dataclasses.dataclass(frozen=True)
class Layers:
    """A network as its layers with weights, and what stands behind each of them.

    Attributes:
        name: generator or discriminator.
        layers: in order.
        behind: of each, what comes before the next.
        events: all of them.
    """

    name: str
    layers: list[Event]
    behind: list[list[Event]]
    events: list[Event]

    @classmethod
    def of(cls, name: str, network: nn.Module, run: Callable[[nn.Module], object]) -> Layers:
        """Those of a network that runs once."""
        with _Trace(network) as trace:
            run(network)
        starts = [index for index, event in enumerate(trace.events) if event.weighs]
        parts = [trace.events[a:b] for a, b in itertools.pairwise([*starts, len(trace.events)])]
        return cls(name, [part[0] for part in parts], [part[1:] for part in parts], trace.events)

    def names_behind(self, index: int, what: str) -> list[str]:
        """What of a kind stands behind a layer."""
        return [event.name for event in self.behind[index] if event.what == what]

    def told(self, clauses: Iterable[str]) -> Iterator[str]:
        """Clauses about this network."""
        return (f"{self.name}: {clause}" for clause in clauses)


def guidelines(subject: Subject, adversary: nn.Module | None = None) -> tuple[Guideline, ...]:
    """The five guidelines for a DCGAN and its adversary; none for any other model.

    Args:
        subject: a copy of the model; it is copied again.
        adversary: the discriminator of the fit; a fresh one of the model by default.
    """
    model = subject.model
    if not (isinstance(model, ImplicitDensity) and isinstance(model, Guided)):
        return ()
    if adversary is None:
        with weights_from(subject.seed):
            adversary = model.adversary()
    model, critic = copy.deepcopy(model).train(), copy.deepcopy(adversary).cpu().double().train()
    x, context, noise = subject.x, subject.context, subject.noise("guidelines")
    with noise_for(model, noise), torch.no_grad():
        z = model.latents(noise, len(x))
        g = Layers.of("generator", model.generator, lambda network: network(z, context))
        real = subject.model.scaled(x)
        d = Layers.of("discriminator", critic, lambda network: network(real, context))
    breaches = (
        [*g.told(_resampled(g)), *d.told(_resampled(d))],
        [*g.told(_unnormalised(g, bare=-1)), *d.told(_unnormalised(d, bare=0))],
        [*g.told(_dense(g)), *d.told(_dense(d))],
        list(g.told(_activated(g, "relu", ("tanh",)))),
        list(d.told(_activated(d, "leaky_relu", (None, "sigmoid")))),
    )
    return tuple(
        Guideline(rule, tuple(clauses), model.dropped_guidelines.get(number, "") if clauses else "")
        for number, (rule, clauses) in enumerate(zip(RULES, breaches, strict=True), 1)
    )


def _resampled(network: Layers) -> Iterator[str]:
    named = [event for event in network.events if event.what == "resampling"]
    yield from (f"{event.name} in {event.layer}" for event in named)
    if not any(event.strided for event in network.layers):
        yield "no convolution has a stride"
    for first, second in itertools.pairwise(network.layers if not named else []):
        if first.after and second.before and first.after != second.before:
            sizes = " to ".join("x".join(map(str, s)) for s in (first.after, second.before))
            yield f"the map goes from {sizes} between {first.layer} and {second.layer}"


def _unnormalised(network: Layers, bare: int) -> Iterator[str]:
    """Layers without batch normalisation, or with it where there should be none: at `bare`.

    The layer that gives the logits has no features to normalise.
    """
    last = len(network.layers) - 1
    for index, layer in enumerate(network.layers):
        norms = network.names_behind(index, "normalisation")
        others = [name for name in norms if name != "batch norm"]
        where = "input" if bare == 0 else "output"
        if index == last or index == bare % len(network.layers):
            what = "output" if index == last else where
            if norms:
                yield f"{norms[0]} at its {what} ({layer.layer})"
        elif others:
            yield f"{others[0]} behind {layer.layer}"
        elif not norms:
            yield f"no batch norm behind {layer.layer}"
    first = network.events.index(network.layers[0])
    if any(event.what == "normalisation" for event in network.events[:first]):
        yield "its input is normalised"


def _dense(network: Layers) -> Iterator[str]:
    """Hidden ones: the first layer of G reads z, the last of D gives the logit."""
    outer = 0 if network.name == "generator" else len(network.layers) - 1
    for index, layer in enumerate(network.layers):
        if layer.dense and index != outer:
            yield f"{layer.layer} is a dense layer"


def _activated(network: Layers, wanted: str, at_output: tuple[str | None, ...]) -> Iterator[str]:
    last = len(network.layers) - 1
    for index, layer in enumerate(network.layers):
        names = network.names_behind(index, "activation")
        if index == last:
            if (names[-1] if names else None) not in at_output or len(names) > 1:
                yield f"{' and '.join(names) or 'nothing'} at the output ({layer.layer})"
        elif names != [wanted]:
            yield f"{' and '.join(names) or 'no activation'} behind {layer.layer}"
