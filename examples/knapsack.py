"""The knapsack problem by dynamic programming: overlapping subproblems, cached as a value.

A thief packs items in order: take the next one or leave it. What is still possible depends only
on (next item, room left), not on what was taken before: that is the state. 2^n packings share
few such states, and the value function stores the best of each, once.

    python examples/knapsack.py
"""

from __future__ import annotations

from itertools import product

from likely import mdp

# (name, weight in kg, worth)
ITEMS = (
    ("lamp", 3, 40), ("books", 8, 65), ("radio", 4, 55), ("violin", 5, 90), ("clock", 2, 25),
    ("kettle", 3, 20), ("painting", 7, 120), ("coat", 4, 45), ("camera", 2, 60),
    ("globe", 6, 50), ("carpet", 9, 110), ("vase", 5, 35),
)  # fmt: skip
ROOM = 20

State = tuple[int, int]  # next item, room left


def step(state: State, action: str) -> list[tuple[float, State, float]]:
    """Take or leave the next item; taking pays its worth."""
    item, room = state
    _, weight, worth = ITEMS[item]
    if action == "take":
        return [(1.0, (item + 1, room - weight), float(worth))]
    return [(1.0, (item + 1, room), 0.0)]


def actions(state: State) -> list[str]:
    """What is possible: nothing after the last item."""
    item, room = state
    if item == len(ITEMS):
        return []
    return ["leave", "take"] if ITEMS[item][1] <= room else ["leave"]


def pack() -> tuple[list[str], float, int]:
    """The best packing, its worth, and how many states it took."""
    problem = mdp.MDP.from_step(step, [(0, ROOM)], actions)
    best = mdp.total_reward(problem, tolerance=1e-9)
    names = {name: i for i, name in enumerate(problem.state_names or ())}
    labels = problem.action_names or ()
    state, taken = (0, ROOM), []
    while actions(state):
        action = labels[int(best.policy[names[str(state)]])]
        if action == "take":
            taken.append(ITEMS[state[0]][0])
        state = step(state, action)[0][1]
    return taken, float(best.value[0]), problem.states


def brute_force() -> int:
    """The best worth over all 2^n packings."""
    best = 0
    for choice in product((0, 1), repeat=len(ITEMS)):
        weight = sum(c * item[1] for c, item in zip(choice, ITEMS, strict=True))
        if weight <= ROOM:
            best = max(best, sum(c * item[2] for c, item in zip(choice, ITEMS, strict=True)))
    return best


def main() -> None:
    """Print the packing, checked against all packings."""
    taken, worth, states = pack()
    print(f"take {', '.join(taken)}: worth {worth:.0f}")
    print(f"{states} states instead of {2 ** len(ITEMS)} packings")
    print(f"brute force over all packings: worth {brute_force()}")


if __name__ == "__main__":
    main()
