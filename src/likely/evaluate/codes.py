"""What a model with discrete codes uses them for, counted over a whole data set.

The perplexity is exp(-sum_k f_k log f_k), f_k the share of code k among those of all places and
examples: K where all are used alike. Of a batch it would depend on the size of the batch.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from likely.data.spec import Dataset
from likely.density import DiscreteLatent, GenerativeModel, evaluating, reading_of
from likely.devices.precision import without_autocast
from likely.errors import InvalidSetting
from likely.estimate import Estimate, Relation
from likely.evaluate.likelihood import _refuse_misfit


@dataclasses.dataclass(frozen=True)
class CodeUsage:
    """The codes of a data set.

    Attributes:
        used: codes that at least one place of one example has.
        codes: K.
        perplexity: of the shares of the codes.
        rate: mean -log p(c), nats.
        distortion: mean -log p(x | c), nats; their sum is the bound.
    """

    used: int
    codes: int
    perplexity: Estimate
    rate: Estimate
    distortion: Estimate

    @property
    def sentence(self) -> str:
        """How many are used, in words."""
        return (
            f"{self.used} of {self.codes} codes are used, {self.used / self.codes:.1%}; their "
            f"perplexity is {self.perplexity.value:.1f}"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        estimates = (self.perplexity, self.rate, self.distortion)
        record = {estimate.quantity: estimate.to_json() for estimate in estimates}
        return {"used": self.used, "codes": self.codes, **record}


def code_usage(model: GenerativeModel, data: Dataset, *, batch_size: int = 128) -> CodeUsage:
    """Codes, rate and distortion on a data set.

    Raises:
        InvalidSetting: a model without discrete codes.
        InvalidData: data that does not fit the model.
    """
    if not isinstance(model, DiscreteLatent):
        raise InvalidSetting(f"{type(model).__name__} has no discrete codes that could be counted")
    _refuse_misfit(model, data, batch_size)
    counts = torch.zeros(model.prior.spec.levels, dtype=torch.int64)
    rates, distortions = [], []
    with evaluating(model), torch.no_grad(), without_autocast(model.device):
        for _, x, context in reading_of(model, data, batch_size):
            codes = model.encode(x, context)
            given_code, of_code = model.bound_terms(x, context)
            counts += torch.bincount(codes.flatten().cpu(), minlength=len(counts))
            distortions += (-given_code.double()).tolist()
            rates += (-of_code.double()).tolist()
    shares = counts[counts > 0].double() / counts.sum()
    fingerprint, exact = data.spec.fingerprint, Relation.EXACT
    spread = float((-(shares * shares.log()).sum()).exp())
    perplexity = Estimate(
        spread, "", exact, "code-perplexity", 0.0, len(data), fingerprint, lower_is_better=None
    )
    rate, distortion = (
        Estimate.mean_of(
            values, unit="nats", relation=exact, quantity=name, fingerprint=fingerprint,
            lower_is_better=None,
        )
        for name, values in (("rate", rates), ("distortion", distortions))
    )  # fmt: skip
    return CodeUsage(len(shares), len(counts), perplexity, rate, distortion)
