"""Static MNIST as a file: all 10,000 test images coded by committed weights, and back.

    python bench/codec.py                    # gated-pixelcnn: some minutes on one core
    python bench/codec.py --images 500 --dry

Bits per dimension of the whole file; the blocks against -log2 p(x) of the parallel likelihood pass,
which the coder does not use; images decoded a second; 100 flipped bits, each of which must be
found; and the other coders of this machine on the same images.
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np
import torch

import likely
from common import RESULTS, write_result
from likely import data, runs
from likely.density import TractableDensity, chunks
from likely.errors import InvalidData
from likely.jobs.compress import other_coders


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="gated-pixelcnn", help="of mnist-static [%(default)s]")
    parser.add_argument("--images", type=int, default=10_000, help="test images [%(default)s]")
    parser.add_argument("--dry", action="store_true", help="write no result")
    options = parser.parse_args()
    model = runs.load(RESULTS / f"mnist-static-{options.model}").model
    assert isinstance(model, TractableDensity)
    _, test = data.load("mnist", binarize="static")
    x = torch.from_numpy(test.x[: options.images].astype(np.int64))
    with torch.no_grad():
        nats = sum(float(-model.log_prob(x[part]).double().sum()) for part in chunks(len(x), 250))
    claimed = nats / math.log(2)
    began = time.monotonic()
    compressed = likely.compress(model, x)
    written = time.monotonic() - began
    print(compressed, flush=True)
    began = time.monotonic()
    back = likely.decompress(model, compressed.content)
    seconds = time.monotonic() - began
    assert torch.equal(back.x.long(), x)
    ends = compressed.stream - compressed.initial
    figures = {
        "codec/mnist-static/bits-per-dim": compressed.bits_per_dim,
        "codec/mnist-static/claimed-bits-per-dim": claimed / x.numel(),
        "codec/mnist-static/over-claimed": ends / claimed - 1.0,
        "codec/mnist-static/overhead-bits-per-image": (compressed.bits - claimed) / len(x),
        "codec/mnist-static/encode-images-per-second": len(x) / written,
        "codec/mnist-static/decode-images-per-second": len(x) / seconds,
        "codec/flips": 100.0,
        "codec/flips-found": float(flips_found(compressed.content, 100)),
    }
    for name, bits in sorted(other_coders(x.numpy(), 2).items(), key=lambda item: item[1]):
        figures[f"codec/mnist-static/{name.lower().replace(' ', '-')}-bits-per-dim"] = (
            bits / x.numel()
        )
    for name, value in figures.items():
        print(f"{name:54} {value:.6g}")
    if not options.dry:
        about = {"blocks": compressed.blocks, "weights": back.header.weights}
        write_result("codec", figures, vars(options), about)


def flips_found(content: bytes, count: int) -> int:
    """Of so many files with one flipped bit each, how many are refused."""
    refused = 0
    for place in np.random.default_rng(0).choice(8 * len(content), count, replace=False):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << (place % 8)
        try:
            refuse_damaged(bytes(flipped))
        except InvalidData:
            refused += 1
    return refused


def refuse_damaged(content: bytes) -> None:
    """What a reader does before it decodes."""
    from likely.ask.codec.container import read_container

    _, blocks = read_container(content, "the file")
    if any(words is None for words in blocks):
        raise InvalidData("a block is damaged")


if __name__ == "__main__":
    main()
