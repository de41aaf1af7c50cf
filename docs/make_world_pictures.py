"""Draw the pictures of docs/worlds.md into docs/pictures.

    python docs/make_world_pictures.py [folder]    # half a minute

Learned values stand beside those of the true dynamics, which are written out below as Gymnasium's
sources state them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from likely import world
from likely.cli.world.actions import write_gif
from likely.world.draw import values_figure

Array = NDArray[np.float64]


def mountain_car(state: Array, action: NDArray[np.int64]) -> Array:
    """Next positions and velocities, [n, 2]."""
    x, v = state.T
    v = np.clip(v + (action - 1) * 0.001 - 0.0025 * np.cos(3 * x), -0.07, 0.07)
    x = np.clip(x + v, -1.2, 0.6)
    return np.column_stack([x, np.where((x <= -1.2) & (v < 0), 0.0, v)])


def cart_pole(state: Array, action: NDArray[np.int64]) -> Array:
    """Next states of the pole, [n, 4]."""
    _, v, angle, speed = state.T
    force = np.where(action == 1, 10.0, -10.0)
    push = (force + 0.05 * speed**2 * np.sin(angle)) / 1.1
    turn = (9.8 * np.sin(angle) - np.cos(angle) * push) / (
        0.5 * (4.0 / 3.0 - 0.1 * np.cos(angle) ** 2 / 1.1)
    )
    rate = push - 0.05 * turn * np.cos(angle) / 1.1
    return state + 0.02 * np.column_stack([v, rate, speed, turn])


def values(folder: Path, name: str, n: int, step: object, file: str) -> Path:
    """Learned V, with the data, beside the V of the true dynamics on the same grid."""
    task, log = world.TASKS[name], world.collect(name, n=n, seed=0)
    learned = world.plan(world.fit(log))
    true = world.plan(world.KnownModel(task, step))  # type: ignore[arg-type]
    panels = [(f"learned from {n} transitions", learned), ("true dynamics", true)]
    return values_figure(folder / file, panels, log)


def pole(folder: Path) -> Path:
    """The pole, after fifty random transitions."""
    plan = world.plan(world.fit(world.collect("cartpole", n=50, seed=0)))
    played = world.act("cartpole", plan, episodes=1, seed=3, frames=True)
    write_gif(str(folder / "worlds-pole.gif"), played.frames[:240], most=80)
    return folder / "worlds-pole.gif"


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "pictures")
    print(values(folder, "mountaincar", 2000, mountain_car, "worlds-mountaincar.png"))
    print(values(folder, "cartpole", 50, cart_pole, "worlds-cartpole.png"))
    print(pole(folder))


if __name__ == "__main__":
    main()
