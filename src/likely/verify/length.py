"""Is the likelihood a code length: are images written in -log2 p(x) bits, and read back?

A file is the proof of a likelihood that nobody can argue with. The coder asks for the conditionals
one after another, from values that its reader has already, and never calls `log_prob`; the bits
that it writes are held against the parallel pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from likely.ask.compress import answer, compress, decompress
from likely.ask.query import Guarantee
from likely.density import GenerativeModel, LatentVariable, TractableDensity
from likely.errors import InvalidData
from likely.sampling.incremental import Incremental
from likely.verify.causality import FULL_BUDGET
from likely.verify.proofs import Proof
from likely.verify.subject import Subject, work_of

OVER = 1e-3  # of the claimed bits: what frequencies of 24 bits cost
ENDS = 64.0  # bits of a block at most: the coder's state, in whole words
MOST_IMAGES = 64
# Bits of a coordinate of a code z. Its density is even in cells of w = an eighth of the scale at
# most (`likely.ask.codec.codes`), which costs w^2 / 24 nats on average; a state of 32 to 64 bits,
# read by frequencies of 24, costs about as much again.
EVEN = 2.0 / (24.0 * 64.0 * math.log(2.0))
# The deviation of what is read by q and written by p, w / sqrt(12) nats each.
UNEVEN = math.sqrt(2.0 / (12.0 * 64.0)) / math.log(2.0)
NAME = "the likelihood is the length of a file"


def code_length(subject: Subject) -> Iterator[Proof]:
    """Write drawn images and read them back; of models that code x (`likely compress`)."""
    model = subject.model
    if answer(model).guarantee is Guarantee.NONE or subject.quick:
        return
    assert isinstance(model, GenerativeModel)
    # Without the incremental program a pass is made for every dimension, on each side.
    passes = 1 if isinstance(model, Incremental | LatentVariable) else model.spec.dimensions
    n = min(MOST_IMAGES, int(FULL_BUDGET / (8.0 * passes * work_of(model))))
    if n < 2:
        return
    labels = subject.labels(n)
    x = model.sample(n, seed=subject.seed, context=labels)
    about = f"Bits of {n} drawn images, written and read back, "
    try:
        compressed = compress(model, x, labels)
        back = decompress(model, compressed.content).x
    except InvalidData as error:
        yield Proof.at_most(NAME, math.inf, 0.0, f"{about}which failed: {error}")
        return
    claimed = compressed.claimed
    if is_exact := isinstance(model, TractableDensity):
        claimed = -float(model.log_prob(x, labels).double().sum()) / math.log(2.0)
    ends = ENDS * compressed.blocks
    # Within 0.1 % of the claim on either side, and the ends above it.
    over = compressed.stream - compressed.initial - claimed - ends / 2
    # Codes far outside the prior are written in fewer bits than their density says: at most 24.
    over = abs(over) if is_exact else max(0.0, over)
    codes = n * model.latent if isinstance(model, LatentVariable) else 0
    yield Proof.at_most(
        NAME,
        over if torch.equal(model.integers(back.long()), model.integers(x)) else math.inf,
        OVER * claimed + ends / 2 + EVEN * codes + 4.0 * UNEVEN * math.sqrt(codes),
        f"{about}{'apart from' if is_exact else 'over'} the claimed {claimed:.0f}; "
        f"{(compressed.stream - claimed) / n:.1f} an image beside the model's.",
    )
