"""Settings of the models of sequences; torch-free. Importing this module registers them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from likely.models.registry import sequence_model
from likely.settings import FitSettings, at_least, known, not_negative, rates

if TYPE_CHECKING:
    from likely.data.spec import DataSpec


Changes = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class SequenceSettings:
    """What all networks over time share.

    Attributes:
        hidden: units of the body, in each layer.
        layers: of the body.
        dropout: rate on the inputs and outputs of each layer.
        step_hidden: hidden units of the density within a step.
        head: components of a number on a lattice: logistic, or student-t (4 degrees of freedom) for
            heavy tails.
        components: of the mixture of each number or angle.
        conditional: conditioned on the class of a sequence.
        window: steps that an update scores in a piece of a sequence; longer sequences are cut.
        before: steps before a window that are given, so that a state is not empty there.
        transpose: semitones by which music is moved at random in a fit, up or down.
    """

    hidden: int = 128
    layers: int = 1
    dropout: float = 0.0
    step_hidden: int = 64
    head: Literal["logistic", "student-t"] = "student-t"
    components: int = 4
    conditional: bool = False
    window: int = 128
    before: int = 32
    transpose: int = 0

    # What differs from the defaults, by the kind of the data.
    MUSIC: ClassVar[Changes] = {}
    LARGE_MUSIC: ClassVar[Changes] = {}
    VOICES: ClassVar[Changes] = {}
    NUMBERS: ClassVar[Changes] = {}

    def __post_init__(self) -> None:
        known(self)
        at_least(self, 1, "hidden", "layers", "step_hidden", "components", "window")
        not_negative(self, "before", "transpose")
        rates(self, "dropout")

    @classmethod
    def preset(cls, spec: DataSpec) -> Self:
        """Sizes that work without tuning."""
        kind = kind_of(spec)
        return cls(**getattr(cls, kind.upper().replace("-", "_"), {}))

    @classmethod
    def fit_preset(cls, spec: DataSpec) -> FitSettings:
        """A fit that works without tuning."""
        steps = getattr(spec, "steps", 100_000)
        fit = _FITS[kind_of(spec)]
        windows = max(1, steps // cls.preset(spec).window)
        return dataclasses.replace(fit, batch_size=max(1, min(fit.batch_size, windows // 2)))


def kind_of(spec: DataSpec) -> str:
    """music, large-music (much of it), voices, or numbers: what presets go by."""
    columns = getattr(spec, "columns", ())
    if len(columns) > 24 and all(column.kind == "binary" for column in columns):
        return "music" if getattr(spec, "steps", 0) < 50_000 else "large-music"
    if columns and all(c.kind == "categorical" and c.levels > 24 for c in columns):
        return "voices"
    return "numbers"


_SHARED: dict[str, Any] = {"clip": 1.0, "warmup": 100, "validation_examples": 0, "ema": 0.99}
_FITS = {
    "music": FitSettings(steps=5000, batch_size=16, learning_rate=2e-3, **_SHARED),
    "large-music": FitSettings(steps=7000, batch_size=16, learning_rate=2e-3, **_SHARED),
    "voices": FitSettings(steps=4000, batch_size=16, learning_rate=2e-3, **_SHARED),
    "numbers": FitSettings(steps=2000, batch_size=16, learning_rate=2e-3, **_SHARED),
}


@sequence_model("gru", "likely.models.sequence.recurrent:GRU")
@dataclasses.dataclass(frozen=True)
class GRUSettings(SequenceSettings):
    """Gated recurrent units over time, a joint density within each step."""

    MUSIC: ClassVar[Changes] = {
        "hidden": 256,
        "dropout": 0.4,
        "step_hidden": 128,
        "transpose": 5,
    }
    LARGE_MUSIC: ClassVar[Changes] = {
        "hidden": 320,
        "dropout": 0.3,
        "step_hidden": 128,
        "transpose": 5,
    }
    VOICES: ClassVar[Changes] = {
        "hidden": 256,
        "dropout": 0.4,
        "step_hidden": 192,
        "transpose": 5,
    }
    NUMBERS: ClassVar[Changes] = {"window": 64, "before": 48}


@sequence_model("lstm", "likely.models.sequence.recurrent:LSTM")
@dataclasses.dataclass(frozen=True)
class LSTMSettings(SequenceSettings):
    """Long short-term memory over time, a joint density within each step."""

    MUSIC: ClassVar[Changes] = GRUSettings.MUSIC
    LARGE_MUSIC: ClassVar[Changes] = GRUSettings.LARGE_MUSIC
    VOICES: ClassVar[Changes] = GRUSettings.VOICES
    NUMBERS: ClassVar[Changes] = GRUSettings.NUMBERS
