"""Fits that the presets of several models share."""

from __future__ import annotations

from likely.settings import FitSettings

# Small batches and orthogonal updates: few images teach a convolution of small grey images most.
SMALL_GREY = FitSettings(
    steps=8000,
    batch_size=16,
    optimizer="muon",
    learning_rate=0.01,
    schedule="linear",
    warmup=200,
    beta1=0.95,
    beta2=0.99,
    clip=100.0,
)
