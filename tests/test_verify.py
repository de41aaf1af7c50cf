"""The proofs pass on right models and each planted defect is caught by the proof made for it."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import planted_models as planted
from likely.data.spec import Dataset, DataSpec, digest_of
from likely.density import GenerativeModel
from likely.errors import InvalidSetting, ProofFailed
from likely.models.gan.dcgan import DCGAN
from likely.models.pixelcnn.gated_pixelcnn import GatedPixelCNN
from likely.models.vae.vae import VAE
from likely.verify import Proof, Proofs, verify, weights_digest
from likely.verify.causality import causality
from likely.verify.subject import all_images, subject_of
from planted_models import COLOUR, GREY, LEVELS, PIXELCNN, SMALL_DCGAN, SMALL_VAE, lively
from test_conformance import built as conformance_built


def built(kind: type[GenerativeModel], spec: DataSpec = GREY, **changes: object) -> GenerativeModel:
    settings: object = PIXELCNN
    if issubclass(kind, VAE | DCGAN):
        settings = SMALL_VAE if issubclass(kind, VAE) else SMALL_DCGAN
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return kind(spec, dataclasses.replace(settings, **changes)).eval()


def failed(proofs: Proofs) -> set[str]:
    return {proof.name for proof in proofs.failed}


LABELLED = dataclasses.replace(GREY, classes=("a", "b", "c"))


@pytest.mark.parametrize(
    ("kind", "spec", "changes"),
    [
        (GatedPixelCNN, GREY, {}),
        (GatedPixelCNN, LEVELS, {"dropout": 0.3}),
        (GatedPixelCNN, COLOUR, {}),
        (GatedPixelCNN, COLOUR, {"head": "logistic-mixture"}),
        (GatedPixelCNN, LABELLED, {"conditional": True}),
        (planted.HonestOldPixelCNN, GREY, {}),
        (VAE, GREY, {}),
        (VAE, COLOUR, {"head": "logistic-mixture"}),
        (VAE, LABELLED, {"conditional": True, "network": "conv", "channels": 4}),
        (VAE, GREY, {"prior": "flow"}),
        (VAE, GREY, {"prior": "autoregressive"}),
        (VAE, LABELLED, {"prior": "vamp", "conditional": True}),
        (VAE, GREY, {"posterior": "iaf"}),
        (VAE, LABELLED, {"posterior": "iaf", "prior": "flow", "conditional": True}),
        (DCGAN, GREY, {}),
        (DCGAN, COLOUR, {"normalize": "batch"}),
    ],
)
def test_right_models_pass(
    kind: type[GenerativeModel], spec: DataSpec, changes: dict[str, object]
) -> None:
    """In full; tests/test_conformance.py has the short version of every model."""
    model = built(kind, spec, **changes)
    for weights, quick in ((model, True), (lively(model), False)):
        proofs = verify(weights, quick=quick)
        assert proofs.passed, str(proofs)
        proofs.require()


@pytest.mark.parametrize(
    ("name", "channels", "changes"),
    [
        ("vae", 4, {}),
        ("vae", 7, {}),
        ("vae", 13, {}),
        ("vq-vae", 6, {}),
        ("hierarchical-vae", 8, {}),
        ("bernoulli-mixture", 13, {}),
        ("made", 13, {}),
        ("haar-pyramid", 8, {"channels": 16, "head_channels": 24}),
        ("gated-pixelcnn-orders", 4, {"head_channels": 8}),
    ],
)
def test_right_models_of_many_channels_pass(
    name: str, channels: int, changes: dict[str, int]
) -> None:
    """All images of two pixels, or of a square of them, would be too many to list."""
    model = conformance_built(name, DataSpec("many", (channels, 3, 3), 4), **changes)
    proofs = verify(model, quick=True)
    assert proofs.passed, str(proofs)


@pytest.mark.parametrize(
    ("kind", "spec", "caught_by", "vital"),
    [
        # The three that the design asks for, then others.
        (planted.MaskSwapped, GREY, {"no self leak", "unchanged by the future"}, True),
        (planted.MaskSwapped, COLOUR, {"no self leak", "unchanged by the future"}, True),
        (planted.BatchStatistics, GREY, {"examples do not couple (training)"}, False),
        (planted.ChannelOrder, COLOUR, {"no channel leak", "unchanged by the future"}, True),
        (planted.BatchMean, GREY, {"examples do not couple (evaluation)"}, True),
        (planted.CurrentRow, GREY, {"no future leak", "no self leak"}, True),
        (planted.ImageMean, GREY, {"no future leak", "unchanged by the future"}, True),
        (planted.RoundedPeek, GREY, {"unchanged by the future"}, True),
        (planted.NoRightTaps, GREY, {"the past is seen"}, False),
        (planted.StaleSampler, GREY, {"the sampler follows the conditionals"}, False),
        (planted.OldPixelCNN, GREY, {"the past is seen"}, False),
        (planted.Dropped, GREY, {"gradients reach every weight"}, False),
        (planted.LooseHead, GREY, {"each conditional sums to one"}, True),
        (planted.SwappedHead, GREY, {"the reported likelihood is the tables' product"}, True),
        (planted.WrongSign, GREY, {"the KL term is a KL", "the ELBO is the ELBO"}, True),
        (planted.HalfKL, GREY, {"the KL term is a KL", "the ELBO is the ELBO"}, True),
        (planted.SumOfWeights, GREY, {"importance weights are unbiased"}, True),
        (planted.CoupledEncoder, GREY, {"examples do not couple (evaluation)"}, True),
        (planted.CoupledGenerator, GREY, {"examples do not couple (generation)"}, True),
        (planted.LoudGenerator, GREY, {"generated images are in [-1, 1]"}, True),
    ],
)
def test_planted_defects_are_caught(
    kind: type[GenerativeModel], spec: DataSpec, caught_by: set[str], vital: bool
) -> None:
    proofs = verify(lively(built(kind, spec)), seed=3, quick=True)
    assert caught_by & failed(proofs), str(proofs)
    if not caught_by <= failed(proofs):
        proofs = verify(lively(built(kind, spec)), seed=3)
        assert caught_by <= failed(proofs), str(proofs)
    if vital:
        with pytest.raises(ProofFailed, match="is not printed, because"):
            proofs.require()
    else:
        proofs.require()


@pytest.mark.parametrize(
    ("kind", "changes", "caught_by"),
    [
        (planted.PriorOnlyDrawnFrom, {"prior": "flow"}, {"the KL term is a KL",
                                                         "the ELBO is the ELBO"}),
        (planted.PriorOnlyInTheBound, {"prior": "flow"},
         {"the prior's samples follow its density"}),
        (planted.PriorOnlyInTheBound, {"prior": "vamp"},
         {"the prior's samples follow its density"}),
        (planted.WrongSign, {"prior": "vamp"}, {"the KL term is a KL", "the ELBO is the ELBO"}),
        (planted.WrongSign, {"posterior": "iaf"}, {"the KL term is a KL", "the ELBO is the ELBO"}),
        (planted.HalfKL, {"prior": "autoregressive"}, {"the KL term is a KL"}),
        (planted.WithoutDeterminant, {"prior": "flow"},
         {"the prior's log-determinant is that of its Jacobian", "total probability"}),
        (planted.WithoutDeterminant, {"posterior": "iaf"},
         {"the posterior's log-determinant is that of its Jacobian"}),
    ],
)  # fmt: skip
def test_defects_of_a_learned_prior_or_posterior_are_caught(
    kind: type[GenerativeModel], changes: dict[str, object], caught_by: set[str]
) -> None:
    proofs = verify(lively(built(kind, **changes)), seed=3, quick=True)
    assert caught_by <= failed(proofs), str(proofs)
    with pytest.raises(ProofFailed, match="is not printed, because"):
        proofs.require()


def test_a_leak_breaks_the_total_probability() -> None:
    proofs = verify(lively(built(planted.MaskSwapped)))
    assert any(name.startswith("total probability") for name in failed(proofs))
    loose = verify(built(planted.LooseHead))
    measured = loose["total probability on 1 x 3 x 3, 2 levels"].measured
    assert measured == pytest.approx(math.exp(9 * 0.00995) - 1, rel=1e-6)


def test_nothing_else_fails_with_a_blind_spot_or_in_training() -> None:
    # Both change the conditionals and not the sampler, which proofs notice, too.
    sampler = {
        "the sampler follows the conditionals",
        "samples are as frequent as the density says",
    }
    assert failed(verify(lively(built(planted.NoRightTaps)))) - sampler == {"the past is seen"}
    coupled = verify(lively(built(planted.BatchStatistics)))
    assert failed(coupled) - sampler == {"examples do not couple (training)"}


@pytest.mark.parametrize("factor", [0.97, 1.03])
def test_a_likelihood_that_is_no_code_length_is_caught(factor: float) -> None:
    """Every table is right, and what is reported is not their product."""

    class Flattering(GatedPixelCNN):
        def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
            return factor * super().log_prob(x, context)

    proofs = verify(lively(built(Flattering, COLOUR)))
    assert "the likelihood is the length of a file" in failed(proofs)
    right = verify(lively(built(GatedPixelCNN, COLOUR)))
    assert right["the likelihood is the length of a file"].passed


def test_weights_that_are_not_numbers_fail() -> None:
    model = built(GatedPixelCNN)
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    proofs = verify(model)
    assert failed(proofs) == {"the weights are numbers"}
    text = json.dumps(proofs.to_json(), allow_nan=False)
    assert not Proofs.from_json(json.loads(text)).passed


def test_the_model_is_left_as_it_was() -> None:
    model = lively(built(GatedPixelCNN, dropout=0.2)).train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    state = torch.random.get_rng_state()
    first, second = verify(model, seed=5), verify(model, seed=5)
    assert first == second
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())


def test_data_is_probed_with_and_must_fit() -> None:
    values = np.zeros((3, *LEVELS.shape), np.uint8)
    spec = dataclasses.replace(LEVELS, n=3, digest=digest_of(values))
    assert verify(built(GatedPixelCNN, LEVELS), Dataset(spec, values), quick=True).passed
    with pytest.raises(InvalidSetting, match="4 levels"):
        verify(built(GatedPixelCNN, dataclasses.replace(LEVELS, levels=4)), Dataset(spec, values))


def test_proofs_are_saved_and_read_back(tmp_path: Path) -> None:
    proofs = verify(built(DCGAN))
    proofs.save(tmp_path / "proofs.json")
    assert Proofs.load(tmp_path / "proofs.json") == proofs
    assert proofs["samples are levels"].passed
    with pytest.raises(KeyError, match="samples are levels"):
        proofs["no such proof"]


def test_a_proof_passes_up_to_its_tolerance() -> None:
    assert Proof.at_most("a", 1.0, 1.0, "").passed
    assert not Proof.at_most("a", 1.1, 1.0, "").passed
    assert not Proof.at_most("a", math.nan, 1.0, "").passed


def test_the_digest_changes_with_a_weight_and_with_the_settings() -> None:
    model = built(GatedPixelCNN)
    same = built(GatedPixelCNN)
    assert weights_digest(model) == weights_digest(same)
    assert weights_digest(built(GatedPixelCNN, dilations=(2,))) != weights_digest(model)
    with torch.no_grad():
        next(same.parameters()).view(-1)[0] += 1e-6
    assert weights_digest(model) != weights_digest(same)


def test_all_images_are_all_different() -> None:
    images = all_images((1, 2, 2), 3)
    assert images.shape == (81, 1, 2, 2)
    assert len(torch.unique(images.flatten(1), dim=0)) == 81
    assert (int(images.min()), int(images.max())) == (0, 2)


def test_the_compiled_sampler_is_proved_where_it_is_used() -> None:
    spec = DataSpec("large", (1, 16, 16), 2)
    name = "the compiled sampler follows the conditionals"

    def proof(kind: type[GenerativeModel]) -> Proof:
        model = lively(built(kind, spec))
        subject = subject_of(model, None, False, 0)  # type: ignore[arg-type]
        return {one.name: one for one in causality(subject, subject.model)}[name]

    assert proof(GatedPixelCNN).passed
    assert proof(GatedPixelCNN).measured > 0  # it is not the same code
    assert not proof(planted.StaleSampler).passed
