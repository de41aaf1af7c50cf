r"""Nats of a step that is h steps ahead, by averaging densities over simulated steps between.

    p(x_{t+h} | x_<=t) = E[p(x_{t+h} | x_<=t, X_{t+1..t+h-1})],  X drawn from the model

With M draws the mean is without bias, so the nats are on average too many by what M draws miss: an
upper bound that falls with M. Beside it stands a climatology: the same step under the mean of the
densities after 512 steps spread over the training set, what the model says that knows the clock and
not the past; an upper bound, too, and loose where steps have many columns.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from likely.data.sequences.dataset import Sequences
from likely.data.spec import Dataset
from likely.density import SequenceDensity, State, Steps, evaluating
from likely.devices.precision import without_autocast
from likely.errors import InvalidData
from likely.estimate import Estimate, Relation
from likely.evaluate.sequences.calibration import moments, places
from likely.noise import Noise

Floats = npt.NDArray[np.float64]

AHEAD = (1, 6, 24)
ORIGINS, DRAWS = 32, 64
STATES = 512  # of the training set


@dataclasses.dataclass(frozen=True)
class StepsAhead:
    """What a model says of steps ahead.

    Attributes:
        ahead: steps, [H].
        nats: of each origin, [H, N]; of a density where columns are continuous.
        climatology: of the same steps, without the past, [H, N].
        fingerprint: of the data.
    """

    ahead: tuple[int, ...]
    nats: Floats
    climatology: Floats
    fingerprint: str

    @property
    def estimates(self) -> list[Estimate]:
        """Nats at each number of steps ahead, bounds from above on average."""
        return [
            Estimate.mean_of(
                row.tolist(), unit="nats/step", relation=Relation.UPPER,
                quantity=f"nll-ahead-{h}", fingerprint=self.fingerprint,
                about=f"{len(row)} origins, densities averaged over {DRAWS} simulations",
            )
            for h, row in zip(self.ahead, self.nats, strict=True)
        ]  # fmt: skip

    @property
    def sentence(self) -> str:
        """Both, at every number of steps."""
        parts = (
            f"{h}: {row.mean():.2f} ({none.mean():.2f})"
            for h, row, none in zip(self.ahead, self.nats, self.climatology, strict=True)
        )
        return (
            f"nats of a step so many ahead, at most (without the past): {', '.join(parts)}; "
            f"{self.nats.shape[1]} origins"
        )


@torch.no_grad()
def steps_ahead(
    model: SequenceDensity,
    data: Dataset,
    train: Dataset,
    *,
    ahead: tuple[int, ...] = AHEAD,
    origins: int = ORIGINS,
    draws: int = DRAWS,
    seed: int = 0,
) -> StepsAhead:
    """Score steps ahead from origins spread evenly over the data.

    Args:
        model: a density of sequences.
        data: of the kind that it was built for.
        train: the training set, whose steps are the climatology.
        ahead: how many steps, ascending; those that no sequence is long enough for are left out.
        origins: at most so many.
        draws: simulations from each.
        seed: of the noise.

    Raises:
        InvalidData: other data, or no sequence is long enough.
    """
    if not isinstance(data, Sequences) or not isinstance(train, Sequences):
        raise InvalidData(f"{data.spec.name} holds no sequences")
    if misfit := data.spec.misfit(model.spec):
        raise InvalidData(misfit)
    longest = int(data.lengths.max())
    if not ahead or min(ahead) > longest:
        raise InvalidData(f"{data.spec.name} has at most {longest} steps: none is {ahead} ahead")
    ahead = tuple(h for h in ahead if h <= longest)
    with evaluating(model), without_autocast(model.device):
        known = [state for state, _, _ in moments(model, train, places(train, STATES))]
        starts, laters = [], []
        for state, whole, at in moments(model, data, places(data, origins, ahead[-1])):
            starts.append(state)
            laters.append(whole.part(slice(None), at, at + ahead[-1]))
        noise = Noise(seed, "ahead", device=model.device)
        nats = np.empty((len(ahead), len(starts)))
        for rows in _alike(starts):
            state, later = _joined([starts[row] for row in rows]), [laters[row] for row in rows]
            nats[:, rows] = _scored(model, state, later, ahead, draws, noise)
        without = [[_mixed(model, known, each.part(slice(None), h - 1, h)) for each in laters]
                   for h in ahead]  # fmt: skip
    known_then = torch.cat([each.known for each in laters])[:, [h - 1 for h in ahead]]
    volume = data.spec.log_volume(known_then.cpu().numpy()).T
    return StepsAhead(
        ahead, nats + volume, np.array(without) + volume,
        data.fingerprint_given("label" if model.classes else ""),
    )  # fmt: skip


def _alike(states: list[State]) -> list[list[int]]:
    """Numbers of the states of one shape, which are read together."""
    groups: dict[tuple[torch.Size, ...], list[int]] = defaultdict(list)
    for number, state in enumerate(states):
        groups[tuple(part.shape for part in state)].append(number)
    return list(groups.values())


def _joined(states: list[State]) -> State:
    return tuple(torch.cat(parts) for parts in zip(*states, strict=True))


def _scored(
    model: SequenceDensity, state: State, later: list[Steps], ahead: tuple[int, ...], draws: int,
    noise: Noise,
) -> Floats:  # fmt: skip
    """Nats of the steps ahead of n origins, averaged over simulations, [H, n]."""
    state = tuple(part.repeat_interleave(draws, 0) for part in state)
    out, n = [], len(later)
    for h in range(1, ahead[-1] + 1):
        step = _step(later, h, draws)
        if h in ahead:
            scores = model.scan(step, state)[0].view(n, draws)
            out.append((math.log(draws) - scores.logsumexp(1)).tolist())
        context = None if step.context is None else step.context[:, 0]
        uniform = noise.uniform(n * draws, step.x.shape[2])
        _, state = model.draw_step(state, context, uniform)
    return np.array(out)


def _step(later: list[Steps], h: int, draws: int) -> Steps:
    """The h-th step of each origin, as often as there are draws of it."""

    def many(parts: Sequence[Tensor]) -> Tensor:
        return torch.cat([part[:, h - 1 : h] for part in parts]).repeat_interleave(draws, 0)

    x = many([each.x for each in later])
    context = [each.context for each in later if each.context is not None]
    scored = torch.ones(len(x), 1, dtype=torch.bool, device=x.device)
    return Steps(
        x, many([each.known for each in later]), scored, many(context) if context else None
    )


def _mixed(model: SequenceDensity, known: list[State], step: Steps) -> float:
    """Nats of a step under the mean of densities from several states, those of a shape at once."""
    scores = [_scores(model, _joined([known[row] for row in rows]), step) for rows in _alike(known)]
    return math.log(len(known)) - float(torch.cat(scores).logsumexp(0))


def _scores(model: SequenceDensity, state: State, step: Steps) -> Tensor:
    """log p of one step of one sequence after each of n states, [n]."""
    n = len(state[0])
    context = None if step.context is None else step.context.expand(n, -1, -1)
    many = Steps(
        step.x.expand(n, -1, -1), step.known.expand(n, -1, -1),
        torch.ones(n, 1, dtype=torch.bool, device=step.x.device), context,
    )  # fmt: skip
    return model.scan(many, state)[0][:, 0]
