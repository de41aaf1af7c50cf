"""The proofs find each defect of a density with an order of its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import planted_multiscale as planted
from likely.data.spec import DataSpec
from likely.density import Autoregressive
from likely.models.multiscale.multiscale_pixelcnn import MultiscalePixelCNN
from likely.models.multiscale.parallel_multiscale import ParallelMultiscale
from likely.verify import Proofs, verify
from planted_models import COLOUR, GREY, lively


def proofs_of(kind: Any, spec: DataSpec) -> Proofs:
    settings: Any = planted.PARALLEL if issubclass(kind, ParallelMultiscale) else planted.MULTISCALE
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = lively(kind(spec, settings).eval())
    assert isinstance(model, Autoregressive)
    return verify(model, seed=3, quick=True)


@pytest.mark.parametrize("kind", [ParallelMultiscale, MultiscalePixelCNN])
@pytest.mark.parametrize("spec", [GREY, COLOUR])
def test_the_right_models_pass(kind: Any, spec: DataSpec) -> None:
    proofs = proofs_of(kind, spec)
    assert proofs.passed, str(proofs)
    assert any(proof.name.startswith("total probability") for proof in proofs.proofs)


@pytest.mark.parametrize(
    ("kind", "spec", "caught_by"),
    [
        (planted.SeesItsStep, GREY, {"no self leak", "no future leak", "unchanged by the future"}),
        (planted.SeesTheNextStep, GREY, {"no future leak", "unchanged by the future"}),
        (planted.SeesAllChannels, COLOUR, {"no channel leak", "unchanged by the future"}),
        (planted.StaleSteps, GREY, {"the sampler follows the conditionals"}),
        (planted.MapOfTheWhole, GREY, {"no future leak", "unchanged by the future"}),
        (planted.SmallNotGiven, GREY, {"no self leak", "unchanged by the future"}),
        (planted.StaleMap, GREY, {"the sampler follows the conditionals"}),
    ],
)
def test_planted_defects_are_caught(kind: Any, spec: DataSpec, caught_by: set[str]) -> None:
    proofs = proofs_of(kind, spec)
    assert caught_by <= {proof.name for proof in proofs.failed}, str(proofs)


@pytest.mark.parametrize("kind", [planted.StaleSteps, planted.StaleMap])
def test_a_wrong_sampler_is_the_only_thing_wrong(kind: Any) -> None:
    proofs = proofs_of(kind, GREY)
    assert [proof.name for proof in proofs.failed] == ["the sampler follows the conditionals"]
    proofs.require()  # its likelihood is right
