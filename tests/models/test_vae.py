"""VAE: its start at the data's mean, its networks, its label."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from likely.data.spec import Dataset, DataSpec, digest_of
from likely.density import DiagonalGaussian, latent
from likely.models.vae.settings import VAESettings
from likely.models.vae.vae import VAE

SMALL = VAESettings(latent=3, network="dense", hidden=8, layers=1, channels=4)


def built(spec: DataSpec, **changes: object) -> VAE:
    torch.manual_seed(0)
    return VAE(spec, dataclasses.replace(SMALL, **changes)).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("network", ["dense", "conv"])
def test_the_output_starts_at_the_mean_of_the_data(network: str) -> None:
    random = np.random.Generator(np.random.Philox(0))
    chance = np.linspace(0.05, 0.95, 36).reshape(1, 6, 6)
    values = (random.random((2000, 1, 6, 6)) < chance).astype(np.uint8)
    spec = DataSpec("t", (1, 6, 6), 2, n=2000, digest=digest_of(values))
    model = built(spec, network=network)
    model.start_at(Dataset(spec, values))
    mean = model.decode_mean(torch.zeros(1, 3))[0].numpy()
    assert np.abs(mean - values.mean(0)).max() < 0.15
    assert np.abs(0.5 - values.mean(0)).max() > 0.4


@pytest.mark.parametrize("network", ["dense", "conv"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 7), (1, 1, 2), (1, 9, 16)])
def test_shapes(network: str, shape: tuple[int, ...]) -> None:
    model = built(DataSpec("t", shape, 4), network=network)
    x = torch.zeros(2, *shape, dtype=torch.int64)
    q = model.posterior(x)
    assert q.mean.shape == q.log_scale.shape == (2, 3)
    parameters = model.decoder_output(q.mean)
    assert parameters.shape == (2, model.head.parameters, *shape[1:])


@pytest.mark.parametrize("network", ["dense", "conv"])
def test_the_label_enters_both_networks(network: str) -> None:
    model = built(
        DataSpec("t", (1, 4, 4), 2, classes=("a", "b")), network=network, conditional=True
    )
    x, z = torch.zeros(2, 1, 4, 4, dtype=torch.int64), torch.zeros(2, 3)
    labels = torch.tensor([0, 1])
    mean = model.posterior(x, labels).mean
    parameters = model.decoder_output(z, labels)
    assert not torch.allclose(mean[0], mean[1])
    assert not torch.allclose(parameters[0], parameters[1])


def test_a_dead_encoder_has_a_bounded_scale() -> None:
    model = built(DataSpec("t", (1, 4, 4), 2))
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter.fill_(1e4)
    q = model.posterior(torch.ones(1, 1, 4, 4, dtype=torch.int64))
    assert bool(q.log_scale.isfinite().all())
    assert float(q.log_scale.detach().max()) <= 4


@pytest.mark.parametrize("network", ["dense", "conv"])
def test_images_are_coded_and_decoded_some_at_a_time(
    network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are, no more than a bounded number is in the networks' memory."""
    spec = DataSpec("t", (3, 4, 6), 256, classes=("a", "b"))
    model = built(spec, network=network, conditional=True, components=2).double()
    torch.manual_seed(1)
    x, labels = torch.randint(256, (11, *spec.shape)), torch.arange(11) % 2
    z = torch.randn(11, 3, dtype=torch.float64)
    uniform = torch.rand(11, *spec.shape, dtype=torch.float64)

    def answers() -> list[torch.Tensor]:
        return [
            model.decode(z, labels, uniform),
            model.decode_mean(z, labels),
            model.reconstruct(x, labels),
            model.interpolate((x, x.flip(0)), 3, context=labels),
            model.sample(11, context=labels),
        ]

    whole, seen = answers(), [0]
    decoder_output, posterior = model.decoder_output, model.posterior

    def decoding(z: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        seen.append(len(z))
        return decoder_output(z, context)

    def encoding(x: torch.Tensor, context: torch.Tensor | None = None) -> DiagonalGaussian:
        seen.append(len(x))
        return posterior(x, context)

    monkeypatch.setattr(latent, "DECODED", 4 * model.head.parameters * 24)
    monkeypatch.setattr(latent, "ENCODED", 4 * spec.dimensions)
    monkeypatch.setattr(model, "decoder_output", decoding)
    monkeypatch.setattr(model, "posterior", encoding)
    for found, expected in zip(answers(), whole, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-10)
    assert max(seen) == 4
