"""Learned worlds: returns in the true environments after few random transitions.

    python bench/world.py            # all parts; ten minutes: bench/results/world.json
    python bench/world.py slip       # some parts, beside the others that the file has

For each seed: collect random transitions, fit, put on a grid, solve, act for 20 episodes whose
first states no other part has seen. `cartpole-50` is 50 transitions of CartPole-v1 with ten seeds,
and its `seconds` the slowest of them from the first random step to the last of the 20 episodes,
with compiled code warm. Rewards and ends of episodes are declared and the dynamics learned; of
`undeclared` parts everything is learned. `cartpole-pixels` sees pictures, whose codes and whose
ends are learned, too; its three errors are kept. `slip` has nats of a world with two modes.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from common import RESULTS, write_result
from likely import world

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
    parts |= {"world/cartpole-pixels": pixels, "world/slip": slip}
    wanted = [f"world/{word}" for word in sys.argv[1:]] or list(parts)
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
