"""R3GAN: sizes of any kind, no normalisation, the scale of a deep network, labels."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from likely.data.spec import DataSpec
from likely.errors import InvalidSetting
from likely.models.gan.r3gan import R3GAN, sides_of
from likely.models.gan.settings import R3GANSettings
from likely.noise import Noise
from likely.training.adversarial import NonSaturatingGAN
from likely.training.objectives import Step

SMALL = R3GANSettings(latent=6, channels=4, group_size=4)


def built(shape: tuple[int, ...] = (1, 16, 16), **changes: object) -> R3GAN:
    spec = DataSpec("t", shape, 4, classes=("a", "b"))
    return R3GAN(spec, dataclasses.replace(SMALL, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(1, 4, 4), (1, 8, 8), (3, 28, 28), (1, 5, 7), (1, 33, 20)])
@pytest.mark.parametrize("patch", [1, 2])
def test_sizes_of_any_kind(shape: tuple[int, ...], patch: int) -> None:
    model = built(shape, patch=patch)
    images = model.generate(model.latents(Noise(0), 3))
    assert images.shape == (3, *shape)
    critic = model.adversary()
    assert critic(images, None).shape == (3,)
    assert critic.features(images).shape[0] == 3


def test_no_map_is_smaller_than_4_and_none_that_could_be_halved_is_left() -> None:
    assert sides_of(28, 28) == [(28, 28), (14, 14), (7, 7)]
    assert sides_of(64, 64)[-1] == (4, 4)
    assert sides_of(5, 40) == [(5, 40)]


def test_there_is_no_normalisation_and_no_pooling() -> None:
    model = built()
    for module in (*model.modules(), *model.adversary().modules()):
        assert "norm" not in type(module).__name__.lower()
        assert "pool" not in type(module).__name__.lower()


def test_blocks_begin_as_the_identity_and_the_scale_does_not_grow_with_depth() -> None:
    torch.manual_seed(0)
    shallow, deep = built(blocks=1).generator, built(blocks=8).generator
    x = torch.randn(64, *shallow.basis.shape)
    for network in (shallow, deep):
        assert torch.equal(network.trunk.stages[0](x), x)
        for module in network.modules():
            if isinstance(module, nn.Conv2d) and module.bias is None and not module.weight.any():
                nn.init.normal_(module.weight, 0.0, 0.05)  # after an update
    with torch.no_grad():
        grown = float(deep.trunk(x)[-1].std() / shallow.trunk(x)[-1].std())
    assert 0.5 < grown < 3


def test_labels_enter_both_networks() -> None:
    model = built(conditional=True).eval()
    z = model.latents(Noise(0), 1).repeat(2, 1)
    labels = torch.tensor([0, 1])
    images = model.generate(z, labels)
    assert not torch.allclose(images[0], images[1])
    logits = model.adversary()(images[:1].repeat(2, 1, 1, 1), labels).detach()
    assert float(logits[0]) != float(logits[1])


def test_in_a_fit_the_discriminator_may_see_rounded_images() -> None:
    model = built(rounds=True)
    z = model.latents(Noise(0), 3)
    shown, drawn = model.train().generate(z), model.eval().generate(z)
    assert torch.allclose(shown, model.scaled(model.quantised(drawn)), atol=1e-6)
    assert torch.equal(model.quantised(shown), model.decode(z))
    # The gradient is that of the images themselves.
    gradients = []
    for mode in (True, False):
        images = model.train(mode).generate(z)
        gradients.append(torch.autograd.grad(images.sum(), model.generator.basis)[0])
    assert torch.allclose(*gradients)


def test_every_weight_of_both_networks_is_reached() -> None:
    torch.manual_seed(0)
    model = built(conditional=True, blocks=1)
    game = NonSaturatingGAN()  # of a pair only the difference counts, not D's last bias
    players = game.players(model)
    with torch.no_grad():
        for parameter in nn.ModuleList(players.values()).parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    x = torch.randint(4, (4, 1, 16, 16))
    for player, network in players.items():
        step = Step(model, players, player, x, torch.tensor([0, 1, 0, 1]), Noise(0), 0)
        game.loss(step).value.sum().backward()
        assert all(p.grad is not None and bool(p.grad.any()) for p in network.parameters())
        network.zero_grad()


def test_an_image_too_small_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="at least 4 x 4"):
        built((1, 3, 8))


def test_groups_must_divide() -> None:
    with pytest.raises(InvalidSetting, match="group_size=3"):
        built(channels=4, group_size=3)
