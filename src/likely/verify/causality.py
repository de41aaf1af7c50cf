r"""Is each conditional a function of the dimensions before it, and of all of them?

The Jacobian of the conditionals' parameters with respect to the image, in float64: an entry
for the dimension itself (self), for a later channel of the pixel (channel) or for a later pixel
(future) must be zero. What has no derivative (a rounding, a comparison) is caught by changing
all later dimensions and asking for the same numbers.

One backward pass with a row for each output location gives that location's derivatives, because
examples do not couple; `coupling` checks that.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from likely.density import (
    Autoregressive,
    DrawingOrder,
    OrderedDensity,
    arranged,
    chunks,
    in_drawing_order,
)
from likely.sampling.ancestral import Stepper, compiles, executor_for
from likely.verify.proofs import Proof
from likely.verify.subject import Subject, smaller_or_none, work_of

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

Location = tuple[int, int]


def causality(subject: Subject) -> Iterator[Proof]:
    """All causality checks of an autoregressive model, in its own order."""
    model = subject.model
    assert isinstance(model, Autoregressive)
    if model.order is not None:
        view = in_drawing_order(model)
        subject = dataclasses.replace(subject, model=view, x=arranged(model, subject.x))
        model = view
    _, height, width = model.spec.shape
    most = 6 if model.spec.shape[0] == 1 and not subject.quick else 4
    sides = min(most, height), min(most, width)
    found = _smaller(subject, model, sides)
    locations = _locations(subject, found is not None and found[1])
    what = f"{len(locations)} of {height * width} pixels"
    if len(locations) == height * width:
        what = f"all {len(locations)} pixels"
    leaks = _leaks(subject, model, subject.x[: 1 if subject.quick else 2], locations)
    whose = f"Largest derivative by {{}}, over the largest of all; {what}, in float64."
    if found is not None and found[1] and sides != (height, width):
        grid = _grid(*sides)
        x = _random_images(subject, sides)
        inner = _leaks(subject, found[0], x, grid)
        leaks = {kind: max(value, inner[kind]) for kind, value in leaks.items()}
        whose += f" The same weights on {sides[0]} x {sides[1]} images: all pixels."
    causes = {
        "self": "the dimension that is predicted",
        "channel": "a channel that comes later in the same pixel",
        "future": "a later pixel",
    }
    for kind, cause in causes.items():
        yield Proof.at_most(f"no {kind} leak", leaks[kind], LEAK_TOLERANCE, whose.format(cause))
    yield _unchanged_by_the_future(subject)
    yield _rows_below_not_read(subject)
    yield from _sampler_follows(subject)
    if not model.has_blind_spot and height * width > 1:
        yield _past_is_seen(subject)


def _smaller(
    subject: Subject, model: Autoregressive, sides: tuple[int, int]
) -> tuple[Autoregressive, bool] | None:
    """`smaller_or_none` for images of height and width `sides`, drawing in raster order."""
    spec = model.spec
    own = model.model if isinstance(model, DrawingOrder) else model
    found = smaller_or_none(own, (spec.shape[0], *sides), spec.levels, subject.seed)
    if found is None:
        return None
    small, fitted = found
    assert isinstance(small, Autoregressive)
    return in_drawing_order(small), fitted


def _grid(height: int, width: int) -> list[Location]:
    return [(row, column) for row in range(height) for column in range(width)]


def _random_images(subject: Subject, sides: tuple[int, int]) -> Tensor:
    channels = subject.model.spec.shape[0]
    uniform = subject.noise("grid", *sides).uniform(1, channels, *sides)
    return (uniform * subject.model.spec.levels).to(torch.int64)


def _locations(subject: Subject, small_covers: bool) -> list[Location]:
    """Output pixels whose derivatives are taken: all where that is cheap; else corners, edges,
    the centre and random ones, as many as the budget allows."""
    model = subject.model
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
        (height // 2, width // 2), (0, right), (bottom, 0), (bottom, right), (0, 0),
        (height // 2, 0), (height // 2, right), (0, width // 2), (bottom, width // 2),
    ]  # fmt: skip
    shuffled = torch.randperm(len(everywhere), generator=subject.noise("locations").generator)
    random = [everywhere[int(index)] for index in shuffled]
    return list(dict.fromkeys(first + random))[:count]


def _groups(model: Autoregressive | OrderedDensity) -> list[slice]:
    """Rows of the parameters that belong to each channel; one group where the head couples."""
    head = model.head
    if head.couples_channels:
        return [slice(0, head.parameters)]
    each = head.parameters // head.channels
    return [slice(each * c, each * (c + 1)) for c in range(head.channels)]


def seen_by(
    subject: Subject,
    model: Autoregressive | OrderedDensity,
    x: Tensor,
    locations: list[Location],
) -> Iterator[tuple[Location, int, Tensor]]:
    """How strongly each input enters each output: (location, group, |derivative| [C, H, W])."""
    groups = _groups(model)
    probe = subject.noise("weights of outputs").normal(model.head.parameters, dtype=torch.float64)
    wanted = [(place, group) for place in locations for group in range(len(groups))]
    rows = max(1, min(16, int(2e9 // max(1.0, work_of(model)))))
    for part in chunks(len(wanted), rows):
        here = wanted[part]
        images = x.double().expand(len(here), *x.shape).clone().requires_grad_(True)
        parameters = model.conditionals(images, subject.labels(len(here), model=model))
        weight = torch.zeros_like(parameters)
        for row, ((line, column), group) in enumerate(here):
            weight[row, groups[group], line, column] = probe[groups[group]]
        if parameters.requires_grad:
            (gradient,) = torch.autograd.grad(parameters, images, weight)
        else:
            gradient = torch.zeros_like(images)  # no input enters at all
        for (place, group), entry in zip(here, gradient.abs(), strict=True):
            yield place, group, entry


def _leaks(
    subject: Subject, model: Autoregressive | object, x: Tensor, locations: list[Location]
) -> dict[str, float]:
    """The largest forbidden derivative of each kind over the largest of all."""
    assert isinstance(model, Autoregressive)
    couples = model.head.couples_channels
    worst = dict.fromkeys(("self", "channel", "future"), 0.0)
    largest = 0.0
    for image in x:
        for (row, column), group, entry in seen_by(subject, model, image, locations):
            width = entry.shape[2]
            largest = max(largest, _peak(entry))
            pixel = entry[:, row, column]
            later = entry.flatten(1)[:, row * width + column + 1 :]
            found = {
                # With a head that couples channels, the network hides the whole pixel.
                "self": _peak(pixel if couples else pixel[group]),
                "channel": 0.0 if couples else _peak(pixel[group + 1 :]),
                "future": _peak(later),
            }
            worst = {kind: max(worst[kind], found[kind]) for kind in worst}
    # A network that sees nothing has no leak; infinity (from NaN) stays infinity.
    return {kind: value / largest if largest > 0 else value for kind, value in worst.items()}


def _peak(entry: Tensor) -> float:
    """The largest entry; infinity where one is not a number."""
    if entry.numel() == 0:
        return 0.0
    value = float(entry.max())
    return value if value == value else float("inf")


def _unchanged_by_the_future(subject: Subject) -> Proof:
    """Change every later dimension; the parameters so far must be the same numbers."""
    model = subject.model
    assert isinstance(model, Autoregressive)
    channels, height, width = model.spec.shape
    groups = _groups(model)
    budget = (QUICK_BUDGET if subject.quick else FULL_BUDGET) / 4
    total = height * width * len(groups)
    count = min(total, max(3, int(budget // work_of(model))))
    generator = subject.noise("cuts").generator
    cuts = torch.randperm(total, generator=generator)[:count].tolist()
    other = (subject.noise("future").uniform(*model.spec.shape) * model.spec.levels).long()
    image = subject.x[0]
    # The other image must differ in every dimension, or a change could be no change.
    other = torch.where(other == image, (other + 1) % model.spec.levels, other)
    order = torch.arange(height * width).reshape(height, width)
    rows = max(1, min(64, int(4e9 // max(1.0, work_of(model)))))
    reference = model.conditionals(image[None].double(), subject.labels(1))[0]  # [P, H, W]
    worst = 0.0
    for part in chunks(count, rows):
        changed = image.double().repeat(len(cuts[part]), 1, 1, 1)
        for row, cut in enumerate(cuts[part]):
            place, group = divmod(cut, len(groups))
            first = group if len(groups) > 1 else 0
            for channel in range(channels):
                hidden = (order >= place) if channel >= first else (order > place)
                changed[row, channel][hidden] = other[channel][hidden].double()
        parameters = model.conditionals(changed, subject.labels(len(changed)))
        for row, cut in enumerate(cuts[part]):
            place, group = divmod(cut, len(groups))
            for index, rows_of in enumerate(groups):
                known = (order <= place) if index <= group else (order < place)
                difference = (parameters[row, rows_of] - reference[rows_of])[:, known]
                worst = max(worst, _peak(difference.abs()))
    return Proof.at_most(
        "unchanged by the future",
        worst,
        SAME_TOLERANCE,
        f"Largest change of parameters when all later dimensions take other values; {count} of "
        f"{total} cuts.",
    )


def _rows_below_not_read(subject: Subject) -> Proof:
    """Cutting off later rows, as the naive sampler does, must not change the parameters."""
    model = subject.model
    assert isinstance(model, Autoregressive)
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


def _sampler_follows(subject: Subject) -> Iterator[Proof]:
    """The incremental sampler, stepped along given images, against the checked conditionals."""
    model = subject.model
    assert isinstance(model, Autoregressive)
    x = subject.x[:2]
    labels = None if subject.context is None else subject.context[: len(x)]
    stepper = model.stepper(len(x), labels)
    if stepper is None:
        return
    channels, height, width = model.spec.shape
    rows = min(height, max(2, SAMPLER_STEPS // (width * channels)))
    expected = model.conditionals(x, labels)
    scale = max(1.0, _peak(expected.abs()))
    yield Proof.at_most(
        "the sampler follows the conditionals",
        _largest_step_error(model, stepper, x, expected, rows),
        SAME_TOLERANCE * scale,
        f"Largest difference between the incremental sampler's parameters and those of the "
        f"likelihood, {rows} of {height} rows of {len(x)} images.",
        vital=False,
    )
    single = copy.deepcopy(model).float()
    program = None if subject.quick else single.program()
    if program is None or not compiles(single, program):
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


def _largest_step_error(
    model: Autoregressive, stepper: Stepper, x: Tensor, expected: Tensor, rows: int
) -> float:
    """A stepper along x, against the parameters of the parallel pass, [B, P, H, W]."""
    channels, _, width = model.spec.shape
    groups = _groups(model)
    worst = 0.0
    for row in range(rows):
        stepper.begin_row(x[:, :, row - 1] if row else None)
        for column in range(width):
            for channel in range(channels):
                found = stepper.pixel(x[:, :, row], column, channel)
                own = groups[channel if len(groups) > 1 else 0]
                difference = found[:, own] - expected[:, own, row, column]
                worst = max(worst, _peak(difference.abs()))
    return worst


def _past_is_seen(subject: Subject) -> Proof:
    """Every earlier dimension within reach has a nonzero derivative.

    What can be seen is a property of the architecture, so all weights are perturbed at random: a
    weight that stayed zero because a pixel is constant in the data is no blind spot.
    """
    whole = subject.model
    assert isinstance(whole, Autoregressive)
    channels, height, width = whole.spec.shape
    largest = 8 if channels == 1 and not subject.quick else 5
    if work_of(whole, backward=True) * channels * height * width < QUICK_BUDGET:
        largest = 8
    model, fitted = whole, True
    sides = min(largest, height), min(largest, width)
    if sides != (height, width):
        found = _smaller(subject, whole, sides)
        if found is not None:
            model, fitted = found
    height, width = model.spec.shape[1:]
    uniform = subject.noise("past").uniform(PAST_IMAGES, channels, height, width)
    seen: dict[tuple[Location, int], Tensor] = {}
    reach = missing = expected = 0
    # A rectified unit that is off hides what it sees: more images, and weights that are moved
    # further, until nothing is hidden.
    for attempt, image in enumerate((uniform * whole.spec.levels).long()):
        moved = _moved(subject, model, attempt)
        for place, group, entry in seen_by(subject, moved, image, _grid(height, width)):
            old = seen.get((place, group))
            seen[place, group] = entry > 0 if old is None else old | (entry > 0)
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


def _moved(subject: Subject, model: Autoregressive, attempt: int) -> Autoregressive:
    """A copy whose weights are each moved at random: by a tenth of what their tensor's are at the
    first attempt, by as much as they are from the fourth on."""
    twin = copy.deepcopy(model)
    noise = subject.noise("moved", attempt)
    for parameter in twin.parameters():
        size = (float(parameter.square().mean().sqrt()) if parameter.numel() else 0.0) or 1.0
        size *= min(1.0, 0.1 * 3**attempt)
        parameter.add_(size * noise.normal(*parameter.shape, dtype=parameter.dtype))
    return twin


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


__all__ = ["causality", "seen_by"]
