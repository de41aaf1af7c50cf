"""Undiscounted criteria: reachability and total reward, with sound bounds.

"The change is small" proves nothing without a discount (Haddad and Monmege 2014). Here the graph
decides first: states of value zero, one or infinity are found exactly; end components that cost
nothing are merged, those that break even too (`zero_gain`); what is left is a shortest path
problem with one fixed point, solved and proven component by component (`ssp`).
"""
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import dataclasses
import math
import os
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from likely.errors import InvalidSetting
from likely.mdp.kernels import clock
from likely.mdp.model import checks
from likely.mdp.model.arrays import Array, FloatArray, Mask
from likely.mdp.model.build import mask_of
from likely.mdp.model.checkpoints import Checkpoint, Resumed, checkpoint_of
from likely.mdp.model.problem import MDP
from likely.mdp.model.solution import Solution, TracePoint, sentence, widest
from likely.mdp.model.world import Problem, Question, stored
from likely.mdp.undiscounted import acyclic, zero_gain
from likely.mdp.undiscounted import end_components as graph
from likely.mdp.undiscounted import ssp_kernels as kernels
from likely.mdp.undiscounted.ssp import Paths, Solved, solve_paths


class _Case:
    """One undiscounted problem as a maximisation: which states are open, what they collect."""

    def __init__(self, mdp: MDP) -> None:
        self.mdp = mdp
        self.rows = graph.Edges.of(mdp)
        self.open: Mask = np.zeros(mdp.states, dtype=np.bool_)  # to be solved for
        self.usable: Mask = np.ones(mdp.pairs, dtype=np.bool_)
        self.fixed: FloatArray = np.zeros(mdp.states)  # value where not open
        self.reward: FloatArray = np.zeros(mdp.pairs)
        self.range = (-np.inf, np.inf)
        self.circular = True  # whether open states may be gone round in for ever
        self.may_stop = False  # whether a free end component may be stayed in for ever
        self.potential: dict[int, Fraction] = {}  # of states whose cycles break even


def reach(
    problem: Problem,
    target: npt.ArrayLike,
    tolerance: float = 1e-6,
    *,
    stay: npt.ArrayLike | None = None,
    objective: str = "max",
    max_iterations: int | None = None,
    max_seconds: float | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = 60.0,
) -> Solution:
    """The best probability of ever reaching `target`, with bounds; rewards play no part.

        p(s) = 1 in the target,  p(s) = max_a sum_s' p(s' | s, a) p(s')  elsewhere

    of which the smallest solution is meant.

    Args:
        problem: an `MDP` or a `World`.
        target: mask [S] or list of states to reach.
        tolerance: the true sup-norm error of the probabilities to reach.
        stay: mask [S] or list of the states that may be passed on the way; None for all.
        objective: "max" or "min" of the probability.
        max_iterations, max_seconds: stop early; the bounds hold nevertheless.
        checkpoint: a file that is written every `checkpoint_seconds` and at the end. If it
            exists, the solve continues from it.

    Returns:
        A `Solution` whose value, lower and upper [S] are probabilities; the policy is [S].

    Raises:
        InvalidSetting: an unknown name, a tolerance that is not positive.
        InvalidData: states that do not exist, a checkpoint of another problem.

    Source: Haddad and Monmege, "Reachability in MDPs", 2014,
    https://doi.org/10.1007/978-3-319-11439-2_10; Quatmann and Katoen, "Sound value iteration",
    2018, https://doi.org/10.1007/978-3-319-96145-3_37
    """
    mdp = stored(problem)
    checks.asked(tolerance, objective, max_iterations, max_seconds)
    began = clock.now()
    goal = mask_of(target, mdp.states, "target")
    through = ~goal & ~mdp.terminal
    passable = None if stay is None else mask_of(stay, mdp.states, "stay")
    if passable is not None:
        through &= passable
    kept = checkpoint_of(
        checkpoint, checkpoint_seconds, mdp, "reachability", objective, target=goal, stay=passable
    )
    case = _Case(mdp)
    sign = 1.0 if objective == "max" else -1.0
    if objective == "max":
        never = ~graph.can_reach(case.rows, goal, through)
        surely, sure_way = graph.surely_approach(case.rows, goal, through & ~never)
    else:
        never = ~graph.cannot_avoid(case.rows, goal, through)
        surely = goal | (~graph.can_reach(case.rows, never, ~goal) & ~never)
        case.circular = False
    surely |= goal
    case.fixed[surely] = sign
    case.open = ~never & ~surely
    case.range = (min(0.0, sign), max(0.0, sign))
    limits = _Limits(began, max_iterations, max_seconds, kept)
    solved = _solve(case, tolerance, limits)
    if objective == "max":
        # Inside the region of probability one the policy must make progress, not only stay.
        solved.take(sure_way, surely)
    else:
        # Where the target can be avoided for ever, the policy must do so.
        solved.take(case.rows.staying(never), never)
    return _solution(mdp, solved, sign, tolerance, limits.began, {
        "criterion": "reachability", "objective": objective, "target": int(goal.sum()),
    })  # fmt: skip


def total_reward(
    problem: Problem,
    tolerance: float = 1e-6,
    *,
    target: npt.ArrayLike | None = None,
    objective: str = "max",
    max_iterations: int | None = None,
    max_seconds: float | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = 60.0,
) -> Solution:
    """The best expected undiscounted sum of rewards, with bounds; the discount plays no part.

        V*(s) = max_a [r(s, a) + sum_s' p(s' | s, a) V*(s')],  0 at the end

    With `target`, rewards are collected until the target is reached: what states of the target
    could do is not looked at. A state from which the target is not reached with probability one
    has value infinity (as in PRISM: for "max" under some policy, for "min" under every policy).
    Without, the sum runs for ever or until a terminal state, over the policies whose sum settles
    or falls for ever. No cycle may gain on average. The value is minus infinity (for "max")
    where every policy may be caught in a cycle that costs.

    Args:
        problem: an `MDP` or a `World`.
        tolerance: the true sup-norm error |V - V*| to reach, in units of reward.
        target: mask [S] or list of states that end the sum; None for the terminal states.
        objective: "max" or "min" of the sum.
        max_iterations, max_seconds: stop early; the bounds hold nevertheless.
        checkpoint: a file that is written every `checkpoint_seconds` and at the end. If it
            exists, the solve continues from it.

    Returns:
        A `Solution`: value, lower and upper [S] may be infinite; the policy is [S].

    Raises:
        InvalidSetting: an unknown name; a cycle that gains, whose sum has no bound.
        InvalidData: states that do not exist, a checkpoint of another problem.

    Source: Bertsekas and Tsitsiklis, "An analysis of stochastic shortest path problems", 1991,
    https://doi.org/10.1287/moor.16.3.580; Quatmann and Katoen, "Sound value iteration", 2018,
    https://doi.org/10.1007/978-3-319-96145-3_37
    """
    mdp = stored(problem)
    checks.asked(tolerance, objective, max_iterations, max_seconds)
    goal = None if target is None else mask_of(target, mdp.states, "target")
    kept = checkpoint_of(checkpoint, checkpoint_seconds, mdp, "total", objective, target=goal)
    began = clock.now()
    sign = 1.0 if objective == "max" else -1.0
    case = _Case(mdp)
    case.reward = sign * mdp.reward
    reason = _until_the_end(case) if goal is None else _until_target(case, goal, objective)
    limits = _Limits(began, max_iterations, max_seconds, kept)
    solved = _solve(case, tolerance, limits)
    if goal is not None and objective == "max":
        # Where the value is infinite the policy must be able to miss the target.
        endless = np.isinf(case.fixed)
        missed = ~graph.cannot_avoid(case.rows, goal, ~goal & ~mdp.terminal)
        solved.take(graph.approach(case.rows, missed, endless)[1], endless)
        solved.take(case.rows.staying(missed), missed)
    about = {"criterion": "total", "objective": objective}
    solution = _solution(mdp, solved, sign, tolerance, limits.began, about, reason)
    # What states of a target could do has no value.
    undiscounted = None if goal is not None else mdp.with_discount(1.0)
    return dataclasses.replace(solution, _problem=undiscounted)


def answer(
    problem: Problem,
    question: Question,
    tolerance: float = 1e-6,
    *,
    max_iterations: int | None = None,
    max_seconds: float | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = 60.0,
) -> Solution:
    """What a file asks (`World.question`): `reach` or `total_reward` with its target."""
    limits: dict[str, Any] = {
        "objective": question.objective, "max_iterations": max_iterations,
        "max_seconds": max_seconds, "checkpoint": checkpoint,
        "checkpoint_seconds": checkpoint_seconds,
    }  # fmt: skip
    if question.criterion == "reachability":
        return reach(problem, question.target, tolerance, stay=question.stay, **limits)
    return total_reward(problem, tolerance, target=question.target, **limits)


def _until_the_end(case: _Case) -> str:
    """Without a target; returns why values are infinite."""
    mdp, rows = case.mdp, case.rows
    live: Mask = np.ones(mdp.pairs, dtype=np.bool_)
    component, inside = graph.maximal_end_components(rows, case.reward == 0.0)
    rest = mdp.terminal | (component >= 0)
    finite = graph.surely_reach(rows, rest, ~rest)
    case.potential = zero_gain.potentials(mdp, rows, case.reward, live, component, inside)
    for state in case.potential:
        if not finite[state]:
            raise InvalidSetting(
                f"total reward: a cycle through {mdp.state_name(state)} breaks even for ever, so "
                "that the sum never settles; give a discount below 1, or ask for the average reward"
            )
    case.open = finite & ~mdp.terminal
    case.fixed[~finite] = -np.inf
    case.usable = rows.every(finite)
    case.may_stop = True
    return "every policy may be caught in a cycle that never ends"


def _until_target(case: _Case, goal: Mask, objective: str) -> str:
    """With a target; returns why values are infinite."""
    mdp, rows = case.mdp, case.rows
    through = ~goal & ~mdp.terminal
    if objective == "max":
        finite = graph.always_reach(rows, goal, through)
        case.fixed[~finite] = np.inf
        case.circular = False
        reason = "some policy may miss the target"
    else:
        finite = graph.surely_reach(rows, goal, through)
        case.fixed[~finite] = -np.inf
        reason = "every policy may miss the target"
    case.open = finite & ~goal
    case.usable = rows.every(finite)
    if case.circular:
        live = case.usable & case.open[rows.owner] & rows.every(case.open)
        component, inside = graph.maximal_end_components(rows, live & (case.reward == 0.0))
        case.potential = zero_gain.potentials(mdp, rows, case.reward, live, component, inside)
    return reason


class _Outcome:
    """Bounds [S] in the sense of the maximisation, chosen pairs [S], and how it went."""

    def __init__(self, case: _Case) -> None:
        self.lower = case.fixed.copy()
        self.upper = case.fixed.copy()
        self.chosen: Array = np.full(case.mdp.states, -1, dtype=np.int64)
        self.iterations = 0
        self.outcome = "converged"
        self.trace: list[TracePoint] = []
        self.method = "sound-value-iteration"

    def take(self, pairs: Array, where: Mask) -> None:
        """Choose these pairs [S] there, except where one is -1."""
        np.copyto(self.chosen, pairs, where=where & (pairs >= 0))


@dataclasses.dataclass
class _Limits:
    """When it began (less what earlier runs took), when to stop, and where to keep the state."""

    began: float
    max_iterations: int | None
    max_seconds: float | None
    checkpoint: Checkpoint | None

    @property
    def until(self) -> float:
        """The latest time of `clock.now`."""
        return np.inf if self.max_seconds is None else self.began + self.max_seconds


def _solve(case: _Case, tolerance: float, limits: _Limits) -> _Outcome:
    outcome = _Outcome(case)
    if not bool(case.open.any()) or _without_cycles(case, outcome, limits):
        return outcome
    merged = _merge(case)
    paths = merged.paths
    bounded = bool(np.isfinite(case.range).all())
    intervals = bounded and limits.max_iterations is not None
    resumed = None
    if limits.checkpoint is not None:
        shapes = {name: a.shape for name, a in Solved.start(paths.states, 0.0, 0.0).arrays.items()}
        size = (paths.states,)
        resumed = limits.checkpoint.load(
            {**shapes, **dict.fromkeys(("low", "high", "picked"), size)}
        )
    if resumed is not None:  # by the method that wrote it
        intervals = "low" in resumed.arrays
        limits.began -= resumed.seconds
        outcome.trace = resumed.trace
    if intervals:
        solved = _intervals(paths, tolerance, case.range, limits, outcome, resumed)
    else:
        solved = _blocks(paths, tolerance, _simple_range(case, paths), limits, resumed)
    outcome.iterations, outcome.outcome = solved.iterations, solved.outcome
    members = np.flatnonzero(case.open)
    place = merged.number[members]
    outcome.lower[members] = np.maximum(solved.lower, case.range[0])[place]
    outcome.upper[members] = np.minimum(solved.upper, case.range[1])[place]
    _lift(case, outcome)
    outcome.take(_policy(case, merged, solved.chosen), case.open)
    return outcome


def _without_cycles(case: _Case, outcome: _Outcome, limits: _Limits) -> bool:
    """Solve a problem without cycles by a backup of each state; whether it was one."""
    limited = (limits.max_iterations, limits.max_seconds, limits.checkpoint) != (None, None, None)
    if case.potential or limited:
        return False
    mdp, (low, high) = case.mdp, case.range
    unit, loss = _rounding(mdp, case.reward)
    if not math.isfinite(low):  # then open states lead to others of value zero
        low = 0.0 if bool((case.reward >= loss).all()) else low
        high = 0.0 if bool((case.reward <= -loss).all()) else high
    return bool(acyclic.solve_acyclic(
        (mdp.pair_ptr, mdp.indptr, mdp.indices, mdp.probability, case.reward), case.open,
        case.usable, outcome.lower, outcome.upper, outcome.chosen, unit, loss, low, high,
    ))  # fmt: skip


def _rounding(mdp: MDP, reward: FloatArray) -> tuple[float, float]:
    """`unit` and `loss` of `Paths`."""
    longest = int(np.diff(mdp.indptr).max(initial=0))
    loss = mdp.reward_defect if bool(reward.any()) else 0.0
    return mdp.row_defect + (longest + 8) * kernels.UNIT, loss


def _simple_range(case: _Case, paths: Paths) -> tuple[float, float]:
    """Bounds without any work: nothing is ever paid, or nothing is ever lost."""
    low, high = case.range
    if bool((paths.gain - paths.loss >= 0.0).all()):
        low = max(low, 0.0)
    if bool((paths.gain + paths.loss <= 0.0).all()):
        high = min(high, 0.0)
    return low, high


@dataclasses.dataclass
class _Merged:
    """Open states with free end components merged.

    Attributes:
        paths: over the merged states.
        number: [S] state of `paths`, -1 where not open.
        inside: [pairs] pairs that stay inside a merged component.
        waiting: [S] whether one may stay for ever for nothing.
        waits: [pairs] pairs that do.
    """

    paths: Paths
    number: Array
    inside: Mask
    waiting: Mask
    waits: Mask


def _merge(case: _Case) -> _Merged:
    mdp, rows = case.mdp, case.rows
    live, closed = rows.within(case.open, case.usable)
    inside = np.zeros(mdp.pairs, dtype=np.bool_)
    component = np.full(mdp.states, -1, dtype=np.int64)
    waiting, waits = component >= 0, inside
    reward = case.reward
    if case.circular:
        component, inside = graph.maximal_end_components(rows, closed & (reward == 0.0))
        if case.may_stop:
            waiting, waits = component >= 0, inside
        if case.potential:
            reward = zero_gain.shaped(mdp, rows, reward, live, case.potential)
            component, inside = graph.maximal_end_components(rows, closed & (reward == 0.0))
    count = int(component.max(initial=-1)) + 1
    group = component.copy()
    single = np.flatnonzero(case.open & (component < 0) if count else case.open)
    group[single] = count + np.arange(len(single))
    stops = np.full(count + len(single), np.nan)
    if count:
        stops[group[np.flatnonzero(waiting)]] = 0.0
    for state, height in case.potential.items():
        if waiting[state]:
            best = stops[group[state]]
            stops[group[state]] = max(-float(height), best if best != 0.0 else -np.inf)
    pieces: tuple[Any, ...] = kernels.quotient(
        mdp.pair_ptr, mdp.indptr, mdp.indices, mdp.probability, reward, case.fixed,
        live & ~inside if count else live, group, len(stops), stops,
    )  # fmt: skip
    row_ptr, entry_ptr, column, weight, gain, pair_of, block_ptr, level, number = pieces
    unit, loss = _rounding(mdp, reward)
    paths = Paths(row_ptr, entry_ptr, column, weight, gain, pair_of, block_ptr, level, unit, loss)
    empty = np.flatnonzero(np.diff(paths.row_ptr) == 0)
    if len(empty):
        state = int(np.flatnonzero(case.open)[np.argmax(number[group[case.open]] == empty[0])])
        raise InvalidSetting(
            f"{mdp.state_name(state)} can never end: an end component without an exit; "
            "the criterion is not defined there"
        )
    group[single] = number[group[single]]
    if count:
        group = np.where(component >= 0, number[np.maximum(component, 0)], group)
    return _Merged(paths, group, inside, waiting, waits)


def _lift(case: _Case, outcome: _Outcome) -> None:
    """Add the potentials again, rounded outwards."""
    for state, height in case.potential.items():
        if not case.open[state]:
            continue
        for bounds, direction in ((outcome.lower, -np.inf), (outcome.upper, np.inf)):
            if np.isfinite(bounds[state]):
                exact = Fraction(float(bounds[state])) + height
                near = float(exact)
                wrong = Fraction(near) > exact if direction < 0.0 else Fraction(near) < exact
                bounds[state] = np.nextafter(near, direction) if wrong else near


def _policy(case: _Case, merged: _Merged, chosen: Array) -> Array:
    """[S] pairs of the rows [K] that were chosen, and of the ways to them inside components."""
    rows, paths = case.rows, merged.paths
    pairs = np.full(case.mdp.states, -1, dtype=np.int64)
    stopping = np.zeros(paths.states, dtype=np.bool_)
    taken = chosen >= 0
    behind = paths.pair_of[chosen[taken]]
    stopping[np.flatnonzero(taken)[behind < 0]] = True
    behind = behind[behind >= 0]
    pairs[rows.owner[behind]] = behind
    if bool(merged.waiting.any()):
        stays = merged.waiting & stopping[np.maximum(merged.number, 0)]
        if case.potential:  # the best of the places to wait
            stays &= _best_places(case, merged, stays)
        waits = np.flatnonzero(merged.waits & stays[rows.owner])[::-1]
        pairs[rows.owner[waits]] = waits
    settled = pairs >= 0
    if not bool((case.open & ~settled).any()):
        return pairs
    for way in (
        graph.inward_policy(rows, merged.inside, settled),
        # Nothing was proven there: a policy that ends.
        graph.approach(rows, ~case.open | settled, case.open, case.usable)[1],
    ):
        missing = (pairs < 0) & (way >= 0)
        pairs[missing] = way[missing]
    return pairs


def _best_places(case: _Case, merged: _Merged, stays: Mask) -> Mask:
    """Of the states `stays`, those with the least potential of their merged component."""
    least: dict[int, Fraction] = {}
    zero = Fraction(0)
    for state in np.flatnonzero(stays).tolist():
        height = case.potential.get(state, zero)
        group = int(merged.number[state])
        least[group] = min(least.get(group, height), height)
    best = np.zeros_like(stays)
    for state in np.flatnonzero(stays).tolist():
        best[state] = case.potential.get(state, zero) == least[int(merged.number[state])]
    return best


def _blocks(
    paths: Paths, tolerance: float, range_: tuple[float, float], limits: _Limits,
    resumed: Resumed | None,
) -> Solved:  # fmt: skip
    """Component by component; see `ssp`."""
    solved = Solved.start(paths.states, *range_)
    if resumed is not None:
        for name, array in resumed.arrays.items():
            setattr(solved, name, array)
        solved.iterations = resumed.iterations
    checkpoint = limits.checkpoint

    def keep(state: Solved, last: bool) -> None:
        if checkpoint is not None and (last or checkpoint.due()):
            seconds, made = clock.now() - limits.began, state.iterations
            checkpoint.save(state.arrays, made, made, seconds, ())

    solve_paths(paths, tolerance, solved, limits.max_iterations, limits.until, keep)
    return solved


def _intervals(
    paths: Paths,
    tolerance: float,
    range_: tuple[float, float],
    limits: _Limits,
    outcome: _Outcome,
    resumed: Resumed | None,
) -> Solved:
    """Interval iteration (Baier et al. 2017): T from both ends, every backup rounded outwards."""
    outcome.method = "interval-iteration"
    solved = Solved.start(paths.states, *range_)
    if resumed is not None:
        solved.lower, solved.upper = resumed.arrays["low"], resumed.arrays["high"]
        solved.chosen, solved.iterations = resumed.arrays["picked"], resumed.iterations
    limit = limits.max_iterations if limits.max_iterations is not None else 1 << 60

    def save() -> None:
        if limits.checkpoint is not None:
            made, seconds = solved.iterations, clock.now() - limits.began
            arrays = {"low": solved.lower, "high": solved.upper, "picked": solved.chosen}
            limits.checkpoint.save(arrays, made, 2 * made, seconds, outcome.trace)

    solved.outcome = "iterations"
    try:
        while solved.iterations < limit:
            error = 0.5 * float(kernels.interval_sweep(
                paths.rows, solved.lower, solved.upper, solved.chosen, paths.unit, paths.loss
            ))  # fmt: skip
            solved.iterations += 1
            seconds = clock.now() - limits.began
            if solved.iterations & (solved.iterations - 1) == 0 or error <= tolerance:
                made = solved.iterations
                outcome.trace.append(TracePoint(made, 2.0 * made, seconds, error))
            if error <= tolerance:
                solved.outcome = "converged"
                break
            if clock.now() >= limits.until:
                solved.outcome = "time"
                break
            if limits.checkpoint is not None and limits.checkpoint.due():
                save()
    except KeyboardInterrupt:
        solved.outcome = "interrupted"
    save()
    return solved


def _solution(
    mdp: MDP, solved: _Outcome, sign: float, tolerance: float, began: float,
    about: dict[str, Any], reason: str = "",
) -> Solution:  # fmt: skip
    lower, upper = solved.lower, solved.upper
    if sign < 0.0:
        lower, upper = -upper + 0.0, -lower + 0.0
    value, policy, endless, first = kernels.answers(
        lower, upper, solved.chosen, mdp.pair_ptr, mdp.pair_action, mdp.terminal
    )
    error = widest(value, lower, upper)
    if error <= tolerance:
        solved.outcome = "converged"
    elif solved.outcome == "converged":
        solved.outcome = "rounding"
    seconds = clock.now() - began
    status = sentence(solved.outcome, error, tolerance, solved.iterations, seconds)
    if endless:
        states = "1 state" if endless == 1 else f"{endless} states"
        status += (
            f"; V* is {value[first]:g} in {states} ({mdp.state_name(first)}"
            f"{', ...' if endless > 1 else ''}): {reason}"
        )
    about |= {"method": solved.method, "tolerance": tolerance, "seconds": seconds}
    return Solution(
        policy=policy, value=value, lower=lower, upper=upper, iterations=solved.iterations,
        outcome=solved.outcome, status=status, trace=tuple(solved.trace), about=about,
    )  # fmt: skip
