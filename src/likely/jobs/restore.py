"""Colours for grey images and large images of small ones: drawn, measured, shown.

likely colorize runs/colour test          the command
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from likely.ask.colorize import PARTICLES, Colorizes, colourings, grey_image
from likely.ask.colorize import answer as colorize_answer
from likely.ask.query import Guarantee, refusal
from likely.ask.upscale import answer as upscale_answer
from likely.ask.upscale import enlargings
from likely.density import CoarseToFine, Completions, Fittable, Split, TractableDensity, Upscales
from likely.density.colouring import grey_of
from likely.errors import InvalidSetting
from likely.estimate import Estimate, Relation
from likely.files.sheets import sample_sheet, to_rgb
from likely.jobs.restoration import (
    KERNELS,
    calibrated,
    coverage,
    diversity,
    eccentricity,
    floors,
    intervals,
    psnr,
    resized,
)

Progress = Callable[[int, int | None], None]
SHOWN = 4  # draws of an image on the sheet


@dataclasses.dataclass(frozen=True)
class Task:
    """What is asked of a model.

    Attributes:
        times: by which images are enlarged; 1 where grey images are coloured.
        kernel: how the small, or the grey image was made, where it was not by the model's own
            map: one of `KERNELS`, or "rec601"; "" for the model's own.
    """

    times: int = 1
    kernel: str = ""


@dataclasses.dataclass(frozen=True, repr=False)
class Restored:
    """Draws, and what they are worth.

    Attributes:
        task: what was asked.
        base: what was given, levels [B, C', h, w].
        truth: levels [B, C, H, W], or None where it is not known.
        draws: levels [B, n, C, H, W].
        exact: whether they are of the model's own conditional.
        notes: what they are worth, in sentences.
        consistency: mean |given - what the draws are made to by the same map|, in levels.
        bits: of a dimension that was not given, of the truth.
        nats: of each dimension of the truth, [B, C, H, W]; None without a truth, or a map.
        known: pixels that were given as they are, bool [H, W].
        mass: share of the draws in an interval that is to hold 90 % of the truths: 0.9, or what
            `calibrated` says.
        calibrated_on: images that said so; 0 where none were asked.
    """

    task: Task
    base: npt.NDArray[np.int64]
    truth: npt.NDArray[np.int64] | None
    draws: npt.NDArray[np.int64]
    exact: bool
    notes: tuple[str, ...]
    consistency: float
    bits: Estimate | None
    nats: npt.NDArray[np.float64] | None
    known: npt.NDArray[np.bool_]
    levels: int
    mass: float = 0.9
    calibrated_on: int = 0

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """Of the draws of each image, [B, C, H, W]."""
        return np.asarray(self.draws.mean(1))

    @property
    def intervals(self) -> npt.NDArray[np.int64]:
        """Lowest and highest level of the 90 % interval of each dimension, [2, B, C, H, W]."""
        return intervals(self.draws, self.mass, self.levels)

    def eccentricities(self, seed: int = 0) -> npt.NDArray[np.float64]:
        """Mass of the smallest central interval of the draws that holds the truth, [D]."""
        assert self.truth is not None
        return eccentricity(self.draws, self.truth, ~self.known, seed)

    def calibrated(self, others: Restored, seed: int = 0) -> Restored:
        """With intervals that held 90 % of the truths of other images, restored likewise."""
        masses = others.eccentricities(seed)
        return dataclasses.replace(self, mass=calibrated(masses), calibrated_on=len(others.draws))

    def measures(self, seed: int = 0) -> dict[str, float]:
        """PSNR of the mean, of single draws and of the floors, coverage, diversity; see above."""
        out: dict[str, float] = {}
        if self.truth is not None:
            n = self.draws.shape[1]
            single = psnr(
                self.draws.reshape(-1, *self.truth.shape[1:]),
                np.repeat(self.truth, n, 0),
                self.levels,
            )
            out["psnr-mean"] = float(psnr(self.mean, self.truth, self.levels).mean())
            out["psnr-single"] = float(single.mean())
            out["psnr-best"] = float(single.reshape(-1, n).max(1).mean())
            for name, values in floors(self.base, self.truth, self.levels).items():
                out[f"psnr-{name}"] = float(values.mean())
            if n > 1:
                masses = self.eccentricities(seed)
                out["coverage"] = coverage(masses)
                if self.calibrated_on:
                    out["coverage-calibrated"] = coverage(masses, self.mass)
                out["diversity"] = diversity(self.draws, self.truth)
        out["consistency"] = self.consistency
        return out

    def sheet(self, caption: str) -> Any:
        """Of each image the truth, what was given, the mean, four draws and the surprise."""
        n, shape = self.draws.shape[1], self.draws.shape[2:]
        base = self.base
        if base.shape[2:] != shape[1:]:
            base = resized(base, (shape[1], shape[2]), "nearest", self.levels)
        columns = [base, self.mean, *self.draws[:, :SHOWN].swapaxes(0, 1)]
        names = f"what was given, the mean of {n}, {min(n, SHOWN)} draws"
        if self.truth is not None:
            columns.insert(0, self.truth)
            names = f"the image, {names}"
        pictures = [to_rgb(column, self.levels) for column in columns]
        if self.nats is not None:
            bits = self.nats.sum(1, keepdims=True) / math.log(2.0)
            scale = max(float(np.quantile(bits, 0.995)), 1e-9)
            pictures.append(to_rgb((bits / scale * 255).clip(0, 255), 256))
            names += f", surprise (white at {scale:.3g} bits a pixel)"
        lines = np.stack(pictures, 1).reshape(-1, *pictures[0].shape[1:])
        return sample_sheet(
            lines.transpose(0, 3, 1, 2), 256, columns=len(pictures), caption=f"{caption}: {names}"
        )

    def lines(self) -> list[str]:
        """For a person: the guarantee, bits, PSNR beside the floors, calibration."""
        told = self.measures()
        word = "exact" if self.exact else "approximate"
        lines = [f"{word}: {'; '.join(self.notes).removeprefix(f'{word}: ')}"]
        if self.bits is not None:
            lines.append(
                f"bits of a dimension that was not given {self.bits.relation.value} "
                f"{self.bits.value:.4f} +- {self.bits.standard_error:.4f}"
            )
        if "psnr-mean" in told:
            names = [name for name in told if name.startswith("psnr-")]
            words = [f"{name.removeprefix('psnr-')} {told[name]:.2f}" for name in names]
            lines.append(f"PSNR, dB per image: {', '.join(words)}")
        if "coverage" in told:
            lines.append(
                f"90 % intervals hold {100 * told['coverage']:.1f} %; draws differ "
                f"{told['diversity']:.2f} times as much from each other as from the image"
            )
        if self.calibrated_on:
            held = told.get("coverage-calibrated")
            lines.append(
                f"the central {100 * self.mass:.1f} % of the draws held 90 % of "
                f"{self.calibrated_on} validation images"
                + (f", and {100 * held:.1f} % of these" if held is not None else "")
            )
        lines.append(f"consistency error {self.consistency:.4g} levels")
        return lines

    def to_json(self) -> dict[str, Any]:
        """Plain values, those of single images left out."""
        return {
            "images": len(self.draws),
            "n": self.draws.shape[1],
            "times": self.task.times,
            "kernel": self.task.kernel or "the model's",
            "guarantee": "exact" if self.exact else "approximate",
            "notes": list(self.notes),
            "interval-mass": self.mass,
            "calibrated-on": self.calibrated_on,
            "bits-per-missing-dimension": None if self.bits is None else self.bits.to_json(),
            **self.measures(),
        }


def made_smaller(model: Fittable, x: Tensor, task: Task) -> Tensor:
    """What is given of images [B, C, H, W], by the model's own map or by another kernel."""
    if task.kernel == "rec601":
        return grey_of(model.integers(x))
    if task.kernel:
        _, height, width = model.spec.grid
        size = -(-height // task.times), -(-width // task.times)
        made = resized(x.cpu().numpy(), size, task.kernel, model.spec.levels)
        return torch.from_numpy(made).to(model.device)
    if task.times == 1:
        return grey_image(model, x)
    assert isinstance(model, Upscales)
    return model.smaller(x, task.times)


@torch.no_grad()
def restore(
    model: Fittable,
    task: Task,
    base: Tensor | None,
    truth: Tensor | None,
    n: int = 8,
    *,
    seed: int = 0,
    context: Tensor | None = None,
    particles: int = PARTICLES,
    fingerprint: str = "",
    block: int = 4,
    progress: Progress | None = None,
) -> Restored:
    """n draws of each image.

    Args:
        model: of the run.
        task: what is asked.
        base: what is given, levels [B, C', h, w]; made of the truth where None.
        truth: levels [B, C, H, W], or None.
        n: draws of each image.
        seed: of the noise.
        context: labels, as for `sample`.
        particles: of each image, where colours are drawn by particles.
        fingerprint: of the data of the truth.
        block: images that are drawn together.
        progress: called with the number of images done, and of all.

    Raises:
        Unanswerable: the model cannot.
        InvalidSetting: an unknown kernel, or another enlargement than the model's.
    """
    known_kernels = ("", "rec601") if task.times == 1 else ("", *KERNELS)
    if task.kernel not in known_kernels:
        raise InvalidSetting(f"unknown kernel {task.kernel}: {', '.join(known_kernels[1:])}")
    if truth is not None:
        truth = model.integers(truth)
    worth = (upscale_answer if task.times > 1 else colorize_answer)(model)
    if worth.guarantee is Guarantee.NONE:
        raise refusal(model, worth)
    if isinstance(model, Upscales) and task.times > 1:
        model.refuse_other(task.times)
    if base is None:
        assert truth is not None
        base = made_smaller(model, truth, task)
    parts: list[Completions] = []
    for first in range(0, len(base), block):
        part = slice(first, first + block)
        labels = None if context is None else context[part]
        ways: dict[str, Any] = {"seed": seed + first, "context": labels}
        if task.times == 1:
            drawn = colourings(model, base[part], n, particles=particles, **ways)
        else:
            drawn = enlargings(model, base[part], n, times=task.times, **ways)
        parts.append(drawn)
        if progress is not None:
            progress(min(len(base), first + block), len(base))
    whole = _together(parts)
    draws = whole.images
    known = torch.zeros(model.spec.grid[1:], dtype=torch.bool)
    if isinstance(model, CoarseToFine) and task.times > 1:
        known = model.coarse_pixels(task.times).cpu()
    back = made_smaller(model, draws.flatten(0, 1), task)
    off = (back - base.repeat_interleave(n, 0)).abs().double().mean()
    by_model = not task.kernel or (task.kernel == "rec601" and not isinstance(model, Colorizes))
    exact = whole.exact and by_model
    notes = whole.notes
    if not by_model:
        about = "grey of Rec. 601 taken as luma" if task.times == 1 else f"{task.kernel} kernel"
        notes = (f"approximate: {about}, where the model has {_map_of(model, task)}",)
    nats = bits = None
    if truth is not None and by_model:
        bits, nats = _bits(
            model, task, truth, context, whole.log_observed, whole.relation, fingerprint
        )
    return Restored(
        task,
        base.cpu().numpy(),
        None if truth is None else truth.cpu().numpy(),
        draws.cpu().numpy(),
        exact,
        notes,
        float(off),
        bits,
        nats,
        known.numpy(),
        model.spec.levels,
    )


def _together(parts: Sequence[Completions]) -> Completions:
    """Those of some images after those of others, drawn in one way."""
    every: dict[str, Any] = {
        name: torch.cat([getattr(part, name) for part in parts])
        for name in ("images", "log_observed", "effective", "ancestors")
        if getattr(parts[0], name) is not None
    }
    return dataclasses.replace(parts[0], **every)


def _map_of(model: Fittable, task: Task) -> str:
    if task.times == 1:
        return "the luma of YCoCg-R"
    return "averages rounded down" if isinstance(model, Split) else "every second pixel"


def _bits(
    model: Fittable,
    task: Task,
    truth: Tensor,
    context: Tensor | None,
    log_base: Tensor,
    relation: Relation,
    fingerprint: str,
) -> tuple[Estimate, npt.NDArray[np.float64] | None]:
    """Bits of the truth per dimension that was not given, and nats by dimension."""
    assert isinstance(model, TractableDensity)
    channels, height, width = model.spec.grid
    size = -(-height // task.times) * -(-width // task.times)
    missing = model.spec.dimensions - size * (1 if task.times == 1 else channels)
    nats = None
    if isinstance(model, Split):
        splits = max(1, round(math.log2(task.times)))
        nats = model.rest_nats(truth, context, splits).cpu().numpy()
        total = nats.reshape(len(nats), -1).sum(1)
    else:
        total = (log_base - model.log_prob(truth, context).double()).cpu().numpy()
        if isinstance(model, CoarseToFine) and task.times > 1:
            each = model.surprise(truth, context).nats
            nats = each.masked_fill(model.coarse_pixels(task.times), 0.0).cpu().numpy()
    estimate = Estimate.mean_of(
        (total / (missing * math.log(2.0))).tolist(),
        unit="bits/dim",
        relation=Relation.EXACT if relation is Relation.EXACT else Relation.LOWER,
        quantity="bits-per-missing-dimension",
        fingerprint=fingerprint,
        about="-log2 p(image | what was given) per dimension that was not",
    )
    return estimate, nats
