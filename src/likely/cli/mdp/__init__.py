"""`likely mdp ACTION`: solve, evaluate, methods, simulate, certify, list, animate.

Reading the arguments imports nothing heavy; `actions` holds what is done with them.
"""

from __future__ import annotations

import argparse

from likely.cli.parser import Command, Option, Parser, add_options, number, positive, whole

EXAMPLE = """\
  likely mdp solve frozen-lake --discount 0.99 --plot lake.png
  likely mdp evaluate small-gridworld --policy uniform --sweeps 0,1,2,3,10,inf
  likely mdp methods frozen-lake-8x8 --plot methods.png
  likely mdp simulate frozen-lake --policy optimal --episodes 10000
"""
ACTIONS = {
    "solve": "find an optimal policy and bounds on its value",
    "evaluate": "find the value of a policy",
    "methods": "compare how the methods converge",
    "simulate": "play episodes and report returns with intervals",
    "beliefs": "bound the value of a partially observed .pomdp",
    "counts": "bound the optimal value of a process that is known by counts",
    "certify": "bound the error of a given value by one backup",
    "animate": "draw the sweeps of value iteration as an animated GIF",
    "list": "list the built-in worlds",
}
EXAMPLES = {
    "beliefs": "  likely mdp beliefs Tiger.pomdp --tolerance 1e-4\n",
    "counts": "  likely mdp counts frozen-lake --discount 0.9 --draws 1000\n",
    "certify": "  likely mdp certify frozen-lake --value solution.npz\n",
    "animate": "  likely mdp animate frozen-lake-8x8 --out sweeps.gif --frames 40\n",
    "list": "  likely mdp list\n",
}
POLICY = (
    '"uniform" (all actions equally likely), "optimal", the name of an action, or a file '
    "written by `likely mdp solve --out`"
)


def _size(text: str) -> list[int]:
    words = text.split("x")
    if not all(word.isdigit() and int(word) >= 1 for word in words):
        raise argparse.ArgumentTypeError(
            f'expected whole numbers with x between, as 100x100, given "{text}"'
        )
    return [int(word) for word in words]


def _sweeps(text: str) -> list[int | None]:
    """Numbers of sweeps; None stands for "inf", the limit."""
    words = [word.strip() for word in text.split(",")]
    if not all(word in ("inf", "∞") or word.isdigit() for word in words):
        raise argparse.ArgumentTypeError(
            f'expected whole numbers and "inf" with commas between, given "{text}"'
        )
    return [int(word) if word.isdigit() else None for word in words]


_DISCOUNT = number("a discount in (0, 1]", lambda value: 0.0 < value <= 1.0)
_CONFIDENCE = number("a number between 0 and 1", lambda value: 0.0 < value < 1.0)
WORLD: dict[str, Option] = {
    "--discount": ("D", _DISCOUNT, None, "discount per step, in (0, 1] [that of the world]"),
    "--size": ("NxN", _size, None, "size of a scalable built-in world, as 100x100"),
    "--seed": ("N", whole(0), 0, "seed of random worlds and of simulation [0]"),
}
FILES: dict[str, Option] = {
    "--reward": ("FILE", None, (), "reward file of a .tra model (.rew, .srew, .trew); repeatable"),
    "--labels": ("FILE", None, None, "label file of a .tra model (.lab)"),
    "--target": ("LABEL", None, None, "states that end the episode of a .tra model; without "
                 "rewards, the value is the probability of reaching them"),
    "--underlying": ("", None, False, "solve the underlying MDP of a partially observed .pomdp"),
    "--property": ("NAME", None, None, "question of a benchmark .npz model"),
}  # fmt: skip
TOLERANCE: dict[str, Option] = {
    "--tolerance": ("T", positive, 1e-6, "largest error of any state's value, in units of reward "
                    "[1e-6]"),
}  # fmt: skip
OBJECTIVE: dict[str, Option] = {
    "--objective": ("NAME", ("max", "min"), None, "max or min [that of the file, else max]"),
}
SOLVING: dict[str, Option] = TOLERANCE | {
    "--criterion": ("NAME", None, "auto", "discounted, total, reachability, average or "
                    "finite-horizon [that of the file, else discounted below discount 1 and total "
                    "at 1]"),
    "--method": ("NAME", None, "auto", "for the discounted criterion, as policy-iteration [auto]"),
    **OBJECTIVE,
    "--horizon": ("STEPS", whole(1), None, "number of steps of the finite horizon"),
    "--max-iterations": ("N", whole(1), None, "stop after N iterations; the bounds hold"),
    "--max-seconds": ("S", positive, None, "stop after S seconds; the bounds hold"),
    "--checkpoint": ("FILE", None, None, "file of a long solve, which resumes from it"),
}  # fmt: skip
OWN: dict[str, dict[str, Option]] = {
    "solve": {
        "--out": ("FILE", None, None, "write the solution (.npz or .json)"),
        "--plot": ("FILE", None, None, "draw value and policy (.png, .pdf, .svg)"),
    },
    "evaluate": {
        "--policy": ("POLICY", None, "uniform", f"{POLICY} [uniform]"),
        "--by": ("NAME", None, "direct", "direct, sweeps, gauss-seidel, gmres or bicgstab "
                 "[direct]"),
        "--sweeps": ("K,K,..", _sweeps, None, "show the iterates after these numbers of "
                     'synchronous sweeps from 0, with the greedy policy of each; "inf" is the '
                     "limit"),
        "--plot": ("FILE", None, None, "draw it (.png, .pdf, .svg)"),
    },
    "methods": {
        "--methods": ("NAME,..", None, None, "which [all that apply]"),
        "--plot": ("FILE", None, None, "draw error bound against backups and seconds (.png, .pdf, "
                   ".svg)"),
    },
    "simulate": {
        "--policy": ("POLICY", None, "optimal", f"{POLICY} [optimal]"),
        "--episodes": ("N", whole(1), 10_000, "how many [10000]"),
        "--start": ("STATE", whole(0), None, "number of the first state [the start of the world]"),
        "--max-steps": ("N", whole(1), 100_000, "longest episode, in steps [100000]"),
        "--confidence": ("C", _CONFIDENCE, 0.95, "of the interval, between 0 and 1 [0.95]"),
    },
    "beliefs": {
        "--tolerance": ("T", positive, 1e-3, "width of the interval at the first belief, in units "
                        "of reward [1e-3]"),
        "--max-seconds": ("S", positive, 60.0, "stop after S seconds; the bounds hold [60]"),
    },
    "counts": {
        "--draws": ("N", whole(0), 1000, "draws of every state-action pair of a world [1000]"),
        "--all-states": ("", None, False, "take any state to be possible after any, instead of the "
                         "world's own moves"),
        "--unknown-rewards": ("", None, False, "take rewards to be known only where they "
                              "were paid, and to lie in the world's own range"),
        "--delta": ("P", _CONFIDENCE, 0.05, "chance that the statement is wrong [0.05]"),
        "--sets": ("NAME", ("l1", "intervals", "both"), "both", "l1 (Weissman), intervals "
                   "(Clopper-Pearson) or both [both]"),
    },
    "certify": {
        "--value": ("FILE", None, ..., '.npz or .json with "value" [states], as `solve --out` '
                    "writes"),
        **OBJECTIVE,
    },
    "animate": {
        "--out": ("FILE", None, ..., "the .gif to write"),
        "--frames": ("N", whole(1), 30, "number of frames; the first sweeps are shown one by one "
                     "[30]"),
        "--fps": ("F", positive, 4.0, "frames per second [4]"),
        "--policy": ("POLICY", None, None, "show policy evaluation of this policy instead"),
    },
}  # fmt: skip


def _configure(parser: Parser, choice: str | None) -> None:
    lines = EXAMPLE.splitlines(keepends=True)
    parser.epilog = "examples:\n" + EXAMPLES.get(
        choice or "", "".join(line for line in lines if f"likely mdp {choice}" in line)
    )
    if choice == "list":
        return
    if choice == "beliefs":
        parser.add_argument("world", metavar="FILE", help="in Cassandra's format (.pomdp)")
        add_options(parser, OWN[choice])
        return
    parser.add_argument(
        "world", metavar="WORLD",
        help="a built-in world (see `likely mdp list`), a Gymnasium name such as FrozenLake-v1, or "
        "a file: grid drawn in text (.txt, .grid), PRISM or Storm (.tra), Cassandra (.pomdp, "
        ".mdp), .npz",
    )  # fmt: skip
    add_options(parser, WORLD | OWN[choice or "solve"])
    if choice == "methods":
        add_options(parser, TOLERANCE)
    elif choice not in ("certify", "counts"):
        add_options(parser.add_argument_group("how to solve"), SOLVING)
    add_options(parser.add_argument_group("files that need more"), FILES)


COMMAND = Command(EXAMPLE, choices=lambda: ACTIONS, configure=_configure)


def run(options: argparse.Namespace) -> int:
    """Do it."""
    from likely.cli.mdp import actions

    actions.ACTIONS[options.choice](options)
    return 0
