"""What settings of several families share; torch-free."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Self, TypeVar

from likely.errors import InvalidSetting
from likely.settings import (
    CountsWith,
    FitSettings,
    HeadName,
    at_least,
    not_negative,
    rates,
    type_hints,
    typed,
    unused_beside,
)

if TYPE_CHECKING:
    from likely.data.spec import DataSpec

T = TypeVar("T")
Corner = Literal["top-left", "top-right", "bottom-left", "bottom-right"]

# Small batches and orthogonal updates: few images teach a convolution of small grey images most.
SMALL_GREY = FitSettings(
    steps=8000, batch_size=16, optimizer="muon", learning_rate=0.01, schedule="linear",
    warmup=200, beta1=0.95, beta2=0.99, clip=100.0,
)  # fmt: skip
TINY = FitSettings(steps=700, batch_size=64, learning_rate=2e-3, ema=0.99)
LARGE = FitSettings(steps=20_000, batch_size=32, learning_rate=1e-3, warmup=500)


@dataclasses.dataclass(frozen=True)
class BySize(Generic[T]):
    """What works without tuning, by the side of the image and the colour channels.

    Attributes:
        tiny: for sides up to 12.
        large: for all that no other entry is for.
        grey: for sides up to 28 and one channel.
        medium: for sides up to 32.
    """

    tiny: T
    large: T
    grey: T | None = None
    medium: T | None = None

    def of(self, spec: DataSpec) -> T:
        """The entry for images of this kind."""
        if spec.side <= 12:
            return self.tiny
        if self.grey is not None and spec.side <= 28 and spec.grid[0] == 1:
            return self.grey
        return self.medium if self.medium is not None and spec.side <= 32 else self.large


@dataclasses.dataclass(frozen=True)
class NetworkSettings:
    """Settings whose whole numbers are at least 1, whose weights (of a name that ends so) are not
    negative and whose other numbers are rates in [0, 1).

    `SIZES` holds what differs from the defaults; `COUNTS_WITH` names the fields that count only
    where another has certain values.
    """

    COUNTS_WITH: ClassVar[dict[str, CountsWith]] = {}
    SIZES: ClassVar[BySize[dict[str, Any]]]
    FITS: ClassVar[BySize[FitSettings]]

    def __post_init__(self) -> None:
        typed(self)
        hints = type_hints(type(self))
        at_least(self, 1, *(name for name, hint in hints.items() if hint in (int, tuple[int, ...])))
        numbers = [name for name, hint in hints.items() if hint is float]
        not_negative(self, *(name for name in numbers if name.endswith("_weight")))
        rates(self, *(name for name in numbers if not name.endswith("_weight")))

    @property
    def without_effect(self) -> dict[str, str]:
        """Fields that change nothing beside the others, and the settings that each is of."""
        return unused_beside(self, self.COUNTS_WITH)

    @classmethod
    def preset(cls, spec: DataSpec) -> Self:
        """Sizes that work without tuning."""
        return cls(**cls.SIZES.of(spec))

    @classmethod
    def fit_preset(cls, spec: DataSpec) -> FitSettings:
        """A fit that works without tuning."""
        return cls.FITS.of(spec)


@dataclasses.dataclass(frozen=True)
class HeadSettings(NetworkSettings):
    """What networks have whose output is a distribution of pixels.

    Attributes:
        head: distribution of a pixel given the earlier ones, or the code.
        components: number of components of the logistic mixture.
    """

    head: HeadName = "auto"
    components: int = 10

    @property
    def without_effect(self) -> dict[str, str]:
        """Also the number of components where the head is no mixture, whatever the data."""
        unused = super().without_effect
        if self.head in ("bernoulli", "categorical"):
            unused.setdefault("components", "head=logistic-mixture")
        return unused


@dataclasses.dataclass(frozen=True)
class ChainSettings(HeadSettings):
    """What chain rules by a network have.

    Attributes:
        dropout: dropout rate inside each layer.
        conditional: condition on the class label.
    """

    dropout: float = 0.0
    conditional: bool = False


@dataclasses.dataclass(frozen=True)
class MaskedSettings(ChainSettings):
    """What networks of masked convolutions have.

    Attributes:
        kernel: side of the kernels, odd.
        first_kernel: side of the first layer's kernel, odd.
        head_channels: feature maps of the two output convolutions.
    """

    kernel: int = 3
    first_kernel: int = 7
    head_channels: int = 128


def at_most(limit: int, what: str, **counts: int) -> None:
    """Refuse a setting above what there is.

    Raises:
        InvalidSetting: names what there is, the setting and its value.
    """
    for name, value in counts.items():
        if value > limit:
            raise InvalidSetting(f"{what}, given {name}={value}")


def divided(groups: int, **sizes: int) -> None:
    """Refuse sizes that do not divide into the colour channels that masks order.

    Raises:
        InvalidSetting: names the sizes.
    """
    if any(size % groups for size in sizes.values()):
        named = " and ".join(f"{name}={size}" for name, size in sizes.items())
        raise InvalidSetting(f"{named} must be multiples of the {groups} colour channels")


def local_prior(spec: DataSpec) -> bool:
    """Whether presets of dense models take the prior between pixels: where it was measured.

    Colour and larger images have too many weights for matrices that are assembled again at
    every update; the dimensions of a vector have no distance.
    """
    side = spec.side
    return (
        len(spec.shape) == 3
        and spec.grid[0] == 1
        and (side <= 12 or (side <= 28 and spec.levels == 2))
    )
