"""Laws of steering: what is added and taken away is the start, codes stay where they are drawn."""

from __future__ import annotations

import math
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from likely import models
from likely.data.spec import DataSpec
from likely.density import ImplicitDensity, Prior, StandardNormal, UniformCube
from likely.density.inversion import DRAWN
from likely.density.shell import Shell, around
from likely.errors import InvalidSetting
from likely.models.gan.dcgan import DCGAN
from likely.models.vae.vae import VAE
from likely.noise import Noise

SPEC = DataSpec("planted", (1, 4, 4), 256)
LATENT = 6


class Linear(ImplicitDensity):
    """G(z) = W z / 8 with orthonormal columns: the code of an image is known."""

    def __init__(self, prior: Prior) -> None:
        super().__init__(SPEC, 0)
        weight = torch.linalg.qr(torch.randn(16, LATENT, generator=torch.manual_seed(0)))[0]
        self.weight = torch.nn.Parameter(weight / 4)
        self._prior = prior

    @property
    def prior(self) -> Prior:
        return self._prior

    def latents(self, noise: Noise, n: int) -> Tensor:
        return self._prior.sample(noise, n, torch.float32)

    def generate(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return (z @ self.weight.T).reshape(-1, 1, 4, 4)


NORMAL, CUBE = StandardNormal(LATENT), UniformCube(LATENT)


@pytest.mark.parametrize("prior", [NORMAL, CUBE], ids=["normal", "cube"])
def test_what_is_added_and_taken_away_is_the_start(prior: Prior) -> None:
    model = Linear(prior)
    start, other = model.drawn_codes(12).split([5, 7])
    shell = model.shell()
    result = model.arithmetic([start, other], [other])
    torch.testing.assert_close(result.code, shell.settled(start.mean(0)))
    length = float(result.code.norm())
    radius = math.sqrt(LATENT) if prior is NORMAL else math.sqrt(LATENT / 3)
    assert shell.radius == pytest.approx(radius)
    assert length == pytest.approx(radius, rel=1e-5) or (prior is CUBE and length < radius)
    assert float(result.code.abs().max()) <= (1.0 if prior is CUBE else math.inf)
    assert ("clipped" in result.about) == (prior is CUBE)
    assert torch.equal(result.images[4], model.decode(result.code[None])[0])
    assert len(result.images.flatten(1).unique(dim=0)) == 9
    assert torch.equal(model.arithmetic([start], reach=0.0).images[0], result.images[4])


def test_a_planted_direction_is_found_by_means() -> None:
    """Attribute: the sign of the third coordinate."""
    model = Linear(NORMAL)
    codes = model.drawn_codes(600)
    has = codes[:, 2] > 0
    code = model.arithmetic([codes[has]], [codes[~has]]).code
    assert float(code[2] / code.norm()) > 0.98


def test_few_codes_are_refused() -> None:
    model = Linear(NORMAL)
    codes = model.drawn_codes(4)
    with pytest.raises(InvalidSetting, match="at least 3 codes, given 2"):
        model.arithmetic([codes], [codes[:2]])
    with pytest.raises(InvalidSetting, match="nothing is added"):
        model.arithmetic([], [codes])


def test_encoded_codes_keep_the_length_of_their_own() -> None:
    settings = models.VAESettings(latent=LATENT, network="dense", hidden=8, layers=1)
    vae = VAE(SPEC, settings).eval()
    x = vae.sample(9)
    result = vae.arithmetic([x[:3], x[3:6]], [x[6:]])
    lengths = vae.features(x).square().sum(1)
    assert float(result.code.norm()) == pytest.approx(math.sqrt(float(lengths.mean())), rel=1e-5)


def test_the_numbered_codes_are_those_of_the_samples() -> None:
    gan = DCGAN(SPEC, models.DCGANSettings(latent=5, channels=4)).eval()
    assert torch.equal(gan.decode(gan.drawn_codes(300, seed=3)), gan.sample(300, seed=3))


@pytest.mark.parametrize("prior", [NORMAL, CUBE], ids=["normal", "cube"])
def test_inversion_recovers_the_code_of_a_linear_generator(prior: Prior) -> None:
    model = Linear(prior)
    z = model.drawn_codes(5, seed=1)
    inversion = model.invert(model.decode(z), steps=150, restarts=2)
    torch.testing.assert_close(inversion.codes, z, atol=0.04, rtol=0.0)  # images are rounded
    assert float(inversion.error.max()) < 1e-3
    assert torch.equal(inversion.images, model.decode(inversion.codes))
    start = model.invert(model.decode(z), steps=0)
    assert bool((start.error >= inversion.error).all())
    # What is not among its images keeps the error of its projection.
    noise = torch.randint(0, 256, (3, 1, 4, 4), generator=torch.manual_seed(1))
    x = model.scaled(noise).flatten(1)
    projected = x @ (4 * model.weight) @ (4 * model.weight).T
    least = ((x - projected) / 2).square().sum(1).detach().double()
    error = model.invert(noise, steps=300, restarts=2).error
    if prior is NORMAL:
        inside = (projected.abs() < 1).all(1)
        torch.testing.assert_close(error[inside], least[inside], rtol=0.05, atol=0.05)
    assert bool((error > least - 0.05).all())


def test_as_many_descents_as_are_asked_for_begin_at_draws_of_their_own() -> None:
    model = Linear(NORMAL)
    x = model.decode(model.drawn_codes(2, seed=1))
    few, many = (model.invert(x, steps=0, restarts=n).error for n in (DRAWN, DRAWN + 5))
    assert bool((many <= few).all())


def test_samples_of_a_generator_invert_to_almost_no_error() -> None:
    torch.manual_seed(3)
    gan = DCGAN(SPEC, models.DCGANSettings(latent=3, channels=4)).eval()
    with torch.no_grad():
        for parameter in gan.parameters():
            parameter *= 2.0
    x = gan.sample(4)
    spread = (x - gan.sample(4, seed=1)).double().div(255).square().flatten(1).sum(1).mean()
    assert float(gan.invert(x, steps=150).error.max()) < 0.02 * float(spread)
    assert gan.invert(x, steps=3).codes.requires_grad is False
    assert all(parameter.grad is None for parameter in gan.parameters())


class Watched(Linear):
    """Remembers the codes that it decodes."""

    seen: ClassVar[list[Tensor]] = []

    def generate(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        self.seen.append(z)
        return super().generate(z)


@pytest.mark.parametrize("prior", [NORMAL, CUBE], ids=["normal", "cube"])
def test_a_walk_is_closed_of_constant_speed_and_stays_where_codes_lie(prior: Prior) -> None:
    model, seen = Watched(prior), Watched.seen
    seen.clear()
    assert model.walk(2, 16, seed=4).shape == (2, 16, 1, 4, 4)
    path = torch.stack(seen, 1)
    torch.testing.assert_close(path.norm(dim=-1), torch.full((2, 16), model.shell().radius))
    speed = (path.roll(-1, 1) - path).norm(dim=-1)
    torch.testing.assert_close(speed, speed[0, 0].expand(2, 16))
    assert prior is NORMAL or float(path.abs().max()) <= 1.0
    assert torch.linalg.matrix_rank(path[0], atol=1e-4) == 2
    x = model.sample(2, seed=5)
    through = model.walk((x[:1], x[1:]), 8)
    assert torch.equal(through[:, 0], model.invert(x[:1]).images)
    with pytest.raises(InvalidSetting, match="at least three steps"):
        model.walk(1, 2)


def test_a_loop_goes_through_both_codes() -> None:
    first, last = torch.tensor([[3.0, 0.0, 0.0]]), torch.tensor([[0.0, 3.0, 0.0]])
    path = around(first, last, torch.zeros(3), 8)
    torch.testing.assert_close(path[:, 0], first, atol=1e-4, rtol=0.0)
    torch.testing.assert_close(path[:, 2], last, atol=1e-4, rtol=0.0)
    shell = Shell(torch.ones(3), 2.0, False, "")
    assert torch.equal(shell.settled(torch.ones(3)), torch.ones(3))
