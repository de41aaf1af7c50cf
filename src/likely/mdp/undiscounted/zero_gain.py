"""Cycles that pay: does an end component gain, lose, or break even exactly?

The total reward is bounded above only if no end component gains on average. One that breaks even
has a potential h with r + P h - h <= 0 for all its actions; with r + P h - h for r, and V - h for
V, the actions that can be repeated for ever at no loss become free, and are merged like any free
ones (Baier, Bertrand, Dubslaff, Gburek and Sankur 2018). "Exactly" means rational arithmetic on
the stored numbers, rows scaled to one; policy iteration in it is kept to small components.
"""
# mypy: disallow-untyped-calls=False

from __future__ import annotations

from fractions import Fraction

import numpy as np

from likely.errors import InvalidSetting
from likely.mdp.model.arrays import Array, FloatArray, Mask
from likely.mdp.model.problem import MDP, frozen
from likely.mdp.undiscounted import end_components as graph

EXACT = 60  # states (free components count as one) up to which rational arithmetic is used
Row = tuple[Fraction, dict[int, Fraction]]


def potentials(
    mdp: MDP, rows: graph.Edges, reward: FloatArray, live: Mask, component: Array, inside: Mask
) -> dict[int, Fraction]:
    """The potential of each state in a component that breaks even; empty where there is none.

    Args:
        mdp: names for messages, probabilities.
        rows: its edges.
        reward: [pairs] of the maximisation.
        live: [pairs] that may be taken.
        component, inside: free components [S] and their pairs [pairs].

    Raises:
        InvalidSetting: a component gains, or nothing could be decided.
    """
    if not bool((reward[live] > 0.0).any()):
        return {}
    whole, loops = graph.maximal_end_components(rows, live)
    paying = np.unique(whole[rows.owner[loops & (reward > 0.0)]])
    known: dict[int, Fraction] = {}
    for label in paying:
        members = np.flatnonzero(whole == label)
        pairs = np.flatnonzero(loops & (whole[rows.owner] == label) & ~inside)
        known |= _component(mdp, rows, reward, members, pairs, component)
    return known


def shaped(
    mdp: MDP, rows: graph.Edges, reward: FloatArray, live: Mask, known: dict[int, Fraction]
) -> FloatArray:
    """[pairs] r + P h - h, rounded once."""
    touched = np.zeros(mdp.states, dtype=np.bool_)
    touched[list(known)] = True
    pairs = np.flatnonzero(live & (~rows.every(~touched) | touched[rows.owner]))
    result = reward.copy()
    for pair in pairs.tolist():
        gain, moves = _exact_row(mdp, reward, pair)
        total = gain - known.get(int(rows.owner[pair]), Fraction(0))
        total += sum((p * known.get(s, Fraction(0)) for s, p in moves.items()), Fraction(0))
        result[pair] = float(total)
    return result


def _exact_row(mdp: MDP, reward: FloatArray, pair: int) -> Row:
    """Reward and probabilities of a pair, scaled to one, without rounding."""
    span = range(int(mdp.indptr[pair]), int(mdp.indptr[pair + 1]))
    parts = {int(mdp.indices[k]): Fraction(float(mdp.probability[k])) for k in span}
    total = sum(parts.values(), Fraction(0))
    return Fraction(float(reward[pair])), {s: p / total for s, p in parts.items()}


def _component(
    mdp: MDP, rows: graph.Edges, reward: FloatArray, members: Array, pairs: Array, component: Array
) -> dict[int, Fraction]:
    """See `potentials`; of one end component, whose free parts are merged."""
    group: dict[int, int] = {}
    first: dict[int, int] = {}  # number of each free component
    for state in members.tolist():
        free = int(component[state])
        number = first.get(free) if free >= 0 else None
        if number is None:
            number = len(set(group.values()))
            if free >= 0:
                first[free] = number
        group[state] = number
    count = len(set(group.values()))
    actions: list[list[Row]] = [[] for _ in range(count)]
    for pair in pairs.tolist():
        gain, moves = _exact_row(mdp, reward, pair)
        merged: dict[int, Fraction] = {}
        for state, p in moves.items():
            merged[group[state]] = merged.get(group[state], Fraction(0)) + p
        actions[group[int(rows.owner[pair])]].append((gain, merged))
    known: dict[int, Fraction] = {}
    for part, kept in _parts(actions):
        if not any(gain > 0 for state in part for gain, _ in kept[state]):
            continue  # it only costs
        name = mdp.state_name(next(s for s in members.tolist() if group[s] == part[0]))
        for state, value in _break_even(part, kept, name).items():
            known |= {s: value for s in members.tolist() if group[s] == state}
    return known


def _parts(actions: list[list[Row]]) -> list[tuple[list[int], list[list[Row]]]]:
    """End components of merged rows: their states, and the rows inside."""
    flat = [(state, row) for state, choices in enumerate(actions) for row in choices]
    pair_ptr = np.concatenate([[0], np.cumsum([len(choices) for choices in actions])])
    indptr = np.concatenate([[0], np.cumsum([len(row[1]) for _, row in flat])])
    columns = np.array([s for _, row in flat for s in row[1]], dtype=np.int64)
    # Of the types that an `MDP` has, for which the searches are compiled anyway.
    rows = graph.Edges.from_csr(*(frozen(a.astype(np.int32)) for a in (pair_ptr, indptr, columns)))
    label, inside = graph.maximal_end_components(rows, np.ones(len(flat), dtype=np.bool_))
    kept: list[list[Row]] = [[] for _ in actions]
    for (state, row), within in zip(flat, inside.tolist(), strict=True):
        if within:
            kept[state].append(row)
    return [(np.flatnonzero(label == part).tolist(), kept) for part in range(int(label.max()) + 1)]


def _break_even(part: list[int], actions: list[list[Row]], name: str) -> dict[int, Fraction]:
    """Potentials where the best cycle breaks even, nothing where every cycle costs."""
    if len(part) > EXACT:
        low, high = _average(part, actions)
        if high < 0.0:
            return {}
        if low > 0.0:
            raise _pays(name, f"average reward in [{low:.3g}, {high:.3g}] a step")
        raise InvalidSetting(
            f"total reward: a cycle through {name} may pay without end or break even (average "
            f"reward in [{low:.3g}, {high:.3g}] a step); give a discount below 1, or ask for the "
            "average reward"
        )
    gain, bias = _howard(part, actions)
    if gain > 0:
        raise _pays(name, f"average reward {float(gain):.6g} a step")
    return bias if gain == 0 else {}


def _pays(name: str, much: str) -> InvalidSetting:
    return InvalidSetting(
        f"total reward: a cycle through {name} pays without end ({much}), so that the sum is "
        "infinite; give a discount below 1, or ask for the average reward"
    )


def _average(part: list[int], actions: list[list[Row]]) -> tuple[float, float]:
    """Bounds on the best average reward a step."""
    from likely.mdp.solvers.average import average_reward

    number = {state: i for i, state in enumerate(part)}
    flat = [row for state in part for row in actions[state]]
    loop = MDP.from_pairs(
        np.concatenate([[0], np.cumsum([len(actions[state]) for state in part])]),
        np.concatenate([[0], np.cumsum([len(moves) for _, moves in flat])]),
        [number[s] for _, moves in flat for s in moves],
        [float(p) for _, moves in flat for p in moves.values()],
        [float(gain) for gain, _ in flat],
        1.0,
    )
    scale = float(np.abs(loop.reward).max())
    best = average_reward(loop, 1e-9 * scale, max_iterations=100_000).uninterrupted()
    return float(best.lower[0]), float(best.upper[0])


def _howard(part: list[int], actions: list[list[Row]]) -> tuple[Fraction, dict[int, Fraction]]:
    """Best average reward a step, and potentials at which no action gains more than it.

    Policy iteration; every policy is first led into its best recurrent class.
    """
    chosen = dict.fromkeys(part, 0)
    seen: set[tuple[int, ...]] = set()
    while True:
        gain, home = _best_class(part, actions, chosen)
        _lead(part, actions, chosen, home)
        policy = tuple(chosen.values())
        bias = _bias(part, actions, chosen, gain, home[0])
        changed = False
        for state in part:
            values = [r + sum(p * bias[s] for s, p in moves.items()) for r, moves in actions[state]]
            best = max(range(len(values)), key=values.__getitem__)
            if values[best] > values[chosen[state]]:
                chosen[state] = best
                changed = True
        if not changed or policy in seen:
            # Classes of one gain could be gone through for ever; a better policy cannot.
            return gain, bias
        seen.add(policy)


def _best_class(
    part: list[int], actions: list[list[Row]], chosen: dict[int, int]
) -> tuple[Fraction, list[int]]:
    """Gain and states of the recurrent class of a policy that gains most."""
    reach = {state: set(actions[state][chosen[state]][1]) for state in part}
    changed = True
    while changed:
        changed = False
        for state in part:
            wider = set().union(reach[state], *(reach[s] for s in reach[state]))
            if len(wider) > len(reach[state]):
                reach[state], changed = wider, True
    classes = {frozenset(reach[s]) for s in part if all(s in reach[t] for t in reach[s])}
    best: tuple[Fraction, list[int]] | None = None
    for states in sorted(sorted(members) for members in classes):
        # Stationary distribution: pi (P - I) = 0, sum pi = 1.
        n = len(states)
        number = {s: i for i, s in enumerate(states)}
        system = [[Fraction(0)] * n + [Fraction(0)] for _ in range(n)]
        for s in states:
            for t, p in actions[s][chosen[s]][1].items():
                system[number[t]][number[s]] += p
            system[number[s]][number[s]] -= 1
        system[0] = [Fraction(1)] * n + [Fraction(1)]
        share = _solve(system)
        gain = sum((share[number[s]] * actions[s][chosen[s]][0] for s in states), Fraction(0))
        if best is None or gain > best[0]:
            best = (gain, states)
    assert best is not None
    return best


def _lead(
    part: list[int], actions: list[list[Row]], chosen: dict[int, int], home: list[int]
) -> None:
    """Make the states outside `home` that would never get there go there."""
    done = set(home)
    certain = _arriving(part, actions, chosen, done)
    done |= certain
    while len(done) < len(part):
        for state in part:
            if state in done:
                continue
            for i, (_, moves) in enumerate(actions[state]):
                if done & set(moves):
                    chosen[state] = i
                    done.add(state)
                    break


def _arriving(
    part: list[int], actions: list[list[Row]], chosen: dict[int, int], home: set[int]
) -> set[int]:
    """States from which the policy arrives at `home` with probability one."""
    can = set(home)
    changed = True
    while changed:
        changed = False
        for state in part:
            if state not in can and can & set(actions[state][chosen[state]][1]):
                can.add(state)
                changed = True
    never = set(part) - can
    changed = True
    while changed:
        changed = False
        for state in part:
            after = set(actions[state][chosen[state]][1])
            if state not in never and state not in home and never & after:
                never.add(state)
                changed = True
    return set(part) - never


def _bias(
    part: list[int], actions: list[list[Row]], chosen: dict[int, int], gain: Fraction, at: int
) -> dict[int, Fraction]:
    """h = r - gain + P h with h = 0 `at` a state of the recurrent class."""
    number = {s: i for i, s in enumerate(part)}
    system = []
    for s in part:
        reward, moves = actions[s][chosen[s]]
        line = [Fraction(0)] * len(part) + [reward - gain]
        line[number[s]] += 1
        for t, p in moves.items():
            line[number[t]] -= p
        if s == at:
            line = [Fraction(0)] * (len(part) + 1)
            line[number[s]] = Fraction(1)
        system.append(line)
    return dict(zip(part, _solve(system), strict=True))


def _solve(system: list[list[Fraction]]) -> list[Fraction]:
    """Gauss-Jordan elimination of an augmented square system."""
    n = len(system)
    for i in range(n):
        pivot = next(j for j in range(i, n) if system[j][i] != 0)
        system[i], system[pivot] = system[pivot], system[i]
        scale = system[i][i]
        system[i] = [x / scale for x in system[i]]
        for j in range(n):
            factor = system[j][i]
            if j != i and factor != 0:
                system[j] = [
                    x - factor * y if y else x for x, y in zip(system[j], system[i], strict=True)
                ]
    return [line[n] for line in system]
