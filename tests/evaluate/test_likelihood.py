"""Likelihoods: every example once, the relation that holds, nothing whose proof failed."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from likely.data.spec import Dataset, DataSpec, digest_of
from likely.density import DiagonalGaussian, GenerativeModel
from likely.errors import Diverged, InvalidData, InvalidSetting, ProofFailed, Unanswerable
from likely.estimate import Relation
from likely.evaluate import likelihood
from likely.evaluate.likelihood import (
    bits_per_dim,
    collapse_words,
    latent_diagnostics,
    log_likelihood,
    nats,
    per_example_nll,
    proofs_of,
)
from likely.models.gan.dcgan import DCGAN
from likely.models.gan.settings import DCGANSettings
from likely.models.pixelcnn.gated_pixelcnn import GatedPixelCNN
from likely.models.pixelcnn.settings import GatedPixelCNNSettings
from likely.models.vae.hierarchical import HierarchicalVAE
from likely.models.vae.settings import VAESettings
from likely.models.vae.vae import VAE
from likely.verify import verify

SPEC = DataSpec("toy", (1, 3, 3), 2)
PIXELCNN = GatedPixelCNNSettings(channels=6, layers=2, first_kernel=3, head_channels=6)
SMALL_VAE = VAESettings(latent=2, network="dense", hidden=8, layers=1)


def dataset(n: int = 11, spec: DataSpec = SPEC, labelled: bool = False) -> Dataset:
    random = np.random.Generator(np.random.Philox(0))
    values = random.integers(0, spec.levels, (n, *spec.shape)).astype(np.uint8)
    spec = dataclasses.replace(spec, n=n, split="test", digest=digest_of(values))
    return Dataset(spec, values, np.arange(n) % 2 if labelled else None)


def pixelcnn(spec: DataSpec = SPEC, conditional: bool = False) -> GatedPixelCNN:
    torch.manual_seed(0)
    return GatedPixelCNN(spec, dataclasses.replace(PIXELCNN, conditional=conditional))


def vae() -> VAE:
    torch.manual_seed(0)
    return VAE(SPEC, SMALL_VAE)


class Leaky(GatedPixelCNN):
    """Sees the last pixel everywhere."""

    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return super().conditionals(x, context) + 0.1 * x[:, :, -1:, -1:]


@pytest.mark.parametrize("batch_size", [1, 4, 11, 128])
def test_every_example_counts_once_whatever_the_batch(batch_size: int) -> None:
    model, data = pixelcnn(), dataset()
    found = per_example_nll(model, data, batch_size=batch_size)
    with torch.no_grad():
        expected = -model.eval().log_prob(torch.from_numpy(data.values.astype(np.int64)))
    assert found.values.shape == (11,)
    np.testing.assert_allclose(found.values, expected.numpy(), rtol=1e-5)
    estimate = found.nats()
    assert estimate.value == pytest.approx(float(expected.mean()), rel=1e-5)
    assert estimate.standard_error == pytest.approx(float(expected.std() / math.sqrt(11)), rel=1e-4)
    assert (estimate.n, estimate.unit, estimate.quantity) == (11, "nats", "nll")
    assert estimate.relation is Relation.EXACT
    assert estimate.fingerprint == data.spec.fingerprint


def test_units_and_signs_agree() -> None:
    model, data = pixelcnn(), dataset()
    a, b = nats(model, data), bits_per_dim(model, data)
    assert b.value == pytest.approx(a.value / (9 * math.log(2)))
    assert b.unit == "bits/dim"
    assert -log_likelihood(model, data).mean() == pytest.approx(a.value)
    assert a.value > 0


def test_bounds_say_so_and_tighten() -> None:
    model, data = vae(), dataset(60)
    elbo = per_example_nll(model, data)
    bound = per_example_nll(model, data, importance_samples=100)
    assert elbo.relation is bound.relation is Relation.UPPER
    assert bound.nats().value < elbo.nats().value
    assert "k = 100" in bound.nats().about
    again = per_example_nll(model, data, importance_samples=100)
    np.testing.assert_array_equal(again.values, bound.values)
    other = per_example_nll(model, data, importance_samples=100, seed=1)
    assert not np.array_equal(other.values, bound.values)


def test_an_implicit_density_is_refused_with_its_reason() -> None:
    spec = DataSpec("toy", (1, 4, 4), 2)
    model = DCGAN(spec, DCGANSettings(latent=3, channels=4))
    for ask in (nats, bits_per_dim, log_likelihood, per_example_nll):
        with pytest.raises(Unanswerable, match="DCGAN: it defines no density"):
            ask(model, dataset(spec=spec))


def test_a_likelihood_whose_proof_failed_is_not_printed() -> None:
    torch.manual_seed(0)
    model = Leaky(SPEC, PIXELCNN)
    for ask in (nats, bits_per_dim, log_likelihood, per_example_nll):
        with pytest.raises(ProofFailed, match=r'Leaky.*"no future leak" failed'):
            ask(model, dataset())


def test_proofs_of_other_weights_are_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[GenerativeModel] = []

    def counted(model: GenerativeModel, *args: object, **settings: bool) -> object:
        made.append(model)
        return verify(model, quick=True)

    monkeypatch.setattr(likelihood, "verify", counted)
    model = pixelcnn()
    saved = verify(model)
    assert proofs_of(model, saved) is saved
    assert not made
    first = proofs_of(model)
    assert proofs_of(model) is first
    assert len(made) == 1
    with torch.no_grad():
        next(model.parameters()).mul_(1.5)
    assert proofs_of(model, saved) is not saved
    assert len(made) == 2
    forged = dataclasses.replace(saved, model="Other", digest=proofs_of(model).digest)
    assert proofs_of(model, forged) is not forged


def test_the_mode_is_restored_and_dropout_is_off() -> None:
    torch.manual_seed(0)
    model = GatedPixelCNN(SPEC, dataclasses.replace(PIXELCNN, dropout=0.5)).train()
    first, second = nats(model, dataset()), nats(model, dataset())
    assert first == second
    assert model.training


def test_autocast_around_the_call_does_not_lower_the_precision() -> None:
    model, data = pixelcnn(), dataset()
    plain = per_example_nll(model, data).values
    with torch.autocast("cpu", torch.bfloat16):
        inside = per_example_nll(model, data).values
    np.testing.assert_array_equal(plain, inside)


def test_a_value_that_is_not_finite_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = pixelcnn(), dataset()

    def broken(x: Tensor, context: Tensor | None = None) -> Tensor:
        return torch.where(x.flatten(1).sum(1) == int(data.values[7].sum()), math.nan, -1.0)

    proofs = verify(model, quick=True)
    monkeypatch.setattr(model, "log_prob", broken)
    first = next(i for i in range(11) if data.values[i].sum() == data.values[7].sum())
    with pytest.raises(Diverged, match=rf"example {first}\b.*not a number"):
        per_example_nll(model, data, proofs=proofs)


def test_data_that_does_not_fit_is_refused() -> None:
    wide = DataSpec("wide", (1, 3, 4), 2)
    with pytest.raises(InvalidData, match=r"shape \(1, 3, 4\)"):
        nats(pixelcnn(), dataset(spec=wide))
    with pytest.raises(InvalidData, match="no labels"):
        nats(pixelcnn(dataclasses.replace(SPEC, classes=("a", "b")), True), dataset())
    with pytest.raises(InvalidSetting, match="importance_samples"):
        nats(vae(), dataset(), importance_samples=0)
    with pytest.raises(InvalidSetting, match="bfloat16"):
        nats(pixelcnn().bfloat16(), dataset())
    with pytest.raises(InvalidSetting, match="no posterior"):
        latent_diagnostics(pixelcnn(), dataset())


def test_labels_are_read() -> None:
    spec = dataclasses.replace(SPEC, classes=("a", "b"))
    model, data = pixelcnn(spec, True), dataset(labelled=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    other = Dataset(data.spec, data.values, 1 - data.labels)  # type: ignore[operator]
    assert nats(model, data).value != pytest.approx(nats(model, other).value, rel=1e-4)


class OneUnit(VAE):
    """A posterior whose first mean follows the first pixel; the others are the prior."""

    gain = 1.0

    def posterior(self, x: Tensor, context: Tensor | None = None) -> DiagonalGaussian:
        mean = torch.zeros(len(x), 2)
        mean[:, 0] = self.gain * x[:, 0, 0, 0]
        return DiagonalGaussian(mean, torch.zeros_like(mean))


def test_active_units_rate_and_distortion() -> None:
    torch.manual_seed(0)
    model, data = OneUnit(SPEC, SMALL_VAE), dataset(40)
    found = latent_diagnostics(model, data)
    assert (found.active, found.latent, found.warning) == (1, 2, "")
    assert "the decoder does nearly without it" in collapse_words(2, 2, 0.19, 93.0)
    assert collapse_words(2, 2, 0.19, 3.0) == ""
    # KL(N(m, 1) || N(0, 1)) = m^2 / 2
    assert found.rate.value == pytest.approx(data.values[:, 0, 0, 0].mean() / 2)
    assert found.distortion.value > 0
    assert found.to_json()["rate"]["unit"] == "nats"
    assert (found.rate.relation, found.distortion.relation) == (
        Relation.EXACT,
        Relation.APPROXIMATE,
    )


def test_a_rate_from_a_draw_of_the_codes_is_an_estimate() -> None:
    mixture = VAE(SPEC, dataclasses.replace(SMALL_VAE, prior="mixture"))
    layered = HierarchicalVAE(SPEC)
    for model in (mixture, layered):
        measured = latent_diagnostics(model, dataset(8))
        parts = (measured.rate, measured.distortion, *measured.layers)
        assert {estimate.relation for estimate in parts} == {Relation.APPROXIMATE}


def test_a_collapsed_posterior_is_called_so() -> None:
    torch.manual_seed(0)
    model = OneUnit(SPEC, SMALL_VAE)
    model.gain = 0.0
    found = latent_diagnostics(model, dataset())
    assert found.active == 0
    assert found.rate.value == 0
    assert "the posterior has collapsed: none of the 2" in found.warning
    many = OneUnit(SPEC, dataclasses.replace(SMALL_VAE, latent=2))
    many.gain = 0.19  # variance of a fair pixel: 0.19^2 / 4 < 0.01
    assert latent_diagnostics(many, dataset(40)).active == 0
