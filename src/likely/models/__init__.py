"""The models by family, one paper per file; a network is imported when it is first asked for.

Families: vectors (FVSBN, NADE, MADE), recurrent (PixelRNN), pixelcnn (PixelCNN and its
successors), multiscale, vae, gan. Beside the networks of each stands a torch-free `settings`
module, whose classes register themselves (`likely.models.registry`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# In the lecture's order: importing them registers the models.
from likely.models.vectors import settings as _vectors  # isort: skip
from likely.models.recurrent import settings as _recurrent  # isort: skip
from likely.models.pixelcnn import settings as _pixelcnn  # isort: skip
from likely.models.multiscale import settings as _multiscale  # isort: skip
from likely.models.vae import settings as _vae  # isort: skip
from likely.models.gan import settings as _gan  # isort: skip
from likely.models.registry import MODELS, ModelEntry, entry, model

if TYPE_CHECKING:
    from likely.models.gan.dcgan import DCGAN as DCGAN
    from likely.models.multiscale.multiscale_pixelcnn import (
        MultiscalePixelCNN as MultiscalePixelCNN,
    )
    from likely.models.multiscale.parallel_multiscale import (
        ParallelMultiscale as ParallelMultiscale,
    )
    from likely.models.pixelcnn.gated_pixelcnn import GatedPixelCNN as GatedPixelCNN
    from likely.models.pixelcnn.gated_pixelcnn import GatedPixelCNNEnsemble as GatedPixelCNNEnsemble
    from likely.models.pixelcnn.gated_pixelcnn import GatedPixelCNNOrders as GatedPixelCNNOrders
    from likely.models.pixelcnn.pixelcnn import PixelCNN as PixelCNN
    from likely.models.pixelcnn.pixelcnn_pp import PixelCNNPP as PixelCNNPP
    from likely.models.pixelcnn.pixelsnail import PixelSNAIL as PixelSNAIL
    from likely.models.recurrent.pixelrnn import DiagonalBiLSTM as DiagonalBiLSTM
    from likely.models.recurrent.pixelrnn import DiagonalBiLSTMEnsemble as DiagonalBiLSTMEnsemble
    from likely.models.recurrent.pixelrnn import RowLSTM as RowLSTM
    from likely.models.vae.vae import VAE as VAE
    from likely.models.vectors.deep_nade import DeepNADE as DeepNADE
    from likely.models.vectors.deep_nade import EoNADE as EoNADE
    from likely.models.vectors.fvsbn import FVSBN as FVSBN
    from likely.models.vectors.made import MADE as MADE
    from likely.models.vectors.made import MADEEnsemble as MADEEnsemble
    from likely.models.vectors.nade import NADE as NADE

__all__ = ["MODELS", "ModelEntry", "entry", "model"]

_FAMILIES = (_vectors, _recurrent, _pixelcnn, _multiscale, _vae, _gan)


def __getattr__(name: str) -> Any:
    for found in MODELS.values():
        if name == found.class_name:
            return found.load()
    for family in _FAMILIES:
        if name.endswith(("Settings", "Sizes")) and name in vars(family):
            return vars(family)[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    classes = [name for e in MODELS.values() for name in (e.class_name, e.settings.__name__)]
    return sorted({*globals(), *classes})
