"""MADE: degrees and masks, weights that masks never touch, an order of its own; defects."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

import planted_made as planted
from likely.data.spec import DataSpec
from likely.errors import InvalidSetting, Unanswerable
from likely.heads import log_likelihood
from likely.models.vectors.made import MADE, MADEEnsemble, hidden_degrees
from likely.models.vectors.settings import MADEEnsembleSettings, MADESettings
from likely.noise import Noise
from likely.sampling.ancestral import ancestral
from likely.verify import verify
from planted_models import COLOUR, GREY, lively

SMALL = MADESettings(hidden=40, layers=2, masks=3, components=2)


def built(spec: DataSpec = GREY, kind: type[MADE] = MADE, **changes: object) -> MADE:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = lively(kind(spec, dataclasses.replace(SMALL, **changes)).double().eval())  # type: ignore[arg-type]
    assert isinstance(model, MADE)
    return model


def images(spec: DataSpec, n: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(spec.levels, (n, *spec.shape), generator=generator)


def test_the_masks_are_those_of_the_paper() -> None:
    """Equations 12 and 13, unit by unit."""
    model = built()
    of_units = model.of_units(model.rank)
    below = of_units.tolist()
    for mask in range(3):
        for layer, weight in enumerate(model.masked_weights(mask, of_units)):
            above = model.degrees[mask, layer].tolist()
            for k, m in enumerate(above):
                assert [bool(w != 0) for w in weight[k]] == [m >= d for d in below]
            below = above
        output = model.masked_output(mask, of_units)
        for d in range(25):
            assert [bool(w != 0) for w in output[d]] == [d + 1 > m for m in below]
        below = of_units.tolist()
    direct = model.masked_direct(of_units)
    assert direct is not None
    assert torch.equal(direct != 0, torch.ones(25, 25).tril(-1).bool())


@pytest.mark.parametrize(("hidden", "count"), [(40, 25), (8, 25), (5, 2), (3, 1)])
def test_degrees_are_spread_and_none_is_useless(hidden: int, count: int) -> None:
    degrees = hidden_degrees(4, 3, hidden, count)
    assert degrees.min() >= 1
    assert degrees.max() <= max(1, count - 1)
    for mask in degrees:
        for below, above in itertools.pairwise(mask):
            assert above.min() >= below.min()
        if hidden >= count - 1:
            assert set(np.arange(1, count)) <= set(mask[0])
    if count > 2:
        assert not np.array_equal(degrees[0], degrees[1])


def test_under_the_prior_a_hidden_unit_has_the_degree_of_its_pixel() -> None:
    model = built(prior="local", hidden=75, masks=1, order="random")
    degree = (model.rank.flatten() + 1).tolist()
    for layer in model.degrees[0]:
        assert layer.tolist() == [min(degree[k // 3], 24) for k in range(75)]
    assert verify(model, quick=True).passed
    # Every part at one standard deviation: what is left is the fall with distance.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    weights = model.masked_weights(0, model.of_units(model.rank))[0].reshape(25, 3, 25)
    for home, pixel in itertools.product(range(25), range(25)):
        distance = math.dist(divmod(home, 5), divmod(pixel, 5))
        seen = degree[pixel] <= min(degree[home], 24)
        expected = torch.full((3,), seen * 1.5 / (1 + distance / 2), dtype=torch.float64)
        torch.testing.assert_close(weights[home, :, pixel], expected, rtol=1e-6, atol=0)


def test_the_prior_has_one_mask_and_equally_many_hidden_units_a_pixel() -> None:
    assert MADE(GREY, MADESettings(hidden=30, prior="local")).degrees.shape == (1, 2, 50)
    with pytest.raises(InvalidSetting, match="one mask, given masks=2"):
        MADESettings(masks=2, prior="local")


def test_rotating_the_masks_leaves_the_weights_alone() -> None:
    model = built().train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    values = []
    for seed in range(12):
        noise = Noise(seed)
        again = [float(model.surrogate(images(GREY), noise).detach().sum()) for _ in range(2)]
        assert again[0] == again[1]  # one choice for all calls with a noise
        values.append((model.choices(noise), again[0]))
    assert len(set(values)) == len({choice for choice, _ in values}) == 3  # one for each mask
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


def test_a_surrogate_of_one_mask_as_the_noise_decides_and_a_density_of_all() -> None:
    model, x = built(), images(GREY)
    inputs, of_units = model.units.split(x, torch.float64).flatten(1), model.of_units(model.rank)
    each = [model.outputs(inputs, mask, None, of_units) for mask in range(3)]
    mean = torch.stack(each).mean(0).reshape(3, 25, 1) + model.bias
    torch.testing.assert_close(model.conditionals(x), model.units.join(mean))
    model.train()
    drawn = []
    for seed in range(8):
        # A part of the batch chooses what the whole batch does.
        for rows in (None, (0, 6), (3, 6)):
            drawn.append(model.surrogate(x, Noise(seed, rows=rows)))
        assert torch.equal(drawn[-1], drawn[-2])
        assert torch.equal(drawn[-1], drawn[-3])
    assert len({float(d.detach().sum()) for d in drawn}) > 1


@pytest.mark.parametrize("spec", [GREY, COLOUR, DataSpec("t", (3, 3, 3), 256)])
def test_another_order_is_proven_sampled_and_completed(spec: DataSpec) -> None:
    model = built(spec, order="random")
    assert sorted(model.rank.flatten().tolist()) == list(range(spec.shape[1] * spec.shape[2]))
    assert not model.is_raster
    proofs = verify(model, quick=True)
    assert proofs.passed, str(proofs)
    # The naive loop, the incremental sampler and `sample` draw the same integers.
    x = model.sample(4, seed=5, chunk=4)
    uniform = Noise(5, "sample", 0).uniform(4, *spec.shape)
    for method in ("naive", "incremental", "jacobi"):
        drawn = ancestral(model, uniform, torch.zeros_like(x), 0, None, method)  # type: ignore[arg-type]
        assert torch.equal(drawn, x)
    # What comes first in the order may be given; the upper rows do not come first.
    observed = model.rank < 4
    done = model.complete(x, observed, seed=1)
    assert torch.equal(done[:, :, observed], x[:, :, observed])
    assert not torch.equal(done, x)
    observed = torch.zeros(spec.shape[1:], dtype=torch.bool)
    observed[:1] = True
    with pytest.raises(Unanswerable, match="own order"):
        model.complete(x, observed, method="exact")


@pytest.mark.parametrize(
    ("kind", "caught_by", "changes"),
    [
        (planted.OutputNotStrict, {"no self leak", "unchanged by the future"}, {}),
        (planted.MaskWritten, {"examples do not couple (evaluation)"}, {}),
        (planted.DegreesWrap, {"no future leak", "unchanged by the future"}, {}),
        (planted.DirectDiagonal, {"no self leak"}, {}),
        (planted.OneMaskSampler, {"the sampler follows the conditionals"}, {}),
        (planted.RasterSampler, {"no future leak"}, {"order": "random"}),
    ],
)
def test_planted_defects_are_caught(
    kind: type[MADE], caught_by: set[str], changes: dict[str, object]
) -> None:
    proofs = verify(built(kind=kind, **changes), quick=True)
    assert caught_by <= {proof.name for proof in proofs.failed}, str(proofs)
    assert verify(built(**changes), quick=True).passed


def test_an_ensemble_of_orders_shares_the_weights_and_mixes_the_densities() -> None:
    settings = MADEEnsembleSettings(orders=3, hidden=30, masks=2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = lively(MADEEnsemble(GREY, settings).double().eval())
    assert isinstance(model, MADEEnsemble)
    members, x = model.members(), images(GREY)
    assert len({tuple(m.rank.flatten().tolist()) for m in members}) == 3
    each = torch.stack([member.log_prob(x) for member in members])
    torch.testing.assert_close(model.log_prob(x), each.logsumexp(0) - math.log(3))
    assert verify(model, quick=True).passed
    # One order a step while it is trained, and the weights stay as they are.
    before = {name: t.clone() for name, t in model.state_dict().items()}
    drawn = [model.train().surrogate(x, Noise(seed)) for seed in range(24)]
    alone = [
        log_likelihood(model.head, model.network.conditionals(x, None, rank, mask), x)
        for rank in model.ranks
        for mask in range(2)
    ]
    for value in drawn:
        assert any(torch.allclose(value, expected) for expected in alone)
    assert len({float(value.detach().sum()) for value in drawn}) == 6
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


def test_a_member_with_the_masks_of_another_order_is_caught() -> None:
    settings = MADEEnsembleSettings(orders=2, hidden=30)
    proofs = verify(lively(planted.OrderWithoutMasks(GREY, settings)), quick=True)  # type: ignore[arg-type]
    assert "no future leak (member 0)" in {proof.name for proof in proofs.failed}
