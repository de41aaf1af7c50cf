"""Encoders as transformers of scikit-learn: its own checks, pipelines, runs, and the way back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import likely
from likely import models
from likely.data.spec import Dataset
from likely.errors import InvalidSetting, Unanswerable

pytest.importorskip("sklearn")
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from likely.sklearn import Encoder
from sizes import SMALL

TINY = {"latent": 2, "hidden": 4, "layers": 1}
QUICK: dict[str, Any] = {"settings": TINY, "steps": 2, "levels": 4}


# No check of scikit-learn is left out.
@parametrize_with_checks(
    [
        Encoder("autoencoder", **QUICK),
        Encoder(**QUICK),
        Encoder("generative-autoencoder", **QUICK),
    ]
)
def test_it_is_an_estimator_of_scikit_learn(estimator: Encoder, check: Any) -> None:
    check(estimator)


def test_a_row_has_its_codes_whatever_its_place() -> None:
    x = np.random.default_rng(0).normal(size=(37, 6))
    encoder = Encoder(settings={**TINY, "hidden": 64}, steps=20).fit(x)
    codes = encoder.transform(x)
    for order in (np.arange(37)[::-1], np.random.default_rng(1).permutation(37)):
        assert np.abs(encoder.transform(x[order]) - codes[order]).max() < 1e-13
    alone = np.concatenate([encoder.transform(row[None]) for row in x])
    assert np.abs(alone - codes).max() < 1e-13


def test_a_pipeline_of_codes_and_classes_reads_digits(digits: tuple[Dataset, Dataset]) -> None:
    train, _ = digits
    x = train.x[:400].reshape(400, -1).astype(float)
    pipeline = make_pipeline(
        Encoder("autoencoder", settings={"latent": 12, "network": "dense"}, levels=17, steps=150),
        LogisticRegression(max_iter=300),
    )
    assert train.labels is not None
    pipeline.fit(x[:300], train.labels[:300])
    assert pipeline.score(x[300:], train.labels[300:400]) > 0.6
    names = pipeline[0].get_feature_names_out()
    assert names.tolist()[:2] == ["encoder0", "encoder1"]
    assert len(names) == 12
    with pytest.raises(InvalidSetting, match="64 columns"):
        Encoder("vae", shape=(1, 5, 5)).fit(x)


def test_a_run_is_taken_as_it_is(digits: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    train, _ = digits
    settings = {"latent": 3, "network": "dense", "hidden": 8}
    run = likely.fit(models.VAE(train.spec, **settings), train, steps=3, progress=False)
    run.save(tmp_path / "vae")
    x = train.x[:5]
    flat = x.reshape(5, -1).astype(float)
    encoder = Encoder(str(tmp_path / "vae")).fit(flat)
    codes = encoder.transform(flat)
    assert np.allclose(codes, run.model.features(x).numpy())
    back = encoder.inverse_transform(codes)
    assert (back == run.model.reconstruct(x).flatten(1).numpy()).all()
    hidden = Encoder(str(tmp_path / "vae"), layer="layer-1").fit(flat)
    assert hidden.transform(flat).shape == (5, 8)
    with pytest.raises(Unanswerable, match="no inverse"):
        hidden.inverse_transform(codes)
    with pytest.raises(InvalidSetting, match="expected X with 64 columns"):
        Encoder(str(tmp_path / "vae")).fit(flat[:, :10])


@pytest.mark.parametrize("name", ["rbm", "vq-vae", "dcgan"])
def test_runs_without_a_code_give_their_features_or_the_adversarys(
    name: str, digits: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    train, _ = digits
    model = likely.runs.build(name, train.spec, SMALL[name])
    run = likely.fit(model, train, steps=1, batch_size=8, progress=False)
    run.save(tmp_path / "run")
    flat = train.x[:9].reshape(9, -1).astype(float)
    encoder = Encoder(str(tmp_path / "run")).fit(flat)
    features = encoder.transform(flat)
    if name == "dcgan":
        assert encoder.layer_ == encoder.layers_.names[-1]
    else:
        assert np.allclose(features, run.model.features(train.x[:9]).numpy(), atol=1e-5)
    assert len(np.unique(features, axis=0)) > 1
    with pytest.raises(Unanswerable, match="no inverse"):
        encoder.inverse_transform(features)


def test_what_is_no_level_of_a_run_is_refused(
    digits: tuple[Dataset, Dataset], tmp_path: Path
) -> None:
    train, _ = digits
    model = likely.runs.build("vae", train.spec, SMALL["vae"])
    likely.fit(model, train, steps=1, batch_size=8, progress=False).save(tmp_path / "vae")
    x = train.x[:6].reshape(6, -1).astype(float)
    run = str(tmp_path / "vae")
    encoder = Encoder(run).fit(x)
    for wrong in (x / 16, 100 * x - 500, x + 1):
        with pytest.raises(ValueError, match=r"takes the integers 0 to 16, .*in row"):
            Encoder(run).fit(wrong)
        with pytest.raises(ValueError, match=r"takes the integers 0 to 16, .*in row"):
            encoder.transform(wrong)
    assert (encoder.transform(x.astype(np.float32)) == encoder.transform(x)).all()


def test_codes_of_another_width_and_a_single_level_are_refused(
    recwarn: pytest.WarningsRecorder,
) -> None:
    x = np.random.default_rng(0).normal(size=(9, 3))
    encoder = Encoder(**QUICK).fit(x)
    with pytest.raises(ValueError, match=r"expected codes with 2 columns.*given 5"):
        encoder.inverse_transform(np.zeros((3, 5)))
    with pytest.raises(ValueError, match="Expected 2D array"):
        encoder.inverse_transform(np.zeros(2))
    recwarn.clear()
    with pytest.raises(InvalidSetting, match="levels must be at least 2, given 1"):
        Encoder(**{**QUICK, "levels": 1}).fit(x)
    assert not recwarn.list


def test_numbers_come_back_in_their_units() -> None:
    """The grid of levels spans the fit: a level is at most half a step off."""
    x = np.random.default_rng(0).normal(size=(50, 3)) * [1.0, 10.0, 0.0] + [0.0, 5.0, 7.0]
    encoder = Encoder("autoencoder", **{**QUICK, "levels": 256}).fit(x)
    numbers = encoder.low_ + encoder._integers(x) * encoder.step_
    assert np.abs(numbers - x).max() <= 0.5 * encoder.step_.max() + 1e-9
    back = encoder.inverse_transform(encoder.transform(x))
    assert back.shape == x.shape
    assert (back >= x.min(0) - 1e-9).all()
    assert (back <= x.max(0) + encoder.step_).all()


def test_a_name_that_is_neither_a_model_nor_a_run_names_the_nearest() -> None:
    rows = np.random.default_rng(0).random((4, 5))
    with pytest.raises(InvalidSetting, match=r'"vea": did you mean "vae"'):
        Encoder("vea").fit(rows)
    with pytest.raises(InvalidSetting, match="levels: expected a whole number"):
        Encoder(levels=2.5).fit(rows)  # type: ignore[arg-type]


def test_many_codes_are_decoded_in_parts_to_the_same_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = np.random.default_rng(0).random((40, 5))
    encoder = Encoder("autoencoder", **QUICK).fit(rows)
    codes = encoder.transform(rows)
    whole = encoder.inverse_transform(codes)
    kind: Any = type(encoder.model_)
    decode, types, sizes = kind.decode, set(), []

    def counted(model: Any, z: torch.Tensor) -> torch.Tensor:
        types.add(z.dtype)
        sizes.append(len(z))
        decoded: torch.Tensor = decode(model, z)
        return decoded

    monkeypatch.setattr(kind, "decode", counted)
    monkeypatch.setattr("likely.sklearn.BATCH", 16)
    assert np.array_equal(encoder.inverse_transform(codes), whole)
    assert (types, sizes) == ({torch.float64}, [16, 16, 8])
