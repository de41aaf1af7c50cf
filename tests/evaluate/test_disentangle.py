"""Disentanglement: a perfect code scores 1, its rotation and noise near 0, by all three scores."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from likely import models
from likely.cli import main
from likely.data import load
from likely.data.spec import Dataset, DataSpec
from likely.errors import InvalidData, Unanswerable
from likely.evaluate.annealed import AnnealedSettings
from likely.evaluate.disentangle import disentanglement, disentanglement_of
from likely.jobs.evaluate import EvaluateSettings, evaluate, measure
from likely.models.autoencoder.autoencoder import Autoencoder

Z, N = 6, 4000


def factors() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {f"f{index}": generator.integers(0, 8, N).astype(np.float64) for index in range(Z)}


def table() -> np.ndarray:
    return np.stack(list(factors().values()), 1)


def test_a_perfect_code_scores_one() -> None:
    code = table()[:, ::-1] * np.array([1.0, -2.0, 0.1, 3.0, 1.0, 5.0])
    scores = disentanglement(code, factors())
    for value in (scores.disentanglement, scores.completeness, scores.informativeness):
        assert value == pytest.approx(1.0, abs=0.02)
    assert scores.mig == pytest.approx(1.0, abs=0.02)
    assert scores.sap == pytest.approx(1.0, abs=0.02)
    assert [scores.best[f"f{index}"][0] for index in range(Z)] == [5, 4, 3, 2, 1, 0]
    # A unit more that says nothing changes nothing.
    more = np.append(code, np.random.default_rng(1).normal(size=(N, 1)), 1)
    assert disentanglement(more, factors()).mig == pytest.approx(scores.mig, abs=0.02)


def test_a_rotation_of_it_is_as_informative_and_scores_near_zero() -> None:
    turned, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(Z, Z)))
    # All weights alike: no unit is nearer to a factor than another.
    even = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2
    four = dict(list(factors().items())[:4])
    scores = disentanglement(table()[:, :4] @ even, four)
    assert scores.informativeness > 0.95
    assert max(scores.mig, scores.sap, scores.disentanglement, scores.completeness) < 0.06
    any_other = disentanglement(table() @ turned, factors())
    assert any_other.informativeness > 0.95
    assert any_other.mig < 0.2


def test_noise_scores_zero() -> None:
    scores = disentanglement(np.random.default_rng(5).normal(size=(N, Z)), factors())
    assert max(scores.mig, scores.sap, scores.informativeness) < 0.02
    # The few weights that the lasso gives to noise are unequal, which is no disentanglement.
    assert scores.disentanglement == scores.completeness == 0.0
    constant = disentanglement(np.zeros((N, Z)), factors())
    assert max(constant.mig, constant.sap, constant.disentanglement) == pytest.approx(0.0, abs=1e-9)


def test_noise_of_shapes_scores_zero_and_their_factors_near_one() -> None:
    train, test = load("shapes")
    for part, seed in ((test, 0), (train, 0), (train, 1)):
        noise = np.random.default_rng(seed).normal(size=(len(part), 8))
        scores = disentanglement(noise, part.factors)
        assert scores.disentanglement == scores.completeness == 0.0
        assert max(scores.mig, scores.sap, scores.informativeness) < 0.01
    perfect = np.stack(list(test.factors.values()), 1)
    perfect = (perfect - perfect.mean(0)) / perfect.std(0)
    scores = disentanglement(np.append(perfect, noise[: len(test)], 1), test.factors)
    assert min(scores.mig, scores.disentanglement, scores.completeness) > 0.98
    # No line through a unit tells three kinds apart.
    assert scores.informativeness == pytest.approx(0.917, abs=0.002)
    assert scores.sap == pytest.approx(0.916, abs=0.002)
    turned, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))
    rotated = disentanglement(perfect @ turned, test.factors)
    assert rotated.informativeness > 0.91
    assert max(rotated.mig, rotated.disentanglement, rotated.completeness) < 0.25


def test_a_code_that_says_little_is_judged_by_what_it_says() -> None:
    t = table()
    faint = (t - t.mean(0)) / t.std(0) + 3 * np.random.default_rng(2).normal(size=t.shape)
    scores = disentanglement(faint, factors())
    assert scores.informativeness < 0.15
    assert min(scores.disentanglement, scores.completeness) > 0.98
    alone = np.random.default_rng(4).normal(size=t.shape)
    alone[:, 2] = t[:, 1]
    scores = disentanglement(alone, factors())
    assert scores.disentanglement == scores.completeness == 1.0
    assert scores.informativeness == pytest.approx(1 / Z, abs=0.01)


def test_two_factors_in_one_unit_are_complete_and_not_disentangled() -> None:
    t = table()
    code = np.stack([t[:, 0] + t[:, 1], *t[:, 2:].T], 1)
    scores = disentanglement(code, factors())
    assert scores.completeness == pytest.approx(1.0, abs=0.05)
    assert scores.disentanglement < 0.9


class Perfect(Autoencoder):
    """Its code is the factors of the shapes, looked up."""

    known: dict[bytes, list[float]]

    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return torch.tensor([self.known[each.numpy().astype("uint8").tobytes()] for each in x])


def test_a_factor_that_does_not_vary_is_left_out() -> None:
    codes, rare = table(), np.zeros(N)
    rare[0] = 1.0  # in one half alone
    constant = {"still": np.ones(N), "rare": rare}
    assert disentanglement(codes, factors() | constant) == disentanglement(codes, factors())
    with pytest.raises(InvalidData, match="no factor varies: still, rare"):
        disentanglement(codes, constant)


def test_of_a_model_on_shapes() -> None:
    _, test = load("shapes")
    few = test.take(slice(0, 1000))
    model = Perfect(test.spec, models.AutoencoderSettings(latent=6, network="dense", hidden=4))
    columns = np.stack(list(few.factors.values()), 1)
    model.known = {x.tobytes(): row.tolist() for x, row in zip(few.values, columns, strict=True)}
    scores = disentanglement_of(model, few)
    assert scores.mig == pytest.approx(1.0, abs=0.05)
    assert scores.best["angle"][0] == 2
    bare = Dataset(DataSpec("t", (1, 28, 28), 256, n=3), np.zeros((3, 1, 28, 28), np.uint8))
    with pytest.raises(InvalidData, match="factors of t are not known"):
        disentanglement_of(model, bare)
    with pytest.raises(Unanswerable, match="no hidden unit"):
        disentanglement_of(models.NADE(test.spec, hidden=4), few)
    with pytest.raises(InvalidData, match="known factors"):
        disentanglement(columns, {})


def test_unknown_factors_and_codes_are_refused_before_anything_is_measured() -> None:
    settings = EvaluateSettings(annealed=AnnealedSettings(n=2), factors=True)
    stages: list[str] = []
    train, test = load("digits")
    vae = models.VAE(test.spec, network="dense", hidden=4, layers=1, latent=2)
    with pytest.raises(InvalidData, match="factors of digits are not known"):
        measure(vae, train, test, settings, progress=lambda name, *_: stages.append(name))
    train, test = load("shapes")
    nade, settings = models.NADE(test.spec, hidden=4), EvaluateSettings(factors=True)
    with pytest.raises(Unanswerable, match="no hidden unit"):
        measure(nade, train, test, settings, progress=lambda name, *_: stages.append(name))
    assert stages == []


def test_the_commands_hold_codes_against_factors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "run")
    words = "--data shapes --network linear --latent 4 --steps 2 --validation-examples 100"
    assert main(["fit", "autoencoder", *words.split(), "--out", run]) == 0
    capsys.readouterr()
    assert main(["encode", run]) == 0
    said = capsys.readouterr().out
    assert "MIG 0." in said
    assert "angle  unit" in said
    digits = str(tmp_path / "digits")
    words = "--data digits --network dense --hidden 4 --layers 1 --latent 2 --steps 2"
    assert main(["fit", "vae", *words.split(), "--out", digits]) == 0
    capsys.readouterr()
    assert main(["evaluate", digits, "--factors", "--no-sample-metrics"]) == 2
    assert "the factors of digits are not known" in capsys.readouterr().err


def test_scores_stay_in_the_report_for_the_same_weights_and_data(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = "--data shapes --network dense --hidden 4 --layers 1 --latent 2 --steps 2"
    assert main(["fit", "vae", *words.split(), "--out", str(run)]) == 0
    quick = EvaluateSettings(importance_samples=0, sample_metrics=False)

    def kept() -> object:
        text = (run / "report.json").read_text()
        return json.loads(text)["evaluations"]["test"].get("disentanglement")

    scores = evaluate(run, quick, factors=True).disentanglement
    assert scores is not None
    assert kept() == scores.to_json()
    report = json.loads((run / "report.json").read_text())
    assert evaluate(run, quick).disentanglement is None
    assert kept() == scores.to_json()
    (run / "report.json").write_text(json.dumps(report | {"weights": "others"}))
    evaluate(run, quick)
    assert kept() is None
    report["evaluations"]["test"]["data"]["fingerprint"] = "another"
    (run / "report.json").write_text(json.dumps(report))
    evaluate(run, quick)
    assert kept() is None


def test_a_code_of_one_unit_has_numbers() -> None:
    known = factors()
    scores = disentanglement(known["f0"][:, None], known)
    assert scores.completeness == pytest.approx(1.0)
    assert 0.0 <= scores.disentanglement <= 1.0
