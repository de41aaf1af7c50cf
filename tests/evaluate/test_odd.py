"""What is odd: p-values that are uniform where they must be, and statistics that find a plant."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image
from scipy.stats import kstest

from likely import data, runs
from likely.cli import main
from likely.data.spec import DataSpec
from likely.density import DiagonalGaussian, LatentVariable
from likely.errors import InvalidData, Unanswerable
from likely.evaluate.odd import (
    Asked,
    auroc,
    auroc_gain,
    batch_typicality,
    conformal,
    dose,
    file_bits,
    model_null,
    regret,
    statistics,
)
from likely.jobs.score import score
from likely.settings import FitSettings
from likely.training.loop import fit
from likely.training.objectives import NegativeELBO, NegativeLogLikelihood

SPEC = DataSpec("toy", (1, 6, 6), 2)


def fvsbn() -> torch.nn.Module:
    torch.manual_seed(0)
    model = runs.build("fvsbn", SPEC).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
    return model


def drawn(model: torch.nn.Module, n: int, seed: int) -> data.Dataset:
    return data.from_array(model.sample(n, seed=seed).numpy().astype(np.uint8), 2)


def nats_and_surprise(model: Any, n: int, seed: int) -> dict[str, np.ndarray]:
    x = model.sample(n, seed=seed)
    told = model.surprise(x)
    return {"nats": told.nats.flatten(1).sum(1).numpy(), "surprise": told.z.numpy()}


def test_p_values_of_fresh_examples_are_uniform() -> None:
    """By rank for any statistic; by the model's own null for what the model draws."""
    model = fvsbn()
    reference = nats_and_surprise(model, 10_000, 99)
    for seed in range(5):
        fresh = nats_and_surprise(model, 1000, seed)
        for name, values in fresh.items():
            p = conformal(reference[name], values, two_sided=True)
            assert kstest(p, "uniform").pvalue > 0.01, (name, seed)
            assert 0.03 <= (p <= 0.05).mean() <= 0.07
        assert kstest(model_null(fresh["surprise"]), "uniform").pvalue > 0.01


def test_ranks_are_valid_with_ties_and_at_both_ends() -> None:
    reference = np.array([1.0, 2.0, 2.0, 3.0])
    values = np.array([9.0, 2.0, 0.0])
    assert conformal(reference, values, two_sided=False).tolist() == [0.2, 0.8, 1.0]
    assert conformal(reference, values, two_sided=True).tolist() == [0.4, 1.0, 0.4]


def test_the_area_is_that_of_all_pairs_with_its_error() -> None:
    generator = np.random.default_rng(0)
    usual, odd = generator.integers(0, 5, 40).astype(float), generator.integers(1, 7, 30) * 1.0
    pairs = (odd[:, None] > usual) + 0.5 * (odd[:, None] == usual)
    area, error = auroc(usual, odd)
    assert area == pytest.approx(pairs.mean())
    areas = [auroc(generator.choice(usual, 40), generator.choice(odd, 30))[0] for _ in range(400)]
    assert error == pytest.approx(np.std(areas), rel=0.25)


def test_a_gain_over_another_statistic_is_paired() -> None:
    generator = np.random.default_rng(0)
    usual, odd = generator.normal(size=(2, 60)), generator.normal(0.7, size=(2, 50))
    usual[1] += 3 * usual[0]
    odd[1] += 3 * odd[0]
    gain, error = auroc_gain((usual[0], usual[1]), (odd[0], odd[1]))
    assert gain == pytest.approx(auroc(usual[1], odd[1])[0] - auroc(usual[0], odd[0])[0])
    gains = []
    for _ in range(400):
        u, o = usual[:, generator.integers(0, 60, 60)], odd[:, generator.integers(0, 50, 50)]
        gains.append(auroc_gain((u[0], u[1]), (o[0], o[1]))[0])
    assert error == pytest.approx(np.std(gains), rel=0.25)
    assert error < auroc(usual[0], odd[0])[1]  # both see the same examples
    assert auroc_gain((usual[0], usual[0]), (odd[0], odd[0])) == (0.0, 0.0)


def test_a_batch_is_typical_or_not() -> None:
    reference = np.random.default_rng(0).normal(size=2000)
    assert batch_typicality(reference, reference[:50])[1] > 0.01
    apart, p = batch_typicality(reference, reference[:50] + 1.0)
    assert apart > 0.5
    assert p < 0.002


@pytest.mark.parametrize(("held_out", "batch"), [(50, 500), (200, 200), (200, 10)])
def test_the_p_value_of_a_batch_is_uniform_for_data_of_the_same_kind(
    held_out: int, batch: int
) -> None:
    generator = np.random.default_rng(0)
    p = [
        batch_typicality(generator.gumbel(size=held_out), generator.gumbel(size=batch), 200, seed)[
            1
        ]
        for seed in range(400)
    ]
    assert scipy.stats.kstest(p, "uniform").pvalue > 1e-3
    assert batch_typicality(np.full(30, 2.7), np.full(7, 2.7))[1] == 1.0


def test_noise_is_odd_and_the_plant_comes_first() -> None:
    model = fvsbn()
    usual = model.sample(60, seed=1).numpy().astype(np.uint8)
    usual[17] = 1 - usual[17]
    result = score(model, data.from_array(usual, 2), drawn(model, 400, 2))
    assert result.rule == "complexity"
    assert set(result.values) == {"nats", "complexity", "surprise", "file-length", "dose"}
    less = result.values["nats"] / np.log(2) - result.values["file-length"]
    assert np.allclose(result.values["complexity"], less)
    by_nats = np.argsort(-result.values["nats"])[0]
    assert by_nats == np.argsort(-result.values["surprise"])[0]
    same = score(model, drawn(model, 300, 3), drawn(model, 400, 2))
    for name, (area, error) in same.area.items():
        assert abs(area - 0.5) < 4 * error, name
    with pytest.raises(InvalidData, match="too few to rank"):
        score(model, drawn(model, 5, 0), drawn(model, 5, 1))


def test_files_are_shorter_where_images_are_simple() -> None:
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (3, 3, 16, 16), dtype=np.uint8)
    flat = np.full((3, 3, 16, 16), 7, np.uint8)
    assert (file_bits(data.from_array(noise)) > 0.9 * noise[0].size * 8).all()
    assert (file_bits(data.from_array(flat)) < 1000).all()
    vectors = data.from_array(generator.integers(0, 2, (4, 64)).astype(np.uint8), 2)
    assert (file_bits(vectors) < 64 * 8).all()


def test_regret_is_what_q_gains_and_is_for_latent_variables_only(
    digits: tuple[data.Dataset, data.Dataset],
) -> None:
    train, test = digits
    sizes = {"latent": 2, "network": "dense", "hidden": 16, "layers": 1, "head": "categorical"}
    model = runs.build("vae", train.spec, sizes)
    fit(model, train, NegativeELBO(), FitSettings(steps=80, batch_size=64, learning_rate=5e-3))
    x = torch.from_numpy(test.batch(slice(0, 8)).x.astype(np.int64))
    few, more = (regret(model.eval(), x, None, Asked(steps=n)) for n in (3, 40))
    assert (few >= 0).all()
    assert (more >= few - 1e-5).all()
    assert more.mean() > 0.1
    with pytest.raises(Unanswerable, match="no latent variables"):
        statistics(fvsbn(), drawn(fvsbn(), 4, 0), Asked(regret=True))


def test_the_regret_of_a_decoder_that_ignores_its_code_is_the_kl_of_q() -> None:
    """Then p(z | x) is the prior, and the best q gains the whole KL term."""
    sizes = {"latent": 2, "network": "dense", "hidden": 4, "layers": 1}
    model = runs.build("vae", SPEC, sizes, seed=0).eval()
    assert isinstance(model, LatentVariable)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.zero_() if name.startswith("decoder") else parameter.add_(0.2)
    x = torch.zeros(60, *SPEC.shape, dtype=torch.int64)
    q = model.posterior(x, None)
    assert isinstance(q, DiagonalGaussian)
    kl = q.kl_to_standard().sum(1).detach()
    gained = regret(model, x, None, Asked(steps=60, draws=100))
    assert float(kl.min()) > 0.3
    assert float(gained.mean()) == pytest.approx(float(kl.mean()), abs=0.06)


def test_the_command_scores_a_folder_and_a_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], digits: tuple[data.Dataset, data.Dataset]
) -> None:
    train, test = digits
    run = tmp_path / "run"
    fit(
        runs.build("fvsbn", train.spec),
        train,
        NegativeLogLikelihood(),
        FitSettings(steps=3, batch_size=16),
        out=run,
    )
    odd = np.zeros((3, 8, 8), np.uint8)
    odd[:, ::2] = 16
    np.save(tmp_path / "stripes.npy", 2 * odd.repeat(4, 0))
    capsys.readouterr()
    out = tmp_path / "scores.csv"
    assert main(["score", str(run), "test", "-n", "40", "-o", str(out), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["rule"] == "complexity"
    assert record["statistics"]["file-length"]["two-sided"]
    assert Path(record["sheet"]).exists()
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert len(rows) == 40
    assert int(rows[-1]["example"]) == len(test) - 1
    assert 0 < float(rows[0]["p-nats"]) <= 1
    array = tmp_path / "array.npy"
    np.save(array, np.concatenate([test.x[:30], odd[:, None]]))
    assert main(["score", str(run), str(array), "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["oddest"][:3]) == {30, 31, 32}
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, x in enumerate([*test.x[:5, 0], odd[0]]):
        Image.fromarray((x * 15.9375).astype(np.uint8)).save(folder / f"{number}, scan.png")
    assert main(["score", str(run), str(folder), "-o", str(out), "--json"]) == 0
    oddest = json.loads(capsys.readouterr().out)["oddest"][0]
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [row["example"] for row in rows] == [f"{number}, scan.png" for number in range(6)]
    assert oddest == max(rows, key=lambda row: float(row["nats"]))["example"] == "5, scan.png"
    assert main(["score", str(run), str(tmp_path / "absent")]) == 2
    assert "absent" in capsys.readouterr().err
    assert main(["score", str(run), str(tmp_path / "stripes.npy")]) == 2
    assert "[0, 17)" in capsys.readouterr().err


def test_the_density_of_statistics_finds_what_one_of_them_sees() -> None:
    """Neither `file-length`, which knows no model, nor `surprise` has a part in it."""
    generator = np.random.default_rng(0)

    def examples(n: int, **apart: float) -> dict[str, np.ndarray]:
        names = ("nats", "complexity", "surprise", "file-length")
        return {name: generator.normal(apart.get(name, 0.0), 1.0, n) for name in names}

    known, further, fresh = examples(2000), examples(2000), examples(2000)
    reference = dose(known, further)
    # Of two normal statistics it is -log N(0, 1) twice, up to the width of the kernel.
    exact = (further["nats"] ** 2 + further["complexity"] ** 2) / 2 + np.log(2 * np.pi)
    assert np.median(np.abs(reference - exact)) < 0.1
    assert (
        kstest(conformal(reference, dose(known, fresh), two_sided=False), "uniform").pvalue > 0.01
    )
    for odd in ({"nats": -6.0}, {"nats": 6.0}, {"complexity": 6.0}):
        assert auroc(reference, dose(known, examples(500, **odd)))[0] > 0.98
    for other in ("file-length", "surprise"):
        assert 0.4 < auroc(reference, dose(known, examples(500, **{other: 6.0})))[0] < 0.6
    alone = {name: known[name] for name in ("nats", "file-length", "surprise")}
    assert dose(alone, alone) is None
    constant = {**known, "regret": np.zeros(2000)}  # it tells nothing
    assert np.array_equal(dose(constant, constant), dose(known, known))
