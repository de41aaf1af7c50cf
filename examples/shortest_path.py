"""Shortest paths by dynamic programming: Bellman's equation is Dijkstra's invariant.

The principle of optimality in one line: the rest of a shortest path is a shortest path. So the
distance satisfies d(u) = min over roads (u, v) of length(u, v) + d(v), which is the Bellman
optimality equation of a deterministic MDP with reward -length and discount 1. The value function
is the cache: each city's distance is found once, however many routes pass through it.

    python examples/shortest_path.py
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from likely import mdp

# Road lengths in km, one direction each; both are travelled alike.
ROADS = {
    ("Arad", "Zerind"): 75, ("Arad", "Sibiu"): 140, ("Arad", "Timisoara"): 118,
    ("Zerind", "Oradea"): 71, ("Oradea", "Sibiu"): 151, ("Timisoara", "Lugoj"): 111,
    ("Lugoj", "Mehadia"): 70, ("Mehadia", "Drobeta"): 75, ("Drobeta", "Craiova"): 120,
    ("Craiova", "Rimnicu Vilcea"): 146, ("Craiova", "Pitesti"): 138, ("Sibiu", "Fagaras"): 99,
    ("Sibiu", "Rimnicu Vilcea"): 80, ("Rimnicu Vilcea", "Pitesti"): 97,
    ("Fagaras", "Bucharest"): 211, ("Pitesti", "Bucharest"): 101,
}  # fmt: skip

GOAL = "Bucharest"


def neighbours() -> dict[str, dict[str, int]]:
    """City to {neighbour: length}."""
    roads: dict[str, dict[str, int]] = {}
    for (one, other), length in ROADS.items():
        roads.setdefault(one, {})[other] = length
        roads.setdefault(other, {})[one] = length
    return roads


def problem(start: str) -> mdp.MDP:
    """The MDP of driving to the goal: an action is the city to drive to next."""
    roads = neighbours()

    def step(city: str, to: str) -> list[tuple[float, str, float]]:
        return [(1.0, to, -float(roads[city][to]))]

    def actions(city: str) -> Iterable[str]:
        return () if city == GOAL else sorted(roads[city])

    return mdp.MDP.from_step(step, [start], actions)


def route(start: str) -> tuple[list[str], float]:
    """The shortest route to the goal and its length in km."""
    drive = problem(start)
    best = mdp.total_reward(drive, tolerance=1e-9)
    names = drive.state_names or ()
    steps = drive.action_names or ()
    city, path = start, [start]
    while city != GOAL:
        city = steps[int(best.policy[names.index(city)])]
        path.append(city)
    return path, -float(best.value[names.index(start)])


def dijkstra(start: str) -> float:
    """The same length by Dijkstra's algorithm, which shares no code with the solver."""
    roads, done, queue = neighbours(), set(), [(0.0, start)]
    while queue:
        length, city = heapq.heappop(queue)
        if city == GOAL:
            return length
        if city not in done:
            done.add(city)
            for to, more in roads[city].items():
                heapq.heappush(queue, (length + more, to))
    raise ValueError(f"{GOAL} cannot be reached from {start}")


def main() -> None:
    """Print the route of every city, checked against Dijkstra."""
    for start in ("Arad", "Oradea", "Drobeta"):
        path, length = route(start)
        agrees = "agrees" if abs(length - dijkstra(start)) < 1e-6 else "DIFFERS"
        print(f"{length:4.0f} km  {' - '.join(path)}  ({agrees} with Dijkstra)")


if __name__ == "__main__":
    main()
