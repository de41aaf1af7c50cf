"""Does the distribution sum to one: each conditional, and all images of a tiny instance?"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from likely.density import Autoregressive, Fittable, LatentVariable, TractableDensity, chunks
from likely.heads import Head
from likely.verify.causality import FULL_BUDGET, QUICK_BUDGET
from likely.verify.drawing import samples_follow
from likely.verify.proofs import Proof
from likely.verify.subject import (
    Subject,
    all_images,
    few_channels,
    least_levels,
    smaller_or_none,
    work_of,
)

SUM_TOLERANCE = 1e-9
TOTAL_TOLERANCE = 1e-8
MOST_IMAGES = 5_000


def conditionals_sum_to_one(subject: Subject) -> Iterator[Proof]:
    """The head at the network's outputs: its tables sum to one and give `log_prob`."""
    model = subject.model
    x = subject.x[: 1 if subject.quick else 3]
    if isinstance(model, Autoregressive):
        parameters = model.conditionals(x, subject.labels(len(x)))
        reported, head = model.log_prob(x, subject.labels(len(x))), model.head
    elif isinstance(model, LatentVariable):
        labels = subject.labels(len(x))
        q = model.posterior(x, labels)
        z = q.sample(subject.noise("elbo").normal(*q.mean.shape, dtype=q.mean.dtype))
        parameters = model.likelihood_given_z.conditionals(x, model.decoder_output(z, labels))
        head = model.head
        reported, _ = model.elbo_terms(x, subject.noise("elbo"), labels)
    else:
        return
    off, total = from_tables(head, parameters, x)
    yield Proof.at_most(
        "each conditional sums to one",
        off,
        SUM_TOLERANCE,
        f"Largest |log of the sum over {model.spec.levels} levels|, every dimension of {len(x)} "
        "images.",
    )
    gap = float(((total - reported).abs() / reported.abs().clamp(min=1.0)).max())
    yield Proof.at_most(
        "the reported likelihood is the tables' product",
        gap,
        SUM_TOLERANCE,
        f"Largest relative difference between the log-likelihood of {len(x)} images and the sum "
        "of the table entries at their values.",
    )


def from_tables(head: Head, parameters: Tensor, x: Tensor) -> tuple[float, Tensor]:
    """(largest |log sum| of a table, log-likelihood of each image read off the tables [B])."""
    worst = 0.0
    total = torch.zeros(len(x), dtype=torch.float64)
    for row in range(x.shape[2]):
        line = slice(row, row + 1)
        for channel in range(x.shape[1]):
            values = x[:, :, line]
            table = head.log_table(parameters[:, :, line], values, channel)  # [B, L, 1, W]
            sums = table.logsumexp(1).abs()
            worst = max(worst, float(sums.max()) if not bool(sums.isnan().any()) else math.inf)
            total += table.gather(1, values[:, channel].unsqueeze(1)).sum((1, 2, 3))
    return worst, total


def total_probability(subject: Subject, model: TractableDensity) -> Iterator[Proof]:
    """Sum over all images of a tiny instance of a tractable density."""
    budget = (QUICK_BUDGET if subject.quick else FULL_BUDGET) / 4
    built = [
        (shape, levels, *smaller)
        for shape, levels in _tiny_shapes(model)
        if (smaller := smaller_or_none(model, shape, levels, subject.seed)) is not None
    ]
    # The largest that the budget allows, or the smallest.
    affordable = [
        entry
        for entry in built
        if work_of(entry[2], entry[1] ** entry[2].spec.dimensions) <= budget
    ]
    chosen = affordable[: 1 if subject.quick else 2] or built[-1:]
    for shape, levels, tiny, fitted in chosen:
        images = all_images(shape, levels)
        worst, last = 0.0, _last_label(tiny)
        for label in sorted({0, last}):
            parts = [
                tiny.log_prob(images[part], subject.labels(len(images[part]), label, tiny))
                for part in chunks(len(images), 1024)
            ]
            log_p = torch.cat(parts)
            mass = math.exp(float(log_p.logsumexp(0)))
            worst = max(worst, abs(mass - 1.0) if math.isfinite(mass) else math.inf)
        whose = "the fitted weights" if fitted else "fresh weights of the same settings"
        yield Proof.at_most(
            f"total probability on {' x '.join(map(str, shape))}, {levels} levels",
            worst,
            TOTAL_TOLERANCE,
            f"|sum of p(x) over all {len(images)} images - 1|, with {whose}.",
        )
    if chosen:
        yield samples_follow(subject, tiny, log_p, last)
    else:
        yield Proof.at_most(
            "total probability",
            math.inf,
            TOTAL_TOLERANCE,
            f"{type(model).__name__} cannot be built for images of few pixels, so nothing could "
            "be summed.",
        )


def _last_label(model: Fittable) -> int:
    """The last class, or the number of another context than the first; 0 without any."""
    return model.classes - 1 if model.classes else len(model.context_shape[:1])


def _tiny_shapes(model: Fittable) -> list[tuple[tuple[int, ...], int]]:
    """Shapes and levels whose images are few enough to list, the most work first."""
    c, levels = few_channels(model), least_levels(model)
    sides: list[tuple[tuple[int, ...], int]] = [
        ((c, 3, 3), 2),
        ((c, 2, 2), levels),
        ((c, 2, 2), 2),
        ((c, 1, 2), levels),
        ((c, 1, 2), 2),
    ]
    if c > 3:  # images of two pixels are many, and orders by columns too need a square
        sides.append(((c, 1, 1), 2))
    work = {(s, n): n ** math.prod(s) * s[1] * s[2] for s, n in sides}
    few = [entry for entry in work if entry[1] ** math.prod(entry[0]) <= MOST_IMAGES]
    return sorted(few, key=lambda entry: -work[entry])
