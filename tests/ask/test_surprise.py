"""Surprise: nats of each dimension beside their mean and variance under the model."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from likely import runs
from likely.data.spec import DataSpec
from likely.density import Autoregressive
from likely.density import chain as chain_rule

SIZES: dict[str, dict[str, int]] = {
    "pixelcnn": {"channels": 6, "layers": 2, "first_kernel": 3, "head_channels": 12},
    "nade": {"hidden": 4},
    "fvsbn": {},
}


def model_of(name: str, spec: DataSpec) -> Autoregressive:
    torch.manual_seed(0)
    model = runs.build(name, spec, SIZES[name]).double().eval()
    assert isinstance(model, Autoregressive)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def all_images(spec: DataSpec) -> Tensor:
    sides = spec.shape
    count = sides[0] * sides[1] * sides[2]
    return torch.tensor(list(itertools.product(range(spec.levels), repeat=count))).view(-1, *sides)


@pytest.mark.parametrize("name", ["pixelcnn", "nade"])
def test_means_and_variances_are_those_of_the_model(name: str) -> None:
    """Over every image, weighed by p(x): E nats = E entropy, Var(nats - entropy) = E variance."""
    model = model_of(name, DataSpec("toy", (1, 2, 3), 3))
    x = all_images(model.spec)
    log_p = model.log_prob(x)
    weight = log_p.exp()
    told = model.surprise(x)
    assert torch.allclose(told.nats.flatten(1).sum(1), -log_p, atol=1e-9)
    excess = told.nats - told.entropy
    mean = (weight[:, None, None, None] * excess).sum(0)
    assert mean.abs().max() < 1e-6
    spread = (weight * excess.flatten(1).sum(1).square()).sum()
    expected = (weight * told.variance.flatten(1).sum(1)).sum()
    assert torch.allclose(spread, expected, rtol=1e-6)


def test_parts_of_a_table_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("pixelcnn", DataSpec("toy", (3, 4, 5), 256))
    x = torch.randint(256, (3, 3, 4, 5))
    whole = model.surprise(x)
    assert torch.allclose(whole.nats.flatten(1).sum(1), -model.log_prob(x), atol=1e-8)
    monkeypatch.setattr(chain_rule, "TABLE", 256 * 5 * 2)
    for part, all_of_it in zip(model.surprise(x), whole, strict=True):
        assert torch.allclose(part, all_of_it)


def test_draws_of_the_model_have_z_of_zero_mean_and_unit_variance() -> None:
    model = model_of("fvsbn", DataSpec("toy", (1, 6, 6), 2))
    z = model.surprise(model.sample(2000, seed=1)).z
    assert abs(float(z.mean())) < 4 / 2000**0.5
    assert float(z.std()) == pytest.approx(1.0, abs=0.08)
    noise = model.surprise(torch.randint(2, (500, 1, 6, 6))).z
    assert float(noise.mean()) > 0.5
