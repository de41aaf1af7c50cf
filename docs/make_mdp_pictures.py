"""Draw every picture of the pages docs/mdp*.md into docs/pictures.

    python docs/make_mdp_pictures.py [folder]

Everything is computed here from the built-in worlds; the same command gives the same numbers.
"""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path

import numpy as np

from likely.files import figures
from likely.mdp import worlds
from likely.mdp.draw import pictures, plots
from likely.mdp.draw.comparison import converge
from likely.mdp.model.operators import bellman_optimality
from likely.mdp.model.policies import (
    expectation_sweeps,
    greedy_pairs,
    optimality_sweeps,
    policy_iterations,
)
from likely.mdp.model.world import layout_of
from likely.mdp.worlds import classic


def lecture_figure(folder: Path) -> Path:
    """V_k of the random policy beside the policies that are greedy in them."""
    world = worlds.build("small-gridworld")
    values = list(islice(expectation_sweeps(world.mdp, "uniform"), 1000))
    rows = [(f"k = {k}", values[k]) for k in (0, 1, 2, 3, 10)] + [("k = ∞", values[-1])]
    return plots.sweeps_figure(
        folder / "mdp-small-gridworld.png", world, rows,
        "Values of the random policy and the policies greedy in them",
    )  # fmt: skip


def heat_maps(folder: Path) -> list[Path]:
    """Optimal values and policies of three grid worlds."""
    made = []
    for name in ("maze-4x3", "cliff", "frozen-lake-8x8"):
        world = worlds.build(name)
        value = list(islice(optimality_sweeps(world.mdp), 3000))[-1]
        made.append(plots.heat_map(folder / f"mdp-{name}.png", world, value))
    return made


def jack(folder: Path) -> Path:
    """The five policies of policy iteration on Jack's car rental, and the value of the last."""
    mdp = classic.jacks_car_rental()
    moves = np.array(classic.CAR_MOVES)
    start = np.full(mdp.states, classic.CAR_MOVES.index(0))
    rounds = list(policy_iterations(mdp, start))
    panels = [(f"policy {k}", moves[policy]) for k, (policy, _, _) in enumerate(rounds)]
    return pictures.policy_contours(
        folder / "mdp-jack.png", layout_of(mdp), panels, rounds[-1][1],
        "cars moved from the first to the second location",
    )  # fmt: skip


def gambler(folder: Path) -> Path:
    """Value and smallest optimal stake of the gambler's problem."""
    mdp = classic.gambler()
    value = list(islice(optimality_sweeps(mdp), 500))[-1]
    greedy = np.flatnonzero(greedy_pairs(mdp, value))[::-1]
    stake = np.full(mdp.states, np.nan)
    stake[np.asarray(mdp.pair_state)[greedy]] = np.asarray(mdp.pair_action)[greedy] + 1
    return plots.line_plot(
        folder / "mdp-gambler.png", np.where(mdp.terminal, np.nan, value), stake,
        ("capital", "chance of reaching 100", "smallest best stake"),
    )  # fmt: skip


def sweeps(folder: Path) -> Path:
    """Value iteration on the frozen lake in motion."""
    world = worlds.build("frozen-lake-8x8")
    shown = [*range(16), 18, 20, 23, 26, 30, 35, 40, 50, 65, 80, 100, 150, 200, 300]
    values = list(islice(optimality_sweeps(world.mdp), shown[-1] + 1))
    return pictures.animate(
        folder / "mdp-sweeps.gif", world, [values[k] for k in shown],
        [f"sweep {k}" for k in shown], 3.0,
    )  # fmt: skip


def contraction(folder: Path) -> Path:
    """Error and bounds of value iteration: each sweep shrinks the error by the discount."""
    from matplotlib.ticker import NullFormatter

    mdp = worlds.build("garnet", size=(500, 4, 5)).mdp
    exact = list(islice(optimality_sweeps(mdp), 2000))[-1]
    values = list(islice(optimality_sweeps(mdp), 81))
    error = [np.abs(v - exact).max() for v in values]
    discount = mdp.discount
    norm, span = [], []
    for value in values:
        change = bellman_optimality(mdp, value) - value
        norm.append(np.abs(change).max() / (1 - discount))
        span.append(discount * (change.max() - change.min()) / (2 * (1 - discount)))
    figure = figures.new_figure(5.6, 3.6)
    axes = figure.add_subplot()
    k = np.arange(len(values))
    axes.plot(
        k,
        error[0] * discount**k,
        color="#9aa5b1",
        linewidth=1.2,
        linestyle="--",
        label="first error times discount to the k",
    )
    axes.plot(k, norm, color="#d95f02", linewidth=1.6, label="norm bound on the error of V")
    axes.plot(k, error, color="#1f2933", linewidth=1.8, label="error of V")
    axes.plot(
        k, span, color="#2166ac", linewidth=1.6, label="span bound on the error of the centre"
    )
    axes.set_yscale("log")
    axes.set_ylim(1e-10, 1e3)
    axes.set_xlabel("sweep k", fontsize=9)
    axes.set_ylabel("largest error of a state", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(color="#e4e7eb", linewidth=0.8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc=(0.4, 0.38))
    return figures.save_figure(figure, folder / "mdp-contraction.png")


def methods(folder: Path) -> Path:
    """How the methods converge on the 8 x 8 lake."""
    world = worlds.build("frozen-lake-8x8", 0.99)
    runs = converge(world.mdp, 1e-9)
    return plots.convergence(folder / "mdp-methods.png", runs)


def main(target: str | None = None) -> None:
    """Draw them all."""
    folder = Path(target) if target else Path(__file__).parent / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for draw in (lecture_figure, jack, gambler, sweeps, contraction, methods):
        print(draw(folder))
    for path in heat_maps(folder):
        print(path)


if __name__ == "__main__":
    main(*sys.argv[1:2])
