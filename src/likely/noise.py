"""Keyed random streams.

A `Noise` is a stream of random tensors that is a function of its key alone (seed, step, purpose).
So a resumed run draws what an uninterrupted one would have drawn, and there is no generator state
to save. torch's global generator is never used.

A stream may be for some rows of a larger batch: it draws for the whole batch and keeps these rows.
So two ranks with half of the batch each see the noise of one process with the whole batch.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from likely.errors import whole


def derived_seed(*key: int | str) -> int:
    """A 63-bit seed from a key; different keys give unrelated seeds, equal integers of any type
    the same one.

    Raises:
        InvalidSetting: a part that is neither text nor a whole number.

    >>> derived_seed(0, "dropout", 7) == derived_seed(0, "dropout", 7)
    True
    >>> derived_seed(0, "dropout", 7) == derived_seed(0, "dropout", 8)
    False
    """
    plain = tuple(part if isinstance(part, int | str) else whole("seed", part) for part in key)
    digest = hashlib.sha256(repr(plain).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


class Noise:
    """A stream of random tensors, a function of (key, order of the calls).

    Attributes:
        generator: the source; a CPU generator on every device, so that draws do not depend on
            where the model runs.
        source: where given, a generator of the device that tensors are drawn with instead.
    """

    def __init__(
        self,
        *key: int | str,
        device: torch.device | str = "cpu",
        rows: tuple[int, int] | None = None,
        source: torch.Generator | None = None,
    ) -> None:
        """Open a stream.

        Args:
            key: what the stream is for.
            device: where the drawn tensors go.
            rows: (first row, number of rows of the whole batch) where the caller holds only
                some rows; None when it holds all of them.
            source: a generator of the device, seeded here by the key: faster than drawing on
                the processor and copying, and a function of the key on that device.
        """
        seed = derived_seed(*key)
        self.generator = torch.Generator().manual_seed(seed)
        self.source = self.generator if source is None else source.manual_seed(seed)
        self.device = torch.device(device)
        self.rows = rows
        self._picked: dict[tuple[int, ...], tuple[int, ...]] = {}

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        """Uniform numbers in [0, 1), [*shape]; the first side counts rows of the batch."""
        full, part = self._span(shape)
        drawn = torch.rand(full, generator=self.source, dtype=dtype, device=self.source.device)
        return drawn[part].to(self.device)

    def last_uniform(self, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        """`uniform`, of a stream that nothing is drawn from afterwards.

        Numbers come one after another, so those of rows behind the caller's need not be drawn.
        """
        first = 0 if self.rows is None else self.rows[0]
        full = (first + shape[0], *shape[1:])
        drawn = torch.rand(full, generator=self.source, dtype=dtype, device=self.source.device)
        return drawn[first:].to(self.device)

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal numbers, [*shape]; the first side counts rows of the batch."""
        full, part = self._span(shape)
        drawn = torch.randn(full, generator=self.source, dtype=dtype, device=self.source.device)
        return drawn[part].to(self.device)

    def bytes(self, *shape: int) -> Tensor:
        """Uniform integers in [0, 256), uint8 [*shape]; eight for the price of one."""
        full, part = self._span(shape)
        if self.source is not self.generator:
            byte = {"dtype": torch.uint8, "device": self.source.device}
            return torch.randint(256, full, generator=self.source, **byte)[part]  # type: ignore[call-overload, no-any-return]
        row = math.prod(full[1:])
        words = torch.empty(full[0], (row + 7) // 8, dtype=torch.int64)
        # The range from -2**63 makes all 64 bits of each word random.
        words.random_(-(2**63), None, generator=self.generator)
        drawn = words.view(torch.uint8)[:, :row].reshape(full)
        return drawn[part].to(self.device)

    def pick(self, *counts: int) -> tuple[int, ...]:
        """An alternative for each of these counts, in [0, count), the same at every call.

        They do not depend on the device or on the rows: every part of a batch gets the same.
        """
        if counts not in self._picked:
            self._picked[counts] = tuple(
                int(torch.randint(count, (), generator=self.generator, device="cpu"))
                for count in counts
            )
        return self._picked[counts]

    def _span(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], slice]:
        if self.rows is None:
            return shape, slice(None)
        first, total = self.rows
        return (total, *shape[1:]), slice(first, first + shape[0])


@contextmanager
def weights_from(seed: int) -> Iterator[None]:
    """A block in which initial weights are a function of the seed.

    torch's global generator is left as it was.
    """
    before = torch.random.get_rng_state()
    torch.default_generator.manual_seed(derived_seed(whole("seed", seed), "weights"))
    try:
        yield
    finally:
        torch.random.set_rng_state(before)


class Dropout(nn.Module):
    """Elementwise dropout (Srivastava et al. 2014) whose mask comes from a `Noise`.

    The rate is rounded to a multiple of 1/256, and the kept values are scaled by the rounded
    rate, so the expectation is exact. Outside `noise_for` it draws from torch's global
    generator, as `torch.nn.Dropout` does.

    Args:
        rate: the share of values that are set to zero.
        batch_side: the side of the tensors that counts the examples.
    """

    def __init__(self, rate: float, batch_side: int = 0) -> None:
        super().__init__()
        self.cut = round(rate * 256)
        self.batch_side = batch_side
        self.noise: Noise | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.cut == 0:
            return x
        if self.noise is None:
            return nn.functional.dropout(x, self.cut / 256)
        # A stream's first side counts the examples.
        drawn = self.noise.bytes(*x.movedim(self.batch_side, 0).shape)
        keep = drawn.movedim(0, self.batch_side) >= self.cut
        return x * (keep.to(x.dtype) * (256 / (256 - self.cut)))


@contextmanager
def noise_for(model: nn.Module, noise: Noise) -> Iterator[None]:
    """Give every `Dropout` of `model` its noise for the time of the block."""
    layers = [layer for layer in model.modules() if isinstance(layer, Dropout)]
    for layer in layers:
        layer.noise = noise
    try:
        yield
    finally:
        for layer in layers:
            layer.noise = None
