"""The lattice that a column of numbers lies on: found, or refused with the reason.

Instruments and files round: what looks continuous is often offset + step v with integers v. First
the decimals that are printed; then a coarser step behind them, found from the distances of sorted
unique values and refined by least squares over growing ranges; it is accepted only where every
number is within the printed precision of its level.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

MOST_DECIMALS = 9
# A lattice of more levels than this says nothing: a measurement with many digits.
MOST_LEVELS = 1 << 16
# Levels that a column without a lattice is read to, over its range.
RESOLUTION = 1 << 20
_FLOAT32, _FLOAT64 = 2.0**-22, 2.0**-51  # relative errors of numbers of either size


@dataclasses.dataclass(frozen=True)
class Lattice:
    """offset + step v.

    Attributes:
        offset: the lowest number.
        step: between neighbouring levels.
        residual: largest distance of a number from its level.
        levels: spanned, from the lowest to the highest number.
        exact: whether the numbers lie on it; otherwise it is only a resolution.
    """

    offset: float
    step: float
    residual: float
    levels: int
    exact: bool

    def integers(self, numbers: Floats) -> npt.NDArray[np.int64]:
        """The nearest levels."""
        return np.rint((numbers - self.offset) / self.step).astype(np.int64)


def find_lattice(numbers: npt.ArrayLike) -> Lattice:
    """The coarsest lattice that all finite numbers lie on, or a fine resolution.

    >>> find_lattice([0.5, 2.0, 1.0]).step
    0.5
    """
    unique = np.unique(np.asarray(numbers)).astype(np.float64)
    unique = unique[np.isfinite(unique)]
    span = float(unique[-1] - unique[0]) if len(unique) else 0.0
    if span <= 2 * _FLOAT64 * np.abs(unique).max(initial=0.0):  # one number, but for rounding
        return Lattice(float(unique[0]) if len(unique) else 0.0, 1.0, span, 1, True)
    decimals = _decimals(unique)
    if decimals is not None:
        precision = 10.0**-decimals
        printed = np.rint(unique / precision).astype(np.int64)
        printed = np.unique(printed)
        common = int(np.gcd.reduce(np.diff(printed)))
        step, lowest = common * precision, float(printed[0]) * precision
        rounded: Floats = printed.astype(np.float64) * precision
        hidden = _hidden(rounded, precision) if common == 1 else None
        if hidden is not None:
            return hidden
        levels = int((printed[-1] - printed[0]) // common) + 1
        if levels <= MOST_LEVELS:
            residual = float(np.abs(unique - np.rint(unique / precision) * precision).max())
            return Lattice(lowest, step, residual, levels, True)
    step = span / (RESOLUTION - 1)
    return Lattice(float(unique[0]), step, step / 2, RESOLUTION, False)


def _decimals(unique: Floats) -> int | None:
    """The fewest decimals that give all numbers back, as float64 or through float32."""
    size = np.abs(unique)
    if size.max() > 1e15:
        return None
    single = bool((np.abs(unique.astype(np.float32) - unique) <= size * 1e-14).all())
    for decimals in range(MOST_DECIMALS + 1):
        unit = 10.0**-decimals
        # What a float of the size cannot tell apart; few digits are left where that is much.
        tolerance = np.maximum(size * (_FLOAT32 if single else _FLOAT64), 1e-3 * _FLOAT32 * unit)
        rounded = np.round(unique, decimals)
        if rounded[0] == rounded[-1]:  # numbers smaller than that are no zeros
            continue
        distance = np.abs(unique - rounded)
        if bool((distance == 0).all()):
            return decimals
        if float(tolerance.max()) > 0.1 * unit:
            return None
        if bool((distance <= tolerance).all()):
            return decimals
    return None


def _hidden(unique: Floats, precision: float) -> Lattice | None:
    """A step of several units of the printed precision, to which the numbers were rounded."""
    distances = np.diff(unique)
    least = float(distances.min())
    if least < 4 * precision or len(unique) < 8:
        return None
    # Distances of one step scatter by the rounding of two numbers.
    near = distances[distances <= least + 2.1 * precision]
    for parts in range(1, 5):  # the shortest distance may be several steps
        lattice = _refined(unique, float(near.mean()) / parts, precision)
        if lattice is not None:
            return lattice
    return None


def _refined(unique: Floats, step: float, precision: float) -> Lattice | None:
    """Least squares over ranges that grow, so that no level is miscounted."""
    base = len(unique) // 2
    reach, doubt = 8.0 * step, 2.1 * precision  # error of the step so far
    offset = float(unique[base])
    while True:
        part = unique[np.abs(unique - unique[base]) <= reach]
        levels = np.rint((part - offset) / step)
        spread = float(((levels - levels.mean()) ** 2).sum())
        if spread > 0:
            step = float(((levels - levels.mean()) * (part - part.mean())).sum()) / spread
            offset = float(part.mean() - step * levels.mean())
            if np.abs(part - offset - step * levels).max() > 0.75 * precision:
                return None
            doubt = precision / np.sqrt(spread)
        if len(part) == len(unique):
            break
        reach = min(reach * 4, max(reach * 1.5, 0.2 * step * step / max(doubt, 1e-12)))
    levels = np.rint((unique - offset) / step)
    residual = float(np.abs(unique - offset - step * levels).max())
    if step < 4 * precision or residual > 0.6 * precision:
        return None
    lowest = offset + step * float(levels[0])
    return Lattice(lowest, step, residual, int(levels[-1] - levels[0]) + 1, True)
