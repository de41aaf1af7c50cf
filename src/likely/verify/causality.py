r"""Is each conditional a function of the dimensions of lower rank, and of all of them?

The Jacobian of the conditionals' parameters with respect to the image, in float64: an entry
for the dimension itself (self), for a later channel of the pixel (channel) or for a pixel that
does not come before (future) must be zero. What has no derivative (a rounding, a comparison) is
caught by changing all dimensions that do not come before and asking for the same numbers. Where
pixels share a rank, both also show that those that are drawn together do not see each other.

The sampler is checked against the conditionals: step by step where it is an incremental program,
and by drawing with given uniform numbers, where one pass over the finished image must
invert to the same integers.

One backward pass with a row for each output location gives that location's derivatives, because
examples do not couple; `coupling` checks that.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from likely.density import Autoregressive, chunks
from likely.heads import invert
from likely.sampling.ancestral import Stepper, compiles, executor_for, rearranged
from likely.sampling.incremental import Incremental
from likely.verify.proofs import Proof
from likely.verify.subject import Subject, moved, smaller_or_none, work_of

# Multiply-adds that a check may cost; about ten seconds of one idle thread in float64.
FULL_BUDGET, QUICK_BUDGET = 1e11, 1e10
# Relative to the largest derivative. Forbidden derivatives are zero; the slack is for backends that
# sum in another order.
LEAK_TOLERANCE = 1e-12
SAME_TOLERANCE = 1e-10
# Of the parameters in float32, relative to the largest: what sampling may be off by.
FLOAT32_TOLERANCE = 1e-4
PAST_IMAGES = 12
SAMPLER_STEPS = 2000
SAMPLED_DIMENSIONS = 2000

Location = tuple[int, int]


def causality(subject: Subject, model: Autoregressive) -> Iterator[Proof]:
    """All causality checks of an autoregressive model, in its order."""
    _, height, width = model.spec.shape
    most = 6 if model.spec.shape[0] == 1 and not subject.quick else 4
    sides = min(most, height), min(most, width)
    instance = _smaller(subject, model, sides)
    locations = _locations(subject, model, instance is not None and instance[1])
    what = f"{len(locations)} of {height * width} pixels"
    if len(locations) == height * width:
        what = f"all {len(locations)} pixels"
    leaks = _leaks(subject, model, subject.x[: 1 if subject.quick else 2], locations)
    whose = f"Largest derivative by {{}}, over the largest of all; {what}, in float64."
    if instance is not None and instance[1] and sides != (height, width):
        grid = _grid(*sides)
        uniform = subject.noise("grid", *sides).uniform(1, model.spec.shape[0], *sides)
        x = (uniform * model.spec.levels).to(torch.int64)
        inner = _leaks(subject, instance[0], x, grid)
        leaks = {kind: max(value, inner[kind]) for kind, value in leaks.items()}
        whose += f" The same weights on {sides[0]} x {sides[1]} images: all pixels."
    causes = {
        "self": "the dimension that is predicted",
        "channel": "a channel that comes later in the same pixel",
        "future": "a pixel that does not come before",
    }
    for kind, cause in causes.items():
        yield Proof.at_most(f"no {kind} leak", leaks[kind], LEAK_TOLERANCE, whose.format(cause))
    yield _unchanged_by_the_future(subject, model)
    if model.takes_upper_rows and model.is_raster:
        yield _rows_below_not_read(subject, model)
    if "incremental" in model.methods:
        assert isinstance(model, Incremental)
        drawn = model if instance is None else instance[0]
        assert isinstance(drawn, Incremental)
        yield from _program_follows(subject, model, drawn)
    elif type(model).fill_fast is not Autoregressive.fill_fast:
        wrong, about = _drawn_otherwise(subject, model)
        name = "the sampler follows the conditionals"
        yield Proof.at_most(name, wrong, 0.0, about, vital=False)
    one_by_one = len(torch.unique(model.rank)) == height * width
    if one_by_one and not model.has_blind_spot and height * width > 1:
        yield _past_is_seen(subject, model)


def _smaller(
    subject: Subject, model: Autoregressive, sides: tuple[int, int]
) -> tuple[Autoregressive, bool] | None:
    """`smaller_or_none` for images of height and width `sides`."""
    spec = model.spec
    return smaller_or_none(model, (spec.shape[0], *sides), spec.levels, subject.seed)


def _grid(height: int, width: int) -> list[Location]:
    return [(row, column) for row in range(height) for column in range(width)]


def _locations(subject: Subject, model: Autoregressive, small_covers: bool) -> list[Location]:
    """Output pixels whose derivatives are taken: all where that is cheap; else corners, edges,
    the centre, one of every rank and random ones, as many as the budget allows."""
    channels, height, width = model.spec.shape
    everywhere = _grid(height, width)
    budget = QUICK_BUDGET if subject.quick else FULL_BUDGET
    cost = work_of(model, backward=True) * channels * (1 if subject.quick else 2)
    count = int(budget // cost)
    if count >= len(everywhere):
        return everywhere
    count = max(count, 1 if small_covers else 4)
    bottom, right = height - 1, width - 1
    first = [
        (height // 2, width // 2),
        (0, right),
        (bottom, 0),
        (bottom, right),
        (0, 0),
        (height // 2, 0),
        (height // 2, right),
        (0, width // 2),
        (bottom, width // 2),
    ]
    shuffled = torch.randperm(len(everywhere), generator=subject.noise("locations").generator)
    random = [everywhere[int(index)] for index in shuffled]
    of_ranks = {int(model.rank[place]): place for place in reversed(random)}
    return list(dict.fromkeys([*first, *of_ranks.values(), *random]))[:count]


def _groups(model: Autoregressive) -> list[slice]:
    """Rows of the parameters that belong to each channel; one group where the head couples."""
    each = model.head.parameters // model.groups
    return [slice(each * c, each * (c + 1)) for c in range(model.groups)]


def _dimension_ranks(model: Autoregressive) -> tuple[Tensor, Tensor]:
    """Ranks of inputs [C, H, W] and of outputs [G, H, W], channels innermost."""
    channels, groups = model.spec.shape[0], model.groups
    inputs = torch.arange(channels) if groups > 1 else torch.zeros(channels, dtype=torch.int64)
    rank = model.rank * groups
    return rank + inputs[:, None, None], rank + torch.arange(groups)[:, None, None]


def seen_by(
    subject: Subject, model: Autoregressive, x: Tensor, locations: list[Location]
) -> Iterator[tuple[Location, int, Tensor]]:
    """How strongly each input enters each output: (location, group, |derivative| [C, H, W])."""
    groups = _groups(model)
    probe = subject.noise("weights of outputs").normal(model.head.parameters, dtype=torch.float64)
    wanted = [(place, group) for place in locations for group in range(len(groups))]
    rows = max(1, min(16, int(2e9 // max(1.0, work_of(model)))))
    for part in chunks(len(wanted), rows):
        outputs = wanted[part]
        images = x.double().expand(len(outputs), *x.shape).clone().requires_grad_(True)
        parameters = model.conditionals(images, subject.labels(len(outputs), model=model))
        weight = torch.zeros_like(parameters)
        for row, ((line, column), group) in enumerate(outputs):
            weight[row, groups[group], line, column] = probe[groups[group]]
        if parameters.requires_grad:
            (gradient,) = torch.autograd.grad(parameters, images, weight)
        else:
            gradient = torch.zeros_like(images)  # no input enters at all
        for (place, group), entry in zip(outputs, gradient.abs(), strict=True):
            yield place, group, entry


def _leaks(
    subject: Subject, model: Autoregressive, x: Tensor, locations: list[Location]
) -> dict[str, float]:
    """The largest forbidden derivative of each kind over the largest of all."""
    inputs, outputs = _dimension_ranks(model)
    worst = dict.fromkeys(("self", "channel", "future"), 0.0)
    largest = 0.0
    for image in x:
        for (row, column), group, entry in seen_by(subject, model, image, locations):
            largest = max(largest, _peak(entry))
            forbidden = entry.masked_fill(inputs < outputs[group, row, column], 0.0)
            pixel = forbidden[:, row, column].clone()
            forbidden[:, row, column] = 0.0
            # With a head that couples channels, the network hides the whole pixel.
            coupled = model.head.couples_channels
            peaks = {
                "self": _peak(pixel if coupled else pixel[group]),
                "channel": 0.0 if coupled else _peak(pixel[group + 1 :]),
                "future": _peak(forbidden),
            }
            worst = {kind: max(worst[kind], peaks[kind]) for kind in worst}
    # A network that sees nothing has no leak; infinity (from NaN) stays infinity.
    return {kind: value / largest if largest > 0 else value for kind, value in worst.items()}


def _peak(entry: Tensor) -> float:
    """The largest entry; infinity where one is not a number."""
    if entry.numel() == 0:
        return 0.0
    value = float(entry.max())
    return value if value == value else float("inf")


def _unchanged_by_the_future(subject: Subject, model: Autoregressive) -> Proof:
    """Change every dimension from some rank on; the parameters so far must be the same numbers."""
    inputs, outputs = _dimension_ranks(model)
    cuts = torch.unique(outputs)
    budget = (QUICK_BUDGET if subject.quick else FULL_BUDGET) / 4
    count = min(len(cuts), max(3, int(budget // work_of(model))))
    mixed = torch.randperm(len(cuts), generator=subject.noise("cuts").generator)
    chosen = cuts[mixed[:count]]
    image = subject.x[0]
    other = (subject.noise("future").uniform(*model.spec.shape) * model.spec.levels).long()
    # The other image must differ in every dimension, or a change could be no change.
    other = torch.where(other == image, (other + 1) % model.spec.levels, other)
    rows = max(1, min(64, int(4e9 // max(1.0, work_of(model)))))
    reference = model.conditionals(image[None].double(), subject.labels(1))[0]  # [P, H, W]
    worst = 0.0
    for part in chunks(count, rows):
        changed = torch.stack([torch.where(inputs >= cut, other, image) for cut in chosen[part]])
        changed_parameters = model.conditionals(changed.double(), subject.labels(len(changed)))
        for parameters, cut in zip(changed_parameters, chosen[part], strict=True):
            for group, of_group in enumerate(_groups(model)):
                difference = (parameters[of_group] - reference[of_group])[:, outputs[group] <= cut]
                worst = max(worst, _peak(difference.abs()))
    return Proof.at_most(
        "unchanged by the future",
        worst,
        SAME_TOLERANCE,
        "Largest change of parameters when all dimensions that do not come before take other "
        f"values; {count} of {len(cuts)} cuts.",
    )


def _rows_below_not_read(subject: Subject, model: Autoregressive) -> Proof:
    """Cutting off later rows, as the naive sampler does, must not change the parameters."""
    x = subject.x[:1]
    rows = (x.shape[2] + 1) // 2
    whole = model.conditionals(x, subject.labels(1))[:, :, :rows]
    top = model.conditionals(x[:, :, :rows], subject.labels(1))
    return Proof.at_most(
        "rows below are not needed",
        _peak((whole - top).abs()),
        SAME_TOLERANCE * max(1.0, _peak(whole.abs())),
        "Largest change of parameters when the lower half of the image is cut off, as the "
        "sampler does.",
    )


def _program_follows(subject: Subject, model: Incremental, small: Incremental) -> Iterator[Proof]:
    """The incremental sampler, stepped along given images, against the checked conditionals.

    Whole samples are drawn of a small instance, at a pass for every few of them.
    """
    x = subject.x[:2]
    labels = None if subject.context is None else subject.context[: len(x)]
    channels, height, width = model.spec.shape
    rows = min(height, max(2, SAMPLER_STEPS // (width * channels)))
    # A program counts in the model's order.
    order = model.rank.flatten().argsort()
    expected = rearranged(model.conditionals(x, labels), order)
    x = rearranged(x, order)
    scale = max(1.0, _peak(expected.abs()))
    error = _largest_step_error(model, model.stepper(len(x), labels), x, expected, rows)
    wrong, about = _drawn_otherwise(subject, small)
    yield Proof.at_most(
        "the sampler follows the conditionals",
        math.inf if wrong else error,
        SAME_TOLERANCE * scale,
        f"Largest difference between the incremental sampler's parameters and those of the "
        f"likelihood, {rows} of {height} rows of {len(x)} images. {about} Of these: {wrong}.",
        vital=False,
    )
    if subject.quick:
        return
    single = copy.deepcopy(model).float()
    program = single.program()
    if not compiles(single, program):
        return
    compiled = Stepper(program, executor_for(single, program, len(x), labels))
    yield Proof.at_most(
        "the compiled sampler follows the conditionals",
        _largest_step_error(single, compiled, x, expected, rows),
        FLOAT32_TOLERANCE * scale,
        f"The same for the compiled sampler in float32, {rows} of {height} rows of {len(x)} "
        "images.",
        vital=False,
    )


def _drawn_otherwise(subject: Subject, model: Autoregressive) -> tuple[int, str]:
    """What is drawn with given uniform numbers against the conditionals: (how many differ, of
    what)."""
    # Integers tell little of small differences, so small images need many of them.
    rows = max(2, min(64, SAMPLED_DIMENSIONS // model.spec.dimensions))
    noise = subject.noise("sampler")
    x = (noise.uniform(rows, *model.spec.shape) * model.spec.levels).to(torch.int64)
    labels, uniform = subject.labels(rows, model=model), noise.uniform(*x.shape)
    middle = int(model.rank.max() + 1) // 2
    wrong = 0
    for known in (0, middle):
        drawn = model.fill(x, uniform, known, labels) if known else model.draw_from(uniform, labels)
        kept = model.rank < known
        wrong += int((drawn != x)[:, :, kept].sum())
        parameters = model.conditionals(drawn, labels).double()
        for channel in range(x.shape[1]):
            table = model.head.log_table(parameters, drawn, channel)
            expected = invert(table, uniform[:, channel])
            wrong += int((drawn[:, channel] != expected)[:, ~kept].sum())
    return wrong, (
        f"Dimensions of {len(x)} images, drawn whole and from the middle on, that one pass of the "
        "conditionals over the finished image would have drawn otherwise."
    )


def _largest_step_error(
    model: Autoregressive, stepper: Stepper, x: Tensor, expected: Tensor, rows: int
) -> float:
    """A stepper along x, against the parameters of the parallel pass, both in drawing order."""
    channels, _, width = model.spec.shape
    groups = _groups(model)
    worst = 0.0
    for row in range(rows):
        stepper.begin_row(x[:, :, row - 1] if row else None)
        for column in range(width):
            for channel in range(channels):
                parameters = stepper.pixel(x[:, :, row], column, channel)
                of_channel = groups[channel if len(groups) > 1 else 0]
                difference = parameters[:, of_channel] - expected[:, of_channel, row, column]
                worst = max(worst, _peak(difference.abs()))
    return worst


def _past_is_seen(subject: Subject, whole: Autoregressive) -> Proof:
    """Every earlier dimension within reach has a nonzero derivative.

    What can be seen is a property of the architecture, so all weights are perturbed at random: a
    weight that stayed zero because a pixel is constant in the data is no blind spot.
    """
    channels, height, width = whole.spec.shape
    largest = 8 if channels == 1 and not subject.quick else 5
    if work_of(whole, backward=True) * channels * height * width < QUICK_BUDGET:
        largest = 8
    model, fitted = whole, True
    sides = min(largest, height), min(largest, width)
    if sides != (height, width):
        model, fitted = _smaller(subject, whole, sides) or (whole, True)
    height, width = model.spec.shape[1:]
    # Near and far are counted in the order of drawing, as if it were that of rows.
    rank = model.rank.flatten()
    order = rank.argsort()
    uniform = subject.noise("past").uniform(PAST_IMAGES, channels, height, width)
    seen: dict[tuple[Location, int], Tensor] = {}
    reach = missing = expected = 0
    # A rectified unit that is off hides what it sees: more images, and weights that are moved
    # further, until nothing is hidden.
    for attempt, image in enumerate((uniform * whole.spec.levels).long()):
        other = moved(subject, model, attempt)
        for (row, column), group, entry in seen_by(subject, other, image, _grid(height, width)):
            key = divmod(int(rank[row * width + column]), width), group
            now = rearranged(entry[None], order)[0] > 0
            seen[key] = seen[key] | now if key in seen else now
        reach = _reach(seen, height, width)
        missing, expected = _unseen(seen, reach, model.head.couples_channels)
        if expected and not missing:
            break
    whose = "the fitted weights" if fitted else "fresh weights of the same settings"
    whose += ", all moved at random"
    return Proof.at_most(
        "the past is seen",
        missing if expected else float(height * width > 1),
        0.0,
        f"Earlier dimensions without influence, of {expected} within {reach} rows and columns, "
        f"on {height} x {width} images with {whose}; the reach is the shorter of what is seen "
        "straight up and straight left.",
        vital=False,
    )


def _reach(seen: dict[tuple[Location, int], Tensor], height: int, width: int) -> int:
    """The shorter of the distances seen straight up and straight left, in pixels.

    An image of one row (column) has no pixels above (to the left): there the other way decides.
    """
    corner = (height - 1, width - 1)
    by_pixel = torch.stack([m.any(0) for (place, _), m in seen.items() if place == corner]).any(0)
    up = [corner[0] - row for row in range(height - 1) if by_pixel[row, corner[1]]]
    left = [corner[1] - column for column in range(width - 1) if by_pixel[corner[0], column]]
    reaches = [max(far, default=0) for far, side in ((up, height), (left, width)) if side > 1]
    return min(reaches)


def _unseen(seen: dict[tuple[Location, int], Tensor], reach: int, couples: bool) -> tuple[int, int]:
    """(earlier dimensions within reach that are not seen, how many there are)."""
    missing = expected = 0
    for ((row, column), group), mask in seen.items():
        height, width = mask.shape[1:]
        lines = torch.arange(height)[:, None]
        columns = torch.arange(width)[None]
        before = (lines < row) | ((lines == row) & (columns < column))
        near = (row - lines <= reach) & ((columns - column).abs() <= reach)
        wanted = (before & near).expand(mask.shape).clone()
        if not couples:
            wanted[:group, row, column] = True
        missing += int((wanted & ~mask).sum())
        expected += int(wanted.sum())
    return missing, expected
