"""The health monitor: diagnoses of a fit, in words, with remedies.

It reads the records of metrics.jsonl; with the model and its data it also inspects samples and
codes. Each check is a short function that returns findings, usually none, and needs a minimum of
records, so there are no findings in the first minutes of a fit.

Sources: Burda, Grosse and Salakhutdinov 2016, sec. 5, https://arxiv.org/abs/1509.00519 (active
units: the variance over the data of a latent's posterior mean exceeds 0.01); Goodfellow 2016, sec.
5.1 and 7, https://arxiv.org/abs/1701.00160 (mode collapse, oscillation, a discriminator that is
too confident); Arjovsky and Bottou 2017, https://arxiv.org/abs/1701.04862 (vanishing generator
gradient). The other thresholds are ours; the tests check each from both sides.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from likely.ask.likelihood import has_likelihood
from likely.data.spec import Dataset
from likely.density import Fittable, ImplicitDensity, LatentVariable, inputs_of

if TYPE_CHECKING:
    from likely.training.run import Run

Severity = Literal["failure", "warning"]
Records = Sequence[Mapping[str, float]]
Series = npt.NDArray[np.float64]

LOSSES = ("nll", "negative_elbo", "negative_importance_bound", "reconstruction_error")
# Fewer records than this say nothing about a trend.
ENOUGH = 8
ACTIVE_VARIANCE = 0.01
NEAR_ZERO = 0.1  # nats of KL; of sequences, a step
# Nats of KL beyond which inactive units are not a collapse onto the prior.
WASTED = 1.0


@dataclasses.dataclass(frozen=True)
class Finding:
    """A diagnosis.

    Attributes:
        severity: "failure" (the result is unusable) or "warning".
        sentence: the observation, with numbers.
        remedy: what to try.
    """

    severity: Severity
    sentence: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.sentence}. Remedy: {self.remedy}"


def diagnose(
    run: Run | Records, model: Fittable | None = None, data: Dataset | None = None
) -> list[Finding]:
    """Findings about a fit, worst first; usually empty.

    Args:
        run: a run, or the records of its metrics.jsonl.
        model: also check the diversity of its samples and its active units (needs data).
        data: training data of the model; at most 500 examples are read.
    """
    records = run if isinstance(run, Sequence) else run.metrics
    checked = [check(records) for check in _CHECKS]
    if model is not None:
        checked.append(diverged(records, model))
    if data is not None and isinstance(model, ImplicitDensity):
        checked += [_mode_collapse(model, data), _memorising(model, data)]
    if data is not None and isinstance(model, LatentVariable):
        checked.append(_inactive_units(records, model, data))
    findings = [finding for finding in checked if finding is not None]
    return sorted(findings, key=lambda finding: finding.severity != "failure")


# -- every kind ----------------------------------------------------------------------------


def _not_finite(records: Records) -> Finding | None:
    for record in records:
        for name, value in record.items():
            if not math.isfinite(value):
                return Finding(
                    "failure",
                    f"{name} is not finite at step {record['step']:.0f}",
                    "a lower learning_rate, a longer warmup, or a smaller clip",
                )
    return None


def _loss_not_falling(records: Records) -> Finding | None:
    """The last quarter is not below the first record by more than its own scatter."""
    for name in LOSSES:
        _, loss = _series(records, name)
        if len(loss) < ENOUGH or not np.isfinite(loss).all():
            continue
        tail = _tail(loss)
        error = float(tail.std(ddof=1)) / math.sqrt(len(tail))
        if tail.mean() > loss[0] - 2 * error:
            return Finding(
                "warning",
                f"the training loss does not fall: {name} was {loss[0]:.4g} at first and is "
                f"{tail.mean():.4g} over the last {len(tail)} records",
                "another learning_rate (ten times lower, then ten times higher), and a look "
                "at the data",
            )
    return None


def diverged(records: Records, model: Fittable) -> Finding | None:
    """Whether even the best validation is far above that of equally likely levels.

    Those need no fit. None where it is not, or where nothing was validated.
    """
    _, validation = _series(records, "validation")
    uniform = model.spec.dimensions * math.log(model.spec.levels)
    if not has_likelihood(model) or len(validation) == 0 or not validation.min() > 2 * uniform:
        return None
    return Finding(
        "failure",
        f"the fit diverged: the best validation is {validation.min():.4g} nats, and levels that "
        f"are all equally likely would have {uniform:.4g}",
        "a lower learning_rate, a longer warmup, or gradient clipping (clip=1)",
    )


def _overfitting(records: Records) -> Finding | None:
    """Validation rises from its best while the training loss keeps falling."""
    steps, validation = _series(records, "validation")
    if len(validation) < 4:
        return None
    best = int(validation.argmin())
    after = validation[best + 1 :]
    margin = 0.005 * abs(validation[best])
    if len(after) < 2 or after[-2:].min() < validation[best] + margin:
        return None
    for name in LOSSES:
        at, loss = _series(records, name)
        before, later = loss[at <= steps[best]], loss[at > steps[best]]
        if len(before) and len(later) and _tail(later).mean() < _tail(before).mean():
            return Finding(
                "warning",
                f"overfitting: validation was best at step {steps[best]:.0f} "
                f"({validation[best]:.4g}) and is {validation[-1]:.4g} now, while the "
                f"training loss still falls (the weights of step {steps[best]:.0f} are kept)",
                "fewer steps, dropout, weight_decay, a smaller model, or more data",
            )
    return None


# -- latent variables ----------------------------------------------------------------------


def collapsed(kl: float, unit: str = "nats") -> Finding | None:
    """Whether latents whose KL to the prior is this say nothing."""
    if kl >= NEAR_ZERO:
        return None
    return Finding(
        "failure",
        f"posterior collapse: the KL of q(z|x) to the prior is {kl:.2g} {unit}, so the code says "
        "nothing about x",
        "a warm-up of the KL weight (objective warmup), beta or first_weight below 1, free_nats, "
        "or a weaker decoder",
    )


def _kl_near_zero(records: Records) -> Finding | None:
    _, kl = _series(records, "kl")
    return None if len(kl) < ENOUGH else collapsed(float(_tail(kl).mean()))


@torch.no_grad()
def active_units(model: LatentVariable, data: Dataset, limit: int = 500) -> int:
    """Latent coordinates whose posterior mean varies with x: variance over the data > 0.01."""
    means = model.posterior(*inputs_of(model, data.batch(_spread(len(data), limit)))).mean
    return int((means.var(0) > ACTIVE_VARIANCE).sum())


def _inactive_units(records: Records, model: LatentVariable, data: Dataset) -> Finding | None:
    if bool((data.values == data.values[:1]).all()):
        return None  # one example, or equal ones: nothing can vary
    active = active_units(model, data)
    if active >= max(1, model.latent // 10):
        return None
    _, kl = _series(records, "kl")
    rate = float(_tail(kl).mean()) if len(kl) else 0.0
    seen = (
        f"{active} of {model.latent} latent units are active (their posterior mean varies over "
        f"the data by more than {ACTIVE_VARIANCE})"
    )
    if rate > WASTED or 0 < len(kl) < ENOUGH:  # a short fit shows nothing that would last
        wasted = f", so that most of the KL term's {rate:.3g} nats is wasted"
        sentence = f"the encoder is not fitted yet: {seen}{wasted if rate > WASTED else ''}"
        return Finding("warning", sentence, "more steps")
    return Finding(
        "warning" if active else "failure",
        f"posterior collapse: {seen}",
        "a warm-up of the KL weight (objective warmup), beta below 1, free_nats, or fewer latents",
    )


# -- two players ---------------------------------------------------------------------------


def _discriminator_too_strong(records: Records) -> Finding | None:
    """It tells real from generated nearly always, and the generator's loss grows."""
    _, loss = _series(records, "generator_loss")
    _, accuracy = _series(records, "discriminator_accuracy")
    _, real = _series(records, "real_logit")
    _, fake = _series(records, "fake_logit")
    if min(len(loss), len(accuracy), len(real), len(fake)) < ENOUGH:
        return None
    # Logits of a relativistic game have no zero of their own: there the gap is what counts.
    gap = _tail(real).mean() - _tail(fake).mean()
    sure = _tail(accuracy).mean() > 0.95 or gap > 5.0
    now, before = _tail(loss).mean(), float(np.median(loss[: len(loss) // 2]))
    if _discriminator_wins(records) is not None:
        return None  # which says more
    if not sure or now < 1.2 * before or now < 1.0:
        return None
    return Finding(
        "failure",
        f"the discriminator is too strong: accuracy {_tail(accuracy).mean():.3f}, logits "
        f"{gap:.1f} apart, and the generator's loss grows ({before:.2g} to {now:.2g})",
        "RelativisticGAN with a larger penalty, a lower learning_rate, or a smaller discriminator",
    )


def _discriminator_wins(records: Records) -> Finding | None:
    """Its loss is near zero and it is right nearly always: "D loss 0"."""
    _, loss = _series(records, "discriminator_loss")
    _, accuracy = _series(records, "discriminator_accuracy")
    _, norm = _series(records, "gradient_norm_generator")
    if min(len(loss), len(accuracy)) < ENOUGH:
        return None
    now, right = float(_tail(loss).mean()), float(_tail(accuracy).mean())
    if not (0 <= now < 0.05 and right > 0.98):
        return None
    left = f", and the generator's gradient norm is {_tail(norm).mean():.2g}" if len(norm) else ""
    return Finding(
        "failure",
        f"the discriminator has won: its loss is {now:.2g}, and it is right {right:.1%} of the time"
        + left,
        "a gradient penalty (objective penalty), RelativisticGAN, augmentation of few images "
        "(objective augment), a lower learning_rate, or a smaller discriminator",
    )


def _vanishing_gradient(records: Records) -> Finding | None:
    _, norm = _series(records, "gradient_norm_generator")
    if len(norm) < ENOUGH:
        return None
    first, now = float(np.median(norm[: len(norm) // 4])), float(np.median(_tail(norm)))
    if now >= 1e-3 * first and now >= 1e-6:
        return None
    return Finding(
        "failure",
        f"the generator's gradient vanishes: its norm was {first:.2g} and is {now:.2g}",
        "the non-saturating or the relativistic loss, a gradient penalty, or a lower "
        "learning_rate of the discriminator",
    )


def _oscillation(records: Records) -> Finding | None:
    """Slow, wide swings of the generator's loss: neighbours alike, the mean crossed often."""
    _, loss = _series(records, "generator_loss")
    half = loss[len(loss) // 2 :]
    if len(half) < 2 * ENOUGH or not np.isfinite(half).all():
        return None
    swing = half - half.mean()
    spread = float(swing.std())
    if spread == 0:
        return None
    alike = float((swing[1:] * swing[:-1]).mean()) / spread**2
    crossings = int((np.sign(swing[1:]) != np.sign(swing[:-1])).sum())
    if spread < 0.3 * abs(half.mean()) or alike < 0.5 or crossings < 4:
        return None
    return Finding(
        "warning",
        f"the players oscillate: the generator's loss swings by {spread:.2g} around "
        f"{half.mean():.2g} and crosses it {crossings} times in {len(half)} records",
        "a larger gradient penalty, a lower learning_rate, or beta1=0",
    )


def _mode_collapse(model: ImplicitDensity, data: Dataset, n: int = 250) -> Finding | None:
    """Samples are closer to each other than training images are to each other."""
    batch = data.batch(_spread(len(data), n))
    n = len(batch.x)
    real = torch.from_numpy(batch.x.astype(np.float64)).flatten(1)
    labels = torch.from_numpy(batch.label) if model.classes and batch.label is not None else None
    if n < 3 or bool((real == real[:1]).all()):
        return None  # they say nothing of how far examples lie apart
    fake = model.sample(n, seed=0, context=labels).cpu().double().flatten(1)
    apart = [float(torch.pdist(x).mean()) for x in (fake, real)]
    far = apart[0] / max(apart[1], 1e-12)
    near = _nearest_distance(fake) / max(_nearest_distance(real), 1e-12)
    if far >= 0.5 and near >= 0.25:
        return None
    return Finding(
        "failure" if far < 0.2 or near < 0.05 else "warning",
        f"mode collapse: {n} samples lie at {far:.0%} of the distance from each other that "
        f"training examples have, and the nearest two at {near:.0%}",
        "RelativisticGAN with its gradient penalties, packing (objective packing), a lower "
        "learning_rate, or a larger batch_size",
    )


def _memorising(
    model: ImplicitDensity, data: Dataset, n: int = 250, limit: int = 20_000
) -> Finding | None:
    """Samples are copies: much nearer to one training example than to others, or held-out ones.

    A copy is nearer to its training example than nineteen of twenty held-out examples are to
    theirs, and at most half as far from it as from the tenth nearest: blurred samples are near
    to many.
    """
    held_out, rows = data.validation, _spread(len(data), limit)
    if held_out is None or len(rows) < 20 or len(held_out) < 20:
        return None
    batch = held_out.batch(_spread(len(held_out), n))
    train, new = (torch.from_numpy(x.astype(np.float32)) for x in (data.batch(rows).x, batch.x))
    labels = torch.from_numpy(batch.label) if model.classes and batch.label is not None else None
    samples = model.sample(len(new), seed=0, context=labels).cpu().float()
    near, of_new = (
        torch.cdist(x.flatten(1), train.flatten(1)).topk(10, largest=False).values
        for x in (samples, new)
    )  # [n, 10]
    copied = (near[:, 0] < of_new[:, 0].quantile(0.05)) & (near[:, 0] < near[:, 9] / 2)
    share = float(copied.double().mean())
    if share < max(0.2, 0.5 * len(rows) / len(data)):
        return None
    return Finding(
        "warning",
        f"the generator memorises: {share:.0%} of {len(new)} samples are copies of training "
        f"examples (median distance to the nearest {near[:, 0].median():.3g}, of held-out examples "
        f"{of_new[:, 0].median():.3g})",
        "more data, augmentation (objective augment), fewer steps, or a smaller generator",
    )


def trained_through(run: Run) -> bool:
    """Whether a fit ended and the monitor has nothing to say about it, as a benchmark counts."""
    return run.finished and not run.findings


def _nearest_distance(x: Tensor) -> float:
    """Median over the rows of the distance to the nearest other row."""
    distances = torch.cdist(x, x).fill_diagonal_(math.inf)
    return float(distances.min(1).values.median())


# -- series --------------------------------------------------------------------------------


def _series(records: Records, name: str) -> tuple[Series, Series]:
    """(steps, values) of the records that hold the name."""
    pairs = [(record["step"], record[name]) for record in records if name in record]
    table = np.array(pairs, np.float64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _tail(values: Series) -> Series:
    """The last quarter, at least one value."""
    return values[-max(1, len(values) // 4) :]


def _spread(n: int, limit: int) -> npt.NDArray[np.int64]:
    """At most `limit` positions, spread evenly: files are often sorted by class."""
    return np.arange(0, n, max(1, -(-n // limit)), dtype=np.int64)


_CHECKS = (
    *(_not_finite, _loss_not_falling, _overfitting, _kl_near_zero),
    *(_discriminator_too_strong, _discriminator_wins, _vanishing_gradient, _oscillation),
)
