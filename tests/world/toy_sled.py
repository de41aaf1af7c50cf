"""A sled whose speed is hidden and whose place is seen through noise."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from likely import world


class Sled(gymnasium.Env[Any, Any]):
    """v' = v + 0.1 (a - 1), x' = x + v'; x + noise is seen; a step costs 1 until x > 1.9."""

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(-2.0, 2.0, (1,), np.float64)
        self.action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.x, self.v, self.steps = float(self.np_random.uniform(-1.0, 1.5)), 0.1, 0
        return self._seen(), {}

    def step(self, action: Any) -> Any:
        self.v += 0.1 * (int(action) - 1)
        self.x = min(max(self.x + self.v, -2.0), 2.0)
        self.steps += 1
        return self._seen(), -1.0, self.x > 1.9, self.steps >= 8, {}

    def _seen(self) -> Any:
        return np.array([self.x + 0.05 * float(self.np_random.standard_normal())])


TASK = world.Task(
    "sled", lambda **options: Sled(), ("place",), (-2.0,), (2.0,), (0, 1, 2),
    reward=lambda state, action, after: -np.ones(state.shape[:-1]), discount=0.9, degree=1,
)  # fmt: skip
