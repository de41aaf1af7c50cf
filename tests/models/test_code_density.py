"""Densities over codes: they fit, they sum to one, and with them an autoencoder draws digits."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

import likely
from likely import models
from likely.cli import main
from likely.data.made import digits
from likely.data.spec import Dataset, DataSpec
from likely.density import DiagonalGaussian, ImplicitDensity
from likely.errors import InvalidData, InvalidSetting, Unanswerable
from likely.evaluate.prior import prior_gap
from likely.models.autoencoder.autoencoder import Autoencoder
from likely.models.vae.vae import VAE
from likely.nn.codes import CodeDensity, FullGaussian, WeightedMixture, code_density
from likely.noise import Noise
from likely.training.objectives import CodeLikelihood
from likely.verify import verify

KINDS = get_args(CodeDensity)


def codes(n: int = 4000) -> Tensor:
    """Of two bent, unequal clusters."""
    generator = torch.Generator().manual_seed(0)
    e = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    left = torch.rand(n, generator=generator) < 0.3
    x = torch.where(left, -4.0 + 0.5 * e[:, 0], 2.0 + 1.5 * e[:, 0])
    return torch.stack([x, 0.3 * x**2 + 0.4 * e[:, 1] + 5.0], 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_density_sums_to_one_and_its_samples_follow_it(kind: CodeDensity) -> None:
    density = code_density(kind, 2, components=8, layers=3, hidden=16).double()
    density.start_at(codes())
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in density.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator).double()
        line = torch.linspace(-60, 60, 1500, dtype=torch.float64)
        grid = torch.cartesian_prod(line, line)
        log_p = density.log_prob(grid)
        cell = float(line[1] - line[0]) ** 2
        assert float(log_p.exp().sum()) * cell == pytest.approx(1.0, abs=2e-3)
        mean = (log_p.exp()[:, None] * grid).sum(0) * cell
        z = density.sample(Noise(3), 20_000, torch.float64)
    error = 5 * z.std(0) / math.sqrt(len(z))
    assert bool(((z.mean(0) - mean).abs() < error + 0.02).all())


def test_a_gaussian_is_that_of_most_likelihood() -> None:
    z = codes()
    gaussian = FullGaussian(2).double()
    gaussian.start_at(z)
    exact = torch.distributions.MultivariateNormal(z.mean(0), z.T.cov(correction=0))
    torch.testing.assert_close(gaussian.log_prob(z), exact.log_prob(z), rtol=1e-4, atol=1e-4)


def test_a_mixture_beats_the_gaussian_and_no_round_lowers_the_likelihood(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    z = codes()
    gaussian = FullGaussian(2).double()
    gaussian.start_at(z)
    means = []
    for rounds in (0, 1, 2, 5, 20, 60):
        monkeypatch.setattr("likely.nn.codes.ROUNDS", rounds)
        mixture = WeightedMixture(2, 8).double()
        mixture.start_at(z)
        means.append(float(mixture.log_prob(z).mean().detach()))
    assert means == sorted(means)
    assert means[-1] > float(gaussian.log_prob(z).mean().detach()) + 0.3


@functools.cache
def training_data() -> Dataset:
    return digits()[0]


@functools.cache
def autoencoder() -> Autoencoder:
    model = models.Autoencoder(training_data().spec, latent=8, hidden=64)
    likely.fit(model, training_data(), steps=300, batch_size=50, progress=False)
    assert isinstance(model, Autoencoder)
    return model


@functools.cache
def nearly_an_autoencoder() -> VAE:
    """Of a VAE whose KL term hardly counted."""
    model = models.VAE(training_data().spec, latent=8, network="dense", hidden=64, layers=1)
    objective = likely.NegativeELBO(beta=0.01)
    likely.fit(model, training_data(), objective, steps=300, batch_size=50, progress=False)
    assert isinstance(model, VAE)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_an_autoencoder_with_a_density_draws_digits(kind: CodeDensity, tmp_path: Path) -> None:
    base, train = autoencoder(), training_data()
    before = {name: t.clone() for name, t in base.state_dict().items()}
    out = tmp_path / "run"
    model = likely.with_prior(base, train, kind, steps=60, out=out, progress=False)
    assert isinstance(model, ImplicitDensity)
    x = torch.from_numpy(train.values[:4].astype("int64"))
    assert torch.equal(model.reconstruct(x), base.reconstruct(x))  # type: ignore[attr-defined]
    assert all(torch.equal(before[name], t) for name, t in base.state_dict().items())
    loaded = likely.load(out).model
    assert torch.equal(loaded.sample(5, seed=1), model.sample(5, seed=1))  # type: ignore[attr-defined]
    with pytest.raises(Unanswerable, match="defines no density"):
        likely.ask(model, "likelihood", x)
    held_out = train.validation
    assert held_out is not None
    gaps = [prior_gap(m, held_out) for m in (base, model)]
    assert gaps[1].lower.value < gaps[0].lower.value
    assert verify(model, quick=True).passed


class Forgetful(models.GenerativeAutoencoder):
    """Planted: codes are drawn from N(0, I), whatever was fitted."""

    def latents(self, noise: Noise, n: int) -> Tensor:
        return noise.normal(n, self.latent, dtype=next(self.parameters()).dtype)


class Wider(models.GenerativeAutoencoder):
    """Planted: codes are drawn a third too wide."""

    def latents(self, noise: Noise, n: int) -> Tensor:
        return 1.33 * super().latents(noise, n)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("defect", [Forgetful, Wider])
def test_codes_that_do_not_follow_the_density_are_caught(
    kind: CodeDensity, defect: type[models.GenerativeAutoencoder]
) -> None:
    model = likely.with_prior(autoencoder(), training_data(), kind, steps=20, progress=False)
    name = "the samples' codes follow their density"
    assert verify(model, quick=True)[name].passed
    model.__class__ = defect
    assert not verify(model, quick=True)[name].passed


def test_a_density_that_is_there_is_not_advised() -> None:
    """Where a fitted density is off, the answer is another one."""
    model = likely.with_prior(autoencoder(), training_data(), "gaussian", progress=False)
    assert isinstance(model, models.GenerativeAutoencoder)
    density = model.code_density
    assert isinstance(density, FullGaussian)
    density.mean.data.add_(20.0)
    answer = prior_gap(model, training_data()).answer
    assert "take another density" in answer
    assert "likely prior" not in answer
    assert "likely prior RUN" in prior_gap(autoencoder(), training_data()).answer


def test_a_vae_with_a_new_prior_has_a_better_bound(tmp_path: Path) -> None:
    base, train = nearly_an_autoencoder(), training_data()
    held_out = train.validation
    assert held_out is not None
    old = likely.nats(base, held_out).value
    gap = prior_gap(base, held_out)
    assert gap.upper is not None
    assert 2.0 < gap.lower.value < gap.upper.value
    assert "are not where the codes of data are" in gap.answer
    for kind in ("gaussian", "mixture"):
        model = likely.with_prior(base, train, kind, prior_components=10)
        assert likely.nats(model, held_out).value < old - 0.5 * gap.lower.value
        assert prior_gap(model, held_out).lower.value < 1.5


def test_the_bounds_of_the_gap_hold_where_it_is_known() -> None:
    """Where q(z|x) = N(mean(x), s^2 I) and the means are Gaussian, q(z) is Gaussian, too."""

    class Known(VAE):
        def posterior(self, x: Tensor, context: Tensor | None = None) -> Any:
            generator = torch.Generator().manual_seed(int(x.sum()))
            mean = 2.0 * torch.randn(len(x), 3, generator=generator)
            return DiagonalGaussian(mean, torch.full_like(mean, math.log(0.5)))

    spec = training_data().spec
    model = Known(spec, models.VAESettings(latent=3, network="dense", hidden=4, layers=1)).eval()
    variance = 4.0 + 0.25
    exact = 3 * 0.5 * (variance - 1 - math.log(variance))
    gap = prior_gap(model, training_data())
    assert gap.upper is not None
    assert gap.lower.value - 4 * gap.lower.standard_error < exact
    assert gap.lower.value == pytest.approx(exact, abs=4 * gap.lower.standard_error + 0.05)
    assert gap.upper.value + 4 * gap.upper.standard_error > exact


def test_few_examples_say_nothing() -> None:
    with pytest.raises(InvalidData, match="19 examples say too little"):
        prior_gap(nearly_an_autoencoder(), training_data().take(slice(0, 19)))


def test_what_has_no_prior_to_replace_is_refused() -> None:
    train = training_data()
    with pytest.raises(Unanswerable, match="no latent variables"):
        likely.with_prior(models.NADE(train.spec, hidden=4), train)
    with pytest.raises(InvalidSetting, match="give it prior=flow"):
        CodeLikelihood().players(nearly_an_autoencoder())
    vae = models.VAE(DataSpec("t", (6,), 2), latent=2, network="dense", prior="flow")
    with pytest.raises(InvalidSetting, match="has no autoencoder"):
        CodeLikelihood(autoencoder=True).players(vae)
    with pytest.raises(InvalidSetting, match="training set"):
        likely.with_prior(autoencoder())
    with pytest.raises(InvalidSetting, match="expected one of gaussian"):
        likely.with_prior(autoencoder(), train, "gausian")  # type: ignore[arg-type]


def test_both_fit_side_by_side() -> None:
    train = training_data()
    model = models.GenerativeAutoencoder(train.spec, latent=4, hidden=32, density_layers=2)
    run = likely.fit(model, train, steps=40, batch_size=50, progress=False)
    first, last = run.metrics[0], run.metrics[-1]
    assert last["reconstruction_error"] < first["reconstruction_error"]
    assert {"gradient_norm_autoencoder", "gradient_norm_density"} <= set(last)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = str(tmp_path / "ae"), str(tmp_path / "generative")
    assert main(["fit", "autoencoder", "--data", "digits", "--steps", "20", "--out", run]) == 0
    capsys.readouterr()
    assert main(["prior", run, "--density", "gaussian", "--out", out]) == 0
    said = capsys.readouterr().out
    assert "before: KL(q(z) || p(z)) >= " in said
    assert f"likely sample {out}" in said
    assert main(["sample", out, "-n", "4"]) == 0


def test_a_run_of_another_autoencoder_is_not_taken_for_this_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [str(tmp_path / name) for name in ("a", "b")]
    for seed, directory in enumerate(runs):
        words = ["--data", "digits", "--steps", "20", "--seed", str(seed), "--out", directory]
        assert main(["fit", "autoencoder", *words]) == 0
    out = tmp_path / "generative"
    flow = ["--density", "flow", "--steps", "10", "--out", str(out)]
    assert main(["prior", runs[0], *flow]) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    capsys.readouterr()
    assert main(["prior", runs[0], *flow]) == 0  # the same again
    for words in (
        [runs[1], *flow],
        [runs[0], *flow, "--steps", "20"],
        [runs[0], *flow, "--seed", "1"],
    ):
        capsys.readouterr()
        assert main(["prior", *words]) == 2
        said = capsys.readouterr().err
        assert said.rstrip().endswith("give another directory")
        assert "--no-resume" not in said
        assert "--from" not in said
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before
