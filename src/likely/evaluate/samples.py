"""Numbers about samples, for every kind of model, each beside what training images score.

`SampleReference` holds the test images, their features, and the floor: the scores of training
images as if they were samples. A sample cannot be asked to be nearer to the test images than
fresh data is, so a distance is read against its floor, never against 0.

N is the same on both sides and for every model, and it is part of the fingerprint: the Frechet
distance falls as 1 / N for the same model, so numbers at different N never meet. Nothing here
knows a model by name; samples are integers [N, *shape].
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import platform
import statistics
import time
from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from likely.data.labels import relabelled
from likely.data.spec import Dataset
from likely.density import GenerativeModel, condition_of
from likely.errors import InvalidData, InvalidSetting
from likely.estimate import Estimate, Relation
from likely.evaluate.distances import Measured, frechet_distance, kernel_distance, share_of
from likely.evaluate.features import Extractor, Images, checked_images
from likely.evaluate.manifold import manifold_scores
from likely.evaluate.neighbours import (
    distance_to_training,
    exact_duplicates,
    memorisation,
    nearest,
    vectors_of,
)
from likely.evaluate.quantities import GROUPS, QUANTITIES, SAMPLES

DEFAULT_IMAGES = 2_000  # of each side, where the test set has that many
ALL_PAIRS = 20_000  # above this N the kernel distance goes by blocks
BLOCK = 1_000
MOST_CALLS = 100  # timed calls of a sampler
KEEP = 1 << 27  # training features of at most this many values (1 GiB) are kept


class Sampler(Protocol):
    """What can be timed: `sample(n, seed=...)` gives integers [n, *shape]."""

    def sample(self, n: int, *, seed: int = 0) -> Tensor:
        """Draw n examples."""


class SampleReference:
    """Test images, training images and an extractor that samples are measured with.

    Args:
        train: the whole training set that the models have seen.
        test: the split to compare with (use `train.validation` for choices).
        extractor: of the features.
        n: images of each side; the test set's size, at most 2,000, by default.
        k: neighbours of precision, recall, density and coverage.
        seed: of the choice of test and training images where there are more than n.

    Attributes:
        n, k: as used.
        fingerprint: of train, test, extractor, n, k and seed; part of every estimate.
        floor: the scores of n training images (distances to the training set: of the n test
            images), computed at first use.
    """

    def __init__(
        self,
        train: Dataset,
        test: Dataset,
        extractor: Extractor,
        *,
        n: int | None = None,
        k: int = 5,
        seed: int = 0,
    ) -> None:
        if train.spec.shape != test.spec.shape or train.spec.levels != test.spec.levels:
            raise InvalidData(
                f"training and test images must be alike, given {train.spec.shape} with "
                f"{train.spec.levels} levels and {test.spec.shape} with {test.spec.levels}"
            )
        most = min(len(train), len(test))
        if n is None:
            n = min(most, DEFAULT_IMAGES)
        if not k < n <= most:
            raise InvalidSetting(
                f"n must be more than k = {k} and at most {most}, the size of the smaller of "
                f"{train.spec.name}'s training and {test.spec.split} sets; given {n}"
            )
        self.train, self.test, self.extractor = train, test, extractor
        self.n, self.k = n, k
        self.index = _chosen(test, n, seed)
        self.images = checked_images(test.batch(self.index).x, test.spec)  # [n, *shape]
        self.features = extractor(self.images)  # [n, F]
        self._seed = seed
        about = train.spec.fingerprint, test.spec.fingerprint, extractor.fingerprint, n, k, seed
        self.fingerprint = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:12]

    def context_for(self, model: GenerativeModel) -> Tensor | None:
        """What to draw the samples of a conditional model with: that of the test images.

        The samples of a perfect model then follow the test images, however often each class
        occurs. None for an unconditional model.

        Raises:
            InvalidData: the test images come without what the model is conditioned on.
        """
        condition = condition_of(model)
        if not condition:
            return None
        test = relabelled(self.test, model.spec.classes) if condition == "label" else self.test
        context = model.batch_context(test.batch(self.index))
        if context is None:
            raise InvalidData(
                f"{test.spec.name} ({test.spec.split}) has no {condition} for each image, which "
                f"{type(model).__name__} is conditioned on"
            )
        return context

    def metrics(self, samples: Images) -> list[Estimate]:
        """All numbers about a model's samples.

        Args:
            samples: integers in [0, levels), at least n of them, [N, *shape]; the first n are
                used.

        Returns:
            Frechet and kernel distance, precision, recall, density, coverage against the test
            images; mean distance to the nearest training image in pixels and features, its ratio
            to the floor, the share of near copies (closer than all but 1 % of the test images)
            and of exact duplicates. All APPROXIMATE, with standard errors; `about` gives N and
            the floor.

        Raises:
            InvalidSetting: fewer than n samples.
            InvalidData: not integer images of the right shape and levels.
        """
        x = checked_images(samples, self.train.spec)
        if len(x) < self.n:
            raise InvalidSetting(
                f"{self.n} samples are needed to compare with {self.n} test images, given {len(x)}"
            )
        x = x[: self.n]
        features = self.extractor(x)
        return self._estimates(self._against_test(features) | self._copying(x, features), True)

    @functools.cached_property
    def floor(self) -> list[Estimate]:
        """What n training images score as samples; the last row of every comparison."""
        return self._estimates(self._floor, False)

    @functools.cached_property
    def _floor(self) -> dict[str, Measured]:
        index = _chosen(self.train, self.n, self._seed + 1)
        chosen = checked_images(self.train.batch(index).x, self.train.spec)
        # A training image is its own nearest training image, so there the test images stand in.
        return self._against_test(self.extractor(chosen)) | self._copying(
            self.images, self.features
        )

    @functools.cached_property
    def _fresh(self) -> tuple[Tensor, Tensor]:
        return self._to_training(self.images, self.features)

    @functools.cached_property
    def _train_features(self) -> Tensor:
        return torch.cat(list(vectors_of(self.train, self.extractor)))  # [N, F]

    def _to_training(self, x: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Distance of each image to its nearest training image in pixels and in features."""
        kept = len(self.train) * features.shape[1] <= KEEP
        blocks = iter([self._train_features]) if kept else vectors_of(self.train, self.extractor)
        return distance_to_training(x, self.train), nearest(features, blocks).distance[:, 0]

    def _against_test(self, features: Tensor) -> dict[str, Measured]:
        kid = kernel_distance(
            features, self.features, block_size=None if self.n <= ALL_PAIRS else BLOCK
        )
        scores = manifold_scores(self.features, features, k=self.k)
        return {
            "frechet": frechet_distance(features, self.features),
            "kid": kid,
            "precision": scores.precision,
            "recall": scores.recall,
            "density": scores.density,
            "coverage": scores.coverage,
        }

    def _copying(self, x: Tensor, features: Tensor) -> dict[str, Measured]:
        if x is self.images:
            near_pixels, near_features = self._fresh
        else:
            near_pixels, near_features = self._to_training(x, features)
        in_pixels = memorisation(near_pixels, self._fresh[0])
        in_features = memorisation(near_features, self._fresh[1])
        copies = exact_duplicates(x, self.train).double()
        share, n = float(copies.mean()), len(x)
        return {
            "nearest-train-pixels": in_pixels.sample,
            "nearest-train-features": in_features.sample,
            "memorisation-ratio-pixels": in_pixels.ratio,
            "memorisation-ratio-features": in_features.ratio,
            # A shifted copy hides in pixels, a recoloured one does not.
            "near-copies": max(in_pixels.closer, in_features.closer, key=lambda m: m.value),
            "duplicates": Measured(share, share_of(share * n, n).standard_error),
        }

    def _estimates(self, values: dict[str, Measured], samples: bool) -> list[Estimate]:
        estimates = []
        for quantity, measured in values.items():
            if not math.isfinite(measured.value):
                continue  # a ratio to a floor of 0: every test image repeats a training image
            about = self._about(quantity, samples)
            if samples:
                floor = self._floor[quantity]
                about += f"; floor {floor.value:.4g} +- {floor.standard_error:.2g}"
            # The spread of equal numbers is 0, not what rounding leaves of it.
            error = measured.standard_error
            error = error if error > 1e-12 * abs(measured.value) else 0.0
            estimates.append(
                Estimate(
                    value=measured.value,
                    unit="",
                    relation=Relation.APPROXIMATE,
                    quantity=quantity,
                    standard_error=error,
                    n=self.n,
                    fingerprint=self.fingerprint,
                    lower_is_better=QUANTITIES[quantity].lower_is_better,
                    about=about,
                )
            )
        return estimates

    def _about(self, quantity: str, samples: bool) -> str:
        split = self.test.spec.split
        if QUANTITIES[quantity] in GROUPS[SAMPLES]:
            what = f"{self.n} {'samples' if samples else 'training images'}"
            text = f"{what} against {self.n} {split} images in {self.extractor.name} features"
            return text if quantity in ("frechet", "kid") else f"{text}, k = {self.k}"
        what = f"{self.n} {'samples' if samples else f'{split} images'}"
        return f"{what} against all {len(self.train)} training images"


def sample_metrics(
    samples: Images,
    train: Dataset,
    test: Dataset,
    extractor: Extractor,
    *,
    n: int | None = None,
    k: int = 5,
    seed: int = 0,
) -> list[Estimate]:
    """`SampleReference.metrics` of one model's samples; for several models keep a reference.

    Args:
        samples: integers in [0, levels), [N, *shape].
        train: the training set that the model has seen.
        test: the images to compare with.
        extractor: of the features.
        n: images of each side; by default as many as all three sets have, at most 2,000.
        k: neighbours of precision, recall, density and coverage.
        seed: of the choice of images.
    """
    if n is None:
        n = min(len(samples), len(train), len(test), DEFAULT_IMAGES)
    return SampleReference(train, test, extractor, n=n, k=k, seed=seed).metrics(samples)


def samples_per_second(
    model: Sampler,
    n: int = 64,
    *,
    seed: int = 0,
    seconds: float = 1.0,
    clock: Callable[[], float] = time.perf_counter,
) -> Estimate:
    """Speed of sampling, n images a call, the first call not counted.

    Args:
        model: what draws.
        n: images a call.
        seed: of the first timed call; the others take the following seeds.
        seconds: calls are timed until they took this long together; at least two.
        clock: in seconds; for tests.

    Returns:
        Images per second, the mean over the calls. The fingerprint covers the image shape, n and
        the machine, because speeds on different machines do not compare.
    """
    if n < 1:
        raise InvalidSetting(f"speed needs at least one image a call, given {n}")
    first = model.sample(n, seed=seed)
    rates: list[float] = []
    spent = 0.0
    while len(rates) < 2 or (spent < seconds and len(rates) < MOST_CALLS):
        start = clock()
        model.sample(n, seed=seed + len(rates)).cpu()  # to the CPU: waits for an accelerator
        took = max(clock() - start, 1e-9)
        rates.append(n / took)
        spent += took
    where = _machine(first.device)
    key = json.dumps([list(first.shape[1:]), n, where])
    speed = QUANTITIES["sampling-speed"]
    return Estimate(
        value=statistics.fmean(rates),
        unit=speed.unit,
        relation=Relation.APPROXIMATE,
        quantity=speed.name,
        standard_error=statistics.stdev(rates) / math.sqrt(len(rates)),
        n=len(rates),
        fingerprint=hashlib.sha256(key.encode()).hexdigest()[:12],
        lower_is_better=speed.lower_is_better,
        about=f"{n} images a call, {where}",
    )


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    threads = torch.get_num_threads()
    return (
        f"{platform.machine()} CPU, {threads} thread{'s' if threads > 1 else ''}, "
        f"torch {torch.__version__}"
    )


def _chosen(data: Dataset, n: int, seed: int) -> npt.NDArray[np.int64]:
    """Positions of n images of a data set, chosen by the seed, in the order of the set."""
    if n == len(data):
        return np.arange(n, dtype=np.int64)
    generator = np.random.Generator(np.random.Philox(seed))
    return np.sort(generator.choice(len(data), n, replace=False)).astype(np.int64)
