"""PixelVAE: p(x | z) of an autoregressive network, exact, causal, drawn by its program."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import likely
from likely.cli import main
from likely.data.spec import Dataset, DataSpec, digest_of
from likely.density import AutoregressiveLikelihood, fill_naively
from likely.estimate import Relation
from likely.evaluate.annealed import annealed
from likely.models.pixelcnn.pixelcnn import PixelCNN
from likely.models.pixelcnn.settings import PixelCNNSettings
from likely.models.vae.pixel_vae import PixelVAE
from likely.models.vae.settings import PixelVAESettings
from likely.nn.codes import FullGaussian, WeightedMixture
from likely.noise import Noise
from likely.verify import verify
from likely.verify.subject import all_images
from planted_models import lively

SMALL = PixelVAESettings(
    latent=2, network="dense", hidden=12, layers=1, components=2, flow_layers=2, flow_hidden=8,
    maps=3, local_channels=6, local_layers=2, local_first_kernel=3, local_head_channels=12,
)  # fmt: skip
GREY = DataSpec("grey", (1, 5, 4), 2)
COLOUR = DataSpec("colour", (3, 4, 4), 4, classes=("a", "b"))


def built(spec: DataSpec = GREY, **changes: object) -> PixelVAE:
    torch.manual_seed(0)
    model = PixelVAE(spec, dataclasses.replace(SMALL, **changes))  # type: ignore[arg-type]
    lively(model, scale=0.2)
    return model.double().eval()


def binary(n: int, spec: DataSpec = GREY) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(spec.levels, (n, *spec.shape), generator=generator)


@pytest.mark.parametrize("local", ["pixelcnn", "gated-pixelcnn", "pixelcnn-pp"])
def test_given_z_the_probabilities_of_all_images_sum_to_one(local: str) -> None:
    model = built(DataSpec("tiny", (1, 3, 3), 2), local=local)
    images = all_images((1, 3, 3), 2)
    with torch.no_grad():
        for z in 2 * Noise("z").normal(3, 1, 2, dtype=torch.float64):
            output = model.decoder_output(z).expand(len(images), -1, -1, -1)
            total = model.likelihood_given_z.log_prob(images, output).logsumexp(0)
            assert float(total) == pytest.approx(0.0, abs=1e-10)


@pytest.mark.parametrize("kind", ["gaussian", "mixture"])
def test_it_takes_every_prior_of_a_vae(kind: str, tmp_path: Path) -> None:
    """Fitted from the beginning, and fitted to its codes afterwards."""
    words = ["pixel-vae", "--data", "digits", "--network", "dense", "--latent", "2", "--hidden"]
    words += ["8", "--steps", "4", "--batch-size", "8", "--prior"]
    runs = [str(tmp_path / name) for name in ("first", "normal", "after")]
    assert main(["fit", *words, kind, "--out", runs[0]]) == 0
    assert main(["fit", *words, "normal", "--out", runs[1]]) == 0
    assert main(["prior", runs[1], "--density", kind, "--out", runs[2]]) == 0
    for run in (runs[0], runs[2]):
        model = likely.load(run).model
        assert isinstance(model, PixelVAE)
        assert isinstance(model.prior, FullGaussian if kind == "gaussian" else WeightedMixture)
    assert verify(model, quick=True).passed


def test_both_the_code_and_the_pixels_before_matter() -> None:
    model, x = built(), binary(4)
    z = Noise("z").normal(4, 2, dtype=torch.float64)
    output = model.decoder_output(z)
    parameters = model.likelihood_given_z.conditionals(x, output)
    assert not torch.allclose(parameters, model.likelihood_given_z.conditionals(1 - x, output))
    assert not torch.allclose(parameters, model.likelihood_given_z.conditionals(x, output.flip(0)))
    # The first pixel sees z alone.
    other = model.likelihood_given_z.conditionals(1 - x, output)
    torch.testing.assert_close(parameters[:, :, 0, 0], other[:, :, 0, 0])


@pytest.mark.parametrize("spec", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("local", ["pixelcnn", "gated-pixelcnn", "pixelcnn-pp"])
def test_a_draw_is_that_of_the_whole_network_pixel_by_pixel(local: str, spec: DataSpec) -> None:
    model = built(spec, local=local)
    z = Noise("z").normal(6, 2, dtype=torch.float64)
    uniform = Noise("x").uniform(6, *spec.grid)
    runs: list[int] = []
    decoder = model.decoder
    hook = decoder.register_forward_hook(lambda *_: runs.append(1))
    drawn = model.decode(z, None, uniform)
    hook.remove()
    assert len(runs) == 1  # the decoder runs once; the program of the small network does the rest
    with torch.no_grad():
        output = model.decoder_output(z)
        blank = torch.zeros(drawn.shape, dtype=torch.int64)
        expected = fill_naively(model.local, blank, uniform, 0, output)
    assert torch.equal(drawn, expected)
    assert len(torch.unique(drawn.flatten(1), dim=0)) > 1


def test_decoding_without_noise_takes_the_median_of_each_conditional() -> None:
    model = built()
    z = Noise("z").normal(5, 2, dtype=torch.float64)
    x, means = model.decode(z), model.decode_mean(z)
    with torch.no_grad():
        parameters = model.likelihood_given_z.conditionals(x, model.decoder_output(z))
    torch.testing.assert_close(means, parameters.sigmoid())
    assert torch.equal(x, (means > 0.5).long())


def test_the_bound_is_read_off_the_parts() -> None:
    model, x = built(), binary(5)
    reconstruction, kl = model.elbo_terms(x, Noise(1))
    q = model.posterior(x)
    z, log_q = q.draw(Noise(1).normal(5, 2, dtype=torch.float64))
    torch.testing.assert_close(kl[:, 0], log_q - model.prior.log_prob(z))
    torch.testing.assert_close(reconstruction, model.local.log_prob(x, model.decoder_output(z)))


def test_without_maps_it_is_the_network_alone() -> None:
    """What the code is worth is told by an unconditional network of the same sizes."""
    model, x = built(), binary(5)
    sizes = SMALL.of_local() | {"conditional": False}
    alone = PixelCNN(GREY, PixelCNNSettings(**sizes)).double().eval()
    shared = {n: t for n, t in model.local.state_dict().items() if "condition" not in n}
    assert set(shared) == set(alone.state_dict())
    alone.load_state_dict(shared)
    blank = torch.zeros(5, 3, 5, 4, dtype=torch.float64)
    torch.testing.assert_close(model.likelihood_given_z.log_prob(x, blank), alone.log_prob(x))


def test_bounds_are_in_order_and_annealing_comes_near_the_exact_likelihood() -> None:
    model, x = built(prior="normal", latent=1), binary(24).numpy().astype(np.uint8)
    data = Dataset(dataclasses.replace(GREY, n=24, digest=digest_of(x)), x)
    near = annealed(model, data, temperatures=20, chains=16, importance_samples=16, simulated=0)
    elbo, weighted, by_annealing, exact = (float(bound.values.mean()) for bound in near.bounds)
    assert near.bounds[3].relation is Relation.EXACT
    assert elbo > weighted > exact - 1e-3
    assert exact - 0.01 < by_annealing < weighted
    assert by_annealing - exact < 0.1 * (elbo - exact)


class Leaking(PixelCNN):
    """A first layer that sees the pixel that it predicts."""

    def conditionals(self, x: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        return super().conditionals(x, context) + 0.3 * self.scaled(x)


class LeakingVAE(PixelVAE):
    """Its small network sees the pixel that it predicts."""

    def __init__(self, spec: DataSpec, settings: PixelVAESettings | None = None) -> None:
        super().__init__(spec, settings)
        self.local.__class__ = Leaking


class WithoutPrior(PixelVAE):
    """The prior is not in the bound, which is the reconstruction less log q."""

    def elbo_terms(
        self, x: torch.Tensor, noise: Noise, context: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        q = self.posterior(x, context)
        z, log_q = q.draw(noise.normal(*q.mean.shape, dtype=q.mean.dtype))
        given_z = self.likelihood_given_z.log_prob(
            self.integers(x), self.decoder_output(z, context)
        )
        return given_z, log_q[:, None]


@pytest.mark.parametrize("quick", [True, False])
def test_right_models_pass_and_defects_are_caught(quick: bool) -> None:
    proofs = verify(built(), quick=quick)
    assert proofs.passed, str(proofs)
    assert proofs["no future leak (given z)"].passed
    torch.manual_seed(0)
    failed = {p.name for p in verify(lively(LeakingVAE(GREY, SMALL)), quick=quick).failed}
    assert {"no self leak (given z)", "total probability"} <= failed
    failed = {p.name for p in verify(lively(WithoutPrior(GREY, SMALL)), quick=quick).failed}
    assert {"the KL term is a KL", "the ELBO is the ELBO"} <= failed


def test_the_decoder_is_a_likelihood_and_may_be_any_of_the_house() -> None:
    model = built(local="gated-pixelcnn")
    assert isinstance(model.likelihood_given_z, AutoregressiveLikelihood)
    assert not model.local.has_blind_spot
