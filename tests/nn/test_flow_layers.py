"""Invertible maps: inverses, determinants, densities that integrate to one."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from likely.density import DiagonalGaussian
from likely.nn.flow import (
    ActNorm,
    AffineCoupling,
    Bijection,
    Chain,
    FlowDensity,
    FlowPosterior,
    InvertibleLinear,
    MaskedAffine,
    autoregressive_flow,
    coupling_flow,
    dense_network,
)
from likely.noise import Noise, weights_from

Build = Callable[[int], Bijection]
MAPS: dict[str, Build] = {
    "coupling": lambda d: AffineCoupling((torch.arange(d) % 2).float(), dense_network(d, 8)),
    "actnorm": lambda d: ActNorm((d,)),
    "dense": InvertibleLinear,
    "masked": lambda d: MaskedAffine(d, 8),
    "RealNVP": lambda d: coupling_flow(d, 4, 8),
    "MAF": lambda d: autoregressive_flow(d, 3, 8),
}


def lively(bijection: Bijection) -> Bijection:
    generator = torch.Generator().manual_seed(0)
    for parameter in bijection.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return bijection.double().requires_grad_(False)


def drawn(*shape: int) -> Tensor:
    return Noise("flow").normal(*shape, dtype=torch.float64)


def by_autograd(bijection: Bijection, z: Tensor) -> Tensor:
    """log |det Jacobian| at each z, [B]."""
    jacobians = [torch.autograd.functional.jacobian(lambda v: bijection(v)[0], row) for row in z]
    return torch.stack([torch.linalg.slogdet(jacobian)[1] for jacobian in jacobians])


@pytest.mark.parametrize("dimensions", [1, 2, 5])
@pytest.mark.parametrize("name", MAPS)
def test_a_map_is_inverted_and_its_determinant_is_that_of_its_jacobian(
    name: str, dimensions: int
) -> None:
    bijection = lively(MAPS[name](dimensions))
    z = drawn(6, dimensions)
    u, log_det = bijection(z)
    back, log_det_back = bijection.inverse(u)
    torch.testing.assert_close(back, z, rtol=0, atol=1e-10)
    torch.testing.assert_close(log_det.expand(6), -log_det_back.expand(6), rtol=0, atol=1e-10)
    torch.testing.assert_close(log_det.expand(6), by_autograd(bijection, z), rtol=0, atol=1e-10)
    assert not torch.allclose(u, z)


@pytest.mark.parametrize("name", ["RealNVP", "MAF"])
def test_several_draws_of_each_example_pass_at_once(name: str) -> None:
    flow, z = lively(MAPS[name](3)), drawn(2, 4, 3)
    u, log_det = flow(z)
    one_by_one = [flow(row) for row in z.flatten(0, 1)]
    torch.testing.assert_close(u.flatten(0, 1), torch.stack([row for row, _ in one_by_one]))
    torch.testing.assert_close(log_det.flatten(), torch.stack([det for _, det in one_by_one]))


def test_a_masked_map_is_triangular_and_reaches_every_earlier_coordinate() -> None:
    jacobian = torch.autograd.functional.jacobian(
        lambda v: lively(MaskedAffine(5, 16))(v)[0], drawn(5)
    )
    assert bool((jacobian.triu(1) == 0).all())
    assert bool((jacobian.tril() != 0).sum() == 15)


def test_actnorm_starts_at_mean_zero_and_variance_one() -> None:
    for shape in ((4,), (3, 2, 2)):
        layer = ActNorm(shape).double()
        z = 3.0 * drawn(500, *shape) + 2.0
        layer.start_at(z)
        each = layer(z)[0].movedim(1, 0).flatten(1)
        torch.testing.assert_close(each.mean(1), torch.zeros(shape[0]).double(), rtol=0, atol=1e-9)
        torch.testing.assert_close(each.std(1, correction=0), torch.ones(shape[0]).double())


def test_a_chain_starts_each_map_at_what_reaches_it() -> None:
    flow = lively(coupling_flow(3, 2, 8))
    z = 5.0 * drawn(400, 3) - 1.0
    flow.start_at(z)
    torch.testing.assert_close(flow(z)[0].mean(0), torch.zeros(3).double(), rtol=0, atol=1e-9)


class WithoutDeterminant(Bijection):
    """Doubles, and forgets to say so."""

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return 2 * z, z.new_zeros(())

    def inverse(self, u: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return u / 2, u.new_zeros(())


def mass(density: FlowDensity, points: int = 801) -> float:
    """The integral over a square of 14 standard deviations each way, by the trapezoidal rule."""
    z = density.sample(Noise("grid"), 2000, torch.float64)
    line = torch.linspace(-14, 14, points, dtype=torch.float64)
    grid = z.mean(0) + z.std(0) * torch.cartesian_prod(line, line)
    step = float(line[1] - line[0])
    return float(density.log_prob(grid).exp().sum()) * step**2 * float(z.std(0).prod())


@pytest.mark.parametrize("name", ["RealNVP", "MAF"])
def test_the_density_integrates_to_one_and_samples_follow_it(name: str) -> None:
    with weights_from(0):
        density = FlowDensity(lively(MAPS[name](2)), 2)
    assert mass(density) == pytest.approx(1.0, abs=1e-3)
    # The share of samples in a box of two standard deviations is the density's integral there.
    z = density.sample(Noise("samples"), 20_000, torch.float64)
    centre, spread = z.mean(0), z.std(0)
    share = float(((z - centre).abs() < spread).all(1).double().mean())
    line = (torch.arange(400, dtype=torch.float64) + 0.5) / 200 - 1
    log_p = density.log_prob(centre + spread * torch.cartesian_prod(line, line))
    expected = float(log_p.exp().mean() * 4 * spread.prod())
    assert abs(share - expected) < 5 * math.sqrt(expected * (1 - expected) / 20_000)


def test_a_forgotten_determinant_is_caught() -> None:
    wrong = Chain([coupling_flow(2, 2, 8), WithoutDeterminant()])
    assert abs(mass(FlowDensity(lively(wrong), 2)) - 1.0) > 0.5
    z = drawn(3, 2)
    assert float((wrong(z)[1] - by_autograd(wrong, z)).abs().min()) > 1.0


def test_an_inverse_autoregressive_posterior_is_a_density() -> None:
    """Drawn with its log density in one pass; inverted, the density is the same."""
    base = DiagonalGaussian(drawn(3, 4), 0.3 * drawn(3, 4))
    flow = lively(autoregressive_flow(4, 2, 8, context=5))
    q = FlowPosterior(base, flow, drawn(3, 5))
    z, log_q = q.draw(drawn(3, 4))
    torch.testing.assert_close(q.log_prob(z), log_q, rtol=0, atol=1e-10)
    assert torch.equal(q.sample(drawn(3, 4)), z)
    several, log_several = q.unsqueezed().draw(drawn(3, 7, 4))
    assert several.shape == (3, 7, 4)
    torch.testing.assert_close(q.unsqueezed().log_prob(several), log_several)
    changed = FlowPosterior(base, flow, drawn(3, 5) + 1.0)
    assert bool((changed.sample(drawn(3, 4)) != z).all())


def test_every_weight_has_a_gradient_from_the_start() -> None:
    for flow in (coupling_flow(4, 2, 8), autoregressive_flow(4, 2, 8)):
        assert isinstance(flow, nn.Module)
        FlowDensity(flow, 4).log_prob(torch.randn(5, 4)).sum().backward()
        assert all(bool(p.grad.any()) for p in flow.parameters() if p.grad is not None)
        assert all(p.grad is not None for p in flow.parameters())
