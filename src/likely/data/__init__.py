"""Data: integer-coded examples with a specification and a fingerprint.

`load` reads a named data set, a folder of images, an array file, a table of time series, and
returns `(train, test)`; `train.validation` is held out for every choice.

Names are imported on first use, so that `import likely.data` costs next to nothing and a command
can list the data sets (`likely.data.catalogue`) without importing numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from likely._lazy import lazy

if TYPE_CHECKING:
    from likely.data.arrays import from_array as from_array
    from likely.data.arrays import from_file as from_file
    from likely.data.decode import FolderData as FolderData
    from likely.data.decode import FolderReport as FolderReport
    from likely.data.huggingface import from_huggingface as from_huggingface
    from likely.data.images import from_folder as from_folder
    from likely.data.loading import SkippedFiles as SkippedFiles
    from likely.data.loading import UnseenClasses as UnseenClasses
    from likely.data.loading import load as load
    from likely.data.pixels import read_image as read_image
    from likely.data.sequences.dataset import Sequences as Sequences
    from likely.data.sequences.spec import Column as Column
    from likely.data.sequences.spec import SequenceSpec as SequenceSpec
    from likely.data.sequences.splits import from_sequences as from_sequences
    from likely.data.spec import Batch as Batch
    from likely.data.spec import Dataset as Dataset
    from likely.data.spec import DataSpec as DataSpec
    from likely.data.spec import train_and_test as train_and_test
    from likely.data.spec import with_validation as with_validation

_HOME = {
    **dict.fromkeys(("Batch", "DataSpec", "Dataset", "train_and_test", "with_validation"), "spec"),
    **dict.fromkeys(("FolderData", "FolderReport"), "decode"),
    **dict.fromkeys(("SkippedFiles", "UnseenClasses", "load"), "loading"),
    **dict.fromkeys(("from_array", "from_file"), "arrays"),
    "Sequences": "sequences.dataset",
    **dict.fromkeys(("Column", "SequenceSpec"), "sequences.spec"),
    "from_folder": "images",
    "from_sequences": "sequences.splits",
    "from_huggingface": "huggingface",
    "read_image": "pixels",
}

__getattr__, __dir__, __all__ = lazy(__name__, _HOME)
