"""Each planted defect of Row LSTM and Diagonal BiLSTM is caught by the proof made for it."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import planted_pixelrnn as planted
from likely.data.spec import DataSpec
from likely.models.recurrent.pixelrnn import PixelRNN
from likely.models.recurrent.settings import DiagonalBiLSTMSettings, RowLSTMSettings
from likely.verify import verify
from planted_models import COLOUR, GREY, lively

# Rectifiers enough in each colour group that not all of them are off on all probes.
ROW = RowLSTMSettings(hidden=6, layers=2, first_kernel=3, head_channels=30, head="categorical")
DIAGONAL = DiagonalBiLSTMSettings(
    hidden=6, layers=2, first_kernel=3, head_channels=30, head="categorical"
)


def built(kind: type[PixelRNN], spec: DataSpec) -> PixelRNN:
    torch.manual_seed(1)
    settings = ROW if issubclass(kind, planted.RowLSTM) else DIAGONAL
    settings = dataclasses.replace(settings, hidden=12 if spec.shape[0] > 1 else 4)
    model = kind(spec, settings).eval()  # type: ignore[call-arg,arg-type]
    lively(model)
    return model


@pytest.mark.parametrize("spec", [GREY, COLOUR])
@pytest.mark.parametrize("kind", [planted.RowLSTM, planted.DiagonalBiLSTM])
def test_right_models_pass(kind: type[PixelRNN], spec: DataSpec) -> None:
    proofs = verify(built(kind, spec), quick=True)
    assert proofs.passed, str(proofs)
    assert "the sampler follows the conditionals" in {proof.name for proof in proofs.proofs}


@pytest.mark.parametrize(
    ("kind", "spec", "caught_by"),
    [
        (planted.RowSeesItself, GREY, {"no self leak", "unchanged by the future"}),
        (planted.RowSeesItself, COLOUR, {"no self leak", "unchanged by the future"}),
        (planted.RowGatesAsOne, COLOUR, {"no self leak", "no channel leak"}),
        (planted.RowMixedUp, COLOUR, {"no self leak", "no channel leak"}),
        (planted.RowSeesRight, GREY, {"no self leak", "unchanged by the future"}),
        (planted.RowStaleMemory, GREY, {"the sampler follows the conditionals"}),
        (planted.DiagonalSeesItself, GREY, {"no self leak", "unchanged by the future"}),
        (planted.DiagonalSeesItself, COLOUR, {"no self leak", "unchanged by the future"}),
        (planted.DiagonalGatesAsOne, COLOUR, {"no self leak", "no channel leak"}),
        (planted.NotShiftedDown, GREY, {"no future leak", "no self leak"}),
        (planted.NotShiftedDown, COLOUR, {"no future leak", "no self leak"}),
        (planted.WrongLean, GREY, {"no future leak", "unchanged by the future"}),
        (planted.BothReadThePixel, GREY, {"no self leak"}),
        (planted.AsPrinted, GREY, {"the past is seen"}),
        (planted.OneDirection, GREY, {"the past is seen"}),
    ],
)
def test_planted_defects_are_caught(
    kind: type[PixelRNN], spec: DataSpec, caught_by: set[str]
) -> None:
    proofs = verify(built(kind, spec), quick=True, seed=3)
    failed = {proof.name for proof in proofs.failed}
    assert caught_by <= failed, str(proofs)
    if kind is planted.AsPrinted:
        assert failed == caught_by
