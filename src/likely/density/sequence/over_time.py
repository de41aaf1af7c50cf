r"""Densities of sequences: the chain rule over time, with a state carried from step to step.

    log p(x_1..T | c) = sum_t log p(x_t | x_<t, c_<=t)

A leaf says how a state begins, how a piece of sequences is scored and moves it on (`scan`), and how
one step comes column by column (`next_step`). Everything else is written once: scoring in constant
memory, since long sequences are read in pieces with the state kept between them; drawing;
continuing a prefix; filling a gap. The length of a sequence is given, not modelled. c is what is
known of each step: covariates, the place on the clock, and the class of the sequence where the
model is conditional.
"""

from __future__ import annotations

import abc

import torch
from torch import Tensor

from likely.data.sequences.spec import MISSING, PADDING
from likely.density.completion import PARTICLES, Completions
from likely.density.fittable import evaluating
from likely.density.sequence.bins import Choose, quantiles
from likely.density.sequence.gaps import filled
from likely.density.sequence.model import Continues
from likely.density.sequence.steps import State, Steps
from likely.density.taxonomy import TractableDensity
from likely.devices.precision import full_precision
from likely.errors import InvalidData
from likely.noise import Noise

# Steps of all sequences together that are scored in one piece.
PIECE = 8192


class SequenceDensity(Continues, TractableDensity):
    """log p of sequences, exactly, by a state that is carried over time."""

    @abc.abstractmethod
    def scan(self, steps: Steps, state: State) -> tuple[Tensor, State]:
        """Score a piece and carry the state through it.

        Returns:
            log p of each step given all before, nats, float64 [B, T], 0 where it is not scored;
            and the state after the last step.
        """

    @abc.abstractmethod
    def next_step(
        self, state: State, context: Tensor | None, choose: Choose, known: Tensor
    ) -> tuple[Tensor, State]:
        """The next step, each column in turn as `choose` says, given its density.

        Args:
            state: after the steps before.
            context: of the step, [B, C], or None.
            choose: called with (column, its density); its answer is read where it is known.
            known: bool [B, K]; what is not known is summed over or left out, as in `scan`.

        Returns:
            int64 [B, K], 0 where it is not known, and the state after it.
        """

    def draw_step(
        self, state: State, context: Tensor | None, uniform: Tensor
    ) -> tuple[Tensor, State]:
        """Draw the next step from uniform numbers in [0, 1).

        Args:
            state: after the steps before.
            context: of the step, [B, C], or None.
            uniform: float64 [B, K], a number for each column.

        Returns:
            int64 [B, K], and the state after it.
        """
        every = torch.ones_like(uniform, dtype=torch.bool)
        return self.next_step(state, context, quantiles(uniform), every)

    # -- scoring -----------------------------------------------------------------------------

    def per_step(
        self, x: Tensor, context: Tensor | int | None = None, piece: int = PIECE
    ) -> Tensor:
        """log p(x_t | x_<t) of every step, nats, float64 [B, T]; 0 where a step is not scored.

        Args:
            x: integers [B, T, K], padded.
            context: as `log_prob`.
            piece: steps of all sequences together that are read at a time; it bounds the memory.
        """
        steps = self.steps(x, context)
        batch, length = steps.scored.shape
        out = [torch.zeros(batch, 0, dtype=torch.float64, device=self.device)]
        last = torch.where(steps.scored, torch.arange(1, length + 1, device=self.device), 0)
        ends = last.amax(1) if length else last.new_zeros(batch)
        state, first = self.begin(batch), 0
        rows = torch.arange(batch, device=self.device)
        while first < int(ends.max()) if batch else False:
            going = ends[rows] > first
            if not bool(going.all()):  # those that have ended cost nothing
                rows, state = rows[going], tuple(part[going] for part in state)
            stop = min(length, first + max(1, piece // len(rows)))
            scores, state = self.scan(steps.part(rows, first, stop), state)
            whole = torch.zeros(batch, stop - first, dtype=torch.float64, device=self.device)
            out.append(whole.index_copy(0, rows, scores))
            first = stop
        out.append(torch.zeros(batch, length - first, dtype=torch.float64, device=self.device))
        return torch.cat(out, 1)

    @full_precision
    def log_prob(self, x: Tensor, context: Tensor | int | None = None) -> Tensor:
        """log p of the scored steps of each sequence, nats, float64 [B].

        Args:
            x: integers [B, T, K], padded; as `Sequences.batch` gives them.
            context: what is known beforehand: None where that is nothing or the clock alone, which
                then begins at its first place; a class, or int64 [B]; or floats [B, T, C], as
                `batch_context` gives them for a batch.
        """
        return self.per_step(x, context).sum(1)

    # -- what is known, and what follows -------------------------------------------------------

    def state_after(
        self, steps: Steps, state: State | None = None, noise: Noise | None = None
    ) -> State:
        """As `Continues.state_after`; nothing is random."""
        batch, length = steps.scored.shape
        state = self.begin(batch) if state is None else state
        size = max(1, PIECE // max(1, batch))
        for first in range(0, length, size):
            part = steps.part(slice(None), first, first + size)
            _, state = self.scan(part._replace(scored=torch.zeros_like(part.scored)), state)
        return state

    def spread(self, state: State, draws: int, noise: Noise) -> State:
        """As `Continues.spread`: the same state for each."""
        return tuple(part.repeat_interleave(draws, 0) for part in state)

    def complete(
        self,
        x: Tensor,
        observed: Tensor,
        *,
        seed: int = 0,
        context: Tensor | int | None = None,
        method: str = "auto",
        particles: int = PARTICLES,
    ) -> Tensor:
        """Draw what is not observed; see `completions`. int64 [B, T, K]."""
        drawn = self.completions(
            x, observed, seed=seed, context=context, method=method, particles=particles
        )
        return drawn.images[:, 0]

    @torch.no_grad()
    @full_precision
    def completions(
        self,
        x: Tensor,
        observed: Tensor,
        n: int = 1,
        *,
        seed: int = 0,
        context: Tensor | int | None = None,
        method: str = "auto",
        particles: int = PARTICLES,
    ) -> Completions:
        """Draws of what is missing, and log p of the rest; see `likely.density.sequence.gaps`.

        Args:
            x: integers [B, T, K], without padding: the sequences end together.
            observed: bool [T], [T, K] or [B, T, K]; what is `MISSING` is not, either way.
            n: draws of each sequence.
            seed: of the noise.
            context: as `log_prob` takes it.
            method: "exact" (or nothing), "smc", or "auto", the best that the model has.
            particles: of each sequence.

        Raises:
            Unanswerable: method "exact" of a model that fills a gap by particles.
        """
        seen = observed.to(x.device)
        seen = (seen[:, None] if seen.ndim == 1 else seen).expand(x.shape) & (x > MISSING)
        steps = self.steps(torch.where(seen, x, MISSING), context)
        if bool((x == PADDING)[seen].any()):
            raise InvalidData("complete: the sequences must end together, without padding")
        with evaluating(self):
            return filled(self, steps, n, seed, method, particles)
