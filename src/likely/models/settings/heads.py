"""Names of the heads that a setting may take."""

from __future__ import annotations

from typing import Literal

HeadName = Literal["auto", "bernoulli", "categorical", "logistic-mixture"]
