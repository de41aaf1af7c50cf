"""p(r | s, a, s', e) and p(e | s'): declared by the task, or learned from the log.

Learned rewards are a quadratic ridge regression on s for each action, with Gaussian noise. Those
that end an episode are apart: a goal pays another reward than a pit, so they are a regression on s'
and the action, within the range of what was seen. Learned ends are a logistic regression on
monomials of s' up to a degree of the task, those that lower the Bayesian information criterion: the
live states are the inside of an ellipsoid, a slab or a half-space. A log without a terminated row
has no ends, and says so.
"""

from __future__ import annotations

import math

import numpy as np

from likely.mdp.model.arrays import BoolArray, FloatArray, IntArray
from likely.world.features import Features, ridge
from likely.world.tasks import Task

# Rewards are float64 in most logs, float32 in some.
SAME = 1e-4


class RewardHead:
    """Rewards of steps: the task's rule, or a regression."""

    def __init__(self, task: Task, state: FloatArray, action: IntArray, next_state: FloatArray,
                 reward: FloatArray, terminated: BoolArray) -> None:  # fmt: skip
        """Fit what the task does not declare; arrays [n, d], [n], [n, d], [n], [n]."""
        self.task, self.rule = task, task.reward
        self.noise = np.zeros(2)  # of steps that go on, and of the last one
        if self.rule is not None:
            return
        self.features = Features(task, 2)
        live = ~terminated
        # Of an action that never went on nothing is known: it pays what the others do.
        usual = float(reward[live].mean()) if live.any() else 0.0
        self.mean = np.full(len(task.actions), usual)
        self.weights = np.zeros((len(task.actions), self.features.size))
        errors = [np.zeros(1)]
        for a in range(len(task.actions)):
            rows = np.flatnonzero((action == a) & live)
            if len(rows):
                fitted = ridge(self.features(state[rows]), reward[rows, None])
                self.mean[a], self.weights[a] = fitted.offset[0], fitted.weights[:, 0]
                errors.append(fitted.left_out[:, 0])
        size = max(1.0, float(abs(reward).max(initial=0.0)))
        self.noise[:] = max(1e-6 * size, float(np.sqrt(np.mean(np.concatenate(errors) ** 2))))
        ends = reward[terminated]
        self.last = float(ends.mean()) if len(ends) else 0.0
        self.last_weights: FloatArray | None = None  # all ends pay the same
        if len(ends) and ends.max() > ends.min():
            self.least, self.most = float(ends.min()), float(ends.max())
            fitted = ridge(self._at_end(next_state[terminated], action[terminated]), ends[:, None])
            self.last, self.last_weights = float(fitted.offset[0]), fitted.weights[:, 0]
            self.noise[1] = max(1e-6 * size, float(np.sqrt(np.mean(fitted.left_out**2))))

    def _at_end(self, next_state: FloatArray, action: IntArray) -> FloatArray:
        """[..., features + actions] of steps that end an episode."""
        taken = np.eye(len(self.task.actions))[action]
        return np.concatenate([self.features(next_state), taken], axis=-1)

    def expected(
        self, state: FloatArray, action: IntArray, next_state: FloatArray, over: FloatArray
    ) -> FloatArray:
        """E[r | s, a, s'] where the step ends the episode with probability `over` [n]."""
        if self.rule is not None:
            return np.asarray(self.rule(state, action, next_state), dtype=np.float64)
        action = np.broadcast_to(action, state.shape[:-1])
        going = self.mean[action] + (self.features(state) * self.weights[action]).sum(axis=-1)
        last: float | FloatArray = self.last
        if self.last_weights is not None:
            last = self.last + self._at_end(next_state, action) @ self.last_weights
            last = np.clip(last, self.least, self.most)
        return np.asarray((1.0 - over) * going + over * last)

    def log_prob(
        self, state: FloatArray, action: IntArray, next_state: FloatArray, reward: FloatArray,
        terminated: BoolArray,
    ) -> FloatArray:  # fmt: skip
        """Nats, [n]; of a declared rule 0, or minus infinity where the data disagrees."""
        mean = self.expected(state, action, next_state, terminated.astype(np.float64))
        if self.rule is not None:
            agrees = abs(reward - mean) <= SAME * np.maximum(1.0, abs(mean))
            return np.where(agrees, 0.0, -np.inf)
        noise = self.noise[terminated.astype(np.int64)]
        z = (reward - mean) / noise
        return np.asarray(-0.5 * z**2 - np.log(noise) - 0.5 * math.log(2 * math.pi))

    def draw(
        self, state: FloatArray, action: IntArray, next_state: FloatArray, terminated: BoolArray,
        noise: np.random.Generator,
    ) -> FloatArray:  # fmt: skip
        """[n] rewards."""
        mean = self.expected(state, action, next_state, terminated.astype(np.float64))
        if self.rule is not None:
            return mean
        return mean + self.noise[terminated.astype(np.int64)] * noise.standard_normal(len(mean))


class EndHead:
    """Ends of episodes: the task's rule, or a logistic regression."""

    def __init__(self, task: Task, next_state: FloatArray, terminated: BoolArray) -> None:
        """Fit, unless declared; [n, d] and [n]."""
        self.rule = task.terminated
        self.offset, self.never = 0.0, not bool(terminated.any())
        self.weights: FloatArray = np.zeros(0)
        if self.rule is not None or self.never:
            return
        self.features = Features(task, task.end_degree)
        self._fit(self.features(next_state), terminated.astype(np.float64))

    def _fit(self, x: FloatArray, y: FloatArray) -> None:
        """Forward selection of monomials while the Bayesian information criterion falls.

        Few ends have been seen, and most variables have no part in them.
        """
        chosen: list[int] = []
        self.weights, best = np.zeros(x.shape[1]), np.inf
        while len(chosen) < x.shape[1]:
            trials = []
            for k in set(range(x.shape[1])) - set(chosen):
                loss, offset, weights = _logistic(x[:, [*chosen, k]], y)
                trials.append(
                    (2.0 * loss + (len(chosen) + 1) * math.log(len(x)), k, offset, weights)
                )
            score, k, offset, weights = min(trials, key=lambda trial: trial[:2])
            if score >= best:
                break
            best, self.offset = score, offset
            chosen.append(k)
            self.weights[:] = 0.0
            self.weights[chosen] = weights

    def probability(self, next_state: FloatArray) -> FloatArray:
        """p(e = 1 | s') of states [..., d]."""
        if self.rule is not None:
            return np.asarray(self.rule(next_state), dtype=np.float64)
        if self.never:
            return np.zeros(next_state.shape[:-1])
        z = self.features(next_state) @ self.weights + self.offset
        return np.asarray(1.0 / (1.0 + np.exp(-np.clip(z, -700, 700))))

    def over(self, next_state: FloatArray) -> BoolArray:
        """Where the end is more likely than not."""
        return np.asarray(self.probability(next_state) > 0.5)

    def log_prob(self, next_state: FloatArray, terminated: BoolArray) -> FloatArray:
        """Nats, [n]."""
        p = self.probability(next_state)
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(np.where(terminated, p, 1.0 - p)))

    def draw(self, next_state: FloatArray, noise: np.random.Generator) -> BoolArray:
        """[n] bool."""
        p = self.probability(next_state)
        return np.asarray(p >= 1.0) if self.rule is not None else noise.random(len(p)) < p


def _logistic(
    x: FloatArray, y: FloatArray, penalty: float = 1e-3
) -> tuple[float, float, FloatArray]:
    """Nats in all, offset and weights of a ridge logistic regression, by Newton's method."""
    scale, middle = np.maximum(x.std(axis=0), 1e-9), x.mean(axis=0)
    design = np.column_stack([np.ones(len(x)), (x - middle) / scale])
    cost = np.full(design.shape[1], penalty)
    cost[0] = 1e-9
    beta = np.zeros(design.shape[1])

    def nats(at: FloatArray) -> float:
        z = design @ at
        return float((np.logaddexp(0.0, z) - y * z).sum())

    def loss(at: FloatArray) -> float:
        return nats(at) + 0.5 * float((cost * at**2).sum())

    for _ in range(50):
        p = 1.0 / (1.0 + np.exp(-np.clip(design @ beta, -35, 35)))
        gradient = design.T @ (p - y) + cost * beta
        curvature = (design * (p * (1 - p))[:, None]).T @ design + np.diag(cost)
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while size > 1e-6 and loss(beta - size * step) > loss(beta):
            size /= 2
        beta = beta - size * step
        if size * float(abs(step).max()) < 1e-6:
            break
    weights = beta[1:] / scale
    return nats(beta), float(beta[0] - weights @ middle), weights
