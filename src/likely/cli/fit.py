"""`likely fit MODEL --data DATA --out DIR`."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from likely.cli.fields import RUN, add_field, add_fields
from likely.cli.output import leads, note, say, say_json, wrapped
from likely.cli.parser import Parser
from likely.cli.values import Request, requested
from likely.errors import InvalidData, InvalidSetting
from likely.models import MODELS, entry
from likely.settings import OBJECTIVES, FitSettings, from_mapping, to_json
from likely.training.stopping import exit_code

if TYPE_CHECKING:
    from likely.data import Dataset
    from likely.density import GenerativeModel
    from likely.training.loop import Run
    from likely.training.objectives import Objective

EXAMPLE = """\
  likely fit vae --data digits --out runs/vae
  likely fit gated-pixelcnn --data mnist --binarize static --steps 20000 \\
      --out runs/pixelcnn
  likely fit vae --config vae.yaml --set latent=64 --out runs/vae64
"""
DEFAULT = None


class Choices(dict[str, str]):
    """Models with their summaries; "module:name" is one of another package."""

    def __contains__(self, name: object) -> bool:
        return ":" in str(name) or super().__contains__(name)

    def __missing__(self, name: str) -> str:
        return entry(name).summary


def choices() -> Mapping[str, str]:
    """The models."""
    return Choices({name: found.summary for name, found in MODELS.items()})


def configure(parser: Parser, choice: str | None) -> None:
    """The options of one model."""
    assert choice is not None
    found = entry(choice)
    parser.usage = f"likely fit {choice} --data DATA --out DIR [options]"
    parser.epilog = (
        f"A settings file has the same names, one per line: `steps: 2000`. Options\n"
        f"override the file, the file overrides presets.\n\nexamples:\n"
        f"  likely fit {choice} --data digits --out runs/{choice}\n"
        f"  likely fit {choice} --data digits --config my.yaml --steps 500 --out runs/mine"
    )
    group = parser.add_argument_group("run")
    for field in RUN:
        add_field(group, field)
    group.add_argument("--config", metavar="FILE", help="YAML or JSON file of settings")
    group.add_argument(
        "--set", action="append", metavar="NAME=VALUE", help="any setting by its name; may be "
        "repeated",
    )  # fmt: skip
    add_fields(parser, found)


def run(options: argparse.Namespace) -> int:
    """Fit, and say what came of it and what to do next."""
    request = requested(entry(options.choice), options)
    _refuse_foreign_folder(request.out)
    train = _load(request)

    from likely import runs
    from likely.training.loop import fit
    from likely.training.presets import fit_settings

    settings = fit_settings(request.model.settings, train, request.fit)
    with _enough_memory():
        model = runs.build(request.model.reference, train.spec, request.changes, settings.seed)
    objective = _objective(request, model)
    record = recorded(request.data)
    _refuse_other_run(request, model, record, objective)
    from likely.cli.progress import settle
    from likely.runs.resume import threads_of
    from likely.training.progress import FitProgress

    settle(threads_of(request.out) if request.resume else None)
    title = f"{request.model.name} on {train.spec.name}"
    weights = sum(p.numel() for p in model.parameters())
    note(
        f"{_doing(request, model, train, objective, settings)} {title}: {weights:,} weights, "
        f"{len(train):,} examples, {settings.steps:,} steps of {settings.batch_size}"
    )
    described = _described(request.out, request.model.reference, model, record)
    with _enough_memory(), described, FitProgress(title, settings.steps) as progress:
        found = fit(
            model, train, objective, settings,
            out=request.out, resume=request.resume, progress=progress,
        )  # fmt: skip
    findings = _findings(found, train) if found.finished and leads() else []
    return _conclude(found, title, request, record, findings, options.json)


def _doing(
    request: Request, model: GenerativeModel, train: Dataset, objective: Objective,
    settings: FitSettings,
) -> str:  # fmt: skip
    """What is going to be done with the run in --out; refused before anything is announced."""
    from likely.runs import checkpoint
    from likely.runs.resume import START_OVER, STATE, about_fit, refuse_lost_state, refuse_other_run

    if not request.resume:
        return "fitting"
    refuse_lost_state(request.out)
    path = request.out / STATE
    if not path.exists():
        return "fitting"
    state = checkpoint.read_strings(path, START_OVER)
    refuse_other_run(request.out, state, about_fit(model, train, objective, settings))
    return "already fitted:" if state.get("step") == str(settings.steps) else "resuming"


@contextlib.contextmanager
def _enough_memory() -> Iterator[None]:
    """Turn an out-of-memory error into one line."""
    import torch

    try:
        yield
    except (MemoryError, RuntimeError) as error:
        texts = ("can't allocate memory", "out of memory")
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not any(
            text in str(error) for text in texts
        ):
            raise
        raise InvalidSetting(
            "there is not enough memory for a model and batches of these sizes; lower the sizes "
            "or batch_size, or raise micro_batches"
        ) from error


def _load(request: Request) -> Dataset:
    from likely import data
    from likely.cli.progress import loading

    arguments = dict(request.data)
    with loading() as progress:
        train, _ = data.load(arguments.pop("name"), progress=progress, **arguments)
    return train


def recorded(data: dict[str, Any]) -> dict[str, Any]:
    """How to load the data again, from any working directory."""
    from likely.data.catalogue import CATALOGUE

    record = plain(data)
    name = str(data["name"])
    return (
        record if name in CATALOGUE else {**record, "name": str(Path(name).expanduser().resolve())}
    )


def _objective(request: Request, model: GenerativeModel) -> Objective:
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


# -- the directory --------------------------------------------------------------------------


def _refuse_foreign_folder(out: Path) -> None:
    """A folder with something else in it, or a file, is no place for a run."""
    if out.exists() and not out.is_dir():
        raise InvalidSetting(f"--out {out} is a file; give a directory")
    if not out.is_dir() or (out / "config.json").exists():
        return
    others = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
    if others:
        raise InvalidSetting(
            f"--out {out} holds other things ({', '.join(others[:3])}"
            f"{', ...' if len(others) > 3 else ''}) and no run; give a new or an empty directory"
        )


def _refuse_other_run(
    request: Request, model: GenerativeModel, data: dict[str, Any], objective: Objective
) -> None:
    """The run in --out must be this one, or there must be none."""
    from likely import runs
    from likely.files import reading, record_of
    from likely.runs import checkpoint

    out, name = request.out, request.model.reference
    if not (out / "config.json").exists():
        return
    config = runs.read_config(out)
    spec = plain(model.spec.to_json())
    differing = {key for key in spec if config["spec"].get(key) != spec[key]}
    if config["model"] != name or config["data"] != data or differing:
        what = "images" if differing - {"classes"} else "classes"
        other = f" (the same name, other {what})" if config["data"] == data and differing else ""
        raise InvalidSetting(
            f"--out {out} holds a run of {config['model']} on {_data_words(config['data'])}, "
            f"not of {name} on {_data_words(data)}{other}; give another directory"
        )
    if not request.resume:
        return
    old, new = config["settings"], to_json(model.settings)
    changed = [f"{key} {old.get(key)} -> {new[key]}" for key in new if old.get(key) != new[key]]
    path = out / "fit.json"
    with reading(path, what="damaged", kind=checkpoint.CheckpointError):
        fitted = record_of(checkpoint.read_json(path) if path.exists() else {})
        then = fitted.get("objective")
        if then is not None:
            record_of(then, "name")
    now = {"name": type(objective).__name__, **to_json(objective)}
    if then is not None and then != now:
        changed.append(f"objective {_objective_words(then)} -> {_objective_words(now)}")
    if changed:
        raise InvalidSetting(
            f"--out {out} holds a run with other settings ({'; '.join(changed)}); give the old "
            "settings to resume it, another directory, or --no-resume to replace it"
        )


def plain(record: dict[str, Any]) -> dict[str, Any]:
    """As JSON gives it back: tuples are lists."""
    return {key: list(v) if isinstance(v, tuple) else v for key, v in record.items()}


def _data_words(data: dict[str, Any]) -> str:
    return " ".join([str(data.get("name")), *(f"{k}={v}" for k, v in data.items() if k != "name")])


def _objective_words(record: dict[str, Any]) -> str:
    settings = ", ".join(f"{key}={value}" for key, value in record.items() if key != "name")
    return f"{record['name']}({settings})"


@contextlib.contextmanager
def _described(
    out: Path, name: str, model: GenerativeModel, data: dict[str, Any]
) -> Iterator[None]:
    """config.json is there while the fit runs; a fit that refuses to start leaves what was."""
    from likely import runs
    from likely.runs import checkpoint

    if not leads():
        yield
        return
    path, made = out / "config.json", not out.exists()
    before = path.read_bytes() if path.exists() else None
    runs.describe(out, name, model, data)
    try:
        yield
    except (InvalidSetting, InvalidData, checkpoint.Occupied):
        if before is not None:
            checkpoint.write_bytes(path, before)
        elif not (out / "fit.json").exists():
            path.unlink(missing_ok=True)
            if made:
                (out / ".lock").unlink(missing_ok=True)
                with contextlib.suppress(OSError):
                    out.rmdir()
        raise


# -- the end --------------------------------------------------------------------------------


def _findings(found: Run, train: Dataset) -> list[str]:
    """Print the findings of the health monitor."""
    from likely.training.health import diagnose

    findings = [str(finding) for finding in diagnose(found.metrics, found.model, train)]
    for finding in findings:
        note(f"likely: {finding}")
    return findings


def _conclude(
    found: Run, title: str, request: Request, data: dict[str, Any], findings: list[str],
    as_json: bool,
) -> int:  # fmt: skip
    values = [record["validation"] for record in found.metrics if "validation" in record]
    best = min(values, default=math.nan)
    if as_json:
        last = {k: v for k, v in (found.metrics or [{}])[-1].items() if math.isfinite(v)}
        say_json(
            {
                "run": str(request.out),
                "model": request.model.name,
                "data": data,
                "finished": found.finished,
                "status": found.status,
                "step": found.step,
                "steps": found.settings.steps,
                "seconds": round(found.seconds, 3),
                "parameters": sum(p.numel() for p in found.model.parameters()),
                "best_validation_nats": best if values else None,
                "last": last,
                "findings": findings,
            }
        )
    if not found.finished:
        note(f"likely: {found.status}")
        return exit_code(found.status)
    if not as_json:
        from likely.ask.likelihood import is_bound
        from likely.training.progress import duration

        relation = "<= " if is_bound(found.model) else "= "
        ending = f"; best validation {relation}{best:.2f} nats" if values else ""
        say(wrapped(f"{title}: {found.status} in {duration(found.seconds)}{ending}"))
        say(f"saved in {request.out}\n\nnext:")
        say(f"  likely sample {request.out} -n 64 -o samples.png")
        say(f"  likely evaluate {request.out} --split test")
        say(f"  likely verify {request.out}")
    return 0
