r"""Is each conditional of an `OrderedDensity` a function of the dimensions of lower rank only?

As for raster order (`likely.verify.causality`), the derivative of each output by each input in
float64, and a change of everything that is not lower: at a cut r all dimensions of rank r and
above take other values, and the parameters of ranks up to r must stay the same numbers. Within a
rank that also shows that pixels which are drawn together do not see each other.

The sampler is checked against the conditionals: after drawing with given uniform numbers, one pass
over the finished image must invert to the same integers everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from likely.density import OrderedDensity, at_least_float, chunks
from likely.sampling.ancestral import invert
from likely.verify.causality import (
    FULL_BUDGET,
    LEAK_TOLERANCE,
    QUICK_BUDGET,
    SAME_TOLERANCE,
    _groups,
    _peak,
    seen_by,
)
from likely.verify.proofs import Proof
from likely.verify.subject import Subject, work_of

SAMPLED_DIMENSIONS = 2000


def ranks(subject: Subject) -> Iterator[Proof]:
    """All causality checks of an `OrderedDensity`."""
    model = subject.model
    assert isinstance(model, OrderedDensity)
    yield from _leaks(subject, model)
    yield _unchanged(subject, model)
    yield _sampler_follows(subject, model)


def _dimension_ranks(model: OrderedDensity) -> tuple[Tensor, Tensor]:
    """Ranks of inputs [C, H, W] and of outputs [G, H, W], channels innermost."""
    channels, groups = model.spec.shape[0], len(_groups(model))
    inputs = torch.arange(channels) if groups > 1 else torch.zeros(channels, dtype=torch.int64)
    rank = model.rank * groups
    return rank + inputs[:, None, None], rank + torch.arange(groups)[:, None, None]


def _leaks(subject: Subject, model: OrderedDensity) -> Iterator[Proof]:
    channels, height, width = model.spec.shape
    inputs, outputs = _dimension_ranks(model)
    budget = QUICK_BUDGET if subject.quick else FULL_BUDGET
    count = max(4, int(budget // (work_of(model, backward=True) * channels)))
    shuffled = torch.randperm(height * width, generator=subject.noise("locations").generator)
    # One pixel of every rank first, as far as they go, then others.
    first: dict[int, int] = {}
    for index in shuffled.tolist():
        first.setdefault(int(model.rank.flatten()[index]), index)
    chosen = list(dict.fromkeys([*first.values(), *shuffled.tolist()]))[:count]
    locations = [divmod(index, width) for index in chosen]
    worst = dict.fromkeys(("self", "channel", "future"), 0.0)
    largest = 0.0
    for (row, column), group, entry in seen_by(subject, model, subject.x[0], locations):
        largest = max(largest, _peak(entry))
        hidden = entry.masked_fill(inputs < outputs[group, row, column], 0.0)
        pixel = hidden[:, row, column].clone()
        hidden[:, row, column] = 0.0
        own = pixel if model.groups == 1 else pixel[group]
        later = pixel[:0] if model.groups == 1 else pixel[group + 1 :]
        for kind, found in (("self", own), ("channel", later), ("future", hidden)):
            worst[kind] = max(worst[kind], _peak(found))
    causes = {
        "self": "the dimension that is predicted",
        "channel": "a channel that comes later in the same pixel",
        "future": "a pixel that does not come before",
    }
    for kind, cause in causes.items():
        yield Proof.at_most(
            f"no {kind} leak",
            worst[kind] / largest if largest > 0 else worst[kind],
            LEAK_TOLERANCE,
            f"Largest derivative by {cause}, over the largest of all; {len(locations)} of "
            f"{height * width} pixels, in float64, in the model's order.",
        )


def _unchanged(subject: Subject, model: OrderedDensity) -> Proof:
    inputs, outputs = _dimension_ranks(model)
    cuts = torch.unique(outputs)
    budget = (QUICK_BUDGET if subject.quick else FULL_BUDGET) / 4
    count = min(len(cuts), max(3, int(budget // work_of(model))))
    mixed = torch.randperm(len(cuts), generator=subject.noise("cuts").generator)
    chosen = cuts[mixed[:count]]
    image = subject.x[0]
    levels = model.spec.levels
    other = (subject.noise("future").uniform(*model.spec.shape) * levels).long()
    other = torch.where(other == image, (other + 1) % levels, other)
    reference = model.conditionals(image[None], subject.labels(1))[0]  # [P, H, W]
    worst = 0.0
    for part in chunks(count, max(1, min(64, int(4e9 // max(1.0, work_of(model)))))):
        changed = torch.stack([torch.where(inputs >= cut, other, image) for cut in chosen[part]])
        parameters = model.conditionals(changed, subject.labels(len(changed)))
        for found, cut in zip(parameters, chosen[part], strict=True):
            for group, rows in enumerate(_groups(model)):
                same = outputs[group] <= cut
                worst = max(worst, _peak((found[rows] - reference[rows])[:, same].abs()))
    return Proof.at_most(
        "unchanged by the future",
        worst,
        SAME_TOLERANCE,
        "Largest change of parameters when all dimensions of the same and of higher ranks take "
        f"other values; {count} of {len(cuts)} ranks.",
    )


def _sampler_follows(subject: Subject, model: OrderedDensity) -> Proof:
    # Integers tell little of small differences, so small images need many of them.
    rows = max(2, min(64, SAMPLED_DIMENSIONS // model.spec.dimensions))
    noise = subject.noise("sampler")
    x = (noise.uniform(rows, *model.spec.shape) * model.spec.levels).to(torch.int64)
    labels, uniform = subject.labels(rows), noise.uniform(*x.shape)
    middle = int(model.rank.max() + 1) // 2
    wrong = 0
    for known in (0, middle):
        drawn = model.fill(x, uniform, known, labels)
        kept = model.rank < known
        wrong += int((drawn != x)[:, :, kept].sum())
        parameters = at_least_float(model.conditionals(drawn, labels))
        for channel in range(x.shape[1]):
            table = model.head.log_table(parameters, drawn, channel)
            expected = invert(table, uniform[:, channel])
            wrong += int((drawn[:, channel] != expected)[:, ~kept].sum())
    return Proof.at_most(
        "the sampler follows the conditionals",
        wrong,
        0.0,
        f"Dimensions of {len(x)} images, drawn whole and from the middle on, that one pass of the "
        "conditionals over the finished image would have drawn otherwise.",
        vital=False,
    )
