"""Storm (stormpy) on one question of a benchmark model; called by `bench/mdp.py --only storm`.

Runs in an environment of its own and imports nothing of likely. The model is written in Storm's
explicit form and read back, which is not timed; checking, graph analysis included, is. Every
sound method gets the same demand as ours: the value of every state to 1e-6, absolutely.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

METHODS = ("SOUND_VALUE_ITERATION", "OPTIMISTIC_VALUE_ITERATION", "INTERVAL_ITERATION",
           "TOPOLOGICAL")  # fmt: skip


def write_drn(path: Path, problem: dict[str, np.ndarray], rewarded: bool) -> None:
    """Storm's explicit form of an `.npz` that `bench/mdp.py` wrote."""
    choice, row = problem["choice_ptr"].tolist(), problem["row_ptr"].tolist()
    column, weight = problem["col"].tolist(), problem["prob"].tolist()
    reward, initial = problem["reward"].tolist(), int(problem["initial"])
    lines = ["@type: MDP", "@parameters", "", "@reward_models", "rew" if rewarded else "",
             "@nr_states", str(len(choice) - 1), "@nr_choices", str(len(row) - 1),
             "@model"]  # fmt: skip
    for s in range(len(choice) - 1):
        words = [f"state {s}"] + (["[0]"] if rewarded else [])
        words += ["init"] if s == initial else []
        words += [name for name in ("target", "stay") if problem[name][s]]
        lines.append(" ".join(words))
        for i, pair in enumerate(range(choice[s], choice[s + 1])):
            lines.append(f"\taction {i}" + (f" [{reward[pair]!r}]" if rewarded else ""))
            lines += [f"\t\t{column[k]} : {weight[k]!r}" for k in range(row[pair], row[pair + 1])]
    path.write_text("\n".join(lines) + "\n")


def main() -> None:
    import stormpy
    import stormpy.developer

    source, criterion, objective, repeats = sys.argv[1:]
    with np.load(source) as stored:
        problem = {name: stored[name] for name in stored.files}
    rewarded = criterion == "total"
    with tempfile.TemporaryDirectory() as folder:
        write_drn(Path(folder) / "model.drn", problem, rewarded)
        model = stormpy.build_model_from_drn(str(Path(folder) / "model.drn"))
    path = '"stay" U "target"' if not problem["stay"].all() else 'F "target"'
    formula = f'R{{"rew"}}{objective}=? [{path}]' if rewarded else f"P{objective}=? [{path}]"
    prop = stormpy.parse_properties(formula)[0]
    record: dict[str, Any] = {}
    for method in METHODS:
        environment = stormpy.Environment()
        environment.solver().force_soundness = True
        settings = environment.solver().min_max()
        settings.method = getattr(stormpy.developer._core.MinMaxMethod, method)
        settings.precision = stormpy.Rational("1/1000000")
        settings.relative_termination_criterion = False
        seconds, cpu = [], []
        try:
            for _ in range(int(repeats)):
                clock, work = time.perf_counter(), time.process_time()
                result = stormpy.model_checking(
                    model, prop, only_initial_states=False, environment=environment
                )
                seconds.append(time.perf_counter() - clock)
                cpu.append(time.process_time() - work)
        except RuntimeError as error:
            record[method] = {"failed": str(error)}
            continue
        record[method] = {
            "seconds": seconds, "cpu_seconds": cpu,
            "value": float(result.get_value(int(problem["initial"]))),
        }  # fmt: skip
    print("RESULT " + json.dumps(record))


if __name__ == "__main__":
    main()
