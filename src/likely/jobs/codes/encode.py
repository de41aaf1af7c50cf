"""Codes of a data set, and how near to it their reconstructions are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from likely.ask.encode import features, reconstruct
from likely.data.spec import Dataset
from likely.density import Fittable, condition_of, reading_of
from likely.estimate import Estimate, Relation

BATCH = 256


@dataclasses.dataclass(frozen=True)
class Encoding:
    """A data set as a model encodes and decodes it.

    Attributes:
        codes: [N, latent].
        labels: int64 [N], or None.
        error: squared distance of an example from its reconstruction, values in [0, 1], summed.
        examples: the first ones, integers [n, *shape].
        reconstructions: theirs, integers [n, *shape].
    """

    codes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64] | None
    error: Estimate
    examples: Tensor
    reconstructions: Tensor


def encode(
    model: Fittable,
    data: Dataset,
    *,
    shown: int = 10,
    progress: Callable[[int, int], None] | None = None,
) -> Encoding:
    """Encode and reconstruct every example.

    Args:
        model: with an encoder, in evaluation mode.
        data: what is encoded.
        shown: examples that are kept beside their reconstructions.
        progress: called with (examples done, of how many).

    Raises:
        Unanswerable: a model without an encoder.
    """
    codes, errors, pairs = [], [], []
    top = model.spec.levels - 1
    for rows, x, context in reading_of(model, data, BATCH):
        codes.append(features(model, x, context).float().cpu())
        rebuilt = reconstruct(model, x, context)
        errors += ((rebuilt - x).double() / top).square().flatten(1).sum(1).tolist()
        pairs.append((x.cpu(), rebuilt.cpu()))
        if progress is not None:
            progress(rows.stop, len(data))
    first, second = (torch.cat(side)[:shown] for side in zip(*pairs, strict=True))
    error = Estimate.mean_of(
        errors,
        unit="squared error",
        relation=Relation.EXACT,
        quantity="reconstruction-error",
        fingerprint=data.fingerprint_given(condition_of(model)),
        lower_is_better=True,
    )
    return Encoding(torch.cat(codes).numpy(), data.labels, error, first, second)
