r"""Two functions between which V*(b) lies: alpha vectors below, points of a belief grid above.

Below: each alpha vector is the value of a plan, state by state, so max_alpha alpha . b <= V*(b).
The first ones are those of taking one action forever. A backup at b adds

    alpha_b = argmax_a  r_a + discount sum_o P_a (O_a(o) * alpha_{a,o}),   alpha_{a,o} best after o.

Above: V* is convex, so an interpolation of upper bounds at points of the belief simplex is an upper
bound. Corners are interpolated with one more point at a time (sawtooth; Hauskrecht 2000,
https://doi.org/10.1613/jair.678), with two states between the two neighbours. The corners begin at
the fast informed bound, Q_a(s) = r + discount sum_o max_a' sum_s' p O Q_a'(s').
"""

from __future__ import annotations

import numpy as np

from likely.mdp.beliefs.problem import POMDP
from likely.mdp.model.arrays import FloatArray, IntArray


class Below:
    """Alpha vectors [n, S] and the action [n] that each begins with."""

    def __init__(self, pomdp: POMDP) -> None:
        from scipy.sparse import csc_array, eye_array
        from scipy.sparse.linalg import spsolve

        self.pomdp = pomdp
        eye = eye_array(pomdp.states)
        system = [csc_array(eye - pomdp.discount * csc_array(p)) for p in pomdp.transition]
        self.vectors: FloatArray = np.stack([
            np.atleast_1d(spsolve(m, r)) for m, r in zip(system, pomdp.reward, strict=True)
        ])  # fmt: skip
        self.action: IntArray = np.arange(pomdp.actions)
        self._cull_at = 64

    def __call__(self, beliefs: FloatArray) -> FloatArray:
        """Lower bounds on V* of beliefs [n, S]."""
        return np.asarray((beliefs @ self.vectors.T).max(axis=1))

    def best_action(self, belief: FloatArray) -> int:
        """The action of the vector that is best at a belief."""
        return int(self.action[(self.vectors @ belief).argmax()])

    def backup(self, belief: FloatArray) -> float:
        """Improve the bound at a belief; by how much."""
        pomdp, best = self.pomdp, (-np.inf, self.vectors[0], 0)
        before = float((self.vectors @ belief).max())
        for a in range(pomdp.actions):
            joint = (belief @ pomdp.transition[a])[:, None] * pomdp.observe[a]  # [S', O]
            chosen = (self.vectors @ joint).argmax(axis=0)  # [O]
            future = (pomdp.observe[a] * self.vectors[chosen].T).sum(axis=1)  # [S']
            vector = pomdp.reward[a] + pomdp.discount * (pomdp.transition[a] @ future)
            value = float(vector @ belief)
            if value > best[0]:
                best = (value, vector, a)
        value, vector, a = best
        if value > before + 1e-12 * max(1.0, abs(before)):
            self.vectors = np.vstack([self.vectors, vector])
            self.action = np.append(self.action, a)
            if len(self.vectors) > self._cull_at:
                self._cull()
        return value - before

    def _cull(self) -> None:
        """Drop vectors that another one exceeds in every state."""
        keep = np.ones(len(self.vectors), dtype=bool)
        for i in range(len(self.vectors)):
            others = self.vectors[keep]
            above = (others >= self.vectors[i]).all(axis=1)
            # Of equal vectors the last one stays.
            if above.sum() > 1:
                keep[i] = False
        self.vectors, self.action = self.vectors[keep], self.action[keep]
        self._cull_at = max(64, 2 * len(self.vectors))


class Above:
    """Upper bounds at the corners [S] and at points [n, S] of the belief simplex."""

    def __init__(self, pomdp: POMDP) -> None:
        self.pomdp = pomdp
        self.informed = _informed(pomdp)  # [A, S], each belief's max over A is a bound, too
        self.corner: FloatArray = self.informed.max(axis=0)
        self.points: FloatArray = np.zeros((0, pomdp.states))
        self.values: FloatArray = np.zeros(0)
        self._gain: FloatArray = np.zeros(0)  # value less the plane of the corners
        self._cull_at = 64

    def __call__(self, beliefs: FloatArray) -> FloatArray:
        """Upper bounds on V* of beliefs [n, S]."""
        plane = beliefs @ self.corner
        best = np.minimum(plane, (beliefs @ self.informed.T).max(axis=1))
        if not len(self.points):
            return np.asarray(best)
        if self.pomdp.states == 2:
            x = np.concatenate([[0.0], self.points[:, 1], [1.0]])
            y = np.concatenate([[self.corner[0]], self.values, [self.corner[1]]])
            return np.asarray(np.minimum(best, np.interp(beliefs[:, 1], x, y)))
        # How much of a point a belief can hold: min over the point's states of b / point.
        share = np.empty((len(beliefs), len(self.points)))
        for first in range(0, len(self.points), 256):
            part = self.points[first : first + 256]
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = np.where(part > 0.0, beliefs[:, None, :] / part, np.inf)
            share[:, first : first + 256] = ratio.min(axis=2)
        return np.asarray(np.minimum(best, plane + (share * self._gain).min(axis=1)))

    def action_values(
        self, belief: FloatArray
    ) -> tuple[FloatArray, list[tuple[FloatArray, FloatArray, FloatArray]]]:
        """[A] upper bounds of the actions, and for each P(o), beliefs after and their bounds."""
        pomdp, values, ahead = self.pomdp, np.empty(self.pomdp.actions), []
        for a in range(pomdp.actions):
            chance, after, _ = pomdp.after(belief, a)
            above = self(after)
            values[a] = pomdp.reward[a] @ belief + pomdp.discount * (chance @ above)
            ahead.append((chance, after, above))
        return values, ahead

    def backup(self, belief: FloatArray) -> float:
        """Improve the bound at a belief; by how much."""
        value = float(self.action_values(belief)[0].max())
        before = float(self(belief[None])[0])
        if value < before - 1e-12 * max(1.0, abs(before)):
            state = int(belief.argmax())
            if belief[state] >= 1.0 - 1e-12:
                self.corner[state] = value
            else:
                same = (abs(self.points - belief) < 1e-14).all(axis=1)
                self.points = np.vstack([self.points[~same], belief])
                self.values = np.append(self.values[~same], value)
                if self.pomdp.states == 2:  # in the order of the simplex
                    order = np.argsort(self.points[:, 1])
                    self.points, self.values = self.points[order], self.values[order]
            self._gain = np.minimum(self.values - self.points @ self.corner, 0.0)
            if len(self.points) > self._cull_at:
                self._cull()
        return before - value

    def _cull(self) -> None:
        """Drop points that the others bound as well."""
        if self.pomdp.states > 2:  # those that matter least are tried first
            order = np.argsort(self._gain)
            self.points, self.values = self.points[order], self.values[order]
            self._gain = self._gain[order]
        keep = np.ones(len(self.points), dtype=bool)
        every, level, gain = self.points, self.values, self._gain
        for i in range(len(every) - 1, -1, -1):
            keep[i] = False
            self.points, self.values, self._gain = every[keep], level[keep], gain[keep]
            if self(every[i : i + 1])[0] > level[i] + 1e-12 * max(1.0, abs(level[i])):
                keep[i] = True
        self.points, self.values, self._gain = every[keep], level[keep], gain[keep]
        self._cull_at = max(64, 2 * len(self.points))


def _informed(pomdp: POMDP) -> FloatArray:
    """The fast informed bound [A, S] (Hauskrecht 2000), from above."""
    top = float(pomdp.reward.max()) / (1.0 - pomdp.discount)
    q = np.full((pomdp.actions, pomdp.states), top)
    for _ in range(2000):
        new = np.empty_like(q)
        for a in range(pomdp.actions):
            best = np.full((pomdp.states, pomdp.observations), -np.inf)
            for b in range(pomdp.actions):
                # [S, O] of following with action b whatever is seen.
                np.maximum(best, pomdp.transition[a] @ (pomdp.observe[a] * q[b][:, None]), out=best)
            new[a] = pomdp.reward[a] + pomdp.discount * best.sum(axis=1)
        change = float(abs(new - q).max())
        q = np.minimum(q, new)
        if change <= 1e-9 * max(1.0, abs(top)):
            break
    return q
