"""Features in which samples are compared with data: what an extractor is, and Inception.

A Frechet or kernel distance means nothing without the features that it is taken in, so an
extractor has a fingerprint, and that goes into the fingerprint of every number made with it.
The offline default is `likely.evaluate.classifier.default_extractor`; `InceptionFeatures` has
the features of most published numbers (Szegedy et al. 2016, in the port that Heusel et al. 2017
used), through the torch-fidelity library and a weights file that the user has.
"""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from likely.data.spec import DataSpec
from likely.errors import InvalidData, MissingDependency

Images = Tensor | npt.NDArray[Any]

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
INCEPTION_BATCH = 32


class Extractor(Protocol):
    """Integer-coded images to feature vectors."""

    @property
    def name(self) -> str:
        """A short name, as "digits-classifier"."""

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that change when the features change."""

    @property
    def description(self) -> str:
        """One sentence for a reader: what the features are and how good they are."""

    def __call__(self, x: Images) -> Tensor:
        """Features float64 [B, F] of integers [B, C, H, W] in [0, levels)."""


def checked_images(x: Images, spec: DataSpec) -> Tensor:
    """The images as an integer tensor [B, *shape] on the CPU.

    Raises:
        InvalidData: values that are not integers in [0, levels), or another shape.
    """
    if isinstance(x, np.ndarray):
        # torch has few operations on uint16; the copy also makes a memory map writable
        x = torch.from_numpy(x.astype(np.int64) if x.dtype == np.uint16 else np.array(x))
    x = x.detach().cpu()
    if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
        raise InvalidData(f"expected integer-coded images, given {x.dtype}")
    if tuple(x.shape[1:]) != spec.shape:
        raise InvalidData(
            f"expected images of shape {list(spec.shape)} ({spec.name}), given {list(x.shape[1:])}"
        )
    if len(x) and (int(x.min()) < 0 or int(x.max()) >= spec.levels):
        raise InvalidData(
            f"expected values in [0, {spec.levels}), given {int(x.min())} to {int(x.max())}"
        )
    return x


class InceptionFeatures:
    """The 2048 pooled features of Inception v3, as torch-fidelity computes them.

    Grey images are repeated over three channels and levels are stretched to 0..255; the library
    resizes to 299x299. Inception knows photographs: on digits it ranks broken models above good
    ones, so prefer the default there.

    Args:
        spec: of the data (shape and levels).
        weights: path of torch-fidelity's file of weights, checked against its SHA-256 before it
            is opened.

    Raises:
        MissingDependency: torch-fidelity cannot be imported.
        InvalidData: no such file, another file, or images of neither 1 nor 3 channels.
    """

    def __init__(self, spec: DataSpec, weights: Path) -> None:
        if len(spec.shape) != 3 or spec.shape[0] not in (1, 3):
            raise InvalidData(
                f"Inception takes images of 1 or 3 channels; {spec.name} has {list(spec.shape)}"
            )
        if not weights.is_file():
            raise InvalidData(
                f"no Inception weights at {weights}; expected torch-fidelity's {INCEPTION_FILE} "
                "(published with torch-fidelity 0.2.0)"
            )
        with weights.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != INCEPTION_SHA256:
            raise InvalidData(
                f"{weights} is not torch-fidelity's {INCEPTION_FILE}: its SHA-256 is {digest}, "
                f"expected {INCEPTION_SHA256}; fetch the file again"
            )
        try:
            library = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
        except (ImportError, RuntimeError) as error:  # torchvision fails with a RuntimeError
            raise MissingDependency(
                f"Inception features need torch-fidelity and a working torchvision ({error}); "
                "install with: pip install torch-fidelity torchvision"
            ) from error
        self.spec = spec
        self._network: Any = library.FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(weights)
        )

    @property
    def name(self) -> str:
        return "inception-v3-compat"

    @property
    def fingerprint(self) -> str:
        text = f"{self.name} 2048 {INCEPTION_SHA256} levels={self.spec.levels}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def description(self) -> str:
        return "2048 pooled features of Inception v3 (torch-fidelity's weights)"

    @torch.no_grad()
    def __call__(self, x: Images) -> Tensor:
        """Features float64 [B, 2048] of integers [B, C, H, W] in [0, levels)."""
        x = checked_images(x, self.spec)
        top = self.spec.levels - 1
        parts = []
        for start in range(0, len(x), INCEPTION_BATCH):
            part = (x[start : start + INCEPTION_BATCH].double() * 255.0 / top).round()
            part = part.to(torch.uint8).expand(-1, 3, -1, -1)
            parts.append(self._network(part)[0].double())
        return torch.cat(parts) if parts else torch.zeros(0, 2048, dtype=torch.float64)
