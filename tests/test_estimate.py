"""What estimates of few examples can say, and what a conditional likelihood is about."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

import likely
from likely import data, models
from likely.data.spec import Dataset
from likely.errors import InvalidData, InvalidSetting
from likely.estimate import Estimate, Relation, Verdict, confidence_width
from likely.evaluate.compare import ModelResult, compare_models, paired_comparison
from likely.evaluate.likelihood import latent_diagnostics, nats
from likely.settings import FitSettings


def mean_of(values: list[float], quantity: str = "nll") -> Estimate:
    return Estimate.mean_of(
        values, unit="nats", relation=Relation.EXACT, quantity=quantity, fingerprint="same"
    )


@pytest.mark.parametrize("n", [2, 3, 4, 7, 10, 50, 201, 202, 5000])
def test_the_width_is_that_of_students_t(n: int) -> None:
    assert confidence_width(n) == pytest.approx(scipy.stats.t.ppf(0.975, n - 1), rel=1e-4)


@pytest.mark.parametrize("n", [2, 3, 10])
def test_of_few_examples_chance_is_called_better_at_most_as_often_as_promised(n: int) -> None:
    """Two models that are equally good: 5 % of verdicts may be decided, not more."""
    random = np.random.default_rng(n)
    decided = paired = 0
    for _ in range(1000):
        a, b = random.normal(size=n).tolist(), random.normal(size=n).tolist()
        left, right = mean_of(a), mean_of(b)
        decided += left.versus(right).verdict is not Verdict.UNDECIDED
        paired += paired_comparison(left, right, a, b).verdict is not Verdict.UNDECIDED
    assert decided <= 70
    assert 25 <= paired <= 80


def test_one_example_decides_nothing_and_says_so() -> None:
    one, other = mean_of([3.0]), mean_of([90.0])
    assert one.standard_error == math.inf
    assert str(one) == "= 3.000 nats (n = 1, error unknown)"
    for comparison in (
        one.versus(other),
        other.versus(one),
        one.versus(mean_of([80.0, 81.0])),
        paired_comparison(one, other, [3.0], [90.0]),
    ):
        assert comparison.verdict is Verdict.UNDECIDED
        assert "chance" in comparison.reason
    written = json.dumps(one.to_json(), allow_nan=False)
    assert Estimate.from_json(json.loads(written)) == one
    assert one.scaled(2.0, "bits").standard_error == math.inf


def toy(labels: np.ndarray | None, context: np.ndarray | None = None) -> Dataset:
    x = np.random.default_rng(0).integers(0, 2, (40, 4, 4)).astype("u1")
    return data.from_array(x, levels=2, labels=labels, context=context, name="toy")


def test_what_a_likelihood_is_given_belongs_to_its_quantity_and_its_fingerprint() -> None:
    labels = np.arange(40) % 3
    one, other, bare = toy(labels), toy(labels[::-1].copy()), toy(None)
    assert one.spec.fingerprint == other.spec.fingerprint == one.fingerprint_given("")
    torch.manual_seed(0)
    plain = models.FVSBN(one.spec)
    conditional = models.FVSBN(one.spec, models.FVSBNSettings(conditional=True))
    assert nats(plain, one).fingerprint == nats(plain, other).fingerprint == one.spec.fingerprint
    a, b = nats(conditional, one), nats(conditional, other)
    assert a.quantity == "nll-given-label"
    assert a.fingerprint != b.fingerprint
    assert nats(conditional, one).fingerprint == a.fingerprint
    assert a.versus(b).verdict is Verdict.INCOMPARABLE
    across = a.versus(nats(plain, one))
    assert across.verdict is Verdict.INCOMPARABLE
    assert "log p(x | label) and log p(x) are different quantities" in across.reason
    with pytest.raises(InvalidData, match="no label"):
        bare.fingerprint_given("label")


def test_numbers_and_maps_that_are_given_count_as_labels_do() -> None:
    random = np.random.default_rng(1)
    for shape in ((40, 3), (40, 2, 4, 4)):
        one, other = (toy(None, random.random(shape)) for _ in range(2))
        settings = models.PixelCNNSettings(channels=4, layers=1, conditional=True)
        estimates = [nats(models.PixelCNN(one.spec, settings), part) for part in (one, other)]
        assert {e.quantity for e in estimates} == {"nll-given-context"}
        assert estimates[0].fingerprint != estimates[1].fingerprint
        plain = models.PixelCNN(one.spec, dataclasses.replace(settings, conditional=False))
        assert nats(plain, one).quantity == "nll"


def test_conditional_and_unconditional_models_stand_in_columns_of_their_own() -> None:
    train = toy(np.arange(40) % 3)
    settings = models.VAESettings(network="dense", hidden=8, latent=2)
    results = []
    for conditional in (False, True):
        model = models.VAE(train.spec, dataclasses.replace(settings, conditional=conditional))
        diagnostics = latent_diagnostics(model, train)
        estimates = (nats(model, train), diagnostics.rate, diagnostics.distortion)
        answers = likely.answers(model)
        results.append(ModelResult(f"vae {conditional}", model.kind, estimates, answers))
    table = compare_models(results)
    assert len(table.columns) == 6
    assert all(len(table._beaten[c]) == 1 for c in table.columns)
    (verdict,) = [v for v in table.verdicts if v.comparison.verdict is Verdict.INCOMPARABLE]
    assert "different quantities" in verdict.comparison.reason


def test_a_conditional_fit_does_not_go_on_with_other_labels(tmp_path: Path) -> None:
    labels = np.arange(40) % 3
    settings = FitSettings(steps=4, batch_size=10)
    for conditional in (True, False):
        out = tmp_path / str(conditional)
        chosen = models.FVSBNSettings(conditional=conditional)
        first = toy(labels)
        likely.fit(models.FVSBN(first.spec, chosen), first, settings=settings, out=out)
        other = toy(labels[::-1].copy())
        again = models.FVSBN(other.spec, chosen)
        if conditional:
            with pytest.raises(InvalidSetting, match="labels"):
                likely.fit(again, other, settings=settings, out=out)
        else:  # labels that are not read may change
            assert likely.fit(again, other, settings=settings, out=out).finished
        same = toy(labels.copy())
        assert likely.fit(models.FVSBN(same.spec, chosen), same, settings=settings, out=out)
