"""DCGAN: the five guidelines, sizes of any kind, labels, the start of the weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from likely import runs
from likely.data.spec import DataSpec
from likely.errors import InvalidSetting
from likely.models.gan.dcgan import DCGAN
from likely.models.gan.settings import DCGANSettings
from likely.nn.normalization import BatchNorm2d
from likely.noise import Noise
from likely.training.adversarial import RelativisticGAN

SMALL = DCGANSettings(latent=6, channels=4)


def built(shape: tuple[int, ...] = (1, 16, 16), **changes: object) -> DCGAN:
    torch.manual_seed(0)
    spec = DataSpec("t", shape, 4, classes=("a", "b"))
    return DCGAN(spec, dataclasses.replace(SMALL, **changes))  # type: ignore[arg-type]


def test_the_five_guidelines() -> None:
    model = built(normalize="batch")
    modules = [*model.modules(), *model.adversary().modules()]
    pools = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Upsample)
    assert not any(isinstance(m, (nn.Linear, *pools)) for m in modules)
    assert all(isinstance(norm, BatchNorm2d) for norm in model.generator.norms)
    critic = model.adversary()
    downs = critic.norms
    assert isinstance(downs[0], nn.Identity)
    assert all(isinstance(norm, BatchNorm2d) for norm in list(downs)[1:])
    strides = [d.stride for d in critic.downs] + [u.stride for u in model.generator.ups]
    assert set(strides) == {(2, 2)}
    plain = built()
    assert not any(isinstance(m, BatchNorm2d) for m in plain.modules())


@pytest.mark.parametrize("shape", [(1, 4, 4), (1, 8, 8), (3, 28, 28), (1, 5, 7), (1, 33, 20)])
@pytest.mark.parametrize(
    ("normalize", "kernel"), [("none", 4), ("batch", 4), ("batch", 5), ("spectral", 3)]
)
def test_sizes_of_any_kind(shape: tuple[int, ...], normalize: str, kernel: int) -> None:
    model = built(shape, normalize=normalize, kernel=kernel)
    z = model.latents(Noise(0), 3)
    assert -1 <= float(z.min()) < 0 < float(z.max()) < 1
    images = model.generate(z)
    assert images.shape == (3, *shape)
    assert float(images.detach().abs().max()) <= 1
    critic = model.adversary()
    assert critic(images, None).shape == (3,)
    assert critic.features(images).shape[0] == 3


def test_an_image_too_small_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="at least 4 x 4"):
        built((1, 3, 8))


def test_labels_enter_both_networks() -> None:
    model = built(conditional=True).eval()
    z = model.latents(Noise(0), 1).repeat(2, 1)
    labels = torch.tensor([0, 1])
    images = model.generate(z, labels)
    assert not torch.allclose(images[0], images[1])
    logits = model.adversary()(images[:1].repeat(2, 1, 1, 1), labels).detach()
    assert float(logits[0]) != float(logits[1])


def test_spectral_normalisation_holds_every_layer_of_the_discriminator_at_norm_1() -> None:
    critic = built(conditional=True, normalize="spectral").adversary().train()
    x = torch.rand(2, 1, 16, 16)
    for _ in range(20):  # power iterations, one a pass
        critic(x, torch.tensor([0, 1]))
    for layer in (*critic.downs, critic.last, critic.label):
        weight = layer.weight.detach().flatten(1)
        assert float(torch.linalg.matrix_norm(weight, 2)) == pytest.approx(1, abs=2e-2)
    before = critic.downs[0].parametrizations.weight.original
    assert float(before.detach().flatten(1).norm()) != pytest.approx(1, abs=0.1)


def test_the_paper_starts_at_a_standard_deviation_of_0_02() -> None:
    model = built(channels=64, normalize="batch")
    weights = model.generator.ups[0].weight.detach()
    assert float(weights.std()) == pytest.approx(0.02, rel=0.05)


def test_images_are_quantised_to_the_nearest_level() -> None:
    model = built()
    x = torch.tensor([-1.0, -0.7, -0.6, 0.0001, 0.6, 1.0])
    assert model.quantised(x).tolist() == [0, 0, 1, 2, 2, 3]


@pytest.mark.parametrize("conditional", [False, True])
def test_truncated_codes_are_nearer_to_their_mean(conditional: bool) -> None:
    model = built(conditional=conditional).eval()
    context = torch.arange(6) % 2 if conditional else None
    drawn = model.sample(6, seed=3, context=context)
    assert torch.equal(model.sample_truncated(6, 1.0, seed=3, context=context), drawn)
    z = model.drawn_codes(6, seed=3)
    half = model.sample_truncated(6, 0.5, seed=3, context=context)
    assert torch.equal(half, model.decode(0.5 * z, context))
    mean = model.sample_truncated(6, 0.0, seed=3, context=context)
    assert torch.equal(mean[:2], mean[2:4])
    with pytest.raises(InvalidSetting, match="truncation must be in"):
        model.sample_truncated(6, 1.5, context=context)


def test_the_model_holds_the_generator_alone() -> None:
    model = built(conditional=True)
    players = RelativisticGAN().players(model)
    assert players["generator"] is model
    assert not {*players["discriminator"].parameters()} & {*model.parameters()}
    assert not {"criticise", "features", "discriminator"} & {*dir(model)}


def test_a_run_of_before_holds_both_networks() -> None:
    """Its weights were one model's; now the discriminator's are those of the run's adversary."""
    run = runs.load(Path(__file__).parents[2] / "bench" / "results" / "mnist-static-dcgan")
    x = run.model.sample(4, seed=3)
    assert run.adversary is not None
    real = run.adversary(run.model.scaled(x), None).detach()
    noise = run.adversary(torch.rand(4, 1, 28, 28) * 2 - 1, None).detach()
    assert float(real.min()) > float(noise.max())  # it was trained to tell images from others
