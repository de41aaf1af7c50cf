"""Flow on data: the density of real numbers, its bound on integers, planted defects."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import likely
from likely.data.spec import Dataset, DataSpec, digest_of
from likely.models.flow.flow import Flow
from likely.models.flow.settings import FlowSettings
from likely.noise import Noise
from likely.verify import verify

PAIR = DataSpec("pair", (1, 1, 2), 3)
IMAGE = DataSpec("image", (1, 4, 4), 4)


def built(spec: DataSpec, transform: str = "coupling", kind: type[Flow] = Flow) -> Flow:
    model = kind(spec, FlowSettings(transform, layers=2, hidden=8))  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.double().eval().requires_grad_(False)


@pytest.mark.parametrize("transform", ["coupling", "autoregressive"])
def test_bounds_lie_below_the_probability_of_a_cell_and_rise(transform: str) -> None:
    model = built(PAIR, transform)
    line = (torch.arange(60, dtype=torch.float64) + 0.5) / 60
    u = torch.cartesian_prod(line, line).reshape(-1, 1, 1, 2)
    x = torch.tensor([[[[0, 2]]], [[[1, 1]]]])
    exact = [float(model.log_density(one + u).exp().mean().log()) for one in x]
    wide = x.repeat(4000, 1, 1, 1)
    means = [model.importance_bound(wide, k, Noise(k)).view(4000, 2).mean(0) for k in (1, 4, 16)]
    for column in range(2):
        values = [float(mean[column]) for mean in means]
        assert values == sorted(values)
        assert values[-1] <= exact[column] + 0.01
    # The mean of the weights is the probability of the cell itself.
    weights = model.elbo(wide, Noise("w")).exp().view(4000, 2)
    error = weights.std(0) / math.sqrt(4000)
    assert bool(((weights.mean(0) - torch.tensor(exact).exp()).abs() < 5 * error).all())


@pytest.mark.parametrize("transform", ["coupling", "autoregressive"])
def test_right_flows_pass(transform: str) -> None:
    for quick in (True, False):
        proofs = verify(built(IMAGE, transform), quick=quick)
        assert proofs.passed, str(proofs)


class WithoutLogit(Flow):
    """The determinant of the logit is forgotten."""

    def log_density(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        return self.density.log_prob(self._logit(y.flatten(1))[0])


class WithoutLevels(Flow):
    """The density of y / levels is taken for that of y."""

    def log_density(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        return super().log_density(y) + self.spec.dimensions * math.log(self.spec.levels)


@pytest.mark.parametrize("kind", [WithoutLogit, WithoutLevels])
def test_planted_defects_are_caught(kind: type[Flow]) -> None:
    assert not verify(built(IMAGE, kind=kind), quick=True)["samples follow the density"].passed


def test_a_fit_starts_at_the_data_and_lowers_the_bound() -> None:
    random = np.random.Generator(np.random.Philox(0))
    values = np.clip(random.normal(1.5, 0.4, (300, 1, 4, 4)).round(), 0, 3).astype(np.uint8)
    data = Dataset(DataSpec("t", (1, 4, 4), 4, n=300, digest=digest_of(values)), values)
    model = Flow(data.spec, FlowSettings(layers=2, hidden=8))
    before = likely.nats(model, data)
    likely.fit(model, data, steps=60, batch_size=50)
    after = likely.nats(model, data)
    assert after.relation.value == "<="
    assert after.value < before.value
