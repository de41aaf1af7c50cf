"""Each defect planted in a PixelCNN is caught by the proof made for it."""

from __future__ import annotations

import pytest
import torch

import planted_pixelcnn as planted
from likely.data.spec import DataSpec
from likely.models.pixelcnn.pixelcnn import PixelCNN
from likely.verify import verify
from planted_models import COLOUR, GREY, lively


@pytest.mark.parametrize(
    ("kind", "spec", "caught_by"),
    [
        (planted.MaskSwapped, GREY, {"no self leak", "unchanged by the future"}),
        (planted.MaskSwapped, COLOUR, {"no self leak", "unchanged by the future"}),
        (planted.RowBelow, GREY, {"no future leak", "unchanged by the future"}),
        (planted.PlainPointwise, COLOUR, {"no channel leak", "unchanged by the future"}),
        (planted.RowForgotten, GREY, {"the sampler follows the conditionals"}),
    ],
)
def test_planted_defects_are_caught(
    kind: type[PixelCNN], spec: DataSpec, caught_by: set[str]
) -> None:
    torch.manual_seed(1)
    model = lively(kind(spec, planted.SETTINGS)).eval()
    assert isinstance(model, PixelCNN)
    proofs = verify(model, quick=True)
    assert caught_by <= {proof.name for proof in proofs.failed}, str(proofs)
