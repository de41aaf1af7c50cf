"""Laws of the neighbour search and of the memorisation check."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from likely.data.spec import Dataset
from likely.errors import InvalidData, InvalidSetting
from likely.evaluate import neighbours
from likely.evaluate.features import Extractor, Images
from likely.evaluate.neighbours import (
    distance_to_training,
    exact_duplicates,
    memorisation,
    nearest,
    nearest_images,
)
from toy_data import dataset


class Brightness:
    """One feature: the sum of the pixels."""

    name = "brightness"
    fingerprint = "0" * 12
    description = "the sum of the pixels"

    def __call__(self, x: Images) -> Tensor:
        return torch.as_tensor(x).double().flatten(1).sum(1, keepdim=True)


def random_images(n: int, seed: int, levels: int = 256, side: int = 3) -> np.ndarray:
    generator = np.random.default_rng(seed)
    kind = np.uint8 if levels <= 256 else np.uint16
    return generator.integers(0, levels, (n, 1, side, side)).astype(kind)


@pytest.mark.parametrize("block", [1, 7, 100])
def test_nearest_agrees_with_sorting_all_distances(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "BLOCK_VALUES", 40)
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(23, 4, generator=generator, dtype=torch.float64)
    references = torch.randn(50, 4, generator=generator, dtype=torch.float64)
    found = nearest(queries, iter(torch.split(references, block)), k=5)
    expected = torch.cdist(queries, references).sort(dim=1)
    assert torch.equal(found.index, expected.indices[:, :5])
    assert torch.allclose(found.distance, expected.values[:, :5], atol=1e-7)


def test_more_neighbours_than_references_are_refused() -> None:
    with pytest.raises(InvalidSetting, match="at most the 3 references"):
        nearest(torch.zeros(2, 1).double(), iter([torch.zeros(3, 1).double()]), k=4)


def test_a_copy_is_found_at_distance_zero_wherever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "READ", 16)
    train = dataset(random_images(100, 0, 65536), 65536)
    samples = torch.from_numpy(train.values[[3, 50, 99]].astype(np.int64))
    found, images = nearest_images(samples, train, k=2)
    assert found.index[:, 0].tolist() == [3, 50, 99]
    assert found.distance[:, 0].tolist() == [0.0, 0.0, 0.0]
    assert torch.equal(images[:, 0].long(), samples)
    other = torch.from_numpy(train.values[found.index[1, 1]].astype(np.int64))
    assert torch.equal(images[1, 1].long(), other)


def test_pixel_distance_is_in_units_of_a_whole_pixel() -> None:
    train = dataset(np.zeros((1, 1, 3, 3), np.uint8), 17)
    white = torch.full((1, 1, 3, 3), 16)
    found, _ = nearest_images(white, train, k=1)
    assert found.distance.item() == pytest.approx(3.0)


def test_features_decide_where_they_are_given() -> None:
    values = np.zeros((2, 1, 2, 2), np.uint8)
    values[0, 0, 0, 0] = 4  # the same brightness as the sample, elsewhere
    values[1, 0, 1, 1] = 3  # nearer in pixels
    sample = torch.zeros(1, 1, 2, 2, dtype=torch.int64)
    sample[0, 0, 1, 1] = 4
    train, brightness = dataset(values, 17), Brightness()
    extractor: Extractor = brightness
    assert nearest_images(sample, train, extractor, k=1)[0].index.item() == 0
    assert nearest_images(sample, train, k=1)[0].index.item() == 1


def test_duplicates_are_counted_in_every_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "READ", 16)
    train = dataset(random_images(100, 0), 256)
    samples = torch.from_numpy(train.values[[7, 20, 63]].astype(np.int64))
    samples[1, 0, 2, 2] ^= 1
    assert exact_duplicates(samples, train).tolist() == [True, False, True]


def test_copies_are_called_out_and_fresh_images_are_not(digits: tuple[Dataset, Dataset]) -> None:
    train, test = digits
    fresh = torch.from_numpy(test.values.astype(np.int64))
    floor = distance_to_training(fresh[1::2], train)
    honest = memorisation(distance_to_training(fresh[::2], train), floor)
    assert abs(honest.ratio.value - 1.0) < 4.0 * honest.ratio.standard_error
    assert honest.closer.value < 0.05
    copies = torch.from_numpy(train.values[:150].astype(np.int64))
    copies[:, 0, 0, 0] = 1  # almost copies
    caught = memorisation(distance_to_training(copies, train), floor)
    assert caught.ratio.value < 0.2
    assert caught.closer.value == 1.0
    assert not exact_duplicates(copies, train).any()


def test_the_ratio_has_the_error_of_its_spread() -> None:
    """Delta method against repeated draws."""
    generator = torch.Generator().manual_seed(0)

    def draw(n: int) -> torch.Tensor:
        return 1.0 + torch.rand(n, generator=generator, dtype=torch.float64)

    found = [memorisation(draw(50), draw(80) * 2).ratio for _ in range(400)]
    spread = float(np.std([f.value for f in found], ddof=1))
    assert np.mean([f.standard_error for f in found]) == pytest.approx(spread, rel=0.15)
    assert np.mean([f.value for f in found]) == pytest.approx(0.5, rel=0.01)


def test_samples_of_another_shape_or_scale_are_refused(digits: tuple[Dataset, Dataset]) -> None:
    train, _ = digits
    with pytest.raises(InvalidData, match="shape"):
        nearest_images(torch.zeros(2, 1, 9, 9, dtype=torch.int64), train)
    with pytest.raises(InvalidData, match=r"\[0, 17\)"):
        nearest_images(torch.full((2, 1, 8, 8), 17), train)
    with pytest.raises(InvalidData, match="integer-coded"):
        nearest_images(torch.zeros(2, 1, 8, 8), train)
