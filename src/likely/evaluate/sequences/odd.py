"""Odd stretches of sequences: a window's nats against what the model itself would have drawn there.

    likely score runs/gru mine.csv --plot odd.png        the command
    likely.evaluate.sequences.odd.stretches(model, data)   Python

Each series is cut into windows. From the state before a window the model draws m continuations of
its length, and says what each costs; the window's own nats are ranked among those, ties broken at
random:

    p = (#{drawn > nats} + u (1 + #{drawn = nats})) / (m + 1),   u uniform in [0, 1)

If the model had drawn the data, p would be uniform, whatever the model is, for any m. A small p is
a stretch that costs more than the model's own. Windows are ranked by their excess, the nats less
the mean of those that were drawn, in standard deviations of those.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from likely.data.sequences.dataset import Sequences
from likely.data.sequences.spec import SequenceSpec
from likely.data.spec import Dataset
from likely.density import SequenceDensity, State, Steps, evaluating
from likely.density.sequence.bins import ColumnDensity
from likely.devices.precision import without_autocast
from likely.errors import InvalidData, InvalidSetting
from likely.noise import Noise

Floats = npt.NDArray[np.float64]

ROWS = 4096  # continuations that are drawn side by side
LEVEL = 0.05
TIE = 1e-4  # nats: scoring in one pass and step by step round differently


@dataclasses.dataclass(frozen=True)
class Stretches:
    """How odd each window of some sequences is.

    Attributes:
        spec: of the data.
        series, first, stop: of each window: its sequence, and scored steps [first, stop) of it.
        nats: -log p of each window; of a density where columns are continuous.
        expected, deviation: of the nats that the model's own continuations cost, [W] each.
        p: see the module's docstring, [W].
        per_step: -log p of every scored step of each sequence.
        draws: continuations of each window.
    """

    spec: SequenceSpec
    series: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    stop: npt.NDArray[np.int64]
    nats: Floats
    expected: Floats
    deviation: Floats
    p: Floats
    per_step: tuple[Floats, ...]
    draws: int

    @property
    def excess(self) -> Floats:
        """Nats less those expected, in standard deviations of the drawn ones, [W]."""
        return np.asarray((self.nats - self.expected) / self.deviation.clip(1e-9))

    @property
    def order(self) -> npt.NDArray[np.int64]:
        """Windows, the oddest first."""
        return np.argsort(-self.excess, kind="stable")

    @property
    def value(self) -> float:
        """Nats per step over all steps."""
        every = np.concatenate(self.per_step)
        return float(every.mean())

    @property
    def flagged(self) -> float:
        """Share of the windows with p at most 5 %: 5 % if the model had drawn the data."""
        return float((self.p <= LEVEL).mean())

    def rows(self, times: Sequence[Sequence[str]] | None = None) -> list[dict[str, Any]]:
        """A record of each window, the oddest first; `times` of the steps of each sequence."""
        out = []
        for w in self.order:
            series, first, stop = int(self.series[w]), int(self.first[w]), int(self.stop[w])
            record: dict[str, Any] = {"series": series, "first": first, "last": stop - 1}
            if times is not None:
                record |= {"from": times[series][first], "to": times[series][stop - 1]}
            steps = stop - first
            out.append(record | {
                "nats_per_step": float(self.nats[w]) / steps,
                "expected": float(self.expected[w]) / steps,
                "excess": float(self.excess[w]), "p": float(self.p[w]),
            })  # fmt: skip
        return out

    def table(self) -> str:
        """Comma-separated values: a line for each step."""
        text = io.StringIO()
        text.write("series,step,nats,window,excess,p\n")
        for number in np.lexsort((self.first, self.series)):
            series = int(self.series[number])
            for step in range(int(self.first[number]), int(self.stop[number])):
                nats = self.per_step[series][step]
                text.write(f"{series},{step},{nats:.7g},{number},{self.excess[number]:.5g},"
                           f"{self.p[number]:.5g}\n")  # fmt: skip
        return text.getvalue()


@torch.no_grad()
def stretches(
    model: SequenceDensity,
    data: Dataset,
    *,
    window: int = 24,
    draws: int = 99,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Stretches:
    """Score windows of sequences against the model's own continuations.

    Args:
        model: a density of sequences.
        data: of the kind that it was built for.
        window: steps of each; the last of a series may be shorter, but for a series of its own no
            shorter than half.
        draws: continuations of each window.
        seed: of the noise.
        progress: called with (windows done, of how many).

    Raises:
        InvalidData: other data.
        InvalidSetting: window or draws below 1.
    """
    if not isinstance(data, Sequences):
        raise InvalidData(f"{data.spec.name} holds no sequences")
    if misfit := data.spec.misfit(model.spec):
        raise InvalidData(misfit)
    if window < 1 or draws < 1:
        raise InvalidSetting(f"windows of {window} steps, {draws} draws; expected 1 or more")
    states: list[State] = []
    pieces: list[Steps] = []
    places, costs, every = [], [], []
    with evaluating(model), without_autocast(model.device):
        for number in range(len(data)):
            batch = data.batch(np.array([number]))
            steps = model.steps(torch.from_numpy(batch.x), model.batch_context(batch))
            lead, length = int(data.lead[number]), int(data.lengths[number])
            before = steps.part(slice(None), 0, lead)
            state = model.state_after(before) if lead else model.begin(1)
            kept = []
            for first, stop in _windows(length, window):
                piece = steps.part(slice(None), lead + first, lead + stop)
                states.append(state)
                pieces.append(piece)
                log_p, state = model.scan(piece, state)
                volume = data.spec.log_volume(piece.known[0].cpu().numpy())
                kept.append(volume - log_p[0].cpu().numpy())
                places.append((number, first, stop))
                costs.append(float(kept[-1].sum()))
            every.append(np.concatenate(kept))
        noise, parts = Noise(seed, "stretches", device=model.device), []
        size, at = max(1, ROWS // draws), 0
        while at < len(states):
            end = at + 1  # windows of the same length go together
            while end < min(len(states), at + size) and _length(pieces[end]) == _length(pieces[at]):
                end += 1
            parts.append(_drawn(model, states[at:end], pieces[at:end], draws, noise))
            at = end
            if progress is not None:
                progress(at, len(states))
    drawn, nats = np.concatenate(parts), np.array(costs)  # [W, m], [W]
    u = np.random.default_rng(seed).random(len(nats))
    apart = drawn - nats[:, None]
    more, same = (apart > TIE).sum(1), (np.abs(apart) <= TIE).sum(1)
    series, first, stop = np.array(places).T
    return Stretches(
        data.spec, series, first, stop, nats, drawn.mean(1), drawn.std(1),
        (more + u * (1 + same)) / (draws + 1), tuple(every), draws,
    )  # fmt: skip


def _length(steps: Steps) -> int:
    return steps.x.shape[1]


def _windows(length: int, window: int) -> list[tuple[int, int]]:
    """Windows that cover a series, the last joined to the one before where it is short."""
    edges = [*range(0, length, window), length]
    if len(edges) > 2 and edges[-1] - edges[-2] < window / 2:
        del edges[-2]
    return list(itertools.pairwise(edges))


def _drawn(
    model: SequenceDensity, states: list[State], pieces: list[Steps], draws: int, noise: Noise
) -> Floats:
    """Nats of continuations that the model draws from each state, [W, m]."""
    rows = len(states) * draws
    state = tuple(
        torch.cat(parts).repeat_interleave(draws, 0) for parts in zip(*states, strict=True)
    )
    known = torch.cat([piece.known for piece in pieces]).repeat_interleave(draws, 0)
    context = None
    if pieces[0].context is not None:
        of_pieces = [piece.context for piece in pieces if piece.context is not None]
        context = torch.cat(of_pieces).repeat_interleave(draws, 0)
    volume = model.spec.log_volume(known.cpu().numpy()).sum(1)
    total = torch.from_numpy(volume).to(known.device)
    for t in range(known.shape[1]):
        uniform = noise.uniform(rows, known.shape[2])
        seen = known[:, t]

        def choose(k: int, column: ColumnDensity) -> Tensor:
            value = column.quantile(uniform[:, k])  # noqa: B023
            total.sub_(column.log_prob(value) * seen[:, k])  # noqa: B023
            return value

        told = None if context is None else context[:, t]
        _, state = model.next_step(state, told, choose, seen)
    return total.view(len(states), draws).cpu().numpy()
