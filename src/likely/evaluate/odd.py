"""How odd examples are: scores of each, and p-values whose null is known.

A likelihood alone does not say. Simple images are cheap under every model, so a network fitted to
clothes gives digits more probability than clothes (Nalisnick et al. 2019). So several statistics
stand side by side, always with the length of a losslessly compressed file, which knows no model:
what it finds, no network need be thanked for.

    nats          -log p(x), or the bound on it                               two-sided
    surprise      sum(-log p_i - H_i) / sqrt(sum Var_i), from the chain rule  two-sided
    ratio         nats less those of a background model                       large is odd
    complexity    bits under the model less those of the file                 large is odd
    regret        what the ELBO gains when q is fitted to the example alone   large is odd
    distance      to the nearest training example, in features                large is odd
    file-length   bits of the smallest lossless file                          two-sided
    dose          minus the log density of all but surprise and file-length   large is odd

The p-value of a statistic is conformal: its rank among held-out examples of the model's own data,
uniform for fresh examples of that data whatever the model is like. `surprise` has a second one,
from the model's own null: under the model it is a sum of martingale differences in units of its
standard deviation.

Sources: Ren et al. 2019 (ratio), https://arxiv.org/abs/1906.02845; Serra et al. 2020 (complexity),
https://arxiv.org/abs/1909.11480; Xiao, Yan and Amit 2020 (regret), https://arxiv.org/abs/2003.02977;
Nalisnick et al. 2019 (typicality of a batch), https://arxiv.org/abs/1906.02994; Morningstar et al.
2021 (density of states estimation), https://arxiv.org/abs/2006.09273; Vovk, Gammerman and Shafer
2005 (conformal ranks).
"""

from __future__ import annotations

import dataclasses
import io
import math
import zlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from likely.ask.likelihood import has_likelihood
from likely.ask.surprise import Surprises
from likely.data.spec import Dataset
from likely.density import DiagonalGaussian, Fittable, LatentVariable, chunks, reading_of
from likely.devices.precision import without_autocast
from likely.errors import InvalidSetting, Unanswerable
from likely.evaluate.likelihood import per_example_nll
from likely.evaluate.neighbours import nearest
from likely.noise import Noise
from likely.training.optimizers import Adam
from likely.verify import Proofs

if TYPE_CHECKING:
    from PIL import Image

FloatArray = npt.NDArray[np.float64]
Progress = Callable[[str, int, int], None]
Features = Callable[[Tensor, Tensor | None], Tensor]

SURPRISE, LENGTH, DOSE = "surprise", "file-length", "dose"
# Statistics that are odd at either end; of the others, large is odd.
TWO_SIDED = ("nats", SURPRISE, LENGTH)
# The first of these that there is ranks the examples. Fixed before any data were seen.
RULE = ("ratio", "regret", "complexity", "nats", "distance", LENGTH)
BATCH = 64


@dataclasses.dataclass(frozen=True)
class Asked:
    """Which statistics are wanted beside those that cost little.

    Attributes:
        background: a second model, for `ratio`.
        regret: fit q to each example, for `regret`; a hundred decodings each.
        surprise: of a chain rule, which of 256 levels takes several times as long as its nats.
        features: of (x, context), with those of training examples [T, F], for `distance`.
        importance_samples: of the nats of a latent-variable model; the ELBO when None.
        proofs: made before by `likely.verify`.
        steps: of Adam, for `regret`.
        draws: of z at each step.
        seed: of the noise.
    """

    background: Fittable | None = None
    regret: bool = False
    surprise: bool = True
    features: tuple[Features, Tensor] | None = None
    importance_samples: int | None = None
    proofs: Proofs | None = None
    steps: int = 100
    draws: int = 8
    seed: int = 0


def statistics(
    model: Fittable, data: Dataset, asked: Asked | None = None, progress: Progress | None = None
) -> dict[str, FloatArray]:
    """Every statistic that the model has, by its name, [N] each.

    Args:
        model: any.
        data: of the model's shape and levels.
        asked: which costly ones, too.
        progress: called with (what, examples done, of how many).

    Raises:
        Unanswerable: regret of a model without latent variables.
        InvalidData: data of another shape or levels, or without labels that are needed.
        ProofFailed, Diverged: as `per_example_nll`.
    """
    asked = asked or Asked()
    if asked.regret and not isinstance(model, LatentVariable):
        raise Unanswerable(
            f"{type(model).__name__} has no latent variables: there is no q(z|x) to fit to an "
            "example"
        )

    def told(what: str) -> Callable[[int, int], None] | None:
        return None if progress is None else lambda done, total: progress(what, done, total)

    values: dict[str, FloatArray] = {}
    length = file_bits(data, told("compressing"))
    if has_likelihood(model):
        k, seed = asked.importance_samples, asked.seed
        measured = per_example_nll(
            model, data, k, seed, BATCH, proofs=asked.proofs, progress=told("reading")
        )
        values["nats"] = measured.values
        values["complexity"] = measured.values / math.log(2) - length
        if asked.background is not None:
            other = per_example_nll(
                asked.background, data, k, seed, BATCH, progress=told("reading the background")
            )
            values["ratio"] = measured.values - other.values
    elif asked.background is not None:
        raise Unanswerable(f"{type(model).__name__} has no likelihood: there is no ratio")
    if asked.surprise and isinstance(model, Surprises):
        values[SURPRISE] = _by_batch(
            model, data, lambda x, context: model.surprise(x, context).z, told("reading surprises")
        )
    if asked.regret:
        assert isinstance(model, LatentVariable)
        latent = model
        values["regret"] = _by_batch(
            model, data, lambda x, context: regret(latent, x, context, asked), told("fitting q")
        )
    if asked.features is not None:
        extract, known = asked.features
        values["distance"] = _by_batch(
            model,
            data,
            lambda x, context: nearest(extract(x, context).flatten(1), iter([known])).distance[
                :, 0
            ],
            told("comparing features"),
        )
    values[LENGTH] = length
    return values


def _by_batch(
    model: Fittable,
    data: Dataset,
    statistic: Callable[[Tensor, Tensor | None], Tensor],
    progress: Callable[[int, int], None] | None,
) -> FloatArray:
    values = np.empty(len(data))
    for rows, x, context in reading_of(model, data, BATCH):
        with without_autocast(model.device):
            values[rows] = statistic(x, context).double().cpu().numpy()
        if progress is not None:
            progress(rows.stop, len(data))
    return values


def regret(
    model: LatentVariable, x: Tensor, context: Tensor | None, asked: Asked | None = None
) -> Tensor:
    """max over q of the ELBO, less the ELBO with the encoder's q; nats [B].

    q is a diagonal Gaussian that starts at the encoder's and takes steps of Adam with common noise,
    so that both ELBOs are of the same draws; the best step counts, and the regret is never below 0.

    Raises:
        Unanswerable: a posterior that is no diagonal Gaussian.
    """
    asked = asked or Asked()
    labels = model.labels(context, len(x))
    with torch.no_grad():
        start = model.posterior(x, labels)
    if not isinstance(start, DiagonalGaussian):
        raise Unanswerable(f"{type(model).__name__}: regret fits a diagonal Gaussian q(z|x)")
    mean, scale = start.mean.clone(), start.log_scale.clone()
    noise = Noise("regret", asked.seed, device=model.device)
    draws = noise.normal(asked.draws, *mean.shape, dtype=mean.dtype)
    many = x.repeat(asked.draws, *([1] * (x.ndim - 1)))
    many_labels = None if labels is None else labels.repeat(asked.draws)

    def elbo() -> Tensor:
        z = (mean + scale.exp() * draws).flatten(0, 1)
        given_z = model.likelihood_given_z.log_prob(many, model.decoder_output(z, many_labels))
        joint = (given_z + model.prior.log_prob(z)).view(asked.draws, -1)
        log_q = (-0.5 * draws.square() - scale - 0.5 * math.log(2 * math.pi)).sum(2)
        bound: Tensor = (joint - log_q).mean(0)
        return bound

    with torch.enable_grad():
        mean.requires_grad_()
        scale.requires_grad_()
        optimizer = Adam([mean, scale], 0.02)
        first = best = elbo().detach()
        for _ in range(asked.steps):
            loss = -elbo().sum()
            mean.grad, scale.grad = torch.autograd.grad(loss, [mean, scale])
            optimizer.step()
            with torch.no_grad():
                best = torch.maximum(best, elbo())
    gained: Tensor = best - first
    return gained


def file_bits(data: Dataset, progress: Callable[[int, int], None] | None = None) -> FloatArray:
    """Bits of each example as a lossless file, [N]: the smaller of PNG and WebP.

    Vectors, and more than 256 levels, go through zlib.
    """
    from PIL import Image

    spec = data.spec
    channels = spec.grid[0]
    pictures = len(spec.shape) == 3 and channels in (1, 3) and spec.levels <= 256
    bits = np.empty(len(data))
    for rows in chunks(len(data), 256):
        x = data.batch(rows).x
        for row, image in enumerate(x):
            if not pictures:
                kept = np.uint8 if spec.levels <= 256 else np.uint16
                size = len(zlib.compress(image.astype(kept).tobytes(), 9))
            else:
                values = image.astype(np.uint8)
                if channels == 3:
                    picture = Image.fromarray(values.transpose(1, 2, 0))
                elif spec.levels == 2:
                    picture = Image.fromarray(values[0] * 255).convert("1")
                else:
                    picture = Image.fromarray(values[0])
                size = min(_size(picture, "PNG"), _size(picture, "WEBP"))
            bits[rows.start + row] = 8 * size
        if progress is not None:
            progress(rows.stop, len(data))
    return bits


def _size(picture: Image.Image, kind: str) -> int:
    stream = io.BytesIO()
    options = {"optimize": True} if kind == "PNG" else {"lossless": True, "quality": 80}
    picture.save(stream, kind, **options)
    return len(stream.getvalue())


def conformal(reference: FloatArray, values: FloatArray, *, two_sided: bool) -> FloatArray:
    """Rank of each value among the reference, as a p-value in (0, 1].

    For a value that is exchangeable with the reference, P(p <= a) <= a, with equality up to 1/n
    where there are no ties.

    Args:
        reference: the statistic of held-out examples, [n].
        values: [N].
        two_sided: both ends are odd; else large ones are.
    """
    if len(reference) == 0:
        raise InvalidSetting("a conformal p-value needs held-out examples to rank among")
    ranked, n = np.sort(reference), len(reference)
    upper = (n - np.searchsorted(ranked, values, "left") + 1) / (n + 1)
    if not two_sided:
        return upper
    lower = (np.searchsorted(ranked, values, "right") + 1) / (n + 1)
    return np.minimum(1.0, 2.0 * np.minimum(upper, lower))


def dose(known: Mapping[str, FloatArray], values: Mapping[str, FloatArray]) -> FloatArray | None:
    """Minus the log density of the statistics of each example; [N], large is odd.

    An example may be odd in one way alone: too cheap, or too dear for how simple it is. The density
    is that of held-out examples, a Gaussian kernel estimate of each statistic, and their product
    (Morningstar et al. 2021, DoSE-KDE). `file-length` has no part in it, nor has `surprise`, by
    which real images of the model's own data are odd as well. It is no p-value: rank it among those
    of further held-out examples, `conformal(dose(known, further), dose(known, values))`.

    Args:
        known: statistics of held-out examples, by name, [n] each.
        values: the same of the examples, [N] each.

    Returns:
        None where fewer than two statistics take part: there is nothing to combine.
    """
    from scipy.stats import gaussian_kde

    names = [n for n in values if n not in (LENGTH, SURPRISE, DOSE) and np.ptp(known[n]) > 0]
    if len(names) < 2:
        return None
    total: FloatArray = -np.sum([gaussian_kde(known[n]).logpdf(values[n]) for n in names], axis=0)
    return total


def model_null(surprise: FloatArray) -> FloatArray:
    """Two-sided p-value of `surprise` under N(0, 1), the model's own null."""
    from scipy.special import ndtr

    p: FloatArray = 2.0 * ndtr(-np.abs(surprise))
    return p


def oddness(name: str, reference: FloatArray, values: FloatArray) -> FloatArray:
    """How odd each value of a statistic is among a reference; larger is odder.

    The statistic itself where large is odd; its distance from the reference's median, in ranks and
    beyond its ends in the reference's spread, where both ends are.
    """
    if name not in TWO_SIDED:
        return values
    ranked = np.sort(reference)
    share = np.searchsorted(ranked, values, "left") + np.searchsorted(ranked, values, "right")
    spread = max(float(ranked[-1] - ranked[0]), 1e-12)
    beyond = np.maximum(ranked[0] - values, values - ranked[-1]).clip(min=0.0) / spread
    apart: FloatArray = np.abs(share / (2 * len(ranked)) - 0.5) + beyond
    return apart


def auroc(usual: FloatArray, odd: FloatArray) -> tuple[float, float]:
    """P(an odd one scores above a usual one), ties half, and its standard error.

    The error is that of DeLong et al. 1988, https://doi.org/10.2307/2531595.
    """
    of_usual, of_odd = _placements(usual, odd)
    return float(of_odd.mean()), _placement_error(of_usual, of_odd)


def auroc_gain(
    usual: tuple[FloatArray, FloatArray], odd: tuple[FloatArray, FloatArray]
) -> tuple[float, float]:
    """AUROC of the second statistic less that of the first, of the same examples; its error.

    The error is that of DeLong et al. 1988 for correlated curves.

    Args:
        usual: both statistics of the usual examples, [N] each.
        odd: both of the odd ones, [M] each.
    """
    first, second = (_placements(*pair) for pair in zip(usual, odd, strict=True))
    of_usual, of_odd = second[0] - first[0], second[1] - first[1]
    return float(of_odd.mean()), _placement_error(of_usual, of_odd)


def _placements(usual: FloatArray, odd: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Of each example the share of the other kind on the right side of it, ties half."""

    def share(values: FloatArray, ranked: FloatArray) -> FloatArray:
        below = np.searchsorted(ranked, values, "left") + np.searchsorted(ranked, values, "right")
        return below / (2.0 * len(ranked))

    return 1.0 - share(usual, np.sort(odd)), share(odd, np.sort(usual))


def _placement_error(of_usual: FloatArray, of_odd: FloatArray) -> float:
    if min(len(of_usual), len(of_odd)) < 2:
        return float("nan")
    variance = of_odd.var(ddof=1) / len(of_odd) + of_usual.var(ddof=1) / len(of_usual)
    return float(np.sqrt(variance))


def batch_typicality(
    reference: FloatArray, values: FloatArray, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """(difference of the mean nats from the reference's, p-value of so large a one).

    The null is that both are examples of one kind, so that any of them might have been the batch:
    the p-value is the difference's rank among those of random permutations, uniform for a batch of
    the reference's own data, whatever the sizes of both (Nalisnick et al. bootstrap batches, which
    takes the reference's mean for the truth).
    """
    every, n = np.concatenate([values, reference]), len(values)
    apart = float(values.mean() - reference.mean())
    generator = np.random.default_rng(seed)
    sums = np.array([generator.permutation(every)[:n].sum() for _ in range(draws)])
    null = sums / n - (every.sum() - sums) / len(reference)
    # What rounding leaves of a difference is no difference.
    slack = 1e-12 * float(np.abs(every).max())
    return apart, float((1 + (np.abs(null) >= abs(apart) - slack).sum()) / (draws + 1))
