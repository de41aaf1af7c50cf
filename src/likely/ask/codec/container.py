"""The file of compressed examples: a header, blocks, checksums.

    magic       8 bytes   "LIKELY" 0x00 0x01
    length      4 bytes   of the header, little-endian as every number
    checksum    4 bytes   CRC-32 of the header
    header      JSON in UTF-8, deflated
    blocks      each 32-bit words, as the header counts them

The header says what the examples are, which weights on which machine wrote them, and of each block
how many examples it holds, written in which batches, how many words it has and how many of them
were given, the CRC-32 of its words and that of its examples. So every bit is under a checksum, a
fault costs one block, and what is decoded is checked as well.
"""

from __future__ import annotations

import dataclasses
import json
import struct
import zlib
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from likely.density import Fittable, weights_digest
from likely.devices import environment
from likely.errors import InvalidData, InvalidSetting
from likely.files import allow, parse_json, reading, record_of

MAGIC = b"LIKELY\x00\x01"
_START = struct.Struct("<8sII")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A block as the header knows it.

    Attributes:
        batches: examples written side by side, one batch after another.
        words: 32-bit words.
        initial: how many of them were given.
        words_crc: CRC-32 of its bytes.
        examples_crc: CRC-32 of its examples, as little-endian uint8 or uint16.
    """

    batches: tuple[int, ...]
    words: int
    initial: int
    words_crc: int
    examples_crc: int

    @property
    def examples(self) -> int:
        """How many it holds."""
        return sum(self.batches)


@dataclasses.dataclass(frozen=True)
class Header:
    """What a file says of itself.

    Attributes:
        model: class of the model.
        weights: `likely.density.weights_digest` of it.
        machine: what the arithmetic depends on, as `machine_of`.
        shape: of an example.
        levels: of its values.
        context: what each example was conditioned on, as nested lists, or None.
        about: what a caller wants to keep: names, the run.
        blocks: in order.
    """

    model: str
    weights: str
    machine: dict[str, str]
    shape: tuple[int, ...]
    levels: int
    context: list[Any] | None
    about: dict[str, Any]
    blocks: tuple[Entry, ...]

    @property
    def examples(self) -> int:
        """How many there are."""
        return sum(entry.examples for entry in self.blocks)

    def refuse_other_weights(self, model: Fittable) -> None:
        """Raise InvalidSetting where it was written with another model."""
        digest = weights_digest(model)
        if (digest, model.spec.shape) != (self.weights, self.shape):
            raise InvalidSetting(
                f"it was written by {self.model} with weights {self.weights}, given "
                f"{type(model).__name__} with weights {digest}: it can be read with the former only"
            )

    def refuse_other_machine(self, model: Fittable) -> None:
        """Raise InvalidSetting where the arithmetic may round otherwise than where it was written.

        Batch, order and threads are the codec's own; processor and libraries are not.
        """
        current = machine_of(model)
        wrong = [
            f"{name} {self.machine.get(name)} (here {current.get(name)})"
            for name in sorted(self.machine.keys() | current.keys())
            if self.machine.get(name) != current.get(name)
        ]
        if wrong:
            raise InvalidSetting(
                f"it was written with {', '.join(wrong)}, where sums round otherwise: read it "
                "there, or try it here with anyway=True (--anyway), which checks every example"
            )


def machine_of(model: Fittable) -> dict[str, str]:
    """What decides how sums round: versions, processor, its vectors, device and precision."""
    facts = environment()
    weight = next(model.parameters())
    device = facts.get("cuda_device", "cuda") if weight.is_cuda else weight.device.type
    versions = {name: version(name) for name in ("numba", "constriction")}
    named = {name: str(facts[name]) for name in ("likely", "torch", "numpy", "processor")}
    vectors = torch.backends.cpu.get_cpu_capability()
    precision = str(weight.dtype).removeprefix("torch.")
    return {**named, **versions, "vectors": vectors, "device": device, "precision": precision}


def packed(x: Tensor | npt.NDArray[Any], levels: int) -> npt.NDArray[Any]:
    """Examples in the smallest type of their levels, little-endian."""
    values = x.cpu().numpy() if isinstance(x, Tensor) else x
    return np.ascontiguousarray(values.astype("<u1" if levels <= 256 else "<u2"))


def write_container(header: Header, words: list[npt.NDArray[np.uint32]]) -> bytes:
    """The whole file."""
    text = json.dumps(dataclasses.asdict(header), separators=(",", ":")).encode()
    deflated = zlib.compress(text, 9)
    start = _START.pack(MAGIC, len(deflated), zlib.crc32(deflated))
    return b"".join([start, deflated, *(w.astype("<u4").tobytes() for w in words)])


def read_container(content: bytes, name: str) -> tuple[Header, list[npt.NDArray[np.uint32] | None]]:
    """The header, and the words of each block, None where its checksum is wrong.

    Args:
        content: the file.
        name: what it is called in an error.

    Raises:
        InvalidData: no such file, damaged in the header, or cut.
    """
    with reading(name, "header"):
        if len(content) < _START.size or content[:6] != MAGIC[:6]:
            raise InvalidData("it is no file that `likely compress` wrote")
        magic, length, checksum = _START.unpack_from(content)
        if magic != MAGIC:
            raise InvalidData(f"its format is {magic[7]}, and this version reads {MAGIC[7]}")
        deflated = content[_START.size : _START.size + length]
        if len(deflated) < length or zlib.crc32(deflated) != checksum:
            raise InvalidData("damaged: its checksum is wrong")
        inflated = zlib.decompressobj()
        text = inflated.decompress(deflated, 1032 * length + 1024)
        header = _header(parse_json(text))
    itemsize = 1 if header.levels <= 256 else 2
    dimensions = int(np.prod([*header.shape, itemsize], dtype=np.float64))
    allow(name, len(content), header.examples * dimensions, f"{header.examples} examples")
    offset = _START.size + length
    ends = offset + 4 * np.cumsum([entry.words for entry in header.blocks], dtype=np.int64)
    if len(content) != (ends[-1] if len(ends) else offset):
        raise InvalidData(
            f"{name}: holds {len(content):,} bytes, its header announces {int(ends[-1]):,}; it is "
            "truncated or damaged"
        )
    blocks: list[npt.NDArray[np.uint32] | None] = []
    for entry, end in zip(header.blocks, ends, strict=True):
        part = content[int(end) - 4 * entry.words : int(end)]
        sound = zlib.crc32(part) == entry.words_crc
        blocks.append(np.frombuffer(part, "<u4").astype(np.uint32) if sound else None)
    return header, blocks


def _header(record: Any) -> Header:
    fields = record_of(record, *(field.name for field in dataclasses.fields(Header)))
    shape, levels = tuple(fields["shape"]), fields["levels"]
    if not all(_whole(side, 1) for side in shape) or not _whole(levels, 2) or levels >= 1 << 30:
        raise InvalidData(f"shape {shape} of {levels} levels")
    entries = []
    for entry in fields["blocks"]:
        record_of(entry, *(field.name for field in dataclasses.fields(Entry)))
        counts = [*entry["batches"], entry["words"], entry["initial"]]
        if not entry["batches"] or not all(_whole(n, 0) for n in counts) or 0 in entry["batches"]:
            raise InvalidData("a block without examples")
        entries.append(Entry(**{**entry, "batches": tuple(entry["batches"])}))
    kinds = {"model": str, "weights": str, "machine": dict, "about": dict}
    for name, kind in kinds.items():
        if not isinstance(fields[name], kind):
            raise InvalidData(f'"{name}" is no {kind.__name__}')
    return Header(**{**fields, "shape": shape, "blocks": tuple(entries)})


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 1 << 31
