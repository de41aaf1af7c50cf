"""Laws of the sample metrics: same N on both sides, a floor beside each, honest refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from likely.data.spec import Dataset
from likely.errors import InvalidData, InvalidSetting
from likely.estimate import Estimate, Relation, Verdict
from likely.evaluate import samples as samples_module
from likely.evaluate.classifier import NetworkFeatures
from likely.evaluate.distances import frechet_distance
from likely.evaluate.samples import SampleReference, sample_metrics, samples_per_second


@pytest.fixture(scope="module")
def reference(digits: tuple[Dataset, Dataset], extractor: NetworkFeatures) -> SampleReference:
    return SampleReference(*digits, extractor, n=200)


def by_quantity(estimates: list[Estimate]) -> dict[str, Estimate]:
    found = {e.quantity: e for e in estimates}
    assert len(found) == len(estimates)
    return found


def test_held_out_images_score_like_the_floor(
    digits: tuple[Dataset, Dataset], reference: SampleReference
) -> None:
    """The validation images are what a perfect model would draw."""
    train, _ = digits
    assert train.validation is not None
    perfect = by_quantity(reference.metrics(train.validation.values))
    floor = by_quantity(reference.floor)
    assert set(perfect) == set(floor)
    for quantity in ("kid", "precision", "recall", "density", "coverage", "duplicates"):
        gap = abs(perfect[quantity].value - floor[quantity].value)
        error = math.hypot(perfect[quantity].standard_error, floor[quantity].standard_error)
        assert gap < 4.0 * error, quantity
    assert 0.85 < perfect["memorisation-ratio-pixels"].value < 1.15
    assert 0.8 < perfect["memorisation-ratio-features"].value < 1.2
    assert perfect["near-copies"].value < 0.06


def test_noise_scores_worse_than_the_floor_in_every_direction(
    reference: SampleReference,
) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 17, (200, 1, 8, 8), generator=generator)
    worse = by_quantity(reference.metrics(noise))
    floor = by_quantity(reference.floor)
    for quantity in ("frechet", "kid", "precision", "coverage"):
        assert worse[quantity].versus(floor[quantity]).verdict is Verdict.WORSE, quantity
    assert worse["memorisation-ratio-pixels"].value > 1.5


def test_copies_of_training_images_are_called_out(
    digits: tuple[Dataset, Dataset], reference: SampleReference
) -> None:
    copied = by_quantity(reference.metrics(digits[0].values[:200]))
    assert copied["duplicates"].value == 1.0
    assert copied["near-copies"].value == 1.0
    assert copied["nearest-train-pixels"].value == 0.0
    assert copied["nearest-train-features"].value < 1e-5


def test_every_estimate_names_n_its_floor_and_its_fingerprint(
    digits: tuple[Dataset, Dataset], reference: SampleReference, extractor: NetworkFeatures
) -> None:
    found = reference.metrics(digits[0].values)
    floor = by_quantity(reference.floor)
    for estimate in found:
        assert estimate.relation is Relation.APPROXIMATE
        assert estimate.n == 200
        assert estimate.fingerprint == reference.fingerprint
        assert f"floor {floor[estimate.quantity].value:.4g}" in estimate.about
        assert estimate.about.startswith("200 samples against ")
    assert "200 test images in digits-classifier features" in found[0].about
    assert all("floor" not in estimate.about for estimate in reference.floor)


def test_the_number_of_images_is_part_of_the_fingerprint(
    digits: tuple[Dataset, Dataset], reference: SampleReference, extractor: NetworkFeatures
) -> None:
    train, test = digits
    others = [
        SampleReference(train, test, extractor, n=199),
        SampleReference(train, test, extractor, n=200, k=4),
        SampleReference(train, test, extractor, n=200, seed=1),
        SampleReference(train.take(slice(0, 1000)), test, extractor, n=200),
        SampleReference(train, test.take(slice(0, 250)), extractor, n=200),
    ]
    fingerprints = {reference.fingerprint, *(other.fingerprint for other in others)}
    assert len(fingerprints) == 6
    same = SampleReference(train, test, extractor, n=200)
    assert same.fingerprint == reference.fingerprint
    assert torch.equal(same.images, reference.images)


def test_the_first_n_samples_count_and_the_images_are_chosen_by_the_seed(
    digits: tuple[Dataset, Dataset], reference: SampleReference, extractor: NetworkFeatures
) -> None:
    train, test = digits
    assert reference.metrics(train.values) == reference.metrics(train.values[:200])
    other = SampleReference(train, test, extractor, n=200, seed=1)
    first = torch.from_numpy(test.values[:200])
    assert not torch.equal(other.images, reference.images)
    assert not torch.equal(reference.images, first)
    # Chosen without repetition: each of them is some test image, once.
    chosen = {image.numpy().tobytes() for image in reference.images}
    assert len(chosen) == 200
    assert chosen <= {image.tobytes() for image in test.values}


def test_few_good_modes_have_precision_and_no_recall(
    digits: tuple[Dataset, Dataset], reference: SampleReference
) -> None:
    train, _ = digits
    assert train.labels is not None
    few = train.values[np.isin(train.labels, [0, 1])][:200]
    scores = by_quantity(reference.metrics(few))
    assert scores["precision"].value > 0.8
    assert scores["recall"].value < 0.5


def test_a_collapsed_generator_gets_numbers_and_no_crash(reference: SampleReference) -> None:
    scores = by_quantity(reference.metrics(torch.full((200, 1, 8, 8), 3)))
    floor = by_quantity(reference.floor)
    assert scores["frechet"].versus(floor["frechet"]).verdict is Verdict.WORSE
    assert scores["recall"].value == 0.0
    assert scores["nearest-train-pixels"].standard_error == 0.0


def test_sample_metrics_is_the_reference_in_one_call(
    digits: tuple[Dataset, Dataset], extractor: NetworkFeatures
) -> None:
    train, test = digits
    samples = train.values[100:180]
    found = sample_metrics(samples, train, test, extractor)
    assert found == SampleReference(train, test, extractor, n=80).metrics(samples)
    expected = frechet_distance(
        extractor(samples), SampleReference(train, test, extractor, n=80).features
    )
    assert found[0].value == pytest.approx(expected.value)


def test_a_large_training_set_gives_the_same_numbers(
    digits: tuple[Dataset, Dataset],
    reference: SampleReference,
    extractor: NetworkFeatures,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = reference.metrics(digits[0].values[::-1].copy())
    monkeypatch.setattr(samples_module, "KEEP", 0)
    again = SampleReference(*digits, extractor, n=200)
    found = again.metrics(digits[0].values[::-1].copy())
    for a, b in zip(found, expected, strict=True):
        assert a.value == pytest.approx(b.value, abs=1e-5)


def test_too_few_or_wrong_samples_are_refused(
    digits: tuple[Dataset, Dataset], reference: SampleReference, extractor: NetworkFeatures
) -> None:
    train, test = digits
    with pytest.raises(InvalidSetting, match="200 samples are needed"):
        reference.metrics(train.values[:199])
    with pytest.raises(InvalidData, match="integer-coded"):
        reference.metrics(torch.zeros(200, 1, 8, 8))
    with pytest.raises(InvalidSetting, match="at most 297"):
        SampleReference(train, test, extractor, n=298)
    with pytest.raises(InvalidSetting, match="more than k"):
        SampleReference(train, test, extractor, n=5)


class Clocked:
    """A model whose calls take the given seconds, the last of them from then on."""

    def __init__(self, *durations: float) -> None:
        self.now = 0.0
        self.durations = list(durations)
        self.seeds: list[int] = []

    def sample(self, n: int, *, seed: int = 0) -> Tensor:
        self.now += self.durations[min(len(self.seeds), len(self.durations) - 1)]
        self.seeds.append(seed)
        return torch.zeros(n, 1, 2, 2, dtype=torch.int64)

    def clock(self) -> float:
        return self.now


def test_speed_counts_images_over_the_timed_calls_only() -> None:
    model = Clocked(100.0, 0.5, 0.25, 0.25)
    speed = samples_per_second(model, 10, seed=7, seconds=0.8, clock=model.clock)
    assert model.seeds == [7, 7, 8, 9], "the first call is not timed; then until 0.8 s"
    rates = [20.0, 40.0, 40.0]
    assert speed.value == pytest.approx(np.mean(rates))
    assert speed.standard_error == pytest.approx(np.std(rates, ddof=1) / math.sqrt(3))
    assert (speed.unit, speed.lower_is_better, speed.n) == ("images/s", False, 3)
    assert "10 images a call" in speed.about
    slow, instant = Clocked(60.0), Clocked(0.0)
    other = samples_per_second(slow, 11, clock=slow.clock)
    assert other.n == 2, "a slow model is timed twice"
    assert other.fingerprint != speed.fingerprint
    assert samples_per_second(instant, 1, clock=instant.clock).n == 100
