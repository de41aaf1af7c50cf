"""Proofs for sequences with latents: a bound that is one, on a path that sees no later step.

By the verbs alone (`joint`, `elbo_terms`, `fivo_per_step`, `draw_with_latent`):

- at given latents, no later step changes log p(z_t | .) or log p(x_t | .), and x_t does not change
  log p(z_t | .): a prior that has seen the step fails here;
- at given latents, p(x_t | .) summed over the levels of a column is one;
- on a tiny instance of one latent dimension and two steps, log p(x) is an integral by the
  trapezoidal rule: its sum over all sequences is one; the ELBO and FIVO are below it on average;
  the mean of p^(x) over a grid of its noise is p(x). A bound that exceeds the truth fails here;
- padding is not scored, the state is kept over pieces, with the same noise;
- the sampler draws what the joint reads: the same integers from the state after x and z.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from likely.data.sequences.dataset import Sequences
from likely.data.sequences.spec import MISSING, PADDING
from likely.data.spec import Dataset
from likely.density import LatentSequence, State, weights_digest
from likely.noise import Noise
from likely.verify.proofs import Proof, Proofs
from likely.verify.sequence import (
    MOST_LEVELS,
    SAME,
    SUM,
    context_for,
    difference,
    gradients,
    probes,
    scales,
    tiny,
)  # fmt: skip

PARTICLES, DRAWS = 4, 300
GRID, REACH = 33, 6.0  # of a latent, in standard deviations of its prior
FINER, FARTHER = 61, 10.0  # of what a particle is drawn from
SEQUENCES = 8  # of the tiny instance, that the bounds are drawn for
SIGMAS = 6.0
QUICK = 6  # steps of a sequence


def latent_sequence_proofs(
    model: LatentSequence, data: Dataset | None, train: Dataset | None, quick: bool, seed: int
) -> Proofs:
    """All checks; `train` is the training set, where it is at hand."""
    exact = copy.deepcopy(model).cpu().double().eval().requires_grad_(False)
    with torch.no_grad():
        x, context = probes(exact, data, seed)
        if quick:
            x, context = x[:, :QUICK], None if context is None else context[:, :QUICK]
        z = Noise("verify", seed, "latents").normal(*x.shape[:2], exact.latent).double()
        proofs = [
            _no_future_leak(exact, x, z, context),
            _conditionals(exact, x, z, context, quick),
            *_on_tiny(exact, seed),
            _padding(exact, x, context),
            _pieces(exact, x, context),
            _sampler(model, quick, seed),
        ]
        if isinstance(train, Sequences):
            proofs.append(scales(model, train))
    proofs.append(gradients(exact, x, context))
    return Proofs(type(model).__name__, weights_digest(model), quick, seed, tuple(proofs), ())


def _no_future_leak(model: LatentSequence, x: Tensor, z: Tensor, context: Tensor | None) -> Proof:
    prior, emission, _ = model.joint(x, z, context)
    worst = 0.0
    for t in range(x.shape[1]):
        changed, later = x.clone(), z.clone()
        changed[:, t:] = x.roll(1, 0)[:, t:].flip(1)
        later[:, t + 1 :] = z[:, t + 1 :] + 1.0
        again, after, _ = model.joint(changed, later, context)
        worst = max(worst, difference(prior[:, : t + 1], again[:, : t + 1]))
        worst = max(worst, difference(emission[:, :t], after[:, :t]))
    return Proof.at_most(
        "no future leak", worst, SAME,
        "Largest change of log p(z_t | .), when step t and all later ones are others, and of "
        "log p(x_t | .), when all later steps are, in nats, at given latents, float64.",
    )  # fmt: skip


def _conditionals(
    model: LatentSequence, x: Tensor, z: Tensor, context: Tensor | None, quick: bool
) -> Proof:
    columns = [k for k, c in enumerate(model.spec.columns) if c.levels <= MOST_LEVELS]
    chosen = dict.fromkeys(columns[i * (len(columns) - 1) // 5] for i in range(6) if columns)
    worst = 0.0
    for t, k in itertools.product((0, 3) if quick else (0, 1, x.shape[1] - 1), chosen):
        alone, levels = x[:1, : t + 1].clone(), model.spec.columns[k].levels
        alone[:, t, k:] = MISSING
        every = alone.repeat(levels, 1, 1)
        every[:, t, k] = torch.arange(levels)
        known = None if context is None else context[:1, : t + 1]
        many = None if known is None else known.expand(levels, -1, -1)
        before = model.joint(alone, z[:1, : t + 1], known)[1][0, t]
        each = model.joint(every, z[:1, : t + 1].expand(levels, -1, -1), many)[1][:, t]
        worst = max(worst, abs(math.expm1(float(each.logsumexp(0) - before))))
    return Proof.at_most(
        "each conditional sums to one", worst, SUM,
        "Largest |sum of p(x_t | z_<=t, x_<t) over the levels of a column given the columns before "
        f"- 1|; {len(chosen)} of {len(model.spec.columns)} columns.",
    )  # fmt: skip


def _on_tiny(model: LatentSequence, seed: int) -> Iterator[Proof]:
    """The integral over two latents by a grid, for every sequence of two steps."""
    small = {"latent": 1, "hidden": 4, "step_hidden": 4, "components": 1}
    fields = {field.name for field in dataclasses.fields(model.settings)}
    sizes = {name: value for name, value in small.items() if name in fields}
    # Weights that differ little, so that q is about as wide as p and p^(x) varies little.
    instance, spec = tiny(model, seed, dataclasses.replace(model.settings, **sizes), 0.15)
    steps = list(itertools.product(*(range(c.levels) for c in spec.columns)))
    x = torch.tensor(list(itertools.product(steps, repeat=2)))  # [n, 2, K]
    context = context_for(instance, 1, 2, seed)
    log_p = torch.cat([_integral(instance, sequence, context) for sequence in x[:, None]])
    total = abs(float(log_p.logsumexp(0).exp()) - 1)
    yield Proof.at_most(
        "all sequences sum to one", total, 1e-6,
        f"|sum - 1| over all {len(x):,} sequences of two steps, {len(spec.columns)} columns each, "
        "each an integral over both latents by the trapezoidal rule, on an instance of the same "
        "class with random weights.",
    )  # fmt: skip
    # The likeliest: of a rare sequence p^(x) is far from p(x) but for a few draws.
    chosen = log_p.topk(min(SEQUENCES, len(x))).indices
    many = x[chosen].repeat_interleave(DRAWS, 0)
    known = None if context is None else context.expand(len(many), -1, -1)
    truth = log_p[chosen]
    elbo = instance.elbo(many, Noise("verify", seed, "elbo"), known).view(-1, DRAWS)
    noise = Noise("verify", seed, "fivo")
    fivo = instance.fivo(many, noise, known, PARTICLES).view(-1, DRAWS)
    excesses = (elbo - truth[:, None], fivo - truth[:, None], elbo - fivo)
    over = max(map(_sigmas, excesses))
    yield Proof.at_most(
        "ELBO <= FIVO <= log p(x)", over, SIGMAS,
        f"Largest excess of the ELBO over FIVO with {PARTICLES} particles, and of both over the "
        f"integral, in standard errors of {DRAWS} draws, {len(chosen)} sequences.",
    )  # fmt: skip
    worst = max(
        abs(math.expm1(_mean_estimate(instance, x[row : row + 1], context) - float(log_p[row])))
        for row in chosen
    )
    yield Proof.at_most(
        "the estimate of p(x) has no bias", worst, 0.03,
        "Largest |mean of p^(x) of one particle / p(x) - 1|, the mean over its noise by the "
        f"trapezoidal rule, too, {len(chosen)} sequences.",
    )  # fmt: skip


class _Grid(Noise):
    """Noise of two steps on a grid: rows are pairs of what the first and the second step draw."""

    def __init__(self, line: Tensor) -> None:
        super().__init__("grid")
        self.steps: list[Tensor] = list(torch.cartesian_prod(line, line).T)

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return self.steps.pop(0).reshape(shape)


def _mean_estimate(instance: LatentSequence, x: Tensor, context: Tensor | None) -> float:
    """log E p^(x) of one sequence of two steps, by a grid of what the particle is drawn from."""
    line = torch.linspace(-FARTHER, FARTHER, FINER, dtype=torch.float64)
    rows = FINER * FINER
    known = None if context is None else context.expand(rows, -1, -1)
    log_p = instance.fivo(x.expand(rows, -1, -1), _Grid(line), known, 1)
    density = -0.5 * torch.cartesian_prod(line, line).square().sum(1) - math.log(2 * math.pi)
    return float((log_p + density).logsumexp(0)) + 2 * math.log(float(line[1] - line[0]))


def _sigmas(excess: Tensor) -> float:
    """Largest mean of a row, in its standard errors; one that does not vary has 1e-9."""
    error = excess.std(1) / math.sqrt(excess.shape[1])
    return float((excess.mean(1) / error.clamp(min=1e-9)).max())


def _integral(instance: LatentSequence, x: Tensor, context: Tensor | None) -> Tensor:
    """log p(x) of one sequence of two steps, [1]; latents on a grid of the scale of their prior."""
    line = torch.linspace(-REACH, REACH, GRID, dtype=torch.float64)
    contexts = [None if context is None else context[:, t] for t in range(2)]
    centre, scale = _prior(instance, instance.begin(1), contexts[0])
    first = centre + scale * line[:, None]  # [GRID, 1]
    known = None if context is None else context[:, :1].expand(GRID, -1, -1)
    state = instance.joint(x[:, :1].expand(GRID, -1, -1), first[:, None], known)[2]
    many = None if contexts[1] is None else contexts[1].expand(GRID, -1)
    centres, scales = _prior(instance, state, many)  # [GRID, 1]
    second = centres[:, None] + scales[:, None] * line[:, None]  # [GRID, GRID, 1]
    z = torch.stack([first[:, None].expand_as(second), second], 2).flatten(0, 1)
    known = None if context is None else context.expand(len(z), -1, -1)
    prior, emission, _ = instance.joint(x.expand(len(z), -1, -1), z, known)
    cell = (scale * scales * (line[1] - line[0]) ** 2).log().expand(-1, GRID).flatten()
    return ((prior + emission).sum(1) + cell).logsumexp(0)[None]


def _prior(instance: LatentSequence, state: State, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the next latent, by the sampler, [B, 1] each."""
    at = []
    for place in (0.0, 1.0):
        uniform = torch.full((len(state[0]), instance.uniforms), 0.5, dtype=torch.float64)
        uniform[:, -1] = torch.special.ndtr(torch.tensor(place, dtype=torch.float64))
        at.append(instance.draw_with_latent(state, context, uniform)[2])
    return at[0], at[1] - at[0]


def _bounds(
    model: LatentSequence, x: Tensor, context: Tensor | None, rows: tuple[int, int], piece: int
) -> tuple[Tensor, Tensor]:
    """ELBO and FIVO at each step, with the noise of these rows of a batch."""
    terms = model.elbo_terms(x, Noise("verify", "elbo", rows=rows), context, piece=piece)
    noise = Noise("verify", "fivo", rows=rows)
    fivo = model.fivo_per_step(x, noise, context, PARTICLES, piece=piece * PARTICLES)
    return terms.reconstruction - terms.kl, fivo


def _padding(model: LatentSequence, x: Tensor, context: Tensor | None) -> Proof:
    """Every second sequence is cut, and padded beside the others."""
    length, whole = x.shape[1], 1 << 20
    ends = [length - 2 * row if row % 2 else length for row in range(len(x))]
    padded = x.clone()
    for row, end in enumerate(ends):
        padded[row, end:] = PADDING
    together = _bounds(model, padded, context, (0, len(x)), whole)
    worst = 0.0
    for row, end in enumerate(ends):
        part = None if context is None else context[row : row + 1, :end]
        alone = _bounds(model, x[row : row + 1, :end], part, (row, len(x)), whole)
        for bound, single in zip(together, alone, strict=True):
            worst = max(worst, difference(bound[row, :end], single[0]))
            worst = max(worst, float(bound[row, end:].abs().sum()))
    return Proof.at_most(
        "no padding is scored", worst, SAME,
        "Largest change of ELBO or FIVO at a step, in nats, when its sequence is padded beside "
        "longer ones, the noise the same, and what the padding itself adds.",
    )  # fmt: skip


def _pieces(model: LatentSequence, x: Tensor, context: Tensor | None) -> Proof:
    rows = (0, len(x))
    whole = _bounds(model, x, context, rows, 1 << 20)
    worst = 0.0
    for size in (1, 5):
        pieces = _bounds(model, x, context, rows, size * len(x))
        for bound, again in zip(whole, pieces, strict=True):
            worst = max(worst, difference(bound, again))
    return Proof.at_most(
        "the state is kept over pieces", worst, SAME,
        "Largest change of ELBO or FIVO at a step, in nats, when sequences are read one or five "
        "steps at a time.",
    )  # fmt: skip


def _sampler(model: LatentSequence, quick: bool, seed: int) -> Proof:
    """On the weights as they are, in their own precision."""
    model = copy.deepcopy(model).eval()
    rows, length = 3, 5 if quick else 12
    context = context_for(model, rows, length, seed)
    uniform = Noise("verify", seed, "sampler").uniform(length, rows, model.uniforms)
    uniform = uniform.to(model.device)
    state, drawn, latents = model.begin(rows), [], []
    for t in range(length):
        part = None if context is None else context[:, t].to(model.device)
        step, state, z = model.draw_with_latent(state, part, uniform[t])
        drawn.append(step)
        latents.append(z)
    x, z = torch.stack(drawn, 1), torch.stack(latents, 1)
    wrong = 0
    for t in range(length):
        known = None if context is None else context[:, :t].to(model.device)
        state = model.joint(x[:, :t], z[:, :t], known)[2] if t else model.begin(rows)
        part = None if context is None else context[:, t].to(model.device)
        again, _ = model.draw_step(state, part, uniform[t])
        wrong += int((again != x[:, t]).sum())
    return Proof.at_most(
        "the sampler is teacher forcing", float(wrong), 0.0,
        f"Integers, of {x.numel()} drawn step by step, that the state after reading the sequence "
        "and its latents in one piece does not give again from the same uniform numbers.",
    )  # fmt: skip
