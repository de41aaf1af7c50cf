"""Statements from counts: how often [L, U] covers V*, and how often SPIBB is safe.

    python bench/robust.py              # all parts; two minutes: bench/results/robust.json
    python bench/robust.py certified    # one of table, coverage, safety, certified; half a minute

FrozenLake 4x4, discount 0.9, V*(start) = 0.06889. `table` repeats its counts with n draws of every
live pair. `coverage` resamples 200 data sets: fixed draws, and episodes of the uniform policy with
the union over the number of visits; a data set counts where L <= V* <= U in every state and the
robust policy earns its L. SPIBB has 200 episodes of a behaviour policy that takes the best action
four times of five, else any; a data set is safe where the new policy earns at least nine tenths of
the behaviour policy's value in the true process. `greedy` is free on every pair that was visited.
`certified` improves the same policy by proofs only, from ever more episodes.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

from common import RESULTS, write_result
from likely import mdp

DISCOUNT, DELTA, SETS = 0.9, 0.05, 200
EPISODES, THRESHOLD, EPSILON = 200, 50, 0.2
# Of certified improvement: episodes, and data sets of so many.
GROWING = {200: 20, 1_000: 20, 10_000: 20, 100_000: 20, 1_000_000: 5}


def true_value(lake: mdp.MDP, policy: Any) -> float:
    return float(mdp.evaluate(lake, policy).value[0])


def table(lake: mdp.MDP) -> tuple[dict[str, float], list[dict[str, Any]]]:
    rows = []
    for n in (100, 1_000, 10_000, 100_000, 1_000_000):
        row: dict[str, Any] = {"n": n}
        for known in (False, True):
            counts = mdp.draw_counts(lake, n, seed=0, known_support=known)
            for sets in ("l1", "intervals"):
                bounds = mdp.robust_bounds(
                    counts, DISCOUNT, delta=DELTA, sets=sets, gathered="fixed"
                )
                row[f"{sets}, {'known support' if known else 'all states'}"] = {
                    "lower": float(bounds.lower[0]), "upper": float(bounds.upper[0]),
                    "value_of_policy": true_value(lake, bounds.policy),
                }  # fmt: skip
        bounds = mdp.robust_bounds(
            counts.unknown_rewards(0.0, 1.0), DISCOUNT, delta=DELTA, sets="intervals",
            gathered="fixed",
        )  # fmt: skip
        row["intervals, unknown rewards"] = {
            "lower": float(bounds.lower[0]), "upper": float(bounds.upper[0]),
        }  # fmt: skip
        rows.append(row)
    return {}, rows


def behaviour_of(lake: mdp.MDP) -> Any:
    """The best action four times of five, else any, and the best policy."""
    best = mdp.solve(lake, tolerance=1e-9).policy
    behaviour = np.full((lake.states, lake.actions), 0.2 / lake.actions)
    behaviour[np.arange(lake.states), np.maximum(best, 0)] += 0.8
    return behaviour, best


def coverage(lake: mdp.MDP) -> tuple[dict[str, float], None]:
    value = mdp.solve(lake, tolerance=1e-9).value
    covered: dict[str, int] = {}
    for seed in range(SETS):
        for gathered in ("fixed", "adaptive"):
            counts = (
                mdp.draw_counts(lake, 100, seed)
                if gathered == "fixed"
                else mdp.draw_trajectories(lake, "uniform", 500, seed)
            )
            for sets in ("l1", "intervals", "both"):
                bounds = mdp.robust_bounds(
                    counts, DISCOUNT, delta=DELTA, sets=sets, gathered=gathered
                )
                inside = (bounds.lower <= value + 1e-9) & (value <= bounds.upper + 1e-9)
                earns = true_value(lake, bounds.policy) >= bounds.lower[0] - 1e-9
                key = f"{sets}-{gathered}"
                covered[key] = covered.get(key, 0) + bool(inside.all() and earns)
    rates = {f"robust/coverage/{key}": 100.0 * n / SETS for key, n in covered.items()}
    return {"robust/coverage": min(rates.values()), **rates}, None


def safety(lake: mdp.MDP) -> tuple[dict[str, float], dict[str, Any]]:
    behaviour, best = behaviour_of(lake)
    baseline = true_value(lake, behaviour)
    values: dict[str, list[float]] = {
        "spibb": [],
        "spibb-at-most": [],
        "soft-spibb": [],
        "greedy": [],
        "certified": [],
    }
    said = ""
    for seed in range(SETS):
        counts = mdp.draw_trajectories(lake, behaviour, EPISODES, seed)
        policies = {
            "spibb": mdp.spibb(counts, behaviour, DISCOUNT, threshold=THRESHOLD),
            "spibb-at-most": mdp.spibb(
                counts, behaviour, DISCOUNT, threshold=THRESHOLD, variant="at-most"
            ),
            "soft-spibb": mdp.soft_spibb(counts, behaviour, DISCOUNT, epsilon=EPSILON),
            "greedy": mdp.spibb(counts, behaviour, DISCOUNT, threshold=0),
            "certified": mdp.certified_improvement(counts, behaviour, DISCOUNT, delta=DELTA),
        }
        said = str(policies["spibb"])
        for name, safe in policies.items():
            values[name].append(true_value(lake, safe.policy))
    figures = {}
    for name, earned in values.items():
        figures[f"robust/{name}/safe"] = 100.0 * float(np.mean(np.array(earned) >= 0.9 * baseline))
        figures[f"robust/{name}/not-worse"] = 100.0 * float(np.mean(np.array(earned) >= baseline))
        figures[f"robust/{name}/value"] = float(np.mean(earned))
        figures[f"robust/{name}/value-of-worst-set"] = float(min(earned))
    return figures, {"baseline": baseline, "optimum": true_value(lake, best), "said": said}


def certified(lake: mdp.MDP) -> tuple[dict[str, float], None]:
    behaviour, _ = behaviour_of(lake)
    before, figures = mdp.evaluate(lake, behaviour).value, {}
    for episodes, sets in GROWING.items():
        kept = [
            mdp.certified_improvement(
                mdp.draw_trajectories(lake, behaviour, episodes, seed), behaviour, DISCOUNT,
                delta=DELTA,
            )
            for seed in range(sets)
        ]  # fmt: skip
        after = np.stack([mdp.evaluate(lake, safe.policy).value for safe in kept])
        key = f"robust/certified-{episodes}"
        figures[f"{key}/value"] = float(after[:, 0].mean())
        figures[f"{key}/value-of-worst-set"] = float(after[:, 0].min())
        figures[f"{key}/switches"] = float(np.mean([safe.switches for safe in kept]))
        worse = (after < before - 1e-9).any(axis=1)
        figures[f"{key}/no-state-worse"] = 100.0 * float(np.mean(~worse))
    return figures, None


PARTS = {"table": table, "coverage": coverage, "safety": safety, "certified": certified}


def main() -> None:
    lake = mdp.load("frozen-lake", discount=DISCOUNT).mdp
    path = RESULTS / "robust.json"
    record = json.loads(path.read_text()) if path.is_file() else {"figures": {}, "about": {}}
    settings = {"discount": DISCOUNT, "delta": DELTA, "data_sets": SETS, "episodes": EPISODES,
                "threshold": THRESHOLD, "epsilon": EPSILON, "growing": GROWING}  # fmt: skip
    if unknown := sorted(set(sys.argv[1:]) - set(PARTS)):
        raise SystemExit(f"no part {unknown[0]}; there are {', '.join(PARTS)}")
    for name in sys.argv[1:] or PARTS:
        figures, about = PARTS[name](lake)
        record["figures"] |= figures
        record["about"] |= {name: about} if about else {}
        write_result("robust", record["figures"], settings, record["about"], name)
        print(name, figures, about or "", flush=True)


if __name__ == "__main__":
    main()
