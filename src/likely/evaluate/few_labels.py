"""What an encoder is worth to a classifier with few labels: fine-tuned, frozen, or from scratch.

A classifier is a hidden layer of a network, standardised, and a softmax on top. Three ways to fit
it to M labelled images:

- frozen (a linear probe): logistic regression on the layer of the fitted network;
- joint: it starts as the probe, then all weights move (Kumar et al. 2022, "Fine-Tuning can Distort
  Pretrained Features", https://arxiv.org/abs/2202.10054, who also begin with the probe);
- scratch: the same, from initial weights.

Every choice (layer, penalty of the probe, learning rate, number of updates) is made by
cross-validation inside the M labelled images; other labels are never looked at. Where a class has
a single labelled image nothing can be held out, and the defaults are taken.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from likely.ask.layers import Layers
from likely.density import chunks
from likely.errors import InvalidData
from likely.evaluate.baselines import (
    PENALTIES,
    Features,
    cross_validated,
    folds_of,
    logistic_regression,
)
from likely.evaluate.scores import Floats, Integers
from likely.noise import derived_seed
from likely.training.optimizers import Adam

BATCH = 500  # images a forward pass outside training
WARMUP = 20  # updates over which the learning rate rises


@dataclasses.dataclass(frozen=True)
class FineTuning:
    """What is chosen from, and the budget.

    Attributes:
        rates: learning rates of Adam; the last one where nothing can be held out.
        updates: at most; 0 for 160, and for more labels ten passes, at most 4,000.
        checkpoints: shares of `updates` after which a fit may end.
        batch: images an update.
        folds: of the cross-validation; above 5,000 labels a single part of a tenth is held out.
    """

    rates: tuple[float, ...] = (5e-4, 1.5e-3)
    updates: int = 0
    checkpoints: tuple[float, ...] = (1 / 4, 1.0)
    batch: int = 32
    folds: int = 2

    def ends(self, n: int) -> list[int]:
        """After how many updates a fit to n labels may end."""
        most = self.updates or min(4000, max(160, 10 * n // self.batch))
        return sorted({max(1, round(share * most)) for share in self.checkpoints})

    def splits(self, labels: Integers) -> list[Integers]:
        """The parts that are held out in turn, positions in the labelled examples."""
        if len(labels) > 5000:
            return folds_of(labels, 10)[:1]
        return folds_of(labels, self.folds)


def stratified(labels: Integers, classes: int, per_class: int, seed: int) -> Integers:
    """A draw of labelled examples: this many of each class, int64 [per_class * classes].

    Draws of one seed contain each other. All examples in order where per_class is 0.

    Raises:
        InvalidData: a class has fewer examples.
    """
    if not per_class:
        return np.arange(len(labels))
    counts = np.bincount(labels, minlength=classes)
    if counts.min() < per_class:
        raise InvalidData(
            f"{per_class} labelled examples of each class were asked for, and class "
            f"{int(counts.argmin())} has {int(counts.min())}"
        )
    random = np.random.Generator(np.random.Philox(derived_seed("labels", seed)))
    order = random.permutation(len(labels))
    picked = [order[labels[order] == label][:per_class] for label in range(classes)]
    return np.concatenate(picked)


class Encoder:
    """The layers of a network with what they need to be standardised.

    Args:
        layers: of a fitted or an initial network.
        unlabelled: integers [N, *shape] that means and scales are taken from.
    """

    def __init__(self, layers: Layers, unlabelled: Tensor) -> None:
        self.layers = layers
        self.scales: dict[str, tuple[Tensor, Tensor]] = {}
        for name, values in self.all(unlabelled).items():
            # Coordinates that hardly move are not blown up.
            spread = values.std(0) + 1e-2 * values.std()
            self.scales[name] = values.mean(0), spread.clamp_min(1e-6)

    @torch.no_grad()
    def all(self, x: Tensor) -> dict[str, Tensor]:
        """Every layer, not standardised, [B, F]."""
        parts = [self.layers.all(x[rows]) for rows in chunks(len(x), BATCH)]
        return {name: torch.cat([part[name] for part in parts]) for name in self.layers.names}

    def features(self, x: Tensor, layer: str) -> Features:
        """A standardised layer, [B, F]."""
        mean, scale = self.scales[layer]
        with torch.no_grad():
            every = [self.layers(x[rows], layer) for rows in chunks(len(x), BATCH)]
        features: Features = ((torch.cat(every) - mean) / scale).cpu().float().numpy()
        return features


@dataclasses.dataclass(frozen=True)
class Probe:
    """Logistic regression on a layer, chosen by cross-validation.

    Attributes:
        layer: its name.
        penalty: C of scikit-learn.
        accuracy: share of held-out labelled examples that are right; 0 where none were.
    """

    layer: str
    penalty: float
    accuracy: float


def chosen_probe(
    features: Mapping[str, Features], labels: Integers, classes: int, tuning: FineTuning
) -> Probe:
    """The best layer and penalty; of equal ones the later layer.

    Args:
        features: of the labelled examples by layer, [M, F] each.
        labels: [M].
        classes: number of classes.
        tuning: folds.
    """
    splits = tuning.splits(labels)
    best: tuple[tuple[float, float], Probe] | None = None
    for layer, x in features.items():
        right, log_probability, penalty = cross_validated(
            logistic_regression, PENALTIES, x, labels, classes, splits
        )
        rank = right, log_probability
        if best is None or rank >= best[0]:
            held_out = sum(map(len, splits))
            best = rank, Probe(layer, penalty, right / max(1, held_out))
    assert best is not None
    return best[1]


class Classifier(nn.Module):
    """A layer, standardised, and a softmax: integers [B, *shape] -> logits [B, C]."""

    def __init__(self, encoder: Encoder, layer: str, classes: int) -> None:
        super().__init__()
        self.layers = copy.deepcopy(encoder.layers).requires_grad_(True)
        self.layer = layer
        self.mean, self.scale = encoder.scales[layer]
        self.head = nn.Linear(len(self.mean), classes, device=self.mean.device)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head((self.layers(x, self.layer) - self.mean) / self.scale)
        return logits

    def start_at(self, features: Features, labels: Integers, penalty: float) -> None:
        """Make the head a probe of these standardised features."""
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(C=penalty, max_iter=200).fit(features, labels)
        weight, bias = model.coef_, model.intercept_
        if len(weight) == 1:  # two classes: one logit
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.bias.fill_(float(bias.min()) - 5.0)  # classes without an example
            self.head.weight[model.classes_] = torch.as_tensor(weight, dtype=torch.float32)
            self.head.bias[model.classes_] = torch.as_tensor(bias, dtype=torch.float32)

    @torch.no_grad()
    def probabilities(self, x: Tensor) -> Floats:
        """Of each class, float64 [B, C]."""
        parts = [self(x[rows]).double().softmax(1) for rows in chunks(len(x), BATCH)]
        probabilities: Floats = torch.cat(parts).cpu().numpy()
        return probabilities


def fitted(
    encoder: Encoder,
    probe: Probe,
    x: Tensor,
    labels: Integers,
    classes: int,
    rate: float,
    ends: Sequence[int],
    scored: Tensor,
    seed: int,
    batch: int,
) -> list[Floats]:
    """Fit all weights by Adam; the probabilities of `scored` after each of `ends` updates."""
    network = Classifier(encoder, probe.layer, classes).eval()
    network.start_at(encoder.features(x, probe.layer), labels, probe.penalty)
    weights = [p for p in network.parameters() if p.is_floating_point()]
    optimizer = Adam(weights, rate, fused=True)
    targets = torch.from_numpy(labels).to(x.device)
    generator = torch.Generator().manual_seed(derived_seed("fine-tuning", seed))
    order: list[Tensor] = []
    predicted = []
    for step in range(ends[-1]):
        if not order:
            shuffled = torch.randperm(len(x), generator=generator)
            order = [shuffled[rows] for rows in chunks(len(x), batch)]
        rows = order.pop()
        optimizer.rate = rate * min(1.0, (step + 1) / WARMUP)
        loss = cross_entropy(network(x[rows]), targets[rows])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        if step + 1 in ends:
            predicted.append(network.probabilities(scored))
    return predicted


def fine_tuned(
    encoder: Encoder,
    probe: Probe,
    x: Tensor,
    labels: Integers,
    classes: int,
    scored: Tensor,
    tuning: FineTuning,
    seed: int,
) -> tuple[Floats, dict[str, Any]]:
    """Choose rate and updates inside the labelled images, then fit to all of them.

    Args:
        encoder: fitted, or at its initial weights.
        probe: that it starts as.
        x: labelled images, integers [M, *shape].
        labels: [M].
        classes: number of classes.
        scored: images, integers [N, *shape].
        tuning: choices and budget.
        seed: of the order of the images.

    Returns:
        Probabilities of `scored`, [N, C], and what was chosen.
    """
    ends = tuning.ends(len(labels))
    splits = tuning.splits(labels)
    rate, updates = tuning.rates[-1], ends[-1]
    best = (-1.0, 0.0)
    for candidate in tuning.rates if splits else ():
        right, log_probability = np.zeros(len(ends)), np.zeros(len(ends))
        for held_out in splits:
            kept = np.setdiff1d(np.arange(len(labels)), held_out)
            predicted = fitted(
                encoder, probe, x[kept], labels[kept], classes, candidate, ends, x[held_out],
                seed, tuning.batch,
            )  # fmt: skip
            truth = labels[held_out]
            for index, p in enumerate(predicted):
                right[index] += (p.argmax(1) == truth).sum()
                log_probability[index] += np.log(p[np.arange(len(truth)), truth] + 1e-12).sum()
        for index, end in enumerate(ends):
            rank = (float(right[index]), float(log_probability[index]))
            if rank > best:
                best, rate, updates = rank, candidate, end
    probabilities = fitted(
        encoder, probe, x, labels, classes, rate, [updates], scored, seed, tuning.batch
    )[0]
    return probabilities, {"layer": probe.layer, "rate": rate, "updates": updates}
