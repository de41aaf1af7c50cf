"""Calibration of forecasts against known answers: the right law, a law too narrow."""

from __future__ import annotations

import functools
import math
from typing import cast

import numpy as np
import pytest
import torch

from likely import models
from likely.data.sequences import Sequences, from_sequences
from likely.data.sequences.spec import MISSING
from likely.errors import InvalidData
from likely.evaluate.sequences.ahead import steps_ahead
from likely.evaluate.sequences.calibration import Calibration, calibration


@functools.cache
def walk() -> tuple[Sequences, Sequences]:
    """Two columns, x_t = 0.5 x_{t-1} + N(0, 1), on tenths; a value missing."""
    noise = np.random.default_rng(0).standard_normal((1500, 2))
    series = np.zeros_like(noise)
    for t in range(1, len(noise)):
        series[t] = 0.5 * series[t - 1] + noise[t]
    series = np.round(series, 1)
    series[1300, 1] = np.nan
    return from_sequences([series], name="walk")


@functools.cache
def measured(narrower: float = 0.0) -> Calibration:
    train, test = walk()
    model = models.StateSpace(train.spec, latent=2, seed=0)
    model.start_at(train)
    with torch.no_grad():
        model.log_scale -= narrower
        model.process_root *= math.exp(-narrower)
    return calibration(model, test, train, steps=250, draws=39)


def test_scores_of_whole_steps_are_left_out_where_no_step_is_known_whole() -> None:
    series = np.round(np.random.default_rng(1).standard_normal((90, 2)), 1)
    series[::2, 0] = series[1::2, 1] = np.nan
    train, test = from_sequences([series], name="in turn")
    model = models.StateSpace(train.spec, latent=1, seed=0)
    model.start_at(train)
    quantities = [e.quantity for e in calibration(model, test, train, draws=9).estimates]
    assert "crps" in quantities
    assert "energy-score" not in quantities
    empty = Sequences(test.spec, np.full_like(test.values, MISSING), offsets=test.offsets,
                      lead=test.lead)  # fmt: skip
    with pytest.raises(InvalidData, match="no number of in turn is known at the 18"):
        calibration(model, empty, train, draws=9)
    with pytest.raises(InvalidData, match=r"at most 18 steps: none is \(24,\) ahead"):
        steps_ahead(model, test, train, ahead=(24,))


def test_the_right_law_is_calibrated() -> None:
    result = measured()
    assert result.pit.shape == (250, 2)
    by_name = {e.quantity: e for e in result.estimates}
    assert {e.relation.value for e in result.estimates} == {"~"}  # of draws, so never exact
    for level in (50, 80, 90, 95):
        estimate = by_name[f"coverage-{level}"]
        assert estimate.value == pytest.approx(level, abs=4 * estimate.standard_error + 0.5)
    # A Gaussian's own CRPS is its deviation over the root of pi.
    deviation = 1 / math.sqrt(1 - 0.25)
    crps = by_name["crps"]
    assert crps.value == pytest.approx(
        1 / math.sqrt(math.pi) / deviation, abs=4 * crps.standard_error
    )
    # Of two columns, half of the mean distance of two draws: E|X - X'| of a plane is root of pi.
    energy = by_name["energy-score"]
    assert energy.value == pytest.approx(
        0.5 * math.sqrt(math.pi) / deviation, abs=4 * energy.standard_error
    )
    distance, p = result.uniformity()
    assert distance < 0.08
    assert p > 0.02


def test_a_law_that_is_too_narrow_is_found() -> None:
    result = measured(0.7)
    coverage = next(e for e in result.estimates if e.quantity == "coverage-90")
    assert coverage.value < 70
    assert result.uniformity()[1] < 0.01
    right = next(e for e in measured().estimates if e.quantity == "crps")
    wrong = next(e for e in result.estimates if e.quantity == "crps")
    assert wrong.value > right.value


def test_categories_have_no_intervals() -> None:
    train, test = from_sequences([np.arange(60) % 3], name="turns")
    model = models.HMM(train.spec, states=3)
    model.start_at(train)
    with pytest.raises(InvalidData, match="no column of turns is a number"):
        calibration(model, test, train)


def test_what_is_missing_is_left_out() -> None:
    train, test = walk()
    model = models.VAR(train.spec, lags=1, components=1)
    model.start_at(train)
    part = cast(Sequences, test)
    total = int(part.lengths.sum())
    result = calibration(model, part, train, steps=total, draws=5)
    assert result.pit.shape == (total, 2)
    assert np.isnan(result.pit).sum() == 1
    assert np.isnan(result.energy).sum() == 1


def test_steps_ahead_of_an_autoregression() -> None:
    """The variance h steps ahead is the sum of 0.25^i; far ahead it is the climatology."""
    train, test = walk()
    model = models.StateSpace(train.spec, latent=2, seed=0)
    model.start_at(train)
    result = steps_ahead(model, test, train, ahead=(1, 2, 8), origins=60, draws=32)
    tenths = -math.log(0.1)
    for h, row in zip(result.ahead, result.nats, strict=True):
        spread = 0.5 * math.log(sum(0.25**i for i in range(h)))
        wanted = 2 * (tenths + spread + 0.5 * math.log(2 * math.pi * math.e))
        assert row.mean() == pytest.approx(wanted, abs=0.15 + 3 * row.std() / math.sqrt(60))
    assert result.nats[2].mean() == pytest.approx(result.climatology[2].mean(), abs=0.25)
    assert result.nats[0].mean() < result.climatology[0].mean() - 0.1
    assert result.estimates[0].relation.value == "<="
