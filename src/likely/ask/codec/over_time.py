"""Sequences as bits: every value with its conditional, column by column and step by step.

Writer and reader run the model's own `next_step` side by side for some sequences at a time, from
the same first state: what the writer is asked for, the reader reads. A column of many levels is
written in two digits. Values that are missing are not written: which they are is known before.

A stack is read in the reverse order of writing, so a piece of time is a block of its own, and the
state carries over from block to block: a long series costs memory for one piece, and 33 bits each.
Its stack begins empty: how many values a piece holds is known, and the values have a checksum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from likely.ask.codec.frequencies import Stack, frequencies, rows
from likely.density import SequenceDensity, State
from likely.density.sequence.bins import ColumnDensity
from likely.errors import InvalidData

TOGETHER = 64  # sequences side by side
IN_MEMORY = 2**25  # probabilities of a block
ONE_DIGIT = 512  # levels
LEAST = -600.0  # nats that a digit is taken to have at least: more than any coder needs

Words = npt.NDArray[np.uint32]
EMPTY: Words = np.empty(0, np.uint32)


def digits_of(levels: int) -> tuple[int, int]:
    """(blocks of levels, levels in each) of a column; one level in each where there are few."""
    width = 1 if levels <= ONE_DIGIT else 1 << ((levels - 1).bit_length() + 1) // 2
    return -(-levels // width), width


def piece_of(model: SequenceDensity, batch: int) -> int:
    """Steps of a block."""
    size = sum(sum(digits_of(column.levels)) for column in model.spec.columns)
    return max(1, IN_MEMORY // (batch * size))


def write(
    model: SequenceDensity, x: Tensor, known: Tensor, context: Tensor | None
) -> Iterator[tuple[Words, npt.NDArray[np.int32]]]:
    """Blocks of sequences, one after another in time.

    Args:
        model: whose probabilities they are written with.
        x: integers where they are known, int64 [B, T, K].
        known: bool [B, T, K].
        context: floats [B, T, C], or None.

    Yields:
        (words, the values in their order).
    """
    state, length = model.begin(len(x)), x.shape[1]
    size = piece_of(model, len(x))
    for begin in range(0, length, size):
        later: list[_Later] = []
        values = []
        for t in range(begin, min(length, begin + size)):

            def choose(k: int, column: ColumnDensity, t: int = t) -> Tensor:
                levels, seen = x[:, t, k], known[:, t, k]
                if bool(seen.any()):
                    blocks, width = digits_of(column.levels)
                    first = levels // width
                    table = _table(column, blocks, width, None, seen)
                    later.append((first[seen].cpu().numpy(), table))  # noqa: B023
                    if width > 1:
                        table = _table(column, width, 1, first * width, seen)
                        rest = (levels - first * width)[seen].cpu().numpy()
                        later.append((rest, table))  # noqa: B023
                values.append(levels[seen])  # noqa: B023
                return levels

            state = _moved(model, state, context, t, choose, known[:, t])
        stack = Stack(EMPTY)
        for digits, table in reversed(later):
            stack.push(digits, table)
        yield stack.words, torch.cat(values).cpu().numpy().astype(np.int32)


_Later = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]


def read(
    model: SequenceDensity, known: Tensor, context: Tensor | None
) -> tuple[Tensor, Iterator[Callable[[Words], npt.NDArray[np.int32]]]]:
    """Pieces of time in the order in which `write` made them.

    Args:
        model: the same.
        known: bool [B, T, K].
        context: floats [B, T, C], or None.

    Returns:
        int64 [B, T, K], and functions one after another: each reads the words of the next piece
        into it and returns its values in their order, or raises InvalidData where they were not
        written with these probabilities.
    """
    batch, length, columns = known.shape
    x = torch.zeros(batch, length, columns, dtype=torch.int64, device=known.device)
    return x, _pieces(model, x, known, context)


def _pieces(
    model: SequenceDensity, x: Tensor, known: Tensor, context: Tensor | None
) -> Iterator[Callable[[Words], npt.NDArray[np.int32]]]:
    batch, length = known.shape[:2]
    state, size = model.begin(batch), piece_of(model, batch)
    for begin in range(0, length, size):
        steps = range(begin, min(length, begin + size))

        def piece(words: Words, steps: range = steps) -> npt.NDArray[np.int32]:
            nonlocal state
            stack, values = Stack(words), []
            for t in steps:

                def choose(k: int, column: ColumnDensity, t: int = t) -> Tensor:
                    seen = known[:, t, k]
                    if bool(seen.any()):
                        blocks, width = digits_of(column.levels)
                        first = torch.zeros_like(x[:, t, k])
                        table = _table(column, blocks, width, None, seen)
                        first[seen] = torch.from_numpy(stack.pop(table)).to(x.device)
                        x[:, t, k] = first * width
                        if width > 1:
                            table = _table(column, width, 1, first * width, seen)
                            rest = torch.from_numpy(stack.pop(table)).to(x.device)
                            x[:, t, k][seen] += rest
                    values.append(x[:, t, k][seen])
                    return x[:, t, k]

                state = _moved(model, state, context, t, choose, known[:, t])
            if len(stack.words):
                raise InvalidData("it was not written with these probabilities")
            return torch.cat(values).cpu().numpy().astype(np.int32)

        yield piece


def _moved(
    model: SequenceDensity,
    state: State,
    context: Tensor | None,
    t: int,
    choose: Callable[[int, ColumnDensity], Tensor],
    known: Tensor,
) -> State:
    told = None if context is None else context[:, t]
    return model.next_step(state, told, choose, known)[1]


def _table(
    column: ColumnDensity, count: int, width: int, first: Tensor | None, rows_of: Tensor
) -> npt.NDArray[np.float32]:
    """Frequencies of `count` blocks of levels from `first`, of the rows that are known."""
    edges = torch.arange(count + 1, device=rows_of.device) * width
    edges = edges.expand(len(rows_of), -1) if first is None else first[:, None] + edges
    masses = column.log_masses(edges.clamp(max=column.levels))[rows_of].detach()
    top = masses.amax(1, keepdim=True).clamp(min=LEAST)
    return rows(frequencies((masses - top).clamp(min=LEAST).cpu().numpy()))
