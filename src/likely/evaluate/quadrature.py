r"""log p(x) of a model of at most two latent coordinates, by quadrature.

    p(x) = integral p(x|z) p(z) dz = sum_g p(x|z_g) p(z_g) h^d prod_i dz_i/dv_i,   z = 3 sinh(v / 3)

One grid of decoded points serves all images. The trapezoidal rule converges faster than any power
of h for a smooth integrand that dies out at both ends (Trefethen and Weideman 2014,
https://doi.org/10.1137/130932132); the substitution makes the grid dense where the prior is.

Errors: h is halved until no image's log p(x) changes by more than the tolerance, and that last
change, far above what is left, is the stated error. It begins no wider than the narrowest
q(z|x). The grid reaches to where the prior's mass outside, times p(x|z) <= 1, is below
the tolerance: that part is proven.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from likely.data.labels import relabelled
from likely.data.spec import Dataset
from likely.density import (
    FactorizedLikelihood,
    LatentVariable,
    StandardNormal,
    at_least_float,
    chunks,
    condition_of,
    evaluating,
    inputs_of,
)
from likely.devices.precision import without_autocast
from likely.errors import InvalidSetting
from likely.estimate import Relation
from likely.evaluate.likelihood import (
    PerExample,
    Progress,
    _refuse_misfit,
    _refuse_non_finite,
    proofs_of,
    quantity_of,
)
from likely.noise import Noise
from likely.verify import Proofs

MOST_LATENTS = 2
# Points of a grid, and products of its points with levels of all images, beyond which it is refined
# no further: some minutes of one core.
MOST_POINTS, MOST_WORK = 2**23, 2**43
# Numbers in memory at a time.
BLOCK = 2**22
# log p of all levels of a dimension, beyond which images are read one by one.
TABLE = 2**14
# Dimensions of images that are read one by one in no time.
TINY = 32
# Images that the encoder reads at a time.
IMAGES = 512
# Scale of the substitution.
KNEE = 3.0


def can_integrate(model: LatentVariable) -> bool:
    """Whether a model has few enough latent coordinates, and a prior of known tails, for a grid."""
    return model.latent <= MOST_LATENTS and isinstance(model.prior, StandardNormal)


def integrates_quickly(model: LatentVariable) -> bool:
    """Whether a table of log p for each point of the grid serves all images, or they are tiny.

    Elsewhere, as with 256 levels or colours that are coupled, every image reads every point.
    """
    return can_integrate(model) and (_has_tables(model) or model.spec.dimensions <= TINY)


def _has_tables(model: LatentVariable) -> bool:
    alone = isinstance(model.likelihood_given_z, FactorizedLikelihood) and (
        model.spec.grid[0] == 1 or not model.head.couples_channels
    )
    return alone and model.spec.dimensions * model.spec.levels <= TABLE


def quadrature(
    model: LatentVariable,
    data: Dataset,
    *,
    tolerance: float = 1e-3,
    proofs: Proofs | None = None,
    progress: Progress | None = None,
) -> PerExample:
    """-log p(x) of every example, exact within the error that it states.

    Args:
        model: of one or two latent coordinates.
        data: what the numbers are about.
        tolerance: nats.
        proofs: as for `likely.nats`.
        progress: called with (examples done, of how many).

    Returns:
        One value for each example; "~" instead of "=" where the grid would be too large. Where it
        does not integrate quickly, an image of 28 x 28 pixels takes seconds.

    Raises:
        InvalidSetting: more latent coordinates, or a learned prior.
    """
    if not can_integrate(model):
        raise InvalidSetting(
            f"quadrature needs at most {MOST_LATENTS} latents and the prior N(0, I); the "
            f"model has {model.latent} with a {type(model.prior).__name__}: anneal instead "
            "(likely.annealed)"
        )
    _refuse_misfit(model, data, 1)
    proofs_of(model, proofs).require()
    labelled = relabelled(data, model.spec.classes) if model.classes else data
    groups = [np.arange(len(data))]
    if model.classes:
        assert labelled.labels is not None
        groups = [np.flatnonzero(labelled.labels == label) for label in np.unique(labelled.labels)]
    values, worst, points, done = np.empty(len(data), np.float64), 0.0, 0, 0
    if progress is not None:
        progress(0, len(data))
    with evaluating(model), torch.no_grad(), without_autocast(model.device):
        for rows in groups:
            batch = labelled.batch(rows)
            x, _ = inputs_of(model, batch)
            label = None if batch.label is None or not model.classes else int(batch.label[0])
            log_p, error, count = _integrated(model, model.integers(x), label, tolerance)
            values[rows] = -log_p.cpu().numpy()
            worst, points, done = max(worst, error), max(points, count), done + len(rows)
            if progress is not None:
                progress(done, len(data))
    _refuse_non_finite(model, data, values, 0)
    return PerExample(
        values,
        Relation.EXACT if worst <= tolerance else Relation.APPROXIMATE,
        data.fingerprint_given(condition_of(model)),
        data.spec.dimensions,
        f"quadrature, {points:,} points, error at most {worst:.1g} nats",
        quantity_of(model),
    )


def _integrated(
    model: LatentVariable, x: Tensor, label: int | None, tolerance: float
) -> tuple[Tensor, float, int]:
    """(log p(x) float64 [B], the largest error in nats, points of the grid)."""
    least, narrowest = math.inf, math.inf
    for part in chunks(len(x), IMAGES):
        labels = None if label is None else model.labels(label, len(x[part]))
        noise = Noise("quadrature", part.start, device=model.device)
        least = min(least, float(model.elbo(model.as_data(x[part]), noise, labels).min()))
        q = model.posterior(x[part], labels)
        narrowest = min(narrowest, float(q.log_scale.exp().min()))
    most = min(MOST_POINTS, MOST_WORK // (len(x) * model.spec.dimensions * model.spec.levels))
    reach = 1.0
    while _log_outside(reach, model.latent) > least + math.log(tolerance) - 10.0:
        reach += 0.5
    side = KNEE * math.asinh(reach / KNEE)
    step = min(1.0, 1.5 * narrowest)
    counts = math.ceil(2 * side / step)

    def sum_at(offset: tuple[float, ...], step: float, cells: int) -> Tensor:
        axes = [
            (torch.arange(cells, dtype=torch.float64, device=x.device) + o) * step - side
            for o in offset
        ]
        return _log_sum(model, x, label, torch.cartesian_prod(*axes).reshape(-1, model.latent))

    total = sum_at((0.0,) * model.latent, step, counts)
    log_p = total + model.latent * math.log(step)
    while True:
        for offset in itertools.product((0.0, 0.5), repeat=model.latent):
            if any(offset):
                total = torch.logaddexp(total, sum_at(offset, step, counts))
        step, counts = step / 2, counts * 2
        before, log_p = log_p, total + model.latent * math.log(step)
        error = float((log_p - before).abs().max())
        error += math.exp(min(0.0, _log_outside(reach, model.latent) - float(log_p.min())))
        points = counts**model.latent
        if error <= tolerance or points * 2**model.latent > most:
            return log_p, error, points


def _log_outside(reach: float, latent: int) -> float:
    """Bound on log P(some |z_i| > reach), by P(|z| > r) < sqrt(2 / pi) exp(-r^2 / 2) / r."""
    return math.log(latent * math.sqrt(2 / math.pi) / reach) - reach**2 / 2


def _log_sum(model: LatentVariable, x: Tensor, label: int | None, v: Tensor) -> Tensor:
    """log sum_g p(x|z_g) p(z_g) |dz/dv| over a grid v float64 [G, latent]; float64 [B]."""
    _, h, w = model.spec.grid
    table, likelihood = model.spec.dimensions * model.spec.levels, model.likelihood_given_z
    shared = _has_tables(model)
    levels = one_hot(x, model.spec.levels).permute(0, 1, 4, 2, 3).flatten(1) if shared else None
    total = torch.full((len(x),), -math.inf, dtype=torch.float64, device=x.device)
    dtype = next(model.parameters()).dtype
    rows = max(1, BLOCK // max(likelihood.features * h * w, table if shared else 1, len(x)))
    for part in chunks(len(v), rows):
        z = KNEE * torch.sinh(v[part] / KNEE)  # [G, latent]
        labels = None if label is None else model.labels(label, len(z))
        parameters = at_least_float(model.decoder_output(z.to(dtype), labels))
        if levels is not None:
            blank = x.new_zeros(len(z), *model.spec.grid)
            tables = [model.head.log_table(parameters, blank, c) for c in range(model.spec.grid[0])]
            every = torch.stack(tables, 1).flatten(1)  # [G, C L H W]
            given_z = every.clamp(min=-1e30) @ levels.to(every.dtype).T  # [G, B]
        else:
            wide = [image.expand(len(z), *image.shape) for image in x]
            each_image = [likelihood.log_prob(image, parameters) for image in wide]
            given_z = torch.stack(each_image, 1)
        weight = model.prior.log_prob(z) + torch.cosh(v[part] / KNEE).log().sum(-1)
        total = torch.logaddexp(total, (given_z.double() + weight[:, None]).logsumexp(0))
    return total
