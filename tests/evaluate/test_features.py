"""Laws of the extractors: deterministic, cached whole, honest about what they were fitted on."""

from __future__ import annotations

import hashlib
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from likely import data
from likely.data.spec import Dataset, DataSpec
from likely.errors import InvalidData, InvalidSetting, MissingDependency
from likely.evaluate import classifier, features
from likely.evaluate.classifier import ClassifierSettings, NetworkFeatures, default_extractor
from likely.evaluate.features import InceptionFeatures
from toy_data import dataset

QUICK = ClassifierSettings(steps=20)


def noise(n: int, shape: tuple[int, int, int], levels: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, levels, (n, *shape))
    return values.astype(np.uint8 if levels <= 256 else np.uint16)


def test_the_default_knows_digits(
    digits: tuple[Dataset, Dataset], extractor: NetworkFeatures
) -> None:
    train, test = digits
    assert extractor.held_out_accuracy is not None
    assert extractor.held_out_accuracy > 0.85
    assert extractor.held_out == 250
    assert "held-out accuracy" in extractor.description
    assert extractor(test.values).shape == (len(test), 64)
    seen = extractor(train.values)
    assert seen.dtype == torch.float64
    assert torch.allclose(seen.mean(0), torch.zeros(64).double(), atol=1e-5)
    assert float(seen.square().mean()) == pytest.approx(1.0, abs=1e-4)


def test_fitting_is_a_function_of_data_settings_and_seed(
    digits: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    train, _ = digits
    threads, stream = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(2)
    first = default_extractor(train, QUICK, cache=tmp_path / "a")
    assert torch.get_num_threads() == 2
    torch.set_num_threads(threads)
    torch.manual_seed(5)
    second = default_extractor(train, QUICK, cache=tmp_path / "b")
    torch.set_rng_state(stream)
    third = default_extractor(train, QUICK, cache=tmp_path / "c")
    assert torch.equal(torch.get_rng_state(), stream), "the global generator was used"
    assert first.fingerprint == second.fingerprint == third.fingerprint
    other = default_extractor(train, ClassifierSettings(steps=20, seed=1), cache=tmp_path / "a")
    assert other.fingerprint != first.fingerprint


def test_the_cache_is_used_and_a_broken_file_is_made_again(
    digits: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    train, test = digits
    fitted: list[int] = []

    def count(done: int, of: int) -> None:
        fitted.append(done)

    first = default_extractor(train, QUICK, cache=tmp_path, progress=count)
    assert fitted == list(range(1, 21))
    again = default_extractor(train, QUICK, cache=tmp_path, progress=count)
    assert len(fitted) == 20
    assert again.held_out_accuracy == first.held_out_accuracy
    assert torch.equal(again(test.values), first(test.values))
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-8])
    assert default_extractor(train, QUICK, cache=tmp_path).fingerprint == first.fingerprint
    assert default_extractor(train, QUICK, cache=tmp_path).fingerprint == first.fingerprint
    assert [f.name for f in tmp_path.iterdir()] == [file.name]


def test_a_cache_file_with_other_weights_is_not_believed(
    digits: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    train, _ = digits
    first = default_extractor(train, QUICK, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    assert default_extractor(train, QUICK, cache=tmp_path).fingerprint == first.fingerprint


def test_a_cache_that_cannot_be_written_is_no_error(
    digits: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    found = default_extractor(digits[0], QUICK, cache=blocked / "below")
    assert found.held_out_accuracy is not None


def test_without_labels_the_network_is_random_and_says_so(tmp_path: Path) -> None:
    train = dataset(noise(40, (1, 8, 8), 4), 4)
    extractor = default_extractor(train, QUICK, cache=tmp_path)
    assert extractor.held_out_accuracy is None
    assert "no labels" in extractor.description
    assert "random" in extractor.name
    again = default_extractor(train, QUICK, cache=tmp_path)
    assert again.held_out_accuracy is None
    assert again.fingerprint == extractor.fingerprint


def test_attributes_stand_in_for_labels(tmp_path: Path) -> None:
    values = noise(300, (3, 8, 8), 256)
    bright = np.arange(300) % 2 == 0
    values[bright] //= 4
    train = dataset(values, 256)
    train.attributes = {"dark": bright}
    extractor = default_extractor(train, ClassifierSettings(steps=100), cache=tmp_path)
    assert "attributes" in extractor.description
    assert extractor.held_out_accuracy == 1.0
    assert extractor.held_out == 50


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [8, 28, 32, 64])
@pytest.mark.parametrize("levels", [2, 65536])
def test_every_shape_and_number_of_levels_fits(
    channels: int, side: int, levels: int, tmp_path: Path
) -> None:
    labels = np.arange(24, dtype=np.int64) % 3
    train = dataset(noise(24, (channels, side, side), levels), levels, labels)
    extractor = default_extractor(train, ClassifierSettings(steps=2, batch=4), cache=tmp_path)
    found = extractor(train.values[:5])
    assert found.shape == (5, 64)
    assert bool(torch.isfinite(found).all())
    # A tensor and an array are the same images.
    assert torch.equal(found, extractor(torch.from_numpy(train.values[:5].astype(np.int64))))


def test_bad_settings_and_bad_images_are_refused(extractor: NetworkFeatures) -> None:
    with pytest.raises(InvalidSetting, match="features >= 1"):
        ClassifierSettings(features=0)
    with pytest.raises(InvalidData, match=r"\[0, 17\)"):
        extractor(np.full((1, 1, 8, 8), 200, np.uint8))
    with pytest.raises(InvalidData, match="shape"):
        extractor(np.zeros((1, 3, 8, 8), np.uint8))
    sequences = DataSpec("sequences", (5, 5), 4, n=3)
    with pytest.raises(InvalidData, match=r"images \[C, H, W\]"):
        default_extractor(Dataset(sequences, np.zeros((3, 5, 5), np.uint8)))


# -- Inception --------------------------------------------------------------------------------

SPEC = DataSpec("toy", (1, 4, 4), 17)


def test_inception_checks_the_file_before_opening_it(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="no Inception weights"):
        InceptionFeatures(SPEC, tmp_path / "missing.pth")
    wrong = tmp_path / "wrong.pth"
    wrong.write_bytes(b"not the weights")
    with pytest.raises(InvalidData, match="SHA-256"):
        InceptionFeatures(SPEC, wrong)
    with pytest.raises(InvalidData, match="1 or 3 channels"):
        InceptionFeatures(DataSpec("toy", (2, 4, 4), 17), wrong)


def test_inception_without_the_library_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"weights")
    monkeypatch.setattr(features, "INCEPTION_SHA256", hashlib.sha256(b"weights").hexdigest())
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(MissingDependency, match=r"pip install torch-fidelity"):
        InceptionFeatures(SPEC, weights)


def test_inception_is_given_bytes_of_three_channels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for the library: what reaches the network is uint8 [B, 3, H, W]."""
    seen: list[Tensor] = []

    class StandIn:
        def __init__(self, name: str, wanted: list[str], feature_extractor_weights_path: str):
            assert wanted == ["2048"]
            assert Path(feature_extractor_weights_path).is_file()

        def __call__(self, x: Tensor) -> tuple[Tensor]:
            seen.append(x)
            return (torch.ones(len(x), 2048),)

    package: Any = types.ModuleType("torch_fidelity")
    module: Any = types.ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = StandIn
    monkeypatch.setitem(sys.modules, "torch_fidelity", package)
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", module)
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"weights")
    monkeypatch.setattr(features, "INCEPTION_SHA256", hashlib.sha256(b"weights").hexdigest())
    extractor = InceptionFeatures(SPEC, weights)
    x = torch.zeros(40, 1, 4, 4, dtype=torch.int64)
    x[0, 0, 0] = torch.tensor([0, 1, 8, 16])
    assert extractor(x).shape == (40, 2048)
    assert all(part.dtype == torch.uint8 and part.shape[1] == 3 for part in seen)
    assert seen[0][0, 2, 0].tolist() == [0, 16, 128, 255]
    assert sum(len(part) for part in seen) == 40


def test_recipe_is_part_of_the_fingerprint(
    digits: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = default_extractor(digits[0], QUICK, cache=tmp_path)
    monkeypatch.setattr(classifier, "RECIPE", "another")
    assert default_extractor(digits[0], QUICK, cache=tmp_path).fingerprint != first.fingerprint


@pytest.mark.data
def test_static_mnist_takes_the_features_of_the_labelled_binarisation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same for the command, a comparison and the benchmarks: they all call this."""
    static, _ = data.load("mnist", binarize="static")
    source = classifier._labelled(static)
    assert source.labels is not None
    assert (source.spec.shape, source.spec.levels) == (static.spec.shape, static.spec.levels)
    dynamic, _ = data.load("mnist", binarize="dynamic")
    assert source.spec.fingerprint == dynamic.spec.fingerprint
    assert classifier._labelled(dynamic) is dynamic

    def absent(*_: object, **__: object) -> None:
        raise InvalidData("not here")

    monkeypatch.setattr(classifier, "load", absent)
    assert classifier._labelled(static) is static
