"""Return against the number of random transitions: learned worlds and what else a log can do.

    python bench/world_curves.py    # 25 minutes of one core; bench/results/world-curves.json

Five seeds of transitions and ten episodes each a point; it goes on where it was stopped. The
interval is that of Student's t over the seeds, 95 %, a rough one where returns are all or nothing.
`grid` is a polynomial model on a grid (likely), `null` the same with the mean change as its model,
`dac-mdp` the averager of nearest transitions, `codes` counts between 200 centres, `kernels` KBSF
with 200 representative states, `fitted-q` fitted Q iteration with extremely randomised trees (Ernst
et al. 2005), `cloned` behaviour cloning. `grid` and `null` are told the rules of rewards and ends,
the others read both from the log.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats

from common import RESULTS, write_result
from likely import world
from likely.world.features import Features
from likely.world.learn import columns

POINTS = {
    "cartpole": (50, 200, 1000, 5000),
    "mountaincar": (300, 1000, 2000, 5000),
    "pendulum": (300, 1000, 3000),
    "acrobot": (5000,),
}
EPISODES, SEEDS = 10, 5
Policy = Callable[[Any], Any]


def grid(log: world.Trajectories, task: world.Task, model: str = "polynomial") -> Policy:
    nodes = 1 if task.name == "acrobot" else 3  # 50,625 points: noise would not fit into memory
    return world.plan(world.fit(log, model), quadrature=nodes)


def fitted_q(log: world.Trajectories, task: world.Task, rounds: int = 40) -> Policy:
    from sklearn.ensemble import ExtraTreesRegressor

    data, features = columns(task, log), Features(task, 1)
    every = np.eye(len(task.actions))

    def rows(state: Any) -> Any:
        """Inputs [n A, f] of all actions."""
        f = np.repeat(features(state), len(every), axis=0)
        return np.hstack([f, np.tile(every, (len(state), 1))])

    before, after = np.hstack([features(data.state), every[data.action]]), rows(data.next_state)
    future: Any = np.zeros(len(log))
    forest = ExtraTreesRegressor(20, min_samples_leaf=3, random_state=0)
    for _ in range(rounds):
        forest.fit(before, log.reward + task.discount * future)
        future = forest.predict(after).reshape(len(log), -1).max(axis=1) * ~log.terminated
    return lambda seen: (
        forest.predict(rows(task.states(seen))).reshape(len(seen), -1).argmax(axis=1)
    )


METHODS: dict[str, Callable[[world.Trajectories, world.Task], Policy]] = {
    "grid": grid,
    "dac-mdp": lambda log, task: world.neighbours_plan(log),
    "codes": lambda log, task: world.codes_plan(log),
    "kernels": lambda log, task: world.kernel_plan(log),
    "fitted-q": fitted_q,
    "cloned": lambda log, task: world.clone(log),
    "null": lambda log, task: grid(log, task, "mean-change"),
}


def interval(returns: list[float]) -> float:
    """Half of the 95 % interval of the mean over seeds."""
    n = len(returns)
    return float(stats.t.ppf(0.975, n - 1) * np.std(returns, ddof=1) / np.sqrt(n)) if n > 1 else 0.0


def main() -> None:
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    path = RESULTS / "world-curves.json"
    record = json.loads(path.read_text()) if path.is_file() else {"figures": {}, "about": {}}
    figures, about = record["figures"], record["about"]
    for key, value in figures.items():  # of a file with the first seed alone
        if key.endswith("/return"):
            about.setdefault(key.removesuffix("/return"), [value])
    for seed in range(SEEDS):
        for name, numbers in POINTS.items():
            for n in numbers:
                for method, build in METHODS.items():
                    key = f"world-curves/{name}/{n}/{method}"
                    returns = about.setdefault(key, [])
                    if len(returns) > seed:
                        continue
                    began = time.perf_counter()
                    policy = build(world.collect(name, n=n, seed=seed), world.TASKS[name])
                    played = world.act(name, policy, EPISODES, seed=20_000 + 100 * seed)
                    returns.append(float(played.returns.mean()))
                    seconds = time.perf_counter() - began
                    figures[f"{key}/return"] = float(np.mean(returns))
                    figures[f"{key}/interval"] = interval(returns)
                    figures[f"{key}/seconds"] = max(seconds, figures.get(f"{key}/seconds", 0.0))
                    print(key, seed, played, f"{seconds:.1f} s", flush=True)
                    settings = {"episodes": EPISODES, "points": POINTS, "seeds": SEEDS}
                    write_result("world-curves", figures, settings, about)


if __name__ == "__main__":
    main()
