r"""Worlds that are seen as pictures: frames, their codes, and a pole on a cart before a camera.

A frame shows where things are and not how they move, and a push shows one frame later than it acts.
So an observation is the frame before, the frame now, and the last action: [2 H W + 1] bytes. A
variational autoencoder of the package (`likely.models.VAE`, Kingma and Welling 2014) is fitted to
the frames of the log, and the state that is planned in is

    s_t = (z_t, z_t - z_{t-1}, a_{t-1}),        z_t the mean of q(z | frame t),

as in World Models (Ha and Schmidhuber 2018, https://arxiv.org/abs/1803.10122), with the difference
of two codes in the place of a recurrent state. The frames are drawn soft: an edge is wider than
a pixel, so that codes move smoothly while the cart moves by hundredths of a pixel.
"""

from __future__ import annotations

import dataclasses
import types
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from likely.errors import InvalidData
from likely.mdp.model.arrays import FloatArray
from likely.mdp.worlds.gymnasium import make_environment

if TYPE_CHECKING:
    from likely.models.vae.vae import VAE

Bytes = NDArray[np.uint8]
# Noise of the frames that the autoencoder is fitted to, in levels of 256, and copies of each frame.
# Without it all pixels are sure functions of the state, and those that hardly change rule the nats.
GRAIN, COPIES = 6.0, 3
TOGETHER = 4096  # frames that are encoded together


@dataclasses.dataclass(frozen=True)
class Pixels:
    """How an observation holds pictures, and the codes that are made of them.

    Attributes:
        height, width: of a frame, grey.
        codes: dimensions of a code; the degrees of freedom of what a frame shows.
        hidden: units of each of the two dense layers of encoder and decoder.
        steps: updates of the fit of the autoencoder.
    """

    height: int
    width: int
    codes: int = 2
    hidden: int = 64
    steps: int = 5000

    @property
    def size(self) -> int:
        """Pixels of a frame."""
        return self.height * self.width

    def frames(self, observation: Any) -> tuple[Bytes, Bytes, FloatArray]:
        """The frame before and the frame now, [n, H, W] each, and the numbers behind, [n, k]."""
        rows = np.atleast_2d(observation)
        shape = (len(rows), self.height, self.width)
        if rows.shape[1] < 2 * self.size:
            raise InvalidData(
                f"observations of {rows.shape[1]} numbers, expected two frames of "
                f"{self.height}x{self.width}"
            )
        before, now, rest = np.split(rows, [self.size, 2 * self.size], axis=1)
        return (
            before.reshape(shape).astype(np.uint8),
            now.reshape(shape).astype(np.uint8),
            rest.astype(np.float64),
        )


class Codes:
    """Observations to states: the codes of the frame now, their change, the numbers behind.

    Attributes:
        vae: fitted to frames [1, H, W] of 256 levels.
        pixels: where the frames are in an observation.
    """

    def __init__(self, vae: VAE, pixels: Pixels) -> None:
        self.vae, self.pixels = vae, pixels

    def __str__(self) -> str:
        return (
            f"{self.pixels.codes} means of q(z | frame) of a VAE, their change since the frame "
            "before, and the last action"
        )

    def of(self, frames: Bytes) -> FloatArray:
        """The means of q(z | x) of frames [n, H, W], [n, codes]."""
        import torch

        parts = []
        with torch.no_grad():
            for first in range(0, len(frames), TOGETHER):
                block = frames[first : first + TOGETHER, None].astype(np.int64)
                mean = self.vae.posterior(torch.from_numpy(block)).mean
                parts.append(mean.double().numpy())
        return np.concatenate(parts)

    def __call__(self, observation: Any) -> FloatArray:
        before, now, rest = self.pixels.frames(observation)
        code = self.of(now)
        return np.column_stack([code, code - self.of(before), rest])


def fit_codes(log: Any, pixels: Pixels, seed: int = 0) -> Codes:
    """Fit the autoencoder to the frames of a log (`Trajectories`).

    Every frame counts once: those before an action, and the last ones of episodes.
    """
    import torch

    from likely.data.arrays import from_array
    from likely.data.spec import with_validation
    from likely.models.vae.settings import VAESettings
    from likely.models.vae.vae import VAE
    from likely.settings import FitSettings
    from likely.training.loop import fit_whole

    last = np.append(log.first[1:], True)
    frames = np.concatenate([
        pixels.frames(log.observation)[1], pixels.frames(log.next_observation[last])[1]
    ])  # fmt: skip
    noise = np.random.default_rng(seed)
    grain = noise.normal(0.0, GRAIN, (COPIES, *frames.shape))
    noisy = np.clip(np.round(frames + grain), 0, 255).astype(np.uint8)
    data = with_validation(from_array(noisy.reshape(-1, *frames.shape[1:]), name="frames"))
    # One logistic a pixel; a full covariance of the prior leaves the codes their correlations.
    settings = VAESettings(
        latent=pixels.codes, network="dense", hidden=pixels.hidden, layers=2,
        head="logistic-mixture", components=1, prior="gaussian",
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = VAE(data.spec, settings)
    fit_whole(
        vae, data,
        settings=FitSettings(steps=pixels.steps, batch_size=64, learning_rate=2e-3,
                                    ema=0.99, seed=seed, device="cpu"),
    )  # fmt: skip
    return Codes(vae, pixels)


# A camera that sees 5.2 m of the track. The pole is 1 m, the cart 0.5 m.
POLE = Pixels(height=12, width=40)
METRE = 0.13  # of a pixel
TOP, SOFT = 1.25, 0.12
DARK, LIGHT = 24.0, 231.0
LARGER = 10  # of `render`


def pole_frames(position: Any, angle: Any) -> Bytes:
    """Pictures of poles on carts at positions [n] in m and angles [n] in rad, [n, H, W].

    The brightness falls with the distance to pole and cart over about two pixels.
    """
    x = np.asarray(position, dtype=np.float32).reshape(-1, 1, 1)
    turned = np.asarray(angle, dtype=np.float32).reshape(-1, 1, 1)
    right = (np.arange(POLE.width, dtype=np.float32) + 0.5) * METRE - METRE * POLE.width / 2 - x
    up = (TOP - (np.arange(POLE.height, dtype=np.float32) + 0.5) * METRE)[:, None]
    along = np.clip(right * np.sin(turned) + up * np.cos(turned), 0.0, 1.0)
    pole = np.hypot(right - along * np.sin(turned), up - along * np.cos(turned)) - 0.08
    cart = [1.0 / (1.0 + np.exp((abs(far) - half) / np.float32(SOFT)))
            for far, half in ((right, 0.3), (up + 0.13, 0.13))]  # fmt: skip
    shine = np.maximum(1.0 / (1.0 + np.exp(pole / np.float32(SOFT))), 0.6 * cart[0] * cart[1])
    return np.asarray(np.round(DARK + (LIGHT - DARK) * shine), dtype=np.uint8)


class PixelPole:
    """CartPole-v1 before a camera: the frame before, the frame now, the last push.

    Physics, rewards, ends and the limit of 500 steps are CartPole-v1's own. The push is 0 (left),
    1 (none yet) or 2 (right). Frames are drawn by `pole_frames`, without a window.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode: str | None = None) -> None:
        self.inside = make_environment("CartPole-v1")
        from gymnasium import spaces

        self.observation_space = spaces.Box(0, 255, (2 * POLE.size + 1,), np.uint8)
        self.action_space = self.inside.action_space
        self.render_mode = render_mode
        limit = self.inside.spec.max_episode_steps
        self.spec = types.SimpleNamespace(id="cartpole-pixels", max_episode_steps=limit)

    def reset(
        self, *, seed: int | None = None, options: Any = None
    ) -> tuple[Bytes, dict[str, Any]]:
        """The first observation, [2 H W + 1]."""
        state, about = self.inside.reset(seed=seed, options=options)
        self.now = pole_frames(state[0], state[2])[0]
        return self._seen(self.now, 1), about

    def step(self, action: Any) -> tuple[Bytes, float, bool, bool, dict[str, Any]]:
        """Observation, reward, terminated, truncated, nothing."""
        state, reward, ended, cut, about = self.inside.step(int(action))
        before, self.now = self.now, pole_frames(state[0], state[2])[0]
        return self._seen(before, 2 * int(action)), float(reward), bool(ended), bool(cut), about

    def _seen(self, before: Bytes, push: int) -> Bytes:
        return np.concatenate([before.ravel(), self.now.ravel(), np.array([push], np.uint8)])

    def render(self) -> Bytes:
        """The frame now, larger, [H, W, 3]."""
        large = self.now.repeat(LARGER, axis=0).repeat(LARGER, axis=1)
        return np.repeat(large[:, :, None], 3, axis=2)

    def close(self) -> None:
        """Nothing is open."""
        self.inside.close()
