"""Each defect planted in a PixelCNN++ is caught by the proof made for it."""

from __future__ import annotations

import pytest
import torch

import planted_pixelcnn_pp as planted
from likely.data.spec import DataSpec
from likely.models.pixelcnn.pixelcnn_pp import PixelCNNPP
from likely.verify import verify
from planted_models import COLOUR, GREY, lively

FUTURE = {"no future leak", "unchanged by the future"}


@pytest.mark.parametrize(
    ("kind", "spec", "caught_by"),
    [
        (planted.NoDownShift, GREY, {"no self leak", *FUTURE}),
        (planted.CurrentPixel, GREY, {"no self leak", "unchanged by the future"}),
        (planted.LeakyGrowth, GREY, {"no self leak", "unchanged by the future"}),
        (planted.ShortcutFromBelow, GREY, FUTURE),
        (planted.WrongCoupling, COLOUR, {"total probability on 3 x 2 x 2, 2 levels"}),
        (planted.ForgetfulSampler, GREY, {"the sampler follows the conditionals"}),
    ],
)
def test_planted_defects_are_caught(
    kind: type[PixelCNNPP], spec: DataSpec, caught_by: set[str]
) -> None:
    torch.manual_seed(1)
    model = lively(kind(spec, planted.SETTINGS)).eval()
    assert isinstance(model, PixelCNNPP)
    proofs = verify(model, quick=True)
    assert caught_by <= {proof.name for proof in proofs.failed}, str(proofs)
