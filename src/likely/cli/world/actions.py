"""What each action of `likely world` does, once its arguments are read."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from likely.cli.mdp.answers import check_target
from likely.cli.output import note, rows, say, say_json
from likely.errors import InvalidData, InvalidSetting, MissingDependency
from likely.estimate import Estimate
from likely.files import refuse_unwritable
from likely.files.figures import PICTURES, write_atomically
from likely.world.draw import values_figure
from likely.world.grid import Points
from likely.world.learn import fit
from likely.world.model import TransitionModel
from likely.world.pixels import Codes
from likely.world.planning import Plan, errors, plan, validate
from likely.world.play import act, collect
from likely.world.saved import CONFIG, PLAN, load_world, save_world, saved_nats
from likely.world.tasks import TASKS, Task, task_of
from likely.world.trajectories import Trajectories


def _environment(task: Task) -> str:
    made = task.environment
    return made if isinstance(made, str) else str(getattr(made, "__name__", made))


def _list(options: argparse.Namespace) -> None:
    if options.json:
        records = [
            {
                "name": t.name, "environment": _environment(t), "variables": list(t.variables),
                "actions": len(t.actions), "grid": list(t.grid), "discount": t.discount,
                "declared": list(t.declared),
            }
            for t in TASKS.values()
        ]  # fmt: skip
        say_json({"tasks": records})
        return
    lines = [
        (t.name, f"{_environment(t)}: {', '.join(t.variables)}; {len(t.actions)} actions; "
         f"declared: {', '.join(t.declared)}")
        for t in TASKS.values()
    ]  # fmt: skip
    say(rows(lines, 0).rstrip())
    say("\nAlso Gymnasium's names, with reward and ends of episodes learned, and module:name of a")
    say("likely.world.Task of yours.")


def _fit(options: argparse.Namespace) -> None:
    task = task_of(options.task)
    if options.undeclared:
        task = task.undeclared()
    if options.code_steps is not None:
        if task.pixels is None:
            raise InvalidSetting(f"--code-steps: {task.name} is not seen as pictures")
        pixels = dataclasses.replace(task.pixels, steps=options.code_steps)
        task = dataclasses.replace(task, pixels=pixels)
    out = Path(options.out or f"runs/world-{task.name}")
    refuse_unwritable(out / CONFIG)
    names = ("degree", "neighbours", "components", "updates", "hidden", "latent")
    settings = {name: vars(options)[name] for name in names if vars(options)[name] is not None}
    if options.log is not None:
        log = Trajectories.load(options.log)
    else:
        log = collect(task, "random", options.transitions, options.seed, hold=options.hold)
    model = fit(log, options.model, task=task, **settings)
    codes = model.task.encode if isinstance(model.task.encode, Codes) else None
    if codes is not None:  # of all frames: they are the units that nats are measured in
        task = model.task
    nats = _validated(log, options.model, task, settings)
    save_world(
        out, log, options.task, options.model, settings, undeclared=options.undeclared,
        codes=codes, memory=model.task.memory, nats=nats,
    )  # fmt: skip
    if options.json:
        say_json({
            "world": str(out), "task": task.name, "transitions": len(log),
            "episodes": log.episodes, "terminated": int(log.terminated.sum()),
            "truncated": int(log.truncated.sum()), "fingerprint": log.fingerprint,
            "model": model.about, "declared": list(task.declared), "held_out_nats": _plain(nats),
        })  # fmt: skip
        return
    say(f"{log!r}")
    facts = [
        ("model", f"p(s', r, terminated | s, a): {model.about}"),
        ("declared", ", ".join(task.declared) or "nothing: reward and ends are learned"),
    ]
    if model.task.memory is not None:
        facts.insert(0, ("states", ", ".join(model.task.variables)))
    if codes is not None:
        facts.insert(0, ("codes", f"{codes}"))
    if model.ends.rule is None and model.ends.never:
        facts.append(("ends", "none: the log has no terminated row"))
    for steps, value in nats.get("model", {}).items():
        null = nats["null"][steps]
        facts.append(
            (f"{steps}-step nats", f"{_shown(value)}; null model (mean change) {_shown(null)}")
        )
    say(rows(facts).rstrip())
    say(f"wrote {out}; next: likely world plan {out}")


def _validated(log: Trajectories, model: str, task: Any, settings: dict[str, Any]) -> Any:
    """Held-out nats; none where the log is too short to hold some out."""
    try:
        return validate(log, model, task=task, **settings)
    except InvalidData as error:
        note(f"likely: no held-out nats: {error}")
        return {}


def _shown(nats: Estimate) -> str:
    return f"{nats.relation.value} {nats.value:.4g} ± {nats.standard_error:.2g}"


def _plain(nats: dict[str, dict[int, Estimate]]) -> dict[str, dict[str, float]]:
    return {name: {str(h): e.value for h, e in by.items()} for name, by in nats.items()}


def _plan(options: argparse.Namespace) -> None:
    if options.plot == "":
        options.plot = str(Path(options.world) / "plan.png")
    check_target(options.plot, PICTURES)
    model, log, config = load_world(options.world)
    settings = config["settings"]
    grid: Any = options.grid
    if options.codes is not None or options.neighbours is not None:
        if grid is not None or None not in (options.codes, options.neighbours):
            raise InvalidSetting("give one of --grid, --codes and --neighbours")
        grid = Points.of(log, model.task, options.codes, neighbours=options.neighbours or 1)
    solved = plan(
        model, grid, discount=options.discount, tolerance=options.tolerance,
        quadrature=options.quadrature,
    )  # fmt: skip
    solved.save(Path(options.world) / PLAN)
    # A world of a log alone has no environment to measure the model's error in.
    environment = model.task if model.task.environment is not None else None
    measured = errors(
        solved, environment, states=model.task.states_of(log)[0][log.first],
        nats=saved_nats(config) or _validated(log, config["model"], model.task, settings),
        episodes=options.episodes,
        seed=options.seed, refine=options.refine or (0.5,),
    )  # fmt: skip
    if options.plot is not None:
        values_figure(options.plot, [(f"learned from {len(log)} transitions", solved)], log)
    if options.json:
        say_json({
            "world": options.world, "model": model.about, "grid": list(solved.grid.counts),
            "states": solved.mdp.states, "transitions": solved.mdp.transitions,
            "status": solved.solution.status, "discount": solved.mdp.discount,
            "errors": measured.record(),
        })  # fmt: skip
        return
    say(f"{model.task.name}: {model.about}, from {len(log)} transitions")
    say(f"{solved.grid}, {solved.mdp.states} states, {solved.mdp.transitions} transitions, "
        f"discount {solved.mdp.discount:g}: {solved.solution.status}\n")  # fmt: skip
    say(str(measured))
    if options.plot is not None:
        say(f"wrote {options.plot}")


def _loaded_plan(folder: str, model: TransitionModel) -> Plan:
    path = Path(folder) / PLAN
    return Plan.load(path, model) if path.is_file() else plan(model)


def _act(options: argparse.Namespace) -> None:
    if options.gif == "":
        options.gif = str(Path(options.world) / "act.gif")
    if options.gif is not None and Path(options.gif).suffix.lower() != ".gif":
        raise InvalidSetting(f"{options.gif}: an animation is a .gif")
    check_target(options.gif, (".gif",))
    model, _, _ = load_world(options.world)
    policy = "random" if options.policy == "random" else _loaded_plan(options.world, model)
    try:
        played = act(
            model.task, policy, options.episodes, options.seed, frames=options.gif is not None
        )
    except ImportError as error:
        if isinstance(error, MissingDependency) or options.gif is None:
            raise
        raise MissingDependency(f"drawing needs more: {error}") from None
    if options.gif is not None:
        write_gif(options.gif, played.frames)
    if options.json:
        say_json({
            "world": options.world, "policy": options.policy, "episodes": options.episodes,
            "returns": played.returns.tolist(), "mean_return": float(played.returns.mean()),
            "lengths": played.lengths.tolist(), "terminated": int(played.terminated.sum()),
            "file": options.gif,
        })  # fmt: skip
        return
    say(f"{model.task.name}: {played}")
    if options.gif is not None:
        say(f"wrote {options.gif}: {len(played.frames)} frames of the first episode")


def write_gif(path: str, frames: tuple[Any, ...], most: int = 150, side: int = 300) -> None:
    """Frames as an animation of at most `most` pictures, `side` pixels wide."""
    from PIL import Image

    kept = [frames[i] for i in np.unique(np.linspace(0, len(frames) - 1, most).round().astype(int))]
    pictures = [Image.fromarray(frame) for frame in kept]
    height = round(pictures[0].height * side / pictures[0].width)
    small = [p.resize((side, height)).quantize(colors=32) for p in pictures]

    def write(temporary: Path) -> None:
        small[0].save(temporary, format="GIF", save_all=True, append_images=small[1:], duration=40,
                      loop=0, optimize=True)  # fmt: skip

    write_atomically(path, write)


ACTIONS: dict[str, Callable[[argparse.Namespace], None]] = {
    "fit": _fit,
    "plan": _plan,
    "act": _act,
    "list": _list,
}
