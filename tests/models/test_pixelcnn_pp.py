"""PixelCNN++: any size, every switch, its start, its sampler."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from likely import data, fit
from likely.data.spec import DataSpec
from likely.errors import InvalidSetting
from likely.models.pixelcnn.pixelcnn_pp import PixelCNNPP
from likely.models.pixelcnn.settings import PixelCNNPPSettings
from likely.noise import Noise
from likely.sampling.ancestral import ancestral
from likely.verify import verify

SMALL = PixelCNNPPSettings(channels=4, blocks=1, scales=2, components=2, dropout=0.2)
GREY = DataSpec("t", (1, 5, 4), 2)


def built(spec: DataSpec, **changes: object) -> PixelCNNPP:
    torch.manual_seed(0)
    model = PixelCNNPP(spec, dataclasses.replace(SMALL, **changes))  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model.double().eval()


@pytest.mark.parametrize(
    "changes",
    [
        {"scales": 3},
        {"resampling": "dilated"},
        {"resampling": "plain", "weight_norm": False},
        {"block": "relu", "shortcuts": False, "channels": 12},
    ],
)
def test_every_switch_leaves_a_proven_density(changes: dict[str, object]) -> None:
    proofs = verify(built(GREY, **changes), quick=True)
    assert proofs.passed, str(proofs)


@pytest.mark.parametrize("shape", [(1, 7, 6), (3, 5, 4), (1, 1, 3), (1, 3, 1), (1, 2, 2)])
def test_any_size_draws_the_same_integers_either_way(shape: tuple[int, int, int]) -> None:
    spec = DataSpec("t", shape, 4)
    model = built(spec, scales=3)
    uniform = Noise("t").uniform(2, *shape)
    blank = torch.zeros(2, *shape, dtype=torch.int64)
    naive = ancestral(model, uniform, blank, 0, method="naive")
    assert torch.equal(naive, ancestral(model, uniform, blank, 0, method="incremental"))
    start = shape[1] * shape[2] // 2
    other = ancestral(model, uniform.flip(0), naive, start, method="incremental")
    assert torch.equal(other, ancestral(model, uniform.flip(0), naive, start, method="naive"))


def test_the_centre_sees_all_that_comes_before() -> None:
    model = built(DataSpec("t", (1, 12, 12), 2), scales=3)
    x = torch.rand(1, 1, 12, 12, dtype=torch.float64, requires_grad=True)
    out = model.conditionals(x)[0, :, 6, 6].sum()
    seen = torch.autograd.grad(out, x)[0][0, 0] != 0
    assert bool(seen.flatten()[: 6 * 12 + 6].all())
    assert not bool(seen.flatten()[6 * 12 + 6 :].any())


def test_without_short_cuts_a_pixel_misses_its_neighbours_in_the_coarse_cell() -> None:
    spec = DataSpec("t", (1, 6, 6), 2)
    for changes, missed in (({"shortcuts": False}, True), ({}, False)):
        model = built(spec, **changes)
        x = torch.rand(1, 1, 6, 6, dtype=torch.float64, requires_grad=True)
        out = model.conditionals(x)[0, :, 5, 5].sum()
        seen = torch.autograd.grad(out, x)[0][0, 0] != 0
        assert bool(seen[4, 3])
        assert bool(seen[5, 4]) is not missed
        assert model.has_blind_spot is missed


def test_colours_need_a_head_that_couples_them() -> None:
    spec = DataSpec("t", (3, 4, 4), 4)
    assert built(spec).head.couples_channels
    with pytest.raises(InvalidSetting, match="take head=logistic-mixture"):
        built(spec, head="categorical")


def test_it_starts_at_the_data_and_trains() -> None:
    train, _ = data.load("digits")
    model = PixelCNNPP(train.spec, SMALL)
    model.start_at(train)
    first = {name: t.clone() for name, t in model.state_dict().items()}
    x = torch.from_numpy(train.batch(slice(0, 64)).x.astype("int64"))
    parameters = model.eval().conditionals(x).detach()
    torch.testing.assert_close(
        parameters.mean((0, 2, 3)), torch.zeros(parameters.shape[1]), atol=1e-3, rtol=0
    )
    assert float(parameters.std((0, 2, 3)).mean()) == pytest.approx(1.0, abs=0.05)
    model.train().start_at(train)
    assert model.training
    again = model.state_dict()
    assert all(torch.allclose(first[name], again[name], atol=1e-4) for name in first)
    run = fit(model, train, steps=4, batch_size=16)
    assert all(r["nll"] < 8 * 8 * 17 for r in run.metrics if "nll" in r)
