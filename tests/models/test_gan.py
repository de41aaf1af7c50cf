"""The fully connected GAN: maxout units, vectors and images, labels."""

from __future__ import annotations

import torch

from likely.data.spec import DataSpec
from likely.models.gan.gan import GAN, DenseDiscriminator
from likely.noise import Noise


def test_a_maxout_unit_is_the_largest_of_its_pieces() -> None:
    critic = DenseDiscriminator(3, 0, hidden=4, layers=1, pieces=2)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    pieces = critic.hidden[0](x).reshape(5, 4, 2)
    expected = critic.last(torch.maximum(pieces[..., 0], pieces[..., 1]))[:, 0]
    torch.testing.assert_close(critic(x, None), expected)


def test_vectors_and_images_are_made_in_their_shape() -> None:
    for shape in ((5,), (3, 4, 2)):
        model = GAN(DataSpec("t", shape, 65_536), latent=3, hidden=8, layers=2)
        z = model.latents(Noise(0), 6)
        assert z.shape == (6, 3)
        assert -1 <= float(z.min()) < 0 < float(z.max()) <= 1
        images = model.generate(z).detach()
        assert images.shape == (6, *shape)
        assert float(images.abs().max()) < 1
        critic = model.adversary()
        assert len(critic.hidden) == 2
        assert critic.features(images).shape == (6, 2 * 256)


def test_labels_reach_both_networks() -> None:
    spec = DataSpec("t", (2,), 4, classes=("a", "b"))
    model = GAN(spec, latent=2, hidden=6, layers=1, conditional=True).eval()
    z, labels = model.latents(Noise(0), 1).repeat(2, 1), torch.tensor([0, 1])
    first, second = model.generate(z, labels).detach()
    assert not torch.equal(first, second)
    logits = model.adversary()(first.repeat(2, 1), labels).detach()
    assert float(logits[0]) != float(logits[1])
