"""What a fit is, as its run keeps it, and what must agree for another fit to resume it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from likely.density import condition_of
from likely.models.registry import MODELS
from likely.runs.checkpoint import as_json, digest_of
from likely.settings import OBJECTIVES, FitSettings, from_mapping, to_json

if TYPE_CHECKING:
    from likely.data.spec import Dataset
    from likely.density import Fittable

START_OVER = (
    "restore it from a copy, or start from scratch: `likely fit` with --no-resume, in Python "
    "resume=False, or another directory"
)

# Pauses, the device, logging, compilation and graphs do not change what is being fitted.
FREE_SETTINGS = frozenset({"checkpoint_seconds", "device", "tensorboard", "compile", "graphs"})
# A longer fit has others, and is the same as far as the shorter one went if its rates are.
LENGTH = frozenset({"steps", "warmup"})
# What says where the first weights of a fit came from, in words and as a digest.
BEGINNING = ("starts_from", "starts_from_weights")


@dataclasses.dataclass(frozen=True)
class Description:
    """What is fitted, to what, and how.

    Attributes:
        config: the model, its settings, and the data: config.json.
        fit: settings of the fit, the objective, fingerprints of the data: fit.json, and a string
            of the state file.
        origin_run: path of the run directory that the model's weights are of; "" for none.
    """

    config: dict[str, Any]
    fit: dict[str, Any]
    origin_run: str = ""


def describe_model(model: Fittable, data: Dataset | None = None) -> dict[str, Any]:
    """What config.json says: enough to build the model again and to load its data.

    A model that is not registered is named by its class. Without `data` it is the data that the
    model was built for, wherever they are.
    """
    kind, registered = type(model), MODELS.of(type(model))
    spec = model.spec if data is None else data.spec
    # The split tells whether `likely.data.load` returns these examples as its training set.
    source = None if data is None or spec.split != "train" else data.source
    return {
        "model": registered.reference if registered else kind.__name__,
        **({} if registered else {"class": f"{kind.__module__}:{kind.__qualname__}"}),
        "settings": to_json(model.settings),
        "spec": as_json(spec.to_json()),
        "data": None if source is None else as_json(source),
    }


def describe_fit(
    model: Fittable,
    data: Dataset,
    objective: object,
    settings: FitSettings,
    origin: str | None = None,
) -> Description:
    """The description of a fit of the model as it is now.

    Of a fit that is over, `origin` says where its first weights came from, "" for initial ones.

    Raises:
        InvalidSetting: settings or objective are no dataclass of plain values.
    """
    condition = condition_of(model)
    # What log p(x | label) learns depends on the labels, too.
    labels = {"condition_fingerprint": data.fingerprint_given(condition)} if condition else {}
    beginning = {} if not origin else {"starts_from": origin}
    if origin is None and model.origin:
        # The sentence may be the same of other weights.
        digest = model.origin_weights or digest_of(model.state_dict())
        beginning = dict(zip(BEGINNING, (model.origin, digest), strict=True))
    fit = {
        **labels,
        "fit": to_json(settings),
        "objective": {"name": type(objective).__name__, **to_json(objective)},
        "training_fingerprint": data.spec.fingerprint,
        "model": {"name": type(model).__name__, **to_json(model.settings)},
        **beginning,
    }
    return Description(describe_model(model, data), fit, model.origin_run)


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The settings in which the fit of a run differs from another, in words.

    `saved` is what fit.json or the state file says of the run, `now` the same of the other fit.
    """
    # A run from before a setting existed has its default.
    then = {**to_json(FitSettings()), **saved["fit"]}
    changed = _changes(then, {k: v for k, v in now["fit"].items() if k not in FREE_SETTINGS})
    for part in ("model", "objective"):
        # Older runs did not note every part.
        before, after = saved.get(part, now[part]), now[part]
        known = OBJECTIVES.of_class_name(after["name"]) if part == "objective" else None
        if known is not None and known.settings is not None:
            # A run from before a setting existed has its default.
            before = {**to_json(known.settings()), **before}
        if before.get("name") != after["name"]:
            changed.append(f"{part} {before.get('name')} -> {after['name']}")
        else:
            prefix = "" if part == "model" else "objective "
            changed += [prefix + text for text in _changes(before, after)]
    labels = now.get("condition_fingerprint")
    if saved["training_fingerprint"] != now["training_fingerprint"]:
        changed.append("other data")
    elif saved.get("condition_fingerprint", labels) != labels:
        changed.append("other labels or contexts of the data")
    return changed


def same_beginning(saved: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether the fit of a run began from the weights that another begins from.

    Arguments as for `differences`. Runs of before the digest was kept have only the words.
    """
    words, digest = BEGINNING
    key = digest if digest in saved and digest in now else words
    return bool(saved.get(key) == now.get(key))


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} {before[name]} -> {value}"
        for name, value in after.items()
        if name in before and before[name] != value
    ]


def longer(saved: Mapping[str, Any], now: Mapping[str, Any], step: int) -> tuple[bool, str]:
    """Whether a run of `step` updates can begin a fit of another length, and why not.

    It can where every update so far had the learning rate that the other fit gives it. `saved` is
    what the state file says of the run, `now` the same of the fit that wants to go on.
    """
    then, wanted = (from_mapping(FitSettings, record["fit"]) for record in (saved, now))
    if wanted.steps < step:
        return False, f"it has done {step:,} steps, more than {wanted.steps:,}"
    for update in range(step):
        if then.rate(update) != wanted.rate(update):
            return False, (
                f"its {then.schedule} schedule was one of {then.steps:,} steps, and one of "
                f"{wanted.steps:,} has other learning rates from step {update + 1:,} on "
                "(a constant schedule can be prolonged)"
            )
    return True, ""


def copy_into(state: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """Copy values and keep the memory order: sums in another order differ in the last bit.

    Raises:
        KeyError: the names differ.
        ValueError: a shape or a type differs.
    """
    if state.keys() != saved.keys():
        raise KeyError(", ".join(sorted(state.keys() ^ saved.keys())[:4]))
    for name, tensor in state.items():
        if tensor.shape != saved[name].shape:
            raise ValueError(f"{name} is {tuple(saved[name].shape)}, not {tuple(tensor.shape)}")
        if tensor.dtype != saved[name].dtype:
            raise ValueError(f"{name} is {saved[name].dtype}, not {tensor.dtype}")
    for name, tensor in state.items():
        tensor.copy_(saved[name])
