"""`likely world ACTION`: fit, plan, act, list.

Reading the arguments imports nothing heavy; `actions` holds what is done with them.
"""

from __future__ import annotations

import argparse

from likely.cli.parser import Command, Option, Parser, add_options, number, positive, whole

EXAMPLE = """\
  likely world fit cartpole --transitions 50 --out runs/pole
  likely world plan runs/pole
  likely world act runs/pole --episodes 20 --gif pole.gif
"""
ACTIONS = {
    "fit": "learn a world from transitions: p(s', r, terminated | s, a)",
    "plan": "solve a learned world; planning, discretisation and model error",
    "act": "run its plan in the true environment",
    "list": "list the tasks that come with the package",
}
WORLD = "directory that `likely world fit` wrote"


def _grid(text: str) -> list[int]:
    words = text.split("x")
    if not all(word.isdigit() and int(word) >= 2 for word in words):
        raise argparse.ArgumentTypeError(
            f'expected whole numbers from 2 with x between, as 91x61, given "{text}"'
        )
    return [int(word) for word in words]


_DISCOUNT = number("a discount between 0 and 1", lambda value: 0.0 < value < 1.0)
_HOLD = number("a number of at least 1", lambda value: 1.0 <= value < float("inf"))
SEED: dict[str, Option] = {"--seed": ("N", whole(0), 0, "of the noise [0]")}
EPISODES: dict[str, Option] = {
    "--episodes": ("N", whole(1), 20, "how many, in the true environment [20]"),
}
OWN: dict[str, dict[str, Option]] = {
    "fit": {
        "--transitions": ("N", whole(1), 1000, "to collect with random actions [1000]"),
        "--hold": ("STEPS", _HOLD, None, "steps that a random action is held on average [that of "
                   "the task]"),
        "--log": ("FILE", None, None, "fit this log instead: .npz, or Minari's .hdf5"),
        "--undeclared": ("", None, False, "learn rewards and ends, too, instead of taking the "
                         "rules of the task"),
        "--model": ("NAME", ("polynomial", "linear", "neighbours", "mixture", "vrnn",
                             "mean-change"),
                    "polynomial", "polynomial (ridge regression of s' - s), linear, neighbours, "
                    "mixture (a network that gives several Gaussians), vrnn (a recurrent network "
                    "whose memory makes the state, where observations do not; minutes), or "
                    "mean-change, the null model [polynomial]"),
        "--degree": ("N", whole(1), None, "of the polynomial [that of the task, else 2]"),
        "--neighbours": ("N", whole(1), None, "how many [5]"),
        "--components": ("N", whole(1), None, "Gaussians of the mixture [5]"),
        "--updates": ("N", whole(1), None, "of the network [mixture: 1000; vrnn: 600]"),
        "--hidden": ("N", whole(1), None, "units of the network [mixture: 64; vrnn: 32]"),
        "--latent": ("N", whole(1), None, "dimensions of the vrnn's latent of a step [4]"),
        "--code-steps": ("N", whole(1), None, "updates of the autoencoder of a task that is seen "
                         "as pictures [that of the task]"),
        "--out": ("DIR", None, None, "directory of the world [runs/world-TASK]"),
        **SEED,
    },
    "plan": {
        "--grid": ("NxN", _grid, None, "points a side, as 91x61 [those of the task]"),
        "--codes": ("N", whole(1), None, "plan on N codes of the log's states (k-means) instead of "
                    "a grid"),
        "--neighbours": ("K", whole(1), None, "plan on the states of the log instead, each state "
                         "the mean of the K nearest"),
        "--discount": ("D", _DISCOUNT, None, "per step, below 1 [that of the task]"),
        "--tolerance": ("T", positive, 1e-3, "largest |V - V*| of the gridded world, in units of "
                        "reward [1e-3]"),
        "--quadrature": ("N", whole(1), None, "nodes for the noise of each variable; 1 takes the "
                         "world as certain [that of the task]"),
        "--refine": ("F", positive, (), "solve a grid of F times the sides besides; repeatable "
                     "[0.5]"),
        "--plot": ("[FILE]", None, None, "draw V and where the data is (.png, .pdf, .svg) "
                   "[DIR/plan.png]"),
        **EPISODES, **SEED,
    },
    "act": {
        "--policy": ("NAME", ("plan", "random"), "plan", "plan, or random [plan]"),
        "--gif": ("[FILE]", None, None, "draw the first episode as an animated GIF [DIR/act.gif]"),
        **EPISODES, **SEED,
    },
}  # fmt: skip


def _configure(parser: Parser, choice: str | None) -> None:
    lines = [line for line in EXAMPLE.splitlines(keepends=True) if f"world {choice}" in line]
    parser.epilog = "example:\n" + ("".join(lines) or f"  likely world {choice}\n")
    if choice == "fit":
        parser.add_argument(
            "task", metavar="TASK",
            help="a task (see `likely world list`), a Gymnasium name as CartPole-v1, or "
            "module:name of a likely.world.Task of yours",
        )  # fmt: skip
    elif choice in ("plan", "act"):
        parser.add_argument("world", metavar="DIR", help=WORLD)
    add_options(parser, OWN.get(choice or "", {}))


COMMAND = Command(EXAMPLE, choices=lambda: ACTIONS, configure=_configure)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    from likely.cli.world import actions

    actions.ACTIONS[options.choice](options)
    return 0
