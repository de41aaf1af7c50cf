"""Objectives: values by hand, bounds in order, gradients to the right player."""

from __future__ import annotations

import inspect
import math
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from fit_cases import model_of, training_data
from likely import runs
from likely.data.spec import DataSpec
from likely.density import (
    DiagonalGaussian,
    GenerativeModel,
    ImplicitDensity,
    LatentVariable,
    Likelihood,
    latent,
)
from likely.errors import InvalidSetting
from likely.heads import Bernoulli
from likely.models.gan.adversary import DISCRIMINATOR
from likely.noise import Noise
from likely.settings import FitSettings
from likely.training.adversarial import GENERATOR, NonSaturatingGAN, RelativisticGAN
from likely.training.loop import fit
from likely.training.objectives import (
    ENCODER,
    MODEL,
    ImportanceWeighted,
    Loss,
    NegativeELBO,
    NegativeLogLikelihood,
    Objective,
    OrderAgnosticLikelihood,
    Step,
    SubsampledLikelihood,
    default_objective,
)
from likely.training.run import Stopped


def images(n: int = 4) -> Tensor:
    return torch.from_numpy(training_data().batch(slice(0, n)).x.astype(np.int64))


def loss_of(
    objective: Objective, model: GenerativeModel, x: Tensor | None = None, player: str = MODEL,
    players: dict[str, nn.Module] | None = None, *, context: Tensor | None = None,
    number: int = 0, noise: Noise | None = None,
) -> Loss:  # fmt: skip
    """The loss of one player on some images."""
    return objective.loss(
        Step(
            model, players or objective.players(model), player, images() if x is None else x,
            context, noise or Noise(0), number,
        )
    )  # fmt: skip


def test_each_kind_has_its_objective_and_refuses_the_others() -> None:
    pixelcnn, vae, dcgan = (model_of(case) for case in ("pixelcnn", "vae-dense", "dcgan-r1"))
    assert default_objective(pixelcnn) == NegativeLogLikelihood()
    assert default_objective(vae) == NegativeELBO()
    assert default_objective(dcgan) == RelativisticGAN()
    assert list(RelativisticGAN().players(dcgan)) == [DISCRIMINATOR, GENERATOR]
    assert list(NegativeELBO().players(vae)) == [MODEL]
    wrong: list[tuple[Objective, GenerativeModel]] = [
        (NegativeLogLikelihood(), vae), (NegativeELBO(), pixelcnn),
        (ImportanceWeighted(), dcgan), (NonSaturatingGAN(), vae), (RelativisticGAN(), pixelcnn),
    ]  # fmt: skip
    for objective, model in wrong:
        with pytest.raises(InvalidSetting, match=f"{type(objective).__name__} needs"):
            objective.players(model)


def test_the_likelihood_loss_is_minus_log_prob() -> None:
    model = model_of("pixelcnn").eval()
    label = torch.zeros(4, dtype=torch.int64)
    loss = loss_of(NegativeLogLikelihood(), model, context=label)
    assert torch.equal(loss.value, -model.log_prob(images(), label))  # type: ignore[operator]
    assert loss.terms["nll"].grad_fn is None


def test_beta_its_warm_up_and_free_nats() -> None:
    model = model_of("vae-dense")
    assert isinstance(model, LatentVariable)
    x = images()
    reconstruction, by_coordinate = model.elbo_terms(x, Noise(0))
    kl = by_coordinate.sum(-1)

    def value(objective: NegativeELBO, step: int = 0) -> Tensor:
        return loss_of(objective, model, x, number=step).value

    torch.testing.assert_close(value(NegativeELBO()), kl - reconstruction)
    torch.testing.assert_close(value(NegativeELBO(beta=3.0)), 3 * kl - reconstruction)
    torch.testing.assert_close(value(NegativeELBO(warmup=10), 4), 0.5 * kl - reconstruction)
    torch.testing.assert_close(value(NegativeELBO(warmup=10), 50), kl - reconstruction)
    torch.testing.assert_close(value(NegativeELBO(free_nats=99.0)), 99.0 - reconstruction)
    # What is logged is the bound itself, whatever was weighted.
    logged = loss_of(NegativeELBO(beta=3.0), model, x).terms
    torch.testing.assert_close(logged["negative_elbo"], kl - reconstruction)


def test_more_importance_samples_give_a_lower_loss_on_average() -> None:
    model = model_of("vae-dense")
    values = [
        loss_of(ImportanceWeighted(k), model, images(64), noise=Noise(1)).value.mean()
        for k in (1, 8, 64)
    ]
    assert values[0] > values[1] > values[2]


def squared_gradients(critic: nn.Module, x: Tensor) -> Tensor:
    """|grad D|^2 of each image by itself, by central differences in double precision."""
    step, totals = 1e-5, []
    for image in x:
        flat = image.flatten()
        moved = flat + torch.cat([step * torch.eye(len(flat)), -step * torch.eye(len(flat))])
        with torch.no_grad():
            up, down = critic(moved.view(-1, *image.shape), None).chunk(2)
        totals.append(((up - down) / (2 * step)).square().sum())
    return torch.stack(totals)


def test_the_two_games_by_hand() -> None:
    model = model_of("dcgan-r1").double()
    assert isinstance(model, ImplicitDensity)
    players = RelativisticGAN().players(model)
    critic = players[DISCRIMINATOR].double()
    torch.set_default_dtype(torch.float64)
    try:
        x = images()
        generated = model.generate(model.latents(Noise(0), len(x)))
        real, fake = critic(model.scaled(x), None), critic(generated, None)
        r1 = squared_gradients(critic, model.scaled(x))
        r2 = squared_gradients(critic, generated.detach())
    finally:
        torch.set_default_dtype(torch.float32)

    def value(objective: Objective, player: str) -> Tensor:
        return loss_of(objective, model, x, player, players).value

    plain, penalised = NonSaturatingGAN(), NonSaturatingGAN(penalty=3.0)
    torch.testing.assert_close(value(plain, DISCRIMINATOR), softplus(-real) + softplus(fake))
    torch.testing.assert_close(value(plain, GENERATOR), softplus(-fake))
    torch.testing.assert_close(
        value(penalised, DISCRIMINATOR), softplus(-real) + softplus(fake) + 1.5 * r1
    )
    pairs = RelativisticGAN(penalty=3.0)
    torch.testing.assert_close(value(pairs, DISCRIMINATOR), softplus(fake - real) + 1.5 * (r1 + r2))
    torch.testing.assert_close(value(pairs, GENERATOR), softplus(real - fake))
    # What is logged: the logits, the share that D judges right, the penalties before their weight.
    right = {plain: ((real > 0).double() + (fake < 0).double()) / 2, pairs: (real > fake).double()}
    for objective, penalty in ((plain, 0 * r1), (pairs, r1 + r2)):
        terms = loss_of(objective, model, x, DISCRIMINATOR, players).terms
        expected = {
            "discriminator_loss": value(objective, DISCRIMINATOR), "real_logit": real,
            "fake_logit": fake, "discriminator_accuracy": right[objective],
            "gradient_penalty": penalty,
        }  # fmt: skip
        assert terms.keys() == expected.keys()
        for name, term in terms.items():
            torch.testing.assert_close(term.double(), expected[name].detach(), msg=name)


@pytest.mark.parametrize("objective", [NonSaturatingGAN(1.0), RelativisticGAN()])
def test_the_discriminators_loss_sends_nothing_to_the_generator(objective: Objective) -> None:
    model = model_of("dcgan-r1")
    players = objective.players(model)
    loss_of(objective, model, player=DISCRIMINATOR, players=players).value.sum().backward()
    assert all(p.grad is None for p in players[GENERATOR].parameters())
    assert all(p.grad is not None for p in players[DISCRIMINATOR].parameters())
    loss_of(objective, model, player=GENERATOR, players=players).value.sum().backward()
    assert all(p.grad is not None for p in players[GENERATOR].parameters())


@pytest.mark.parametrize(
    ("name", "objective"),
    [
        ("gated-pixelcnn", NegativeLogLikelihood()), ("vae", NegativeELBO()),
        ("vae", ImportanceWeighted(2)), ("deep-nade", OrderAgnosticLikelihood()),
        ("made-ensemble", SubsampledLikelihood()),
        ("dcgan", NonSaturatingGAN(1.0)), ("dcgan", RelativisticGAN()),
    ],
)  # fmt: skip
def test_labels_reach_everything_that_a_loss_asks(name: str, objective: Objective) -> None:
    """Each method that takes a context is given that of the batch, for every player."""
    model = runs.build(name, training_data().spec, {"conditional": True}, 0)
    labels, contexts = torch.arange(4), []
    players = objective.players(model)
    methods = (
        "log_prob", "elbo_terms", "log_weights", "predictions", "surrogate", "generate",
    )  # fmt: skip
    for owner, method in [
        *((model, method) for method in methods if hasattr(model, method)),
        *((network, "forward") for network in players.values() if network is not model),
    ]:
        asked = getattr(owner, method)

        def noted(*args: Any, asked: Any = asked, **named: Any) -> Any:
            contexts.append(inspect.signature(asked).bind(*args, **named).arguments.get("context"))
            return asked(*args, **named)

        setattr(owner, method, noted)
    for player in players:
        before = len(contexts)
        loss_of(objective, model, images(), player, players, context=labels)
        assert len(contexts) > before
    assert all(context is labels for context in contexts)


class Normal(Likelihood):
    """x ~ N(output, 0.5^2), a density of the integers as if they were real numbers."""

    head = Bernoulli(1)
    features = 1

    def conditionals(self, x: Tensor, output: Tensor) -> Tensor:
        return output

    def draw(self, output: Tensor, uniform: Tensor) -> Tensor:
        raise AssertionError

    def mean(self, output: Tensor) -> tuple[Tensor, Tensor]:
        raise AssertionError

    def log_prob(self, x: Tensor, output: Tensor) -> Tensor:
        scale = torch.full_like(output, math.log(0.5)).flatten(1)
        return DiagonalGaussian(output.flatten(1), scale).log_prob(x.flatten(1))


class LinearGaussian(LatentVariable):
    """x = W z + noise of s.d. 0.5, the columns of W orthogonal: p(z|x) is a diagonal Gaussian."""

    def __init__(self) -> None:
        super().__init__(DataSpec("t", (1, 2, 2), 2), 0)
        self.latent, self.head = 2, Bernoulli(1)
        columns = [[1.0, 0.5, 0.0, -1.0], [0.5, 1.0, 2.0, 1.0]]
        self.weight = nn.Parameter(torch.tensor(columns, dtype=torch.float64).T)
        precision = 1 + self.weight.detach().square().sum(0) / 0.25
        self.encoder = nn.Linear(4, 2, bias=True, dtype=torch.float64)
        with torch.no_grad():
            self.encoder.weight.copy_(self.weight.T / 0.25 / precision[:, None])
            self.encoder.bias.zero_()
        self.log_scale = nn.Parameter(-precision.log() / 2)

    def posterior(self, x: Tensor, context: Tensor | None = None) -> DiagonalGaussian:
        mean = self.encoder(x.double().flatten(1))
        return DiagonalGaussian(mean, self.log_scale.expand_as(mean))

    @property
    def likelihood_given_z(self) -> Normal:
        return Normal()

    def decoder_output(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return (z @ self.weight.T).reshape(-1, 1, 2, 2)


def slopes(model: LinearGaussian, objective: Objective, seed: int) -> tuple[Tensor, Tensor]:
    """Gradients of the mean loss of four images: (of the encoder, of the decoder)."""
    model.zero_grad()
    x = torch.randint(2, (4, 1, 2, 2), generator=torch.Generator().manual_seed(9))
    loss_of(objective, model, x, noise=Noise(seed)).value.mean().backward()
    encoder = [model.encoder.weight, model.encoder.bias, model.log_scale]
    grads = [torch.zeros(1).double() if p.grad is None else p.grad.flatten() for p in encoder]
    assert model.weight.grad is not None
    return torch.cat(grads), model.weight.grad.clone()


def no_slope_at_the_exact_posterior(gradient: str, objective: type[Objective]) -> None:
    for seed in range(3):
        encoder, decoder = slopes(LinearGaussian(), objective(gradient=gradient), seed)  # type: ignore[call-arg]
        assert float(encoder.abs().max()) < 1e-10
        assert float(decoder.abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("gradient", "objective"),
    [("stl", ImportanceWeighted), ("dreg", ImportanceWeighted), ("stl", NegativeELBO)],
)
def test_without_the_score_an_exact_posterior_has_no_gradient_for_any_draw(
    gradient: str, objective: type[Objective]
) -> None:
    no_slope_at_the_exact_posterior(gradient, objective)


def test_a_score_that_is_left_in_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: log q of the drawn z with its parameters attached."""
    monkeypatch.setattr(latent, "_drawn", lambda q, at, score, reached=None: q.draw(at))
    for objective in (ImportanceWeighted, NegativeELBO):
        with pytest.raises(AssertionError):
            no_slope_at_the_exact_posterior("stl", objective)


def test_the_plain_gradient_vanishes_on_average_alone() -> None:
    plain = ImportanceWeighted(k=3)
    each = torch.stack([slopes(LinearGaussian(), plain, seed)[0] for seed in range(80)])
    assert float(each.abs().max()) > 0.05
    error = each.std(0) / len(each) ** 0.5
    assert float((each.mean(0) / error).abs().max()) < 4.5


def test_doubly_reparameterised_gradients_have_the_mean_of_the_plain_ones_and_less_noise() -> None:
    model = LinearGaussian()
    with torch.no_grad():
        model.encoder.bias += 0.3
        model.log_scale += 0.3
    plain, doubly = (
        [slopes(model, ImportanceWeighted(k=4, gradient=g), seed) for seed in range(160)]
        for g in ("plain", "dreg")
    )
    for of_plain, of_doubly in zip(plain[:5], doubly[:5], strict=True):
        torch.testing.assert_close(of_plain[1], of_doubly[1])  # the decoder's is the same
    first, second = (torch.stack([encoder for encoder, _ in some]) for some in (plain, doubly))
    error = torch.sqrt((first.var(0) + second.var(0)) / len(first))
    assert float(((first.mean(0) - second.mean(0)) / error).abs().max()) < 4.5
    assert float(second.var(0).sum()) < 0.7 * float(first.var(0).sum())
    # The value is the bound, whatever its gradient.
    values = [loss_of(ImportanceWeighted(3, g), model, torch.ones(2, 1, 2, 2, dtype=torch.int64))
              .value for g in ("plain", "stl", "dreg")]  # fmt: skip
    assert torch.equal(values[0], values[1])
    assert torch.equal(values[0], values[2])


def test_gradients_without_the_score_need_a_gaussian_posterior() -> None:
    spec = DataSpec("t", (1, 4, 4), 2)
    model = runs.build("vae", spec, {"posterior": "iaf", "latent": 2, "network": "dense"})
    x = torch.zeros(2, 1, 4, 4, dtype=torch.int64)
    for objective in (ImportanceWeighted(2, "dreg"), NegativeELBO(gradient="stl")):
        with pytest.raises(InvalidSetting, match="gradient=plain"):
            loss_of(objective, model, x)


def test_free_nats_are_of_the_mean_over_the_batch_and_of_each_layer() -> None:
    spec = DataSpec("t", (1, 8, 8), 2)
    settings = {"layers": 2, "latent": 1, "channels": 4}
    model = runs.build("hierarchical-vae", spec, settings)
    assert isinstance(model, LatentVariable)
    x = torch.randint(2, (6, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    reconstruction, kl = model.elbo_terms(x, Noise(0))
    low, high = sorted(kl.mean(0).tolist())
    between = (low + high) / 2
    loss = loss_of(NegativeELBO(free_nats=between), model, x)
    torch.testing.assert_close(loss.value, kl[:, int(kl[:, 1].mean() > between)] + between
                               - reconstruction)  # fmt: skip
    # One example may have less than that where the mean has more.
    assert torch.equal(loss_of(NegativeELBO(free_nats=low / 2), model, x).value,
                       loss_of(NegativeELBO(), model, x).value)  # fmt: skip
    assert {"kl_layer_1", "kl_layer_2", "kl"} <= set(loss.terms)
    torch.testing.assert_close(loss.terms["kl_layer_2"], kl[:, 0].detach())  # top first
    torch.testing.assert_close(loss.terms["negative_elbo"], (kl.sum(1) - reconstruction).detach())


def test_the_encoder_alone_moves_until_its_loss_stops_falling() -> None:
    objective = NegativeELBO(encoder_updates=40, encoder_until=3)
    assert objective.updates(MODEL, 0) == 1
    assert [objective.updates(ENCODER, number) for number in (0, 2, 3)] == [40, 40, 0]
    falling, level = [1.0 - 0.01 * i for i in range(20)], [1.0] * 20
    assert not objective.enough(ENCODER, falling)
    assert not objective.enough(ENCODER, level[:19])
    assert objective.enough(ENCODER, level)
    assert not objective.enough(MODEL, level)
    model = model_of("vae-dense")
    players = objective.players(model)
    assert list(players) == [ENCODER, MODEL]
    assert players[MODEL] is model
    assert set(players[ENCODER].parameters()) == set(model.encoder.parameters())


@pytest.mark.parametrize("changes", [{}, {"posterior": "iaf"}, {"conditional": True}])
def test_the_encoder_is_all_that_the_posterior_is_computed_from(changes: dict[str, Any]) -> None:
    spec = DataSpec("toy", (1, 4, 4), 2, classes=("a", "b"))
    model = runs.build("vae", spec, {"network": "dense", "hidden": 6, "latent": 2, **changes}, 0)
    assert isinstance(model, LatentVariable)
    labels = torch.tensor([0, 1]) if model.classes else None
    q = model.posterior(torch.zeros(2, 1, 4, 4, dtype=torch.int64), labels)
    weights = list(model.parameters())
    slopes = torch.autograd.grad(q.sample(torch.ones(2, 2)).sum(), weights, allow_unused=True)
    reached = {w for w, slope in zip(weights, slopes, strict=True) if slope is not None}
    assert set(NegativeELBO(encoder_updates=2).players(model)[ENCODER].parameters()) == reached


def test_aggressive_training_resumes_bit_for_bit(tmp_path: Path) -> None:
    objective = NegativeELBO(encoder_updates=21, encoder_until=2)
    settings = FitSettings(steps=3, batch_size=8, log_every=1, validate_every=3, warmup=0,
                           checkpoint_seconds=0.0)  # fmt: skip
    whole = fit(model_of("vae-dense"), training_data(), objective, settings, out=tmp_path / "a")
    counts = [record["encoder_updates"] for record in whole.metrics if "encoder_updates" in record]
    assert all(count in (20, 21) for count in counts[:2])
    assert len(counts) < 3 or counts[2] == 0

    def stop(run: Any, record: dict[str, float]) -> None:
        if record["step"] == 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.warns(Stopped):
        fit(model_of("vae-dense"), training_data(), objective, settings, out=tmp_path / "b",
            progress=stop)  # fmt: skip
    resumed = fit(model_of("vae-dense"), training_data(), objective, settings, out=tmp_path / "b")
    first, second = (run.model.state_dict() for run in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)
