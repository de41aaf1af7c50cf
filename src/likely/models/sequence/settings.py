"""Settings of the models of sequences; torch-free. Importing this module registers them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from likely.models.registry import sequence_model
from likely.settings import FitSettings, at_least, not_negative, rates, typed

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
        typed(self)
        at_least(self, 1, "hidden", "layers", "step_hidden", "components", "window")
        not_negative(self, "before", "transpose")
        rates(self, "dropout")

    def without_effect_on(self, spec: DataSpec) -> dict[str, str]:
        """Fields that change nothing on such data, and the columns that each is of."""
        kinds = {column.kind for column in getattr(spec, "columns", ())}
        numbers = {"lattice", "continuous"}
        head = {} if kinds & numbers else {"head": "columns of numbers"}
        mixed = kinds & {*numbers, "angle"}
        return head if mixed else {**head, "components": "columns of numbers or angles"}

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
        return "music" if getattr(spec, "steps", 0) < 100_000 else "large-music"
    if columns and all(c.kind == "categorical" and c.levels > 24 for c in columns):
        return "voices"
    return "numbers"


_SHARED: dict[str, Any] = {"clip": 1.0, "warmup": 100, "validation_examples": 0, "ema": 0.99}
_FITS = {
    "music": FitSettings(steps=5000, batch_size=16, learning_rate=2e-3, **_SHARED),
    "large-music": FitSettings(steps=7000, batch_size=16, learning_rate=2e-3, **_SHARED),
    "voices": FitSettings(steps=4000, batch_size=16, learning_rate=2e-3, **_SHARED),
    "numbers": FitSettings(steps=800, batch_size=16, learning_rate=2e-3, **_SHARED),
}


@dataclasses.dataclass(frozen=True)
class CausalSettings(SequenceSettings):
    """What the exact networks over time share.

    Attributes:
        neighbours: of binary columns side by side, as keys: how many on each side the density
            within a step sees of the steps before and of those below now, by weights that all
            columns share; 0 for none.
    """

    neighbours: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        not_negative(self, "neighbours")


@sequence_model("gru", "likely.models.sequence.recurrent:GRU")
@dataclasses.dataclass(frozen=True)
class GRUSettings(CausalSettings):
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
    NUMBERS: ClassVar[Changes] = {"window": 64, "before": 48, "dropout": 0.25}


@sequence_model("lstm", "likely.models.sequence.recurrent:LSTM")
@dataclasses.dataclass(frozen=True)
class LSTMSettings(CausalSettings):
    """Long short-term memory over time, a joint density within each step."""

    MUSIC: ClassVar[Changes] = GRUSettings.MUSIC
    LARGE_MUSIC: ClassVar[Changes] = GRUSettings.LARGE_MUSIC
    VOICES: ClassVar[Changes] = GRUSettings.VOICES
    NUMBERS: ClassVar[Changes] = GRUSettings.NUMBERS


@sequence_model("tcn", "likely.models.sequence.convolutional:TCN")
@dataclasses.dataclass(frozen=True)
class TCNSettings(CausalSettings):
    """Dilated causal convolutions over time (TCN, WaveNet), a joint density within each step.

    Attributes:
        layers: of the body, of dilations 1, 2, 4, ...
        kernel: taps of a convolution.
        gated: the gates and skips of WaveNet; otherwise rectified.
    """

    layers: int = 5
    kernel: int = 3
    gated: bool = True

    MUSIC: ClassVar[Changes] = {
        "hidden": 128, "dropout": 0.3, "step_hidden": 128, "transpose": 5, "before": 64
    }  # fmt: skip
    LARGE_MUSIC: ClassVar[Changes] = {**MUSIC, "dropout": 0.2, "hidden": 160, "layers": 6}
    VOICES: ClassVar[Changes] = {**MUSIC, "step_hidden": 192}
    NUMBERS: ClassVar[Changes] = {
        "window": 64, "before": 64, "hidden": 64, "dropout": 0.2, "layers": 5
    }  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 2, "kernel")


@sequence_model("transformer", "likely.models.sequence.transformer:Transformer")
@dataclasses.dataclass(frozen=True)
class TransformerSettings(CausalSettings):
    """A causal transformer over time with a key-value cache, a joint density within each step.

    Attributes:
        heads: of attention; they divide hidden.
        reach: steps that a step may look at, itself included.
    """

    layers: int = 3
    heads: int = 4
    reach: int = 128

    MUSIC: ClassVar[Changes] = {
        "hidden": 128, "dropout": 0.3, "step_hidden": 128, "transpose": 5, "before": 64
    }  # fmt: skip
    LARGE_MUSIC: ClassVar[Changes] = {**MUSIC, "dropout": 0.2}
    VOICES: ClassVar[Changes] = {**MUSIC, "step_hidden": 192}
    NUMBERS: ClassVar[Changes] = {
        "window": 64, "before": 64, "hidden": 64, "dropout": 0.2, "layers": 2, "reach": 64
    }  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "heads", "reach")


@dataclasses.dataclass(frozen=True)
class LatentSequenceSettings(SequenceSettings):
    """What the networks with a latent variable at each step share.

    Attributes:
        latent: dimensions of the latent of a step.
    """

    latent: int = 16

    MUSIC: ClassVar[Changes] = {**GRUSettings.MUSIC, "latent": 32}
    LARGE_MUSIC: ClassVar[Changes] = {**GRUSettings.LARGE_MUSIC, "latent": 32}
    VOICES: ClassVar[Changes] = {**GRUSettings.VOICES, "latent": 32}
    NUMBERS: ClassVar[Changes] = {**GRUSettings.NUMBERS, "hidden": 64, "latent": 8}

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "latent")


@sequence_model("srnn", "likely.models.sequence.srnn:SRNN")
@dataclasses.dataclass(frozen=True)
class SRNNSettings(LatentSequenceSettings):
    """Stochastic recurrent network (SRNN): a chain of latents beside a GRU, a bound.

    Attributes:
        smoothing: the posterior of a step reads the steps after it, too; otherwise it filters.
    """

    smoothing: bool = True


@sequence_model("vrnn", "likely.models.sequence.vrnn:VRNN")
@dataclasses.dataclass(frozen=True)
class VRNNSettings(LatentSequenceSettings):
    """Variational recurrent network (VRNN): latents that go through the GRU's state, a bound."""


@sequence_model("recurrent-gan", "likely.models.sequence.recurrent_gan:RecurrentGAN")
@dataclasses.dataclass(frozen=True)
class RecurrentGANSettings:
    """Recurrent GAN (RCGAN): samples of sequences only, a GRU against a GRU.

    Attributes:
        latent: numbers of noise at each step.
        hidden: units of the generator.
        discriminator_hidden: units of the discriminator.
        conditional: both are given the class of a sequence.
        window: steps of the sequences that are judged; longer ones are cut.
        before: steps before a window that are judged with it.
        transpose: semitones by which music is moved at random in a fit, up or down.
    """

    latent: int = 16
    hidden: int = 128
    discriminator_hidden: int = 128
    conditional: bool = False
    window: int = 32
    before: int = 0
    transpose: int = 0

    def __post_init__(self) -> None:
        typed(self)
        at_least(self, 1, "latent", "hidden", "discriminator_hidden", "window")
        not_negative(self, "before", "transpose")

    @classmethod
    def preset(cls, spec: DataSpec) -> Self:
        """Sizes that work without tuning."""
        return cls() if kind_of(spec) == "numbers" else cls(transpose=5)

    @classmethod
    def fit_preset(cls, spec: DataSpec) -> FitSettings:
        """A fit that works without tuning."""
        windows = max(1, getattr(spec, "steps", 100_000) // cls.preset(spec).window)
        return FitSettings(
            steps=2000, batch_size=max(1, min(32, windows // 2)), learning_rate=5e-4, beta1=0.0,
            beta2=0.9, clip=0.0, ema=0.995, final_learning_rate=0.1,
        )  # fmt: skip
