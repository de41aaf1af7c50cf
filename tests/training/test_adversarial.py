"""Games: the closed forms of small ones, and what every game takes.

The Dirac GAN (Mescheder, Geiger and Nowozin 2018, https://arxiv.org/abs/1801.04406, sec. 2): data
at 0, G = theta, D(x) = psi x. One step of gradient descent is a map of (theta, psi) that is linear
near the equilibrium (0, 0), and its spectral radius says how fast distances to it shrink or grow.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from fit_cases import model_of, training_data
from likely import runs
from likely.data.spec import DataSpec
from likely.density import ImplicitDensity
from likely.errors import InvalidSetting
from likely.models.gan.adversary import DISCRIMINATOR, PackedDiscriminator, adversary_of
from likely.noise import Noise
from likely.settings import FitSettings
from likely.training.adversarial import (
    GENERATOR,
    Game,
    HingeGAN,
    LeastSquaresGAN,
    MinimaxGAN,
    NonSaturatingGAN,
    RelativisticGAN,
    WassersteinGAN,
)
from likely.training.augmentation import augmented
from likely.training.loop import fit
from likely.training.players import Step
from likely.training.registry import Augmentation

RATE = 0.2  # of the Dirac GAN's gradient descent
GAMES = (MinimaxGAN, NonSaturatingGAN, LeastSquaresGAN, HingeGAN, WassersteinGAN, RelativisticGAN)


class Slope(nn.Module):
    """D(x) = psi x."""

    def __init__(self) -> None:
        super().__init__()
        self.psi = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self.psi * x[:, 0]


class Dirac(ImplicitDensity):
    """G = theta, against data of the middle level, which is 0 in [-1, 1]."""

    takes_vectors = True

    def __init__(self) -> None:
        super().__init__(DataSpec("dirac", (1,), 3), 0)
        self.theta = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def adversary(self) -> Slope:
        return Slope()

    def latents(self, noise: Noise, n: int) -> Tensor:
        return torch.zeros(n, 1, dtype=torch.float64)

    def generate(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return self.theta + z


def moved(game: Game, start: tuple[float, float], steps: int, alternating: bool) -> list[Tensor]:
    """(theta, psi) before and after every step of plain gradient descent."""
    model = Dirac()
    players = game.players(model)
    (theta, psi), path = (model.theta, players[DISCRIMINATOR].psi), []
    with torch.no_grad():
        theta.fill_(start[0])
        psi.fill_(start[1])
    path = [torch.stack([theta[0], psi[0]]).detach()]
    turns = {DISCRIMINATOR: psi, GENERATOR: theta}
    for number in range(steps):
        slopes = {}
        for player, weight in turns.items():
            x = torch.ones(1, 1, dtype=torch.int64)
            value = game.loss(Step(model, players, player, x, None, Noise(0), number)).value
            (slopes[player],) = torch.autograd.grad(value.sum(), weight)
            if alternating:
                weight.data -= RATE * slopes[player]
        if not alternating:
            for player, weight in turns.items():
                weight.data -= RATE * slopes[player]
        if largest := game.largest_weight(DISCRIMINATOR):
            psi.data.clamp_(-largest, largest)
        path.append(torch.stack([theta[0], psi[0]]).detach())
    return path


def factor(game: Game, alternating: bool = False) -> float:
    """The spectral radius of a step at the equilibrium."""
    small = 1e-5
    ends = [moved(game, start, 1, alternating)[-1] for start in ((small, 0.0), (0.0, small))]
    return float(torch.linalg.eigvals(torch.stack(ends, 1) / small).abs().max())


CLOSED_FORMS: list[tuple[Game, bool, float]] = [
    (MinimaxGAN(), False, math.sqrt(1 + RATE**2 / 4)),  # 1.004988: it diverges
    (NonSaturatingGAN(), False, 1.004988),
    (RelativisticGAN(penalty=0.0), False, 1.004988),
    (MinimaxGAN(), True, 1.0),  # it circles
    (NonSaturatingGAN(), True, 1.0),
    (NonSaturatingGAN(penalty=0.3), False, 0.974679),
    (MinimaxGAN(penalty=0.3), False, 0.974679),
    (NonSaturatingGAN(penalty=1.0), False, 0.9),
    (NonSaturatingGAN(penalty=0.3), True, 0.969536),
    (RelativisticGAN(penalty=0.3), False, 0.943398),
    # f'(0) is 1 in the games without a logistic function.
    (WassersteinGAN(penalty=0.0), False, math.sqrt(1 + RATE**2)),
    (HingeGAN(penalty=0.6), False, math.sqrt(1 - 0.6 * RATE + RATE**2)),
]


@pytest.mark.parametrize(("game", "alternating", "expected"), CLOSED_FORMS)
def test_the_dirac_game_shrinks_or_grows_by_its_factor(
    game: Game, alternating: bool, expected: float
) -> None:
    # At a double eigenvalue the factor moves as the root of a rounding error.
    assert factor(game, alternating) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    "game", [WassersteinGAN(penalty=0.0, clip_weights=0.1), WassersteinGAN(penalty=1.0)]
)
def test_the_dirac_game_of_wasserstein_circles(game: Game) -> None:
    path = moved(game, (0.5, 0.05), 400, alternating=True)
    late = torch.stack(path[-100:])[:, 0].abs()
    assert 0.01 < float(late.max()) < 2.0
    settled = moved(RelativisticGAN(penalty=0.5), (0.5, 0.05), 400, alternating=True)
    assert float(settled[-1].abs().max()) < 1e-6


def test_a_defect_in_the_game_has_another_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: R1 alone in the pair, gamma for gamma / 2, and a generator that is sent away."""
    one_sided = RelativisticGAN(penalty=0.3, penalised="real")
    assert abs(factor(one_sided) - 0.943398) > 1e-3
    game, measure = NonSaturatingGAN(penalty=0.3), Game._logit_and_penalty

    def doubled(*inputs: Any) -> tuple[Tensor, Tensor]:
        logit, penalty = measure(*inputs)
        return logit, 2 * penalty

    with monkeypatch.context() as planted:
        planted.setattr(Game, "_logit_and_penalty", doubled)
        assert abs(factor(game) - 0.974679) > 1e-3
        assert abs(factor(game, alternating=True) - 0.969536) > 1e-3
    monkeypatch.setattr(NonSaturatingGAN, "generator_loss", lambda self, real, fake: softplus(fake))
    assert abs(factor(game) - 0.974679) > 1e-3


def test_a_penalty_at_other_images_is_noticed() -> None:
    """The gradient of D(x) = psi x^2 differs between the images."""

    class Square(Slope):
        def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
            return self.psi * x[:, 0].square()

    model, critic = Dirac(), Square()
    critic.psi.data.fill_(1.0)
    model.theta.data.fill_(0.5)
    x = torch.full((2, 1), 2)  # 1 in [-1, 1]
    slopes = {"real": 4.0, "generated": 1.0, "both": 5.0}
    for penalised, squared in slopes.items():
        game = NonSaturatingGAN(1.0, penalised)  # type: ignore[arg-type]
        step = Step(model, {DISCRIMINATOR: critic}, DISCRIMINATOR, x, None, Noise(0), 0)
        assert game.loss(step).terms["gradient_penalty"].tolist() == pytest.approx([squared] * 2)


# -- two Gaussians ------------------------------------------------------------------------------

WIDE = 8.0  # images in [-1, 1] stand for numbers in [-8, 8]
LEVELS = 2**16


class Line(nn.Module):
    """D(x) = a + b x of numbers in [-8, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.3, -0.4], dtype=torch.float64))

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self.weight[0] + self.weight[1] * WIDE * x[:, 0].double()


class Shifted(ImplicitDensity):
    """N(mean, 1), at its quantiles in an order of their own."""

    takes_vectors = True

    def __init__(self, mean: float) -> None:
        super().__init__(DataSpec("normal", (1,), LEVELS), 0)
        self.mean = nn.Parameter(torch.tensor(mean, dtype=torch.float64))

    def adversary(self) -> Line:
        return Line()

    def latents(self, noise: Noise, n: int) -> Tensor:
        return quantiles(n)[torch.randperm(n, generator=torch.Generator().manual_seed(0))]

    def generate(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return (self.mean + z) / WIDE


def quantiles(n: int) -> Tensor:
    """Those of N(0, 1) in the middle of n parts of equal probability, [n, 1]."""
    shares = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    return torch.special.ndtri(shares)[:, None]


def best_discriminator_loss(game: Game, mean: float, n: int = 4000) -> float:
    model = Shifted(mean)
    players = game.players(model)
    x = ((quantiles(n) / WIDE + 1) * (LEVELS - 1) / 2).round().long()
    weight = players[DISCRIMINATOR].weight
    search = torch.optim.LBFGS([weight], max_iter=40, line_search_fn="strong_wolfe")

    def value() -> Tensor:
        weight.grad = None
        loss = game.loss(Step(model, players, DISCRIMINATOR, x, None, Noise(0), 0)).value.mean()
        loss.backward()
        return loss.detach()

    search.step(value)
    return float(value())


@pytest.mark.parametrize("game", [MinimaxGAN(), NonSaturatingGAN()])
@pytest.mark.parametrize(
    ("mean", "value"), [(0.0, -1.386294), (0.5, -1.325672), (1.0, -1.163451), (2.0, -0.712633)]
)
def test_the_best_discriminator_of_two_gaussians_reaches_the_value_of_the_game(
    game: Game, mean: float, value: float
) -> None:
    """V* = 2 JSD - log 4, and D*(x) = mean^2 / 2 - mean x is a logit of features (1, x)."""
    assert -best_discriminator_loss(game, mean) == pytest.approx(value, abs=1e-3)


def test_relativistic_pairs_at_equality_are_told_apart_by_chance() -> None:
    assert best_discriminator_loss(RelativisticGAN(0.0), 0.0) == pytest.approx(
        math.log(2), abs=1e-3
    )
    assert best_discriminator_loss(RelativisticGAN(0.0), 1.0) < math.log(2) - 0.1


# -- losses and settings --------------------------------------------------------------------------


def test_the_losses_of_every_game_by_hand() -> None:
    real, fake = torch.tensor([0.3, -2.0]).double(), torch.tensor([1.5, -0.4]).double()
    real_p, fake_p = real.sigmoid(), fake.sigmoid()
    log_d = -real_p.log() - (1 - fake_p).log()
    expected: dict[type[Game], tuple[Tensor, Tensor]] = {
        MinimaxGAN: (log_d, (1 - fake_p).log()),
        NonSaturatingGAN: (log_d, -fake_p.log()),
        LeastSquaresGAN: (((real - 1) ** 2 + fake**2) / 2, (fake - 1) ** 2 / 2),
        HingeGAN: (torch.tensor([0.7 + 2.5, 3.0 + 0.6]).double(), -fake),
        WassersteinGAN: (fake - real, -fake),
        RelativisticGAN: (-(real - fake).sigmoid().log(), -(fake - real).sigmoid().log()),
    }
    assert expected.keys() == set(GAMES)
    for game, (of_discriminator, of_generator) in expected.items():
        torch.testing.assert_close(game().discriminator_loss(real, fake), of_discriminator)
        torch.testing.assert_close(game().generator_loss(real, fake), of_generator)


def played(game: Game, player: str = DISCRIMINATOR, number: int = 0, n: int = 4) -> Any:
    model = model_of("dcgan-r1")
    torch.manual_seed(0)
    players = game.players(model)
    x = torch.from_numpy(training_data().batch(slice(0, n)).x.astype("int64"))
    return game.loss(Step(model, players, player, x, None, Noise(3), number))


def test_a_lazy_penalty_has_the_same_mean() -> None:
    always, lazy = (NonSaturatingGAN(2.0, penalty_every=every) for every in (1, 4))
    plain = played(NonSaturatingGAN()).value
    rise = played(always).value - plain
    torch.testing.assert_close(played(lazy, number=4).value - plain, 4 * rise)
    torch.testing.assert_close(played(lazy, number=5).value, plain)


def test_the_penalty_falls_by_half_a_cosine_in_its_logarithm() -> None:
    game = NonSaturatingGAN(1e-4, first_penalty=1e-2, penalty_steps=8)
    weights = [game.gamma(number) for number in range(10)]
    assert weights[0] == pytest.approx(1e-2)
    assert weights[4] == pytest.approx(1e-3)
    assert weights[8:] == [1e-4, 1e-4]
    assert weights == sorted(weights, reverse=True)
    plain = played(NonSaturatingGAN(), number=4).value
    rise = played(NonSaturatingGAN(1e-3), number=4).value - plain
    torch.testing.assert_close(played(game, number=4).value - plain, rise)
    with pytest.raises(InvalidSetting, match="gamma falls from first_penalty"):
        NonSaturatingGAN(1.0, first_penalty=0.5, penalty_steps=3)


def test_a_penalty_between_pairs_wants_a_slope_of_one() -> None:
    model = Dirac()
    game = WassersteinGAN(penalty=10.0)
    players = game.players(model)
    x = torch.full((3, 1), 2)
    for slope, penalty in ((1.0, 0.0), (-1.0, 0.0), (3.0, 4.0)):
        players[DISCRIMINATOR].psi.data.fill_(slope)
        terms = game.loss(Step(model, players, DISCRIMINATOR, x, None, Noise(0), 0)).terms
        assert (5 * terms["gradient_penalty"]).tolist() == pytest.approx([penalty] * 3)
        assert float(5 * terms["discriminator_loss"][0]) == pytest.approx(-slope + 10 * penalty)


@pytest.mark.parametrize("game", [game(augment=("translation", "cutout")) for game in GAMES])
def test_augmented_games_send_gradients_to_the_right_player(game: Game) -> None:
    model = model_of("dcgan-r1")
    players = game.players(model)
    for player, other in ((DISCRIMINATOR, GENERATOR), (GENERATOR, None)):
        x = torch.from_numpy(training_data().batch(slice(0, 4)).x.astype("int64"))
        game.loss(Step(model, players, player, x, None, Noise(0), 0)).value.sum().backward()
        # The bias of the last layer shifts both logits: in some games it has no gradient.
        weights = [p for p in players[player].parameters() if p.ndim > 1]
        assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in weights)
        if other is not None:
            assert all(p.grad is None for p in players[other].parameters())


def test_images_of_a_pack_are_judged_together() -> None:
    model = model_of("dcgan-r1")
    network = adversary_of(model, 2)
    assert isinstance(network, PackedDiscriminator)
    x = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    logits = network(x, None).detach()
    assert logits.shape == (3,)
    pairs = torch.stack([torch.cat([x[i], x[i + 1]]) for i in (0, 2, 4)])
    assert torch.equal(logits, network.network(pairs, None))
    loss = played(RelativisticGAN(packing=2))
    assert loss.value[0] == loss.value[1] != loss.value[2]
    # The penalty is the squared gradient over the whole pack.
    moved_alone = [
        torch.autograd.functional.jacobian(lambda y: network(y, None)[0], x[:2]).square().sum()
    ]
    game = RelativisticGAN(packing=2)
    step = Step(model, {DISCRIMINATOR: network}, DISCRIMINATOR, x[:2], None, Noise(0), 0)
    _, penalty = game._logit_and_penalty(step, x[:2], True)
    torch.testing.assert_close(penalty, torch.stack(moved_alone))


def test_packs_that_do_not_suit_are_refused() -> None:
    game = RelativisticGAN(packing=3)
    with pytest.raises(InvalidSetting, match="packs of 3"):
        fit(model_of("dcgan-r1"), training_data(), game, FitSettings(batch_size=64))
    labelled = runs.build("dcgan", training_data().spec, {"conditional": True, "channels": 4}, 0)
    with pytest.raises(InvalidSetting, match="joins images of several labels"):
        game.players(labelled)
    with pytest.raises(InvalidSetting, match="register it"):
        game.players(Dirac())
    with pytest.raises(InvalidSetting, match="leave it out"):
        MinimaxGAN(augment=("cutout",)).players(Dirac())
    for wrong in ({"penalty": -1.0}, {"packing": 0}, {"augment": ("blur",)}, {"penalised": "all"}):
        with pytest.raises(InvalidSetting):
            MinimaxGAN(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "game",
    [
        WassersteinGAN(penalty=0.0, clip_weights=0.01, discriminator_updates=2),
        RelativisticGAN(packing=2, penalty_every=2, augment=("brightness", "translation")),
    ],
)
def test_a_game_with_settings_is_saved_and_resumed(game: Game, tmp_path: Path) -> None:
    settings = FitSettings(
        steps=4,
        batch_size=8,
        schedule="constant",
        warmup=0,
        log_every=1,
        precision="float32",
        ema=0.0,
    )
    torch.set_num_threads(1)
    whole = fit(model_of("dcgan-r1"), training_data(), game, settings, out=tmp_path / "a")
    half = dataclasses.replace(settings, steps=2)
    fit(model_of("dcgan-r1"), training_data(), game, half, out=tmp_path / "b")
    fit(model_of("dcgan-r1"), training_data(), game, settings, out=tmp_path / "b")
    for name in ("weights.safetensors", "metrics.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    saved = runs.load(tmp_path / "a").adversary
    assert saved is not None
    assert whole.adversary is not None
    for name, weight in whole.adversary.state_dict().items():
        assert torch.equal(weight, saved.state_dict()[name])
        if game.clip_weights:
            assert float(weight.abs().max()) <= game.clip_weights
    other = dataclasses.replace(game, packing=1, discriminator_updates=3)
    with pytest.raises(InvalidSetting, match="objective discriminator_updates"):
        fit(model_of("dcgan-r1"), training_data(), other, settings, out=tmp_path / "a")


def test_a_run_from_before_a_setting_has_its_default(tmp_path: Path) -> None:
    """It was a run of penalty_every=1, so one of 4 is another fit."""
    from likely.runs.resume import differences

    now = {
        "fit": {}, "training_fingerprint": "", "model": {"name": "DCGAN"},
        "objective": {"name": "NonSaturatingGAN", "penalty": 1.0, "penalty_every": 4},
    }  # fmt: skip
    before = {**now, "objective": {"name": "NonSaturatingGAN", "penalty": 1.0}}
    assert differences(before, now) == ["objective penalty_every 1 -> 4"]


# -- augmentation ---------------------------------------------------------------------------------


def test_changes_of_images_are_what_their_names_say() -> None:
    x = torch.rand(64, 3, 16, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def changed(name: Augmentation) -> Tensor:
        return augmented(x, (name,), Noise(0))

    brighter = (changed("brightness") - x).flatten(1)
    torch.testing.assert_close(brighter, brighter[:, :1].expand_as(brighter))
    assert float(brighter.abs().max()) <= 0.5
    torch.testing.assert_close(changed("saturation").mean(1), x.mean(1))
    torch.testing.assert_close(changed("contrast").mean((1, 2, 3)), x.mean((1, 2, 3)))
    shifted = changed("translation")
    shifts = [
        (down, right)
        for image, original in zip(shifted, x, strict=True)
        for down in range(-2, 3)
        for right in range(-2, 3)
        if torch.equal(image, rolled(original, down, right))
    ]
    assert len(shifts) == 64
    assert len(set(shifts)) > 15
    cut = changed("cutout")
    assert bool(((cut == x) | (cut == 0)).all())
    gone = (cut == 0).all(1).sum((1, 2))  # pixels, [64]
    assert 12 <= int(gone.min()) <= int(gone.max()) == 8 * 6
    assert augmented(x, (), Noise(0)) is x
    # A part of a batch is changed as it is in the whole.
    torch.testing.assert_close(
        augmented(x[8:16], ("translation",), Noise(0, rows=(8, 64))), shifted[8:16]
    )


def rolled(image: Tensor, down: int, right: int) -> Tensor:
    """Shifted, zero where nothing comes from."""
    padded = nn.functional.pad(image, (3, 3, 3, 3))
    return torch.roll(padded, (down, right), (1, 2))[:, 3:-3, 3:-3]


def test_changes_are_differentiable_twice() -> None:
    x = torch.rand(2, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    names = ("brightness", "saturation", "contrast", "translation", "cutout")
    assert torch.autograd.gradcheck(lambda y: augmented(y, names, Noise(1)).square(), x)
    assert torch.autograd.gradgradcheck(lambda y: augmented(y, names, Noise(1)).square(), x)
