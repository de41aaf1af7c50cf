"""Distributions as integers, and the stack of bits that values are written to.

A coder is right only if reader and writer hold the very same distribution, so both hold integers:
`frequencies` turns log-probabilities into whole numbers f_k >= 1 that add up to 2^24, by the same
code on either side. What that costs beside the real-valued distribution is about L 2^-24 / ln 2
bits a value of L levels.

The coder is constriction's asymmetric numeral system (Duda 2013, https://arxiv.org/abs/1311.2540;
Bamler 2022, https://arxiv.org/abs/2201.01741): a stack, read in the reverse order of writing. Over
the integers it costs 47 bits a stack, and nothing measurable a value; constriction's range coder,
with 17 bits a stack, loses 2.3e-4 bits a value by the truncation of its range, which is 0.2 % where
a value holds 0.15 bits, as in a binary image.
"""

from __future__ import annotations

from typing import Any

import constriction
import numpy as np
import numpy.typing as npt

from likely.errors import InvalidData

TOTAL = 1 << 24

Array = npt.NDArray[Any]


def frequencies(log_table: Array) -> npt.NDArray[np.int64]:
    """Whole numbers that stand for a distribution: each at least 1, together 2^24.

    Args:
        log_table: log-probabilities of every level in nats, up to a constant, [..., L].

    Returns:
        [..., L].

    Raises:
        InvalidData: NaN, only zeros, or more than 2^23 levels.
    """
    levels = log_table.shape[-1]
    top = log_table.max(-1, keepdims=True)
    if levels > TOTAL // 2 or not np.isfinite(top).all():
        raise InvalidData("the model's probabilities are no distribution: NaN or infinite")
    p = np.exp(log_table.astype(np.float64) - top)
    p *= (TOTAL - levels) / p.sum(-1, keepdims=True)
    whole = p.astype(np.int64) + 1
    # The rest, at most one for each level, is least felt by the likeliest.
    lines: npt.NDArray[np.int64] = whole.reshape(-1, levels)
    lines[np.arange(len(lines)), lines.argmax(1)] += TOTAL - lines.sum(1)
    return lines.reshape(whole.shape)


def rows(whole: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Frequencies as the coder takes them.

    It reads floats p, and puts floor(sum_{j<k} p_j (2^24 - L) / sum p) + k below level k. Of the
    whole numbers f - 1, below 2^24, float32 holds all sums exactly, so these are the sums of f.
    """
    # In C order: the coder takes its memory for that, whatever the strides say.
    lines: npt.NDArray[np.float32] = np.ascontiguousarray(whole - 1, np.float32)
    return lines


class Stack:
    """Bits that values are pushed to and popped from, the last first.

    Args:
        words: what is in it, uint32, the last not 0; as `words` gave them.

    Attributes:
        least: its length in bits after the last pop.
    """

    def __init__(self, words: Array) -> None:
        held = (words.astype(np.uint32),) if len(words) else ()
        self._coder: Any = constriction.stream.stack.AnsCoder(*held)
        self._categorical = constriction.stream.model.Categorical(perfect=False)
        self._uniform = constriction.stream.model.Uniform()
        self.least = self.bits

    def push(self, values: Array, table: npt.NDArray[np.float32]) -> None:
        """Write values so that they are read in this order.

        Args:
            values: levels, whole numbers [n].
            table: `rows` of their distributions, [n, L].
        """
        self._coder.encode_reverse(values.astype(np.int32), self._categorical, table)

    def pop(self, table: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
        """Read values of distributions, `rows` [n, L]; [n]."""
        return self._popped(self._categorical, table)

    def push_uniform(self, values: Array, sizes: Array) -> None:
        """Write values in [0, size), each size a power of two from 2 to 2^23, [n] each."""
        self._coder.encode_reverse(values.astype(np.int32), self._uniform, sizes.astype(np.int32))

    def pop_uniform(self, sizes: Array) -> npt.NDArray[np.int64]:
        """Read values in [0, size), [n]."""
        return self._popped(self._uniform, sizes.astype(np.int32))

    def _popped(self, family: Any, parameters: Array) -> npt.NDArray[np.int64]:
        values: npt.NDArray[np.int64] = self._coder.decode(family, parameters).astype(np.int64)
        self.least = self.bits
        return values

    @property
    def words(self) -> npt.NDArray[np.uint32]:
        """What is in it, uint32."""
        words: npt.NDArray[np.uint32] = self._coder.get_compressed()
        return words

    @property
    def bits(self) -> int:
        """Length of what is in it."""
        return int(self._coder.num_bits())
