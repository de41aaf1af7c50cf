"""Nats per step of sequences: every step scored, the first included, micro average, block errors.

The mean is the sum over all steps divided by the number of steps, not a mean of means. Its error
comes from whole sequences, or, where there are few, from blocks of consecutive steps that are
longer than what a step remembers: of a ratio of two sums, by the spread of block residuals.

Of a model with latents it is a bound from above, by one draw from q (ELBO) or by a particle filter
(FIVO); the same noise for the same seed, whatever the model.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from likely.data.sequences.dataset import Sequences
from likely.data.spec import Dataset
from likely.density import LatentSequence, SequenceDensity, chunks, evaluating
from likely.devices.precision import without_autocast
from likely.errors import InvalidData
from likely.estimate import Estimate, Relation
from likely.noise import Noise

Floats = npt.NDArray[np.float64]

# Fewer sequences than this are cut into blocks, as many as about this or of this length at least.
FEW, LEAST_BLOCK = 12, 96


@dataclasses.dataclass(frozen=True)
class StepNats:
    """What a model says of every step of some sequences.

    Attributes:
        nats: -log p of each block: of a sequence, or of consecutive steps, [G]; of the values that
            are known, those of continuous columns by their density.
        steps: scored in each block, [G].
        columns: of a step.
        fingerprint: of the data.
        blocks: what a block is, in words.
        relation: EXACT, or UPPER where the truth is at most this.
        how: the nats were computed, in words.
    """

    nats: Floats
    steps: Floats
    columns: int
    fingerprint: str
    blocks: str
    relation: Relation = Relation.EXACT
    how: str = "exact"

    @property
    def value(self) -> float:
        """Nats per step."""
        return float(self.nats.sum() / self.steps.sum())

    @property
    def standard_error(self) -> float:
        """Of the ratio of sums, over blocks."""
        count = len(self.nats)
        if count < 2:
            return math.inf
        residual = self.nats - self.nats.sum() / self.steps.sum() * self.steps
        return float(np.sqrt((residual**2).sum() * count / (count - 1)) / self.steps.sum())

    @property
    def values(self) -> Floats:
        """A number of each block, nats per step: their mean is `value`, with its error, [G].

        The ratio of sums r is linear in them: r + (nats - r steps) G / sum of steps. So the
        differences of two models on the same blocks have the paired error of `less`.
        """
        ratio = self.nats.sum() / self.steps.sum()
        residual = self.nats - ratio * self.steps
        return np.asarray(self.value + residual * (len(self.nats) / self.steps.sum()))

    def per_step(self, quantity: str = "nll") -> Estimate:
        """Nats per step with their block error."""
        return self._estimate("nats/step", 1.0, quantity)

    def bits_per_value(self) -> Estimate:
        """Bits for each value: per step divided by columns."""
        return self._estimate("bits/value", 1 / (self.columns * math.log(2)))

    def _estimate(self, unit: str, factor: float, quantity: str = "nll") -> Estimate:
        return Estimate(
            self.value * factor, unit, self.relation, quantity, self.standard_error * factor,
            int(self.steps.sum()), self.fingerprint, True if quantity == "nll" else None,
            f"{self.how}, micro average over all steps, error from {self.blocks}",
        )  # fmt: skip

    def less(self, other: StepNats) -> tuple[float, float]:
        """The difference to another model on the same blocks, and its paired standard error."""
        if self.fingerprint != other.fingerprint or len(self.nats) != len(other.nats):
            raise InvalidData("two models are compared on the same sequences")
        paired = dataclasses.replace(self, nats=self.nats - other.nats)
        return paired.value, paired.standard_error


@torch.no_grad()
def step_nats(
    model: SequenceDensity | LatentSequence,
    data: Dataset,
    progress: Callable[[int, int], None] | None = None,
    *,
    particles: int | None = None,
    seed: int = 0,
) -> StepNats:
    """Score all sequences of a data set, a few at a time; memory does not grow with their length.

    Args:
        model: any; it is read in evaluation mode.
        data: sequences of the kind that it was built for.
        progress: told of (sequences done, of how many).
        particles: of FIVO, for a model with latents; its ELBO when None.
        seed: of the latents.

    Raises:
        InvalidData: other data.
    """

    relation = Relation.UPPER
    if isinstance(model, SequenceDensity):
        relation, how = Relation.EXACT, "exact"
    elif particles is None:
        how = "ELBO, one draw of the latents"
    else:
        how = f"FIVO, {particles} particles"

    def log_p(x: Tensor, context: Tensor | None, noise: Noise) -> Tensor:
        if isinstance(model, SequenceDensity):
            scores = model.per_step(x, context)
        elif particles is None:
            terms = model.elbo_terms(x, noise, context)
            scores = terms.reconstruction - terms.kl
        else:
            scores = model.fivo_per_step(x, noise, context, particles)
        return scores - torch.from_numpy(model.spec.log_volume((x >= 0).numpy())).to(scores)

    return _scored(model, data, log_p, progress, seed, relation, how)


@torch.no_grad()
def step_rate(model: LatentSequence, data: Dataset, seed: int = 0) -> StepNats:
    """What the latents carry: KL(q || p) of each step, at the draws of the ELBO."""

    def rate(x: Tensor, context: Tensor | None, noise: Noise) -> Tensor:
        return -model.elbo_terms(x, noise, context).kl

    how = "KL(q || p), one draw of the latents"
    return _scored(model, data, rate, None, seed, Relation.APPROXIMATE, how)


def _scored(
    model: SequenceDensity | LatentSequence,
    data: Dataset,
    score: Callable[[Tensor, Tensor | None, Noise], Tensor],
    progress: Callable[[int, int], None] | None,
    seed: int,
    relation: Relation,
    how: str,
) -> StepNats:
    if not isinstance(data, Sequences):
        raise InvalidData(f"{data.spec.name} holds no sequences")
    if misfit := data.spec.misfit(model.spec):
        raise InvalidData(misfit)
    nats: list[Floats] = []
    steps: list[Floats] = []
    size = max(LEAST_BLOCK, int(data.lengths.sum()) // 40)
    whole = len(data) >= FEW
    # Sequences of about the same length together, so that little is padded.
    order = np.argsort(data.lengths, kind="stable")
    rank = np.argsort(order, kind="stable")
    with evaluating(model), without_autocast(model.device):
        for part in chunks(len(data), data.together):
            batch = data.batch(order[part])
            x = torch.from_numpy(batch.x)
            noise = Noise("steps", seed, part.start, device=model.device)
            scores = score(x, model.batch_context(batch), noise).cpu().numpy()
            for row, sequence in zip(scores, order[part], strict=True):
                lead, count = int(data.lead[sequence]), int(data.lengths[sequence])
                kept = -row[lead : lead + count]
                edges = np.arange(0, count, count if whole else size)
                nats.append(np.add.reduceat(kept, edges))
                steps.append(np.diff([*edges, count]).astype(np.float64))
            if progress is not None:
                progress(part.stop, len(data))
    every = [np.concatenate([side[i] for i in rank]) for side in (nats, steps)]
    blocks = "whole sequences" if whole else f"blocks of {size} steps"
    return StepNats(
        every[0], every[1], len(data.spec.columns),
        data.fingerprint_given("label" if model.classes else ""), blocks, relation, how,
    )  # fmt: skip
