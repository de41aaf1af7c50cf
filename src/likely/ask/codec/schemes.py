r"""How examples of each kind of density are written to a stack of bits, and read.

- A chain rule: each value with its conditional; -log2 p(x) bits.
- Two parts (`Split`): the rest with p(rest | base), the base with p(base); -log2 p(x) bits.
- A map to codes (`DiscreteLatent`): the code with its prior, x given the code; the bits of the
  bound.
- Latent variables z, and mixtures, whose member is one: bits back (Townsend, Bird and Barber 2019,
  https://arxiv.org/abs/1901.04866; Frey and Hinton 1996). The writer takes z out of the stack, as
  if it had been written with q(z | x), then writes x with p(x | z) and z with p(z). The reader gets
  z and x and writes z with q(z | x): what was in the stack is back. Net that costs
  log q(z|x) - log p(x|z) - log p(z), on average the negative ELBO; of a mixture, whose q is exact,
  -log p(x). The first codes are taken out of bits that are put there and stay in the file.

A network runs on batches: the codes of a whole batch are read before any of its examples is
written. So batches begin with one example and grow with what is in the stack.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from likely.ask.codec.codes import (
    FAR,
    NEAR,
    pop_codes,
    push_codes,
    through_posterior,
    through_prior,
)
from likely.ask.codec.frequencies import Stack, frequencies, rows
from likely.ask.codec.turns import Turns, follow, independent, turns_of
from likely.density import (
    AutoregressiveLikelihood,
    DiscreteLatent,
    Fittable,
    LatentVariable,
    Mixture,
    Split,
    TractableDensity,
)
from likely.errors import InvalidData

MOST = 1024  # examples of a block
MOST_CODES = 64  # examples whose codes are read together
IN_MEMORY = 2**26  # probabilities of a block


def block_size(model: Fittable) -> int:
    """Examples that are written together: many, since a block costs 47 bits, if memory allows."""
    room = IN_MEMORY // (model.spec.dimensions * model.spec.levels)
    return max(1, min(MOST, room))


@dataclasses.dataclass(frozen=True)
class Block:
    """Some examples as bits.

    Attributes:
        words: uint32.
        initial: how many of them were put there for the first codes to be read from, beside one.
        batches: how many examples were written side by side, one after another.
        nats: what the model says that each example costs, [B]: -log p(x), or minus the bound at
            the codes that were read.
    """

    words: npt.NDArray[np.uint32]
    initial: int
    batches: tuple[int, ...]
    nats: Tensor


def write(model: Fittable, x: Tensor, context: Tensor | None) -> Block:
    """Write examples, int64 [B, C, H, W]."""
    has_choice = isinstance(model, LatentVariable | Mixture)
    initial = 4 if has_choice else 0
    while True:
        stack = Stack(first_words(1 + initial))
        try:
            batches, nats = _write_to(stack, model, x, context, 1 if has_choice else len(x))
            return Block(stack.words, initial, batches, nats)
        except _Empty:
            initial = 3 * initial // 2


def _write_to(
    stack: Stack, model: Fittable, x: Tensor, context: Tensor | None, size: int
) -> tuple[tuple[int, ...], Tensor]:
    most = MOST_CODES if isinstance(model, LatentVariable) else MOST
    sizes: list[int] = []
    nats = []
    while (done := sum(sizes)) < len(x):
        part, before = slice(done, min(len(x), done + size)), stack.bits
        nats.append(_push(stack, model, x[part], _at(context, part)))
        sizes.append(part.stop - part.start)
        # As many as there are bits for, if they read as much as these did.
        each = max(1.0, (before - stack.least) / sizes[-1])
        size = max(1, min(most, int(0.75 * stack.bits / each)))
    return tuple(sizes), torch.cat(nats)


def read(
    model: Fittable,
    words: npt.NDArray[np.uint32],
    initial: int,
    batches: Sequence[int],
    context: Tensor | None,
) -> Tensor:
    """The examples that `write` wrote, int64 [B, C, H, W].

    Raises:
        InvalidData: the bits that are left are not those that were put there.
    """
    stack, parts, end = Stack(words), [], sum(batches)
    for size in reversed(batches):
        parts.append(_pop(stack, model, size, _at(context, slice(end - size, end))))
        end -= size
    if not np.array_equal(stack.words, first_words(1 + initial)):
        raise InvalidData("it was not written with these probabilities")
    return torch.cat(parts[::-1])


def first_words(count: int) -> npt.NDArray[np.uint32]:
    """The bits that a stack begins with, the same at any time.

    One word at least: to an empty stack a lowest level could be pushed without a trace, and popped
    for ever. From the others the first codes are read.
    """
    words = np.random.Philox(20190115).random_raw(count) & 0xFFFFFFFF
    return words.astype(np.uint32) | np.uint32(1 << 31)


def _at(context: Tensor | None, part: slice | Tensor) -> Tensor | None:
    return None if context is None else context[part]


class _Empty(Exception):
    """More bits were read than there are."""


def _refuse_empty(stack: Stack) -> None:
    # Below two words the coder reads zeros that were never written.
    if stack.least < 64:
        raise _Empty


# -- any kind ------------------------------------------------------------------------------------


def _push(stack: Stack, model: Fittable, x: Tensor, context: Tensor | None) -> Tensor:
    """Write examples; what the model says of each, nats [B]."""
    if isinstance(model, Mixture):
        return _push_member(stack, model, x, context)
    if isinstance(model, LatentVariable):
        return _push_bits_back(stack, model, x, context)
    if isinstance(model, DiscreteLatent):
        codes = model.encode(x, context)
        nats = _push_turns(stack, independent(model.head, model.decoder_output(codes, context)), x)
        return nats + _push(stack, model.prior, codes, None)
    if isinstance(model, Split):
        base, rest = model.lifting.split(x)
        nats = _push_turns(
            stack, turns_of(model.rest, len(x), model.condition(base, context)), rest
        )
        return nats + _push(stack, model.base, base, context)
    assert isinstance(model, TractableDensity)
    return _push_turns(stack, turns_of(model, len(x), context), x)


def _pop(stack: Stack, model: Fittable, n: int, context: Tensor | None) -> Tensor:
    """Read examples, int64 [n, C, H, W]."""
    if isinstance(model, Mixture):
        return _pop_member(stack, model, n, context)
    if isinstance(model, LatentVariable):
        return _pop_bits_back(stack, model, n, context)
    shape = (n, *model.spec.grid)
    if isinstance(model, DiscreteLatent):
        codes = _pop(stack, model.prior, n, None)
        turns = independent(model.head, model.decoder_output(codes, context))
        return _pop_turns(stack, turns, shape, model.device)
    if isinstance(model, Split):
        base = _pop(stack, model.base, n, context)
        turns = turns_of(model.rest, n, model.condition(base, context))
        of_rest = (n, *model.rest.spec.grid)
        return model.lifting.merge(base, _pop_turns(stack, turns, of_rest, model.device))
    assert isinstance(model, TractableDensity)
    return _pop_turns(stack, turns_of(model, n, context), shape, model.device)


def _push_turns(stack: Stack, turns: Turns, x: Tensor) -> Tensor:
    """Write values with their conditionals; -log p in nats, [B]."""
    flat = x.flatten(1)
    nats = torch.zeros(len(x), dtype=torch.float64)
    later: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]] = []

    def choose(places: Tensor, table: Tensor) -> Tensor:
        values = flat[:, places.to(x.device)]
        nats.sub_(table.gather(-1, values[..., None])[..., 0].sum(1).cpu())
        later.append((values.flatten().cpu().numpy(), _rows(table)))
        return values

    follow(turns, choose)
    for values, table in reversed(later):
        stack.push(values, table)
    return nats


def _pop_turns(stack: Stack, turns: Turns, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Read values with their conditionals, int64 of that shape."""
    x = torch.zeros(shape[0], math.prod(shape[1:]), dtype=torch.int64, device=device)

    def choose(places: Tensor, table: Tensor) -> Tensor:
        values = torch.from_numpy(stack.pop(_rows(table))).view(table.shape[:-1]).to(device)
        x[:, places.to(device)] = values
        return values

    follow(turns, choose)
    return x.view(shape)


def _rows(table: Tensor) -> npt.NDArray[np.float32]:
    """Log-probabilities [B, n, L] as the coder takes them, [B n, L]."""
    whole = frequencies(table.cpu().numpy())
    return rows(whole.reshape(-1, whole.shape[-1]))


# -- bits back -----------------------------------------------------------------------------------


def _push_bits_back(
    stack: Stack, model: LatentVariable, x: Tensor, context: Tensor | None
) -> Tensor:
    codes, log_q = pop_codes(stack, NEAR, through_posterior(model.posterior(x, context)))
    _refuse_empty(stack)
    nats = _push_turns(stack, _turns_given(model, torch.cat(codes, 1), context), x)
    return nats + log_q - push_codes(stack, codes, FAR, through_prior(model, len(x)))


def _pop_bits_back(stack: Stack, model: LatentVariable, n: int, context: Tensor | None) -> Tensor:
    codes, _ = pop_codes(stack, FAR, through_prior(model, n))
    turns = _turns_given(model, torch.cat(codes, 1), context)
    x = _pop_turns(stack, turns, (n, *model.spec.grid), model.device)
    push_codes(stack, codes, NEAR, through_posterior(model.posterior(x, context)))
    return x


def _turns_given(model: LatentVariable, z: Tensor, context: Tensor | None) -> Turns:
    """p(x | z), one dimension after another or many at once."""
    output = model.decoder_output(z, context)
    likelihood = model.likelihood_given_z
    if isinstance(likelihood, AutoregressiveLikelihood):
        return turns_of(likelihood.network, len(z), output)
    return independent(model.head, output)


def _push_member(stack: Stack, model: Mixture, x: Tensor, context: Tensor | None) -> Tensor:
    table, log_p = _members(model, x, context)
    numbers = stack.pop(table)
    _refuse_empty(stack)
    for number, member in enumerate(model.members()):
        of_member = torch.from_numpy((numbers == number).nonzero()[0])
        if len(of_member):
            _push(stack, member, x[of_member], _at(context, of_member))
    stack.push(numbers, _evenly(table))
    return -log_p


def _pop_member(stack: Stack, model: Mixture, n: int, context: Tensor | None) -> Tensor:
    members = model.members()
    numbers = stack.pop(_evenly(np.zeros((n, len(members)))))
    x = torch.zeros(n, *model.spec.grid, dtype=torch.int64, device=model.device)
    for number, member in reversed(list(enumerate(members))):
        of_member = torch.from_numpy((numbers == number).nonzero()[0])
        if len(of_member):
            x[of_member] = _pop(stack, member, len(of_member), _at(context, of_member))
    stack.push(numbers, _members(model, x, context)[0])
    return x


def _members(
    model: Mixture, x: Tensor, context: Tensor | None
) -> tuple[npt.NDArray[np.float32], Tensor]:
    """(p(member | x) as the coder takes it, [B, K]; log p(x), nats [B])."""
    each = torch.stack([m.log_prob(x, context) for m in model.members()], 1).double().cpu()
    return _rows(each), each.logsumexp(1) - math.log(each.shape[1])


def _evenly(table: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Any member with the same probability, [B, K] as the table."""
    return rows(frequencies(np.zeros(table.shape)))
