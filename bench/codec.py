"""Images as a file: the test images of static MNIST coded by committed weights, and back.

    python bench/codec.py                    # gated-pixelcnn: some minutes on one core
    python bench/codec.py --images 500 --dry
    python bench/codec.py --run DIR/cifar10-colour --images 1000   # fitted by bench/enlarge.py

Bits per dimension of the whole file; the blocks against -log2 p(x) of the parallel likelihood pass,
which the coder does not use; images decoded a second; 100 flipped bits, each of which must be
found; and the other coders of this machine on the same images.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

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
    parser.add_argument("--run", type=Path, help="directory of a run on CIFAR-10, in its place")
    parser.add_argument("--images", type=int, default=10_000, help="test images [%(default)s]")
    parser.add_argument("--dry", action="store_true", help="write no result")
    options = parser.parse_args()
    data_name = "mnist-static" if options.run is None else "cifar10"
    saved = runs.load(options.run or RESULTS / f"{data_name}-{options.model}")
    model = saved.model
    assert isinstance(model, TractableDensity)
    _, test = data.load("cifar10") if options.run else data.load("mnist", binarize="static")
    x = torch.from_numpy(test.x[: options.images].astype(np.int64))
    with torch.no_grad():
        nats = sum(float(-model.log_prob(x[part]).double().sum()) for part in chunks(len(x), 100))
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
        f"codec/{data_name}/bits-per-dim": compressed.bits_per_dim,
        f"codec/{data_name}/claimed-bits-per-dim": claimed / x.numel(),
        f"codec/{data_name}/over-claimed": ends / claimed - 1.0,
        f"codec/{data_name}/overhead-bits-per-image": (compressed.bits - claimed) / len(x),
        f"codec/{data_name}/encode-images-per-second": len(x) / written,
        f"codec/{data_name}/decode-images-per-second": len(x) / seconds,
    }
    if options.run is None:
        caught = float(flips_found(compressed.content, 100))
        figures |= {"codec/flips": 100.0, "codec/flips-found": caught}
    others = other_coders(x.numpy(), test.spec.levels)
    for coder, bits in sorted(others.items(), key=lambda item: item[1]):
        figures[f"codec/{data_name}/{coder.lower().replace(' ', '-')}-bits-per-dim"] = (
            bits / x.numel()
        )
    for figure, value in figures.items():
        print(f"{figure:54} {value:.6g}")
    if not options.dry:
        about = {"blocks": compressed.blocks, "weights": back.header.weights}
        settings = {
            "model": options.model if options.run is None else saved.name, "images": options.images
        }  # fmt: skip
        write_result("codec" if options.run is None else "codec-cifar10", figures, settings, about)


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
