"""What the kernels take as one argument: the rows of a problem, and those of a policy.

A kernel unpacks it in its first line, so it takes a plain tuple as well. Engines hand on plain
tuples: numba looks the class of a NamedTuple up at every call, which costs half a microsecond, as
much as a sweep over sixteen states.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from likely.mdp.model.arrays import Array, FloatArray


class Rows(NamedTuple):
    """Stored rows; see `MDP`.

    Attributes:
        pair_ptr: [S + 1].
        indptr: [pairs + 1].
        indices: [transitions].
        probability: [transitions].
        reward: [pairs].
        discount: in (0, 1].
    """

    pair_ptr: Array
    indptr: Array
    indices: Array
    probability: Array
    reward: FloatArray
    discount: float


# v = constants + weights v[columns], one row per state, discount included: row_ptr [S + 1],
# columns and weights [entries], constants [S].
System = tuple[Array, Array, Array, FloatArray]


class Generator(NamedTuple):
    """Generated rows; see `MatrixFree`.

    Attributes:
        parameters: handed to the function that generates a row, which kernels take beside this:
            in a tuple numba would call it by a pointer, not inline it.
        slots: a tuple of which only the length matters, because the compiler knows it: there is
            room for 2^len(slots) successors.
        labels: one of len(labels) actions, whose loop is unrolled; empty where it is not to be.
        actions: number of action labels.
        terminal: [S] bool.
        discount: in (0, 1].
    """

    parameters: tuple[Any, ...]
    slots: tuple[bool, ...]
    labels: tuple[bool, ...]
    actions: int
    terminal: Array
    discount: float
