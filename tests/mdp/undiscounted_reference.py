"""Undiscounted values by brute force: every deterministic policy, in rational arithmetic.

Shares no code with the library. A policy is judged by the states it may end up in for ever: its
recurrent classes, whose average reward says whether the sum settles, breaks even or runs away.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from likely.mdp import MDP

Chain = dict[int, tuple[Fraction, dict[int, Fraction]]]
Value = Fraction | float
INFINITE = float("inf")


def rows_of(mdp: MDP) -> list[list[tuple[Fraction, dict[int, Fraction]]]]:
    """Reward and moves of every action of every state: the stored numbers, rows scaled to one."""
    result = []
    for state in range(mdp.states):
        choices = []
        for pair in range(int(mdp.pair_ptr[state]), int(mdp.pair_ptr[state + 1])):
            span = range(int(mdp.indptr[pair]), int(mdp.indptr[pair + 1]))
            moves = {int(mdp.indices[k]): Fraction(float(mdp.probability[k])) for k in span}
            total = sum(moves.values())
            scaled = {s: p / total for s, p in moves.items()}
            choices.append((Fraction(float(mdp.reward[pair])), scaled))
        result.append(choices)
    return result


def policies(mdp: MDP) -> Iterator[dict[int, int]]:
    """Every deterministic policy: the place of the action among the state's actions."""
    live = [s for s in range(mdp.states) if not mdp.terminal[s]]
    counts = [range(int(mdp.pair_ptr[s + 1] - mdp.pair_ptr[s])) for s in live]
    for places in itertools.product(*counts):
        yield dict(zip(live, places, strict=True))


def reachable(chain: Chain, start: int) -> set[int]:
    """States that the chain may visit, the start included."""
    seen, stack = {start}, [start]
    while stack:
        for following in chain.get(stack.pop(), (0, {}))[1]:
            if following not in seen:
                seen.add(following)
                stack.append(following)
    return seen


def eliminate(system: list[list[Fraction]]) -> list[Fraction]:
    """Solve an augmented square system."""
    n = len(system)
    for i in range(n):
        pivot = next(j for j in range(i, n) if system[j][i])
        system[i], system[pivot] = system[pivot], system[i]
        system[i] = [x / system[i][i] for x in system[i]]
        for j in range(n):
            if j != i and system[j][i]:
                factor = system[j][i]
                system[j] = [x - factor * y for x, y in zip(system[j], system[i], strict=True)]
    return [line[n] for line in system]


def expected(chain: Chain, ends: dict[int, Fraction]) -> dict[int, Fraction]:
    """Expected sum until `ends` (and its value there), of states that end with probability one."""
    states = [s for s in chain if s not in ends]
    number = {s: i for i, s in enumerate(states)}
    system = []
    for s in states:
        reward, moves = chain[s]
        line = [Fraction(0)] * len(states) + [reward]
        line[number[s]] += 1
        for t, p in moves.items():
            if t in ends:
                line[-1] += p * ends[t]
            else:
                line[number[t]] -= p
        system.append(line)
    return dict(zip(states, eliminate(system), strict=True)) | ends


def gain(chain: Chain, members: list[int]) -> Fraction:
    """Average reward a step of a recurrent class."""
    number = {s: i for i, s in enumerate(members)}
    system = [[Fraction(0)] * (len(members) + 1) for _ in members]
    for s in members:
        for t, p in chain[s][1].items():
            system[number[t]][number[s]] += p
        system[number[s]][number[s]] -= 1
    system[0] = [Fraction(1)] * (len(members) + 1)
    share = eliminate(system)
    return sum((share[number[s]] * chain[s][0] for s in members), Fraction(0))


def of_policy(
    mdp: MDP, policy: dict[int, int], target: set[int] | None, probability: bool
) -> list[Value | None]:
    """Value [S] of a policy; None where its sum never settles, infinities where it runs away.

    With a target and rewards, a state that may miss the target has value None as well: what that
    is worth depends on the objective.
    """
    rows = rows_of(mdp)
    goal = target or set()
    chain = {s: rows[s][a] for s, a in policy.items() if s not in goal}
    result: list[Value | None] = []
    seen = {s: reachable(chain, s) for s in range(mdp.states)}
    recurrent = [s for s in chain if all(s in seen[t] for t in seen[s])]
    if probability:
        hopeless = {s for s in range(mdp.states) if not seen[s] & goal}
        ends = {s: Fraction(0) for s in hopeless} | {s: Fraction(1) for s in goal}
        value = expected({s: (Fraction(0), m) for s, (_, m) in chain.items()}, ends)
        return [value[s] for s in range(mdp.states)]
    if target is not None:
        stuck = set(recurrent) | {s for s in range(mdp.states) if mdp.terminal[s]} - goal
        sure = {s for s in range(mdp.states) if not seen[s] & stuck}
        value = expected(
            {s: row for s, row in chain.items() if s in sure}, {s: Fraction(0) for s in goal}
        )
        return [value.get(s) if s in sure else None for s in range(mdp.states)]
    worth: dict[int, Value | None] = {s: Fraction(0) for s in range(mdp.states) if mdp.terminal[s]}
    for s in recurrent:
        members = sorted(seen[s])
        average = gain(chain, members)
        if average:
            worth[s] = INFINITE if average > 0 else -INFINITE
        else:
            worth[s] = Fraction(0) if not any(chain[t][0] for t in members) else None
    for s in range(mdp.states):
        met = [worth[t] for t in seen[s] if t in worth]
        wild = [w for w in met if w is None or isinstance(w, float)]
        if None in wild or (INFINITE in wild and -INFINITE in wild):
            result.append(None)
        elif wild:
            result.append(wild[0])
        else:
            ends = {t: Fraction(0) for t in seen[s] if t in worth}
            part = {t: chain[t] for t in seen[s] if t in chain}
            result.append(expected(part, ends)[s])
    return result


def best(
    mdp: MDP, objective: str, target: set[int] | None = None, probability: bool = False
) -> list[Value | None]:
    """Optimal value [S] over all deterministic policies; None where no policy has one."""
    sign = 1 if objective == "max" else -1
    result: list[Value | None] = [None] * mdp.states
    for policy in policies(mdp):
        for s, found in enumerate(of_policy(mdp, policy, target, probability)):
            value = found
            if value is None and target is not None:
                value = INFINITE  # the target may be missed
            if value is not None and (result[s] is None or sign * value > sign * result[s]):
                result[s] = value
    return result


def small_problem(
    seed: int, rewards: tuple[float, ...], states: int = 5, dyadic: bool = True
) -> MDP:
    """A random problem of few states, actions and rewards, with many ways to go round."""
    rng = np.random.default_rng(seed)
    pair_ptr, indptr, indices, weights, reward = [0], [0], [], [], []
    terminal = rng.random(states) < 0.15
    for s in range(states):
        for _ in range(0 if terminal[s] else int(rng.integers(1, 4 if s < 3 else 3))):
            count = int(rng.integers(1, 4))
            following = rng.choice(states, min(count, states), replace=False)
            split = [[1.0], [0.5, 0.5], [0.5, 0.25, 0.25]][len(following) - 1]
            if not dyadic and len(following) > 1:
                parts = rng.random(len(following)) + 0.05
                split = (parts / parts.sum()).tolist()
            indices += following.tolist()
            weights += split
            indptr.append(len(indices))
            reward.append(float(rng.choice(rewards)))
        pair_ptr.append(len(reward))
    return MDP.from_pairs(pair_ptr, indptr, indices, weights, reward, 1.0, terminal=terminal)
