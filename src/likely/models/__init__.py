"""The models, one paper a file; imported when first asked for."""

from __future__ import annotations

import dataclasses
import importlib
from typing import TYPE_CHECKING, Any

from likely.errors import InvalidSetting, nearest
from likely.models import settings as _settings

if TYPE_CHECKING:
    from likely.models.dcgan import DCGAN as DCGAN
    from likely.models.deep_nade import DeepNADE as DeepNADE
    from likely.models.deep_nade import EoNADE as EoNADE
    from likely.models.fvsbn import FVSBN as FVSBN
    from likely.models.gated_pixelcnn import GatedPixelCNN as GatedPixelCNN
    from likely.models.gated_pixelcnn import GatedPixelCNNEnsemble as GatedPixelCNNEnsemble
    from likely.models.gated_pixelcnn import GatedPixelCNNOrders as GatedPixelCNNOrders
    from likely.models.made import MADE as MADE
    from likely.models.made import MADEEnsemble as MADEEnsemble
    from likely.models.multiscale_pixelcnn import MultiscalePixelCNN as MultiscalePixelCNN
    from likely.models.nade import NADE as NADE
    from likely.models.parallel_multiscale import ParallelMultiscale as ParallelMultiscale
    from likely.models.pixelcnn import PixelCNN as PixelCNN
    from likely.models.pixelcnn_pp import PixelCNNPP as PixelCNNPP
    from likely.models.pixelrnn import DiagonalBiLSTM as DiagonalBiLSTM
    from likely.models.pixelrnn import DiagonalBiLSTMEnsemble as DiagonalBiLSTMEnsemble
    from likely.models.pixelrnn import RowLSTM as RowLSTM
    from likely.models.pixelsnail import PixelSNAIL as PixelSNAIL
    from likely.models.vae import VAE as VAE


@dataclasses.dataclass(frozen=True)
class ModelEntry:
    """A model that the command knows.

    Attributes:
        name: on the command line.
        module: that defines the class.
        class_name: of the model.
        settings: its settings class (importable without torch).
    """

    name: str
    module: str
    class_name: str
    settings: type[Any]

    @property
    def summary(self) -> str:
        """One line for the help."""
        return (self.settings.__doc__ or "").splitlines()[0]

    def load(self) -> type[Any]:
        """The model class (imports torch)."""
        kind: type[Any] = getattr(importlib.import_module(self.module), self.class_name)
        return kind


MODELS: dict[str, ModelEntry] = {
    entry.name: entry
    for entry in (
        ModelEntry(
            "gated-pixelcnn", "likely.models.gated_pixelcnn", "GatedPixelCNN",
            _settings.GatedPixelCNNSettings,
        ),
        ModelEntry(
            "gated-pixelcnn-ensemble", "likely.models.gated_pixelcnn", "GatedPixelCNNEnsemble",
            _settings.GatedPixelCNNEnsembleSettings,
        ),
        ModelEntry(
            "gated-pixelcnn-orders", "likely.models.gated_pixelcnn", "GatedPixelCNNOrders",
            _settings.GatedPixelCNNOrdersSettings,
        ),
        ModelEntry("fvsbn", "likely.models.fvsbn", "FVSBN", _settings.FVSBNSettings),
        ModelEntry("nade", "likely.models.nade", "NADE", _settings.NADESettings),
        ModelEntry(
            "deep-nade", "likely.models.deep_nade", "DeepNADE", _settings.DeepNADESettings,
        ),
        ModelEntry("eonade", "likely.models.deep_nade", "EoNADE", _settings.EoNADESettings),
        ModelEntry("made", "likely.models.made", "MADE", _settings.MADESettings),
        ModelEntry(
            "made-ensemble", "likely.models.made", "MADEEnsemble", _settings.MADEEnsembleSettings,
        ),
        ModelEntry(
            "pixelcnn", "likely.models.pixelcnn", "PixelCNN", _settings.PixelCNNSettings,
        ),
        ModelEntry(
            "attention", "likely.models.pixelsnail", "PixelSNAIL", _settings.PixelSNAILSettings
        ),
        ModelEntry("row-lstm", "likely.models.pixelrnn", "RowLSTM", _settings.RowLSTMSettings),
        ModelEntry(
            "diagonal-bilstm", "likely.models.pixelrnn", "DiagonalBiLSTM",
            _settings.DiagonalBiLSTMSettings,
        ),
        ModelEntry(
            "diagonal-bilstm-ensemble", "likely.models.pixelrnn", "DiagonalBiLSTMEnsemble",
            _settings.DiagonalBiLSTMEnsembleSettings,
        ),
        ModelEntry(
            "pixelcnn-pp", "likely.models.pixelcnn_pp", "PixelCNNPP",
            _settings.PixelCNNPPSettings,
        ),
        ModelEntry(
            "multiscale-pixelcnn", "likely.models.multiscale_pixelcnn", "MultiscalePixelCNN",
            _settings.MultiscalePixelCNNSettings,
        ),
        ModelEntry(
            "parallel-multiscale", "likely.models.parallel_multiscale", "ParallelMultiscale",
            _settings.ParallelMultiscaleSettings,
        ),
        ModelEntry("vae", "likely.models.vae", "VAE", _settings.VAESettings),
        ModelEntry("dcgan", "likely.models.dcgan", "DCGAN", _settings.DCGANSettings),
    )
}  # fmt: skip

_BY_CLASS = {entry.class_name: entry for entry in MODELS.values()}


def entry(name: str) -> ModelEntry:
    """The model of that name, or an error with the nearest valid one."""
    if name not in MODELS:
        raise InvalidSetting(f'unknown model "{name}": {nearest(name, MODELS)}')
    return MODELS[name]


def __getattr__(name: str) -> Any:
    if name in _BY_CLASS:
        return _BY_CLASS[name].load()
    if name.endswith("Settings") and name in vars(_settings):
        return vars(_settings)[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_BY_CLASS, *(e.settings.__name__ for e in MODELS.values())})
