r"""A network over time: a causal body whose output conditions a joint density within each step.

    h_t = body(u_1, ..., u_t), u_t = (features of x_{t-1}, c_t);  p(x_t | x_<t) = step(h_t, u_t)

The body sees the step before and what is known of this one, never the step itself. The step density
sees the body's output beside the body's input, so that what repeats needs no memory.
"""

from __future__ import annotations

import abc
import itertools
from typing import cast

import torch
from torch import Tensor

from likely.data.sequences.dataset import Sequences
from likely.data.spec import Dataset, DataSpec
from likely.density.sequence.bins import Choose
from likely.density.sequence.neighbours import Traces
from likely.density.sequence.over_time import SequenceDensity
from likely.density.sequence.steps import State, Steps
from likely.density.sequence.within_step import Features, Keys, Past, StepDensity, Turns
from likely.errors import InvalidSetting
from likely.models.sequence.settings import CausalSettings, SequenceSettings
from likely.noise import Dropout


class SequenceNetwork(SequenceDensity):
    """A leaf gives `initial` and `advance`; its settings are a `CausalSettings`."""

    settings: CausalSettings

    def __init__(self, spec: DataSpec, settings: CausalSettings, output: int) -> None:
        """`output` is the width of what `advance` returns."""
        super().__init__(spec, settings.conditional)
        self.settings = settings
        self.traces = Traces(len(self.spec.columns)) if settings.neighbours else None
        self.features = Features(self.spec)
        self.input_size = self.features.size + self.context_size
        self.dropout = Dropout(settings.dropout)
        width = output + self.input_size
        self.step = step_density(self.features, width, settings, settings.neighbours)

    @abc.abstractmethod
    def initial(self, n: int) -> State:
        """The body's state before the first step."""

    @abc.abstractmethod
    def advance(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """Outputs [B, T, output] for inputs [B, T, input_size], the one at t of those up to t."""

    def start_at(self, data: Dataset) -> None:
        """Scales and output biases from the training steps."""
        start_at(data, self.features, self.step)

    def begin(self, n: int) -> State:
        """No last step, and the body's first state."""
        last = torch.zeros(n, len(self.spec.columns), dtype=torch.int64, device=self.device)
        known = torch.zeros_like(last, dtype=torch.bool)
        if self.traces is None:
            return (last, known, *self.initial(n))
        return (last, known, self.traces.begin(n), *self.initial(n))

    def scan(self, steps: Steps, state: State) -> tuple[Tensor, State]:
        """Score a piece: every step from the body's output before it."""
        last = torch.cat([state[0][:, None], steps.x[:, :-1]], 1)
        last_known = torch.cat([state[1][:, None], steps.known[:, :-1]], 1)
        inputs = self._inputs(last, last_known, steps.context)
        traces, kept, body = self._traced(last, last_known, state)
        output, body = self.advance(inputs, body)
        scored = steps.scored
        past = Past(
            torch.cat([self.dropout(output), inputs], -1)[scored],
            last[scored],
            last_known[scored],
            None if traces is None else traces[scored],
        )
        out = torch.zeros(scored.shape, dtype=torch.float64, device=self.device)
        if bool(scored.any()):
            out[scored] = self.step.log_prob(past, steps.x[scored], steps.known[scored])
        return out, (steps.x[:, -1], steps.known[:, -1], *kept, *body)

    def next_step(
        self, state: State, context: Tensor | None, choose: Choose, known: Tensor
    ) -> tuple[Tensor, State]:
        """The next step from the same outputs that score it."""
        last, last_known = state[0][:, None], state[1][:, None]
        told = None if context is None else context[:, None]
        inputs = self._inputs(last, last_known, told)
        traces, kept, body = self._traced(last, last_known, state)
        output, body = self.advance(inputs, body)
        past = Past(
            torch.cat([output, inputs], -1)[:, 0],
            state[0],
            state[1],
            None if traces is None else traces[:, 0],
        )
        x = self.step.turns(past, choose, known)
        return x, (x, known, *kept, *body)

    def _traced(
        self, last: Tensor, known: Tensor, state: State
    ) -> tuple[Tensor | None, State, State]:
        """Traces before each step, or None; what the state keeps of them; and the body's state."""
        if self.traces is None:
            return None, (), state[2:]
        traces = self.traces(last * known, state[2])
        return traces, (traces[:, -1],), state[3:]

    def _inputs(self, last: Tensor, known: Tensor, context: Tensor | None) -> Tensor:
        return inputs_of(self.features, last, known, context)


def step_density(
    features: Features, state: int, settings: SequenceSettings, neighbours: int = 0
) -> StepDensity:
    """The joint density within a step for such columns, given a state of that many numbers."""
    hidden = settings.step_hidden
    if features.binary and len(features.columns) > 2:
        return Keys(len(features.columns), state, hidden, neighbours)
    if neighbours:
        raise InvalidSetting(
            f"neighbours={neighbours} is of binary columns side by side, as the keys of a piano; "
            f"the columns here are {features.columns[0].words}: leave it at 0"
        )
    return Turns(features, state, hidden, settings.components, settings.head)


def start_at(data: Dataset, *parts: Features | StepDensity) -> None:
    """Set what begins at the training steps: scales, output biases."""
    values = torch.from_numpy(cast(Sequences, data).values.astype("int64"))
    for part in parts:
        place = next(itertools.chain(part.parameters(), part.buffers())).device
        known = (values >= 0).to(place)
        part.start_at(values.to(place) * known, known)


def inputs_of(features: Features, last: Tensor, known: Tensor, context: Tensor | None) -> Tensor:
    """What a body sees of each step: the step before, and what is known of it, [B, T, I]."""
    seen = features(last, known)
    return seen if context is None else torch.cat([seen, context.to(seen)], -1)
