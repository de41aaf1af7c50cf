"""Settings of every model: frozen dataclasses, importable without torch.

The command lists and explains them in its help, so they stand apart from the networks. Each
class's docstring opens with the one line that `likely fit --help` prints. `preset` fills in
sizes that work for the data at hand, `fit_preset` how to fit them.
"""

from __future__ import annotations

from likely.models.settings.dcgan import DCGANSettings
from likely.models.settings.deep_nade import DeepNADESettings, DeepNADESizes, EoNADESettings
from likely.models.settings.fvsbn import FVSBNSettings
from likely.models.settings.gated_pixelcnn import (
    Corner,
    GatedPixelCNNEnsembleSettings,
    GatedPixelCNNOrdersSettings,
    GatedPixelCNNSettings,
    GatedPixelCNNSizes,
)
from likely.models.settings.heads import HeadName
from likely.models.settings.made import MADEEnsembleSettings, MADESettings, MADESizes
from likely.models.settings.multiscale import (
    MultiscalePixelCNNSettings,
    ParallelMultiscaleSettings,
)
from likely.models.settings.nade import NADESettings
from likely.models.settings.pixelcnn import PixelCNNSettings
from likely.models.settings.pixelcnn_pp import PixelCNNPPSettings
from likely.models.settings.pixelrnn import (
    DiagonalBiLSTMEnsembleSettings,
    DiagonalBiLSTMSettings,
    PixelRNNSizes,
    RowLSTMSettings,
)
from likely.models.settings.pixelsnail import PixelSNAILSettings
from likely.models.settings.vae import VAESettings

__all__ = [
    "Corner",
    "DCGANSettings",
    "DeepNADESettings",
    "DeepNADESizes",
    "DiagonalBiLSTMEnsembleSettings",
    "DiagonalBiLSTMSettings",
    "EoNADESettings",
    "FVSBNSettings",
    "GatedPixelCNNEnsembleSettings",
    "GatedPixelCNNOrdersSettings",
    "GatedPixelCNNSettings",
    "GatedPixelCNNSizes",
    "HeadName",
    "MADEEnsembleSettings",
    "MADESettings",
    "MADESizes",
    "MultiscalePixelCNNSettings",
    "NADESettings",
    "ParallelMultiscaleSettings",
    "PixelCNNPPSettings",
    "PixelCNNSettings",
    "PixelRNNSizes",
    "PixelSNAILSettings",
    "RowLSTMSettings",
    "VAESettings",
]
