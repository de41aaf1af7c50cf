"""A learned world as a directory: the log, what was asked, and the plan.

    transitions.npz   the log that was fitted
    config.json       task, model and its settings
    plan.npz          grid and value, once it was solved

A fit takes less than a second and depends on the log and the settings only, so what is saved is
these.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from likely.errors import InvalidData
from likely.files import parse_json, reading, record_of, write_bytes
from likely.world.learn import fit
from likely.world.model import TransitionModel
from likely.world.tasks import task_of
from likely.world.trajectories import Trajectories

__all__ = ["load_world", "save_world"]

LOG, CONFIG, PLAN = "transitions.npz", "config.json", "plan.npz"


def save_world(
    folder: str | Path,
    trajectories: Trajectories,
    task: str,
    model: str,
    settings: dict[str, Any],
    *,
    undeclared: bool = False,
) -> None:
    """Write a world; the folder is created, and a plan of another fit removed.

    Args:
        task: a name that `task_of` takes, so that the world can be loaded.
        undeclared: rewards and ends are learned, whatever the task declares.
    """
    target = Path(folder)
    config = {
        "format": "likely.world", "version": 1, "task": task, "undeclared": undeclared,
        "model": model, "settings": settings,
    }  # fmt: skip
    (target / PLAN).unlink(missing_ok=True)
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
    with reading(path, what="is not JSON"):
        config = record_of(parse_json(path.read_bytes()), "format", "task", "model", "settings")
        if config["format"] != "likely.world":
            raise InvalidData('"format" is not "likely.world"')
        for name, kind in (("task", str), ("model", str), ("settings", dict)):
            if not isinstance(config[name], kind):
                raise InvalidData(f'"{name}" is {config[name]!r}, expected {kind.__name__}')
    log = Trajectories.load(source / LOG)
    with reading(path, what="does not fit its log"):
        task = task_of(config["task"])
        task = task.undeclared() if config.get("undeclared") else task
        return fit(log, config["model"], task=task, **config["settings"]), log, config
