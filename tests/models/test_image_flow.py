"""Flow on images: maps, densities of a start without training, dequantisers, planted defects."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import likely
from likely.data.spec import Dataset, DataSpec
from likely.errors import InvalidSetting
from likely.models.flow import image_flow as module
from likely.models.flow.image_flow import MARGIN, ImageFlow, VariationalDequantizer
from likely.models.flow.settings import ImageFlowSettings
from likely.nn.image_flow import ChannelMix, MultiScale, Squeeze
from likely.noise import Noise
from likely.verify import verify
from likely.verify.flow import cell_grid
from toy_data import dataset

PAIR = DataSpec("pair", (1, 1, 2), 3)
IMAGE = DataSpec("image", (1, 4, 4), 4)
SMALL = ImageFlowSettings(scales=2, couplings=2, channels=6, dequantizer_couplings=2)
UNIFORM = ImageFlowSettings("uniform", scales=2, couplings=2, channels=6)


def lively(module: torch.nn.Module, scale: float = 0.2) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)


def built(
    spec: DataSpec, settings: ImageFlowSettings = SMALL, kind: type[ImageFlow] = ImageFlow
) -> ImageFlow:
    model = kind(spec, settings)
    lively(model)
    if spec.levels > 2:
        model.frequencies[:, 0] = 3.0
    return model.double().eval().requires_grad_(False)


@pytest.mark.parametrize("shape", [(1, 4, 4), (2, 4, 6), (3, 3, 2), (1, 3, 3), (2, 1, 1)])
def test_scales_are_inverted_and_their_determinant_is_that_of_the_jacobian(
    shape: tuple[int, int, int],
) -> None:
    flow = MultiScale(shape, 3, 3, 5, 1)
    lively(flow)
    flow.double().requires_grad_(False)
    z = Noise("z").normal(2, *shape, dtype=torch.float64)
    u, log_det = flow(z)
    assert u.shape == (2, math.prod(shape))
    back, log_det_back = flow.inverse(u)
    torch.testing.assert_close(back, z, atol=1e-8, rtol=0)
    torch.testing.assert_close(log_det_back, -log_det)
    for row, value in zip(z, log_det, strict=True):
        slopes = torch.autograd.functional.jacobian(lambda v: flow(v[None])[0][0], row)
        expected = torch.linalg.slogdet(slopes.reshape(row.numel(), -1))[1]
        torch.testing.assert_close(value, expected)


def test_in_float32_the_inverse_is_one_to_1e_5() -> None:
    flow = MultiScale((1, 8, 8), 3, 4, 8, 1)
    lively(flow, 0.03)
    z = Noise("z").normal(4, 1, 8, 8)
    with torch.no_grad():
        assert float((flow.inverse(flow(z)[0])[0] - z).abs().max()) < 1e-5


def test_a_squeeze_makes_blocks_to_channels() -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    blocks, _ = Squeeze(2, 2)(x)
    assert blocks[0, :, 0, 0].tolist() == [0.0, 1.0, 4.0, 5.0]
    assert torch.equal(blocks, torch.nn.functional.pixel_unshuffle(x, 2))
    assert torch.equal(Squeeze(2, 2).inverse(blocks)[0], x)
    wide, _ = Squeeze(1, 2)(x)
    assert wide.shape == (1, 2, 4, 2)


def cells(model: ImageFlow, x: Tensor) -> Tensor:
    """log of the integral of the density over the cell of each image of two pixels."""
    u, weight = cell_grid()
    each = [(model.log_density(image + u).exp() * weight).sum().log() for image in x]
    return torch.stack(each)


def test_the_density_of_two_pixels_integrates_to_one() -> None:
    model = built(PAIR)
    everything = torch.cartesian_prod(torch.arange(3), torch.arange(3)).reshape(-1, 1, 1, 2)
    mass = float(cells(model, everything).exp().sum())
    # The rest lies beyond the ends of F.
    t = model.density.sample(Noise("t"), 20_000, torch.float64)
    last = float(torch.special.ndtri(torch.tensor(1 - MARGIN, dtype=torch.float64)))
    inside = float((t.abs() < last).flatten(1).all(1).double().mean())
    assert mass == pytest.approx(inside, abs=5 * math.sqrt(mass * (1 - mass) / 20_000))


@pytest.mark.parametrize("settings", [SMALL, UNIFORM])
def test_bounds_lie_below_the_probability_of_a_cell_and_rise(settings: ImageFlowSettings) -> None:
    model = built(PAIR, settings)
    x = torch.tensor([[[[0, 2]]], [[[1, 1]]]])
    exact = cells(model, x)
    wide = x.repeat(4000, 1, 1, 1)
    means = [model.importance_bound(wide, k, Noise(k)).view(4000, 2).mean(0) for k in (1, 4, 16)]
    for column in range(2):
        values = [float(mean[column]) for mean in means]
        assert values == sorted(values)
        assert values[-1] <= float(exact[column]) + 0.01
    # The mean of the weights is the probability of the cell itself, whatever the dequantiser.
    weights = model.elbo(wide, Noise("w")).exp().view(4000, 2)
    error = weights.std(0) / math.sqrt(4000)
    assert bool(((weights.mean(0) - exact.exp()).abs() < 5 * error).all())


def test_the_dequantiser_is_a_density_on_the_cube() -> None:
    dequantizer = VariationalDequantizer(PAIR, 2, 6, 1)
    lively(dequantizer)
    dequantizer.double().requires_grad_(False)
    x = torch.tensor([[[[0, 2]]]]).repeat(20_000, 1, 1, 1)
    u, log_q = dequantizer.draw(x, Noise("u"), torch.float64)
    assert 0.0 < float(u.min()) < float(u.max()) < 1.0
    volume = (-log_q).exp()  # its mean is the volume of the cube
    assert abs(float(volume.mean()) - 1) < 5 * float(volume.std()) / math.sqrt(len(volume))
    other = dequantizer.draw(2 - x[:10], Noise("u"), torch.float64)[0]
    assert not torch.allclose(other, u[:10])


@pytest.mark.parametrize("settings", [SMALL, UNIFORM])
@pytest.mark.parametrize("spec", [IMAGE, DataSpec("colour", (3, 4, 4), 256)])
def test_right_flows_pass(settings: ImageFlowSettings, spec: DataSpec) -> None:
    proofs = verify(built(spec, settings), quick=spec is not IMAGE)
    assert proofs.passed, str(proofs)


class WithoutSlopes(ImageFlow):
    """The slopes of the first map are forgotten."""

    def log_density(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        return self.density.log_prob(self._normal(y)[0])


class CountedOnce(ChannelMix):
    """Its determinant counts once, not at every pixel."""

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mixed = self.mix(z.movedim(1, -1))[0].movedim(-1, 1)
        return mixed, self.mix.weight.diagonal().sum()


class Unmixed(ImageFlow):
    """The determinant of a 1 x 1 convolution counts once, not at every pixel."""

    def __init__(self, spec: DataSpec, settings: ImageFlowSettings | None = None) -> None:
        super().__init__(spec, settings)
        for layer in self.modules():
            if isinstance(layer, ChannelMix):
                layer.__class__ = CountedOnce


class Uncounted(VariationalDequantizer):
    """-log q(u | x) is forgotten."""

    def draw(self, x: Tensor, noise: Noise, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        u, log_q = super().draw(x, noise, dtype)
        return u, torch.zeros_like(log_q)


class Unsloped(VariationalDequantizer):
    """The slope of the sigmoid is forgotten in log q."""

    def draw(self, x: Tensor, noise: Noise, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        u, log_q = super().draw(x, noise, dtype)
        return u, log_q + (u * (1 - u)).log().flatten(1).sum(1)


def test_planted_defects_of_the_maps_are_caught() -> None:
    proofs = verify(built(IMAGE, kind=WithoutSlopes), quick=True)
    assert not proofs["samples follow the density"].passed
    proofs = verify(built(IMAGE, kind=Unmixed), quick=True)
    assert not proofs["the density's log-determinant is that of its Jacobian"].passed


@pytest.mark.parametrize("wrong", [Uncounted, Unsloped])
def test_planted_defects_of_the_dequantiser_are_caught(
    wrong: type[VariationalDequantizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "VariationalDequantizer", wrong)
    model = built(IMAGE)
    assert isinstance(model.variational, wrong)
    proofs = verify(model, quick=True)
    assert not proofs["the dequantiser's log q is that of its draw"].passed


def digits_like(n: int = 300) -> Dataset:
    random = np.random.Generator(np.random.Philox(0))
    ramp = np.linspace(0, 3, 4)[None, None, None]
    values = random.normal(ramp, 0.5, (n, 1, 4, 4)).round()
    return dataset(np.clip(values, 0, 3).astype(np.uint8), 4)


def test_it_starts_at_the_product_of_the_marginals() -> None:
    """Before training the bound is within a small fraction of independent values' entropy."""
    data = digits_like(2000)
    model = ImageFlow(data.spec, UNIFORM)
    model.start_at(data)
    # The flow itself starts as ActNorm alone: undone, F alone is left.
    for scale in model.density.flow.scales:
        for bijection in scale.maps:
            if hasattr(bijection, "log_scale"):
                bijection.log_scale.data.zero_()
                bijection.shift.data.zero_()
    for parameter in model.density.flow.parameters():
        if parameter.ndim == 4 or parameter.ndim == 1:
            parameter.data.zero_()
    shares = np.bincount(np.asarray(data.x).reshape(-1), minlength=4) + 1.0
    shares /= shares.sum()
    each = -np.log(shares)[np.asarray(data.x)].reshape(len(data), -1).sum(1)
    assert likely.nats(model, data).value == pytest.approx(each.mean(), abs=0.02)


@pytest.mark.parametrize("settings", [SMALL, UNIFORM])
def test_a_fit_lowers_the_bound(settings: ImageFlowSettings) -> None:
    data = digits_like()
    model = ImageFlow(data.spec, settings)
    before = likely.nats(model, data)
    likely.fit(model, data, steps=60, batch_size=50)
    after = likely.nats(model, data)
    assert after.relation.value == "<="
    assert after.value < before.value
    assert settings.dequantizer in after.about


def test_vectors_are_refused() -> None:
    with pytest.raises(InvalidSetting, match="takes images"):
        ImageFlow(DataSpec("vectors", (7,), 2))
