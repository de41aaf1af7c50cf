"""Small models of sequences of two binary columns, whose every sequence can be enumerated."""

from __future__ import annotations

import numpy as np
import torch

from likely import models
from likely.data.sequences import Sequences, from_sequences
from likely.density import SequenceDensity


def binary() -> Sequences:
    rolls = [(np.random.default_rng(i).random((7, 2)) < 0.4).astype(np.uint8) for i in range(9)]
    return from_sequences(rolls, kinds={"x0": "binary", "x1": "binary"}, name="tiny")[0]


def lively(model: SequenceDensity, factor: float) -> SequenceDensity:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.double().parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(factor * noise)
    return model.eval()


def tiny() -> dict[str, SequenceDensity]:
    spec = binary().spec
    sizes = {"hidden": 4, "step_hidden": 4}
    return {
        "hmm": lively(models.HMM(spec, states=3), 1.0),
        "gru": lively(models.GRU(spec, **sizes), 1.2),
        "transformer": lively(models.Transformer(spec, **sizes, layers=1, heads=2, reach=3), 1.0),
    }
