"""A log of one's own: no environment, only a CSV file with what was seen, done and paid.

    python examples/own_log.py [log.csv]

A file that is not there is written first, as a stand-in: a tank that a pump fills, emptied by
users. Without a name that is in a new temporary folder.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from likely import world


def write_stand_in(path: Path) -> None:
    noise, rows = np.random.default_rng(0), []
    for day in range(40):
        level = noise.uniform(1.0, 9.0)
        for hour in range(24):
            pump = int(noise.integers(2))
            after = level + 1.5 * pump - 0.7 + 0.3 * noise.standard_normal()
            ended = after <= 0.0 or after >= 10.0  # dry, or over the brim: the day is lost
            rows.append([day, level, pump, after, -1.0 * pump - 50.0 * ended, ended, hour == 23])
            level = after
            if ended:
                break
    names = "day,level,pump,next_level,reward,terminated,truncated"
    np.savetxt(path, rows, delimiter=",", header=names, comments="", fmt="%.6g")


# What is known: the level lies between 0 and 10. Rewards and ends are learned from the log.
TANK = world.Task("tank", None, ("level",), (0.0,), (10.0,), (0, 1), discount=0.95, grid=(101,))


def main(path: Path) -> world.Plan:
    if not path.is_file():
        write_stand_in(path)
        print(f"wrote a stand-in, {path}")
    table = np.genfromtxt(path, delimiter=",", names=True)
    log = world.Trajectories.from_arrays(
        table["level"], table["pump"], table["reward"], next_observation=table["next_level"],
        terminated=table["terminated"], truncated=table["truncated"], episode=table["day"],
    )  # fmt: skip
    print(log)
    plan = world.plan(world.fit(log, task=TANK))
    begin = TANK.states(log.observation[log.first])
    print(world.errors(plan, states=begin, nats=world.validate(log, task=TANK)))
    levels = np.arange(0.5, 10.0, 1.0)
    for level, action in zip(levels, plan.choose(levels[:, None]), strict=True):
        print(f"level {level:g}: {'pump' if action else 'wait'}")
    return plan


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()) / "tank.csv")
