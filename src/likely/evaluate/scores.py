"""How good a classifier's probabilities are: accuracy, confusion matrix, calibration.

The expected calibration error (Guo et al. 2017, eq. 3, https://arxiv.org/abs/1706.04599) is the
mean gap between confidence and accuracy over bins of equal width, weighted by their examples. With
few examples in a bin it is biased upwards, so the bins (reliability) are kept beside it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

BINS = 10


@dataclasses.dataclass(frozen=True)
class Scores:
    """Of predicted probabilities; sums over several draws of labels add up.

    Attributes:
        confusion: examples by true class (rows) and predicted class, int64 [C, C].
        binned: by confidence in `BINS` equal bins: examples, sum of confidence, number right,
            float64 [BINS, 3].
    """

    confusion: Integers
    binned: Floats

    def __add__(self, other: Scores) -> Scores:
        return Scores(self.confusion + other.confusion, self.binned + other.binned)

    @property
    def accuracy(self) -> float:
        """Share of examples whose most probable class is theirs."""
        return float(np.trace(self.confusion) / self.confusion.sum())

    @property
    def calibration_error(self) -> float:
        """Expected calibration error, in [0, 1]; 0 where confidence is accuracy in every bin."""
        gaps = np.abs(self.binned[:, 1] - self.binned[:, 2])
        return float(gaps.sum() / self.binned[:, 0].sum())

    def to_json(self) -> dict[str, Any]:
        """Plain values: each bin that has examples as [examples, confidence, accuracy]."""
        filled = self.binned[self.binned[:, 0] > 0]
        return {
            "accuracy": self.accuracy,
            "calibration_error": self.calibration_error,
            "confusion": self.confusion.tolist(),
            "reliability": [[int(n), c / n, right / n] for n, c, right in filled.tolist()],
        }


def scored(probabilities: Floats, labels: Integers) -> Scores:
    """Score predictions.

    Args:
        probabilities: of each class, [N, C].
        labels: true classes, [N].
    """
    classes = probabilities.shape[1]
    predicted = probabilities.argmax(1)
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    confidence = probabilities.max(1)
    place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    binned = np.zeros((BINS, 3))
    columns = np.stack([np.ones_like(confidence), confidence, predicted == labels], 1)
    np.add.at(binned, place, columns)
    return Scores(confusion, binned)
