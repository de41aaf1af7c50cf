r"""Annealed importance sampling: log p(x) of a latent-variable model, near the truth.

One draw of z from the encoder is moved through densities between q(z|x) and p(x, z),

    log f_t(z) = (1 - b_t) log q(z|x) + b_t log p(x, z),      0 = b_0 < ... < b_T = 1,
    log w = sum_t log f_t(z_{t-1}) - log f_{t-1}(z_{t-1}),    z_t ~ kernel that leaves f_t invariant

(the weight is updated before the move). Then E[w] = p(x) for any temperatures and any number of
moves, so the log of the mean of w over chains is a lower bound on log p(x) in expectation, which
tightens with temperatures where L_k tightens with samples. With two temperatures it is L_k.

Backwards, from an exact sample of p(z|x), the same weights average 1 / p(x): an upper bound on
log p(x). Only an x that the model itself drew comes with such a z, so the gap between the bounds
(bidirectional Monte Carlo) is measured on simulated data. About real data it is a hint.

The kernel is Hamiltonian Monte Carlo in units of the spread of q, whose step sizes are tuned for
each image and temperature in a pilot run and then frozen, with other noise: adapting during the
run is no valid kernel. Where that is faster, its slopes are computed in bfloat16; what decides on
acceptance and enters the weights is not. Noise is keyed by image and seed.

Deviations: Wu et al. take 10 leapfrog steps and thousands of temperatures.

Sources: Neal 2001, https://arxiv.org/abs/physics/9803008; Wu, Burda, Salakhutdinov and Grosse 2017
(encoder as first density; schedule), https://arxiv.org/abs/1611.04273; Grosse, Ghahramani and Adams
2015 (bidirectional), https://arxiv.org/abs/1511.02543; Neal 2011 (Hamiltonian Monte Carlo),
https://arxiv.org/abs/1206.1901.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from likely.data.spec import Dataset
from likely.density import Fittable, LatentVariable, chunks, evaluating, reading_of
from likely.devices import autocast, convolved_precision, gains_by_bfloat16
from likely.devices.precision import reduced_precision, without_autocast
from likely.errors import InvalidSetting
from likely.estimate import Estimate, Relation
from likely.evaluate.likelihood import (
    FloatArray,
    PerExample,
    _refuse_misfit,
    _refuse_non_finite,
    per_example_nll,
    proofs_of,
    quantity_of,
)
from likely.evaluate.quadrature import can_integrate, integrates_quickly, quadrature
from likely.noise import Noise
from likely.verify import Proofs

# Parameters of p(x | z) in memory at a time; the backward pass keeps the activations, too.
DECODED = 2**18
# Draws of q(z | x) that tell its spread.
SPREAD = 64
# Acceptance that the pilot steers to, and how far a step size moves (log) for each unit off it.
ACCEPTANCE, RATE = 0.8, 1.0
# Slope of the logistic function at the ends of the schedule (Wu et al. 2017).
SLOPE = 4.0

Progress = Callable[[str, int, int], None]


@dataclasses.dataclass(frozen=True)
class AnnealedSettings:
    """How log p(x) is annealed.

    Attributes:
        n: images, spread evenly over the data; all where there are fewer.
        temperatures: densities from q(z|x) to p(x, z), both counted.
        chains: weights that are averaged for each image.
        leapfrogs: steps of a move; each decodes forwards and backwards once.
        simulated: images that the model draws for the gap between the two bounds; 0 for none.
        importance_samples: k of the bound L_k that is compared with.
    """

    n: int = 1000
    temperatures: int = 100
    chains: int = 16
    leapfrogs: int = 3
    simulated: int = 100
    importance_samples: int = 100

    def __post_init__(self) -> None:
        for field, least in zip(dataclasses.fields(self), (1, 2, 1, 1, 0, 1), strict=True):
            if getattr(self, field.name) < least:
                raise InvalidSetting(
                    f"{field.name} must be at least {least}, given {getattr(self, field.name)}"
                )


class Streams:
    """A stream of noise for each image, so that its numbers do not depend on its neighbours."""

    def __init__(self, keys: Iterable[tuple[int | str, ...]], device: torch.device) -> None:
        self.streams = [Noise("annealed", *key, device=device) for key in keys]

    def normal(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """Standard normal numbers; the rows are split evenly among the images, in order."""
        rows = shape[0] // len(self.streams)
        return torch.cat([stream.normal(rows, *shape[1:], dtype=dtype) for stream in self.streams])

    def uniform(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1), split likewise."""
        rows = shape[0] // len(self.streams)
        return torch.cat([stream.uniform(rows, *shape[1:]) for stream in self.streams])


class State(NamedTuple):
    """Where chains are: z and gradients [R, Z], log q(z|x) and log p(x, z) [R]."""

    z: Tensor
    log_q: Tensor
    log_joint: Tensor
    slope_q: Tensor
    slope_joint: Tensor


# log q(z|x) and log p(x, z), [R] each, of z [R, Z].
LogProbs = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclasses.dataclass(frozen=True)
class Densities:
    """Both ends of the annealing.

    Attributes:
        log_probs: in full precision.
        reduced: opens a block in which their slopes are computed, in less; None for no such block.
            Leapfrog steps along any function of z keep volume and can be reversed, and a move is
            accepted by the values at its ends: what the slopes are costs acceptance, never truth.
    """

    log_probs: LogProbs
    reduced: Callable[[], contextlib.AbstractContextManager[Any]] | None = None

    def slopes(self, z: Tensor) -> tuple[Tensor, ...]:
        """(slope of log q(z|x), of log p(x, z), and both values), at z."""
        with torch.enable_grad(), (self.reduced or contextlib.nullcontext)():
            z = z.detach().requires_grad_()
            log_q, joint = self.log_probs(z)
            (slope_q,) = torch.autograd.grad(log_q.sum(), z, retain_graph=True)
            (slope_joint,) = torch.autograd.grad(joint.sum(), z)
        return slope_q, slope_joint, log_q.detach(), joint.detach()

    def at(self, z: Tensor) -> State:
        """The state of chains at z."""
        slope_q, slope_joint, log_q, joint = self.slopes(z)
        if self.reduced is not None:
            with torch.no_grad():
                log_q, joint = self.log_probs(z)
        return State(z.detach(), log_q, joint, slope_q, slope_joint)


def schedule(temperatures: int) -> list[float]:
    """b_0 = 0 ... b_T = 1: a logistic function, rescaled, which is slow at both ends."""
    at = [SLOPE * (2 * t / (temperatures - 1) - 1) for t in range(temperatures)]
    low, high = (1 / (1 + math.exp(-end)) for end in (at[0], at[-1]))
    inner = [(1 / (1 + math.exp(-a)) - low) / (high - low) for a in at[1:-1]]
    return [0.0, *inner, 1.0]


def move(
    densities: Densities,
    state: State,
    beta: float,
    step: Tensor,
    leapfrogs: int,
    noise: Noise | Streams,
) -> tuple[State, Tensor]:
    """One move of Hamiltonian Monte Carlo that leaves f = q^(1 - beta) p(x, z)^beta as it is.

    Args:
        densities: at both ends.
        state: of the chains before.
        beta: of the density.
        step: of each coordinate, [R, Z].
        leapfrogs: steps of the trajectory.
        noise: of momenta and acceptance.

    Returns:
        (the state afterwards, the probability of acceptance [R]).
    """

    def log_f(at: State) -> Tensor:
        return (1 - beta) * at.log_q.double() + beta * at.log_joint.double()

    def kick(slope_q: Tensor, slope_joint: Tensor) -> Tensor:
        return step * ((1 - beta) * slope_q + beta * slope_joint)

    first = noise.normal(*state.z.shape, dtype=state.z.dtype)
    momentum, z = first + kick(state.slope_q, state.slope_joint) / 2, state.z
    for _ in range(leapfrogs - 1):
        z = z + step * momentum
        momentum = momentum + kick(*densities.slopes(z)[:2])
    proposed = densities.at(z + step * momentum)
    momentum = momentum + kick(proposed.slope_q, proposed.slope_joint) / 2
    energy = 0.5 * (first.double() ** 2 - momentum.double() ** 2).sum(-1)
    chance = (log_f(proposed) - log_f(state) + energy).exp().clamp(max=1.0)
    # A trajectory that ran off to where nothing is finite is refused.
    chance = chance.nan_to_num(0.0)
    taken = noise.uniform(len(chance)) < chance
    pairs = zip(proposed, state, strict=True)
    return State(
        *(torch.where(taken if a.ndim == 1 else taken[:, None], a, b) for a, b in pairs)
    ), chance


def tuned(
    densities: Densities,
    z: Tensor,
    betas: list[float],
    spread: Tensor,
    leapfrogs: int,
    noise: Noise | Streams,
) -> list[Tensor]:
    """Step sizes for every temperature between, [B, Z] each, from a pilot run.

    Args:
        densities: at both ends.
        z: starts of the pilot's chains, those of an image one after another, [B * chains, Z].
        betas: of the temperatures.
        spread: of q(z|x) in each coordinate, [B, Z].
        leapfrogs: steps of a trajectory, which is kept below a quarter of a period.
        noise: of the pilot.
    """
    longest = math.pi / 2 / leapfrogs
    chains = len(z) // len(spread)
    size = torch.full_like(spread[:, :1], longest)  # [B, 1]
    state, steps = densities.at(z), []
    for beta in betas[1:-1]:
        step = (size * spread).repeat_interleave(chains, 0)
        state, chance = move(densities, state, beta, step, leapfrogs, noise)
        off = chance.reshape(len(spread), chains).mean(1, keepdim=True) - ACCEPTANCE
        size = (size * (RATE * off).exp().to(size.dtype)).clamp(max=longest)
        steps.append(size * spread)
    return steps


def anneal(
    densities: Densities,
    z: Tensor,
    betas: list[float],
    steps: list[Tensor],
    leapfrogs: int,
    noise: Noise | Streams,
) -> tuple[Tensor, Tensor]:
    """Log-weights of chains that are taken through all temperatures.

    Args:
        densities: at both ends.
        z: an exact sample of the first density, [R, Z].
        betas: of the temperatures; from 1 to 0 for a reverse run.
        steps: of the moves at all but the first and the last, [R, Z] each.
        leapfrogs: steps of a move.
        noise: of the moves.

    Returns:
        (log w, float64 [R]; mean probability of acceptance [R]).
    """
    state = densities.at(z)
    log_weight = torch.zeros(len(z), dtype=torch.float64, device=z.device)
    chances = torch.zeros_like(log_weight)
    for index, (before, beta) in enumerate(itertools.pairwise(betas)):
        log_weight += (beta - before) * (state.log_joint.double() - state.log_q.double())
        if index < len(steps):
            state, chance = move(densities, state, beta, steps[index], leapfrogs, noise)
            chances += chance / len(steps)
    return log_weight, chances if steps else torch.ones_like(chances)


@dataclasses.dataclass(frozen=True, eq=False)
class Annealed:
    """log p(x) of a latent-variable model as near as it can be had, on the same images.

    Attributes:
        bounds: negative log-likelihoods of each image, from the loosest to the tightest: ELBO, L_k,
            annealed; last, where z has at most two dimensions, by quadrature.
        gain: how much lower the annealed bound is than that of L_k, nats, paired by image.
        gap: between upper and lower bound on images that the model drew, nats; the error of the
            annealed bound there is at most this in expectation. None without simulated images.
        acceptance: of the moves, mean.
        effective: chains that the weights of an image are worth, (sum w)^2 / sum w^2, mean.
        settings: of the run.
        seconds: for annealing the images; on a machine at rest.
        decodings: of each image, in the pilot and in the run.
        integrates: whether log p(x) could be integrated, but only image by image.
    """

    bounds: tuple[PerExample, ...]
    gain: Estimate
    gap: Estimate | None
    acceptance: float
    effective: float
    settings: AnnealedSettings
    seconds: float
    decodings: int
    integrates: bool = False

    @property
    def annealed(self) -> PerExample:
        """The annealed bound."""
        return self.bounds[2]

    @property
    def estimates(self) -> tuple[Estimate, ...]:
        """All as estimates in nats."""
        rest = (self.gain,) if self.gap is None else (self.gain, self.gap)
        return (*(bound.nats() for bound in self.bounds), *rest)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the run was worth and what it cost, in sentences."""
        s, n = self.settings, len(self.annealed.values)
        slow = (
            "quadrature of so many levels takes seconds to minutes for each image, so it was left "
            "out; in Python likely.evaluate.quadrature.quadrature(model, data)",
        )
        return (
            f"annealed: {self.acceptance:.0%} of the moves accepted; the weights of {s.chains} "
            f"chains are worth {self.effective:.1f}; {self.decodings:,} decodings of each image, "
            f"{100 * self.seconds / n:.3g} s for 100 images",
            "the gap is of images that the model drew: for real ones it is not a proven upper bound"
            if self.gap is not None
            else "an upper bound needs images that the model drew: simulated is 0",
            *(slow if self.integrates else ()),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "settings": dataclasses.asdict(self.settings),
            "estimates": [estimate.to_json() for estimate in self.estimates],
            "acceptance": self.acceptance,
            "effective": self.effective,
            "seconds": self.seconds,
            "decodings": self.decodings,
        }

    def __str__(self) -> str:
        lines = [f"{e.quantity}: {e}  ({e.about})" for e in self.estimates]
        return "\n".join([*lines, *self.notes])

    __repr__ = __str__


def annealed(
    model: Fittable,
    data: Dataset,
    settings: AnnealedSettings | None = None,
    *,
    seed: int = 0,
    proofs: Proofs | None = None,
    progress: Progress | None = None,
    **changes: int,
) -> Annealed:
    """Bounds on log p(x), from the ELBO to annealed importance sampling; quadrature where it can.

    Args:
        model: with latent variables.
        data: what the numbers are about.
        settings: of the annealing.
        seed: of all noise.
        proofs: as for `likely.nats`.
        progress: called with (what is done, images done, of how many).
        changes: fields of the settings, as temperatures=1000.

    Raises:
        InvalidSetting: a model without latent variables.
        ProofFailed, InvalidData, Diverged: as for `likely.nats`.
    """
    refuse_without_posterior(model)
    assert isinstance(model, LatentVariable)
    settings = dataclasses.replace(settings or AnnealedSettings(), **changes)
    _refuse_misfit(model, data, 1)
    n = min(settings.n, len(data))
    picked = np.linspace(0, len(data) - 1, n).round().astype(np.int64)
    part = data.take(picked)
    say = progress or (lambda *_: None)
    proofs = proofs_of(model, proofs)
    bounds = [
        per_example_nll(model, part, importance_samples=k, seed=seed, proofs=proofs)
        for k in (None, settings.importance_samples)
    ]
    runs, clock = [], time.perf_counter()
    for rows, x, context in reading_of(model, part, _images(model, settings)):
        keys = [(seed, int(index)) for index in picked[rows]]
        runs.append(_annealed(model, x, context, keys, settings))
        say("annealing", rows.stop, len(part))
    seconds = time.perf_counter() - clock
    lower = np.concatenate([run.lower for run in runs])
    _refuse_non_finite(model, part, lower, 0)
    about = (
        f"annealed importance sampling, {settings.temperatures} temperatures, "
        f"{settings.chains} chains"
    )
    bounds.append(dataclasses.replace(bounds[1], values=-lower, about=about))
    if integrates_quickly(model):

        def integrating(done: int, total: int) -> None:
            say("integrating", done, total)

        bounds.append(quadrature(model, part, proofs=proofs, progress=integrating))
    gain = Estimate.mean_of(
        (bounds[1].values - bounds[2].values).tolist(),
        unit="nats",
        relation=Relation.APPROXIMATE,
        quantity=quantity_of(model, "annealing-gain"),
        fingerprint=bounds[2].fingerprint,
        lower_is_better=None,
        about=f"k = {settings.importance_samples} less annealed, paired by image",
    )
    return Annealed(
        tuple(bounds),
        gain,
        _gap(model, settings, seed, say) if settings.simulated else None,
        float(np.mean(np.concatenate([run.acceptance for run in runs]))),
        float(np.mean(np.concatenate([run.effective for run in runs]))),
        settings,
        seconds,
        _decodings(model, settings),
        can_integrate(model) and not integrates_quickly(model),
    )


def _decodings(model: LatentVariable, settings: AnnealedSettings) -> int:
    """How often a code is decoded for each image; the values at the ends of reduced moves twice."""
    at_an_end = 1 if _reduced(model) is None else 2
    a_move = settings.leapfrogs - 1 + at_an_end
    chains = settings.chains + _pilot(settings)
    return chains * (at_an_end + (settings.temperatures - 2) * a_move)


def _pilot(settings: AnnealedSettings) -> int:
    """Chains of the pilot run."""
    return max(1, settings.chains // 4)


def refuse_without_posterior(model: Fittable) -> None:
    """An error that says why a model cannot be annealed, if it has no such encoder."""
    if not isinstance(model, LatentVariable):
        raise InvalidSetting(
            f"{type(model).__name__} is {model.kind}: annealing goes from q(z|x) to p(z|x), and it "
            "has no encoder that gives a distribution q(z|x) of whole examples"
        )


def simulated_bounds(
    model: LatentVariable,
    settings: AnnealedSettings,
    seed: int = 0,
    progress: Progress = lambda *_: None,
) -> tuple[FloatArray, FloatArray]:
    """Lower and upper bounds on log p(x) of images that the model draws, nats [simulated] each.

    Either holds in expectation. Those of a conditional model are drawn for all classes in turn.
    """
    noise = Noise("simulated", seed, device=model.device)
    count = settings.simulated
    with evaluating(model):
        with torch.no_grad(), without_autocast(model.device):
            z = model.latents(noise, count)
            classes = torch.arange(count, device=model.device) % max(1, model.classes)
            context = classes if model.classes else None
            x = model.decode(z, context, noise.uniform(count, *model.spec.grid))
        runs = []
        for rows in chunks(count, _images(model, settings)):
            labels = None if context is None else context[rows]
            keys = [(seed, "simulated", index) for index in range(count)[rows]]
            runs.append(_annealed(model, x[rows], labels, keys, settings, z[rows]))
            progress("annealing simulated images", rows.stop, count)
    return tuple(np.concatenate([run[side] for run in runs]) for side in (0, 3))  # type: ignore[return-value]


def _gap(
    model: LatentVariable, settings: AnnealedSettings, seed: int, progress: Progress
) -> Estimate:
    lower, upper = simulated_bounds(model, settings, seed, progress)
    return Estimate.mean_of(
        (upper - lower).tolist(),
        unit="nats",
        relation=Relation.UPPER,
        quantity=quantity_of(model, "annealing-gap"),
        fingerprint=f"simulated-{seed}",
        about=f"{settings.simulated} images that the model drew, both bounds",
    )


class _Run(NamedTuple):
    """Of each image: bounds on log p(x), acceptance and effective sample size, [B]."""

    lower: FloatArray
    acceptance: FloatArray
    effective: FloatArray
    upper: FloatArray


def _images(model: LatentVariable, settings: AnnealedSettings) -> int:
    """Images at a time."""
    return max(1, _rows(model) // settings.chains)


def _rows(model: LatentVariable) -> int:
    _, height, width = model.spec.grid
    return max(1, DECODED // (model.likelihood_given_z.features * height * width))


def _reduced(model: LatentVariable) -> Callable[[], contextlib.AbstractContextManager[Any]] | None:
    """A block in which the slopes of a float32 model are computed faster, where there is one."""
    single = all(p.dtype == torch.float32 for p in model.parameters())
    if not (single and gains_by_bfloat16(model.device)):
        return None
    precision = convolved_precision("auto", model.device, model.spec.grid)
    if precision == "float32":
        return None

    @contextlib.contextmanager
    def block() -> Iterator[None]:
        with autocast("bfloat16", model.device), reduced_precision():
            yield

    return block


@torch.no_grad()
def _annealed(
    model: LatentVariable,
    x: Tensor,
    context: Tensor | None,
    keys: Sequence[tuple[int | str, ...]],
    settings: AnnealedSettings,
    posterior_sample: Tensor | None = None,
) -> _Run:
    """Tune, freeze, run; backwards, too, from an exact sample of p(z|x) where there is one."""
    betas, leapfrogs = schedule(settings.temperatures), settings.leapfrogs
    x, labels = model.integers(x), model.labels(context, len(x))

    def streams(*purpose: int | str) -> Streams:
        return Streams(((*key, *purpose) for key in keys), model.device)

    def started(chains: int, noise: Streams) -> tuple[Densities, Tensor]:
        many = x.repeat_interleave(chains, 0)
        many_labels = None if labels is None else labels.repeat_interleave(chains)
        q, prior = model.posterior(many, many_labels), model.prior

        def log_probs(z: Tensor) -> tuple[Tensor, Tensor]:
            given_z = model.likelihood_given_z.log_prob(many, model.decoder_output(z, many_labels))
            return q.log_prob(z), given_z + prior.log_prob(z)

        start = q.sample(noise.normal(*q.mean.shape, dtype=q.mean.dtype))
        return Densities(log_probs, _reduced(model)), start

    with evaluating(model), without_autocast(model.device):
        q, noise = model.posterior(x, labels), streams("spread")
        draws = [noise.normal(*q.mean.shape, dtype=q.mean.dtype) for _ in range(SPREAD)]
        spread = torch.stack([q.sample(each) for each in draws]).std(0)  # [B, Z]
        noise = streams("pilot")
        sizes = tuned(*started(_pilot(settings), noise), betas, spread, leapfrogs, noise)
        forward, backward, chances = [], [], []
        for part in chunks(settings.chains, _rows(model)):
            chains = part.stop - part.start
            steps = [size.repeat_interleave(chains, 0) for size in sizes]
            noise = streams("run", part.start)
            densities, z = started(chains, noise)
            weights, chance = anneal(densities, z, betas, steps, leapfrogs, noise)
            forward.append(weights.reshape(len(x), chains))
            chances.append(chance.reshape(len(x), chains))
            if posterior_sample is not None:
                noise = streams("reverse", part.start)
                z = posterior_sample.repeat_interleave(chains, 0)
                back, _ = anneal(densities, z, betas[::-1], steps[::-1], leapfrogs, noise)
                backward.append(back.reshape(len(x), chains))
    log_w = torch.cat(forward, 1)  # [B, chains]
    lower = log_w.logsumexp(1) - math.log(settings.chains)
    effective = (2 * log_w.logsumexp(1) - (2 * log_w).logsumexp(1)).exp()
    upper = torch.full_like(lower, math.inf)
    if backward:
        upper = math.log(settings.chains) - torch.cat(backward, 1).logsumexp(1)
    acceptance = torch.cat(chances, 1).mean(1)
    return _Run(*(each.cpu().numpy() for each in (lower, acceptance, effective, upper)))
