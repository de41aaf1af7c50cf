"""NADE: its recursion, its distinct activations, their gradients; defects are caught."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

import planted_vectors as planted
from likely.data.spec import DataSpec
from likely.models.vectors import nade
from likely.models.vectors.nade import NADE
from likely.models.vectors.settings import NADESettings
from likely.verify import verify
from planted_models import COLOUR, GREY, lively

SMALL = NADESettings(hidden=6, components=2)


def built(spec: DataSpec) -> NADE:
    model = lively(NADE(spec, SMALL).double())
    assert isinstance(model, NADE)
    return model


def pixel_by_pixel(model: NADE, x: Tensor) -> Tensor:
    """Equations 8-10 as they stand: outputs of all units, [B, N, O]."""
    inputs = model.units.split(x, torch.float64)
    a = model.start.expand(len(x), -1)
    found = []
    for i in range(model.units.count):
        found.append(model.bias[:, i] + torch.sigmoid(a) @ model.output[i].t())
        a = a + inputs[:, i] @ model.weight[i]
    return torch.stack(found, 1)


@pytest.mark.parametrize("block", [1, 4, 100])
@pytest.mark.parametrize("spec", [GREY, COLOUR, DataSpec("t", (3, 3, 3), 256)])
def test_blocks_and_distinct_activations_give_the_recursion(
    spec: DataSpec, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs and every gradient, on images with many zeros and with none."""
    monkeypatch.setattr(nade, "BLOCK", block)
    model = built(spec)
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(spec.levels, (4, *spec.shape), generator=generator)
    x[0] = 0
    x[1] = x[1].clamp(min=1)
    x[2, :, 1:] = 0
    found, expected = model.conditionals(x), model.units.join(pixel_by_pixel(model, x))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    probe = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    parameters = list(model.parameters())
    ours = torch.autograd.grad(found, parameters, probe)
    theirs = torch.autograd.grad(expected, parameters, probe)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


def test_zeros_cost_no_activation_and_keep_their_derivatives() -> None:
    model = built(GREY)
    x = torch.zeros(2, *GREY.shape)
    x[0, 0, 0, 2] = 1.0
    sparse = model.units.split(x, torch.float64)
    image, step, _ = nade.distinct(sparse)
    assert image.tolist() == [0, 0, 1]
    assert step.tolist() == [0, 3, 0]
    dense = x.double().requires_grad_(True)
    out = model.conditionals(dense)
    torch.testing.assert_close(out.detach(), model.conditionals(x.long()).detach())
    (gradient,) = torch.autograd.grad(out[:, 0, 4, 4].sum(), dense)
    assert bool((gradient.flatten(1)[:, :24] != 0).all())


@pytest.mark.parametrize(
    ("kind", "caught_by"),
    [
        (planted.InclusiveActivation, {"no self leak", "unchanged by the future"}),
        (planted.WrongUnitMoves, {"unchanged by the future"}),
        (planted.ForgetfulSampler, {"the sampler follows the conditionals"}),
        (planted.LateInstructions, {"the sampler follows the conditionals"}),
    ],
)
def test_planted_defects_are_caught(kind: type[NADE], caught_by: set[str]) -> None:
    proofs = verify(lively(kind(GREY, SMALL)), quick=True)  # type: ignore[arg-type]
    assert caught_by <= {proof.name for proof in proofs.failed}, str(proofs)


def test_a_sampler_that_takes_one_label_for_all_is_caught() -> None:
    spec = dataclasses.replace(GREY, classes=("a", "b"))
    settings = dataclasses.replace(SMALL, conditional=True)
    proofs = verify(lively(planted.OneLabelSampler(spec, settings)), quick=True)  # type: ignore[arg-type]
    assert {proof.name for proof in proofs.failed} == {
        "the sampler follows the conditionals",
        "samples are as frequent as the density says",
    }
    assert verify(lively(NADE(spec, settings)), quick=True).passed  # type: ignore[arg-type]
