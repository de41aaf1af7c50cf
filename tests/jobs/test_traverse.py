"""Pictures of codes: what moves is what was to move, and the command writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from likely import models
from likely.ask import interpolate, walk
from likely.cli import main
from likely.data.made import digits
from likely.data.spec import Dataset, DataSpec, digest_of
from likely.density.codes import slerp
from likely.errors import InvalidSetting, Unanswerable
from likely.evaluate.likelihood import latent_diagnostics
from likely.files.sheets import animation
from likely.jobs.codes import traverse
from likely.models.autoencoder.autoencoder import Autoencoder
from likely.models.vae.vae import VAE

SPEC = DataSpec("pairs", (1, 1, 3), 256, n=200)


class Transparent(Autoencoder):
    """Its code is the picture, in levels."""

    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return x.flatten(1).float()

    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return z.round().clamp(0, 255).long().reshape(-1, 1, 1, 3)


def pairs() -> Dataset:
    """Three values; the factor is the second one, in other units."""
    generator = np.random.default_rng(0)
    spread = np.array([5, 30, 10])
    values = np.rint(128 + spread * generator.normal(size=(200, 3))).clip(0, 255).astype(np.uint8)
    spec = DataSpec("pairs", (1, 1, 3), 256, n=200, digest=digest_of(values.reshape(200, 1, 1, 3)))
    factors = {"height": values[:, 1] / 10.0}
    smiling = {"smiling": values[:, 2] > 128}
    return Dataset(spec, values.reshape(200, 1, 1, 3), attributes=smiling, factors=factors)


def transparent() -> Transparent:
    return Transparent(SPEC, models.AutoencoderSettings(latent=3, network="dense", hidden=4)).eval()


def test_a_unit_moves_over_the_range_of_its_codes_and_the_others_stay() -> None:
    model, data = transparent(), pairs()
    codes = traverse.codes_of(model, data)
    assert codes.order == [1, 2, 0]  # by variance
    assert codes.unit == "variance"
    images = traverse.traversal(model, codes, [1, 0], example=7, steps=5, reach=2.0)
    assert images.shape == (2, 5, 1, 1, 3)
    rows = images.reshape(2, 5, 3).float()
    start = torch.from_numpy(data.values[7].astype(np.float32)).flatten()
    assert bool((rows[0][:, [0, 2]] == start[[0, 2]]).all())
    assert bool((rows[1][:, [1, 2]] == start[[1, 2]]).all())
    mean, spread = codes.z.mean(0), codes.z.std(0, correction=0)
    wanted = mean[1] + torch.linspace(-2, 2, 5) * spread[1]
    assert float((rows[0, :, 1] - wanted).abs().max()) <= 0.5
    with pytest.raises(InvalidSetting, match=r"unit must be in \[0, 3\), given 3"):
        traverse.traversal(model, codes, [3])
    with pytest.raises(InvalidSetting, match="example must be"):
        traverse.traversal(model, codes, [0], example=200)


def test_units_are_ordered_by_their_kl_only_where_that_is_known() -> None:
    train, _ = digits()
    small = {"latent": 3, "network": "dense", "hidden": 4, "layers": 1}
    for changes, measure in (
        ({}, "KL to N(0, 1), nats"),
        ({"prior": "flow"}, "variance of the codes"),
        ({"prior": "vamp"}, "variance of the codes"),
        ({"posterior": "iaf"}, "variance of the codes"),
    ):
        codes = traverse.codes_of(models.VAE(train.spec, **small, **changes).eval(), train, 40)
        assert codes.measure == measure, changes
        assert (codes.unit == "nats") == measure.startswith("KL")


def test_units_of_a_hierarchy_have_a_kl_each_that_sum_to_the_rate() -> None:
    train, _ = digits()
    torch.manual_seed(0)
    model = models.HierarchicalVAE(train.spec, layers=2, latent=1, channels=4).eval()
    codes = traverse.codes_of(model, train, 200)
    assert codes.measure == "KL to the prior given the layers above, nats"
    assert codes.strength.shape == (model.latent,)
    rate = latent_diagnostics(model, codes.data).rate
    total = float(codes.strength.sum())
    assert total == pytest.approx(rate.value, abs=6 * rate.standard_error + 1e-3)


def test_a_direction_is_that_of_the_factor() -> None:
    model, codes = transparent(), traverse.codes_of(transparent(), pairs())
    towards = traverse.direction(codes, "height")
    assert float(towards[1]) == pytest.approx(float(codes.z[:, 1].std(correction=0)), rel=1e-4)
    assert float(towards[[0, 2]].abs().max()) < 5.0
    smile = traverse.direction(codes, "smiling")
    assert int(smile.abs().argmax()) == 2
    images = traverse.along(model, codes, "height", [0, 3], steps=3)
    assert images.shape == (2, 3, 1, 1, 3)
    heights = images[..., 1].flatten(1)
    assert bool((heights.diff(dim=1) > 0).all())
    with pytest.raises(InvalidSetting, match='no attribute "hight": did you mean'):
        traverse.direction(codes, "hight")


def test_the_manifold_is_even_in_probability() -> None:
    model = VAE(SPEC, models.VAESettings(latent=2, network="dense", hidden=4, layers=1)).eval()
    seen = []

    def decode(z: Tensor, context: Tensor | None = None) -> Tensor:
        seen.append(z)
        return torch.zeros(len(z), 1, 1, 3, dtype=torch.int64)

    model.decode = decode  # type: ignore[method-assign]
    codes = traverse.codes_of(model, pairs())
    assert traverse.manifold(model, codes, side=5).shape == (5, 5, 1, 1, 3)
    grid = seen[0].reshape(5, 5, 2)
    share = torch.special.ndtr(grid)
    wanted = torch.linspace(traverse.RIM, 1 - traverse.RIM, 5)
    torch.testing.assert_close(share[2, :, 0], wanted)  # to the right
    torch.testing.assert_close(share[:, 2, 1], wanted.flip(0))  # upwards
    with pytest.raises(InvalidSetting, match="--latent 2"):
        traverse.manifold(transparent(), traverse.codes_of(transparent(), pairs()))


def test_an_arc_keeps_the_norm() -> None:
    first = torch.tensor([[3.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    last = torch.tensor([[0.0, 5.0], [-1.0, 0.0], [2.0, 2.0]])
    assert torch.allclose(slerp(first, last, 0.0), first, atol=1e-5)
    assert torch.allclose(slerp(first, last, 1.0), last, atol=1e-5)
    half = slerp(first, last, 0.5)
    assert torch.allclose(half[0], 4.0 * torch.tensor([0.5, 0.5]).sqrt(), atol=1e-5)
    assert torch.allclose(half[1:], first[1:].lerp(last[1:], 0.5))  # no arc: the line
    x = torch.from_numpy(pairs().values[:4].astype(np.int64))
    around = transparent().interpolate((x[:2], x[2:]), 3, spherical=True)
    assert torch.equal(around[:, [0, -1]].transpose(0, 1), torch.stack([x[:2], x[2:]]))


@pytest.mark.parametrize("sizes", [(1, 3), (3, 1), (2, 3)])
def test_ends_of_unequal_number_are_refused(sizes: tuple[int, int]) -> None:
    x = torch.from_numpy(pairs().values[:6].astype(np.int64))
    ends = x[: sizes[0]], x[3 : 3 + sizes[1]]
    for model in (
        transparent(),
        VAE(SPEC, models.VAESettings(latent=2, network="dense", hidden=4, layers=1)),
    ):
        for ask in (interpolate, walk):
            with pytest.raises(InvalidSetting, match=f"given {sizes[0]} and {sizes[1]}"):
                ask(model, ends, 3)


def test_components_stand_for_codes_of_many_units() -> None:
    codes = traverse.codes_of(transparent(), pairs())
    points, words = traverse.plane(codes)
    assert points.shape == (200, 2)
    assert "97% of the variance" in words or "98% of the variance" in words
    assert abs(np.corrcoef(points[:, 0], codes.z[:, 1].numpy())[0, 1]) > 0.99


def test_a_model_without_an_encoder_is_refused() -> None:
    train, _ = digits()
    with pytest.raises(Unanswerable, match="no latent variables"):
        traverse.with_encoder(models.NADE(train.spec, hidden=4))


def test_an_animation_has_its_frames(tmp_path: Path) -> None:
    frames = [torch.full((4, 1, 8, 8), level) for level in (0, 5, 16)]
    path = tmp_path / "a.gif"
    path.write_bytes(animation(frames, 17))
    with Image.open(path) as image:
        assert (image.format, image.n_frames) == ("GIF", 3)  # type: ignore[attr-defined]


def test_the_command_writes_the_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    words = "--data digits --latent 2 --network dense --hidden 8 --layers 1 --steps 5"
    assert main(["fit", "vae", *words.split(), "--out", str(run)]) == 0
    capsys.readouterr()
    assert main(["traverse", str(run), "--units", "1", "--steps", "3"]) == 0
    assert "KL to N(0, 1), nats" in capsys.readouterr().out
    for name in (
        "traversal.png",
        "traversal.gif",
        "interpolation.png",
        "manifold.png",
        "codes.png",
    ):
        assert (run / "samples" / name).stat().st_size > 200
    for words, least, most in (
        (["traverse", "--steps"], 2, 200),
        (["walk", "--steps"], 3, 1000),
        (["walk", "--loops"], 1, 100),
    ):
        command, option = words
        assert main([command, str(run), option, "100000"]) == 2
        error = capsys.readouterr().err
        assert f'{option}: expected a whole number from {least} to {most}, given "100000"' in error
    assert main(["traverse", str(run), "--units", "one"]) == 2
    assert "as 0,3,7" in capsys.readouterr().err
    assert main(["traverse", str(run), "--attribute", "size"]) == 2
    assert "neither factors nor attributes" in capsys.readouterr().err
