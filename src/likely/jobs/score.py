"""Which examples are odd under a run, and where.

likely score runs/pixelcnn pictures/        the command
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from likely.data.spec import Dataset
from likely.density import Fittable
from likely.errors import InvalidData
from likely.evaluate.odd import (
    DOSE,
    RULE,
    TWO_SIDED,
    Asked,
    FloatArray,
    Progress,
    auroc,
    batch_typicality,
    conformal,
    dose,
    model_null,
    oddness,
    statistics,
)

# Examples flagged at this level are counted.
LEVEL = 0.05


@dataclasses.dataclass(frozen=True, repr=False)
class Oddness:
    """How odd each example of some data is, beside held-out examples of a model's own data.

    Attributes:
        values: of each statistic, [N].
        reference: of each statistic, of the held-out examples that p-values are ranks among.
        p: conformal p-values of each statistic, [N].
        null: p-values of `surprise` under the model's own null, [N]; None for a model without it.
        flagged: share of the data with p at most 0.05, by statistic.
        area: AUROC of the data against further held-out examples and its standard error, by
            statistic; 0.5 is chance.
        batch: (mean nats less those of the reference, p-value of the data as one batch), or None.
        rule: the statistic that ranks the examples.
    """

    values: dict[str, FloatArray]
    reference: dict[str, FloatArray]
    p: dict[str, FloatArray]
    null: FloatArray | None
    flagged: dict[str, float]
    area: dict[str, tuple[float, float]]
    batch: tuple[float, float] | None
    rule: str

    @property
    def order(self) -> npt.NDArray[np.int64]:
        """Examples, the oddest first, by the rule."""
        odd = oddness(self.rule, self.reference[self.rule], self.values[self.rule])
        return np.argsort(-odd, kind="stable")

    def rows(self) -> list[list[str]]:
        """A line for each statistic: name, medians, share flagged, AUROC."""
        return [
            [
                name, f"{np.median(values):.4g}", f"{np.median(self.reference[name]):.4g}",
                "both ends" if name in TWO_SIDED else "large",
                f"{self.flagged[name]:.1%}",
                f"{self.area[name][0]:.3f} ± {self.area[name][1]:.3f}",
            ]
            for name, values in self.values.items()
        ]  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Plain values, those of single examples left out."""
        return {
            "n": len(next(iter(self.values.values()))), "rule": self.rule,
            "statistics": {
                name: {
                    "median": float(np.median(values)),
                    "reference-median": float(np.median(self.reference[name])),
                    "two-sided": name in TWO_SIDED, "flagged": self.flagged[name],
                    "auroc": self.area[name][0], "auroc-standard-error": self.area[name][1],
                }
                for name, values in self.values.items()
            },
            "model-null-flagged": None if self.null is None else float((self.null <= LEVEL).mean()),
            "batch": None if self.batch is None else dict(
                zip(("nats-apart", "p"), self.batch, strict=True)
            ),
        }  # fmt: skip

    def table(self, examples: Sequence[object]) -> str:
        """Comma-separated values: a line for each example, of which these are the names."""
        names = [*self.values, *(f"p-{name}" for name in self.p)]
        columns = [*self.values.values(), *self.p.values()]
        if self.null is not None:
            names.append("p-model-null")
            columns.append(self.null)
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["example", *names])
        for example, *numbers in zip(examples, *columns, strict=True):
            table.writerow([example, *(f"{number:.7g}" for number in numbers)])
        return text.getvalue()


def score(
    model: Fittable,
    data: Dataset,
    reference: Dataset,
    asked: Asked | None = None,
    progress: Progress | None = None,
) -> Oddness:
    """Score every example of some data.

    Args:
        model: any, in evaluation mode.
        data: what is looked at.
        reference: held-out examples of the model's own data, which it was not fitted to; every
            other one gives the p-values, the rest are what the AUROC compares with.
        asked: which costly statistics, too.
        progress: called with (what, done, of how many).

    Raises:
        InvalidData: fewer than 20 held-out examples, and as `likely.evaluate.odd.statistics`.
    """
    if len(reference) < 20:
        raise InvalidData(
            f"{len(reference)} held-out examples are too few to rank among; 20 or more are needed"
        )
    values = statistics(model, data, asked, progress)
    known = statistics(model, reference, asked, progress)
    ranks = {name: each[::2] for name, each in known.items()}
    fresh = {name: each[1::2] for name, each in known.items()}
    combined, further = dose(ranks, values), dose(ranks, fresh)
    if combined is not None and further is not None:
        # Its own reference are the examples that its density is not of.
        values[DOSE], ranks[DOSE], fresh[DOSE] = combined, further, further
    p = {
        name: conformal(ranks[name], each, two_sided=name in TWO_SIDED)
        for name, each in values.items()
    }
    area = {
        name: auroc(oddness(name, ranks[name], fresh[name]), oddness(name, ranks[name], each))
        for name, each in values.items()
    }
    return Oddness(
        values,
        ranks,
        p,
        model_null(values["surprise"]) if "surprise" in values else None,
        {name: float((each <= LEVEL).mean()) for name, each in p.items()},
        area,
        batch_typicality(known["nats"], values["nats"]) if "nats" in values else None,
        next(name for name in RULE if name in values),
    )
