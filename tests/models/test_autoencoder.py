"""The autoencoder: its ladder, principal components, noise and sparsity, and what it refuses."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import likely
from likely import models, runs
from likely.cli import main
from likely.data.made import digits
from likely.data.spec import Dataset, DataSpec, digest_of
from likely.errors import InvalidSetting, Unanswerable
from likely.models.autoencoder.autoencoder import Autoencoder
from likely.models.autoencoder.settings import AutoencoderSettings
from likely.noise import Noise
from likely.verify import verify

GREY = DataSpec("grey", (1, 8, 8), 17)
LINEAR = AutoencoderSettings(latent=3, network="linear", output="linear")
LADDER = {
    "linear": AutoencoderSettings(latent=16, network="linear"),
    "dense": AutoencoderSettings(latent=16, network="dense", hidden=128),
    "conv": AutoencoderSettings(latent=16, network="conv", channels=8),
}


def training_data() -> Dataset:
    return digits()[0]


def images(n: int = 6) -> Tensor:
    return torch.from_numpy(training_data().values[:n].astype(np.int64))


def built(**changes: Any) -> Autoencoder:
    return Autoencoder(GREY, dataclasses.replace(LADDER["dense"], **changes), seed=1).eval()


def test_the_linear_autoencoder_spans_the_principal_subspace() -> None:
    """Baldi and Hornik 1989: every minimum of the squared loss is there."""
    generator = np.random.default_rng(0)
    turned, _ = np.linalg.qr(generator.normal(size=(12, 12)))
    vectors = generator.normal(size=(100, 12)) * np.array([1, 0.8, 0.6] + [0.2] * 9) @ turned
    values = np.clip(np.rint(128 + 40 * vectors), 0, 255).astype(np.uint8)
    train = Dataset(DataSpec("vectors", (12,), 256, n=100, digest=digest_of(values)), values)
    model = Autoencoder(train.spec, LINEAR, seed=3).double()
    model.start_at(train)
    x = torch.from_numpy(values.astype(np.int64))
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=300, history_size=50, tolerance_grad=1e-9,
        tolerance_change=0, line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = 1e4 * model.loss(x).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)
    shares = values / 255.0
    _, singular, components = np.linalg.svd(shares - shares.mean(0), full_matrices=False)
    principal = components[:3]
    (decoder,) = model.decoder
    learned, _ = np.linalg.qr(decoder.weight.detach().numpy())
    difference = learned @ learned.T - principal.T @ principal
    assert np.abs(np.linalg.eigvalsh(difference)).max() < 1e-4  # the sine of the largest angle
    least = float((singular[3:] ** 2).sum()) / len(x)
    assert float(model.loss(x).mean().detach()) == pytest.approx(least, rel=1e-6)
    # The test can tell: three other components are another subspace.
    others = components[1:4]
    assert np.abs(np.linalg.eigvalsh(learned @ learned.T - others.T @ others)).max() > 0.9


def test_each_step_of_the_ladder_reconstructs_better_than_the_mean(tmp_path: Path) -> None:
    train = training_data()
    held_out = train.validation
    assert held_out is not None
    x = torch.from_numpy(held_out.values.astype(np.int64))
    spread = float((held_out.values / 16.0).var(0).sum())
    errors = {}
    for name, settings in LADDER.items():
        run = likely.fit(Autoencoder(train.spec, settings), train, steps=250, batch_size=50)
        errors[name] = float(run.model.loss(x).mean().detach())
        assert run.metrics[-1]["validation"] == pytest.approx(errors[name], rel=1e-5)
        assert "squared error" in str(run)
        assert errors[name] < 0.6 * spread
    assert errors["dense"] < errors["linear"]


@pytest.mark.parametrize("loss", ["squared", "likelihood"])
@pytest.mark.parametrize("network", LADDER)
def test_it_starts_at_the_mean_image(network: str, loss: str) -> None:
    train = training_data()
    settings = dataclasses.replace(LADDER[network], loss=loss, latent=2, head="logistic-mixture")
    model = Autoencoder(train.spec, settings).eval()
    model.start_at(train)
    flat = model.decode_mean(torch.zeros(1, 2))
    mean = torch.from_numpy(np.asarray(train.pixel_mean()))[None]
    assert float((flat - mean).abs().max()) < 3.0


def test_the_likelihood_loss_is_that_of_the_head() -> None:
    model = built(loss="likelihood")
    x = images()
    assert model.head is not None
    parameters = model.decoder_output(model.encode(x))
    wanted = -model.head.log_prob(parameters, x).sum((1, 2, 3))
    torch.testing.assert_close(model.loss(x), wanted)
    assert model.loss_unit == "nats of p(x | z)"


class Seen(Autoencoder):
    """Remembers what its encoder saw."""

    def _code(self, shares: Tensor) -> Tensor:
        self.seen = shares
        return super()._code(shares)


def test_noise_corrupts_the_input_and_not_the_target() -> None:
    x = images()
    for noise in ("none", "masking", "gaussian"):
        settings = dataclasses.replace(LADDER["dense"], noise=noise, corruption=0.25)
        model = Seen(GREY, settings, seed=1).eval()
        clean = x / 16.0
        error, penalty = model.reconstruction_terms(x, Noise(0))
        assert float(penalty.abs().max()) == 0.0
        output = model.decoder_output(model._code(model.seen))
        torch.testing.assert_close(error, (output - clean).square().flatten(1).sum(1))
        difference = model.seen - clean
        if noise == "none":
            assert not bool(difference.any())
        elif noise == "masking":
            kept = model.seen == clean
            assert not bool(model.seen[~kept].any())
            lit = clean > 0
            assert float((~kept & lit).sum() / lit.sum()) == pytest.approx(0.25, abs=0.1)
        else:
            assert float(difference.std()) == pytest.approx(0.25, rel=0.2)
        # A reported loss is that of clean examples.
        torch.testing.assert_close(model.loss(x), built().loss(x))


def test_sparsity_penalties_are_those_of_their_formulas() -> None:
    x = images()
    l1 = built(sparsity="l1", sparsity_weight=2.0)
    codes = l1.encode(x).detach()
    assert float(codes.min()) >= 0.0
    torch.testing.assert_close(l1.reconstruction_terms(x, Noise(0))[1], 2.0 * codes.sum(1))
    kl = built(sparsity="kl", sparsity_weight=0.5, sparsity_target=0.1)
    mean = kl.encode(x).detach().mean(0).double()
    assert float(mean.min()) > 0.0
    assert float(mean.max()) < 1.0
    pairs = [torch.distributions.Bernoulli(p) for p in (torch.full_like(mean, 0.1), mean)]
    wanted = 0.5 * torch.distributions.kl_divergence(*pairs).sum()
    _, penalty = kl.reconstruction_terms(x, Noise(0))
    torch.testing.assert_close(penalty.double(), wanted.expand(6), rtol=1e-4, atol=1e-6)


def test_sparsity_makes_codes_sparse() -> None:
    train = training_data()
    settings = dataclasses.replace(
        LADDER["dense"], sparsity="kl", latent=32, sparsity_weight=2.0, sparsity_target=0.1
    )
    model = Autoencoder(train.spec, settings)
    before = float(model.features(images(200)).mean())
    likely.fit(model, train, steps=150, batch_size=50, progress=False)
    after = float(model.features(images(200)).mean())
    assert before > 0.4
    assert after == pytest.approx(0.1, abs=0.06)


class OfTheBatch(Autoencoder):
    """Planted: a code depends on the other images of its batch."""

    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        codes = super().encode(x)
        return codes - codes.mean(0)


class Deaf(Autoencoder):
    """Planted: the decoder does not read the code."""

    def decoder_output(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return super().decoder_output(torch.zeros_like(z))


@pytest.mark.parametrize(
    ("defect", "proof"),
    [
        (OfTheBatch, "examples do not couple (evaluation)"),
        (Deaf, "gradients reach every weight"),
    ],
)
def test_planted_defects_are_caught(defect: type[Autoencoder], proof: str) -> None:
    model = built()
    assert verify(model, training_data(), quick=True)[proof].passed
    model.__class__ = defect
    assert not verify(model, training_data(), quick=True)[proof].passed


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_a_penalty_of_l1_leaves_units_alive_as_it_comes(seed: int) -> None:
    train = training_data()
    held_out = train.validation
    assert held_out is not None
    model = models.Autoencoder(train.spec, sparsity="l1", seed=seed)
    likely.fit(model, train, steps=300, progress=False)
    x = torch.from_numpy(held_out.values.astype(np.int64))
    on = (model.encode(x) > 0).float()
    assert int(on.any(0).sum()) >= 5
    assert 0.1 < float(on.mean()) < 0.9
    spread = float((held_out.values / 16.0).var(0).sum())
    assert float(model.loss(x).mean().detach()) < 0.4 * spread


def test_it_is_not_generative_and_says_what_to_do(tmp_path: Path) -> None:
    model = built()
    x = images(2)
    assert model.kind == "without a density"
    assert not hasattr(model, "sample")
    for ask in (
        lambda: likely.ask(model, "sample", 4),
        lambda: likely.ask(model, "likelihood", x),
        lambda: likely.nats(model, training_data()),
        lambda: likely.compare(model, data=(training_data(), training_data())),
    ):
        with pytest.raises(Unanswerable, match="not a generative model"):
            ask()
    with pytest.raises(Unanswerable, match="no distribution to draw from"):
        model.interpolate(3)
    assert likely.ask(model, "interpolate", (x, x.flip(0)), 5).shape == (2, 5, 1, 8, 8)
    with pytest.raises(Unanswerable, match="ask for features"):
        likely.ask(model, "posterior", x)
    assert likely.ask(model, "features", x).shape == (2, 16)


def test_a_fit_resumes_bit_for_bit_and_loads(tmp_path: Path) -> None:
    train = training_data()
    settings = dataclasses.replace(LADDER["conv"], noise="masking", sparsity="kl")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    fit = likely.FitSettings(
        steps=6, batch_size=20, schedule="constant", warmup=0, log_every=1, validate_every=3
    )
    likely.fit(Autoencoder(train.spec, settings), train, settings=fit, out=whole)
    likely.fit(Autoencoder(train.spec, settings), train, settings=fit, steps=3, out=parts)
    likely.fit(Autoencoder(train.spec, settings), train, settings=fit, out=parts)
    for name in ("weights.safetensors", "metrics.jsonl"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes()
    loaded = likely.load(whole)
    assert loaded.model.settings == settings
    assert "squared error" in str(loaded)


def test_the_command_fits_encodes_and_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, codes = str(tmp_path / "run"), tmp_path / "codes.npz"
    words = ["--data", "digits", "--steps", "20", "--noise", "masking", "--out", run]
    assert main(["fit", "autoencoder", *words]) == 0
    said = capsys.readouterr().out
    assert "squared error" in said
    assert f"likely encode {run}" in said
    assert "likely sample" not in said
    assert main(["encode", run, "-o", str(codes)]) == 0
    assert "reconstruction error  = " in capsys.readouterr().out
    with np.load(codes) as arrays:
        assert arrays["codes"].shape == (297, 16)
        assert arrays["labels"].shape == (297,)
    assert (Path(run) / "samples" / "reconstructions.png").is_file()
    assert main(["verify", run]) == 0
    capsys.readouterr()
    for command in ("sample", "evaluate", "compare"):
        assert main([command, run]) == 2
        said = capsys.readouterr().err.strip()
        assert said.startswith("likely: cannot be answered: Autoencoder: it is not a generative")
        assert len(said.splitlines()) == 1


def test_options_that_change_nothing_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ["fit", "autoencoder", "--data", "digits", "--steps", "1", "--out", str(out)]
    assert main([*words, "--corruption", "0.5"]) == 2
    assert "corruption=0.5 changes nothing: it is of noise=masking" in capsys.readouterr().err
    assert main([*words, "--output", "linear", "--loss", "likelihood"]) == 2
    assert "output=linear changes nothing: it is of loss=squared" in capsys.readouterr().err
    assert not out.exists()
    with pytest.raises(InvalidSetting, match=r"corruption=0\.5 changes nothing"):
        models.Autoencoder(GREY, corruption=0.5)
    models.Autoencoder(GREY, noise="masking", corruption=0.5, loss="likelihood")
    assert main([*words, "--corruption", "0.3"]) == 0  # the default


def test_vectors_need_a_network_without_convolutions() -> None:
    spec = DataSpec("vectors", (12,), 2)
    assert runs.build("autoencoder", spec).reconstruct(torch.zeros(3, 12).long()).shape == (3, 12)
    with pytest.raises(InvalidSetting, match="network=dense"):
        runs.build("autoencoder", spec, {"network": "conv"})
    with pytest.raises(InvalidSetting, match="sparsity_weight must not be negative"):
        models.AutoencoderSettings(sparsity_weight=-1.0)
    for target in (0.0, 1.0, 2.0):
        with pytest.raises(InvalidSetting, match="sparsity_target must be in"):
            models.AutoencoderSettings(sparsity="kl", sparsity_target=target)
