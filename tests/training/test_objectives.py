"""Objectives: values by hand, bounds in order, gradients to the right player."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from fit_cases import model_of, training_data
from likely import runs
from likely.density import GenerativeModel, ImplicitDensity, LatentVariable
from likely.errors import InvalidSetting
from likely.models.gan.adversary import DISCRIMINATOR
from likely.noise import Noise
from likely.training.objectives import (
    GENERATOR,
    MODEL,
    ImportanceWeighted,
    Loss,
    NegativeELBO,
    NegativeLogLikelihood,
    NonSaturatingGAN,
    Objective,
    OrderAgnosticLikelihood,
    RelativisticGAN,
    Step,
    SubsampledLikelihood,
    default_objective,
)


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
    methods = ("log_prob", "elbo_terms", "importance_bound", "predictions", "surrogate", "generate")
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
