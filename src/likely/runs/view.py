"""What a run says of itself: a line of text, and in a notebook its curves."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from likely.ask.likelihood import relation_of, tells_weights_apart
from likely.density import Fittable, HasLoss, SequenceModel
from likely.files.charts import curves
from likely.files.inline import Shown, fragment, line

# What a record of a fit is called where there is little room, in the order shown; others are left
# to metrics.jsonl.
NAMES = {
    "nll": "nll",
    "negative_elbo": "-elbo",
    "kl": "kl",
    "negative_importance_bound": "-L_k",
    "reconstruction_error": "error",
    "free_energy_gap": "gap",
    "discriminator_loss": "D",
    "generator_loss": "G",
    "validation": "validation",
}


class Record(dict[str, float]):
    """The numbers of a step by name; as text the losses, the validation with its relation.

    >>> str(Record({"step": 20, "negative_elbo": 98.25, "validation": 97.0}, sign="<="))
    '-elbo 98.25, validation <= 97'
    """

    def __init__(self, numbers: dict[str, float], *, sign: str) -> None:
        super().__init__(numbers)
        self.sign = "" if sign == "=" else f"{sign} "

    def __str__(self) -> str:
        sign = {"validation": self.sign}
        return ", ".join(
            f"{name} {sign.get(key, '')}{self[key]:.4g}"
            for key, name in NAMES.items()
            if key in self
        )


def unit_of_loss(model: Fittable) -> str:
    """That of the losses and validations of a fit, as "nats per example"."""
    if isinstance(model, HasLoss):
        return f"{model.loss_unit} per example"
    return "nats per step" if isinstance(model, SequenceModel) else "nats per example"


def validated(model: Fittable, value: float) -> str:
    """A validation with its relation and unit, as "<= 85.77 nats" or "= 3.104 squared error"."""
    if isinstance(model, HasLoss):
        return f"= {value:.4g} {model.loss_unit}"
    if isinstance(model, SequenceModel):
        return f"{relation_of(model).value} {value:.3f} nats a step"
    return f"{relation_of(model).value} {value:.2f} nats"


class Viewed:
    """Of a run: its line, its curves, and both in a notebook."""

    if TYPE_CHECKING:

        @property
        def model(self) -> Fittable: ...
        @property
        def metrics(self) -> list[dict[str, float]]: ...
        @property
        def directory(self) -> Path | None: ...

    @property
    def title(self) -> str:
        """The model and its data, as "VAE on digits"."""
        return f"{type(self.model).__name__} on {self.model.spec.name}"

    @property
    def kept_validation(self) -> str:
        """That of the weights that are kept, as "best validation <= 85.77 nats"; "" without one."""
        values = [record["validation"] for record in self.metrics if "validation" in record]
        if not values:
            return ""
        chosen = tells_weights_apart(self.model)
        which, value = ("best", min(values)) if chosen else ("last", values[-1])
        if not math.isfinite(value):
            return ""
        return f"{which} validation {validated(self.model, value)}"

    @property
    def state(self) -> str:
        """How far the fit is, in words."""
        return f"{self.metrics[-1]['step']:.0f} steps" if self.metrics else "not fitted"

    def __str__(self) -> str:
        kept = f"; {self.kept_validation}" if self.kept_validation else ""
        where = f"; saved in {self.directory}" if self.directory else ""
        return f"{self.title}: {self.state}{kept}{where}"

    __repr__ = __str__

    def plot(self) -> Shown:
        """The curves of the fit: losses, validation, norms of the gradients."""
        return curves(str(self), self.metrics, unit_of_loss(self.model))

    def _repr_html_(self) -> str:
        return self.plot()._repr_html_() if self.metrics else fragment(line(self))
