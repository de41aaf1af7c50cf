"""Hierarchical VAE: one top-down network for prior, posterior and decoder; a KL for each layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from likely.data.spec import Dataset, DataSpec, digest_of
from likely.density import DiagonalGaussian, Passed
from likely.evaluate.annealed import annealed
from likely.evaluate.likelihood import latent_diagnostics
from likely.models.vae.hierarchical import HierarchicalVAE, LadderPosterior, LadderPrior
from likely.models.vae.settings import HierarchicalVAESettings
from likely.noise import Noise
from likely.verify import verify
from planted_models import lively

SMALL = HierarchicalVAESettings(layers=2, latent=1, channels=4)
GREY = DataSpec("grey", (1, 8, 8), 2)


def built(kind: type[HierarchicalVAE] = HierarchicalVAE, spec: DataSpec = GREY) -> HierarchicalVAE:
    torch.manual_seed(0)
    model = kind(spec, SMALL)
    lively(model, scale=0.1)
    return model.double().eval()


def binary(n: int, spec: DataSpec = GREY) -> Tensor:
    return torch.randint(2, (n, *spec.shape), generator=torch.Generator().manual_seed(0))


def test_layers_follow_the_halvings_of_the_image() -> None:
    model = HierarchicalVAE(DataSpec("t", (1, 28, 28), 2))
    assert model.layer_sizes == [4 * 16, 4 * 49, 4 * 196]  # from the top down
    assert model.latent == sum(model.layer_sizes)
    assert HierarchicalVAE(DataSpec("t", (1, 2, 2), 2), SMALL).layer_sizes == [4, 4]
    macs = sum(p.numel() for p in model.parameters())
    assert macs < 2_000_000


def test_one_pass_tells_what_prior_posterior_and_decoder_tell_apart() -> None:
    model, x = built(), binary(3)
    q, at = model.posterior(x), Noise(2).normal(3, model.latent, dtype=torch.float64)
    passed = q.through(at)
    z, log_q = q.draw(at)
    torch.testing.assert_close(passed.z, z)
    torch.testing.assert_close(q.log_prob(z), log_q)
    torch.testing.assert_close(model.prior.log_prob(z), passed.log_p)
    torch.testing.assert_close(model.decoder_output(z), passed.output)
    torch.testing.assert_close(q.sample(torch.zeros_like(at)), q.mean)
    # Several draws for each image, as the importance-weighted bound takes them.
    many = q.unsqueezed().through(at[:, None].expand(3, 5, -1))
    torch.testing.assert_close(many.log_q, log_q[:, None].expand(3, 5))
    torch.testing.assert_close(model.prior.log_prob(many.z), passed.log_p[:, None].expand(3, 5))


def test_the_upper_layers_decide_about_the_lower_ones() -> None:
    model = built()
    top, below = model.layer_sizes
    z = Noise(1).normal(4, model.latent, dtype=torch.float64)
    changed = torch.cat([z[:, :top] + 1, z[:, top:]], 1)
    seen: list[Tensor] = []

    def given(values: Tensor) -> Tensor:
        parts, means = model.split(values), []

        def choose(p: DiagonalGaussian, q: DiagonalGaussian | None, index: int) -> Tensor:
            means.append(p.mean)
            return parts[index]

        model.passed(4, None, choose)
        assert means[1].shape == (4, below)
        seen.append(means[0])
        return means[1]

    assert not torch.allclose(given(z), given(changed))
    torch.testing.assert_close(seen[0], seen[1])  # the top layer's prior has nothing above it


def test_a_layer_that_changes_nothing_has_no_kl() -> None:
    model, x = built(), binary(3)
    for layer in model.stochastic:
        torch.nn.init.zeros_(layer.change.weight)
        torch.nn.init.zeros_(layer.change.bias)
    _, kl = model.elbo_terms(x, Noise(0))
    torch.testing.assert_close(kl, torch.zeros(3, 2, dtype=torch.float64))


def test_each_kl_is_the_mean_of_its_log_ratio() -> None:
    p = DiagonalGaussian(torch.tensor([[0.3, -1.0]]), torch.tensor([[0.2, -0.4]]))
    q = DiagonalGaussian(torch.tensor([[0.0, 1.0]]), torch.tensor([[-0.3, 0.1]]))
    z = q.sample(Noise(0).normal(400_000, 2, dtype=torch.float32))
    ratio = q.log_prob(z) - p.log_prob(z)
    error = float(ratio.std()) / 400_000**0.5
    assert abs(float(q.kl_to(p).sum(-1)) - float(ratio.mean())) < 5 * error


def test_bounds_are_in_order_and_the_rate_is_that_of_the_layers() -> None:
    model, x = built(), binary(12).numpy().astype(np.uint8)
    data = Dataset(DataSpec("grey", (1, 8, 8), 2, n=12, digest=digest_of(x)), x)
    near = annealed(model, data, temperatures=10, chains=4, importance_samples=8, simulated=0)
    elbo, weighted, by_annealing = (float(bound.values.mean()) for bound in near.bounds)
    assert elbo > weighted > by_annealing - 0.1
    used = latent_diagnostics(model, data)
    assert [layer.quantity for layer in used.layers] == ["rate-layer-1", "rate-layer-2"]
    assert used.rate.value == pytest.approx(sum(layer.value for layer in used.layers))


def test_a_layer_that_carries_nothing_is_told_and_not_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its posterior means vary with the codes above, and so with x."""
    model, x = built(), binary(40).numpy().astype(np.uint8)
    data = Dataset(DataSpec("grey", (1, 8, 8), 2, n=40, digest=digest_of(x)), x)
    terms = model.elbo_terms
    for low in (0, 1):  # from the top

        def silent(*arguments: Any, at: int = low) -> tuple[Tensor, Tensor]:
            reconstruction, kl = terms(*arguments)
            return reconstruction, kl.index_fill(1, torch.tensor([at]), 0.0).clamp(min=0.0) + (
                torch.arange(2) != at
            )

        monkeypatch.setattr(model, "elbo_terms", silent)
        used = latent_diagnostics(model, data)
        assert used.active is not None
        assert used.active <= model.latent - model.layer_sizes[low]
        if used.active * 10 > model.latent:
            assert f"layer {2 - low} carries 0 nats" in used.warning


class WrongSign(LadderPosterior):
    """The KL terms are negative."""

    def through(self, noise: Tensor) -> Passed:
        passed = super().through(noise)
        return passed._replace(kl=-passed.kl)


class Swapped(LadderPosterior):
    """The KL terms are those of p from q."""

    def through(self, noise: Tensor) -> Passed:
        passed = super().through(noise)
        return passed._replace(kl=2 * passed.kl)


class Independent(LadderPrior):
    """Codes are drawn as if the layers were independent."""

    def sample(self, noise: Noise, n: int, dtype: torch.dtype) -> Tensor:
        return 2 * noise.normal(n, self.model.latent, dtype=dtype)


def with_parts(posterior: type[LadderPosterior], prior: type[LadderPrior]) -> HierarchicalVAE:
    class Planted(HierarchicalVAE):
        @property
        def prior(self) -> LadderPrior:
            return prior(self)

        def posterior(self, x: Tensor, context: Tensor | None = None) -> LadderPosterior:
            q = super().posterior(x, context)
            return posterior(q.model, q.features, q.lead)

    return built(Planted)


def test_right_models_pass_and_defects_are_caught() -> None:
    proofs = verify(built(), quick=True)
    assert proofs.passed, str(proofs)
    for defect in (WrongSign, Swapped):
        failed = {p.name for p in verify(with_parts(defect, LadderPrior), quick=True).failed}
        assert {"the KL term is a KL", "the ELBO is the ELBO"} <= failed
    failed = {p.name for p in verify(with_parts(LadderPosterior, Independent), quick=True).failed}
    assert "the prior's samples follow its density" in failed
