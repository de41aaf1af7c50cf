"""`likely fit MODEL --data DATA --out DIR`."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from likely.cli.fields import RUN, add_field, add_fields
from likely.cli.output import note, say, say_json, wrapped
from likely.cli.parser import UNSET, Command, Option, Parser, add_options
from likely.cli.values import Request, requested
from likely.errors import InvalidSetting
from likely.models import MODELS, SEQUENCE_MODELS, entry
from likely.models.sequence.settings import SequenceSettings
from likely.settings import OBJECTIVES, from_mapping, refuse_without_effect
from likely.training.stopping import exit_code

if TYPE_CHECKING:
    from likely.data import Dataset
    from likely.density import Fittable
    from likely.training.objectives import Objective
    from likely.training.run import Run

EXAMPLE = """\
  likely fit vae --data digits --out runs/vae
  likely fit gated-pixelcnn --data mnist --binarize static --steps 20000 \\
      --out runs/pixelcnn
  likely fit vae --config vae.yaml --set latent=64 --out runs/vae64
  likely fit vae --data digits --from runs/vae --out runs/longer
"""
FILES: dict[str, Option] = {
    "--preset": ("NAME", None, UNSET, "settings by name that come with a model, weaker than all "
                 "below"),
    "--config": ("FILE", None, UNSET, "YAML or JSON file of settings"),
    "--set": ("NAME=VALUE", None, (), "any setting by its name; may be repeated"),
}  # fmt: skip


class Choices(dict[str, str]):
    """Models with their summaries; "module:name" is one of another package."""

    def __contains__(self, name: object) -> bool:
        return ":" in str(name) or super().__contains__(name)

    def __missing__(self, name: str) -> str:
        return entry(name).summary


def _models() -> Mapping[str, str]:
    every = {**MODELS, **SEQUENCE_MODELS}
    return Choices({name: each.summary for name, each in every.items()})


def _configure(parser: Parser, choice: str | None) -> None:
    assert choice is not None
    registered = entry(choice)
    parser.usage = f"likely fit {choice} --data DATA --out DIR [options]"
    default = "regimes" if choice in SEQUENCE_MODELS else "digits"
    parser.epilog = (
        f"A settings file has the same names, one per line: `steps: 2000`. Options\n"
        f"override the file, the file overrides presets.\n\nexamples:\n"
        f"  likely fit {choice} --data {default} --out runs/{choice}\n"
        f"  likely fit {choice} --data {default} --config my.yaml --steps 500 --out runs/mine"
    )
    group = parser.add_argument_group("run")
    for field in RUN:
        add_field(group, field)
    named = registered.named_presets
    add_options(group, {k: option for k, option in FILES.items() if named or k != "--preset"})
    add_fields(parser, registered)


COMMAND = Command(EXAMPLE, choices=_models, configure=_configure)


def run(options: argparse.Namespace) -> int:
    """Fit, and say what came of it and what to do next."""
    request = requested(entry(options.choice), options)
    from likely import data
    from likely.cli.progress import loading, settle

    arguments = dict(request.data)
    with loading() as shown:
        train, _ = data.load(arguments.pop("name"), progress=shown, **arguments)

    from likely.runs import RunDirectory
    from likely.runs.resume import describe_fit
    from likely.training.loop import fit
    from likely.training.presets import fit_settings
    from likely.training.progress import FitProgress

    settings = fit_settings(request.model.settings, train, request.fit)
    with _enough_memory():
        model = _model(request, train, settings.seed)
    _tell_without_effect(request, model)
    objective = _objective(request, model)
    files = RunDirectory(request.out)
    wanted = describe_fit(model, train, objective, settings)
    step = files.plan(wanted, request.resume)
    settle(None if step is None else files.threads())
    doing = "fitting" if step is None else "resuming"
    title = f"{request.model.name} on {train.spec.name}"
    weights = sum(p.numel() for p in model.parameters())
    note(
        f"{'already fitted:' if step == settings.steps else doing} {title}: {weights:,} weights, "
        f"{len(train):,} examples, {settings.steps:,} steps of {settings.batch_size}"
    )
    with _enough_memory(), FitProgress(title, settings.steps) as progress:
        run = fit(
            model,
            train,
            objective,
            settings,
            out=request.out,
            resume=request.resume,
            progress=progress,
        )
    return _conclude(run, title, request, wanted.config["data"], options.json)


def _model(request: Request, train: Dataset, seed: int) -> Fittable:
    """With fresh weights, or with those of the run that --from names."""
    from likely import runs

    if request.start is None:
        model = runs.build(request.model.reference, train.spec, request.changes, seed)
        refuse_without_effect(model.settings, request.changes, request.model.preset(train.spec))
        return model
    start = runs.load(request.start)
    if start.name != request.model.name:
        raise InvalidSetting(
            f"--from {request.start} is a run of {start.name}, not of {request.model.name}"
        )
    model = runs.build_from(start, train.spec, request.changes)
    refuse_without_effect(model.settings, request.changes, start.model.settings)
    return model


def _tell_without_effect(request: Request, model: Fittable) -> None:
    """Say which of the settings that were asked for count on data of other columns only."""
    if isinstance(model.settings, SequenceSettings):
        of = model.settings.without_effect_on(model.spec)
        for name in sorted(request.changes.keys() & of.keys()):
            value = getattr(model.settings, name)
            note(f"likely: {name}={value} changes nothing on this data: it is of {of[name]}")


@contextlib.contextmanager
def _enough_memory() -> Iterator[None]:
    """Turn an out-of-memory error into one line."""
    import torch

    try:
        yield
    except (MemoryError, RuntimeError) as error:
        texts = ("can't allocate memory", "out of memory")
        known = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not known and not any(text in str(error) for text in texts):
            raise
        raise InvalidSetting(
            "there is not enough memory for a model and batches of these sizes; lower the sizes "
            "or batch_size, or raise micro_batches"
        ) from error


def _objective(request: Request, model: Fittable) -> Objective:
    """The one asked for, else the one of the kind; checked against the model."""
    from likely.training import objectives

    if request.objective is None:
        default = objectives.default_objective(model)
        valid = {field.name for field in dataclasses.fields(default)}  # type: ignore[arg-type]
        for key in request.objective_settings:
            if key not in valid:
                raise InvalidSetting(
                    f"--objective-{key.replace('_', '-')} is no setting of "
                    f"{type(default).__name__}, the objective of {request.model.name}; name "
                    f"another with --objective: {', '.join(OBJECTIVES)}"
                )
        chosen = from_mapping(type(default), request.objective_settings, default)
    else:
        kind = OBJECTIVES.entry(request.objective).load()
        chosen = from_mapping(kind, request.objective_settings)
    chosen.players(model)
    return chosen


# -- the end --------------------------------------------------------------------------------


def _conclude(run: Run, title: str, request: Request, data: dict[str, Any], as_json: bool) -> int:
    findings = [str(finding) for finding in run.findings] if run.finished else []
    for finding in findings:
        note(f"likely: {finding}")
    from likely.ask.likelihood import tells_weights_apart

    values = [record["validation"] for record in run.metrics if "validation" in record]
    best = min(values, default=None) if tells_weights_apart(run.model) else None
    if as_json:
        last = {k: v for k, v in (run.metrics or [{}])[-1].items() if math.isfinite(v)}
        say_json(
            {
                "run": str(request.out),
                "model": request.model.name,
                "data": data,
                "finished": run.finished,
                "status": run.status,
                "step": run.step,
                "steps": run.settings.steps,
                "seconds": round(run.seconds, 3),
                "parameters": sum(p.numel() for p in run.model.parameters()),
                "best_validation_nats": best,
                "last": last,
                "findings": findings,
            }
        )
    if not run.finished:  # which a warning has said
        return exit_code(run.status)
    if not as_json:
        from likely.density import GenerativeModel, SequenceModel
        from likely.training.progress import duration

        ending = f"; {run.kept_validation}" if run.kept_validation else ""
        say(wrapped(f"{title}: {run.status} in {duration(run.seconds)}{ending}"))
        say(f"saved in {request.out}\n\nnext:")
        if isinstance(run.model, GenerativeModel):
            written = "series.csv" if isinstance(run.model, SequenceModel) else "samples.png"
            say(f"  likely sample {request.out} -n 64 -o {written}")
            say(f"  likely evaluate {request.out} --split test")
        else:
            say(f"  likely encode {request.out} --split test -o codes.npz")
        say(f"  likely verify {request.out}")
    from likely.training.health import diverged

    return 1 if diverged(run.metrics, run.model) else 0
