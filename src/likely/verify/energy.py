"""Densities up to a constant: free energy, Z, chains and annealed weights against sums over states.

All on a tiny instance, whose images and hidden states can be listed. There E[w] = Z for any number
of temperatures, the mean of log w is at most log Z, and backwards from exact samples at least.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from likely.density import EnergyBased
from likely.heads import invert
from likely.verify.proofs import Proof
from likely.verify.subject import (
    Subject,
    all_images,
    few_channels,
    least_levels,
    smaller_or_none,
)

TOLERANCE = 1e-8
SIGMAS = 5.0
HIDDEN = 3
CHAINS = 8000
SHAPE = (2, 2)


def energies(subject: Subject, model: EnergyBased) -> Iterator[Proof]:
    """All checks."""
    channels = few_channels(model)
    shape = (channels, *SHAPE) if channels == 1 else (channels, 1, 1)
    levels = least_levels(model) if model.spec.levels > 2 else 2
    tiny = smaller_or_none(model, shape, levels, subject.seed, hidden=HIDDEN)
    if tiny is None:
        about = f"{type(model).__name__} cannot be built for few pixels."
        yield Proof.at_most("the free energy sums over the hidden units", math.inf, 0.0, about)
        return
    yield from _on_tiny(subject, tiny[0])


def _on_tiny(subject: Subject, tiny: EnergyBased) -> Iterator[Proof]:
    x, h = all_images(tiny.spec.shape, tiny.spec.levels), all_images((tiny.hidden,), 2)
    what = f"all {len(x)} images, {tiny.hidden} hidden units, fresh weights"
    free = tiny.free_energy(x)
    joint = torch.stack([tiny.energy(x, state.expand(len(x), -1)) for state in h])
    yield Proof.at_most(
        "the free energy sums over the hidden units",
        float((free + (-joint).logsumexp(0)).abs().max()),
        TOLERANCE,
        f"Largest difference from -log sum_h exp(-E(x, h)), nats; {what}.",
    )
    log_z = float((-free).logsumexp(0))
    settings = {"temperatures": 2, "chains": 1}
    summed = tiny.log_partition(subject.noise("sum"), **settings)
    yield Proof.at_most(
        "log Z is the sum over all images",
        abs(summed.value - log_z) if summed.exact else math.inf,
        TOLERANCE,
        f"Difference from log sum_x exp(-F(x)), nats; {what}.",
    )
    p = (-free - log_z).exp()
    drawn = x[invert(p.log().expand(CHAINS, -1), subject.noise("exact").uniform(CHAINS))]
    moved = tiny.advanced(drawn, 1, subject.noise("gibbs"))
    yield Proof.at_most(
        "a step of the chain leaves p as it is",
        _largest_z(moved, x, p),
        SIGMAS,
        f"Shares of {CHAINS} chains after one step from exact samples; {what}; standard errors.",
    )
    worst, low, high = 0.0, -math.inf, -math.inf
    for temperatures in (2, 4) if subject.quick else (3, 6, 11):
        noise = subject.noise("annealed", temperatures)
        forward = tiny.log_weights(noise, temperatures=temperatures, chains=CHAINS) - log_z
        back = tiny.log_weights(noise, temperatures=temperatures, chains=CHAINS, start=drawn)
        back = back - log_z
        worst = max(worst, abs(_z(forward.exp() - 1)), abs(_z((-back).exp() - 1)))
        low, high = max(low, _z(forward)), max(high, _z(-back))
    about = f"{CHAINS} chains; {what}; standard errors"
    yield Proof.at_most(
        "annealed weights average to Z", worst, SIGMAS, f"Mean of w against Z, both ways; {about}."
    )
    yield Proof.at_most(
        "log Z lies between the annealed means",
        max(low, high),
        SIGMAS,
        f"Excess of the mean of log w over log Z, and backwards of log Z over it; {about}.",
    )


def _largest_z(drawn: Tensor, every: Tensor, p: Tensor) -> float:
    """The largest difference of shares from probabilities, in standard errors."""
    same = (drawn.flatten(1)[:, None] == every.flatten(1)).all(-1)  # [chains, images]
    n = len(drawn)
    error = (p * (1 - p) / n).clamp(min=1 / n**2).sqrt()
    return float(((same.double().mean(0) - p).abs() / error).max())


def _z(values: Tensor) -> float:
    """Mean in standard errors of that mean; rounding counts as none."""
    z = float(values.mean()) / (float(values.std()) / math.sqrt(len(values)) + 1e-12)
    return z if z == z else math.inf
