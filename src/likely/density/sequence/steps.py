"""A piece of sequences, and the state that is carried over it."""

from __future__ import annotations

import abc
from typing import ClassVar, NamedTuple

from torch import Tensor

from likely.noise import Noise

# What a leaf carries from step to step: tensors whose first side counts the sequences.
State = tuple[Tensor, ...]


class Steps(NamedTuple):
    """A piece of sequences.

    Attributes:
        x: values, 0 where none is known, int64 [B, T, K].
        known: which values are known, bool [B, T, K].
        scored: which steps count, bool [B, T].
        context: floats [B, T, C], or None.
    """

    x: Tensor
    known: Tensor
    scored: Tensor
    context: Tensor | None

    def part(self, rows: Tensor | slice, first: int, stop: int) -> Steps:
        """Some sequences, steps [first, stop)."""
        context = None if self.context is None else self.context[rows, first:stop]
        x, known, scored = (s[rows, first:stop] for s in (self.x, self.known, self.scored))
        return Steps(x, known, scored, context)


class FillsGaps(abc.ABC):
    """A density of sequences that draws what is missing exactly, wherever it is missing.

    Attributes:
        fills_by: how, in words.
    """

    fills_by: ClassVar[str]

    @abc.abstractmethod
    def fill(self, steps: Steps, n: int, noise: Noise) -> Tensor:
        """n draws of all values given those that are known, int64 [B, n, T, K].

        What is known is drawn as well, and not read.
        """
