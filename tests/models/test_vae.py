"""VAE: its start at the data's mean, its networks, its label, its priors and posteriors."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from likely.data.spec import Dataset, DataSpec, digest_of
from likely.density import (
    DiagonalGaussian,
    GaussianMixture,
    LatentVariable,
    Posterior,
    Prior,
    StandardNormal,
    codes,
    latent,
)
from likely.heads import Bernoulli
from likely.models.vae.settings import VAESettings
from likely.models.vae.vae import VAE
from likely.nn.flow import Bijection, FlowDensity, FlowPosterior, autoregressive_flow
from likely.noise import Noise
from likely.verify import verify

SMALL = VAESettings(
    latent=3, network="dense", hidden=8, layers=1, channels=4, flow_layers=2, flow_hidden=8,
    pseudo_inputs=5,
)  # fmt: skip
GREY = DataSpec("t", (1, 4, 4), 2)
LEARNED = [
    {"prior": "flow"}, {"prior": "autoregressive"}, {"prior": "vamp"}, {"posterior": "iaf"},
    {"prior": "vamp", "posterior": "iaf"},
]  # fmt: skip


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

    monkeypatch.setattr(codes, "DECODED", 4 * model.head.parameters * 24)
    monkeypatch.setattr(codes, "ENCODED", 4 * spec.dimensions)
    monkeypatch.setattr(model, "decoder_output", decoding)
    monkeypatch.setattr(model, "posterior", encoding)
    for found, expected in zip(answers(), whole, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-10)
    assert max(seen) == 4


@pytest.mark.parametrize("network", ["dense", "conv"])
def test_a_bound_does_not_depend_on_how_many_draws_are_decoded_together(
    network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = built(GREY, network=network).double()
    lively(model)
    bounds, seen = [], [0]
    decoder_output = model.decoder_output

    def decoding(z: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        seen.append(len(z))
        return decoder_output(z, context)

    monkeypatch.setattr(model, "decoder_output", decoding)
    for values in (1, 6 * 16, 2**20):  # of a pass: one, two and all draws of three images
        monkeypatch.setattr(latent, "PASS", values)
        seen.append(0)
        with torch.no_grad():
            bounds.append(model.importance_bound(binary(3), 7, Noise(0)))
    assert max(seen) == seen[-1] == 21
    assert seen.count(3) == 7 + 1
    for bound in bounds:
        torch.testing.assert_close(bound, bounds[0], rtol=1e-12, atol=1e-12)


def lively(model: torch.nn.Module, scale: float = 0.3) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)


def binary(n: int) -> torch.Tensor:
    return torch.randint(2, (n, 1, 4, 4), generator=torch.Generator().manual_seed(0))


def test_the_prior_is_standard_normal_unless_asked_otherwise() -> None:
    model = built(GREY)
    assert model.prior == StandardNormal(3)
    assert not any("flow" in name or "pseudo" in name for name in model.state_dict())
    assert torch.equal(model.latents(Noise(0), 4), Noise(0).normal(4, 3))


@pytest.mark.parametrize("changes", LEARNED, ids=str)
def test_the_bound_with_a_learned_prior_or_posterior_is_read_off_the_parts(
    changes: dict[str, object],
) -> None:
    model, x = built(GREY, **changes).double(), binary(6)
    lively(model)
    reconstruction, kl = model.elbo_terms(x, Noise(1))
    q = model.posterior(x)
    z = q.sample(Noise(1).normal(6, 3, dtype=torch.float64))
    torch.testing.assert_close(kl[:, 0], q.log_prob(z) - model.prior.log_prob(z))
    assert kl.shape == (6, 1)
    expected = model.head.log_prob(model.decoder_output(z), x).sum((1, 2, 3))
    torch.testing.assert_close(reconstruction, expected)
    # L_k with one sample is the same estimate.
    torch.testing.assert_close(model.importance_bound(x, 1, Noise(1)),
                               model.elbo(x, Noise(1)))  # fmt: skip
    many = x[:1].repeat(4000, 1, 1, 1)
    with torch.no_grad():
        bounds = [float(model.importance_bound(many, k, Noise(k)).mean()) for k in (1, 4, 16)]
    assert bounds == sorted(bounds)


@pytest.mark.parametrize("prior", ["flow", "autoregressive", "vamp"])
def test_samples_come_from_the_prior(prior: str) -> None:
    """The mean of log p over its samples exceeds that over samples of the others."""
    model = built(GREY, prior=prior).double()
    lively(model)
    with torch.no_grad():
        z = model.latents(Noise("z"), 4000)
        moved = model.prior.log_prob(z + z.std(0)).mean()
        assert float(model.prior.log_prob(z).mean()) > float(moved) + 0.3
    codes: list[torch.Tensor] = []
    decode = model.decoder_output
    model.decoder_output = lambda z, context=None: (codes.append(z), decode(z, context))[1]  # type: ignore[method-assign, assignment, return-value, func-returns-value]
    model.sample(8, seed=3)
    expected = model.latents(Noise(3, "sample", 0, rows=(0, 256)), 8)
    torch.testing.assert_close(codes[0], expected)


def test_the_vamp_prior_is_the_mixture_of_the_posteriors_of_its_pseudo_inputs() -> None:
    random = np.random.Generator(np.random.Philox(0))
    values = random.integers(0, 2, (20, 1, 4, 4)).astype(np.uint8)
    data = Dataset(dataclasses.replace(GREY, n=20, digest=digest_of(values)), values)
    model = built(GREY, prior="vamp")
    model.start_at(data)
    prior, z = model.prior, torch.randn(7, 3)
    assert isinstance(prior, GaussianMixture)
    # At the start they are training images: every fourth of these.
    x = torch.from_numpy(values[::4].astype(np.int64))
    q = model.posterior(x)
    each = torch.stack([q.log_prob(row) for row in z])  # [7, 5]
    torch.testing.assert_close(prior.log_prob(z), each.logsumexp(1) - np.log(5))


class Composed(LatentVariable):
    """A VAE whose parts are given."""

    def __init__(
        self, encoder: torch.nn.Module, decoder: torch.nn.Module, prior: Bijection | None,
        posterior: Bijection | None,
    ) -> None:  # fmt: skip
        super().__init__(GREY, 0)
        self.encoder, self.decoder, self.latent, self.head = encoder, decoder, 3, Bernoulli(1)
        self.prior_flow, self.posterior_flow = prior, posterior

    @property
    def prior(self) -> Prior:
        return StandardNormal(3) if self.prior_flow is None else FlowDensity(self.prior_flow, 3)

    def posterior(self, x: torch.Tensor, context: torch.Tensor | None = None) -> Posterior:
        mean, log_scale = self.encoder(self.scaled(x).flatten(1)).chunk(2, -1)
        gaussian = DiagonalGaussian(mean, log_scale)
        if self.posterior_flow is None:
            return gaussian
        return FlowPosterior(gaussian, self.posterior_flow, mean)

    def decoder_output(self, z: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        if self.posterior_flow is not None:
            z = self.posterior_flow.inverse(z)[0]
        output: torch.Tensor = self.decoder(z)
        return output.unflatten(1, (1, 4, 4))


def test_an_autoregressive_prior_is_an_inverse_autoregressive_posterior() -> None:
    """The same bound read two ways (Chen et al. 2017, sec. 3.2), https://arxiv.org/abs/1611.02731."""
    torch.manual_seed(0)
    encoder, decoder = torch.nn.Linear(16, 6), torch.nn.Linear(3, 16)
    flow = autoregressive_flow(3, 2, 8)
    lively(flow)
    as_prior = Composed(encoder, decoder, flow, None).double()
    as_posterior = Composed(encoder, decoder, None, flow).double()
    x = binary(5)
    for first, second in (
        (as_prior.elbo(x, Noise(0)), as_posterior.elbo(x, Noise(0))),
        (as_prior.importance_bound(x, 7, Noise(1)), as_posterior.importance_bound(x, 7, Noise(1))),
    ):
        torch.testing.assert_close(first, second, rtol=0, atol=1e-9)
    assert torch.equal(as_prior.sample(9), as_posterior.sample(9))
    without = Composed(encoder, decoder, None, None).double()
    assert not torch.allclose(without.elbo(x, Noise(0)), as_prior.elbo(x, Noise(0)))


@pytest.mark.parametrize("seed", range(2))
def test_a_mixture_with_broad_components_is_integrated_to_its_ends(seed: int) -> None:
    """Twelve standard deviations of the mixture are fewer of its broadest component."""
    model = built(GREY, prior="mixture", prior_components=50)
    proof = verify(model, quick=True, seed=seed)["total probability"]
    assert proof.passed, proof.measured
