"""Beliefs: intervals that contain the value of partially observed problems.

    python bench/pomdp.py --data $LIKELY_DATA/mdp/pomdp    # four minutes: bench/results/pomdp.json

The files are those of Cassandra's collection. `value` is the middle of the interval.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from common import write_result
from likely import mdp

# Name of the figure: file, width to reach, seconds.
PROBLEMS = {
    "tiger": ("Tiger.pomdp", 1e-6, 30.0),
    "tiger-0.75": ("tiger_aaai.POMDP", 1e-6, 30.0),
    "light-maze": ("light_maze.POMDP", 1e-5, 30.0),
    "shuttle": ("shuttle_95.POMDP", 1e-3, 30.0),
    "hallway": ("Hallway.pomdp", 1e-2, 75.0),
    "hallway2": ("Hallway2.pomdp", 1e-2, 75.0),
    "tag-avoid": ("TagAvoid.pomdp", 1e-1, 60.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    folder: Path = parser.parse_args().data
    figures: dict[str, float] = {}
    about: dict[str, Any] = {}
    for name, (file, tolerance, seconds) in PROBLEMS.items():
        problem = mdp.POMDP.from_file(folder / file)
        solved = mdp.solve_beliefs(problem, tolerance, max_seconds=seconds)
        print(name, solved, flush=True)
        figures[f"pomdp/{name}/value"] = 0.5 * (solved.lower + solved.upper)
        figures[f"pomdp/{name}/lower"] = solved.lower
        figures[f"pomdp/{name}/upper"] = solved.upper
        figures[f"pomdp/{name}/seconds"] = solved.seconds
        about[name] = {"file": file, "states": problem.states, "status": solved.status}
    settings = {name: {"tolerance": t, "seconds": s} for name, (_, t, s) in PROBLEMS.items()}
    print(write_result("pomdp", figures, settings, about))


if __name__ == "__main__":
    main()
