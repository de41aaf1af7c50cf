"""How near draws of a colour image, or of a larger one, are to the true image, and how honest.

PSNR is 10 log10((L - 1)^2 / mean squared error), of each image, 60 dB at most, then averaged. (Of
images without colour the grey one has no error at all.) The mean of many
draws has the least error that the model can have; a single draw of a perfect model has twice the
mean's squared error, 3 dB less. Draws are honest where the truth could be one of them: a 90 %
interval of each dimension holds it in 90 % of the cases, and draws are as far from each other as
from the truth. Where they are not, `calibrated` says which share of the draws an interval must
span, from other images whose truth is known (Kuleshov, Fenner and Ermon 2018,
https://arxiv.org/abs/1807.00263).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
MOST = 60.0  # dB
KERNELS = ("area", "bicubic", "nearest")
# Pillow's filters by name.
_FILTERS = {"nearest": 0, "bilinear": 2, "bicubic": 3, "area": 4}


def psnr(x: npt.NDArray[Any], truth: npt.NDArray[Any], levels: int) -> Array:
    """dB of each image, [B]; at most `MOST`, also where nothing is wrong.

    Args:
        x: levels [B, C, H, W], floats too.
        truth: likewise.
        levels: of a dimension.
    """
    error = np.square(x.astype(np.float64) - truth.astype(np.float64)).mean((1, 2, 3))
    peak = float(levels - 1) ** 2
    return np.asarray(10.0 * np.log10(peak / np.maximum(error, peak * 10.0 ** (-MOST / 10.0))))


def resized(
    x: npt.NDArray[Any], size: tuple[int, int], kernel: str, levels: int
) -> npt.NDArray[np.int64]:
    """Images by an interpolation of Pillow, levels [B, C, *size].

    Args:
        x: levels [B, C, H, W].
        size: height and width.
        kernel: "nearest", "bilinear", "bicubic", or "area" (the mean of the pixels covered).
        levels: of a dimension.
    """
    from PIL import Image

    planes = x.reshape(-1, *x.shape[2:]).astype(np.float32)
    method = Image.Resampling(_FILTERS[kernel])
    made = [np.asarray(Image.fromarray(p).resize(size[::-1], method)) for p in planes]
    whole = np.rint(np.stack(made)).clip(0, levels - 1).astype(np.int64)
    return np.asarray(whole.reshape(*x.shape[:2], *size))


def eccentricity(
    draws: npt.NDArray[Any],
    truth: npt.NDArray[Any],
    drawn: npt.NDArray[np.bool_] | None = None,
    seed: int = 0,
) -> Array:
    """Mass of the smallest central interval of the draws that holds the truth, by dimension [D].

    From the truth's rank among the draws, ties broken at random: if the truth is one of them, it
    is uniform between 0 and 1, however coarse the levels are.

    Args:
        draws: [B, n, C, H, W].
        truth: [B, C, H, W].
        drawn: of the pixels, which were not given, bool [H, W]; all by default.
        seed: of the ties.
    """
    below = (draws < truth[:, None]).sum(1)
    ties = (draws == truth[:, None]).sum(1)
    uniform = np.random.Generator(np.random.Philox(seed)).random(truth.shape)
    mass = np.abs(2 * (below + uniform * (ties + 1)) / (draws.shape[1] + 1) - 1)
    return np.asarray((mass if drawn is None else mass[..., drawn]).ravel())


def coverage(eccentricities: Array, mass: float = 0.9) -> float:
    """Share of the dimensions whose truth is in the central interval of that mass."""
    return float((eccentricities <= mass).mean())


def calibrated(eccentricities: Array, level: float = 0.9) -> float:
    """Mass of the central interval of the draws that holds this share of the truths."""
    return float(np.quantile(eccentricities, level))


def intervals(draws: npt.NDArray[Any], mass: float, levels: int) -> npt.NDArray[np.int64]:
    """Lowest and highest level of the central interval of each dimension, [2, B, C, H, W].

    Of n draws in order, the k-th from both ends, k the greatest for which a further draw is
    between them with probability `mass` at least, (n + 1 - 2 k) / (n + 1); the ends of the levels
    where there are too few draws for that.

    Args:
        draws: [B, n, C, H, W].
        mass: of the interval.
        levels: of a dimension.
    """
    n = draws.shape[1]
    k = int((1.0 - mass) / 2 * (n + 1) + 1e-9)
    if k < 1:
        low = np.zeros((len(draws), *draws.shape[2:]), np.int64)
        return np.stack([low, low + levels - 1])
    ordered = np.sort(draws, axis=1)
    return np.stack([ordered[:, k - 1], ordered[:, n - k]]).astype(np.int64)


def diversity(draws: npt.NDArray[Any], truth: npt.NDArray[Any]) -> float:
    """Mean distance between two draws over that of a draw to the truth; 1 where it is one of them.

    Args:
        draws: [B, n, C, H, W], n of at least 2.
        truth: [B, C, H, W].
    """
    flat = draws.reshape(*draws.shape[:2], -1).astype(np.float64)
    between = np.linalg.norm(flat - np.roll(flat, 1, axis=1), axis=2)
    off = np.linalg.norm(flat - truth.reshape(len(truth), 1, -1), axis=2)
    return float(between.mean() / max(float(off.mean()), 1e-12))


def floors(low: npt.NDArray[Any], truth: npt.NDArray[Any], levels: int) -> dict[str, Array]:
    """PSNR [B] without a model: small images enlarged, or a grey one shown as colour.

    Args:
        low: [B, C, h, w], or [B, 1, H, W] of colour images.
        truth: [B, C, H, W].
        levels: of a dimension.
    """
    size = (truth.shape[2], truth.shape[3])
    if low.shape[2:] == size:
        return {"grey": psnr(np.broadcast_to(low, truth.shape), truth, levels)}
    kinds: Sequence[str] = ("nearest", "bilinear", "bicubic")
    return {kind: psnr(resized(low, size, kind, levels), truth, levels) for kind in kinds}
