"""Draw the pictures of docs/worlds.md into docs/pictures.

    python docs/make_world_pictures.py [folder]    # two minutes
    python docs/make_world_pictures.py docs/pictures returns    # some of them

Learned values stand beside those of the true dynamics, which are written out below as Gymnasium's
sources state them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from likely import world
from likely.cli.world.actions import write_gif
from likely.files.figures import new_figure, save_figure
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


def camera(folder: Path) -> Path:
    """The pole before a camera, after 6,000 random transitions."""
    plan = world.plan(world.fit(world.collect("cartpole-pixels", n=6000, seed=0)))
    played = world.act("cartpole-pixels", plan, episodes=1, seed=3, frames=True)
    write_gif(str(folder / "worlds-camera.gif"), played.frames[:240], most=80)
    return folder / "worlds-camera.gif"


NAMES = {
    "grid": "learned model on a grid (Likely)", "codes": "200 codes, counted",
    "dac-mdp": "DAC-MDP (neighbours)", "kernels": "KBSF (kernels)", "fitted-q": "fitted Q (trees)",
    "cloned": "behaviour cloning", "null": "null model on a grid",
}  # fmt: skip
COLOURS = ("#1f77b4", "#2a9d8f", "#e9a23b", "#8c564b", "#d64545", "#8d6cab", "#9aa5b1")


def returns(folder: Path) -> Path:
    """Return against the number of transitions, from bench/results/world-curves.json."""
    source = Path(__file__).parent.parent / "bench" / "results" / "world-curves.json"
    figures = json.loads(source.read_text())["figures"]
    figure = new_figure(10.5, 3.8)
    for i, name in enumerate(("cartpole", "mountaincar", "pendulum")):
        axes = figure.add_subplot(1, 3, i + 1)
        for (method, label), colour in zip(NAMES.items(), COLOURS, strict=True):
            points = sorted(
                (int(key.split("/")[2]), value, figures.get(f"{key[:-7]}/interval", 0.0))
                for key, value in figures.items()
                if key.startswith(f"world-curves/{name}/") and key.endswith(f"/{method}/return")
            )
            n, mean, error = map(np.array, zip(*points, strict=True))
            # Methods side by side, so that their intervals do not hide each other.
            axes.errorbar(n * 1.03 ** (list(NAMES).index(method) - 3), mean, error, fmt="o-",
                          color=colour, linewidth=2.4 if method == "grid" else 1.2,
                          elinewidth=0.9, capsize=2, markersize=3.5, label=label)  # fmt: skip
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.set_xticks(n, [f"{count:,}" for count in n])
        axes.set_title(world.TASKS[name].environment, fontsize=10)
        axes.set_xlabel("random transitions", fontsize=8.5)
        axes.tick_params(labelsize=7.5)
        if i == 0:
            axes.set_ylabel("return", fontsize=8.5)
    lines, labels = axes.get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=4, fontsize=7.5, frameon=False)
    return save_figure(figure, folder / "worlds-returns.png")


PICTURES: dict[str, Callable[[Path], Path]] = {
    "mountaincar": lambda folder: values(
        folder, "mountaincar", 2000, mountain_car, "worlds-mountaincar.png"
    ),
    "cartpole": lambda folder: values(folder, "cartpole", 50, cart_pole, "worlds-cartpole.png"),
    "pole": pole,
    "camera": camera,
    "returns": returns,
}


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "pictures")
    for name in sys.argv[2:] or PICTURES:
        print(PICTURES[name](folder))


if __name__ == "__main__":
    main()
