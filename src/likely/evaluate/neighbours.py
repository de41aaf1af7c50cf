"""Nearest training images of samples: has the model copied its data?

A sample that is nearer to a training image than fresh images of the same source are is suspect.
So every distance is read against a floor: the same distance for test images. Pixel distances
are fooled by a shift of one pixel (Theis, van den Oord and Bethge 2016), so features are looked
at too. No distance proves that nothing was memorised; exact duplicates prove that something was,
unless test images repeat training images as often.

The search is exact and goes block by block, so a memory-mapped training set stays on disk.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from likely.data.spec import Dataset
from likely.errors import InvalidSetting
from likely.evaluate.distances import BLOCK_VALUES, Measured, share_of, squared_distances
from likely.evaluate.features import Extractor, checked_images

# Training images that are read and turned into vectors together.
READ = 2048


@dataclasses.dataclass(frozen=True)
class Nearest:
    """The k nearest references of each query.

    Attributes:
        distance: Euclidean, ascending, float64 [Q, k].
        index: position of the reference, int64 [Q, k]; any one of equals.
    """

    distance: Tensor
    index: Tensor


@dataclasses.dataclass(frozen=True)
class Memorisation:
    """Distances of samples to their nearest training image against those of test images.

    Attributes:
        sample: mean distance of samples to their nearest training image.
        floor: the same for test images.
        ratio: sample / floor. Well below 1: samples hug training images.
        closer: share of samples nearer to a training image than all but a hundredth of the test
            images are, or equal to one; 0.01 is what fresh images have.
    """

    sample: Measured
    floor: Measured
    ratio: Measured
    closer: Measured


def nearest(queries: Tensor, references: Iterator[Tensor], k: int = 1) -> Nearest:
    """Exact k nearest references of each query [Q, F], with bounded memory; float64.

    The references come in blocks [R, F], and positions count on from one to the next; k is at most
    their number. Distances of integer vectors are exact before the root, so equal vectors have
    distance 0.
    """
    if k < 1:
        raise InvalidSetting(f"k must be at least 1, given {k}")
    best = torch.full((len(queries), k), math.inf, dtype=torch.float64)
    index = torch.full((len(queries), k), -1, dtype=torch.int64)
    seen = 0
    for block in references:
        size = max(1, BLOCK_VALUES // len(block))
        places = torch.arange(seen, seen + len(block)).expand(min(size, len(queries)), -1)
        for start in range(0, len(queries), size):
            rows = slice(start, min(start + size, len(queries)))
            distance = squared_distances(queries[rows], block)
            near = distance.topk(min(k, len(block)), dim=1, largest=False)
            candidates = torch.cat([best[rows], near.values], 1)
            where = torch.cat([index[rows], places[: len(distance)].gather(1, near.indices)], 1)
            order = candidates.argsort(dim=1, stable=True)[:, :k]
            best[rows], index[rows] = candidates.gather(1, order), where.gather(1, order)
        seen += len(block)
    if seen < k:
        raise InvalidSetting(f"k must be at most the {seen} references, given {k}")
    return Nearest(best.sqrt(), index)


def pixel_vectors(x: Tensor) -> Tensor:
    """Integer images as float64 [B, D], not scaled, so that distances are exact."""
    return x.flatten(1).double()


def vectors_of(data: Dataset, space: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
    """The examples of a data set as vectors, block by block."""
    for start in range(0, len(data), READ):
        index = np.arange(start, min(len(data), start + READ), dtype=np.int64)
        yield space(checked_images(data.batch(index).x, data.spec))


def nearest_images(
    samples: Tensor, train: Dataset, extractor: Extractor | None = None, k: int = 5
) -> tuple[Nearest, Tensor]:
    """The k nearest training images of each sample, for the sheet.

    Args:
        samples: integers [B, *shape].
        train: where to look.
        extractor: of the features to measure in; None measures in pixels.
        k: how many.

    Returns:
        Distances and positions (pixels: divided by levels - 1, so a pixel spans 1), and the
        images, integers [B, k, *shape].
    """
    space = pixel_vectors if extractor is None else extractor
    neighbours = nearest(space(checked_images(samples, train.spec)), vectors_of(train, space), k)
    if extractor is None:
        neighbours = Nearest(neighbours.distance / (train.spec.levels - 1), neighbours.index)
    images = checked_images(train.batch(neighbours.index.flatten().numpy()).x, train.spec)
    return neighbours, images.reshape(len(samples), k, *train.spec.shape)


def distance_to_training(x: Tensor, train: Dataset, extractor: Extractor | None = None) -> Tensor:
    """Distance of each image to its nearest training image, float64 [B].

    Args:
        x: integers [B, *shape].
        train: where to look.
        extractor: of the features to measure in; None measures in pixels, divided by levels - 1.
    """
    space = pixel_vectors if extractor is None else extractor
    unit = train.spec.levels - 1.0 if extractor is None else 1.0
    neighbours = nearest(space(checked_images(x, train.spec)), vectors_of(train, space))
    return neighbours.distance[:, 0] / unit


def memorisation(samples: Tensor, fresh: Tensor) -> Memorisation:
    """Compare distances of samples to the training set with those of fresh images.

    Args:
        samples: `distance_to_training` of samples, float64 [N].
        fresh: the same of test images, float64 [M].
    """
    a, b = _mean(samples), _mean(fresh)
    if b.value == 0.0:
        # Every test image is a training image: samples can be no nearer than that.
        ratio = Measured(1.0 if a.value == 0.0 else math.inf, 0.0)
    else:
        share = a.value / b.value  # with the error of the delta method
        error = math.hypot(a.standard_error, share * b.standard_error) / b.value
        ratio = Measured(share, error)
    limit = float(torch.quantile(fresh, 0.01))
    closer = float(((samples < limit) | (samples == 0)).double().mean())
    return Memorisation(
        a, b, ratio, Measured(closer, share_of(closer * len(samples), len(samples)).standard_error)
    )


def exact_duplicates(x: Tensor, train: Dataset) -> Tensor:
    """Whether each image equals some training image in every value, bool [B].

    Args:
        x: integers [B, *shape].
        train: where to look; read once, in blocks.
    """
    wanted = [_image_digest(row) for row in checked_images(x, train.spec).numpy()]
    present = set(wanted)
    duplicates: set[bytes] = set()
    for start in range(0, len(train), READ):
        index = np.arange(start, min(len(train), start + READ), dtype=np.int64)
        duplicates |= present.intersection(_image_digest(row) for row in train.batch(index).x)
    return torch.tensor([digest in duplicates for digest in wanted], dtype=torch.bool)


def _image_digest(image: npt.NDArray[Any]) -> bytes:
    return hashlib.blake2b(image.astype("<u2").tobytes(), digest_size=16).digest()


def _mean(values: Tensor) -> Measured:
    error = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return Measured(float(values.mean()), error)
