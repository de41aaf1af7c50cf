"""Comparison of models of any kind: a partial order.

One column for each (quantity, unit, fingerprint). Two numbers with different fingerprints are
about different data (or features, or N) and are never in one column. In a column every pair of
models gets a verdict with its reason: BETTER, WORSE, UNDECIDED where a bound or the sampling
error leaves room for either order. With per-example values on the same images, the test is
paired: the standard error is that of the differences, which is far smaller than that of
two independent means, since images differ in difficulty by tens of nats. Nats per step of sequences
are paired by the blocks that their error is from.

A model without a density has no number in the likelihood column, but the reason.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from likely.ask import QUERIES, Answer, Guarantee
from likely.data.sequences.spec import spec_of
from likely.data.spec import DataSpec
from likely.errors import InvalidSetting
from likely.estimate import Comparison, Estimate, Relation, Verdict, confidence_width
from likely.evaluate.quantities import CODES, GROUPS, LIKELIHOOD, LIKELIHOODS, words

Key = tuple[str, str]  # quantity, unit
PER_STEP = ("nats/step", "bits/value")  # of sequences: the values are those of blocks


@dataclasses.dataclass(frozen=True)
class ModelResult:
    """What was measured on one model.

    Attributes:
        name: as shown; differs from that of every other model of the comparison.
        kind: the place in the taxonomy, `model.kind`.
        estimates: all numbers. Two bounds on the same quantity: the tighter one is compared.
        answers: `likely.answers(model)`.
        per_example: values behind an estimate, by (quantity, unit), in the order of the images, or
            of the blocks of sequences; they make the comparison paired.
        refused: reasons, by quantity, why a number is withheld (a failed check).
        data: what the model was evaluated on, for words on what differs between two.
    """

    name: str
    kind: str
    estimates: tuple[Estimate, ...]
    answers: Mapping[str, Answer] = dataclasses.field(default_factory=dict)
    per_example: Mapping[Key, Sequence[float]] = dataclasses.field(default_factory=dict)
    refused: Mapping[str, str] = dataclasses.field(default_factory=dict)
    data: DataSpec | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` reads them back."""
        return {
            "name": self.name,
            "kind": self.kind,
            "estimates": [estimate.to_json() for estimate in self.estimates],
            "answers": {
                QUERIES[name].title: {"guarantee": answer.guarantee.value, "reason": answer.reason}
                for name, answer in self.answers.items()
            },
            "per_example": [
                {"quantity": quantity, "unit": unit, "values": [float(v) for v in values]}
                for (quantity, unit), values in self.per_example.items()
            ],
            "refused": dict(self.refused),
            "data": None if self.data is None else self.data.to_json(),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> ModelResult:
        """Read what `to_json` wrote."""
        return cls(
            name=record["name"],
            kind=record["kind"],
            estimates=tuple(Estimate.from_json(e) for e in record["estimates"]),
            answers={
                query.name: Answer(Guarantee(written["guarantee"]), written["reason"])
                for query in QUERIES.values()
                for written in [record["answers"].get(query.title)]
                if written is not None
            },
            per_example={
                (entry["quantity"], entry["unit"]): tuple(entry["values"])
                for entry in record["per_example"]
            },
            refused=dict(record["refused"]),
            data=spec_of(record["data"]) if record.get("data") else None,
        )


@dataclasses.dataclass(frozen=True)
class Column:
    """A column: a quantity, a unit and a fingerprint."""

    quantity: str
    unit: str
    fingerprint: str
    lower_is_better: bool | None

    @property
    def title(self) -> str:
        """What the quantity is called, with its unit, as "nll [nats]"."""
        name = words(self.quantity, short=True)
        return f"{name} [{self.unit}]" if self.unit else name


@dataclasses.dataclass(frozen=True)
class Missing:
    """A cell without a number: a few words for the cell, and the reason."""

    label: str
    reason: str

    @property
    def sentence(self) -> str:
        """The reason after the label, which it may say itself."""
        return self.reason if self.label in self.reason else f"{self.label}: {self.reason}"


@dataclasses.dataclass(frozen=True)
class PairVerdict:
    """The verdict on two models in one column; where it is decided, `left` is the better one."""

    column: Column
    left: str
    right: str
    comparison: Comparison
    paired: bool

    @property
    def title(self) -> str:
        """That of the column."""
        return self.column.title

    @property
    def decided(self) -> bool:
        """Whether one model is significantly better."""
        return self.comparison.verdict is Verdict.BETTER

    @property
    def sentence(self) -> str:
        """The verdict in words, without the quantity."""
        if self.decided:
            return f"{self.left} is better than {self.right}: {self.comparison.reason}"
        undecided = self.comparison.verdict is Verdict.UNDECIDED
        word = "undecided" if undecided else "cannot be compared"
        return f"{self.left} and {self.right}: {word}: {self.comparison.reason}"

    def __str__(self) -> str:
        return f"{self.title}: {self.sentence}"


@dataclasses.dataclass(frozen=True)
class ComparisonTable:
    """The comparison: columns, cells, verdicts.

    Attributes:
        results: one for each model, in the order given.
        floor: scores of training images as if they were samples; a separate row, not compared.
        columns: in the order of first appearance.
        cells: by (model name, column).
        verdicts: for each column and pair of models that both have a number, where the quantity
            has a direction; and for pairs whose numbers may not meet.
    """

    results: tuple[ModelResult, ...]
    floor: tuple[Estimate, ...]
    columns: tuple[Column, ...]
    cells: Mapping[tuple[str, Column], Estimate | Missing]
    verdicts: tuple[PairVerdict, ...]
    _beaten: Mapping[Column, Mapping[str, frozenset[str]]]

    def floor_of(self, column: Column) -> Estimate | None:
        """The floor's number in this column."""
        return next((e for e in self.floor if _column(e) == column), None)

    def undominated(self, column: Column) -> list[str]:
        """Models that no other is significantly better than; empty without a direction."""
        if column.lower_is_better is None:
            return []
        return [name for name, beaten_by in self._beaten[column].items() if not beaten_by]

    def best(self, column: Column) -> str | None:
        """The model that is significantly better than every other one measured here, or None."""
        beaten = self._beaten[column]
        for name in beaten:
            others = [other for other in beaten if other != name]
            if others and all(name in beaten[other] for other in others):
                return name
        return None

    def clusters(self) -> list[tuple[list[ModelResult], list[Column]]]:
        """Models with a number on the same data, and the columns of each such group.

        The speed of a sampler is no number on data; a model that shares no quantity with others
        stands with them.
        """
        groups: list[tuple[list[ModelResult], set[Column]]] = []
        for result in self.results:
            measured = {c for c in self.columns if isinstance(self.cells[result.name, c], Estimate)}
            about = {column for column in measured if column.quantity != "sampling-speed"}
            kinds = {(column.quantity, column.unit) for column in about}
            near = [group for group in groups if group[1] & about] or [
                group
                for group in groups
                if not any((column.quantity, column.unit) in kinds for column in group[1])
            ][:1]
            members = [each for group in near for each in group[0]] + [result]
            joined = (members, measured.union(*(group[1] for group in near)))
            at = groups.index(near[0]) if near else len(groups)
            groups[at : at + 1] = [joined]
            groups = [group for group in groups if group not in near]
        return [
            (members, [c for c in self.columns if c in measured]) for members, measured in groups
        ]

    def sentences(self) -> list[str]:
        """Every verdict in words, and every refusal."""
        missing = [
            f"{column.title}: {result.name}: {cell.sentence}"
            for column in self.columns
            for result in self.results
            if isinstance(cell := self.cells[result.name, column], Missing) and cell.reason
        ]
        return [str(verdict) for verdict in self.verdicts] + missing

    def to_json(self) -> dict[str, Any]:
        """The whole comparison as plain values."""
        return {
            "models": [
                {key: value for key, value in result.to_json().items() if key != "per_example"}
                for result in self.results
            ],
            "columns": [self._column_json(column) for column in self.columns],
            "verdicts": [
                {
                    "quantity": verdict.column.quantity,
                    "unit": verdict.column.unit,
                    "left": verdict.left,
                    "right": verdict.right,
                    "verdict": verdict.comparison.verdict.value,
                    "reason": verdict.comparison.reason,
                    "paired": verdict.paired,
                    "sentence": str(verdict),
                }
                for verdict in self.verdicts
            ],
        }

    def _column_json(self, column: Column) -> dict[str, Any]:
        floor = self.floor_of(column)
        cells = {result.name: self.cells[result.name, column] for result in self.results}
        return {
            **dataclasses.asdict(column),
            "cells": {
                name: cell.to_json() if isinstance(cell, Estimate) else dataclasses.asdict(cell)
                for name, cell in cells.items()
            },
            "floor": None if floor is None else floor.to_json(),
            "best": self.best(column),
            "undominated": self.undominated(column),
        }


def compare_models(
    results: Sequence[ModelResult], floor: Sequence[Estimate] = ()
) -> ComparisonTable:
    """Compare models of any kinds.

    Args:
        results: one for each model; names differ.
        floor: `SampleReference.floor`, shown beside the models.

    Returns:
        The partial order, column by column.

    Raises:
        InvalidSetting: two models of one name, two numbers for one cell that are not bounds, or
            per-example values that are not those behind the estimate.
    """
    names = [result.name for result in results]
    for name in names:
        if names.count(name) > 1:
            raise InvalidSetting(f'two models are called "{name}"; give each its own name')
    chosen = {result.name: _by_column(result) for result in results}
    columns = tuple(dict.fromkeys(c for result in results for c in chosen[result.name]))
    cells: dict[tuple[str, Column], Estimate | Missing] = {}
    for result in results:
        for column in columns:
            estimate = chosen[result.name].get(column)
            cells[result.name, column] = estimate or _missing(result, column, chosen[result.name])
    verdicts: list[PairVerdict] = []
    beaten: dict[Column, dict[str, frozenset[str]]] = {}
    for column in columns:
        present = [result for result in results if column in chosen[result.name]]
        losses: dict[str, set[str]] = {result.name: set() for result in present}
        for left, right in itertools.combinations(present, 2):
            if column.lower_is_better is None:
                continue
            verdict = _verdict(column, left, right, chosen)
            verdicts.append(verdict)
            if verdict.decided:
                losses[verdict.right].add(verdict.left)
        beaten[column] = {name: frozenset(by) for name, by in losses.items()}
    verdicts.extend(_incomparable(results, chosen))
    return ComparisonTable(tuple(results), tuple(floor), columns, cells, tuple(verdicts), beaten)


def beside_best(results: Sequence[ModelResult]) -> list[ModelResult]:
    """The models, each with its paired difference to the best exact one, where steps are scored.

    Of models that were measured on the same sequences: nats per step more than those of the model
    whose exact number is the lowest. A bound leaves a bound.
    """
    key = ("nll", "nats/step")
    scored = {
        result.name: next(e for c, e in _by_column(result).items() if (c.quantity, c.unit) == key)
        for result in results
        if key in result.per_example
    }
    out = []
    for result in results:
        mine = scored.get(result.name)
        exact = [
            other
            for other in results
            if mine is not None
            and other.name in scored
            and scored[other.name].relation is Relation.EXACT
            and scored[other.name].fingerprint == mine.fingerprint
        ]
        if mine is not None and len(scored) > 1 and exact:
            best = min(exact, key=lambda other: scored[other.name].value)
            pairs = zip(result.per_example[key], best.per_example[key], strict=True)
            difference = Estimate.mean_of(
                [a - b for a, b in pairs],
                unit="nats/step",
                relation=mine.relation,
                quantity="nll-difference",
                fingerprint=mine.fingerprint,
                lower_is_better=None,
                about=f"to {best.name}, on the same blocks",
            )
            result = dataclasses.replace(result, estimates=(*result.estimates, difference))
        out.append(result)
    return out


def paired_comparison(
    left: Estimate, right: Estimate, left_values: Sequence[float], right_values: Sequence[float]
) -> Comparison:
    """Compare two means over the same examples by their differences.

    Args:
        left, right: the estimates, means of the values.
        left_values, right_values: per example (of nats per step: of each block of steps), in the
            same order and the estimates' unit.

    Returns:
        As `Estimate.versus`, with the standard error of the mean difference instead of that of
        two independent means; the error of what all examples share (log Z) stays. A bound still
        decides only in the direction that it bounds.
    """
    plain = left.versus(right)
    if plain.verdict is Verdict.INCOMPARABLE or left.lower_is_better is None:
        return plain
    n, what = len(left_values), "block" if left.unit in PER_STEP else "image"
    if n != len(right_values) or n < 1:
        raise InvalidSetting(
            f"a paired test needs the same examples on both sides; given {n} and "
            f"{len(right_values)} values"
        )
    if n == 1:
        return Comparison(
            Verdict.UNDECIDED,
            f"{left} and {right}: one {what} does not say how far chance alone moves the "
            "difference",
        )
    mean, apart = _mean_and_error([a - b for a, b in zip(left_values, right_values, strict=True)])
    shared = (_shared_error(left, left_values), _shared_error(right, right_values))
    error = math.hypot(apart, *shared)
    slack = confidence_width(n) * error
    shown = f"{left} and {right}: on the same {n} {what}s they differ by {mean:+.4g} +- {error:.2g}"
    # `left` is surely below when even its upper end is below the lower end of `right`.
    below = _bounds(left, Relation.UPPER) and _bounds(right, Relation.LOWER) and mean + slack < 0
    above = _bounds(left, Relation.LOWER) and _bounds(right, Relation.UPPER) and mean - slack > 0
    if Relation.APPROXIMATE in (left.relation, right.relation):
        same = left.relation == right.relation
        below, above = same and mean + slack < 0, same and mean - slack > 0
    if below or above:
        better = below == left.lower_is_better
        return Comparison(Verdict.BETTER if better else Verdict.WORSE, shown)
    if left.relation == right.relation == Relation.EXACT:
        return Comparison(Verdict.UNDECIDED, f"{shown}, within the sampling error (95 %)")
    return Comparison(Verdict.UNDECIDED, plain.reason)


def _mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean of two or more values, and its standard error."""
    n = len(values)
    mean = math.fsum(values) / n
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1) / n)


def _shared_error(estimate: Estimate, values: Sequence[float]) -> float:
    """Standard error of what all examples share, as log Z: no pairing takes that away.

    It is what the error of the estimate has beside that of the mean of its values.
    """
    if estimate.unit in PER_STEP:  # of blocks, and nothing is shared
        return 0.0
    error, alone = estimate.standard_error, _mean_and_error(values)[1]
    return math.sqrt(error**2 - alone**2) if error > alone * (1 + 1e-9) else 0.0


def _bounds(estimate: Estimate, side: Relation) -> bool:
    """Whether the number bounds the truth on this side."""
    return estimate.relation in (Relation.EXACT, side)


def _column(estimate: Estimate) -> Column:
    return Column(estimate.quantity, estimate.unit, estimate.fingerprint, estimate.lower_is_better)


def _by_column(result: ModelResult) -> dict[Column, Estimate]:
    """The numbers by their columns: what is exact before a bound, of two bounds of one side the
    tighter."""
    bounds = (Relation.UPPER, Relation.LOWER)
    estimates: dict[Column, Estimate] = {}
    for new in result.estimates:
        old = estimates.setdefault(_column(new), new)
        if old is new:
            continue
        exact = [e for e in (old, new) if e.relation is Relation.EXACT]
        if len(exact) == 1 and {old.relation, new.relation} & set(bounds):
            estimates[_column(new)] = exact[0]
            continue
        if not (old.relation == new.relation and new.relation in bounds):
            raise InvalidSetting(
                f"{result.name}: two numbers for one cell: {old} and {new} ({new.quantity})"
            )
        tighter = min if new.relation is Relation.UPPER else max
        estimates[_column(new)] = tighter(old, new, key=lambda estimate: estimate.value)
    return estimates


def _missing(result: ModelResult, column: Column, estimates: Mapping[Column, Estimate]) -> Missing:
    if column.quantity in result.refused:
        return Missing("refused", result.refused[column.quantity])
    answer = result.answers.get("likelihood")
    density = any(column.quantity == quantity.name for quantity in GROUPS[LIKELIHOOD])
    if density and answer and answer.guarantee is Guarantee.NONE:
        return Missing("no density", answer.reason)
    if any(column.quantity == quantity.name for quantity in GROUPS[CODES]):
        code = result.answers.get("posterior")
        if code and code.guarantee is Guarantee.NONE:
            return Missing("no code", code.reason)
    for other in estimates:
        # The verdict INCOMPARABLE says why.
        if (other.quantity, other.unit) == (column.quantity, column.unit):
            return Missing("other data", "")
        if column.quantity in LIKELIHOODS and other.quantity in LIKELIHOODS:
            return Missing("other quantity", "")
    return Missing("not measured", "")


def _verdict(
    column: Column,
    left: ModelResult,
    right: ModelResult,
    chosen: Mapping[str, Mapping[Column, Estimate]],
) -> PairVerdict:
    sides = [
        (each.name, chosen[each.name][column], _values(each, column, chosen[each.name]))
        for each in (left, right)
    ]
    paired = all(values is not None for _, _, values in sides)
    for (name, a, x), (other, b, y) in (sides, sides[::-1]):
        comparison = paired_comparison(a, b, x or (), y or ()) if paired else a.versus(b)
        verdict = PairVerdict(column, name, other, comparison, paired)
        if comparison.verdict is not Verdict.WORSE:
            break
    return verdict


def _values(
    result: ModelResult, column: Column, estimates: Mapping[Column, Estimate]
) -> Sequence[float] | None:
    """The per-example values behind an estimate, in its unit, or None.

    Values that were given in another unit of the same quantity (nats for bits/dim) are scaled.
    """
    for (quantity, unit), values in result.per_example.items():
        base = estimates.get(dataclasses.replace(column, quantity=quantity, unit=unit))
        if quantity != column.quantity or base is None:
            continue
        mean = math.fsum(values) / max(1, len(values))
        counted = unit in PER_STEP or len(values) == base.n
        if not counted or not math.isclose(mean, base.value, rel_tol=1e-5, abs_tol=1e-9):
            raise InvalidSetting(
                f"{result.name}: the {len(values)} per-example values of {quantity} have mean "
                f"{mean:.6g}, but the estimate is {base.value:.6g} over {base.n}"
            )
        if unit == column.unit:
            return values
        if base.value != 0.0:
            factor = estimates[column].value / base.value
            return [value * factor for value in values]
    return None


def _incomparable(
    results: Sequence[ModelResult], chosen: Mapping[str, Mapping[Column, Estimate]]
) -> Iterator[PairVerdict]:
    """Pairs that measured the same quantity on different data."""
    for left, right in itertools.combinations(results, 2):
        for column, a in chosen[left.name].items():
            for other, b in chosen[right.name].items():
                likelihoods = column.quantity in LIKELIHOODS and other.quantity in LIKELIHOODS
                same = column.quantity == other.quantity or likelihoods
                if not same or column.unit != other.unit or column == other:
                    continue
                if column in chosen[right.name] or other in chosen[left.name]:
                    continue  # they do meet elsewhere
                yield PairVerdict(column, left.name, right.name, _apart(left, right, a, b), False)


def _apart(left: ModelResult, right: ModelResult, a: Estimate, b: Estimate) -> Comparison:
    """Why two numbers do not meet: in words where it is their data."""
    plain = a.versus(b)
    if a.quantity != b.quantity or left.data is None or right.data is None:
        return plain
    what = left.data.differences(right.data)
    return Comparison(plain.verdict, f"other data: {what}" if what else plain.reason)
