r"""M1+M2 (Kingma, Mohamed, Rezende and Welling 2014): a classifier from labelled and other images.

"Semi-supervised Learning with Deep Generative Models", https://arxiv.org/abs/1406.5298.

M1 is a variational autoencoder x -> q(c | x) that was fitted without labels. M2 is a model of its
codes c, drawn again from q(c | x) at each use,

    p(c, y, z) = p(y) N(z; 0, I) N(c; mean(y, z), scale(y, z)^2),

with a posterior q(y | c) q(z | c, y). For a labelled code and for another one (eqs. 6 and 7)

    log p(c, y) >= -L(c, y) = E_q(z|c,y)[log p(c | y, z)] + log p(y) - KL(q(z | c, y) || N(0, I))
    log p(c)    >= -U(c)    = sum_y q(y | c) (-L(c, y)) + H(q(y | c))

and the objective (eq. 9, per code) is mean U + (M / N) mean L + alpha mean(-log q(y | c)) of the M
labelled ones. The classifier is q(y | c) at the mean code.

Deviations: ReLU in place of softplus; Adam with a falling rate and averaged weights in place of
3,000 epochs; z of 8 dimensions, so that the class has to say the rest; after a first
part of the fit the sum over y goes over the few most probable classes, with q restricted to them,
which is a bound, too, and several times cheaper; codes are divided by their standard deviation, and
those that q(c | x) does not use are left out.
"""

from __future__ import annotations

import copy
import dataclasses
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import nll_loss, relu

from likely.evaluate.scores import Floats
from likely.noise import derived_seed, weights_from
from likely.settings import at_least, typed
from likely.training.optimizers import Adam

# Means that vary less than this share of the prior's deviation carry nothing of x.
UNUSED = 0.1
# Shares of the steps: until which all classes are summed, and from which the rate falls.
ALL_CLASSES, FALLING = 0.15, 0.5


@dataclasses.dataclass(frozen=True)
class SemiSupervised:
    """How M2 is fitted.

    Attributes:
        steps: updates.
        batch: codes without a label an update; the labelled ones are all in every update.
        latent: dimensions of z.
        hidden: units of each hidden layer.
        learning_rate: of Adam.
        alpha: weight of the classification loss.
        most: classes in the sum over y after the first part of the fit.
        average: how much of the averaged weights an update keeps.
    """

    steps: int = 6000
    batch: int = 200
    latent: int = 8
    hidden: int = 300
    learning_rate: float = 3e-3
    alpha: float = 0.5
    most: int = 3
    average: float = 0.995

    def __post_init__(self) -> None:
        typed(self)
        at_least(self, 1, "steps", "batch", "latent", "hidden", "most")


class M2(nn.Module):
    """p(c, y, z) and its posterior; see the module's docstring.

    Args:
        dimensions: of a code c.
        classes: number of classes.
        settings: sizes.
    """

    def __init__(self, dimensions: int, classes: int, settings: SemiSupervised) -> None:
        super().__init__()
        hidden, latent = settings.hidden, settings.latent
        self.classes = classes
        self.classify = nn.Sequential(
            nn.Linear(dimensions, hidden), nn.ReLU(), nn.Linear(hidden, classes)
        )
        self.encode = nn.Linear(dimensions, hidden)
        self.encode_class = nn.Embedding(classes, hidden)
        self.posterior = nn.Linear(hidden, 2 * latent)
        self.decode = nn.Linear(latent, hidden)
        self.decode_class = nn.Embedding(classes, hidden)
        self.likelihood = nn.Linear(hidden, 2 * dimensions)
        for table in (self.encode_class, self.decode_class):
            nn.init.normal_(table.weight, 0.0, 0.3)

    def log_classes(self, c: Tensor) -> Tensor:
        """log q(y | c), [B, C]."""
        logits: Tensor = self.classify(c)
        return logits.log_softmax(1)

    def bound(self, c: Tensor, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """-L(c, y) in nats with one z each, [B, K]; c [B, D], classes y [B, K] or [K]."""
        hidden = relu(self.encode(c)[:, None] + self.encode_class(y))
        mean, log_scale = self.posterior(hidden).chunk(2, -1)
        noise = torch.randn(mean.shape, generator=generator, dtype=c.dtype)
        z = mean + log_scale.exp() * noise
        kl = (0.5 * (mean**2 + (2 * log_scale).exp() - 1.0) - log_scale).sum(-1)
        hidden = relu(self.decode(z) + self.decode_class(y))
        mean, log_scale = self.likelihood(hidden).chunk(2, -1)
        standard = (c[:, None] - mean) * (-log_scale).exp()
        given_z = (-0.5 * standard**2 - log_scale - 0.5 * math.log(2 * math.pi)).sum(-1)
        negative: Tensor = given_z - kl - math.log(self.classes)
        return negative

    def bound_without_label(
        self, c: Tensor, most: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """-U(c) in nats, [B]; q(y | c) restricted to its `most` most probable classes."""
        log_q = self.log_classes(c)
        log_q, classes = log_q.topk(min(most, self.classes), 1)
        log_q = log_q.log_softmax(1)
        return (log_q.exp() * (self.bound(c, classes, generator) - log_q)).sum(1)


@dataclasses.dataclass(frozen=True)
class Codes:
    """q(c | x) of some images: mean and scale, both [N, D]."""

    mean: Tensor
    scale: Tensor

    def scaled(self, by: Tensor, used: Tensor) -> Codes:
        """The used coordinates, each divided by a number."""
        return Codes(self.mean[:, used] / by[used], self.scale[:, used] / by[used])

    def draw(self, rows: Tensor | slice, generator: torch.Generator) -> Tensor:
        """A code of each of these images, [B, D]."""
        mean = self.mean[rows]
        return mean + self.scale[rows] * torch.randn(mean.shape, generator=generator)


def semi_supervised(
    codes: Codes,
    labelled: Codes,
    labels: Tensor,
    classes: int,
    scored: Tensor,
    settings: SemiSupervised,
    seed: int,
) -> Floats:
    """Fit M2 to all codes and the labels of a few.

    Args:
        codes: of all training images, [N, D].
        labelled: of the labelled ones, [M, D].
        labels: int64 [M].
        classes: number of classes.
        scored: mean codes to classify, [K, D].
        settings: of the fit.
        seed: of weights, order and noise.

    Returns:
        q(y | c) of the scored codes, [K, C].
    """
    spread = (codes.mean.var(0) + codes.scale.square().mean(0)).sqrt()
    used = codes.mean.std(0) > UNUSED * spread
    codes, labelled = codes.scaled(spread, used), labelled.scaled(spread, used)
    with weights_from(seed):
        model = M2(codes.mean.shape[1], classes, settings)
    averaged = copy.deepcopy(model).requires_grad_(False)
    weights: list[Tensor] = list(model.parameters())
    kept: list[Tensor] = list(averaged.parameters())
    optimizer = Adam(weights, settings.learning_rate, fused=True)
    generator = torch.Generator().manual_seed(derived_seed("M2", seed))
    share = len(labels) / len(codes.mean)
    for step in range(settings.steps):
        done = step / settings.steps
        optimizer.rate = settings.learning_rate * min(1.0, (1.0 - done) / (1.0 - FALLING))
        rows = torch.randint(len(codes.mean), (settings.batch,), generator=generator)
        most = classes if done < ALL_CLASSES else settings.most
        without = model.bound_without_label(codes.draw(rows, generator), most, generator)
        c = labelled.draw(slice(None), generator)
        with_label = model.bound(c, labels[:, None], generator)
        wrong = nll_loss(model.log_classes(c), labels)
        loss = settings.alpha * wrong - without.mean() - share * with_label.mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        keep = min(settings.average, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(kept, weights, 1.0 - keep)
    with torch.no_grad():
        scaled = scored[:, used] / spread[used]
        probabilities: Floats = averaged.log_classes(scaled).exp().double().numpy()
    return probabilities
