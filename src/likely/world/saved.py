"""A learned world as a directory: the log, what was asked, and the plan.

    transitions.npz   the log that was fitted
    config.json       task, model and its settings
    codes/            the autoencoder, where pictures are observed: a run of the package
    network/          the VRNN, where a memory makes the states: a run of the package
    plan.npz          grid and value, once it was solved

A fit of dynamics by regression takes seconds at most and depends on the log and the settings only,
so it is not saved but repeated.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from likely.errors import InvalidData
from likely.estimate import Estimate
from likely.files import parse_json, reading, record_of, write_bytes
from likely.world.learn import fit
from likely.world.memory import Memory, with_memory
from likely.world.model import TransitionModel
from likely.world.pixels import Codes
from likely.world.tasks import task_of, with_codes, within_data
from likely.world.trajectories import Trajectories

if TYPE_CHECKING:
    from likely.density import Fittable

Nats = dict[str, dict[int, Estimate]]

LOG, CONFIG, PLAN = "transitions.npz", "config.json", "plan.npz"
CODES, NETWORK = "codes", "network"


def save_world(
    folder: str | Path,
    trajectories: Trajectories,
    task: str,
    model: str,
    settings: dict[str, Any],
    *,
    undeclared: bool = False,
    codes: Codes | None = None,
    memory: Memory | None = None,
    nats: Nats | None = None,
) -> None:
    """Write a world; the folder is created, and a plan of another fit removed.

    Args:
        task: a name that `task_of` takes, so that the world can be loaded.
        undeclared: rewards and ends are learned, whatever the task declares.
        codes: of pictures, `model.task.encode`.
        memory: of what is not seen, `model.task.memory`.
        nats: what `validate` measured.
    """
    target = Path(folder)
    config = {
        "format": "likely.world", "version": 1, "task": task, "undeclared": undeclared,
        "model": model, "settings": settings, "held_out_nats": {
            name: {str(h): e.to_json() for h, e in by_steps.items()}
            for name, by_steps in (nats or {}).items()
        },
    }  # fmt: skip
    for name in (CONFIG, PLAN):  # a world that was not written to its end is none
        (target / name).unlink(missing_ok=True)
    networks: tuple[tuple[str, Fittable | None], ...] = (
        (CODES, None if codes is None else codes.vae),
        (NETWORK, None if memory is None else memory.network),
    )  # fmt: skip
    for name, network in networks:
        shutil.rmtree(target / name, ignore_errors=True)
        if network is not None:
            from likely.runs.saved import save

            save(target / name, network)
    trajectories.save(target / LOG)
    write_bytes(target / CONFIG, f"{json.dumps(config, indent=2)}\n".encode())


def load_world(folder: str | Path) -> tuple[TransitionModel, Trajectories, dict[str, Any]]:
    """The world of a directory, its log, and its configuration.

    Raises:
        InvalidData: no world, or one that is damaged; says which file.
    """
    source = Path(folder)
    path = source / CONFIG
    if not path.is_file():
        raise InvalidData(f"{source}: no {CONFIG} there; expected what `likely world fit` wrote")
    with reading(path, what="damaged"):
        config = record_of(parse_json(path.read_bytes()), "format", "task", "model", "settings")
        if (config["format"], config.get("version")) != ("likely.world", 1):
            raise InvalidData('"format" is not "likely.world", or "version" is not 1')
        for name, kind in (("task", str), ("model", str), ("settings", dict)):
            if not isinstance(config[name], kind):
                raise InvalidData(f'"{name}" is {config[name]!r}, expected {kind.__name__}')
        saved_nats(config)
    log = Trajectories.load(source / LOG)
    with reading(path, what="does not fit its log"):
        task = task_of(config["task"])
        task = task.undeclared() if config.get("undeclared") else task
        if task.pixels is not None:
            from likely.runs.saved import load

            vae: Any = load(source / CODES).model
            task = with_codes(task, log, Codes(vae, task.pixels))
        if config["model"] == "vrnn":
            from likely.runs.saved import load

            network: Any = load(source / NETWORK).model
            observed = within_data(task, np.vstack(task.states_of(log)))
            task = with_memory(observed, log, Memory(observed, network))
        return fit(log, config["model"], task=task, **config["settings"]), log, config


def saved_nats(config: dict[str, Any]) -> Nats:
    """What `validate` measured, from the configuration of a world; empty where it is not kept."""
    kept = config.get("held_out_nats") or {}
    steps = [int(h) for h in kept.get("model", {})]
    return {
        name: {h: Estimate.from_json(kept[name][str(h)]) for h in steps}
        for name in (("model", "null") if kept else ())
    }
