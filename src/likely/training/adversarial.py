r"""Games of a generator G against a discriminator D, which gives the logit that an image is real.

Each game is two losses of a pair of logits, r = D(x) and f = D(G(z)):

| game | D minimises | G minimises |
|---|---|---|
| minimax | -log s(r) - log(1 - s(f)) | log(1 - s(f)) |
| non-saturating | -log s(r) - log(1 - s(f)) | -log s(f) |
| least squares | (r - 1)^2 / 2 + f^2 / 2 | (f - 1)^2 / 2 |
| hinge | max(0, 1 - r) + max(0, 1 + f) | -f |
| Wasserstein | f - r | -f |
| relativistic | -log s(r - f) | -log s(f - r) |

with the logistic function s; -log s(t) is softplus(-t). What any of them takes is in
`GameSettings`: penalties of D's gradient, clipped weights, several updates of D, packing, and
differentiable augmentation. Gradients are taken at the images as they are, before augmentation.

One-sided label smoothing (Salimans et al. 2016) is not offered: with targets of 0.9 the best D is
0.9 p_data / (p_data + p_model), so G is drawn to where it is already too likely, and R1 keeps D
from certainty without moving the equilibrium.

Sources:

- Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661 (eq. 1, and sec. 3: non-saturating);
- Mao et al. 2017, https://arxiv.org/abs/1611.04076 (least squares, a = 0, b = c = 1);
- Lim and Ye 2017, https://arxiv.org/abs/1705.02894 (hinge);
- Arjovsky, Chintala and Bottou 2017, https://arxiv.org/abs/1701.07875 (Wasserstein, clipping), and
  Gulrajani et al. 2017, https://arxiv.org/abs/1704.00028 (penalty between pairs);
- Jolicoeur-Martineau 2019, https://arxiv.org/abs/1807.00734, and Huang et al. 2024,
  https://arxiv.org/abs/2501.05441 (relativistic pairing);
- Mescheder, Geiger and Nowozin 2018, https://arxiv.org/abs/1801.04406 (R1 and R2 penalties);
- Karras et al. 2020, https://arxiv.org/abs/1912.04958, app. B (lazy regularisation);
- Lin, Khetan, Fanti and Oh 2018, https://arxiv.org/abs/1712.04086 (packing).
"""

from __future__ import annotations

import abc
import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

from likely.data.spec import Dataset
from likely.density import Fittable, PlaysAgainst
from likely.errors import InvalidSetting
from likely.models.gan.adversary import DISCRIMINATOR, adversary_of
from likely.training.augmentation import augmented
from likely.training.players import Loss, Objective, Step, windows_of
from likely.training.registry import (
    GameSettings,
    HingeSettings,
    LeastSquaresSettings,
    MinimaxSettings,
    NonSaturatingSettings,
    RelativisticSettings,
    WassersteinSettings,
)

GENERATOR = "generator"


class Game(GameSettings, Objective):
    """The adversary against the model, the adversary first; a leaf gives the two losses.

    Attributes:
        boundary: the logit above which D calls an image real; None where only the difference of
            two has a meaning.
        pairs: whether the generator's loss depends on the logit of the real image, too.
    """

    capturable = False
    fits = PlaysAgainst
    needs = "an implicit density for its discriminator"
    boundary: ClassVar[float | None] = 0.0
    pairs: ClassVar[bool] = False

    @abc.abstractmethod
    def discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """What D minimises, for logits of real and of generated images, [B] each."""

    @abc.abstractmethod
    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """What G minimises, for the same logits."""

    def players(self, model: Fittable) -> dict[str, nn.Module]:
        super().players(model)
        if self.augment and len(model.spec.shape) != 3:
            what = "sequences" if model.takes_sequences else "vectors"
            raise InvalidSetting(
                f"augment={','.join(self.augment)} is of images, and examples of "
                f"{model.spec.name} are {what}: leave it out"
            )
        if self.packing > 1 and model.takes_sequences:
            raise InvalidSetting(f"packing={self.packing} is of images and vectors: leave it out")
        return {DISCRIMINATOR: adversary_of(model, self.packing), GENERATOR: model}

    def examples(self, model: Fittable, data: Dataset) -> Dataset:
        return windows_of(model, data)

    @property
    def group(self) -> int:
        return self.packing

    def updates(self, player: str, number: int) -> int:
        return self.discriminator_updates if player == DISCRIMINATOR else 1

    def largest_weight(self, player: str) -> float:
        return self.clip_weights if player == DISCRIMINATOR else 0.0

    def gamma(self, number: int) -> float:
        """The weight of the penalty after as many updates.

        A large one at first lets the generator reach every mode before D resolves them (Huang et
        al. 2024, who let it fall likewise).
        """
        if number >= self.penalty_steps:
            return self.penalty
        share = (1 + math.cos(math.pi * number / self.penalty_steps)) / 2
        return float(self.penalty * (self.first_penalty / self.penalty) ** share)

    def loss(self, step: Step) -> Loss:
        """The loss of a player; with packing, images of a pack share that of the pack."""
        real, fake = step.model.against(step.x, step.noise, step.context)
        value, terms = self._game(step, real, fake)  # of packs
        return Loss(
            value.repeat_interleave(self.packing),
            {name: term.detach().repeat_interleave(self.packing) for name, term in terms.items()},
        )

    def _game(self, step: Step, real: Tensor, fake: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        if step.player == GENERATOR:
            real_logit = self._logit(step, real) if self.pairs else torch.empty(0)
            value = self.generator_loss(real_logit, self._logit(step, fake))
            return value, {"generator_loss": value}
        fake = fake.detach()
        wanted = self.penalty > 0 and int(step.number) % self.penalty_every == 0
        at_real = wanted and self.penalised in ("real", "both")
        at_fake = wanted and self.penalised in ("generated", "both")
        real_logit, r1 = self._logit_and_penalty(step, real, at_real)
        fake_logit, r2 = self._logit_and_penalty(step, fake, at_fake)
        gamma = self.gamma(int(step.number))
        weight, penalty = gamma / 2, r1 + r2
        if wanted and self.penalised == "between":
            share = step.noise.uniform(len(real)).to(real.dtype)
            mixed = real + share.reshape(-1, *[1] * (real.ndim - 1)) * (fake - real)
            _, squared = self._logit_and_penalty(step, mixed, True)
            weight, penalty = gamma, (squared.clamp(min=1e-24).sqrt() - 1).square()
        penalty = self.penalty_every * penalty
        value = self.discriminator_loss(real_logit, fake_logit) + weight * penalty
        if self.boundary is None:
            right = (real_logit > fake_logit).float()  # it judges pairs
        else:
            above, below = real_logit > self.boundary, fake_logit < self.boundary
            right = (above.float() + below.float()) / 2
        terms = {
            "discriminator_loss": value, "real_logit": real_logit, "fake_logit": fake_logit,
            "discriminator_accuracy": right, "gradient_penalty": penalty,
        }  # fmt: skip
        if self.discriminator_updates > 1:  # terms of a step are added up
            terms = {name: term / self.discriminator_updates for name, term in terms.items()}
        return value, terms

    def _logit(self, step: Step, images: Tensor) -> Tensor:
        """D's logits of images, augmented, [B]; of packs, [B / packing]."""
        logit: Tensor = step.players[DISCRIMINATOR](
            augmented(images, self.augment, step.noise), step.context
        )
        return logit

    def _logit_and_penalty(self, step: Step, images: Tensor, wanted: bool) -> tuple[Tensor, Tensor]:
        """D's logits and the squared norm of the gradient of each at its image (its pack)."""
        if not wanted:
            logit = self._logit(step, images)
            return logit, torch.zeros_like(logit)
        images = images.detach().requires_grad_(True)
        logit = self._logit(step, images)
        (gradient,) = torch.autograd.grad(logit.sum(), images, create_graph=True)
        return logit, gradient.square().reshape(len(logit), -1).sum(1)


class MinimaxGAN(MinimaxSettings, Game):
    """The value of the game for both, V(D, G) (Goodfellow 2014, eq. 1).

    Where D is sure, the generator has no gradient.
    """

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(-real) + softplus(fake)

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return -softplus(fake)


class NonSaturatingGAN(NonSaturatingSettings, Game):
    """The same D; the generator raises the probability of being called real (2014, sec. 3)."""

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(-real) + softplus(fake)

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(-fake)


class LeastSquaresGAN(LeastSquaresSettings, Game):
    """Regression on 1 for real and 0 for generated images (Mao et al. 2017)."""

    boundary = 0.5

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return ((real - 1).square() + fake.square()) / 2

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return (fake - 1).square() / 2


class HingeGAN(HingeSettings, Game):
    """Only images within the margin move D (Lim and Ye 2017)."""

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return relu(1 - real) + relu(1 + fake)

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return -fake


class WassersteinGAN(WassersteinSettings, Game):
    """The largest difference of means over Lipschitz functions D (Arjovsky et al. 2017).

    D is kept Lipschitz by a penalty (Gulrajani et al. 2017), or by its weights with
    penalty=0, clip_weights=0.01.
    """

    boundary = None

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake - real

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return -fake


class RelativisticGAN(RelativisticSettings, Game):
    """Real and generated images are compared in pairs (Jolicoeur-Martineau 2019).

    With the gradient of D kept small at both it is locally convergent where the 2014 game is not
    (Huang et al. 2024).
    """

    boundary, pairs = None, True

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(fake - real)

    def generator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(real - fake)
