"""Do samples come as often as the density says?

On a tiny instance every image can be listed with its probability. Its samples, drawn as anyone
would draw them, are counted: each image, and all images up to each probability, which a sampler at
another temperature shifts together. Counts are binomial, however rare the image.
"""

from __future__ import annotations

import math

import torch
from scipy.special import bdtr, bdtrc, ndtri
from torch import Tensor

from likely.density import GenerativeModel
from likely.verify.causality import FULL_BUDGET, QUICK_BUDGET
from likely.verify.proofs import Proof
from likely.verify.subject import Subject, work_of

NAME = "samples are as frequent as the density says"
# By chance less than once in a hundred million, for the largest of a thousand counts.
SIGMAS = 7.0
MOST, LEAST = 20_000, 1_000
MOST_DRAWN = 200_000  # dimensions


def samples_follow(subject: Subject, tiny: GenerativeModel, log_p: Tensor, label: int = 0) -> Proof:
    """Samples of a tiny instance against the probabilities of all its images.

    Args:
        subject: whose noise and budget are taken.
        tiny: the instance.
        log_p: log p(x) of `all_images` of its data, in their order, nats [N].
        label: of the context, as for `Subject.labels`.
    """
    spec = tiny.spec
    quick = 4 if subject.quick else 1
    budget = (QUICK_BUDGET if subject.quick else FULL_BUDGET) / 4
    affordable = int(budget // work_of(tiny, spec.dimensions))
    n = max(LEAST, min(MOST // quick, MOST_DRAWN // (quick * spec.dimensions), affordable))
    labels = subject.labels(n, label, tiny)
    x = tiny.sample(n, seed=subject.seed, context=labels, chunk=4096).flatten(1)
    within = ((x >= 0) & (x < spec.levels)).all(1)
    place = spec.levels ** torch.arange(spec.dimensions).flip(0)
    counts = torch.bincount((x[within] * place).sum(1), minlength=len(log_p)).double()
    p = log_p.double().exp()
    order = log_p.argsort()
    together = counts[order].cumsum(0)[:-1], p[order].cumsum(0)[:-1]
    worst = max(_sigmas(counts, p, n), _sigmas(*together, n)) if within.all() else math.inf
    return Proof.at_most(
        NAME,
        worst,
        SIGMAS,
        f"Counts of {n} samples against p(x) of all {len(p)} images of "
        f"{' x '.join(map(str, spec.shape))}: each image, and all up to each probability; "
        "standard errors.",
        vital=False,
    )


def _sigmas(counts: Tensor, p: Tensor, n: int) -> float:
    """The least likely of binomial counts, as a Gaussian would be that far out."""
    if not len(counts):
        return 0.0
    k, share = counts.numpy(), p.clamp(0.0, 1.0).numpy()
    above = torch.from_numpy(bdtrc(k - 1, n, share)).where(counts > 0, 1.0)
    below = torch.from_numpy(bdtr(k, n, share)).where(counts < n, 1.0)
    least = float(torch.minimum(above, below).min())
    return float(-ndtri(min(1.0, 2 * least) / 2)) if least == least else math.inf
