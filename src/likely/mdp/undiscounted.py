"""Undiscounted criteria: reachability and total reward, with sound bounds.

"The change is small" proves nothing without a discount (Haddad and Monmege 2014). Here the graph
decides first: states of value zero, one or infinity are found exactly; end components that cost
nothing are collapsed; what is left is a shortest path problem with one fixed point (`ssp`),
solved by policy iteration and proven by one inductive check from each side. Interval iteration
(Baier et al. 2017) is there for early stopping: its bounds hold after any number of sweeps.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from likely.errors import InvalidSetting
from likely.mdp import end_components as graph
from likely.mdp.build import mask_of
from likely.mdp.checkpoints import Checkpoint, Resumed
from likely.mdp.problem import MDP
from likely.mdp.solution import Solution, TracePoint, sentence
from likely.mdp.ssp import Paths, Solved, solve_paths
from likely.mdp.transient import UNIT

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]


class _Case:
    """One undiscounted problem as a maximisation: which states are open, what they collect."""

    def __init__(self, mdp: MDP) -> None:
        self.mdp = mdp
        self.rows = graph.Rows.of(mdp)
        self.open: Mask = np.zeros(mdp.states, dtype=np.bool_)  # to be solved for
        self.usable: Mask = np.ones(mdp.pairs, dtype=np.bool_)
        self.fixed: FloatArray = np.zeros(mdp.states)  # value where not open
        self.reward: FloatArray = np.zeros(mdp.pairs)
        self.may_stop = False  # whether a free end component may be stayed in for ever


def reachability(
    mdp: MDP,
    target: npt.ArrayLike,
    tolerance: float,
    *,
    objective: str = "max",
    stay: npt.ArrayLike | None = None,
    max_iterations: int | None = None,
    max_seconds: float | None = None,
    checkpoint: Checkpoint | None = None,
) -> Solution:
    """Probability of reaching `target`; see `solve(criterion="reachability")`."""
    began = time.perf_counter()
    goal = mask_of(target, mdp.states, "target")
    through = ~goal & ~mdp.terminal
    if stay is not None:
        through &= mask_of(stay, mdp.states, "stay")
    case = _Case(mdp)
    sign = 1.0 if objective == "max" else -1.0
    if objective == "max":
        never = ~graph.can_reach(case.rows, goal, through)
        surely = graph.surely_reach(case.rows, goal, through & ~never)
    else:
        never = ~graph.cannot_avoid(case.rows, goal, through)
        surely = goal | (~graph.can_reach(case.rows, never, ~goal) & ~never)
    surely |= goal
    case.fixed[surely] = sign
    case.open = ~never & ~surely
    case.reward = sign * _mass(mdp, surely)
    limits = _Limits(began, max_iterations, max_seconds, checkpoint)
    solved = _solve(case, tolerance, limits, (-1.0, 0.0) if sign < 0.0 else (0.0, 1.0))
    chosen = solved.chosen
    if objective == "max":
        # Inside the region of probability one the policy must make progress, not only stay.
        chosen = _progress(case, chosen, goal, surely & ~goal)
    else:
        # Where the target can be avoided for ever, the policy must do so.
        avoiding = np.flatnonzero(case.rows.every(never) & never[case.rows.owner])[::-1]
        chosen[case.rows.owner[avoiding]] = avoiding
    return _solution(mdp, solved, chosen, sign, tolerance, limits.began, {
        "criterion": "reachability", "objective": objective, "target": int(goal.sum()),
    })  # fmt: skip


def total_reward(
    mdp: MDP,
    tolerance: float,
    *,
    objective: str = "max",
    target: npt.ArrayLike | None = None,
    max_iterations: int | None = None,
    max_seconds: float | None = None,
    checkpoint: Checkpoint | None = None,
) -> Solution:
    """Expected undiscounted sum of rewards; see `solve(criterion="total")`.

    With `target`, rewards are collected until the target is reached, and a state from which it
    is not reached with probability one has value infinity (as in PRISM: for "max" under some
    policy, for "min" under every policy). Without, the sum runs for ever or until a terminal
    state; it must be bounded above (for "max"), and is minus infinity where every policy may be
    caught in a cycle that costs.
    """
    began = time.perf_counter()
    sign = 1.0 if objective == "max" else -1.0
    case = _Case(mdp)
    case.reward = sign * mdp.reward
    if target is None:
        free = (case.reward == 0.0) & case.rows.every(~mdp.terminal)
        component, _ = graph.maximal_end_components(case.rows, free)
        rest = mdp.terminal | (component >= 0)
        finite = graph.surely_reach(case.rows, rest, ~rest)
        _check_bounded(mdp, case.reward)
        case.open = finite & ~mdp.terminal
        case.fixed[~finite] = -np.inf
        case.usable = case.rows.every(finite)
        case.may_stop = True
    else:
        goal = mask_of(target, mdp.states, "target")
        through = ~goal & ~mdp.terminal
        if objective == "max":
            finite = graph.always_reach(case.rows, goal, through)
        else:
            finite = graph.surely_reach(case.rows, goal, through)
            _check_bounded(mdp, case.reward)
        case.open = finite & ~goal
        case.fixed[~finite] = np.inf * sign
        case.usable = case.rows.every(finite)
    limits = _Limits(began, max_iterations, max_seconds, checkpoint)
    solved = _solve(case, tolerance, limits, (-np.inf, np.inf))
    return _solution(mdp, solved, solved.chosen, sign, tolerance, limits.began, {
        "criterion": "total", "objective": objective,
    })  # fmt: skip


def _mass(mdp: MDP, inside: Mask) -> FloatArray:
    """[pairs] probability of moving inside."""
    return np.asarray(mdp.transition @ inside.astype(np.float64))


class _Outcome:
    """Bounds [S] in the sense of the maximisation, chosen pairs [S], and how it went."""

    def __init__(self, case: _Case) -> None:
        self.lower = case.fixed.copy()
        self.upper = case.fixed.copy()
        self.chosen: Array = np.full(case.mdp.states, -1, dtype=np.int64)
        self.iterations = 0
        self.outcome = "converged"
        self.trace: list[TracePoint] = []
        self.method = "policy-iteration"


@dataclasses.dataclass
class _Limits:
    """When it began (less what earlier runs took), when to stop, and where to keep the state."""

    began: float
    max_iterations: int | None
    max_seconds: float | None
    checkpoint: Checkpoint | None

    @property
    def until(self) -> float:
        """The latest time of `time.perf_counter`."""
        return np.inf if self.max_seconds is None else self.began + self.max_seconds


def _solve(case: _Case, tolerance: float, limits: _Limits, range_: tuple[float, float]) -> _Outcome:
    outcome = _Outcome(case)
    if not bool(case.open.any()):
        return outcome
    group, inside, paths, pair_of = _collapse(case)
    bounded = np.isfinite(range_[0]) and np.isfinite(range_[1])
    intervals = bounded and not (limits.max_iterations is None and limits.max_seconds is None)
    resumed = None
    if limits.checkpoint is not None:
        shape = (paths.states,)
        resumed = limits.checkpoint.load(dict.fromkeys(("low", "high", "chosen"), shape))
    if resumed is not None:  # by the method that wrote it
        intervals = "low" in resumed.arrays
        limits.began -= resumed.seconds
        outcome.trace = resumed.trace
    if intervals:
        found = _intervals(paths, tolerance, range_, limits, outcome, resumed)
    else:
        found = _policies(paths, range_, limits, resumed)
        outcome.iterations, outcome.outcome = found.iterations, found.outcome
    members = np.flatnonzero(case.open)
    outcome.lower[members] = np.maximum(found.lower, range_[0])[group[members]]
    outcome.upper[members] = np.minimum(found.upper, range_[1])[group[members]]
    rows = pair_of[found.chosen]  # [groups] pair of the MDP, -1 for stopping
    taken = rows[rows >= 0]
    outcome.chosen[case.rows.owner[taken]] = taken
    settled = outcome.chosen >= 0
    filled = graph.inward_policy(case.rows, group, inside, settled)
    missing = (outcome.chosen < 0) & (filled >= 0)
    outcome.chosen[missing] = filled[missing]
    # A component in which the policy stops stays inside.
    rest = np.flatnonzero(inside)[::-1]
    stopped = np.full(case.mdp.states, -1, dtype=np.int64)
    stopped[case.rows.owner[rest]] = rest
    missing = case.open & (outcome.chosen < 0)
    outcome.chosen[missing] = stopped[missing]
    return outcome


def _collapse(case: _Case) -> tuple[Array, Mask, Paths, Array]:
    """Open states with free end components merged; groups [S], pairs inside, paths, pair map."""
    from scipy import sparse

    mdp, rows = case.mdp, case.rows
    live = case.usable & case.open[rows.owner]
    free = live & (case.reward == 0.0) & rows.every(case.open)
    component, inside = graph.maximal_end_components(rows, free)
    group = np.full(mdp.states, -1, dtype=np.int64)
    count = int(component.max(initial=-1)) + 1
    group[component >= 0] = component[component >= 0]
    single = np.flatnonzero(case.open & (component < 0))
    group[single] = count + np.arange(len(single))
    total = count + len(single)
    kept = np.flatnonzero(live & ~inside)
    owner = group[rows.owner[kept]]
    if case.may_stop:
        kept = np.concatenate([kept, np.full(count, -1, dtype=np.int64)])
        owner = np.concatenate([owner, np.arange(count)])
    order = np.argsort(owner, kind="stable")
    kept, owner = kept[order], owner[order]
    real = kept >= 0
    # Rows over groups: columns of open states are merged, the rest of the mass ends the path.
    members = np.flatnonzero(case.open)
    merge = sparse.csr_array(
        (np.ones(len(members)), (members, group[members])), shape=(mdp.states, total)
    )
    moves = (mdp.transition[np.maximum(kept, 0)] @ merge).tocsr()
    moves = sparse.csr_array(sparse.diags_array(real.astype(np.float64)) @ moves)
    moves.eliminate_zeros()
    ends = np.where(real, _mass(mdp, ~case.open)[np.maximum(kept, 0)], 1.0)
    # `reward` of a reachability problem already holds what the fixed states are worth.
    reward = np.where(real, case.reward[np.maximum(kept, 0)], 0.0)
    pair_ptr = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=total))])
    longest = int(np.diff(mdp.indptr).max(initial=0))
    paths = Paths(pair_ptr, moves, reward, ends, mdp.row_defect + 2.0 * longest * UNIT)
    empty = np.flatnonzero(np.diff(pair_ptr) == 0)
    if len(empty):
        state = int(np.flatnonzero(group == empty[0])[0])
        raise InvalidSetting(
            f"{mdp.state_name(state)} can never end: an end component without an exit; "
            "the criterion is not defined there"
        )
    return group, inside, paths, kept


def _check_bounded(mdp: MDP, reward: FloatArray) -> None:
    """Refuse cycles that pay: the total reward of staying in them is not bounded, or undecided."""
    if not bool((reward > 0.0).any()):
        return
    rows = graph.Rows.of(mdp)
    component, inside = graph.maximal_end_components(rows, np.ones(mdp.pairs, dtype=np.bool_))
    paying = inside & (reward > 0.0)
    if not bool(paying.any()):
        return
    from likely.mdp.average import average_reward

    for label in np.unique(component[rows.owner[paying]]):
        part = np.flatnonzero(component == label)
        pairs = np.flatnonzero(inside & (component[rows.owner] == label))
        number = np.full(mdp.states, -1, dtype=np.int64)
        number[part] = np.arange(len(part))
        sub = mdp.transition[pairs][:, part].tocsr()
        loop = MDP.from_pairs(
            np.concatenate([[0], np.cumsum(np.bincount(number[rows.owner[pairs]]))]),
            sub.indptr, sub.indices, sub.data, reward[pairs], 1.0,
        )  # fmt: skip
        scale = float(np.abs(loop.reward).max())
        best = average_reward(loop, 1e-9 * scale, max_iterations=100_000)
        if best.upper[0] < 0.0:
            continue
        what = "pays without end" if best.lower[0] > 0.0 else "may pay without end or break even"
        raise InvalidSetting(
            f"total reward: a cycle through {mdp.state_name(int(part[0]))} {what} (average reward "
            f"in [{best.lower[0]:.3g}, {best.upper[0]:.3g}] a step); give a discount below 1, or "
            'criterion="average"'
        )


def _policies(
    paths: Paths, range_: tuple[float, float], limits: _Limits, resumed: Resumed | None
) -> Solved:
    """Policies are improved one by one; each gives a proven lower bound."""
    checkpoint, made = limits.checkpoint, 0 if resumed is None else resumed.iterations
    start = None if resumed is None else resumed.arrays["chosen"]

    def keep(chosen: Array, iteration: int, last: bool) -> None:
        if checkpoint is not None and (last or checkpoint.due()):
            seconds, count = time.perf_counter() - limits.began, made + iteration
            checkpoint.save({"chosen": chosen}, count, count, seconds, ())

    limit = max(0, (limits.max_iterations or 1000) - made)
    try:
        found = solve_paths(paths, limit, limits.until, start, keep)
    except KeyboardInterrupt:  # before the first policy was evaluated
        found = Solved(
            np.full(paths.states, range_[0]), np.full(paths.states, range_[1]),
            np.asarray(paths.pair_ptr[:-1]), 0, "interrupted",
        )  # fmt: skip
    return dataclasses.replace(found, iterations=made + found.iterations)


def _intervals(
    paths: Paths,
    tolerance: float,
    range_: tuple[float, float],
    limits: _Limits,
    outcome: _Outcome,
    resumed: Resumed | None,
) -> Solved:
    """Interval iteration: T from below and from above, every backup rounded outwards."""
    outcome.method = "interval-iteration"
    first = paths.pair_ptr[:-1]
    counts = np.diff(paths.rows.indptr)
    low = np.full(paths.states, range_[0])
    high = np.full(paths.states, range_[1])
    if resumed is not None:
        low, high = resumed.arrays["low"], resumed.arrays["high"]
        outcome.iterations = resumed.iterations
    top = max(abs(range_[0]), abs(range_[1]))
    # One backup rounds by at most this; the defect of a row moves it by as much again.
    slack = float(counts.max(initial=0) + 4) * UNIT * 2.0 * top + paths.defect * top
    limit = limits.max_iterations if limits.max_iterations is not None else 10_000_000

    def save() -> None:
        if limits.checkpoint is not None:
            made, seconds = outcome.iterations, time.perf_counter() - limits.began
            limits.checkpoint.save(
                {"low": low, "high": high}, made, 2 * made, seconds, outcome.trace
            )

    outcome.outcome = "iterations"
    chosen = np.asarray(first)
    try:
        while outcome.iterations < limit:
            q = paths.reward + paths.rows @ low
            # A monotone operator maps a lower bound to a lower bound; the better one is kept.
            low = np.maximum(low, np.maximum.reduceat(q, first) - slack)
            above = np.maximum.reduceat(paths.reward + paths.rows @ high, first) + slack
            high = np.minimum(high, above)
            outcome.iterations += 1
            error = 0.5 * float((high - low).max())
            seconds = time.perf_counter() - limits.began
            if outcome.iterations & (outcome.iterations - 1) == 0 or error <= tolerance:
                outcome.trace.append(
                    TracePoint(outcome.iterations, 2.0 * outcome.iterations, seconds, error)
                )
            if error <= tolerance:
                outcome.outcome = "converged"
                break
            if time.perf_counter() >= limits.until:
                outcome.outcome = "time"
                break
            if limits.checkpoint is not None and limits.checkpoint.due():
                save()
    except KeyboardInterrupt:
        outcome.outcome = "interrupted"
    save()
    q = paths.reward + paths.rows @ low
    best = np.maximum.reduceat(q, first)
    at = np.flatnonzero(q == best[paths.owner])[::-1]
    chosen = np.array(first)
    chosen[paths.owner[at]] = at
    return Solved(low, high, chosen, outcome.iterations, outcome.outcome)


def _progress(case: _Case, chosen: Array, goal: Mask, region: Mask) -> Array:
    """Fill the region of probability one with pairs that stay in it and approach the goal."""
    inside = goal | region
    usable = case.rows.every(inside) & region[case.rows.owner]
    inward = graph.inward_policy(case.rows, np.zeros(0), usable, goal)
    filled = np.where(region & (inward >= 0), inward, chosen)
    return np.asarray(filled)


def _solution(
    mdp: MDP, solved: _Outcome, chosen: Array, sign: float, tolerance: float, began: float,
    about: dict[str, Any],
) -> Solution:  # fmt: skip
    lower, upper = solved.lower, solved.upper
    if sign < 0.0:
        lower, upper = -upper + 0.0, -lower + 0.0
    with np.errstate(invalid="ignore"):
        value = np.where(lower == upper, lower, 0.5 * (lower + upper))
        width = np.where(lower == upper, 0.0, upper - lower)
    error = 0.5 * float(width.max(initial=0.0))
    if error <= tolerance:
        solved.outcome = "converged"
    elif solved.outcome == "converged":
        solved.outcome = "rounding"
    seconds = time.perf_counter() - began
    status = sentence(solved.outcome, error, tolerance, solved.iterations, seconds)
    # States that have pairs but where all is decided: any pair will do.
    policy = np.full(mdp.states, -1, dtype=np.int64)
    live = ~mdp.terminal
    policy[live] = mdp.pair_action[mdp.pair_ptr[:-1][live]]
    known = chosen >= 0
    policy[known] = mdp.pair_action[chosen[known]]
    about |= {"method": solved.method, "tolerance": tolerance, "seconds": seconds}
    return Solution(
        policy=policy, value=value, lower=lower, upper=upper, iterations=solved.iterations,
        outcome=solved.outcome, status=status, trace=tuple(solved.trace), about=about,
    )  # fmt: skip
