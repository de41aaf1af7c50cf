"""Estimates: a number, its unit, its uncertainty, and how it relates to the truth.

A likelihood known exactly, a variational bound on one and a bound on a value function are the
same kind of thing: an interval known to contain the truth. `Estimate` carries that interval
together with everything that decides whether two numbers may be compared: the quantity, the
unit, the number of examples and the fingerprint of the data. Comparison is a partial order
(`Estimate.versus`), so it may end UNDECIDED.

Standard library only.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import html
import math
from collections.abc import Sequence
from typing import Any

from likely.errors import InvalidSetting

# Two-sided 95 % normal quantile: in standard errors, how far apart two estimates of many examples
# are called different. Few examples need more (`confidence_width`).
CONFIDENCE_Z = 1.959963984540054


@functools.lru_cache(maxsize=1024)
def confidence_width(n: int) -> float:
    """Two-sided 95 % quantile of Student's t with n - 1 degrees of freedom; infinite at n = 1.

    >>> [round(confidence_width(n), 3) for n in (2, 3, 10, 100)]
    [12.706, 4.303, 2.262, 1.984]
    """
    freedom = n - 1
    if freedom < 1:
        return math.inf
    if freedom > 200:  # Cornish-Fisher: within 1e-4 from here on
        return CONFIDENCE_Z + (CONFIDENCE_Z**3 + CONFIDENCE_Z) / (4 * freedom)
    low, high = 0.0, 16.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < 0.95 else (low, middle)
    return high


def _within(t: float, freedom: int) -> float:
    """P(|T| < t) of Student's t, by its finite sum (Abramowitz and Stegun 1964, 26.7.3-4)."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2 == 1
    term, total = (cosine if odd else 1.0), 0.0
    for power in range(1 if odd else 0, freedom - 1, 2):
        total += term
        term *= cosine**2 * (power + 1) / (power + 2)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


class Relation(enum.Enum):
    """How the printed number relates to the true quantity."""

    EXACT = "="
    UPPER = "<="  # the truth is at most this number
    LOWER = ">="  # the truth is at least this number
    APPROXIMATE = "~"  # no bound is known (Frechet distance, a finite-sample estimate)


class Verdict(enum.Enum):
    """The outcome of comparing two estimates."""

    BETTER = "better"
    WORSE = "worse"
    UNDECIDED = "undecided"
    INCOMPARABLE = "incomparable"  # other data, other quantity or other unit


@dataclasses.dataclass(frozen=True, repr=False)
class Comparison:
    """A verdict and the sentence that explains it."""

    verdict: Verdict
    reason: str

    def __str__(self) -> str:
        return f"{self.verdict.name}: {self.reason}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from likely.files.inline import badge, fragment

        style = {Verdict.UNDECIDED: "fair", Verdict.INCOMPARABLE: "none"}
        word = badge(self.verdict.value, style.get(self.verdict, "good"))
        return fragment(f"<p>{word} {html.escape(self.reason)}</p>")


@dataclasses.dataclass(frozen=True, repr=False)
class Estimate:
    """A measured number with its relation to the truth.

    Attributes:
        value: the number itself, in `unit`.
        unit: "nats", "bits/dim", "" for pure numbers.
        relation: how `value` relates to the true quantity.
        quantity: what is measured, as "nll", "frechet", "kid", ...; what it is given belongs to
            it, as "nll-given-label".
        standard_error: standard error of `value` over the `n` examples; 0 when exact, infinite
            where one example says nothing about it.
        n: number of examples that the number is a mean over.
        fingerprint: of the data (and, for feature distances, of the extractor).
        lower_is_better: direction of the quantity; None when there is none.
        about: settings a reader needs, as "importance-weighted, k = 500".
    """

    value: float
    unit: str
    relation: Relation
    quantity: str
    standard_error: float
    n: int
    fingerprint: str
    lower_is_better: bool | None = True
    about: str = ""

    def __post_init__(self) -> None:
        if math.isnan(self.value):
            raise InvalidSetting(f"{self.quantity}: the estimate is not a number")
        if self.n < 1:
            raise InvalidSetting(f"{self.quantity}: an estimate needs n >= 1, given n = {self.n}")
        if not self.standard_error >= 0.0:
            raise InvalidSetting(
                f"{self.quantity}: the standard error must be >= 0, given {self.standard_error}"
            )

    @classmethod
    def mean_of(
        cls,
        values: Sequence[float],
        *,
        unit: str,
        relation: Relation,
        quantity: str,
        fingerprint: str,
        lower_is_better: bool | None = True,
        about: str = "",
    ) -> Estimate:
        """The mean of per-example values, with its standard error (n - 1 in the variance)."""
        n = len(values)
        if n == 0:
            raise InvalidSetting(f"{quantity}: no examples to take the mean of")
        mean = math.fsum(values) / n
        if n > 1:
            variance = math.fsum((v - mean) ** 2 for v in values) / (n - 1)
            error = math.sqrt(variance / n)
        else:
            error = math.inf
        return cls(mean, unit, relation, quantity, error, n, fingerprint, lower_is_better, about)

    @property
    def lower(self) -> float:
        """Lower end of the interval known to contain the truth, sampling error aside."""
        return self.value if self.relation in (Relation.EXACT, Relation.LOWER) else -math.inf

    @property
    def upper(self) -> float:
        """Upper end of the interval known to contain the truth, sampling error aside."""
        return self.value if self.relation in (Relation.EXACT, Relation.UPPER) else math.inf

    def scaled(self, factor: float, unit: str) -> Estimate:
        """The same estimate in another unit; `factor` must be positive."""
        if not factor > 0.0:
            raise InvalidSetting(f"a unit factor must be positive, given {factor}")
        return dataclasses.replace(
            self, value=self.value * factor, standard_error=self.standard_error * factor, unit=unit
        )

    def versus(self, other: Estimate) -> Comparison:
        """Compare with `other`: BETTER means that this one is better.

        The order is partial. Exact numbers differ when they are further apart than 95 % of
        Student's t allow for the standard error of their difference (taken as independent, which
        is conservative for numbers on the same images); one example decides nothing. A bound only
        decides in the direction it bounds.
        """
        label, others = _condition(self.quantity), _condition(other.quantity)
        if label != others and _base(self.quantity) == _base(other.quantity):
            return Comparison(
                Verdict.INCOMPARABLE,
                f"{_likelihood(label)} and {_likelihood(others)} are different quantities: what "
                "is given tells part of x, so the two numbers differ for equally good models",
            )
        if (self.quantity, self.unit) != (other.quantity, other.unit):
            return Comparison(
                Verdict.INCOMPARABLE,
                f"{self.quantity} [{self.unit}] and {other.quantity} [{other.unit}] "
                "are different quantities",
            )
        if self.fingerprint != other.fingerprint:
            return Comparison(
                Verdict.INCOMPARABLE,
                f"the data {f'or what is given with them ({label}s) ' if label else ''}differ "
                f"(fingerprints {self.fingerprint} and {other.fingerprint})",
            )
        if self.lower_is_better is None:
            return Comparison(Verdict.UNDECIDED, f"{self.quantity} has no better direction")
        slack = self._slack(other)
        below, above = self._surely_below(other, slack), other._surely_below(self, slack)
        if below or above:
            better = below == self.lower_is_better
            verdict = Verdict.BETTER if better else Verdict.WORSE
            sign = "<" if below else ">"
            return Comparison(verdict, f"{self} {sign} {other}")
        return Comparison(Verdict.UNDECIDED, self._why_undecided(other, slack))

    def _slack(self, other: Estimate) -> float:
        """Half the width of the 95 % interval of the difference; that of the smaller n."""
        error = math.hypot(self.standard_error, other.standard_error)
        if error == 0.0 or math.isinf(error):
            return error
        return error * confidence_width(min(e.n for e in (self, other) if e.standard_error > 0))

    def _surely_below(self, other: Estimate, slack: float) -> bool:
        if Relation.APPROXIMATE in (self.relation, other.relation):
            # Estimates without a bound are ranked by their sampling error alone.
            same_kind = self.relation == other.relation
            return same_kind and self.value + slack < other.value
        return self.upper + slack < other.lower

    def _why_undecided(self, other: Estimate, slack: float) -> str:
        gap = abs(self.value - other.value)
        if math.isinf(slack):
            n = min(self.n, other.n)
            return (
                f"{self} and {other} differ by {gap:.4g}, and {n} example"
                f"{'s do' if n > 1 else ' does'} not say how far chance alone moves them"
            )
        if self.relation != other.relation:
            return f"{self} against {other}: the bound leaves room for either order"
        if self.relation in (Relation.UPPER, Relation.LOWER):
            return f"{self} and {other} are both bounds; the truths may lie in either order"
        return (
            f"{self} and {other} differ by {gap:.4g}, less than the sampling error "
            f"{slack:.4g} (95 %)"
        )

    def __str__(self) -> str:
        digits = _digits(self.standard_error, self.value)
        text = f"{self.relation.value} {self.value:.{digits}f}"
        if math.isinf(self.standard_error):
            return f"{text} {self.unit}".rstrip() + f" (n = {self.n}, error unknown)"
        if self.standard_error > 0.0:
            text += f" +- {self.standard_error:.{digits}f}"
        return f"{text} {self.unit}".rstrip()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from likely.files.inline import fragment, line

        about = [self.quantity, f"n = {self.n:,}", self.about, f"data {self.fingerprint}"]
        text = ", ".join(part for part in about if part)
        return fragment(f"<p><b>{html.escape(str(self))}</b></p>", line(text, muted=True))

    def to_json(self) -> dict[str, Any]:
        """A flat dictionary; `from_json` reads it back. An unknown error is None."""
        record = dataclasses.asdict(self)
        if math.isinf(self.standard_error):
            record["standard_error"] = None
        record["relation"] = self.relation.value
        return record

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Estimate:
        """Read what `to_json` wrote."""
        error = record["standard_error"]
        fields = {**record, "standard_error": math.inf if error is None else error}
        return cls(**{**fields, "relation": Relation(record["relation"])})


def nats_to_bits_per_dim(dimensions: int) -> float:
    """Factor from nats per example to bits/dim: 1 / (D ln 2).

    >>> round(80 * nats_to_bits_per_dim(784), 4)
    0.1472
    """
    if dimensions < 1:
        raise InvalidSetting(f"bits/dim needs at least one dimension, given {dimensions}")
    return 1.0 / (dimensions * math.log(2.0))


def _base(quantity: str) -> str:
    """The quantity without what it is given."""
    return quantity.partition("-given-")[0]


def _condition(quantity: str) -> str:
    return quantity.partition("-given-")[2]


def _likelihood(condition: str) -> str:
    return f"log p(x | {condition})" if condition else "log p(x)"


def _digits(error: float, value: float) -> int:
    """Decimals to print: two significant digits of the error, else four of the value."""
    scale = error if 0.0 < error < math.inf else abs(value) / 100.0
    if scale <= 0.0 or not math.isfinite(scale):
        return 2
    return min(8, max(0, 1 - math.floor(math.log10(scale))))
