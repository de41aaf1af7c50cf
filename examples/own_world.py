"""A room of one's own: an environment, thirty days of random heating, a plan, and its three errors.

python examples/own_world.py
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from likely import world


class Room(gymnasium.Env[Any, Any]):
    """Indoor and outdoor temperature every half hour; heating costs, and so does a cold room."""

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(-20.0, 40.0, (2,), np.float64)
        self.action_space = gymnasium.spaces.Discrete(3)  # off, low, high

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.state, self.steps = self.np_random.uniform([12.0, -5.0], [22.0, 10.0]), 0
        return self.state.copy(), {}

    def step(self, action: Any) -> Any:
        inside, outside = self.state
        noise = self.np_random.normal(0.0, [0.1, 0.5])
        inside += 0.1 * (outside - inside) + 1.5 * int(action) + noise[0]
        outside += 0.05 * (5.0 - outside) + noise[1]
        self.state, self.steps = np.array([inside, outside]), self.steps + 1
        cost = 0.5 * int(action) + abs(inside - 20.0)
        return self.state.copy(), -cost, False, self.steps >= 48, {}


# The reward is declared; that a day is cut but never ends is seen in the log.
TASK = world.Task(
    "room", Room, ("inside", "outside"), (5.0, -10.0), (30.0, 20.0), (0, 1, 2),
    reward=lambda state, action, after: -0.5 * action - abs(after[..., 0] - 20.0),
    discount=0.95, grid=(51, 16), degree=1, hold=4.0,
)  # fmt: skip


def main() -> float:
    log = world.collect(TASK, n=1440, seed=0)
    plan = world.plan(world.fit(log, task=TASK))
    print(log)
    print(world.errors(plan, TASK, nats=world.validate(log, task=TASK), episodes=50))
    thermostat = world.act(TASK, lambda seen: np.where(seen[:, 0] < 20.0, 2, 0), 50)
    planned = world.act(TASK, plan, 50)
    print(f"thermostat at 20 degrees: {thermostat}\nplan: {planned}")
    return float((planned.returns - thermostat.returns).mean())


if __name__ == "__main__":
    main()
