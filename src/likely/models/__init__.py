"""The models by family, one paper per file; a network is imported when it is first asked for.

Families: vectors (FVSBN, NADE, MADE), recurrent (PixelRNN), pixelcnn (PixelCNN and its
successors), multiscale, split (grey and then colour, small and then large), classical (mixtures
by EM, PPCA), autoencoder, vae, codes, boltzmann, flow, gan, sequence. Beside the networks of each
stands a torch-free `settings` module, whose classes register themselves
(`likely.models.registry`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# In the lecture's order: importing them registers the models.
from likely.models.vectors import settings as _vectors  # isort: skip
from likely.models.recurrent import settings as _recurrent  # isort: skip
from likely.models.pixelcnn import settings as _pixelcnn  # isort: skip
from likely.models.multiscale import settings as _multiscale  # isort: skip
from likely.models.split import settings as _split  # isort: skip
from likely.models.classical import settings as _classical  # isort: skip
from likely.models.autoencoder import settings as _autoencoder  # isort: skip
from likely.models.vae import settings as _vae  # isort: skip
from likely.models.codes import settings as _codes  # isort: skip
from likely.models.boltzmann import settings as _boltzmann  # isort: skip
from likely.models.flow import settings as _flow  # isort: skip
from likely.models.gan import settings as _gan  # isort: skip
from likely.models.sequence import settings as _sequence  # isort: skip
from likely.models.sequence import classical as _series  # isort: skip
from likely.models.registry import MODELS, SEQUENCE_MODELS, ModelEntry, entry, model

if TYPE_CHECKING:  # with the classes that they register
    from likely.models.autoencoder.settings import *  # noqa: F403
    from likely.models.boltzmann.settings import *  # noqa: F403
    from likely.models.classical.settings import *  # noqa: F403
    from likely.models.codes.settings import *  # noqa: F403
    from likely.models.flow.settings import *  # noqa: F403
    from likely.models.gan.settings import *  # noqa: F403
    from likely.models.multiscale.settings import *  # noqa: F403
    from likely.models.pixelcnn.settings import *  # noqa: F403
    from likely.models.recurrent.settings import *  # noqa: F403
    from likely.models.sequence.classical import *  # noqa: F403
    from likely.models.sequence.settings import *  # noqa: F403
    from likely.models.split.settings import *  # noqa: F403
    from likely.models.vae.settings import *  # noqa: F403
    from likely.models.vectors.settings import *  # noqa: F403

__all__ = [
    "MODELS",
    "ONE_OF_EACH_KIND",
    "SEQUENCES_OF_EACH_KIND",
    "SEQUENCE_MODELS",
    "ModelEntry",
    "entry",
    "model",
]

# What a comparison fits, one for each leaf of the taxonomy.
ONE_OF_EACH_KIND = ("gated-pixelcnn", "vae", "dcgan")
# Of sequences: classical (a regression on the past where there are numbers), the rest as above.
SEQUENCES_OF_EACH_KIND = ("hmm", "var", "gru", "srnn", "recurrent-gan")

_FAMILIES = (
    *(_vectors, _recurrent, _pixelcnn, _multiscale, _split, _classical, _autoencoder, _vae),
    *(_codes, _boltzmann, _flow, _gan, _sequence, _series),
)


def __getattr__(name: str) -> Any:
    entry = MODELS.of_class_name(name)
    if entry is not None:
        return entry.load()
    for family in _FAMILIES:
        if name.endswith(("Settings", "Sizes")) and name in vars(family):
            return vars(family)[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    entries = [*MODELS.values(), *SEQUENCE_MODELS.values()]
    classes = [name for e in entries for name in (e.class_name, e.settings.__name__)]
    return sorted({*globals(), *classes})
