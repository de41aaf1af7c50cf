"""Gradients reach every weight; implicit densities give finite images in range."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from likely.density import Fittable, ImplicitDensity, Subsampled
from likely.errors import InvalidSetting
from likely.noise import noise_for, weights_from
from likely.training.objectives import Step, default_objective
from likely.verify.proofs import Proof
from likely.verify.subject import Subject, smaller_or_none

REACH = "gradients reach every weight"
# So many that one of four alternatives is missed with a probability below 1e-7.
DRAWS = 64
# A side at which the weights of every network have something to read.
LARGE_ENOUGH = 8


def gradients_reach_every_weight(subject: Subject) -> Proof:
    """One loss of the kind's default objective for each player of the model, in training mode.

    A model that draws alternatives in training (the networks of a mixture, masks) is asked until
    all weights were reached, `DRAWS` times at most.
    """
    try:
        dead = _dead(subject, subject.model, subject.x, subject.context)
        if dead:
            dead = _dead_at_any_size(subject, dead)
        return reach(subject.model, dead)
    except InvalidSetting as error:
        return Proof.at_most(REACH, math.inf, 0.0, f"No objective fits: {error}.", vital=False)


def reach(model: torch.nn.Module, dead: Sequence[str]) -> Proof:
    """That no weight of a model is among those that no gradient reached, whose names these are."""
    count = sum(1 for _ in model.parameters())
    which = f" Not reached: {', '.join(dead[:5])}." if dead else ""
    about = f"Tensors, of {count}, without a finite, nonzero gradient.{which}"
    return Proof.at_most(REACH, len(dead), 0.0, about, vital=False)


def useful(gradient: Tensor | None) -> bool:
    """Whether a gradient moves its weights: NaN counts as none."""
    return gradient is not None and bool(gradient.isfinite().all()) and bool(gradient.any())


def _dead_at_any_size(subject: Subject, dead: list[str]) -> list[str]:
    """Of these weights, those that no larger image of the same class and settings reaches either.

    A network for images of one row holds weights for the rows above, which no pixel here has.
    """
    channels, height, width = subject.model.spec.grid
    sides = max(height, LARGE_ENOUGH), max(width, LARGE_ENOUGH)
    if sides == (height, width):
        return dead
    spec = subject.model.spec
    smaller = smaller_or_none(subject.model, (channels, *sides), spec.levels, subject.seed)
    if smaller is None:
        return dead
    uniform = subject.noise("larger").uniform(len(subject.x), channels, *sides)
    x = (uniform * spec.levels).to(torch.int64)
    context = subject.context
    if len(smaller[0].context_shape) == 3 and context is not None:
        context = subject.noise("larger context").normal(
            len(x), *smaller[0].context_shape, dtype=torch.float64
        )
    return sorted(set(dead) & set(_dead(subject, smaller[0], x, context)))


def _dead(subject: Subject, model: Fittable, x: Tensor, context: Tensor | None) -> list[str]:
    """Names of the weights that no player's loss on these images reaches."""
    model = copy.deepcopy(model).train()
    model.requires_grad_(True)
    objective = default_objective(model)
    with weights_from(subject.seed):
        players = {player: n.double() for player, n in objective.players(model).items()}
    weights = list(model.parameters())
    reached = {id(parameter) for parameter in weights if not parameter.numel()}
    # An adversary is not the model's: its weights need not be reached.
    reached |= {id(p) for n in players.values() for p in n.parameters()} - set(map(id, weights))
    several = isinstance(model, Subsampled) and model.alternatives > 1
    draws = DRAWS if several else 1
    for draw, (player, module) in itertools.product(range(draws), players.items()):
        if all(id(parameter) in reached for parameter in module.parameters()):
            continue
        model.zero_grad(set_to_none=True)
        noise = subject.noise("gradient", player, draw)
        with torch.enable_grad(), noise_for(model, noise):
            loss = objective.loss(Step(model, players, player, x, context, noise, 0))
            loss.value.sum().backward()  # type: ignore[no-untyped-call]
        for parameter in module.parameters():
            if useful(parameter.grad):
                reached.add(id(parameter))
    return [name for name, parameter in model.named_parameters() if id(parameter) not in reached]


def images_in_range(subject: Subject, model: ImplicitDensity) -> Iterator[Proof]:
    """Generated images are finite and in [-1, 1], and samples are integers in [0, levels)."""
    n = 16
    labels = None if subject.context is None else torch.arange(n) % model.classes
    images = model.generate(model.latents(subject.noise("range"), n), labels)
    broken = int((~images.isfinite()).sum())
    excess = math.inf if broken else max(0.0, float(images.abs().max()) - 1.0)
    about = f"Values that are not finite in {n} images."
    yield Proof.at_most("generated images are finite", broken, 0.0, about)
    about = f"Largest excess over the range that stands for the levels, {n} images."
    yield Proof.at_most("generated images are in [-1, 1]", excess, 1e-9, about)
    x = model.sample(n, seed=subject.seed, context=labels)
    outside = int(((x < 0) | (x >= model.spec.levels)).sum())
    outside += int(tuple(x.shape[1:]) != model.spec.shape)
    about = f"Values outside [0, {model.spec.levels}) in {n} samples."
    yield Proof.at_most("samples are levels", outside, 0.0, about)
