"""Updates as CUDA graphs: thousands of small kernels for two launches.

A small network's update is thousands of kernels of a few microseconds, and the processor needs
longer to launch each than the GPU to run it. Here the update is recorded once and replayed
with other numbers at the same addresses: the batch, the step, the learning rate, the noise.

What can be recorded: one player, one process, one micro-batch, no decision that depends on a
value. Where recording fails, the update runs eagerly, as without graphs.
"""

from __future__ import annotations

import dataclasses
import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

# Updates of a kind that run eagerly first: they fill caches, states and workspaces, choose
# convolution algorithms, and are what compilation happens in.
EAGER = 3


@dataclasses.dataclass(frozen=True)
class Gradients:
    """Results of the first half of an update, beside the gradients of the parameters.

    Attributes:
        total: the mean loss of the batch, a number.
        norm: of the gradients of all parameters, a number.
        terms: named means over the batch to log.
    """

    total: Tensor
    norm: Tensor
    terms: dict[str, Tensor]


class Recording:
    """Captured work; its `result` holds tensors that the latest replay wrote.

    `work` launches kernels on the current stream and draws from the generator `source`; all
    recordings share the memory of `pool`.
    """

    def __init__(self, work: Callable[[], Any], pool: Any, source: torch.Generator) -> None:
        self.graph = torch.cuda.CUDAGraph()
        self.graph.register_generator_state(source)
        stream = torch.cuda.current_stream()
        with uncollected(), torch.cuda.graph(self.graph, pool, stream, "thread_local"):
            self.result = work()

    def replay(self) -> None:
        """Replay the work on the current contents of its buffers."""
        self.graph.replay()


@contextmanager
def uncollected() -> Iterator[None]:
    """A block without garbage collection: freeing an old graph would end a capture."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def available(device: torch.device) -> bool:
    """Whether work on this device can be captured."""
    return device.type == "cuda"


@dataclasses.dataclass
class Update:
    """A captured update: its inputs, its results, its two halves."""

    x: Tensor
    context: Tensor | None
    step: Tensor
    first: Recording
    second: Recording
    held: list[Tensor | None]  # gradients at the addresses that the second half reads


class UpdateGraphs:
    """Updates of one player, recorded by what an objective's choices are (`Objective.choices`).

    Args:
        parameters: of the player.
        source: of the noise; seeded again for every update, read when graphs are replayed.
        gradients: (x, context, step) -> what `Gradients` holds; leaves `.grad` filled.
        move: the norm -> nothing; clips, moves the parameters.
    """

    def __init__(
        self,
        parameters: list[torch.nn.Parameter],
        source: torch.Generator,
        gradients: Callable[[Tensor, Tensor | None, Tensor], Gradients],
        move: Callable[[Tensor], None],
    ) -> None:
        self.parameters, self.gradients, self.move = parameters, gradients, move
        self.source = source
        self.pool: Any = None
        self.recorded: dict[tuple[int, ...], Update] = {}
        self.seen: dict[tuple[int, ...], int] = {}
        self.possible = True

    @contextmanager
    def beside(self) -> Iterator[None]:
        """A stream of their own, for everything: what is recorded must not be the default one."""
        stream = torch.cuda.Stream(self.source.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        self.pool = torch.cuda.graph_pool_handle()
        try:
            with torch.cuda.stream(stream):
                yield
            torch.cuda.current_stream().wait_stream(stream)
        finally:
            # The loop and its functions know each other: without this their memory would be held
            # until the collector comes by.
            self.recorded.clear()

    def find(
        self, choices: tuple[int, ...], x: Tensor, context: Tensor | None, step: int
    ) -> Update | None:
        """The recorded update for these choices, its inputs filled in; None: run it eagerly.

        Recording happens here, without running anything.
        """
        seen = self.seen[choices] = self.seen.get(choices, 0) + 1
        if not self.possible or seen <= EAGER:
            return None
        update = self.recorded.get(choices)
        if update is None:
            try:
                update = self.recorded[choices] = self._record(x, context)
            except RuntimeError as error:
                self.possible = False
                reason = str(error).splitlines()[0]
                warnings.warn(f"updates run without CUDA graphs: {reason}", stacklevel=2)
                return None
            finally:
                for parameter in self.parameters:
                    parameter.grad = None
        update.x.copy_(x)
        if update.context is not None and context is not None:
            update.context.copy_(context)
        update.step.fill_(step)
        return update

    def _record(self, x: Tensor, context: Tensor | None) -> Update:
        x = x.clone()
        context = None if context is None else context.clone()
        step = torch.zeros((), device=x.device)
        for parameter in self.parameters:
            parameter.grad = None
        first = Recording(lambda: self.gradients(x, context, step), self.pool, self.source)
        norm = first.result.norm
        second = Recording(lambda: self.move(norm), self.pool, self.source)
        held = [parameter.grad for parameter in self.parameters]
        return Update(x, context, step, first, second, held)
