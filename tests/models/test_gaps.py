"""Gaps of sequences against the enumeration of all that may be in them."""

from __future__ import annotations

import itertools
import math
from typing import cast

import numpy as np
import pytest
import torch
from test_sequence_models import CASES, built, rng
from torch import Tensor

from likely import models
from likely.ask import Guarantee, answers
from likely.ask.complete import answer, completed_nats, completions
from likely.data.sequences import from_sequences
from likely.data.sequences.spec import MISSING, PADDING
from likely.density import SequenceDensity
from likely.density.sequence import gaps
from likely.errors import InvalidData, Unanswerable
from likely.estimate import Relation
from tiny_sequences import tiny

# Steps of two binary columns; what is missing is before, in and after the middle step. Particles
# look ahead from the third to the last.
TRUTH = torch.tensor([[1, 0], [0, 1], [1, 1], [0, 0], [1, 0]])
KNOWN = torch.tensor([[1, 1], [0, 1], [0, 0], [0, 0], [1, 1]]).bool()


def enumerated(model: SequenceDensity) -> tuple[Tensor, Tensor]:
    """(p of every filling given the rest, log p of the rest)."""
    count = int((~KNOWN).sum())
    every = TRUTH.repeat(2**count, 1, 1)
    every[:, ~KNOWN] = torch.tensor(list(itertools.product((0, 1), repeat=count)))
    log_p = model.log_prob(every).detach()
    return log_p.softmax(0), log_p.logsumexp(0)


def shares(drawn: Tensor) -> Tensor:
    missing = drawn[:, ~KNOWN]
    code = (missing * 2 ** torch.arange(missing.shape[1] - 1, -1, -1)).sum(1)
    return torch.bincount(code, minlength=2 ** missing.shape[1]).double() / len(drawn)


@pytest.mark.parametrize("name", ["hmm", "gru", "transformer"])
def test_draws_of_a_gap_follow_its_enumeration(name: str) -> None:
    model, n = tiny()[name], 20_000
    p, log_observed = enumerated(model)
    # What is not observed is not read, and what is missing is not observed.
    x = TRUTH.clone()
    x[1, 0], x[2, 0] = MISSING, 1
    everything = torch.ones_like(KNOWN)
    everything[2:4] = KNOWN[2:4]
    drawn = completions(model, x[None], everything, n, particles=n, seed=1)
    assert torch.equal(drawn.images[0][:, KNOWN], TRUTH[KNOWN].expand(n, -1))
    uneven = torch.full_like(p, 1 / len(p))
    assert 0.5 * float((p - uneven).abs().sum()) > 0.15  # it is worth something
    assert 0.5 * float((shares(drawn.images[0]) - p).abs().sum()) < 0.016
    exact = name == "hmm"
    assert drawn.exact is exact
    assert (drawn.relation is Relation.EXACT) is exact
    assert float(drawn.log_observed) == pytest.approx(
        float(log_observed), abs=1e-9 if exact else 0.02
    )
    parts = completed_nats(model, TRUTH[None], KNOWN, drawn)
    assert [part.quantity for part in parts] == ["nll-observed", "nll-missing", "nll"]
    assert parts[0].value + parts[1].value == pytest.approx(parts[2].value)
    assert len(completed_nats(model, x[None], everything, drawn)) == 1  # the truth is not known


@pytest.mark.parametrize("name", ["hmm", "gru"])
def test_what_is_given_weighs_in_the_draws_and_is_not_scored(name: str) -> None:
    model, n, lead = tiny()[name], 20_000, 2
    p, log_all = enumerated(model)
    either = TRUTH[:lead].repeat(2, 1, 1)  # the value that is missing in the lead
    either[1, 1, 0] = 1 - TRUTH[1, 0]
    log_given = model.log_prob(either).detach().logsumexp(0)
    x = torch.cat([-2 - TRUTH[:lead], TRUTH[lead:]])
    drawn = completions(model, x[None], KNOWN, n, particles=n, seed=1)
    assert 0.5 * float((shares(drawn.images[0]) - p).abs().sum()) < 0.016
    assert drawn.relation is (Relation.EXACT if name == "hmm" else Relation.APPROXIMATE)
    assert float(drawn.log_observed) == pytest.approx(
        float(log_all - log_given), abs=1e-9 if drawn.exact else 0.02
    )
    assert len(completed_nats(model, x[None], KNOWN, drawn)) == 1
    # A forecast that begins within the lead: nothing that counts is known.
    rest = torch.arange(10).view(5, 2) < 3
    forecast = completions(model, x[None], rest, 2)
    assert forecast.exact
    assert float(forecast.log_observed) == pytest.approx(0, abs=1e-12)
    assert completions(model, x[None], rest, 2, method="smc").log_observed.abs() < 1e-12


def test_the_estimate_of_what_is_known_has_no_bias_and_a_gap_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny()["gru"]
    _, log_observed = enumerated(model)
    x = TRUTH.expand(60, -1, -1)
    log_p = completions(model, x, KNOWN, particles=6).log_observed
    ratio = (log_p - log_observed).exp()
    assert float(ratio.mean()) == pytest.approx(1, abs=4 * float(ratio.std()) / math.sqrt(60))
    assert float((log_p - log_observed).mean()) < 0
    # A long series: the particles agree some time after a gap, and there is a second one.
    x = torch.from_numpy((rng(1).random((1, 70, 2)) < 0.5).astype(np.int64))
    seen = torch.ones(70, dtype=torch.bool)
    seen[[3, 4, 62]] = False
    merged = completions(model, x, seen, 4, particles=16, seed=2)
    monkeypatch.setattr(gaps, "agree", lambda log_p, state: False)
    apart = completions(model, x, seen, 4, particles=16, seed=2)
    assert torch.equal(merged.images, apart.images)
    assert torch.allclose(merged.log_observed, apart.log_observed, rtol=0, atol=1e-4)


def test_particles_that_look_ahead_are_worth_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A walk that has gone far when it is seen again."""
    walk = np.round(rng(3).standard_normal(600).cumsum() + 40 * np.sin(np.arange(600) / 40))
    train, _ = from_sequences([walk], name="walk")
    model = models.VAR(train.spec, lags=1, components=1)
    model.start_at(train)
    x = torch.from_numpy(train[0][:40])[None]
    seen = torch.ones(40, dtype=torch.bool)
    seen[20:32] = False
    x[:, 32:] += 9 - (x[0, 32] - x[0, 19])
    ahead = completions(model, x, seen, 4, particles=64)
    monkeypatch.setattr(gaps._Particles, "_look", lambda self, first: None)
    blind = completions(model, x, seen, 4, particles=64)
    assert ahead.effective is not None
    assert blind.effective is not None
    assert float(ahead.effective) > 4 * float(blind.effective)
    assert float(ahead.log_observed) == pytest.approx(float(blind.log_observed), abs=2)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_every_model_fills_gaps(name: str, kind: str) -> None:
    model, train, _ = built(name, kind)
    index = int(np.argmax(train.lengths))
    batch = train.batch(np.array([index]))
    x, context = torch.from_numpy(batch.x), model.batch_context(batch)
    seen = torch.ones(x.shape[1], x.shape[2], dtype=torch.bool)
    seen[4:6], seen[7, 1] = False, False
    drawn = completions(model, x, seen, 3, context=context, particles=8, seed=1)
    known = (seen & (x >= 0)).expand(3, -1, -1)
    assert torch.equal(drawn.images[0][known], x.expand(3, -1, -1)[known])
    levels = torch.tensor([column.levels for column in train.spec.columns])
    assert bool(((drawn.images >= 0) & (drawn.images < levels)).all())
    repeated = completions(model, x, seen, 3, context=context, particles=8, seed=1)
    assert torch.equal(drawn.images, repeated.images)
    exact = name in ("hmm", "state-space")
    assert drawn.exact is exact
    assert answers(model)["complete"].guarantee is answer(model, seen).guarantee
    wanted = Guarantee.EXACT if exact else Guarantee.APPROXIMATE
    assert answer(model, seen).guarantee is wanted


def test_a_gap_at_the_end_is_a_forecast_and_what_cannot_be_is_refused() -> None:
    model = tiny()["gru"]
    x = TRUTH[None]
    end = torch.arange(10).view(5, 2) < 7  # one column of a step and all after it
    drawn = completions(model, x, end, 5)
    assert drawn.exact
    assert answer(model, end).guarantee is Guarantee.EXACT
    both = x[:, :4].repeat(2, 1, 1)
    both[:, 3, 1] = torch.tensor([0, 1])
    wanted = model.log_prob(both).logsumexp(0)
    assert float(drawn.log_observed.detach()) == pytest.approx(float(wanted.detach()), abs=1e-9)
    nothing = completions(model, x, torch.zeros(5, dtype=torch.bool), 2)
    assert nothing.exact
    assert float(nothing.log_observed) == 0
    with pytest.raises(Unanswerable, match="known values come after the gap"):
        model.complete(x, KNOWN, method="exact")
    assert model.complete(x, KNOWN, particles=4).shape == x.shape
    padded = torch.cat([x, torch.full((1, 1, 2), PADDING)], 1)
    with pytest.raises(InvalidData, match="end together"):
        model.complete(padded, torch.ones(6, dtype=torch.bool))
    assert cast(SequenceDensity, model).complete(x, end).shape == x.shape
