"""FVSBN: its regression, its triangle, its start; defects are caught."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import planted_vectors as planted
from likely.data.spec import Dataset, DataSpec, digest_of
from likely.models.vectors.fvsbn import FVSBN
from likely.models.vectors.settings import FVSBNSettings, Prior
from likely.settings import FitSettings
from likely.training.loop import fit
from likely.verify import verify
from planted_models import GREY, lively

COUPLED = DataSpec("coupled", (3, 3, 3), 256)


@pytest.mark.parametrize("prior", ["none", "local"])
def test_each_dimension_is_a_logistic_regression_on_those_before_it(prior: Prior) -> None:
    """The formula of 1998, term by term; without a prior, the stored triangle row by row."""
    settings = FVSBNSettings(prior=prior)
    model = lively(FVSBN(DataSpec("t", (1, 2, 3), 2), settings).double())
    assert isinstance(model, FVSBN)
    weight, place = model.matrix(6), 0
    x = torch.tensor([[1, 0, 1], [1, 1, 0]])[None, None]
    flat, total = x.flatten().double(), torch.tensor(0.0, dtype=torch.float64)
    for i in range(6):
        logit = model.bias[0, i, 0]
        assert not weight[i, i:].any()
        for j in range(i):
            logit = logit + weight[i, j] * flat[j]
            assert prior == "local" or weight[i, j] == model.weight[place, 0, 0]
            place += 1
        total = total + torch.log(torch.sigmoid(logit if flat[i] else -logit))
    torch.testing.assert_close(model.log_prob(x)[0], total, rtol=1e-12, atol=0)
    assert place == len(model.weight)


def test_it_starts_at_the_mean_of_the_data() -> None:
    random = np.random.Generator(np.random.Philox(0))
    chance = np.linspace(0.1, 0.9, 12).reshape(1, 3, 4)
    values = (random.random((2000, 1, 3, 4)) < chance).astype(np.uint8)
    spec = DataSpec("t", (1, 3, 4), 2, n=2000, digest=digest_of(values))
    model = FVSBN(spec)
    model.start_at(Dataset(spec, values))
    found = torch.sigmoid(model.conditionals(torch.zeros(1, 1, 3, 4, dtype=torch.int64)))
    assert np.abs(found[0].detach().numpy() - values.mean(0)).max() < 1e-6


@pytest.mark.parametrize("prior", ["none", "local"])
def test_the_fit_is_concave(prior: Prior) -> None:
    """Log-likelihood along a line between two settings of the weights lies above its chord."""
    settings = FVSBNSettings(prior=prior)
    a, b = (lively(FVSBN(GREY, settings).double(), seed) for seed in (1, 2))
    x = torch.randint(2, (8, *GREY.shape), generator=torch.Generator().manual_seed(0))
    middle = FVSBN(GREY, settings).double()
    with torch.no_grad():
        for m, p, q in zip(middle.parameters(), a.parameters(), b.parameters(), strict=True):
            m.copy_((p + q) / 2)
    ends = (a.log_prob(x) + b.log_prob(x)) / 2  # type: ignore[operator]
    assert bool((middle.log_prob(x) > ends).all())


def test_a_fit_under_the_prior_finds_the_maximum_a_posteriori() -> None:
    """There the gradients of the mean loss and of the prior, counted once for all, cancel."""
    random = np.random.Generator(np.random.Philox(0))
    chance = np.linspace(0.2, 0.8, 9).reshape(1, 3, 3)
    values = (random.random((40, 1, 3, 3)) < chance).astype(np.uint8)
    spec = DataSpec("t", (1, 3, 3), 2, n=40, digest=digest_of(values))
    model = FVSBN(spec, FVSBNSettings(prior="local"))
    fitted = FitSettings(
        steps=800, batch_size=40, micro_batches=4, learning_rate=0.05, schedule="linear",
        validate_every=800, clip=0.0, ema=0.0, device="cpu", precision="float32",
    )  # fmt: skip
    fit(model, Dataset(spec, values), settings=fitted)
    nll = -model.log_prob(torch.from_numpy(values).long()).mean()
    prior = model.negative_log_prior()
    assert prior is not None
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(nll, parameters, retain_graph=True)
    of_prior = torch.autograd.grad(prior / 40, parameters, allow_unused=True)
    largest = 0.0
    for gradient, other in zip(gradients, of_prior, strict=True):
        total = gradient if other is None else gradient + other
        assert float(total.abs().max()) < 1e-4
        largest = max(largest, float(gradient.abs().max()))
    assert largest > 1e-2  # without the prior this is no maximum


@pytest.mark.parametrize("levels", [2, 256])
def test_colour_counts_its_parameters(levels: int) -> None:
    """Bernoulli: each channel sees the channels before; a mixture couples them itself."""
    spec = DataSpec("t", (3, 2, 2), levels)
    model = FVSBN(spec, FVSBNSettings(components=2))
    units, inputs, outputs = (12, 1, 1) if levels == 2 else (4, 3, 2 * (1 + 3 + 3 + 3))
    expected = units * (units - 1) // 2 * inputs * outputs + units * outputs
    assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize(
    ("kind", "spec", "caught_by"),
    [
        (planted.TriangleWithDiagonal, GREY, {"no self leak", "unchanged by the future"}),
        (planted.TriangleTransposed, GREY, {"no future leak", "unchanged by the future"}),
        (planted.LateSampler, GREY, {"the sampler follows the conditionals"}),
        (planted.OneChannelSampler, COUPLED, {"the sampler follows the conditionals"}),
    ],
)
def test_planted_defects_are_caught(kind: type[FVSBN], spec: DataSpec, caught_by: set[str]) -> None:
    settings = FVSBNSettings(components=2)
    proofs = verify(lively(kind(spec, settings)), quick=True)  # type: ignore[arg-type]
    assert caught_by <= {proof.name for proof in proofs.failed}, str(proofs)
    assert verify(lively(FVSBN(spec, settings)), quick=True).passed  # type: ignore[arg-type]
