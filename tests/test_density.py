"""What is written once for all models: Gaussians, bounds, inversion, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from likely.data.spec import DataSpec
from likely.density import DiagonalGaussian, at_least_float, chunks, mean_level
from likely.errors import InvalidData, InvalidSetting
from likely.heads import invert
from likely.models.pixelcnn.gated_pixelcnn import GatedPixelCNN
from likely.models.vae.vae import VAE
from likely.noise import Noise
from planted_models import GREY, PIXELCNN, SMALL_VAE, lively


def vae() -> VAE:
    torch.manual_seed(0)
    model = VAE(GREY, SMALL_VAE)
    lively(model)
    return model.double().eval()


def images(n: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(2, (n, *GREY.shape), generator=generator)


def test_gaussian_density_and_divergence() -> None:
    mean = torch.tensor([[0.3, -1.0]], dtype=torch.float64)
    log_scale = torch.tensor([[0.2, -0.7]], dtype=torch.float64)
    q = DiagonalGaussian(mean, log_scale)
    z = q.sample(Noise("z").normal(200_000, 2, dtype=torch.float64))
    reference = torch.distributions.Normal(mean, log_scale.exp())
    torch.testing.assert_close(q.log_prob(z), reference.log_prob(z).sum(-1))
    standard = torch.distributions.Normal(torch.zeros(2).double(), torch.ones(2).double())
    expected = torch.distributions.kl_divergence(reference, standard)
    torch.testing.assert_close(q.kl_to_standard(), expected)
    assert float(z.mean(0)[0]) == pytest.approx(0.3, abs=0.02)
    assert float(z.std(0)[1]) == pytest.approx(math.exp(-0.7), abs=0.01)
    same = DiagonalGaussian(torch.zeros(1, 2), torch.zeros(1, 2))
    assert float(same.kl_to_standard().abs().max()) == 0


def test_inversion_is_the_inverse_distribution_function() -> None:
    p = torch.tensor([0.2, 0.0, 0.5, 0.3], dtype=torch.float64)
    uniform = torch.tensor([0.0, 0.1999, 0.2001, 0.69, 0.71, 0.9999, 1 - 2**-53])
    table = p.log().reshape(1, 4, 1).expand(1, 4, 7)
    assert invert(table, uniform[None].double())[0].tolist() == [0, 0, 2, 2, 3, 3, 3]


def test_inversion_never_draws_what_has_no_mass() -> None:
    """Mass that rounds to just below one: u close to one must not fall off the top level."""
    table = torch.tensor([0.5, 0.5 - 1e-7, 1e-30]).log().reshape(1, 3)
    drawn = invert(table, torch.tensor([1 - 2**-53], dtype=torch.float64))
    assert int(drawn) in (0, 1, 2)
    first = torch.tensor([0.0, 1.0]).log().reshape(1, 2)
    assert int(invert(first, torch.zeros(1, dtype=torch.float64))) == 1


def test_the_mean_level_is_rounded() -> None:
    table = torch.tensor([0.1, 0.2, 0.7]).log().reshape(1, 3, 1)
    assert int(mean_level(table)) == 2


def test_the_elbo_is_its_terms_and_a_function_of_the_noise() -> None:
    model, x = vae(), images()
    reconstruction, kl = model.elbo_terms(x, Noise(1))
    assert torch.equal(model.elbo(x, Noise(1)), reconstruction - kl.sum(-1))
    assert not torch.equal(model.elbo(x, Noise(1)), model.elbo(x, Noise(2)))
    assert kl.shape == (3, SMALL_VAE.latent)
    assert bool((kl >= 0).all())
    assert bool((reconstruction < 0).all())


def test_one_importance_sample_is_an_elbo_sample_with_the_exact_divergence_replaced() -> None:
    """L_1 and the ELBO agree in expectation; L_k rises with k (Burda et al. 2016, Theorem 1)."""
    model, x = vae(), images(1).repeat(4000, 1, 1, 1)
    with torch.no_grad():
        elbo = model.elbo(x, Noise("a"))
        bounds = [model.importance_bound(x, k, Noise("b", k)) for k in (1, 4, 16)]
    error = float((elbo.var() + bounds[0].var()).sqrt()) / math.sqrt(4000)
    assert abs(float(elbo.mean() - bounds[0].mean())) < 5 * error
    means = [float(b.mean()) for b in bounds]
    assert means == sorted(means)
    assert means[2] - means[0] > 10 * error


def test_the_importance_bound_does_not_depend_on_the_size_of_its_chunks_in_law() -> None:
    model, x = vae(), images(2)
    with torch.no_grad():
        whole, parts = (
            torch.stack([model.importance_bound(x, 600, Noise(i, c), chunk=c) for i in range(40)])
            for c in (10**6, 64)
        )  # [40, 2] each
    error = ((whole.var(0) + parts.var(0)) / 40).sqrt()
    assert bool(((whole.mean(0) - parts.mean(0)).abs() < 5 * error).all())
    with pytest.raises(InvalidSetting, match="k >= 1, given 0"):
        model.importance_bound(x, 0, Noise(0))


def test_decoding_without_noise_is_the_mean() -> None:
    model = vae()
    z = Noise("z").normal(3, SMALL_VAE.latent, dtype=torch.float64)
    mean = model.decode_mean(z)
    assert torch.equal(model.decode(z), mean.round().long())
    assert 0 <= float(mean.min()) <= float(mean.max()) <= 1


def test_completion_is_the_conditional_distribution() -> None:
    """p(rest | first pixels) from completions against the joint, on a 1 x 3 binary image."""
    torch.manual_seed(0)
    model = GatedPixelCNN(DataSpec("t", (1, 1, 3), 2), PIXELCNN)
    lively(model)
    model.double().eval()
    start = torch.tensor([1, 0, 0]).reshape(1, 1, 1, 3)
    observed = torch.tensor([[True, False, False]])
    n = 4000
    done = model.complete(start.repeat(n, 1, 1, 1), observed, seed=3)
    assert bool((done[..., 0] == 1).all())
    rests = torch.tensor([[1, a, b] for a in (0, 1) for b in (0, 1)]).reshape(4, 1, 1, 3)
    with torch.no_grad():
        p = model.log_prob(rests).softmax(0)
    counts = torch.bincount((2 * done[..., 1] + done[..., 2]).flatten(), minlength=4)
    chi_square = float(((counts - n * p) ** 2 / (n * p)).sum())
    assert chi_square < 16.3  # 3 degrees of freedom: 0.001


def test_scaling_runs_from_minus_one_to_one() -> None:
    torch.manual_seed(0)
    model = GatedPixelCNN(DataSpec("t", (1, 2, 2), 17), PIXELCNN)
    x = torch.tensor([0, 8, 16, 4]).reshape(1, 1, 2, 2)
    assert model.scaled(x).flatten().tolist() == [-1.0, 0.0, 1.0, -0.5]


def test_small_helpers() -> None:
    assert [(s.start, s.stop) for s in chunks(5, 2)] == [(0, 2), (2, 4), (4, 5)]
    assert list(chunks(0, 3)) == []
    assert at_least_float(torch.zeros(1, dtype=torch.bfloat16)).dtype == torch.float32
    assert at_least_float(torch.zeros(1, dtype=torch.float64)).dtype == torch.float64


def test_every_method_takes_numpy_arrays() -> None:
    x, model = images(4), vae()
    observed = torch.zeros(GREY.shape[1:], dtype=torch.bool)
    observed[:1] = True
    pixelcnn = GatedPixelCNN(GREY, PIXELCNN)
    z = torch.linspace(-1.0, 1.0, 2 * model.latent, dtype=torch.float64).reshape(2, -1)
    for ask in (
        lambda at, array: pixelcnn.log_prob(array(x).astype(np.uint8) if at else x),
        lambda at, array: pixelcnn.complete(array(x), array(observed), seed=1),
        lambda at, array: pixelcnn.conditional(array(x), 0, 1),
        lambda at, array: model.posterior(array(x)).mean,
        lambda at, array: model.reconstruct(array(x)),
        lambda at, array: model.decode_mean(array(z)),
        lambda at, array: model.importance_bound(array(x), 2, Noise(0, "k")),
    ):
        assert torch.equal(ask(True, lambda t: t.numpy()), ask(False, lambda t: t))


def test_what_is_no_array_is_refused_in_words() -> None:
    with pytest.raises(InvalidData, match=r"expected examples \[B, .* numpy array, given list"):
        vae().posterior([0, 1])
    with pytest.raises(InvalidData, match=r"expected integers in .*, given torch\.float64"):
        GatedPixelCNN(GREY, PIXELCNN).log_prob(images().numpy() / 2.0)


class FiveSides(GatedPixelCNN):
    """Its output broadcasts against the image, and so would train."""

    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return super().conditionals(x, context)[:, None]


def test_an_output_of_another_shape_is_refused() -> None:
    with pytest.raises(InvalidSetting, match=r"\[B, head.parameters, H, W\] = .* given \[3, 1, "):
        FiveSides(GREY, PIXELCNN).log_prob(images())


def test_the_means_are_of_the_codes_behind_the_samples() -> None:
    model = vae()
    means = model.sample_means(5, seed=3, chunk=2)
    assert means.dtype == torch.float64
    assert means.shape == (5, *GREY.shape)
    assert float(means.min()) >= 0
    assert float(means.max()) <= GREY.levels - 1
    z = Noise(3, "sample", 0, rows=(0, 2)).normal(2, model.latent, dtype=torch.float64)
    assert torch.equal(means[:2], model.decode_mean(z))
