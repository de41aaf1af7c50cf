"""A grid world drawn in text, solved, certified, simulated and painted.

python examples/gridworld.py [picture.png]
"""

from __future__ import annotations

import sys

from likely import mdp

ISLAND = """
; an island with a swamp (each step in it costs 3 more), two huts and a volcano
discount: 0.99
step: -1
slip: 1/10
M = reward -3
A = end 30
B = end 8
V = end -50

##########
#S....MMM#
#.##..MMA#
#..#..VMM#
#B.#.....#
#..#..##.#
#........#
##########
"""


def main(picture: str | None = None) -> float:
    """Solve the island; returns the value of the start."""
    island = mdp.MDP.from_grid(ISLAND)
    best = mdp.solve(island, tolerance=1e-9)
    check = mdp.certify(island, best.value)
    start = int(island.initial.argmax()) if island.initial is not None else 0
    print(best.status)
    print(f"start: V* in [{best.lower[start]:.9f}, {best.upper[start]:.9f}]")
    print(f"rechecked by one backup: {check}")
    print(f"simulated: {mdp.simulate(island, best.policy, episodes=20_000, seed=0)}")
    if picture is not None:
        print(mdp.plots.heat_map(picture, island, best.value, "island"))
    return float(best.value[start])


if __name__ == "__main__":
    main(*sys.argv[1:2])
