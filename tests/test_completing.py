"""Completion under any mask against the enumeration of all 3 x 3 binary images."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import likely
from likely import models
from likely.ask import Guarantee
from likely.ask.complete import answer, completed_nats, completions
from likely.cli import main
from likely.data.spec import DataSpec
from likely.density import (
    Autoregressive,
    Ensemble,
    Fittable,
    LatentVariable,
    NoSettings,
    TractableDensity,
)
from likely.density.completion import blocks, particles
from likely.density.completion.codes import Imputer
from likely.errors import InvalidSetting, Unanswerable
from likely.estimate import Relation
from likely.noise import Noise

SPEC = DataSpec("tiny", (1, 3, 3), 2)
EVERY = torch.tensor(list(itertools.product((0, 1), repeat=9))).reshape(512, 1, 3, 3)
MASKS = {
    "bottom": torch.tensor([[0, 0, 0], [0, 1, 1], [1, 1, 1]]).bool(),
    "scattered": torch.tensor([[0, 1, 0], [1, 1, 1], [0, 1, 1]]).bool(),
}
X = torch.tensor([[1, 0, 1], [1, 1, 0], [0, 1, 0]]).reshape(1, 1, 3, 3)


def redrawn(model: Fittable, factor: float) -> Fittable:
    """With weights so large that pixels depend on each other, in float64."""
    with torch.no_grad():
        for number, parameter in enumerate(model.double().parameters()):
            generator = torch.Generator().manual_seed(number)
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(factor * noise)
    return model.eval()


def chain(factor: float = 4.0) -> Autoregressive:
    """A sigmoid belief net: logits are sums over the pixels before."""
    model = redrawn(models.FVSBN(SPEC), 0.0)
    assert isinstance(model, models.FVSBN)
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(model.weight.shape, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(factor * noise)
    return model


def truth(model: TractableDensity, observed: Tensor) -> tuple[Tensor, float]:
    """p(x | observed) over all images, [512], and p(observed), by enumeration."""
    with torch.no_grad():
        p = model.log_prob(EVERY).double().exp()
    agrees = (EVERY == X)[:, :, observed].all(2).all(1)
    p = p.masked_fill(~agrees, 0.0)
    return p / p.sum(), float(p.sum())


def frequencies(images: Tensor) -> Tensor:
    """Of each of the 512 images, [512]; images [n, 1, 3, 3]."""
    code = (images.reshape(-1, 9) * 2 ** torch.arange(8, -1, -1)).sum(1)
    return torch.bincount(code, minlength=512).double() / len(code)


def distance(images: Tensor, p: Tensor) -> float:
    """Total variation between the images' frequencies and p."""
    return 0.5 * float((frequencies(images) - p).abs().sum())


def test_the_stepwise_forms_agree() -> None:
    model = models.GatedPixelCNN(SPEC, layers=2, channels=4, head_channels=4).double().eval()
    fast, slow = model.stepwise(2, None), particles.WholePasses(model, 2, None)
    index = torch.tensor([1, 0, 1])
    for number in range(9):
        assert fast.place == slow.place
        assert torch.allclose(fast.log_table(), slow.log_table(), atol=1e-9)
        levels = torch.tensor([number % 2, number // 4 % 2, 1])
        for steps in (fast, slow):
            steps.push(levels if number >= 4 else levels[:2])
            if number == 3:
                steps.take(index)
    assert torch.equal(fast.images, slow.images)
    assert fast.place is None


@pytest.mark.parametrize("mask", MASKS)
def test_particles_draw_from_the_conditional(mask: str) -> None:
    model, observed = chain(), MASKS[mask]
    p, p_observed = truth(model, observed)
    given = torch.where(observed, X, 0)
    drawn = completions(model, given, observed, 20_000, particles=20_000)
    assert distance(drawn.images[0], p) < 0.02
    assert abs(float(drawn.log_observed.exp()) / p_observed - 1) < 0.03
    assert drawn.relation is Relation.UPPER
    assert not drawn.exact
    assert torch.equal(drawn.images[..., observed], X.expand(1, 20_000, 1, 3, 3)[..., observed])


def bias(factor: float = 8.0, seeds: int = 300) -> float:
    """How far the mean of p(observed) over seeds is from the truth, in standard errors."""
    model, observed = chain(factor), MASKS["bottom"]
    _, p_observed = truth(model, observed)
    many = completions(model, X.expand(seeds, 1, 3, 3), observed, particles=8)
    values = many.log_observed.exp()
    return abs(float(values.mean()) - p_observed) / max(1e-9, float(values.std() / seeds**0.5))


@pytest.mark.parametrize(
    ("factor", "seeds"), [(8.0, 300), (4.0, 1000)], ids=["all resample", "some resample"]
)
def test_the_estimate_of_p_observed_is_unbiased(factor: float, seeds: int) -> None:
    assert bias(factor, seeds) < 3.0


@pytest.mark.parametrize(
    ("name", "defect"),
    [
        ("weighed", lambda log_weights, log_p: log_weights + 0 * log_p),
        ("reset", lambda log_weights, few: log_weights),
    ],
)
def test_wrong_weights_are_noticed(
    name: str, defect: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(particles, name, defect)
    assert bias() > 6.0


def test_what_the_draws_are_worth_is_the_least_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([20.0, 18.0, *[25.0] * 9])
    monkeypatch.setattr(particles, "effective", lambda w: w.new_full((len(w),), next(values)))
    drawn = chain().completions(X, MASKS["scattered"], method="smc", particles=32)
    assert drawn.effective.tolist() == [18.0]
    assert next(values) == 25.0


def refined_distance() -> float:
    """Of chains that begin with the observed pixels and anything."""
    model, observed = chain(), MASKS["scattered"]
    p, _ = truth(model, observed)
    starts = torch.where(observed, X, torch.zeros_like(X)).expand(4000, 1, 3, 3)
    noise = Noise(0)
    x, _, trace = blocks.refined(model, starts, observed, noise, None, 12, block=2)
    assert trace.shape == (13, 4000)
    return distance(x, p)


def test_blocks_leave_the_conditional_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refined_distance() < 0.04
    monkeypatch.setattr(blocks, "accepted", lambda log_ratio, uniform: uniform >= 0)
    assert refined_distance() > 0.1


def test_gibbs_begins_with_particles_and_says_how_it_went() -> None:
    model, observed = chain(), MASKS["scattered"]
    p, _ = truth(model, observed)
    drawn = model.completions(X, observed, 4000, method="gibbs", particles=16, sweeps=6)
    assert distance(drawn.images[0], p) < 0.04
    assert drawn.acceptance is not None
    assert 0.05 < drawn.acceptance <= 1
    assert "autocorrelation" in str(drawn)


def test_first_pixels_are_exact_and_their_bits_add_up() -> None:
    model = chain()
    top = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0]]).bool()
    drawn = completions(model, X, top, 3, seed=4)
    assert drawn.exact
    assert drawn.relation is Relation.EXACT
    assert torch.equal(
        model.complete(X, top, seed=4), completions(model, X, top, seed=4).images[:, 0]
    )
    p, p_observed = truth(model, top)
    assert abs(float(drawn.log_observed.exp()) - p_observed) < 1e-9
    first, missing, total = completed_nats(model, X, top, drawn)
    index = int((EVERY == X).flatten(1).all(1).nonzero())
    assert abs(missing.value + float(p[index].log())) < 1e-6
    assert abs(first.value + missing.value - total.value) < 1e-6
    assert missing.relation is Relation.EXACT
    particles = completions(model, X, ~top)
    first, missing, _ = completed_nats(model, X, ~top, particles)
    assert (first.relation, missing.relation) == (Relation.UPPER, Relation.LOWER)
    assert answer(model, top).guarantee is Guarantee.EXACT
    assert answer(model, ~top).guarantee is Guarantee.APPROXIMATE
    with pytest.raises(Unanswerable, match="method=smc"):
        model.complete(X, ~top, method="exact")
    with pytest.raises(InvalidSetting, match="did you mean"):
        model.completions(X, top, method="gibs")
    with pytest.raises(InvalidSetting, match="particles must be at least 1"):
        completions(model, X, ~top, particles=0)


def test_an_order_agnostic_network_is_exact_in_its_order() -> None:
    model = redrawn(models.DeepNADE(SPEC, hidden=6), 1.0)
    assert isinstance(model, Autoregressive)
    observed = MASKS["scattered"]
    drawn = completions(model, X, observed, 5000)
    assert drawn.exact
    total = completed_nats(model, X, observed, drawn)[2]
    order = (~observed).flatten().double().argsort(stable=True)
    model.rank = order.argsort().reshape(3, 3)  # the same network, with these pixels first
    p, p_observed = truth(model, observed)
    assert abs(total.value + float(model.log_prob(X).detach())) < 1e-6
    assert abs(float(drawn.log_observed.exp()) - p_observed) < 1e-9
    assert distance(drawn.images[0], p) < 0.035


def test_a_mixture_draws_a_member_by_what_is_observed() -> None:
    model = Ensemble([chain(), chain(-2.0)], NoSettings())
    top = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0]]).bool()
    for observed, exact in ((top, True), (MASKS["scattered"], False)):
        p, p_observed = truth(model, observed)
        drawn = completions(model, X, observed, 5000, particles=5000)
        assert drawn.exact == exact
        assert answer(model, observed).guarantee.value == ("exact" if exact else "approximate")
        assert distance(drawn.images[0], p) < 0.035
        assert abs(float(drawn.log_observed.exp()) / p_observed - 1) < (1e-9 if exact else 0.05)


def test_orders_that_begin_with_what_is_observed_answer_for_the_mixture() -> None:
    model = models.GatedPixelCNNOrders(SPEC, layers=1, channels=4, head_channels=4)
    lower = torch.tensor([[0, 0, 0], [1, 1, 1], [1, 1, 1]]).bool()
    drawn = likely.ask(model, "complete", X, lower)
    assert torch.equal(drawn[..., lower], X[..., lower])
    assert completions(model, X, lower).exact
    assert "members" in completions(model, X, lower).about


def vae(factor: float = 0.7) -> LatentVariable:
    model = redrawn(models.VAE(SPEC, latent=1, network="dense", hidden=8, layers=1), factor)
    assert isinstance(model, LatentVariable)
    return model


def integrated(model: LatentVariable, observed: Tensor) -> tuple[Tensor, float]:
    """p(x | observed) over all images and p(observed), by a fine grid of codes."""
    z = torch.linspace(-6, 6, 201, dtype=torch.float64)[:, None]
    with torch.no_grad():
        output = model.decoder_output(z)
        given_z = torch.stack(
            [model.likelihood_given_z.log_prob(x.expand(201, 1, 3, 3), output) for x in EVERY]
        )
    p = (given_z + model.prior.log_prob(z)).exp().sum(1) * 12 / 200
    agrees = (EVERY == X)[:, :, observed].all(2).all(1)
    p = p.masked_fill(~agrees, 0.0)
    return p / p.sum(), float(p.sum())


def test_weighed_codes_draw_from_the_conditional() -> None:
    model, observed = vae(), MASKS["scattered"]
    p, p_observed = integrated(model, observed)
    drawn = completions(model, X, observed, 20_000, particles=20_000)
    assert distance(drawn.images[0], p) < 0.02
    assert abs(float(drawn.log_observed.exp()) / p_observed - 1) < 0.03
    assert "worth at least" in str(drawn)
    first, total = completed_nats(model, X, observed, drawn)
    assert (first.relation, total.relation) == (Relation.UPPER, Relation.UPPER)


@pytest.mark.parametrize("few", [1, 3])
def test_an_odd_number_of_weighed_codes_estimates_p_observed_without_bias(few: int) -> None:
    """More of them come from the prior than from the encoder."""
    model, observed = vae(1.5), MASKS["bottom"]
    _, p_observed = integrated(model, observed)
    many = X.repeat(150, 1, 1, 1)
    ratio = completions(model, many, observed, particles=few).log_observed.exp() / p_observed
    assert abs(float(ratio.mean()) - 1) < 3.0 * float(ratio.std()) / len(many) ** 0.5


def test_trajectories_in_z_leave_the_conditional_as_it_is() -> None:
    """From codes that are nearly one: eight of them, resampled to 1,000 chains."""
    model, observed = vae(), MASKS["scattered"]
    p, _ = integrated(model, observed)
    drawn = completions(model, X, observed, 1000, particles=8, method="hmc")
    floor = float((p * (1 - p) / 1000).sqrt().sum() / 2)  # of as many independent draws
    assert distance(drawn.images[0], p) < 1.3 * floor
    assert drawn.acceptance is not None
    assert drawn.acceptance > 0.5
    assert "Hamiltonian" in str(drawn)
    assert not drawn.collapsed


def test_trajectories_leave_a_gaussian_as_wide_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are tuned to be far from exact, so that only the whole ratio keeps its width."""
    imputer = Imputer(vae(), X, MASKS["scattered"], None, Noise(5))
    monkeypatch.setattr(imputer, "log_joint", lambda z: (-0.5 * z.double().square().sum(1), -z))
    moved, share, _ = imputer.trajectories(Noise(6).normal(6000, 1), 8)
    assert share < 0.95
    assert float(moved.std()) == pytest.approx(1, abs=0.04)


def test_collapse_is_said_and_who_cannot_refuses() -> None:
    drawn = completions(chain(), X, MASKS["bottom"], particles=1)
    assert drawn.collapsed
    assert "collapsed" in str(drawn)
    dcgan = models.DCGAN(DataSpec("tiny", (1, 8, 8), 2), latent=2, channels=2)
    with pytest.raises(Unanswerable, match="no density"):
        completions(dcgan, torch.zeros(1, 1, 8, 8, dtype=torch.int64), torch.ones(8, 8).bool())


def test_the_command_draws_a_sheet_and_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, mask, image = tmp_path / "run", tmp_path / "mask.png", tmp_path / "image.npy"
    words = "--data digits --levels 2 --steps 2"
    assert main(["fit", "fvsbn", *words.split(), "--out", str(run)]) == 0
    capsys.readouterr()
    array = tmp_path / "draws.npy"
    command = ["complete", str(run), "--particles", "4", "-n", "3"]
    assert main([*command, "--rows", "0:4", "--npy", str(array), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["guarantee"], record["observed"]) == ("exact", 32)
    first, missing, total = (estimate["value"] for estimate in record["estimates"])
    assert abs(first + missing - total) < 1e-4
    assert np.load(array).shape == (3, 1, 8, 8)
    Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(mask)
    np.save(image, np.zeros((1, 8, 8), np.int64))
    assert main([*command[:2], str(image), *command[2:], "--mask", str(mask), "--missing"]) == 0
    printed = capsys.readouterr().out
    assert "image.npy, 56 of 64 pixels observed" in printed
    assert "-log p(observed)                   <=" in printed
    assert "approximate: sequential Monte Carlo" in printed
    Image.fromarray(np.zeros((4, 8), np.uint8)).save(mask)
    for arguments, said in (
        (["--mask", str(mask)], "has 4 x 8 pixels, and digits 8 x 8"),
        (["--rows", "0:8"], "all pixels are observed"),
        (["--rows", "0:8", "--missing"], "no pixel is observed"),
        (["--rows", "4"], "expected a range, as 0:4"),
        (["--columns", "2:9"], "the image ends at 8"),
        ([], "say what is observed"),
        (["--rows", "2:4", "--method", "exact"], "take method=smc"),
        (["--rows", "2:4", "--example", "100000"], "counted from 0"),
    ):
        assert main([*command, *arguments]) == 2
        assert said in capsys.readouterr().err
