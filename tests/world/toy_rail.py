"""A cart on a rail of one dimension, whose answers are known: an environment and its tasks."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import gymnasium
import numpy as np

from likely import world

STEP = 0.25


class Rail(gymnasium.Env[Any, Any]):
    """x' = x + 0.25 (a - 1) + noise in [-2, 2]; a step costs 1 until x > 1.9 ends the episode."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}

    def __init__(self, noise: float = 0.0, limit: int = 30, render_mode: str | None = None) -> None:
        self.observation_space = gymnasium.spaces.Box(-2.0, 2.0, (1,), np.float64)
        self.action_space = gymnasium.spaces.Discrete(3)
        self.noise, self.limit, self.render_mode = noise, limit, render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.x, self.steps = float(self.np_random.uniform(-1.0, 0.0)), 0
        return np.array([self.x]), {}

    def step(self, action: Any) -> Any:
        self.x += STEP * (int(action) - 1) + self.noise * float(self.np_random.standard_normal())
        self.x = min(max(self.x, -2.0), 2.0)
        self.steps += 1
        return np.array([self.x]), -1.0, self.x > 1.9, self.steps >= self.limit, {}

    def render(self) -> Any:
        frame = np.zeros((8, 40, 3), np.uint8)
        frame[:, min(39, int((self.x + 2.0) * 10.0))] = 255
        return frame


TASK = world.Task(
    "rail", Rail, ("x",), (-2.0,), (2.0,), (0, 1, 2),
    reward=lambda state, action, after: -np.ones(state.shape[:-1]),
    terminated=lambda state: state[..., 0] > 1.9,
    discount=0.9, grid=(17,), degree=1,
)  # fmt: skip
NOISY = dataclasses.replace(TASK, environment=lambda **o: Rail(noise=0.1, **o))
# Nothing declared: reward and ends are learned.
LEARNED = dataclasses.replace(NOISY, reward=None, terminated=None)
