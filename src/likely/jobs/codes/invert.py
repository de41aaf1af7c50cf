"""Codes of real images of a run, and what their errors say: memorising, dropped modes.

Three errors side by side: of what drawn codes decode to, which is what the search leaves; of
training images; and of held-out ones. What is beyond the first the model cannot make; where
training images are nearer than held-out ones, it has remembered them (Metz et al. 2017, sec. 3.4,
measure generators by such an inference, https://arxiv.org/abs/1611.02163).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from likely.data.spec import Dataset
from likely.density import Decoder, GenerativeModel, StandardNormal
from likely.density.codes import slerp
from likely.estimate import Estimate, Relation, confidence_width


@dataclasses.dataclass(frozen=True)
class Recovered:
    """Images, the nearest ones that the model makes, and their codes.

    Attributes:
        x: int64 [N, *shape].
        images: int64 [N, *shape].
        codes: [N, latent].
        error: squared error of an image, values in [0, 1], summed.
        errors: of each, [N].
        labels: class of each example, or None.
    """

    x: Tensor
    images: Tensor
    codes: Tensor
    error: Estimate
    errors: tuple[float, ...]
    labels: tuple[int, ...] | None

    def by_class(self, classes: Sequence[str]) -> dict[str, float]:
        """Mean error of each class that occurs."""
        if self.labels is None:
            return {}
        errors, labels = np.array(self.errors), np.array(self.labels)
        return {
            str(classes[k] if classes else k): float(errors[labels == k].mean())
            for k in np.unique(labels)
        }


@dataclasses.dataclass(frozen=True)
class Inversions:
    """What a run makes of its own samples, of training images and of held-out ones.

    Attributes:
        samples: None for a model that draws none.
        train, held_out: real images.
        gap: held-out error minus training error.
        low, high: its 95 % interval.
    """

    samples: Recovered | None
    train: Recovered
    held_out: Recovered
    gap: float
    low: float
    high: float

    @property
    def words(self) -> list[str]:
        """What the errors say."""
        interval = f"{self.gap:+.3g} [{self.low:.3g}, {self.high:.3g}]"
        if self.low > 0:
            said = [
                f"training images are nearer than held-out ones, by {interval}: the model "
                "remembers some of what it was fitted to"
            ]
        else:
            said = [f"no sign of memorising: held-out minus training error {interval}"]
        if self.samples is not None:
            floor, real = self.samples.error, self.held_out.error
            slack = 2.0 * math.hypot(floor.standard_error, real.standard_error)
            if real.value > floor.value + slack:
                said.append(
                    f"real images are {real.value / max(floor.value, 1e-12):.3g} times as far as "
                    "the model's own samples, which have a code: that much of them it cannot make, "
                    "be it details or kinds of images (dropped modes)"
                )
            else:
                said.append(
                    "real images are as near as the model's own samples: nothing is missing"
                )
        return said

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "own_samples": None if self.samples is None else self.samples.error.to_json(),
            "train": self.train.error.to_json(),
            "held_out": self.held_out.error.to_json(),
            "held_out_minus_train": {"value": self.gap, "low": self.low, "high": self.high},
            "words": self.words,
        }


def recovered(
    model: Decoder,
    x: Tensor,
    about: str,
    *,
    fingerprint: str = "",
    labels: Tensor | None = None,
    classes: Sequence[int] | None = None,
    steps: int = 200,
    restarts: int = 4,
    seed: int = 0,
) -> Recovered:
    """Invert images x, int64 [N, *shape]; see `likely.ask.invert`."""
    inversion = model.invert(x, steps=steps, restarts=restarts, seed=seed, context=labels)
    errors = inversion.error.tolist()
    error = Estimate.mean_of(
        errors,
        unit="squared error",
        relation=Relation.UPPER,
        quantity="inversion-error",
        fingerprint=fingerprint,
        about=about,
    )
    kept = None if classes is None else tuple(int(label) for label in classes)
    return Recovered(x.cpu(), inversion.images.cpu(), inversion.codes, error, tuple(errors), kept)


def inversions(
    model: Decoder,
    train: Dataset,
    held_out: Dataset,
    n: int = 64,
    *,
    steps: int = 200,
    restarts: int = 4,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Inversions:
    """Invert n training images, n held-out ones and n samples, evenly spread over each.

    Args:
        model: in evaluation mode.
        train, held_out: of the run.
        n: images of each kind.
        steps, restarts, seed: of `likely.ask.invert`.
        progress: called with (kinds done, of how many).
    """
    invert = functools.partial(recovered, model, steps=steps, restarts=restarts, seed=seed)
    samples, results = None, []
    if isinstance(model, GenerativeModel):
        context = torch.arange(n) % model.classes if model.classes else None
        x = model.decode(model.drawn_codes(n, seed=seed + 1), model.labels(context, n))
        samples = invert(x, "own samples", labels=context)
    for number, (data, about) in enumerate(((train, "training"), (held_out, "held-out"))):
        part = data.take(np.linspace(0, len(data) - 1, min(n, len(data))).astype(np.int64))
        if progress is not None:
            progress(number + 1, 3)
        x = torch.from_numpy(part.x.astype(np.int64)).to(model.device)
        labels = None
        if model.classes:
            assert part.labels is not None
            labels = torch.from_numpy(part.labels)
        classes = None if part.labels is None else part.labels.tolist()
        fingerprint = part.spec.fingerprint
        about = f"{about} images"
        results.append(invert(x, about, labels=labels, classes=classes, fingerprint=fingerprint))
    known, unknown = results
    gap = unknown.error.value - known.error.value
    half = math.hypot(known.error.standard_error, unknown.error.standard_error)
    half *= confidence_width(min(known.error.n, unknown.error.n))
    if progress is not None:
        progress(3, 3)
    return Inversions(samples, known, unknown, gap, gap - half, gap + half)


@torch.no_grad()
def interpolated(model: Decoder, part: Recovered, pairs: int, steps: int) -> Tensor:
    """Rows real image, path between the two codes, real image: int64 [pairs, steps + 2, *shape].

    On the arc where the prior is N(0, I), and else on the line. For unconditional models.
    """
    spherical = isinstance(model.prior, StandardNormal)
    first, last = part.codes[0 : 2 * pairs : 2], part.codes[1 : 2 * pairs : 2]
    between = slerp if spherical else torch.lerp
    path = [model.decode(between(first, last, s / (steps - 1))).cpu() for s in range(steps)]
    return torch.stack([part.x[0 : 2 * pairs : 2], *path, part.x[1 : 2 * pairs : 2]], 1)
