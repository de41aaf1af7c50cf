"""Few examples, equal ones, rare classes, many levels; and what a mutant would hide in numbers."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import likely
from likely import data, models, runs
from likely.cli import main
from likely.data.spec import Dataset, DataSpec
from likely.estimate import Relation
from likely.evaluate.distances import frechet_distance
from likely.evaluate.likelihood import latent_diagnostics, per_example_nll
from likely.evaluate.neighbours import memorisation
from likely.evaluate.samples import SampleReference
from likely.heads import DiscretizedLogisticMixture
from likely.noise import Noise
from likely.settings import FitSettings
from likely.training import health


class Pixels:
    """An extractor that takes the pixels as they are."""

    name = fingerprint = description = "pixels"

    def __call__(self, x: Tensor | np.ndarray) -> Tensor:
        return torch.as_tensor(np.asarray(x).astype("f8")).flatten(1)


def two_classes(n: int, split: data.Split, seed: int) -> Dataset:
    """Every twentieth example is of class 1, whose pixels are bright."""
    labels = (np.arange(n) % 20 == 0).astype(np.int64)
    random = np.random.default_rng(seed)
    x = random.integers(0, 3, (n, 2, 2)) + 6 * labels[:, None, None]
    return data.from_array(
        x.astype("u1"), levels=10, labels=labels, name="rare", split=split, classes=("a", "b")
    )


def test_samples_of_a_conditional_model_are_drawn_for_the_labels_of_the_test_images() -> None:
    train, test = two_classes(400, "train", 0), two_classes(200, "test", 1)
    reference = SampleReference(train, test, Pixels(), n=100)
    model = models.FVSBN(train.spec, models.FVSBNSettings(conditional=True))
    context = reference.context_for(model)
    assert context is not None
    assert torch.equal(context, torch.from_numpy(test.labels)[torch.from_numpy(reference.index)])
    assert reference.context_for(models.FVSBN(train.spec)) is None
    fresh = two_classes(2000, "train", 2)
    by_class = [np.flatnonzero(fresh.labels == k) for k in (0, 1)]

    def perfect(labels: Tensor) -> Tensor:
        index = np.array([by_class[k][i % len(by_class[k])] for i, k in enumerate(labels.tolist())])
        return torch.from_numpy(fresh.batch(index).x.astype("i8"))

    def distance(labels: Tensor) -> float:
        (found,) = [e for e in reference.metrics(perfect(labels)) if e.quantity == "frechet"]
        return found.value

    (floor,) = [e.value for e in reference.floor if e.quantity == "frechet"]
    assert distance(context) < 3 * floor + 0.5
    assert distance(torch.arange(100) % 2) > 10 * distance(context)


def test_a_stopped_fit_returns_the_weights_that_it_saved(tmp_path: Path) -> None:
    train, _ = data.load("digits")
    torch.manual_seed(0)
    model = models.NADE(train.spec, models.NADESettings(hidden=4))

    def stop(run: likely.Run, record: dict[str, float]) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    settings = FitSettings(steps=40, batch_size=10, log_every=10, ema=0.9)
    run = likely.fit(model, train, settings=settings, out=tmp_path / "run", progress=stop)
    assert not run.finished
    saved = load_file(tmp_path / "run" / "weights.safetensors")
    assert all(torch.equal(t, saved[name]) for name, t in run.model.state_dict().items())
    state = load_file(tmp_path / "run" / "state.safetensors")
    assert any(not torch.equal(state[f"model.{name}"], t) for name, t in saved.items())
    assert not run.model.training


def test_copies_are_near_copies_also_where_test_images_are_copies() -> None:
    copier = memorisation(torch.zeros(50, dtype=torch.float64), torch.zeros(80).double())
    assert copier.closer.value == 1.0
    honest = memorisation(torch.ones(50, dtype=torch.float64), torch.zeros(80).double())
    assert honest.closer.value == 0.0


def test_where_every_test_image_repeats_a_training_image_there_is_no_ratio() -> None:
    train = two_classes(60, "train", 0)
    test = two_classes(60, "test", 0)
    reference = SampleReference(train, test, Pixels(), n=40)
    samples = torch.from_numpy(train.values[:40].astype("i8"))
    moved = (samples + 1).clamp(max=9)
    for drawn in (samples, moved):
        estimates = reference.metrics(drawn)
        assert all(np.isfinite(e.value) for e in estimates)
    quantities = {e.quantity for e in estimates}
    assert "memorisation-ratio-pixels" not in quantities
    assert "nearest-train-pixels" in quantities


@pytest.mark.parametrize("count", [1, 6])
def test_equal_examples_are_no_posterior_collapse(count: int) -> None:
    x = np.repeat(np.random.default_rng(0).integers(0, 2, (1, 4, 4)), count, 0).astype("u1")
    train = data.from_array(x, levels=2, name="equal")
    model = models.VAE(train.spec, models.VAESettings(network="dense", hidden=8, latent=3))
    diagnostics = latent_diagnostics(model, train)
    assert diagnostics.active is None
    assert diagnostics.warning == ""
    assert health.diagnose([], model, train) == []
    gan_data = data.from_array(np.repeat(x, 2, 1).repeat(2, 2), levels=2)
    gan = models.DCGAN(gan_data.spec, models.DCGANSettings(latent=4, channels=4))
    assert health.diagnose([], gan, gan_data) == []


def test_an_encoder_that_is_not_fitted_yet_has_not_collapsed() -> None:
    """A KL that is large and the same for every x is waste, not a code that says nothing."""
    x = np.random.default_rng(0).integers(0, 2, (30, 4, 4)).astype("u1")
    train = data.from_array(x, levels=2, name="toy")
    model = models.VAE(train.spec, models.VAESettings(network="dense", hidden=8, latent=3))
    for weight, bias, fitted in ((0.0, 3.0, False), (0.0, 0.0, True)):
        with torch.no_grad():
            model.encoder.output.weight.fill_(weight)
            model.encoder.output.bias.zero_()
            model.encoder.output.bias[:3] = bias
        diagnostics = latent_diagnostics(model, train)
        warning = diagnostics.warning
        rate = diagnostics.rate.value
        records = [{"step": float(step), "kl": rate} for step in range(health.ENOUGH)]
        told = [str(finding) for finding in health.diagnose(records, model, train)]
        (finding,) = [text for text in told if "latent units" in text]
        for text in (finding, warning):
            assert ("collapse" in text) is fitted
            assert ("not fitted yet" in text) is not fitted


def test_a_fit_that_ends_above_uniform_guessing_has_diverged() -> None:
    model = models.FVSBN(DataSpec("toy", (1, 4, 4), 2))
    (finding,) = health.diagnose([{"step": 3.0, "validation": 1e6}], model)
    assert finding.severity == "failure"
    assert "diverged" in finding.sentence
    assert health.diagnose([{"step": 3.0, "validation": 15.0}], model) == []


def test_the_command_prints_a_likelihood_of_few_images_and_a_bound_as_a_bound(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = np.random.default_rng(0).integers(0, 2, (12, 4, 4)).astype("u1")
    np.save(tmp_path / "few.npy", x)
    out = str(tmp_path / "run")
    arguments = ["--network", "dense", "--hidden", "8", "--latent", "2", "--steps", "2"]
    source = ["--data", str(tmp_path / "few.npy")]
    assert main(["fit", "vae", *source, *arguments, "--out", out]) == 0
    assert "best validation <= " in capsys.readouterr().out.replace("\n", " ")
    assert main(["evaluate", out]) == 0
    said = capsys.readouterr().out
    assert "<= " in said
    assert "no numbers about samples" in said


def test_vectors_go_through_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = np.random.default_rng(0).integers(0, 2, (90, 6)).astype("u1")
    np.save(tmp_path / "vec.npy", x)
    out, array = str(tmp_path / "run"), tmp_path / "drawn.npy"
    source = ["--data", str(tmp_path / "vec.npy")]
    assert main(["fit", "fvsbn", *source, "--steps", "2", "--out", out]) == 0
    assert main(["sample", out, "-n", "5", "--npy", str(array)]) == 0
    assert np.load(array).shape == (5, 6)
    assert main(["verify", out, "--quick"]) == 0
    assert main(["evaluate", out, "--no-sample-metrics"]) == 0
    assert main(["data", "describe", str(tmp_path / "vec.npy")]) == 0
    assert "6 dimensions" in capsys.readouterr().out
    assert main(["fit", "pixelcnn", *source, "--out", str(tmp_path / "no")]) == 2
    assert "take fvsbn" in capsys.readouterr().err.replace("\n", " ")
    assert runs.load(out).model.spec.shape == (6,)


def test_the_gradient_of_the_importance_bound_is_that_of_the_bound() -> None:
    """With the noise held, by differences: log q(z|x) counts in it, too."""
    spec = DataSpec("toy", (1, 2, 2), 2)
    torch.manual_seed(0)
    model = models.VAE(spec, models.VAESettings(network="dense", hidden=4, latent=2)).double()
    x = torch.randint(2, (3, 1, 2, 2))

    def bound() -> Tensor:
        return model.importance_bound(x, 5, Noise("gradient")).sum()

    bound().backward()
    weights = model.encoder.output.bias
    assert weights.grad is not None
    for index in range(len(weights)):
        values = []
        for change in (1e-5, -1e-5):
            with torch.no_grad():
                weights[index] += change
                values.append(float(bound()))
                weights[index] -= change
        slope = (values[0] - values[1]) / 2e-5
        assert float(weights.grad[index]) == pytest.approx(slope, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("k", [None, 3])
def test_every_example_has_latents_of_its_own(k: int | None) -> None:
    x = np.zeros((6, 4, 4), np.uint8)
    same = data.from_array(x, levels=2, name="same")
    model = models.VAE(same.spec, models.VAESettings(network="dense", hidden=8, latent=3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator())
    found = per_example_nll(model, same, importance_samples=k, batch_size=2)
    assert found.relation is Relation.UPPER
    assert len(np.unique(found.values)) == 6


def test_the_error_of_a_frechet_distance_weighs_each_side_by_its_own_size() -> None:
    random = torch.Generator().manual_seed(0)
    a = torch.randn(40, 3, generator=random, dtype=torch.float64)
    b = 1.5 * torch.randn(4000, 3, generator=random, dtype=torch.float64) + 0.4
    there, back = frechet_distance(a, b), frechet_distance(b, a)
    assert there.value == pytest.approx(back.value)
    assert there.standard_error == pytest.approx(back.standard_error)
    # Forty examples are what is not known; a hundred times as many on their side tell more.
    many = frechet_distance(torch.randn(4000, 3, generator=random, dtype=torch.float64), b)
    assert many.standard_error < 0.3 * there.standard_error


def test_sixteen_bit_levels_can_be_certain_and_sum_to_one_in_float32() -> None:
    for levels, least in ((65536, 1e-6), (257, 1e-6), (256, 0.05)):
        head = DiscretizedLogisticMixture(1, levels, 1)
        level = levels // 3
        mean = level * 2.0 / (levels - 1) - 1.0
        parameters = torch.tensor([0.0, mean, -100.0]).reshape(1, 3, 1, 1)
        table = head.log_table(parameters, torch.zeros(1, 1, 1, 1, dtype=torch.int64), 0)
        assert float(table.double().logsumexp(1).abs()) < 1e-5
        nats = -float(head.log_prob(parameters, torch.tensor(level).reshape(1, 1, 1, 1)))
        assert nats < least
        cold = head.tempered(parameters.double(), 1e-9)
        at = torch.linspace(0.01, 0.99, 50, dtype=torch.float64).reshape(50, 1, 1)
        wide = cold.expand(50, -1, 1, 1)
        drawn = head.quantile(wide, torch.zeros(50, 1, 1, 1, dtype=torch.int64), 0, at)
        assert float(drawn.double().std()) < 0.6
    assert DiscretizedLogisticMixture(1, 256).floor == DiscretizedLogisticMixture(1, 2).floor == -7
