"""A pole on a cart whose velocities are hidden, and whose places are seen through noise."""

from __future__ import annotations

import types
from typing import Any, ClassVar

import numpy as np

from likely.mdp.model.arrays import FloatArray
from likely.mdp.worlds.gymnasium import make_environment

# Standard deviation of what is seen, in m and in rad: about what the pole moves in a step.
NOISE = 0.01


class HiddenPole:
    """CartPole-v1 of which position and angle are seen, each with Gaussian noise of 0.01.

    Physics, rewards, ends (of the true state) and the limit of 500 steps are CartPole-v1's own. The
    difference of two observations tells next to nothing of a velocity: its noise is as large as the
    motion. Many observations do.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode: str | None = None) -> None:
        options = {} if render_mode is None else {"render_mode": render_mode}
        self.inside = make_environment("CartPole-v1", **options)
        from gymnasium import spaces

        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = self.inside.action_space
        self.render_mode = render_mode
        self.noise = np.random.default_rng(0)
        limit = self.inside.spec.max_episode_steps
        self.spec = types.SimpleNamespace(id="cartpole-hidden", max_episode_steps=limit)

    def reset(
        self, *, seed: int | None = None, options: Any = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        """The first observation, [2]."""
        if seed is not None:
            self.noise = np.random.default_rng(seed)
        state, about = self.inside.reset(seed=seed, options=options)
        return self._seen(state), about

    def step(self, action: Any) -> tuple[FloatArray, float, bool, bool, dict[str, Any]]:
        """Observation, reward, terminated, truncated, nothing."""
        state, reward, ended, cut, about = self.inside.step(int(action))
        return self._seen(state), float(reward), bool(ended), bool(cut), about

    def _seen(self, state: Any) -> FloatArray:
        return np.asarray(state, dtype=np.float64)[[0, 2]] + NOISE * self.noise.standard_normal(2)

    def render(self) -> Any:
        """A picture of the true state, [H, W, 3]."""
        return self.inside.render()

    def close(self) -> None:
        """Close CartPole-v1."""
        self.inside.close()
