"""Examples as bits: the model's log-likelihood as the length of a file that gives them back.

A model with p(x) codes x in -log2 p(x) bits (Shannon 1948), up to what `likely.ask.codec` says. So
the file is a proof of the likelihood: no other model can write it shorter on average if p is the
distribution of the data, and a likelihood that were wrong could not be read back.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from likely.ask.codec.codes import has_gaussian_codes
from likely.ask.codec.container import (
    Entry,
    Header,
    machine_of,
    packed,
    read_container,
    write_container,
)
from likely.ask.codec.schemes import block_size, read, write
from likely.ask.codec.turns import repeatable
from likely.ask.conditional import HasConditional
from likely.ask.query import Answer, Guarantee, exact, no_conditionals, none, query, refusal
from likely.density import (
    Autoregressive,
    Dequantized,
    DiscreteLatent,
    Fittable,
    LatentVariable,
    Mixture,
    Split,
    TractableDensity,
    chunks,
    weights_digest,
)
from likely.errors import InvalidData


@dataclasses.dataclass(frozen=True, repr=False)
class Compressed:
    """A compressed file and what its bits are.

    Attributes:
        content: the file.
        examples: how many it holds.
        dimensions: of an example.
        claimed: bits by the model: the sum of -log2 p(x), or of minus the bound at the codes used.
        stream: bits of all blocks.
        initial: bits of them that were given for the first codes to be read from; 0 without codes.
        blocks: how many.
    """

    content: bytes
    examples: int
    dimensions: int
    claimed: float
    stream: int
    initial: int
    blocks: int

    @property
    def bits(self) -> int:
        """Of the whole file, its header included."""
        return 8 * len(self.content)

    @property
    def bits_per_dim(self) -> float:
        """Of the whole file."""
        return self.bits / (self.examples * self.dimensions)

    @property
    def over_claimed(self) -> float:
        """How much longer the blocks are, without initial bits, than claimed; 0.001 is 0.1 %."""
        return (self.stream - self.initial) / self.claimed - 1.0

    @property
    def overhead(self) -> float:
        """Bits an example beside what is claimed: ends of blocks, initial bits, header."""
        return (self.bits - self.claimed) / self.examples

    def __repr__(self) -> str:
        return (
            f"Compressed({self.examples} examples in {len(self.content):,} bytes, "
            f"{self.bits_per_dim:.4f} bits/dim; blocks {100 * self.over_claimed:+.3f} % of the "
            f"model's {self.claimed:.0f} bits)"
        )


def answer(model: Fittable) -> Answer:
    """Exact for conditionals, a bound where codes are written, too."""
    if isinstance(model, Mixture):
        return exact("each member codes its examples; the bits of the choice come back")
    if isinstance(model, DiscreteLatent):
        return Answer(Guarantee.BOUND, "the code, then x given the code: the bits of the bound")
    if isinstance(model, LatentVariable):
        if has_gaussian_codes(model):
            return Answer(Guarantee.BOUND, "bits back: the net bits are minus the ELBO")
        return none("its prior or posterior is no Gaussian by coordinate: no code is read from it")
    if isinstance(model, Dequantized):
        return none("its density is of real numbers: of an integer it has a bound, no probability")
    if isinstance(model, Autoregressive):
        return exact("the chain rule: -log2 p(x) bits")
    if isinstance(model, Split):
        return exact("both parts by the chain rule: -log2 p(x) bits")
    if isinstance(model, TractableDensity) and isinstance(model, HasConditional):
        return exact("its conditionals: -log2 p(x) bits")
    return no_conditionals(model, "p(x_i | x_<i)")


@query("compression", answer)
def compress(
    model: Fittable,
    x: Tensor,
    context: Tensor | int | None = None,
    block: int | None = None,
    about: dict[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Compressed:
    """Write examples in as many bits as the model says; `decompress` gives them back bit for bit.

    Args:
        model: whose probabilities they are written with.
        x: integers [B, *shape].
        context: labels, as for `sample`; they are kept in the file.
        block: examples that are coded together, each block with its checksum; as many as memory
            allows, at most 1024, where None.
        about: what else to keep, as JSON.
        progress: called with the number of examples done.

    Raises:
        Unanswerable: a model without a probability of x that can be coded.
        InvalidData: no examples, or not those of the model.
    """
    worth = answer(model)
    if worth.guarantee is Guarantee.NONE:
        raise refusal(model, worth)
    x = model.integers(x)
    if not len(x):
        raise InvalidData("there are no examples to compress")
    labels = model.labels(context, len(x))
    levels = model.spec.levels
    entries, words, nats = [], [], 0.0
    with _evaluating(model), repeatable(model.device):
        for part in chunks(len(x), block or block_size(model)):
            written = write(model, x[part], None if labels is None else labels[part])
            crc = zlib.crc32(written.words.astype("<u4").tobytes())
            of_examples = zlib.crc32(packed(x[part], levels).tobytes())
            size = len(written.words)
            entries.append(Entry(written.batches, size, written.initial, crc, of_examples))
            words.append(written.words)
            nats += float(written.nats.sum())
            if progress is not None:
                progress(part.stop)
    header = Header(
        type(model).__name__,
        weights_digest(model),
        machine_of(model),
        tuple(model.spec.shape),
        levels,
        None if labels is None else labels.tolist(),
        about or {},
        tuple(entries),
    )
    return Compressed(
        write_container(header, words),
        len(x),
        model.spec.dimensions,
        nats / math.log(2.0),
        32 * sum(entry.words for entry in entries),
        32 * sum(entry.initial for entry in entries),
        len(entries),
    )


@dataclasses.dataclass(frozen=True)
class Decompressed:
    """The examples of a compressed file.

    Attributes:
        x: uint8 or uint16 [N, *shape]; zeros where a block is damaged.
        header: of the file.
        damaged: of each damaged block: what is wrong, and the examples [first, last) it held.
    """

    x: Tensor
    header: Header
    damaged: tuple[tuple[str, int, int], ...]


def decompress(
    model: Fittable,
    content: bytes,
    *,
    anyway: bool = False,
    salvage: bool = False,
    name: str = "the file",
    progress: Callable[[int], None] | None = None,
) -> Decompressed:
    """The examples that `compress` wrote, bit for bit.

    Args:
        model: with the same weights.
        content: the file.
        anyway: also where it was written on another machine or by other versions; examples whose
            checksum differs are damaged then.
        salvage: leave out damaged blocks, in place of an error.
        name: what the file is called in an error.
        progress: called with the number of examples done.

    Raises:
        InvalidSetting: other weights; another machine.
        InvalidData: a damaged file; names the block.
    """
    header, blocks = read_container(content, name)
    try:
        header.refuse_other_weights(model)
        if not anyway:
            header.refuse_other_machine(model)
    except Exception as error:
        raise type(error)(f"{name}: {error}") from None
    labels = None if header.context is None else torch.tensor(header.context)
    context = model.labels(labels, header.examples)
    kind = torch.uint8 if header.levels <= 256 else torch.uint16
    x = torch.zeros(header.examples, *header.shape, dtype=kind)
    damaged, first = [], 0
    with _evaluating(model), repeatable(model.device):
        for number, (entry, words) in enumerate(zip(header.blocks, blocks, strict=True), 1):
            part = slice(first, first + entry.examples)
            first = part.stop
            fault = "its checksum is wrong"
            if words is not None:
                of_block = None if context is None else context[part]
                fault = _read_block(model, entry, words, of_block, x[part])
            if fault:
                where = f"block {number} of {len(blocks)} (examples {part.start + 1} to {first})"
                damaged.append((f"{where} is damaged: {fault}", part.start, part.stop))
                if not salvage:
                    raise InvalidData(
                        f"{name}: {damaged[-1][0]}; salvage=True (--salvage) reads the others"
                    )
            if progress is not None:
                progress(first)
    return Decompressed(x, header, tuple(damaged))


def _read_block(
    model: Fittable, entry: Entry, words: Any, context: Tensor | None, out: Tensor
) -> str:
    """Decode a block into `out`; what is wrong with it, or ""."""
    try:
        x = read(model, words, entry.initial, entry.batches, context)
    except (InvalidData, ValueError) as error:
        return f"it cannot be decoded ({' '.join(str(error).split())[:120]})"
    values = packed(x, model.spec.levels)
    if zlib.crc32(values.tobytes()) != entry.examples_crc:
        return "its examples come out otherwise than they went in"
    out.copy_(torch.from_numpy(values).view(out.shape))
    return ""


class _evaluating:
    """A block in which a model is in evaluation mode."""

    def __init__(self, model: Fittable) -> None:
        self.model, self.before = model, model.training

    def __enter__(self) -> None:
        self.model.eval()

    def __exit__(self, *_: object) -> None:
        self.model.train(self.before)
