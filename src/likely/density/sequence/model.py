"""Models of sequences of any kind: how integers are read, what is known beforehand, drawing.

In integers [B, T, K] a value is in [0, levels); -1 (`PADDING`) is a step after the end; a value v
of a step that is given and not scored is -2 - v; `MISSING` is neither known nor scored, and
`GIVEN_MISSING` the same of a step that is given.
"""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from likely.data.sequences.spec import MISSING, PADDING, SequenceSpec, clock_features
from likely.data.spec import Batch, DataSpec
from likely.density.fittable import as_tensor, evaluating
from likely.density.sequence.steps import State, Steps
from likely.density.taxonomy import CHUNK, GenerativeModel
from likely.devices.precision import full_precision
from likely.errors import InvalidData, InvalidSetting
from likely.noise import Noise


class SequenceModel(GenerativeModel):
    """A model that draws sequences step after step from a state that it carries.

    Attributes:
        uniforms: uniform numbers that a step is drawn from: one a column, and one a latent.
    """

    takes_sequences: ClassVar[bool] = True
    spec: SequenceSpec

    def __init__(self, spec: DataSpec, conditional: bool = False) -> None:
        """For such data; `conditional` on the class of a sequence.

        Raises:
            InvalidSetting: images or vectors; or conditional, and there are no classes.
        """
        if conditional and not spec.classes:
            raise InvalidSetting(f"conditional=true needs labels; {spec.name} has none")
        super().__init__(spec, len(spec.classes) if conditional else 0)
        assert isinstance(spec, SequenceSpec)
        self.uniforms = len(spec.columns)
        self.context_shape = (spec.context_dimensions,) if spec.context_dimensions else ()
        self.context_size = spec.context_dimensions + self.classes

    # -- what a leaf says ------------------------------------------------------------------

    @abc.abstractmethod
    def begin(self, n: int) -> State:
        """The state before the first step of n sequences."""

    @abc.abstractmethod
    def draw_step(
        self, state: State, context: Tensor | None, uniform: Tensor
    ) -> tuple[Tensor, State]:
        """Draw the next step from uniform numbers in [0, 1).

        Args:
            state: after the steps before.
            context: of the step, [B, C], or None.
            uniform: float64 [B, uniforms].

        Returns:
            int64 [B, K], and the state after it.
        """

    # -- the integers of a batch -------------------------------------------------------------

    def steps(self, x: Tensor, context: Tensor | int | None = None) -> Steps:
        """The integers of a batch taken apart.

        Raises:
            InvalidData: another shape than [B, T, K], no integers, or a level out of range.
        """
        width = len(self.spec.columns)
        x = as_tensor(x, f"sequences [B, T, {width}]")
        if x.ndim != 3 or x.shape[2] != width or x.is_floating_point():
            raise InvalidData(f"expected integers [B, T, {width}], given {x.dtype} {list(x.shape)}")
        x = x.to(self.device, torch.int64)
        value = torch.where((x <= -2) & (x > MISSING), -2 - x, x)
        levels = torch.tensor([c.levels for c in self.spec.columns], device=self.device)
        known = (x != PADDING) & (x > MISSING)
        if bool((known & (value >= levels)).any()):
            raise InvalidData(f"a value is not below the levels {levels.tolist()[:8]}")
        size = (len(x), x.shape[1])
        return Steps(value * known, known, _scored(x), self.known_context(context, *size))

    # -- what is known beforehand ---------------------------------------------------------------

    def batch_context(self, batch: Batch) -> Tensor | None:
        """What the model is given of a batch: floats [B, T, C], or None."""
        if not self.context_size:
            return None
        length = batch.x.shape[1]
        known = batch.context if self.context_shape else None
        parts = [] if known is None else [torch.from_numpy(known).to(self.device)]
        if self.classes:
            if batch.label is None:
                raise InvalidData(f"{self.spec.name}: the sequences have no labels")
            parts.append(self._one_hot(torch.from_numpy(batch.label).to(self.device), length))
        return torch.cat(parts, 2)

    def known_context(
        self, context: Tensor | int | None, n: int, length: int, start: int = 0
    ) -> Tensor | None:
        """A context as `log_prob` takes it, as floats [n, length, C], or None.

        `start` is the place of the first step on the clock, where the context does not say it.
        """
        if not self.context_size:
            if context is not None:
                raise InvalidSetting(f"{type(self).__name__} is unconditional: it takes no context")
            return None
        dtype = next(self.parameters()).dtype
        if isinstance(context, Tensor) and context.is_floating_point():
            if context.shape != (n, length, self.context_size):
                raise InvalidSetting(
                    f"context: expected [{n}, {length}, {self.context_size}], given "
                    f"{list(context.shape)}"
                )
            return context.to(self.device, dtype)
        if self.spec.covariates:
            raise InvalidSetting(
                f"{self.spec.name} has covariates ({', '.join(self.spec.covariates)}): give their "
                f"values as floats [{n}, {length}, {self.context_size}], as "
                "model.batch_context(batch)"
            )
        place = np.arange(start, start + length)
        clock = torch.from_numpy(clock_features(place, self.spec.clock)).to(self.device, dtype)
        parts = [clock.expand(n, *clock.shape)]
        if self.classes:
            shape, self.context_shape = self.context_shape, ()
            try:
                labels = self.labels(context, n)
            finally:
                self.context_shape = shape
            assert labels is not None
            parts.append(self._one_hot(labels, length).to(dtype))
        elif context is not None:
            raise InvalidSetting(f"{type(self).__name__} is not conditional on classes")
        return torch.cat(parts, 2)

    def _one_hot(self, labels: Tensor, length: int) -> Tensor:
        hot = torch.nn.functional.one_hot(labels, self.classes).float()
        return hot[:, None].expand(-1, length, -1)

    # -- drawing -------------------------------------------------------------------------------

    def draw(self, noise: Noise, n: int, context: Tensor | None) -> Tensor:
        """Sequences of the longest length in the data, int64 [n, T, K]."""
        steps = self.spec.longest
        return self._drawn(self.begin(n), noise, n, self.known_context(context, n, steps), steps)

    @torch.no_grad()
    @full_precision
    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        context: Tensor | int | None = None,
        chunk: int = CHUNK,
        steps: int | None = None,
        start: int = 0,
    ) -> Tensor:
        """Draw n sequences: a function of (weights, n, seed, context).

        Args:
            n: number of sequences.
            seed: of the noise.
            context: as `log_prob` takes it.
            chunk: sequences drawn together.
            steps: of each; as many as the longest in the data by default.
            start: place of the first step on the clock.

        Returns:
            Integers in [0, levels), int64 [n, steps, K].

        Raises:
            InvalidSetting: n or steps below 1, or a context that does not fit.
            Diverged: weights are NaN.
        """
        length = self.spec.longest if steps is None else steps
        for name, value in (("n", n), ("steps", length), ("chunk", chunk)):
            if not isinstance(value, int | np.integer) or value < 1:
                raise InvalidSetting(f"sample: {name} must be at least 1, given {value!r}")
        self.refuse_nan_weights()
        known = self.known_context(context, n, length, start)
        parts = []
        with evaluating(self):
            for first in range(0, n, chunk):
                count = min(chunk, n - first)
                # A stream a chunk, all of the same length: the first do not depend on n.
                noise = Noise(seed, "sample", first, device=self.device, rows=(0, chunk))
                part = None if known is None else known[first : first + count]
                parts.append(self._drawn(self.begin(count), noise, count, part, length))
        return torch.cat(parts)

    def _drawn(
        self, state: State, noise: Noise, n: int, context: Tensor | None, steps: int
    ) -> Tensor:
        columns = len(self.spec.columns)
        x = torch.empty(n, steps, columns, dtype=torch.int64, device=self.device)
        for t in range(steps):
            part = None if context is None else context[:, t]
            x[:, t], state = self.draw_step(state, part, noise.uniform(n, self.uniforms))
        return x


class Continues(SequenceModel):
    """A model of sequences that has a state after what is known, and so can continue it."""

    @abc.abstractmethod
    def state_after(
        self, steps: Steps, state: State | None = None, noise: Noise | None = None
    ) -> State:
        """The state after all steps; before them it is `state`, or the first one.

        Args:
            steps: read in pieces; they are given, and none is scored.
            state: before them.
            noise: of what is random in it; None where nothing is.
        """

    @abc.abstractmethod
    def spread(self, state: State, draws: int, noise: Noise) -> State:
        """A state to draw from for each of `draws` continuations of each sequence."""

    @torch.no_grad()
    @full_precision
    def forecast(
        self,
        x: Tensor,
        horizon: int,
        *,
        draws: int = 1,
        seed: int = 0,
        context: Tensor | int | None = None,
        start: int = 0,
    ) -> Tensor:
        """Draw what follows from p(x_T+1..T+horizon | x), from the state after x.

        Args:
            x: integers [B, T, K] that are known, without padding: the sequences end together.
            horizon: steps to draw.
            draws: of each sequence.
            seed: of the noise.
            context: as `log_prob` takes it, for all T + horizon steps.
            start: place of the first step of x on the clock, where the context does not say it.

        Returns:
            int64 [B, draws, horizon, K].
        """
        if horizon < 1 or draws < 1:
            raise InvalidSetting(f"forecast: {horizon} steps, {draws} draws; expected 1 or more")
        x = as_tensor(x, "sequences [B, T, K]")
        batch, length = x.shape[:2]
        whole = self.known_context(context, batch, length + horizon, start)
        steps = self.steps(x, None if whole is None else whole[:, :length])
        if not bool(steps.known.any(2).all()) and bool((x == PADDING).any()):
            raise InvalidData("forecast: the sequences must end together, without padding")
        later = None if whole is None else whole[:, length:].repeat_interleave(draws, 0)
        with evaluating(self):
            known = Noise(seed, "known", device=self.device)
            state = self.spread(self.state_after(steps, None, known), draws, known)
            noise = Noise(seed, "forecast", device=self.device)
            drawn = self._drawn(state, noise, batch * draws, later, horizon)
        return drawn.reshape(batch, draws, horizon, -1)


def scored_steps(x: Tensor | npt.NDArray[Any]) -> Any:
    """How many steps of each sequence are scored, [B]; x integers [B, T, K]."""
    return _scored(x).sum(1)


def _scored(x: Any) -> Any:
    """Which steps are neither padded nor given, bool [B, T]."""
    return ((x >= 0) | (x == MISSING)).all(2)
