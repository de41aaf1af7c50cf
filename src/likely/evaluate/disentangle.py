r"""Whether each unit of a code stands for one factor: MIG, DCI and SAP.

- MIG (Chen et al. 2018, eq. 6, https://arxiv.org/abs/1802.04942): for each factor the mutual
  information of the best unit less that of the second best, as a share of the factor's entropy.
  Codes are cut into 20 bins of equal width.
- DCI (Eastwood and Williams 2018, https://openreview.net/forum?id=By-7dz-AZ): a lasso predicts each
  factor from the code, on half of the examples; the magnitudes of its weights say which units
  matter. Disentanglement: does a unit matter for one factor only; completeness: does one unit
  matter for a factor only; informativeness: the share of variance explained on the other half.
- SAP (Kumar et al. 2018, https://arxiv.org/abs/1711.00848): for each factor the share of its
  variance that the best unit explains linearly less that of the second best.

A code whose units are the factors scores near 1 by MIG, disentanglement and completeness, and by
SAP and informativeness where every factor is linear in a unit: a kind of three values is not, so on
`data.load("shapes")` they are 0.92. A rotation of such a code is as informative and scores lower by
the others: near 0 where it mixes all factors alike, 0.1 to 0.4 for random ones on shapes. A code
without information scores 0 by disentanglement and completeness, but for about one in a thousand by
chance, and near 0 by the others.

Deviations: a factor without an order (a kind) is one column for each of its values, whose weights
or explained variances are averaged; informativeness in place of an error; a weight counts only
where it helps on the other half. Otherwise the few unequal weights that a lasso gives noise would
pass for disentanglement, as their shares do not say how small they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from likely.ask.encode import features, features_answer
from likely.ask.query import Guarantee, refusal
from likely.data.spec import Dataset
from likely.density import Fittable, reading_of
from likely.errors import InvalidData

Floats = npt.NDArray[np.float64]

BINS = 20
# Weight of the lasso's penalty, for columns of variance 1.
PENALTY = 0.02
SWEEPS = 100
# How often chance alone may make any weight of a code count.
CHANCE = 0.001
# Factors whose values are names of no order.
NAMED = ("kind",)
ROWS = 256


@dataclasses.dataclass(frozen=True)
class Disentanglement:
    """Scores of a code against known factors, each in [0, 1], higher is better.

    Attributes:
        mig: mutual information gap.
        disentanglement, completeness, informativeness: of DCI; the first two are means over units
            and over factors, weighted by their importance, and 0 where nothing is predicted.
        sap: separated attribute predictability.
        best: of each factor, by name: (its best unit by mutual information, that information as a
            share of the factor's entropy, the gap).
        n: examples.
    """

    mig: float
    disentanglement: float
    completeness: float
    informativeness: float
    sap: float
    best: dict[str, tuple[int, float, float]]
    n: int

    def __str__(self) -> str:
        lines = [
            f"MIG {self.mig:.3f}, DCI disentanglement {self.disentanglement:.3f}, completeness "
            f"{self.completeness:.3f}, informativeness {self.informativeness:.3f}, SAP "
            f"{self.sap:.3f} ({self.n:,} examples)"
        ]
        for name, (unit, share, gap) in self.best.items():
            lines.append(f"  {name:6} unit {unit:3} says {share:.0%} of it, gap {gap:.3f}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        record = dataclasses.asdict(self)
        record["best"] = {
            name: {"unit": unit, "share": share, "gap": gap}
            for name, (unit, share, gap) in self.best.items()
        }
        return record


def disentanglement(codes: Floats, factors: Mapping[str, Floats]) -> Disentanglement:
    """MIG, DCI and SAP of codes.

    Args:
        codes: [N, Z].
        factors: value of each factor for each example, by name, [N] each; few different values.
            One that has the same value in either half of the examples is left out.

    Raises:
        InvalidData: no factors that vary, or of other examples than the codes.
    """
    if not factors or any(len(column) != len(codes) for column in factors.values()):
        raise InvalidData(
            f"expected known factors of each of {len(codes)} examples, given "
            f"{ {name: len(column) for name, column in factors.items()} or 'none' }"
        )
    z = np.asarray(codes, np.float64)
    spread = z.std(0)
    z = (z - z.mean(0)) / np.where(spread > 0, spread, 1.0)
    columns = {name: _columns(name, column) for name, column in factors.items()}
    factors = {name: column for name, column in factors.items() if columns[name]}
    if not factors:
        raise InvalidData(f"no factor varies: {', '.join(columns)} are the same in all examples")
    chance = CHANCE / (z.shape[1] * sum(map(len, columns.values())))
    best, saps, weights, explained = {}, [], [], []
    for name, column in factors.items():
        share = _information_shares(z, column)
        first, second = _top(share)
        best[name] = (int(share.argmax()), float(first), float(first - second))
        targets = columns[name]
        linear = np.stack([(z.T @ target / len(z)) ** 2 for target in targets]).mean(0)
        first, second = _top(linear)
        saps.append(float(first - second))
        fits = [_lasso(z[::2], target[::2]) for target in targets]
        helps = [_helps(z[1::2], t[1::2], w, chance) for t, w in zip(targets, fits, strict=True)]
        weights.append(np.where(helps, np.abs(fits), 0.0).mean(0))
        left = [target[1::2] - z[1::2] @ fit for target, fit in zip(targets, fits, strict=True)]
        kept = [1.0 - r.var() / t[1::2].var() for r, t in zip(left, targets, strict=True)]
        explained.append(max(0.0, float(np.mean(kept))))
    importance = np.stack(weights, 1)  # [Z, factors]
    whole = importance.sum()
    of_units, of_factors = importance.sum(1), importance.sum(0)
    dci_d = float(_purity(importance) @ of_units / whole) if whole else 0.0
    dci_c = float(_purity(importance.T) @ of_factors / whole) if whole else 0.0
    gaps = [gap for _, _, gap in best.values()]
    return Disentanglement(
        float(np.mean(gaps)), dci_d, dci_c, float(np.mean(explained)), float(np.mean(saps)), best,
        len(z),
    )  # fmt: skip


def disentanglement_of(model: Fittable, data: Dataset) -> Disentanglement:
    """Of a model's codes of data with known factors, as `data.load("shapes")`.

    Raises:
        Unanswerable: a model without an encoder.
        InvalidData: data whose factors are not known.
    """
    refuse_without_factors(model, data)
    codes = [
        features(model, x, context).double().cpu().numpy()
        for _, x, context in reading_of(model, data, ROWS)
    ]
    return disentanglement(np.concatenate(codes), data.factors)


def refuse_without_factors(model: Fittable, data: Dataset) -> None:
    """An error that says why codes cannot be held against factors, if either is not known."""
    if not data.factors:
        raise InvalidData(
            f'the factors of {data.spec.name} are not known; those of data.load("shapes") are'
        )
    answer = features_answer(model)
    if answer.guarantee is Guarantee.NONE:
        raise refusal(model, answer)


def _information_shares(z: Floats, column: Floats) -> Floats:
    """I(unit; factor) / H(factor) of every unit, [Z]."""
    values, factor = np.unique(column, return_inverse=True)
    p = np.bincount(factor) / len(factor)
    entropy = -(p * np.log(p)).sum()
    shares = np.zeros(z.shape[1])
    if entropy == 0:
        return shares
    for unit in range(z.shape[1]):
        edges = np.histogram_bin_edges(z[:, unit], BINS)
        cell = np.clip(np.digitize(z[:, unit], edges[1:-1]), 0, BINS - 1)
        joint = np.zeros((BINS, len(values)))
        np.add.at(joint, (cell, factor), 1.0 / len(z))
        product = joint.sum(1, keepdims=True) * joint.sum(0)
        there = joint > 0
        shares[unit] = (joint[there] * np.log(joint[there] / product[there])).sum() / entropy
    return shares


def _columns(name: str, column: Floats) -> list[Floats]:
    """The factor as columns of mean 0 and variance 1, but for those that are constant in a half."""
    named = [column == value for value in np.unique(column)] if name in NAMED else [column]
    centred = [np.asarray(each, np.float64) - np.mean(each) for each in named]
    varied = (each for each in centred if min(np.ptp(each[::2]), np.ptp(each[1::2])) > 0)
    return [each / each.std() for each in varied]


def _lasso(z: Floats, target: Floats) -> Floats:
    """argmin |target - z w|^2 / (2 N) + PENALTY |w|_1 by coordinate descent, [Z]."""
    n = len(z)
    gram, towards = z.T @ z / n, z.T @ target / n
    w = np.zeros(z.shape[1])
    for _ in range(SWEEPS):
        before = w.copy()
        for unit in range(len(w)):
            if gram[unit, unit] > 0:
                rest = towards[unit] - gram[unit] @ w + gram[unit, unit] * w[unit]
                shrunk = np.sign(rest) * max(abs(rest) - PENALTY, 0.0)
                w[unit] = shrunk / gram[unit, unit]
        if np.abs(w - before).max() < 1e-8:
            break
    return w


def _helps(z: Floats, target: Floats, w: Floats, chance: float) -> npt.NDArray[np.bool_]:
    """Whether each weight lowers the squared error of examples that it was not fitted to, [Z].

    By permutation importance (Breiman 2001, sec. 10, https://doi.org/10.1023/A:1010933404324): how
    much the error grows when the values of the unit are dealt out again. For a linear predictor its
    mean over all permutations is 2 w cov(z, r), r the target less what the other units predict.
    It must be above 0 by a one-sided t-test at the level `chance`.
    """
    n = len(z)
    rest = (target - z @ w)[:, None] + z * w
    gain = w * (z - z.mean(0)) * (rest - rest.mean(0))  # [N, Z]
    above: npt.NDArray[np.bool_] = (
        gain.mean(0) > stdtrit(n - 1, 1.0 - chance) * gain.std(0) / n**0.5
    )
    return above


def _purity(importance: Floats) -> Floats:
    """1 less the entropy of each row, as a share of the greatest there could be, [rows]; 1 where
    a row has one entry."""
    total = importance.sum(1, keepdims=True)
    p = importance / np.where(total > 0, total, 1.0)
    entropy = -(p * np.log(np.where(p > 0, p, 1.0))).sum(1)
    return np.where(total[:, 0] > 0, 1.0 - entropy / np.log(max(2, importance.shape[1])), 0.0)


def _top(values: Floats) -> tuple[float, float]:
    """The greatest and the second greatest; 0 where there is only one."""
    ordered = np.sort(np.append(values, 0.0))
    return float(ordered[-1]), float(ordered[-2])
