"""The proofs find each defect of a causal attention model."""

from __future__ import annotations

import pytest
import torch

import planted_pixelsnail as planted
from likely.data.spec import DataSpec
from likely.models.pixelcnn.pixelsnail import PixelSNAIL
from likely.verify import verify
from planted_models import COLOUR, GREY, lively


def failures(kind: type[PixelSNAIL], spec: DataSpec) -> tuple[set[str], str]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = lively(kind(spec, planted.SMALL).eval())
    assert isinstance(model, PixelSNAIL)
    proofs = verify(model, seed=3, quick=True)
    return {proof.name for proof in proofs.failed}, str(proofs)


@pytest.mark.parametrize("spec", [GREY, COLOUR])
def test_the_right_model_passes(spec: DataSpec) -> None:
    failed, said = failures(PixelSNAIL, spec)
    assert not failed, said


LEAKS = {"no future leak", "unchanged by the future"}


@pytest.mark.parametrize(
    ("kind", "spec", "caught_by"),
    [
        (planted.with_attention(planted.NotStrict), GREY, {"no self leak"}),
        (planted.with_attention(planted.NotStrict), COLOUR, {"no self leak", "no channel leak"}),
        (planted.with_attention(planted.MovedInItsRow), GREY, LEAKS),
        (planted.with_attention(planted.SoftmaxOverAll), GREY, LEAKS),
        (planted.with_attention(planted.NoMask), GREY, {*LEAKS, "no self leak"}),
        (
            planted.with_attention(planted.StaleCache),
            GREY,
            {"the sampler follows the conditionals"},
        ),
        (
            planted.with_attention(planted.WrongTurn),
            GREY,
            {"the sampler follows the conditionals"},
        ),
        (planted.NormOfImage, GREY, LEAKS),
        (planted.NormOfColours, COLOUR, {"no channel leak", "no self leak"}),
        (planted.FirstSeesItself, GREY, {"no self leak"}),
        (planted.NoAttention, GREY, {"the past is seen"}),
    ],
)
def test_planted_defects_are_caught(
    kind: type[PixelSNAIL], spec: DataSpec, caught_by: set[str]
) -> None:
    failed, said = failures(kind, spec)
    assert caught_by <= failed, said


@pytest.mark.parametrize("kind", [planted.StaleCache, planted.WrongTurn])
def test_a_wrong_sampler_is_the_only_thing_wrong(kind: type[planted.CausalAttention]) -> None:
    failed, said = failures(planted.with_attention(kind), GREY)
    assert failed == {"the sampler follows the conditionals"}, said
