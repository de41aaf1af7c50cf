r"""What is missing in sequences, drawn from p(missing | the rest), whichever values they are.

- Some models draw it in closed form, with the values summed over (`FillsGaps`): the hidden Markov
  model by forward filtering and backward sampling, the state space by the Kalman smoother.
- Where nothing that is known comes after what is missing, it is a forecast: ancestral draws.
- Otherwise sequential Monte Carlo goes over time with N particles: a missing value is drawn from
  its conditional, a known one multiplies the weight of each particle by its own p(x_tk | before),
  and where the weights are worth fewer than N / 2 particles they are resampled. The mean weights
  estimate p(known) without bias, so their log is a lower bound in expectation. As for images,
  `likely.density.completion.particles` has resampling and sources. Within a gap the weights look
  ahead to the first step after it that is known (`likely.density.sequence.lookahead`). Steps that
  are given and not scored weigh as well; where they follow a gap, the estimate of their own p is
  divided out, and the log of the ratio is no bound.

After a gap particles that were resampled from the same one share its state, which is advanced once.
And a state forgets: where all particles agree on log p of a piece of known steps, to the rounding
of the network's numbers, what follows is scored once for all of them, until the next gap.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from likely.density.completion import Completions, choose_method, refuse_count
from likely.density.completion.particles import effective, systematic
from likely.density.sequence.bins import ColumnDensity
from likely.density.sequence.lookahead import FEWEST, PILOTS, Lookahead
from likely.density.sequence.steps import FillsGaps, State, Steps
from likely.errors import Unanswerable
from likely.estimate import Relation
from likely.noise import Noise

if TYPE_CHECKING:
    from likely.density.sequence.over_time import SequenceDensity

METHODS = ("auto", "exact", "smc")
PIECE = 8192  # known steps that are scored at a time
TOGETHER = 16  # known steps that are weighed at a time
AGREE = 1e-6  # nats by which particles may differ on them, and count as one, if not by rounding


def is_forecast(known: Tensor) -> bool:
    """Whether nothing known comes after what is missing, for all sequences; bool [B, T, K]."""
    flat = known.flatten(1)
    return bool((flat == flat.cummin(1).values).all())


def filled(
    model: SequenceDensity, steps: Steps, n: int, seed: int, method: str, particles: int
) -> Completions:
    """See `SequenceDensity.completions`, which prepares the steps."""
    choose_method(method, METHODS, type(model).__name__)
    refuse_count(n=n, particles=particles)
    noise = Noise(seed, "gaps", device=model.device)
    batch, known = len(steps.x), steps.known[:, None]
    ahead = is_forecast(steps.known)
    if method != "smc" and (ahead or isinstance(model, FillsGaps)):
        if isinstance(model, FillsGaps):
            drawn = model.fill(steps, n, noise)
            log_p, _ = model.scan(steps, model.begin(batch))
            log_known, about = log_p.sum(1), model.fills_by
        else:
            drawn, log_known = _ahead(model, steps, n, noise)
            about = "ancestral draws: nothing that is known comes after the gap"
        whole = torch.where(known, steps.x[:, None], drawn)
        return Completions(whole, log_known, Relation.EXACT, exact=True, about=f"exact: {about}")
    if method == "exact":
        raise Unanswerable(
            f"{type(model).__name__}: known values come after the gap, and its sum over what is "
            "missing has no closed form; method smc is approximate"
        )
    parts = [_Particles(model, steps.part(slice(b, b + 1), 0, len(steps.x[0])), particles, noise)
             for b in range(batch)]  # fmt: skip
    for part in parts:
        part.run()
    whole = steps.x[:, None].expand(-1, n, -1, -1).clone()
    for b, part in enumerate(parts):
        whole[b, :, part.places] = part.resampled(n)
    return Completions(
        torch.where(known, steps.x[:, None], whole),
        torch.stack([part.log_known for part in parts]),
        Relation.APPROXIMATE if any(part.lead for part in parts) else Relation.UPPER,
        exact=False,
        about="sequential Monte Carlo that looks ahead; the error falls with particles",
        particles=particles,
        effective=torch.tensor([part.worth for part in parts], dtype=torch.float64),
        ancestors=torch.tensor([part.ancestors for part in parts]),
    )


def _ahead(model: SequenceDensity, steps: Steps, n: int, noise: Noise) -> tuple[Tensor, Tensor]:
    """Draws of what comes after all that is known, int64 [B, n, T, K], and log p of that."""
    batch, length, columns = steps.x.shape
    first = int(steps.known.all(2).long().cummin(1).values.sum(1).min())
    log_known, state = torch.zeros(batch, dtype=torch.float64, device=steps.x.device), None
    if first:
        log_p, state = model.scan(steps.part(slice(None), 0, first), model.begin(batch))
        log_known = log_p.sum(1)
    state = _repeated(model.begin(batch) if state is None else state, n)
    out = steps.x.repeat_interleave(n, 0)
    for t in range(first, length):
        step = _Forced(steps, t, n, noise.uniform(batch * n, columns))
        out[:, t], state = model.next_step(state, step.context, step.choose, step.every)
        log_known = log_known + step.log_p.view(batch, n)[:, 0]  # the same in all draws
    return out.view(batch, n, length, columns), log_known


def _repeated(state: State, n: int) -> State:
    return tuple(part.repeat_interleave(n, 0) for part in state)


class _Forced:
    """Columns of a step, n times for each sequence: known ones as they are, others drawn.

    Attributes:
        log_p: of the known ones in a step that counts, float64 [B n].
    """

    def __init__(self, steps: Steps, t: int, n: int, uniform: Tensor) -> None:
        self._x, self._known = (s[:, t].repeat_interleave(n, 0) for s in (steps.x, steps.known))
        self._scored = steps.scored[:, t].repeat_interleave(n, 0)
        self._uniform = uniform
        self.context = None
        if steps.context is not None:
            self.context = steps.context[:, t].repeat_interleave(n, 0)
        self.every = torch.ones_like(self._known)
        self.log_p = torch.zeros(len(uniform), dtype=torch.float64, device=uniform.device)

    def choose(self, k: int, column: ColumnDensity) -> Tensor:
        """The value of column k."""
        known = self._known[:, k]
        self.log_p += column.log_prob(self._x[:, k]) * (known & self._scored)
        return torch.where(known, self._x[:, k], column.quantile(self._uniform[:, k]))


def agree(log_p: Tensor, state: State) -> bool:
    """Whether particles have the same log p [N], but for the rounding of their states."""
    kinds = {part.dtype for part in state if part.is_floating_point()}
    rounding = max((torch.finfo(kind).eps for kind in kinds), default=0.0)
    return float(log_p.max() - log_p.min()) < max(AGREE, rounding * float(log_p.abs().max()))


class _Drawn(NamedTuple):
    """A step of particles, the state after it, and log p of what is known of it."""

    x: Tensor
    state: State
    log_p: Tensor


class _Particles:
    """Particles of one sequence.

    Attributes:
        places: steps where something is missing, int64 [G].
        lead: steps to the last that is given and not scored, 0 where no gap is before it.
        log_known: the log of the estimate of p(known), nats; what is given is not counted.
        worth: particles that the weights were worth where that was least.
    """

    def __init__(self, model: SequenceDensity, steps: Steps, count: int, noise: Noise) -> None:
        self.model, self.count, self.noise = model, count, noise
        self.places = (~steps.known[0].all(1)).nonzero()[:, 0]
        scored = steps.scored.clone()
        scored[:, self.places[0] if len(self.places) else len(scored[0]) :] = True
        self.steps = steps._replace(scored=scored)  # all that can tell particles apart
        lead = (scored & ~steps.scored)[0].nonzero()[:, 0]
        self.lead = int(lead[-1]) + 1 if len(lead) else 0
        columns = steps.x.shape[2]
        device = steps.x.device
        self.drawn = torch.zeros(count, len(self.places), columns, dtype=torch.int64, device=device)
        self.log_known = torch.zeros((), dtype=torch.float64, device=device)
        self.log_weights = torch.zeros(count, dtype=torch.float64, device=device)
        self.roots = torch.arange(count, device=device)
        self.worth = float(count)
        self.state = model.begin(1)  # of particles that differ
        self.rows = torch.zeros_like(self.roots)  # of the state, that of each particle
        self._ahead: Lookahead | None = None
        self._first = 0  # step of the gap that it looks ahead over
        self._log_ahead = torch.zeros_like(self.log_weights)  # what is to be divided out

    def run(self) -> None:
        """From the first step to the last."""
        borders = [-1, *self.places.tolist(), len(self.steps.x[0])]
        for number, (before, place) in enumerate(itertools.pairwise(borders)):
            self._known_steps(before + 1, place)
            if number < len(self.places):
                self._missing_step(place, number)
        self.log_known += self._log_mean_weight

    def _known_steps(self, first: int, stop: int) -> None:
        while first < stop:
            several = len(self.state[0])
            alone = several == 1
            end = min(stop, first + (PIECE if alone else TOGETHER))
            end = min(end, self.lead) if first < self.lead else end
            part = self.steps.part(torch.zeros_like(self.roots[:several]), first, end)
            log_p, self.state = self.model.scan(part, self.state)
            total = log_p.sum(1)
            if alone:
                self.log_known += total[0]
            else:
                self._weigh(total[self.rows] - self._log_ahead)
                self._log_ahead = torch.zeros_like(self._log_ahead)
                if end - first == TOGETHER and agree(total, self.state):
                    self.rows = self.rows[:1].expand(self.count)
                kept, self.rows = torch.unique(self.rows, return_inverse=True)
                self.state = tuple(each[kept] for each in self.state)
            self._count_from(end)
            first = end

    def _missing_step(self, t: int, number: int) -> None:
        self.state = tuple(each[self.rows] for each in self.state)
        self.rows = torch.arange(self.count, device=self.rows.device)
        if t == 0 or bool(self.steps.known[0, t - 1].any()):
            self._first, self._ahead = t, self._look(t)
        step = self._draw(self.steps, t, self.state, self.count)
        self.drawn[:, number], self.state = step.x, step.state
        log_p, known = step.log_p - self._log_ahead, bool(self.steps.known[0, t].any())
        if self._ahead is not None and not known:
            self._log_ahead = self._ahead.log(t - self._first, step.x)
            self._weigh(log_p + self._log_ahead)
        elif known:
            self._log_ahead = torch.zeros_like(self._log_ahead)
            self._weigh(log_p)
        self._count_from(t + 1)

    def _count_from(self, stop: int) -> None:
        """Divide out the estimate of what is given, where it ends at `stop`."""
        if stop == self.lead:
            self.log_known = -self._log_mean_weight

    def _draw(self, steps: Steps, t: int, state: State, count: int) -> _Drawn:
        uniform = self.noise.uniform(count, self.drawn.shape[2])
        step = _Forced(steps.part(slice(None), t, t + 1), 0, count, uniform)
        x, state = self.model.next_step(state, step.context, step.choose, step.every)
        return _Drawn(x, state, step.log_p)

    def _look(self, first: int) -> Lookahead | None:
        """Pilot draws over the gap that begins here, if it is long and anything follows."""
        known = self.steps.known[0]
        met = (known[first:].any(1)).nonzero()[:1, 0] + first
        if not len(met) or int(met) - first < 2:
            return None
        stop = int(met)
        pilots = min(PILOTS, max(self.count, FEWEST))
        rows = self._chosen(pilots)
        state, drawn = tuple(part[self.rows[rows]] for part in self.state), []
        steps = self.steps._replace(known=torch.zeros_like(self.steps.known))
        for t in range(first, stop + 1):  # the step after it is drawn, too
            x, state, _ = self._draw(steps, t, state, pilots)
            drawn.append(x)
        return Lookahead(
            self.model.spec.columns, torch.stack(drawn[:-1], 1), drawn[-1], steps.x[0, stop],
            known[stop],
        )  # fmt: skip

    def _weigh(self, log_p: Tensor) -> None:
        self.log_weights = self.log_weights + log_p
        value = float(effective(self.log_weights[None])[0])
        self.worth = min(self.worth, value)
        if value >= self.count / 2:
            return
        self.log_known += self._log_mean_weight
        index = self._chosen(self.count)
        self.drawn, self.roots = self.drawn[index], self.roots[index]
        self.rows = self.rows[index]
        self._log_ahead = self._log_ahead[index]
        self.log_weights = torch.zeros_like(self.log_weights)

    @property
    def _log_mean_weight(self) -> Tensor:
        return self.log_weights.logsumexp(0) - math.log(self.count)

    def _chosen(self, n: int) -> Tensor:
        return systematic(self.log_weights[None], self.noise.uniform(1), n)[0]

    @property
    def ancestors(self) -> int:
        """Particles at the first missing value whose descendants are left."""
        return len(set(self.roots.tolist()))

    def resampled(self, n: int) -> Tensor:
        """Draws of the steps at `places`, int64 [n, G, K]."""
        return self.drawn[self._chosen(n)]
