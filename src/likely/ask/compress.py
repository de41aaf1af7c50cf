"""Examples as bits: the model's log-likelihood as the length of a file that gives them back.

A model with p(x) codes x in -log2 p(x) bits (Shannon 1948), up to what `likely.ask.codec` says. So
the file is a proof of the likelihood: no other model can write it shorter on average if p is the
distribution of the data, and a likelihood that were wrong could not be read back.
"""

from __future__ import annotations

import base64
import dataclasses
import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from likely.ask.codec import over_time
from likely.ask.codec.codes import has_gaussian_codes
from likely.ask.codec.container import (
    Entry,
    Header,
    machine_of,
    packed,
    read_container,
    write_container,
)
from likely.ask.codec.over_time import TOGETHER
from likely.ask.codec.schemes import block_size, read, write
from likely.ask.codec.turns import repeatable
from likely.ask.query import Answer, Guarantee, exact, no_conditionals, none, query, refusal
from likely.data.sequences.spec import MISSING, PADDING
from likely.density import (
    Autoregressive,
    Dequantized,
    DiscreteLatent,
    Fittable,
    HasConditional,
    LatentVariable,
    Mixture,
    SequenceDensity,
    Split,
    TractableDensity,
    chunks,
    evaluating,
    weights_digest,
)
from likely.errors import InvalidData, InvalidSetting
from likely.files import reading


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
    if isinstance(model, SequenceDensity):
        return exact("the chain rule over time: -log2 p(x) bits; what is missing costs none")
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
        x: integers [B, *shape]; of sequences [B, T, K], padded, `MISSING` where nothing is known.
        context: labels, as for `sample`; they are kept in the file.
        block: examples that are coded together, each block with its checksum; as many as memory
            allows, at most 1024, where None. Of sequences 64 stand side by side.
        about: what else to keep, as JSON.
        progress: called with the number of examples done.

    Raises:
        Unanswerable: a model without a probability of x that can be coded.
        InvalidData: no examples, or not those of the model.
    """
    worth = answer(model)
    if worth.guarantee is Guarantee.NONE:
        raise refusal(model, worth)
    if isinstance(model, SequenceDensity):
        return _compress_sequences(model, x, context, block or TOGETHER, about or {}, progress)
    x = model.integers(x)
    if not len(x):
        raise InvalidData("there are no examples to compress")
    labels = model.labels(context, len(x))
    levels = model.spec.levels
    entries, words, nats = [], [], 0.0
    with evaluating(model), repeatable(model.device):
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


@torch.no_grad()
def _compress_sequences(
    model: SequenceDensity,
    x: Tensor,
    context: Tensor | int | None,
    together: int,
    about: dict[str, Any],
    progress: Callable[[int], None] | None,
) -> Compressed:
    if isinstance(context, Tensor) and context.is_floating_point():
        raise InvalidSetting("a file keeps labels and the place on the clock, no other context")
    start = int(about.get("start", 0))
    whole = model.known_context(context, len(x), x.shape[1], start)
    steps = model.steps(x, whole)
    if not len(x) or not bool(steps.known.any()):
        raise InvalidData("there are no values to compress")
    lengths = (x != PADDING).any(2).sum(1).tolist()
    # Steps that were given are written, too.
    x = torch.where(steps.known, steps.x, x.clamp(min=MISSING))
    entries, words, done = [], [], 0
    with evaluating(model), repeatable(model.device):
        for first in range(0, len(x), together):
            rows = slice(first, first + together)
            longest = max(lengths[rows])
            known = steps.known[rows, :longest]
            told = None if whole is None else whole[rows, :longest]
            for piece, values in over_time.write(model, steps.x[rows, :longest], known, told):
                crc = zlib.crc32(piece.astype("<u4").tobytes())
                of_values = zlib.crc32(values.astype("<i4").tobytes())
                entries.append(Entry((max(1, len(values)),), len(piece), 0, crc, of_values))
                words.append(piece)
                done += len(values)
                if progress is not None:
                    progress(done)
        nats = -float(model.per_step(x, whole).sum())
    mask = np.packbits(steps.known.cpu().numpy())
    kept = about | {
        "lengths": lengths, "together": together, "start": start,
        "known": base64.b64encode(zlib.compress(mask.tobytes(), 9)).decode(),
    }  # fmt: skip
    labels = None
    if model.classes:
        labels = torch.as_tensor(context).expand(len(x)).tolist()
    header = Header(
        type(model).__name__, weights_digest(model), machine_of(model), tuple(model.spec.shape),
        model.spec.levels, labels, kept, tuple(entries),
    )  # fmt: skip
    return Compressed(
        write_container(header, words), done, 1, nats / math.log(2.0),
        32 * sum(entry.words for entry in entries), 0, len(entries),
    )  # fmt: skip


@torch.no_grad()
def _decompress_sequences(
    model: SequenceDensity,
    header: Header,
    blocks: Sequence[npt.NDArray[np.uint32] | None],
    name: str,
    progress: Callable[[int], None] | None,
) -> Tensor:
    """int64 [B, T, K], padded, as they went in.

    What follows a fault cannot be read: the state is lost.
    """
    about = header.about
    with reading(name, "header"):
        lengths, together = list(map(int, about["lengths"])), int(about["together"])
        shape = (len(lengths), max(lengths), len(model.spec.columns))
        raw = zlib.decompress(base64.b64decode(about["known"]))
        known_bits = np.unpackbits(np.frombuffer(raw, np.uint8), count=math.prod(shape))
    known = torch.from_numpy(known_bits.reshape(shape).astype(bool)).to(model.device)
    labels = None if header.context is None else torch.tensor(header.context)
    whole = model.known_context(labels, *shape[:2], int(about["start"]))
    out = torch.full(shape, MISSING, dtype=torch.int64, device=model.device)
    number, done = 0, 0
    with evaluating(model), repeatable(model.device):
        for first in range(0, len(lengths), together):
            rows = slice(first, first + together)
            longest = max(lengths[rows])
            told = None if whole is None else whole[rows, :longest]
            x, pieces = over_time.read(model, known[rows, :longest], told)
            for piece in pieces:
                words, entry = blocks[number], header.blocks[number]
                number += 1
                fault = "its checksum is wrong"
                if words is not None:
                    fault = "its values come out otherwise than they went in"
                    try:
                        values = piece(words)
                        if zlib.crc32(values.astype("<i4").tobytes()) == entry.examples_crc:
                            fault = ""
                    except (InvalidData, ValueError) as error:
                        fault = f"it cannot be decoded ({error})"
                if fault:
                    raise InvalidData(
                        f"{name}: block {number} of {len(blocks)} is damaged: {fault}"
                    )
                done += entry.examples
                if progress is not None:
                    progress(done)
            out[rows, :longest] = torch.where(known[rows, :longest], x, MISSING)
    ends = torch.tensor(lengths, device=out.device)
    after = torch.arange(shape[1], device=out.device) >= ends[:, None]
    return out.masked_fill(after[..., None], PADDING)


@dataclasses.dataclass(frozen=True)
class Decompressed:
    """The examples of a compressed file.

    Attributes:
        x: uint8 or uint16 [N, *shape], zeros where a block is damaged; of sequences int64
            [B, T, K].
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
    if isinstance(model, SequenceDensity):
        return Decompressed(
            _decompress_sequences(model, header, blocks, name, progress), header, ()
        )
    labels = None if header.context is None else torch.tensor(header.context)
    context = model.labels(labels, header.examples)
    kind = torch.uint8 if header.levels <= 256 else torch.uint16
    x = torch.zeros(header.examples, *header.shape, dtype=kind)
    damaged, first = [], 0
    with evaluating(model), repeatable(model.device):
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
