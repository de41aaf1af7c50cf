"""VQ-VAE: codes of three kinds, the bound of two stages, its prior, planted defects."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fit_cases import differing, end_of, fit_case, model_of, stop_at, training_data
from likely.ask import Guarantee, answers
from likely.data.spec import DataSpec
from likely.density import DiscreteLatent
from likely.errors import InvalidSetting
from likely.evaluate.codes import code_usage
from likely.heads import log_likelihood
from likely.models.codes.settings import CodePriorSettings, VQVAESettings
from likely.models.codes.vq_vae import VQVAE, CodePrior
from likely.nn.quantiser import Codes, GridCodes, MovingCodes, distances, scaled
from likely.noise import Noise
from likely.training.objectives import QuantisedBound, default_objective
from likely.verify import verify

IMAGE = DataSpec("image", (1, 6, 5), 2)
SMALL = VQVAESettings(
    codes=6, grid_levels=(3, 2), dimensions=3, channels=4, blocks=1, halvings=1, prior_channels=6,
    prior_layers=2,
)  # fmt: skip
KINDS = ("ema", "simvq", "fsq")


def built(quantiser: str = "ema", kind: type[VQVAE] = VQVAE) -> VQVAE:
    model = kind(IMAGE, dataclasses.replace(SMALL, quantiser=quantiser))  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def images(n: int = 5) -> Tensor:
    return torch.randint(2, (n, *IMAGE.shape), generator=torch.Generator().manual_seed(1))


# -- the bound -------------------------------------------------------------------------------


@pytest.mark.parametrize("quantiser", KINDS)
def test_right_models_pass(quantiser: str) -> None:
    for quick in (True, False):
        proofs = verify(built(quantiser), quick=quick)
        assert proofs.passed, str(proofs)


class UniformPrior(VQVAE):
    """Each code costs log K, whatever the prior has learned."""

    def elbo(self, x: Tensor, noise: Noise, context: Tensor | None = None) -> Tensor:
        given_code, _ = self.bound_terms(x, context)
        return given_code - self.prior.spec.dimensions * math.log(self.prior.spec.levels)


class UnquantisedDecoder(VQVAE):
    """The decoder reads the encoder's vectors, which no code could carry."""

    def elbo(self, x: Tensor, noise: Noise, context: Tensor | None = None) -> Tensor:
        _, of_code = self.bound_terms(x, context)
        return log_likelihood(self.head, self._decoded(self._vectors(x)), x) + of_code


class SeesItself(CodePrior):
    """A code is predicted from itself."""

    def conditionals(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return super().conditionals(x) + self._embedded(x).mean(1, keepdim=True) * torch.arange(
            6.0
        )[:, None, None].to(self.embedding.weight)


@pytest.mark.parametrize("kind", [UniformPrior, UnquantisedDecoder])
def test_planted_bounds_are_caught(kind: type[VQVAE]) -> None:
    proofs = verify(built(kind=kind), quick=True)
    assert not proofs["the bound is of the fitted prior and of the codes"].passed


def test_a_prior_that_sees_its_own_code_is_caught() -> None:
    model = built()
    model.prior.__class__ = SeesItself
    failed = {proof.name for proof in verify(model, quick=True).failed}
    assert any(name.startswith("no self leak") for name in failed), failed


# -- its parts -------------------------------------------------------------------------------


def test_the_prior_draws_the_same_codes_both_ways() -> None:
    prior = CodePrior(DataSpec("codes", (1, 7, 7), 512), CodePriorSettings(12, 3, 0.1)).eval()
    fast, slow = (prior.sample(6, seed=3, method=method) for method in ("incremental", "naive"))
    assert torch.equal(fast, slow)
    assert len(fast.unique()) > 100


def test_gradients_go_where_they_belong() -> None:
    model, x = built("simvq").train(), images()
    terms = model.quantised_terms(x, Noise(0), moves=True, pull=True)
    weights = dict(model.named_parameters())

    def reached(term: Tensor) -> set[str]:
        grads = torch.autograd.grad(term.sum(), list(weights.values()), retain_graph=True,
                                    allow_unused=True)  # fmt: skip
        pairs = zip(weights, grads, strict=True)
        return {n.split(".")[0] for n, g in pairs if g is not None and bool(g.any())}

    assert reached(terms.distortion) == {"encoder", "decoder", "output_bias"}
    assert reached(terms.rate) == {"prior"}
    assert reached(terms.codebook) == {"quantiser"}
    assert reached(terms.commitment) == {"encoder"}
    assert reached(terms.pull) == {"encoder"}
    still = model.quantised_terms(x, Noise(0), moves=False, pull=True)
    assert reached(still.distortion) == {"decoder", "output_bias"}
    torch.testing.assert_close(terms.distortion, still.distortion)
    model.eval()  # without dropout the loss is the bound
    still = model.quantised_terms(x, Noise(0), moves=False, pull=False)
    torch.testing.assert_close(-still.distortion - still.rate, model.elbo(x, Noise(0)))


def test_the_grid_rounds_each_coordinate() -> None:
    grid = GridCodes((8, 5, 4))
    z = grid.bounded(2 * torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0)))
    index = distances(z, grid.vectors()).argmin(-1)
    halves = torch.tensor([4.0, 2.0, 2.0])
    assert torch.equal(grid.vectors()[index], (z * halves).round() / halves)
    assert len(index.unique()) == 160


def test_moving_codes_move_to_clusters_and_none_stays_dead() -> None:
    centres = scaled(torch.randn(12, 4, generator=torch.Generator().manual_seed(0)))
    codes: Codes = MovingCodes(12, 4)
    codes.start_at(centres[:1].repeat(3, 1))  # all in one place
    for step in range(500):
        noise = Noise("clusters", step)
        near = 0.01 * noise.normal(8, 30, 4)
        z = scaled(centres[(noise.uniform(8, 30) * 12).long()] + near)
        index = distances(z, codes.vectors()).argmin(-1)
        codes.update(z, index, noise)
    assert len(index.unique()) == 12
    away = distances(centres, codes.vectors()).min(-1).values
    assert float(away.median()) < 1e-3


@pytest.mark.parametrize("case", ["vq-vae", "vq-vae-simvq"])
def test_codes_start_at_different_vectors_of_the_encoder(case: str) -> None:
    model = model_of(case)
    assert isinstance(model, VQVAE)
    model.start_at(training_data())
    codes = model.quantiser.vectors()
    assert len(codes.unique(dim=0)) == 8
    z = model._vectors(torch.from_numpy(training_data().batch(slice(0, 512)).x.astype(np.int64)))
    away = distances(z.flatten(0, 2), codes)
    assert float(away.min(0).values.max().detach()) < 1e-5


# -- in the house ----------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["vq-vae", "vq-vae-simvq"])
def test_a_fit_resumes_bit_for_bit(case: str, tmp_path: Path) -> None:
    fit_case(case, tmp_path / "whole")
    fit_case(case, tmp_path / "parts", progress=stop_at(4))
    assert fit_case(case, tmp_path / "parts").finished
    assert differing(end_of(tmp_path / "whole"), end_of(tmp_path / "parts")) == []


def test_encoder_and_codes_stay_after_their_steps() -> None:
    alike = {"ema": 0.0, "schedule": "constant", "validate_every": 100}
    ends = {steps: fit_case("vq-vae", None, steps=steps, **alike).model.state_dict()
            for steps in (5, 9)}  # fmt: skip
    for name, before in ends[5].items():
        fixed = name.startswith(("encoder", "quantiser"))
        assert torch.equal(before, ends[9][name]) == fixed, name


def test_usage_is_counted_over_all_examples() -> None:
    data = training_data()
    model = fit_case("vq-vae", None, steps=4).model
    assert isinstance(model, DiscreteLatent)
    usage = code_usage(model, data.take(np.arange(300)))
    x = torch.from_numpy(data.batch(slice(0, 300)).x.astype(np.int64))
    counts = torch.bincount(model.encode(x).flatten(), minlength=8).double()
    shares = counts[counts > 0] / counts.sum()
    assert (usage.used, usage.codes) == (len(shares), 8)
    entropy = -float((shares * shares.log()).sum())
    assert usage.perplexity.value == pytest.approx(math.exp(entropy))
    bound = -float(model.elbo(x, Noise(0)).double().mean().detach())
    assert usage.rate.value + usage.distortion.value == pytest.approx(bound, rel=1e-5)
    assert usage.sentence.startswith(f"{len(shares)} of 8 codes are used")


def test_what_it_is_asked() -> None:
    model = built()
    assert default_objective(model) == QuantisedBound()
    worth = answers(model)
    assert worth["likelihood"].guarantee is Guarantee.BOUND
    assert "one code" in worth["posterior"].reason
    assert "without an order" in worth["interpolate"].reason
    x = images()
    assert model.reconstruct(x).shape == x.shape
    assert torch.equal(model.decode(model.encode(x)), model.reconstruct(x))
    assert torch.equal(
        model.features(x), model.quantiser.vectors()[model.encode(x)[:, 0]].flatten(1)
    )


def test_too_few_and_too_many_codes_are_called_codes() -> None:
    for count in (1, 100_000):
        with pytest.raises(InvalidSetting, match=f"codes must be in .2, 65536., given {count}$"):
            VQVAESettings(codes=count)
    with pytest.raises(InvalidSetting, match="given 1000000 by grid_levels=100,100,100"):
        VQVAESettings(quantiser="fsq", grid_levels=(100, 100, 100))
