"""A setting that changes nothing says so, and one that says so changes nothing."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import likely
from likely import runs
from likely.data import from_sequences
from likely.data.sequences.dataset import Windows
from likely.data.spec import Dataset, DataSpec
from likely.density import GenerativeModel
from likely.errors import InvalidSetting
from likely.models import MODELS
from likely.settings import HEADS
from likely.training.presets import fit_settings
from sizes import COLOUR, SMALL

# EM takes the likeliest of several starts, and there is nothing to smooth where all levels occur;
# chains are for more hidden units than can be listed.
NOT_IN_TWO_STEPS = {
    "bernoulli-mixture": {"restarts", "smoothing"},
    "product-mixture": {"restarts", "smoothing"},
    "rbm": {"gibbs"},
    "pixel-vae": {"local_kernel"},
}


def alternatives(value: Any, hint: Any) -> Iterator[Any]:
    """Other values of a field."""
    for kind in typing.get_args(hint) or (hint,):
        if kind is HEADS:
            yield from (name for name in ("categorical", "logistic-mixture") if name != value)
        elif kind is bool:
            yield not value
        elif isinstance(value, tuple):
            yield (*value[:-1], value[-1] + 1)
            return
        elif kind is int:
            yield from (value + 1, 2 * value)
        elif kind is float:
            yield 0.7 * (value or 0.1)
        elif typing.get_origin(hint) is typing.Literal and kind != value:
            yield kind


def images(levels: int, channels: int = 1) -> Dataset:
    """Six of noise, with labels."""
    numbers = np.random.default_rng(0)
    values = numbers.integers(0, levels, (6, channels, 8, 8)).astype(np.uint8)
    spec = DataSpec("noise", values.shape[1:], levels, n=6, classes=("a", "b", "c"))
    return Dataset(spec, values, np.arange(6) % 3)


def traces(name: str, data: Dataset, changes: dict[str, Any]) -> Iterator[object]:
    """All that a model of such settings shows: what it begins as, what a fit makes of it, draws."""
    model = runs.build(name, data.spec, changes, 0)
    yield [(key, value.shape, value.sum()) for key, value in model.state_dict().items()]
    settings = dataclasses.replace(
        MODELS[name].fit_preset(data.spec), steps=2, batch_size=5, warmup=0, validate_every=2
    )
    likely.fit(model, data, settings=settings, progress=False)
    yield [value.double().sum() for value in model.state_dict().values()]
    if isinstance(model, GenerativeModel):
        yield model.sample(4, seed=1).sum()


def refused(make: Callable[[], object]) -> bool:
    """Whether the settings do not go together."""
    try:
        make()
    except InvalidSetting:
        return True
    return False


def changes_something(name: str, data: Dataset, base: dict[str, Any], field: str) -> bool | None:
    """Whether another value of the field shows; None where no other one is allowed."""
    settings = runs.build(name, data.spec, base, 0).settings
    hint = typing.get_type_hints(type(settings), include_extras=True)[field]
    tried = None
    for value in alternatives(getattr(settings, field), hint):
        changes = base | {field: value}
        if refused(lambda changes=changes: runs.build(name, data.spec, changes, 0)):
            continue
        tried = False
        both = zip(traces(name, data, base), traces(name, data, changes), strict=True)
        if any(a != b for a, b in both):
            return True
    return tried


@pytest.mark.parametrize("name", MODELS)
def test_a_setting_that_changes_nothing_says_so(name: str) -> None:
    data = images(256, 3 if name in COLOUR else 1)
    kind, small = MODELS[name].settings, SMALL.get(name, {})
    bases = [(small, {field.name for field in dataclasses.fields(kind)})]
    for field, needs in kind.COUNTS_WITH.items():
        bases += [(small | {k: v}, {field}) for k, values in needs.items() for v in values]
    for base, fields in bases:
        unused = runs.build(name, data.spec, base, 0).settings.without_effect
        for field in sorted(fields - NOT_IN_TWO_STEPS.get(name, set())):
            shown = changes_something(name, data, base, field)
            assert shown is None or shown == (field not in unused), (base, field)


def test_what_changes_nothing_is_refused_by_the_class() -> None:
    spec = images(2).spec
    with pytest.raises(InvalidSetting, match="channels=8 changes nothing: it is of network=conv"):
        likely.models.VAE(spec, network="dense", channels=8)
    with pytest.raises(InvalidSetting, match="components=4 changes nothing: it is of head=logis"):
        likely.models.NADE(spec, head="bernoulli", components=4)
    likely.models.NADE(spec, components=4)  # it would count for more levels


def test_an_option_of_another_optimizer_or_schedule_is_refused() -> None:
    kind, data = MODELS["nade"].settings, images(2)
    with pytest.raises(InvalidSetting, match=r"beta1=0\.5 changes nothing.*optimizer=adam"):
        fit_settings(kind, data, {"optimizer": "sgd", "beta1": 0.5})
    with pytest.raises(InvalidSetting, match="schedule=cosine or linear"):
        fit_settings(kind, data, {"schedule": "constant", "final_learning_rate": 0.1})
    assert fit_settings(kind, data, {"beta1": 0.5}).beta1 == 0.5


def test_numbers_are_not_moved_as_notes_are() -> None:
    series = [np.arange(12)[:, None] * 0.5] * 6
    train, _ = from_sequences(series, kinds={"x0": "lattice"})
    with pytest.raises(InvalidSetting, match=r"transpose=2 is of music.*lattice"):
        Windows(train, 4, 0, transpose=2)
