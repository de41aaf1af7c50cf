"""What each action of `likely mdp` does, once its arguments are read."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from likely import mdp
from likely.cli.mdp import terminal
from likely.cli.mdp.answers import (
    JSON_STATES,
    at_start,
    check_target,
    draw,
    facts,
    finite,
    heading,
    plain,
    say,
    show_values,
    solution_record,
    write_solution,
)
from likely.cli.mdp.inputs import counts_of, policy_of, value_of, world_of
from likely.cli.output import say_json
from likely.errors import InvalidSetting, nearest
from likely.files.figures import PICTURES
from likely.mdp import worlds
from likely.mdp.check.certificates import certify
from likely.mdp.check.simulation import simulate
from likely.mdp.draw import plots
from likely.mdp.draw.comparison import converge
from likely.mdp.model import checks
from likely.mdp.model.policies import expectation_sweeps, optimality_sweeps
from likely.mdp.model.solution import Solution, at_least, at_most
from likely.mdp.model.world import World
from likely.mdp.solvers.prediction import evaluate
from likely.mdp.solvers.solve import CRITERIA, METHODS

# Rows of a table of states.
STATES = 40


def _list(options: argparse.Namespace) -> None:
    if options.json:
        listed = [(name, worlds.REGISTRY[name]) for name in worlds.names()]
        records = [{"name": n, "about": w.about, "size": dict(w.size)} for n, w in listed]
        say_json({"worlds": records})
        return
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("world", no_wrap=True)
    table.add_column("what it is")
    for name in worlds.names():
        table.add_row(name, Text(worlds.describe(name)))
    console = Console()
    console.print(table)
    say(
        console,
        "also Gymnasium names (FrozenLake-v1, Taxi-v4, CliffWalking-v1) and files "
        "(.txt, .grid, .tra, .pomdp, .mdp, .npz)",
    )


def _objective(world: World, options: argparse.Namespace) -> str:
    """What the arguments, or else the file, ask for."""
    return options.objective or ("max" if world.question is None else world.question.objective)


def _solve_world(world: World, options: argparse.Namespace) -> Solution:
    """Solve what the arguments, or else the file, ask."""
    asked, criterion = world.question, options.criterion
    if criterion == "auto":
        if options.horizon is not None:
            criterion = "finite-horizon"
        elif asked is not None:
            criterion = asked.criterion
        else:
            criterion = "discounted" if world.mdp.discount < 1.0 else "total"
    checks.choice("criterion", criterion, CRITERIA)
    for option, used, home in (
        ("--method", options.method != "auto", "discounted"),
        ("--horizon", options.horizon is not None, "finite-horizon"),
    ):
        if used and criterion != home:
            raise InvalidSetting(
                f"{option} is for the {home} criterion; the criterion here is {criterion}"
            )
    objective = _objective(world, options)
    limits = {
        "max_iterations": options.max_iterations, "max_seconds": options.max_seconds,
        "checkpoint": options.checkpoint,
    }  # fmt: skip
    if criterion == "finite-horizon":
        if options.horizon is None:
            raise InvalidSetting("the finite-horizon criterion needs --horizon STEPS")
        return mdp.backward_induction(world, options.horizon, objective=objective, **limits)
    if criterion == "discounted":
        if world.mdp.discount >= 1.0:
            raise InvalidSetting(
                f"{world.name}: the discounted criterion needs a discount below 1 (--discount 0.99)"
            )
        return mdp.solve(world, options.tolerance, options.method, objective=objective, **limits)
    if criterion == "average":
        return mdp.average_reward(world, options.tolerance, objective=objective, **limits)
    if asked is not None:
        question = dataclasses.replace(asked, criterion=criterion, objective=objective)
        return mdp.answer(world, question, options.tolerance, **limits)
    if criterion == "reachability":
        raise InvalidSetting(
            f"{world.name}: reachability needs states to reach; give a .tra file with --target"
        )
    return mdp.total_reward(world, options.tolerance, objective=objective, **limits)


def _solve(options: argparse.Namespace) -> None:
    check_target(options.out, (".npz", ".json"))
    check_target(options.plot, PICTURES)
    world = world_of(options)
    solution = _solve_world(world, options)
    steps = solution.value.ndim == 2  # a finite horizon: the first row has all steps to go
    value, lower, upper, policy = (
        np.asarray(part[0] if steps else part)
        for part in (solution.shown(), solution.lower, solution.upper, solution.policy)
    )
    if options.json:
        say_json(solution_record(world, solution, everything=world.mdp.states <= JSON_STATES))
    else:
        _show_solution(world, solution, (value, lower, upper), policy)
    # What took long is told before a full disk can lose it.
    if options.out is not None:
        write_solution(options.out, world, solution)
    if options.plot is not None:
        title = f"{world.name}, discount {world.mdp.discount:g}"
        draw(options.plot, world, value, title, solution.about["objective"])
    if not options.json:
        for path in (options.out, options.plot):
            if path is not None:
                say(Console(), f"wrote {path}")
    solution.uninterrupted()


def _show_solution(
    world: World,
    solution: Solution,
    bounds: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
    policy: NDArray[Any],
) -> None:
    """A solution in the terminal; `bounds` are its value, lower and upper ends."""
    value, lower, upper = bounds
    console = heading(world)
    about = solution.about
    say(
        console, ", ".join(f"{key} {about[key]}" for key in ("criterion", "method") if key in about)
    )
    say(console, solution.status, "bold green" if solution.converged else "bold yellow")
    if world.mdp.initial is not None:
        low, high = (at_start(world.mdp, end) for end in (lower, upper))
        say(console, f"from the start: V* in {terminal.interval(low, high)}")
    if solution.gain is not None:
        low, high = float(lower.min()), float(upper.max())
        say(console, f"average reward a step, over all starts: {terminal.interval(low, high)}")
    show_values(console, world, value, lower, upper, policy, about["objective"])


def _policy(word: str, world: World, options: argparse.Namespace) -> NDArray[Any]:
    if word == "optimal":
        policy = np.asarray(_solve_world(world, options).uninterrupted().policy)
        if policy.ndim != 1:
            raise InvalidSetting("a policy that depends on the step cannot be played here")
        return policy
    return policy_of(word, world.mdp)


def _evaluate(options: argparse.Namespace) -> None:
    check_target(options.plot, PICTURES)
    world = world_of(options)
    policy = _policy(options.policy, world, options)
    rows: list[tuple[str, NDArray[np.float64]]] = []
    evaluation = None
    if options.sweeps is None or None in options.sweeps:
        evaluation = evaluate(world.mdp, policy, options.by, tolerance=options.tolerance)
    counted = [k for k in options.sweeps or () if k is not None]
    if counted:
        every = {
            k: value
            for k, value in enumerate(
                islice(expectation_sweeps(world.mdp, policy), max(counted) + 1)
            )
            if k in counted
        }
        rows = [(f"k = {k}", every[k]) for k in counted]
    if evaluation is not None:
        rows.append(("k = ∞" if options.sweeps else "value", np.asarray(evaluation.value)))
    if options.plot is not None:
        title = f"{world.name}: the {options.policy} policy"
        if options.sweeps and world.layout is not None:
            plots.sweeps_figure(options.plot, world, rows, title)
        else:
            draw(options.plot, world, rows[-1][1], title)
    if options.json:
        record = {**facts(world), "policy": options.policy}
        record["values"] = [
            {"sweeps": label.removeprefix("k = ").replace("∞", "inf"), "value": plain(value)}
            for label, value in rows
        ]
        if evaluation is not None:
            record |= {"status": evaluation.status, "error_bound": finite(evaluation.error)}
        say_json(record)
        return
    console = heading(world)
    for label, value in rows:
        if world.layout is not None and terminal.fits(world.layout):
            console.print()
            terminal.grid_of(console, world.mdp, world.layout, value, label)
        else:
            say(console, label, "bold")
            show_values(console, world, value)
    if evaluation is not None:
        say(console, evaluation.status)
    if options.plot is not None:
        say(console, f"wrote {options.plot}")


def _methods(options: argparse.Namespace) -> None:
    check_target(options.plot, PICTURES)
    names = None
    if options.methods is not None:
        names = [name.strip() for name in options.methods.split(",")]
        for name in names:
            if name not in METHODS:
                raise InvalidSetting(f'unknown method "{name}"; {nearest(name, METHODS)}')
    world = world_of(options)
    runs = converge(world.mdp, options.tolerance, names)
    if options.plot is not None:
        plots.convergence(options.plot, runs, world.name)
    if options.json:
        records = [
            {
                "method": run.name,
                "sweeps": plain(run.backups),
                "seconds": plain(run.seconds),
                "error_bound": plain(run.bound),
            }
            for run in runs
        ]
        say_json({**facts(world), "tolerance": options.tolerance, "methods": records})
        return
    console = heading(world)
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("method")
    for column in ("sweeps", "seconds", "|V - V*| <="):
        table.add_column(column, justify="right")
    for run in sorted(runs, key=lambda run: float(run.seconds[-1])):
        table.add_row(
            run.name,
            f"{run.backups[-1]:.4g}",
            f"{run.seconds[-1]:.3g}",
            at_most(float(run.bound[-1])),
        )
    console.print(table)
    if options.plot is not None:
        say(console, f"wrote {options.plot}")


def _simulate(options: argparse.Namespace) -> None:
    world = world_of(options)
    policy = _policy(options.policy, world, options)
    played = simulate(
        world.mdp, policy, options.episodes, options.seed, options.start, options.max_steps
    )
    low, high = played.interval(options.confidence)
    if options.json:
        say_json({
            **facts(world), "policy": options.policy, "episodes": options.episodes,
            "seed": options.seed, "mean_return": played.mean,
            "standard_error": played.standard_error, "confidence": options.confidence,
            "interval": [finite(low), finite(high)], "mean_steps": float(played.lengths.mean()),
            "unfinished": played.unfinished,
        })  # fmt: skip
        return
    console = heading(world)
    say(console, f"{options.policy} policy, {options.episodes} episodes, seed {options.seed}")
    say(
        console,
        f"mean return {played.mean:.6g}, {100 * options.confidence:g} % confidence "
        f"[{low:.6g}, {high:.6g}]",
        "bold",
    )
    say(console, f"steps: {played.lengths.mean():.4g} on average, {played.lengths.max()} at most")
    if played.unfinished:
        say(
            console,
            f"{played.unfinished} episodes had not ended after {options.max_steps} steps; "
            "their returns are partial",
            "yellow",
        )


def _certify(options: argparse.Namespace) -> None:
    world = world_of(options)
    value = value_of(options.value, world.mdp)
    objective = _objective(world, options)
    certificate = certify(world.mdp, value, objective=objective)
    if options.json:
        say_json(
            {
                **facts(world),
                "objective": objective,
                "error_bound": finite(certificate.error),
                "policy_loss_bound": finite(certificate.policy_loss),
                "residual": finite(certificate.residual),
            }
        )
        return
    console = heading(world)
    say(console, f"objective {objective}: |V - V*| <= {at_most(certificate.error)}", "bold")
    loss, change = at_most(certificate.policy_loss), at_most(certificate.residual)
    say(console, f"acting greedily in V loses at most {loss} in any state")
    say(console, f"largest change by one backup: {change}")


def _animate(options: argparse.Namespace) -> None:
    from likely.mdp.draw import pictures

    check_target(options.out, (".gif",))
    world = world_of(options)
    if world.layout is None:
        grids = [name for name in worlds.names() if worlds.build(name).layout is not None]
        raise InvalidSetting(
            f"{world.name} has no picture of its states; animations are for grid worlds: "
            + ", ".join(grids)
        )
    if options.policy is not None:
        iterates = expectation_sweeps(world.mdp, _policy(options.policy, world, options))
    else:
        iterates = optimality_sweeps(world.mdp)
    values = _until_settled(iterates)
    shown = _frames(len(values), options.frames)
    pictures.animate(
        options.out,
        world,
        [values[k] for k in shown],
        [f"sweep {k}" for k in shown],
        options.fps,
        world.name,
    )
    if options.json:
        say_json(
            {**facts(world), "file": options.out, "frames": len(shown), "last_sweep": shown[-1]}
        )
        return
    say(Console(), f"wrote {options.out}: {len(shown)} frames, the last after {shown[-1]} sweeps")


def _until_settled(
    iterates: Iterator[NDArray[np.float64]], longest: int = 3000
) -> list[NDArray[np.float64]]:
    """Iterates until a picture would no longer change: a thousandth of the range."""
    values = [next(iterates)]
    for value in islice(iterates, longest):
        change = float(np.abs(value - values[-1]).max())
        values.append(value)
        if change <= 1e-4 * max(1e-300, float(np.ptp(value))):
            break
    return values


def _frames(count: int, wanted: int) -> list[int]:
    """Which of `count` iterates to show: the first half one by one, then ever faster."""
    if count <= wanted:
        return list(range(count))
    first = max(1, wanted // 2)
    later = np.geomspace(first, count - 1, wanted - first + 1).round().astype(int)
    return sorted({*range(first), *later.tolist()})


def _beliefs(options: argparse.Namespace) -> None:
    problem = mdp.POMDP.from_file(options.world)
    solved = mdp.solve_beliefs(problem, options.tolerance, max_seconds=options.max_seconds)
    action = solved.choose(problem.start)
    name = problem.action_name(action)
    then = [
        (problem.observation_name(int(o)), float(p), problem.action_name(solved.choose(belief)))
        for p, belief, o in zip(*problem.after(problem.start, action), strict=True)
    ]
    if options.json:
        say_json({
            "world": options.world, "states": problem.states, "actions": problem.actions,
            "observations": problem.observations, "discount": problem.discount,
            "lower": solved.lower, "upper": solved.upper, "status": solved.status,
            "first_action": name,
            "then": [{"observation": o, "probability": p, "action": a} for o, p, a in then],
            "alpha_vectors": len(solved.below.vectors),
            "points": len(solved.above.points), "seconds": solved.seconds,
        })  # fmt: skip
    else:
        _show_beliefs(Path(options.world).name, solved, name, then)
    if solved.interrupted:
        raise KeyboardInterrupt


def _show_beliefs(
    world: str, solved: mdp.BeliefSolution, action: str, then: list[tuple[str, float, str]]
) -> None:
    console = Console()
    say(console, f"{world}: {solved.pomdp}", "bold")
    say(console, solved.status)
    say(
        console,
        f"first action: {action}; following the alpha vectors earns at least the lower bound",
    )
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("then observed")
    table.add_column("probability", justify="right")
    table.add_column("next action")
    for seen, chance, chosen in then[:STATES]:
        table.add_row(seen, f"{chance:.4g}", chosen)
    console.print(table)
    if len(then) > STATES:
        say(console, f"and {len(then) - STATES} more observations; --json has them all", "dim")


def _counts(options: argparse.Namespace) -> None:
    log = counts_of(options.world)
    if log is not None:
        if options.discount is None:
            raise InvalidSetting(
                f"{options.world} is a log, which has no discount; give --discount"
            )
        counts, discount, gathered, name = log, options.discount, "adaptive", options.world
        acts: Sequence[str] | None = None
        names: Sequence[str] = [f"state {s}" for s in range(counts.states)]
    else:
        world = world_of(options)
        problem, gathered, name = world.mdp, "fixed", world.name
        discount, names = problem.discount, [problem.state_name(s) for s in range(problem.states)]
        acts = problem.action_names
        counts = mdp.draw_counts(
            problem, options.draws, options.seed, known_support=not options.all_states
        )
        if options.unknown_rewards:
            counts = counts.unknown_rewards(*counts.reward_range)
    bounds = mdp.robust_bounds(
        counts, discount, delta=options.delta, sets=options.sets, gathered=gathered
    )
    if options.json:
        say_json({
            "world": name, "visits": int(counts.visits.sum()), "discount": discount,
            "delta": options.delta, "sets": options.sets, "gathered": gathered,
            "lower": plain(bounds.lower), "upper": plain(bounds.upper),
            "policy": bounds.policy.tolist(),
        })  # fmt: skip
        return
    console = Console()
    say(console, f"{name}: {counts}, discount {discount:g}", "bold")
    if counts.paid is not None:
        least, most = counts.reward_range
        say(console, f"rewards are known to lie between {least:g} and {most:g}, else as paid")
    say(console, str(bounds))
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("state")
    for column in ("L", "U", "action"):
        table.add_column(column, justify="right")
    shown = min(counts.states, STATES)
    for s in range(shown):
        number = int(bounds.policy[s])
        action = "" if number < 0 else (acts[number] if acts else str(number))
        ends = at_least(float(bounds.lower[s]), 4), at_most(float(bounds.upper[s]), 4)
        table.add_row(names[s], *ends, action)
    console.print(table)
    if shown < counts.states:
        say(console, f"and {counts.states - shown} more states; --json has them all", "dim")


ACTIONS: dict[str, Callable[[argparse.Namespace], None]] = {
    "solve": _solve,
    "evaluate": _evaluate,
    "methods": _methods,
    "simulate": _simulate,
    "beliefs": _beliefs,
    "counts": _counts,
    "certify": _certify,
    "list": _list,
    "animate": _animate,
}
