"""Learned worlds: returns in the true environments after few random transitions.

    python bench/world.py            # all parts; half an hour: bench/results/world.json
    python bench/world.py slip       # some parts, beside the others that the file has

For each seed: collect random transitions, fit, put on a grid, solve, act for 20 episodes whose
first states no other part has seen. `cartpole-50` is 50 transitions of CartPole-v1 with ten seeds,
and its `seconds` the slowest of them from the first random step to the last of the 20 episodes,
with compiled code warm. Rewards and ends of episodes are declared and the dynamics learned; of
`undeclared` parts everything is learned. `cartpole-pixels` sees pictures, whose codes and whose
ends are learned, too; its three errors are kept. `slip` has nats of a world with two modes.
`cartpole-hidden` sees positions through noise and no velocities: a VRNN, and what has no memory or
that of one step, by the nats of what is seen on fresh episodes and by return; a quarter of an hour.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from common import RESULTS, write_result
from likely import world
from likely.world.hidden import NOISE

EPISODES = 20
STEPS = (1, 3, 5)  # of the nats of `slip`
PARTS = {"cartpole": (50, 10), "mountaincar": (2000, 5), "pendulum": (1000, 5)}


# Nothing declared, rewards and ends are learned from the log, too: transitions, seeds.
UNDECLARED = {"cartpole": (50, 10), "mountaincar": (20_000, 1), "pendulum": (1000, 3)}


def trial(name: str, n: int, seed: int, declared: bool = True) -> dict[str, Any]:
    """One seed, from the first random step to the return."""
    began = time.perf_counter()
    log = world.collect(name, n=n, seed=seed)
    task = world.TASKS[name] if declared else world.TASKS[name].undeclared()
    plan = world.plan(world.fit(log, task=task))
    played = world.act(name, plan, EPISODES, seed=10_000 + 100 * seed)
    seconds = time.perf_counter() - began
    return {
        "seed": seed, "return": float(played.returns.mean()), "seconds": seconds,
        "smallest": float(played.returns.min()), "error": plan.solution.error,
        "terminated_in_log": int(log.terminated.sum()), "model": plan.model.about,
    }  # fmt: skip


def pixels(seeds: int = 3, n: int = 6000) -> tuple[dict[str, float], dict[str, Any]]:
    """CartPole before a camera; CPU seconds of the fit, codes included, and of the plan."""
    key, trials = "world/cartpole-pixels", []
    for seed in range(seeds):
        log = world.collect("cartpole-pixels", n=n, seed=seed)
        began = time.process_time()
        model = world.fit(log)
        fitted = time.process_time() - began
        nats = world.validate(log, task=model.task)
        began = time.process_time()
        plan = world.plan(model, tolerance=1e-2)
        planned = time.process_time() - began
        errors = world.errors(
            plan, model.task, nats=nats, episodes=EPISODES, seed=10_000 + 100 * seed, refine=()
        )
        print(key, seed, errors, flush=True)
        trials.append({
            "seed": seed, "return": float(errors.earned.returns.mean()),  # type: ignore[union-attr]
            "smallest": float(errors.earned.returns.min()),  # type: ignore[union-attr]
            "seconds": fitted + planned, "fit_cpu_seconds": fitted, "plan_cpu_seconds": planned,
            "model": model.about, "errors": errors.record(),
        })  # fmt: skip
    promised = [t["errors"]["model"]["return_in_learned_world"] for t in trials]
    figures = {
        f"{key}/return": float(np.mean([t["return"] for t in trials])),
        f"{key}/return-of-worst-seed": float(min(t["return"] for t in trials)),
        f"{key}/promised": float(np.mean(promised)),
        f"{key}/seconds": float(max(t["seconds"] for t in trials)),
    }
    return figures, {"trials": trials, "transitions": n}


def slip(n: int = 600) -> tuple[dict[str, float], dict[str, Any]]:
    """Nats on fresh episodes of six steps of x' = x +- (0.5 + 0.1 x), or half of the time x."""
    task = world.Task("slip", None, ("x",), (-3.0,), (3.0,), (0, 1))

    def log(seed: int) -> world.Trajectories:
        noise, rows = np.random.default_rng(seed), []
        for episode in range(n // 6):
            x = noise.uniform(-1.0, 1.0)
            for _ in range(6):
                action, before = int(noise.integers(2)), x
                x += (2 * action - 1) * (0.5 + 0.1 * x) * (noise.random() < 0.5)
                x += 0.02 * noise.standard_normal()
                rows.append((before, action, x, episode))
        before, actions, after, episodes = map(np.array, zip(*rows, strict=True))
        none = np.zeros(len(rows))
        return world.Trajectories.from_arrays(
            before, actions, none, terminated=none, next_observation=after, episode=episodes
        )

    figures: dict[str, float] = {}
    models = {}
    for name in ("mixture", "polynomial", "linear", "neighbours", "mean-change"):
        model = world.fit(log(0), name, task=task)
        for steps, nats in world.held_out_nats(model, log(1), steps=STEPS, starts=n).items():
            figures[f"world/slip/{name}/nats-{steps}"] = nats.value
            figures[f"world/slip/{name}/standard-error-{steps}"] = nats.standard_error
        models[name] = model.about
    figures["world/slip/truth/nats-1"] = float(np.log(2) + 0.5 * np.log(2 * np.pi * np.e * 0.02**2))
    return figures, {"models": models, "transitions": n}


class TwoFrames:
    """What is seen, its change since the step before, and the last action, as a memory."""

    def __init__(self, task: world.Task, n: int = 0) -> None:
        self.task, self.last = task, np.full((n, task.dimensions), np.nan)

    def begin(self, n: int) -> TwoFrames:
        return TwoFrames(self.task, n)

    def see(self, rows: Any, seen: Any, action: Any = None) -> Any:
        last = self.last[rows]
        self.last[rows] = seen
        change = np.nan_to_num(seen - last)
        pushed = np.full(len(seen), 0.5) if action is None else action
        return np.column_stack([seen, change, pushed])

    def beliefs(self, log: world.Trajectories) -> tuple[Any, Any]:
        shifted = np.roll(log.observation, 1, axis=0)
        before = np.where(log.first[:, None], log.observation, shifted)
        pushed = np.where(log.first, 0.5, np.roll(log.action, 1))
        after = np.column_stack(
            [log.next_observation, log.next_observation - log.observation, log.action]
        )
        return np.column_stack([log.observation, log.observation - before, pushed]), after


def two_frames(log: world.Trajectories) -> world.TransitionModel:
    """The polynomial on `TwoFrames`."""
    task = world.TASKS["cartpole-hidden"]
    wider = dataclasses.replace(
        task, variables=("x", "angle", "dx", "turn", "push"), low=(*task.low, -0.06, -0.07, 0.0),
        high=(*task.high, 0.06, 0.07, 1.0), grid=(11, 11, 11, 15, 2), quadrature=1,
        memory=TwoFrames(task),  # type: ignore[arg-type]
    )  # fmt: skip
    return world.fit(log, task=wider)


def hidden(
    n: int = 6000, seeds: int = 3, updates: int = 1500
) -> tuple[dict[str, float], dict[str, Any]]:
    """CartPole whose velocities are hidden."""
    key, figures, trials = "world/cartpole-hidden", {}, []
    for seed in range(seeds):
        log = world.collect("cartpole-hidden", n=n, seed=seed)
        fresh = world.collect("cartpole-hidden", n=1000, seed=1000 + seed)
        began = time.process_time()
        models = {"vrnn": world.fit(log, "vrnn", updates=updates)}
        fitted = time.process_time() - began
        models |= {"polynomial": world.fit(log), "two-frames": two_frames(log),
                   "mean-change": world.fit(log, "mean-change")}  # fmt: skip
        trial: dict[str, Any] = {"seed": seed, "fit_cpu_seconds": fitted, "models": {}}
        for name, model in models.items():
            plan = world.plan(model, tolerance=1e-2)
            played = world.act(model.task, plan, EPISODES, seed=10_000 + 100 * seed)
            about: dict[str, Any] = {"model": model.about, "return": float(played.returns.mean())}
            if name != "two-frames":  # its nats are of its own states
                nats = world.held_out_nats(model, fresh, starts=500)
                about["nats"] = {h: [e.value, e.standard_error] for h, e in nats.items()}
            trial["models"][name] = about
            print(key, seed, name, about, f"{fitted:.0f} s", flush=True)
        trials.append(trial)
    for name in trials[0]["models"]:
        parts = [t["models"][name] for t in trials]
        figures[f"{key}/{name}/return"] = float(np.mean([p["return"] for p in parts]))
        figures[f"{key}/{name}/return-of-worst-seed"] = float(min(p["return"] for p in parts))
        for h in parts[0].get("nats", {}):
            nats = np.array([p["nats"][h] for p in parts])
            figures[f"{key}/{name}/nats-{h}"] = float(nats[:, 0].mean())
            figures[f"{key}/{name}/standard-error-{h}"] = float(
                np.sqrt((nats[:, 1] ** 2).sum()) / len(nats)
            )
    figures[f"{key}/truth/floor"] = float(2 * (0.5 * np.log(2 * np.pi * np.e) + np.log(NOISE)))
    figures[f"{key}/seconds"] = float(max(t["fit_cpu_seconds"] for t in trials))
    return figures, {"trials": trials, "transitions": n, "updates": updates}


def part_of(name: str, n: int, seeds: int, declared: bool) -> tuple[dict[str, float], Any]:
    """One environment."""
    key = f"world/{name}-{n}" + ("" if declared else "-undeclared")
    trials = [trial(name, n, seed, declared) for seed in range(seeds)]
    for one_seed in trials:
        print(key, one_seed, flush=True)
    returns = [t["return"] for t in trials]
    figures = {
        f"{key}/return": float(np.mean(returns)),
        f"{key}/return-of-worst-seed": float(min(returns)),
        f"{key}/seconds": float(max(t["seconds"] for t in trials)),
    }
    if name == "cartpole":
        figures[f"{key}/seeds-at-500"] = float(sum(t["smallest"] == 500.0 for t in trials))
    return figures, {"trials": trials, "transitions": n}


def main() -> None:
    path = RESULTS / "world.json"
    record = json.loads(path.read_text()) if path.is_file() else {"figures": {}, "about": {}}
    parts: dict[str, Callable[[], tuple[dict[str, float], Any]]] = {
        f"world/{name}-{n}" + ("" if declared else "-undeclared"): partial(
            part_of, name, n, seeds, declared
        )
        for declared, of in ((True, PARTS), (False, UNDECLARED))
        for name, (n, seeds) in of.items()
    }
    parts |= {
        "world/cartpole-pixels": pixels, "world/slip": slip, "world/cartpole-hidden": hidden,
    }  # fmt: skip
    wanted = [f"world/{word}" for word in sys.argv[1:]] or list(parts)
    if unknown := sorted(set(wanted) - set(parts)):
        known = ", ".join(key.removeprefix("world/") for key in parts)
        raise SystemExit(f"no part {unknown[0].removeprefix('world/')}; there are {known}")
    if any("cartpole-50" in key for key in wanted):
        trial("cartpole", 50, 99)  # compiles the solver
    for key in wanted:
        figures, about = parts[key]()
        record["figures"] |= figures
        record["about"][key] = about
        settings = {"episodes": EPISODES, "parts": PARTS, "undeclared": UNDECLARED}
        write_result("world", record["figures"], settings, record["about"], key)
        print(figures, flush=True)


if __name__ == "__main__":
    main()
