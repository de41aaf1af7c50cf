"""Learned worlds: returns in the true environments after few random transitions.

    python bench/world.py              # about three minutes: bench/results/world.json

For each seed: collect random transitions, fit, put on a grid, solve, act for 20 episodes whose
first states no other part has seen. `cartpole-50` is 50 transitions of CartPole-v1 with ten seeds,
and its `seconds` the slowest of them from the first random step to the last of the 20 episodes,
with compiled code warm. Rewards and ends of episodes are declared and the dynamics learned; of
`undeclared` parts everything is learned.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from common import write_result
from likely import world

EPISODES = 20
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


def main() -> None:
    figures: dict[str, float] = {}
    about: dict[str, Any] = {}
    trial("cartpole", 50, 99)  # compiles the solver
    for part, declared in ((PARTS, True), (UNDECLARED, False)):
        for name, (n, seeds) in part.items():
            key = f"world/{name}-{n}" + ("" if declared else "-undeclared")
            trials = [trial(name, n, seed, declared) for seed in range(seeds)]
            for one_seed in trials:
                print(key, one_seed, flush=True)
            returns = [t["return"] for t in trials]
            figures[f"{key}/return"] = float(np.mean(returns))
            figures[f"{key}/return-of-worst-seed"] = float(min(returns))
            figures[f"{key}/seconds"] = float(max(t["seconds"] for t in trials))
            if name == "cartpole":
                figures[f"{key}/seeds-at-500"] = float(sum(t["smallest"] == 500.0 for t in trials))
            about[key] = {"trials": trials, "transitions": n}
    settings = {"episodes": EPISODES, "parts": PARTS, "undeclared": UNDECLARED}
    print(write_result("world", figures, settings, about), figures)


if __name__ == "__main__":
    main()
