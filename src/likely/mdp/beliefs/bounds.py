r"""Two functions between which V*(b) lies: alpha vectors below, points of a belief grid above.

Below: each alpha vector is the value of a plan, state by state, so max_alpha alpha . b <= V*(b).
The first ones are those of taking one action forever. A backup at b adds

    alpha_b = argmax_a  r_a + discount sum_o P_a (O_a(o) * alpha_{a,o}),   alpha_{a,o} best after o.

Above: V* is convex, so an interpolation of upper bounds at points of the belief simplex is an upper
bound. Corners are interpolated with one more point at a time (sawtooth; Hauskrecht 2000,
https://doi.org/10.1613/jair.678), with two states between the two neighbours. The corners begin at
the fast informed bound, Q_a(s) = r + discount sum_o max_a' sum_s' p O Q_a'(s').

Rounding: let every belief, sum and backup be wrong by at most delta. A bound that is wrong by
delta / (1 - discount) stays so under backups, so that is what bounds are moved outwards by when
they are asked for (`slack`), not in between. As V*(b) is a maximum of alpha . b, it is homogeneous
and convex in b also where b does not quite sum to one, and |alpha . b| <= size sum_s |b(s)|.
"""

from __future__ import annotations

import numpy as np

from likely.mdp.beliefs.problem import POMDP
from likely.mdp.model.arrays import FloatArray, IntArray

UNIT = 2.0**-53


def size(pomdp: POMDP) -> float:
    """The most that any policy gains or loses."""
    return float(abs(pomdp.reward).max()) / (1.0 - pomdp.discount)


def slack(pomdp: POMDP) -> float:
    """How far rounding can have moved a bound, in units of reward.

    An upper backup rounds the next beliefs (S + 3 units of `size`), the bound at each (2 S + 32:
    a point's plane, its share, its place between two neighbours), the sum over observations (O),
    the reward (S + 1) and the rows themselves (S + O + 2), and with it all numbers that were
    stated (8): 5 S + 2 O + 46. A lower one rounds less. What is asked for last and the first
    belief add 3 S + 34, once.
    """
    units = 8 * pomdp.states + 2 * pomdp.observations + 80
    return units * UNIT * size(pomdp) / (1.0 - pomdp.discount)


class Below:
    """Alpha vectors [n, S] and the action [n] that each begins with."""

    def __init__(self, pomdp: POMDP) -> None:
        from scipy.sparse import csc_array, eye_array
        from scipy.sparse.linalg import spsolve

        self.pomdp = pomdp
        eye = eye_array(pomdp.states)
        system = [csc_array(eye - pomdp.discount * csc_array(p)) for p in pomdp.transition]
        plans = [np.atleast_1d(spsolve(m, r)) for m, r in zip(system, pomdp.reward, strict=True)]
        for v, p, r in zip(plans, pomdp.transition, pomdp.reward, strict=True):
            # A solve is off by what one backup takes away, at most.
            excess = max(0.0, float((v - (r + pomdp.discount * (p @ v))).max()))
            v -= excess / (1.0 - pomdp.discount)
        self.vectors: FloatArray = np.stack(plans)
        self.slack = slack(pomdp)
        self.action: IntArray = np.arange(pomdp.actions)
        self._cull_at = 64

    def __call__(self, beliefs: FloatArray) -> FloatArray:
        """Lower bounds on V* of beliefs [n, S], rounding included."""
        return np.asarray((beliefs @ self.vectors.T).max(axis=1) - self.slack)

    def best_action(self, belief: FloatArray) -> int:
        """The action of the vector that is best at a belief."""
        return int(self.action[(self.vectors @ belief).argmax()])

    def backup(self, belief: FloatArray) -> bool:
        """Improve the bound at a belief; whether it could be."""
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
        improved = _less(before, value)
        if improved:
            self.vectors = np.vstack([self.vectors, vector])
            self.action = np.append(self.action, a)
            if len(self.vectors) > self._cull_at:
                self._cull()
        return improved

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
        self.size, self.slack = size(pomdp), slack(pomdp)

    def __call__(self, beliefs: FloatArray) -> FloatArray:
        """Upper bounds on V* of beliefs [n, S], rounding included."""
        return self._at(beliefs) + self.slack

    def _at(self, beliefs: FloatArray) -> FloatArray:
        """The same before it is moved outwards: what backups build on."""
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
        """[A] bounds of actions, and for each P(o), beliefs after and their bounds; no `slack`."""
        pomdp, values, ahead = self.pomdp, np.empty(self.pomdp.actions), []
        for a in range(pomdp.actions):
            chance, after, _ = pomdp.after(belief, a)
            above = self._at(after)
            values[a] = pomdp.reward[a] @ belief + pomdp.discount * (chance @ above)
            ahead.append((chance, after, above))
        return values, ahead

    def backup(self, belief: FloatArray) -> bool:
        """Improve the bound at a belief; whether it could be."""
        value = float(self.action_values(belief)[0].max())
        before = float(self._at(belief[None])[0])
        improved = _less(value, before)
        if improved:
            state = int(belief.argmax())
            # A corner bounds beliefs beside it, and is bounded by them but for how far they are.
            corner = value + self.size * abs(belief - np.eye(len(belief))[state]).sum()
            if belief[state] >= 1.0 - 1e-12 and _less(corner, float(self.corner[state])):
                corners = self.corner.copy()  # a copy of this object keeps the old ones
                corners[state] = corner
                self.corner = corners
            elif belief[state] == 1.0:
                return False
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
        return improved

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
            if _less(level[i], float(self._at(every[i : i + 1])[0])):
                keep[i] = True
        self.points, self.values, self._gain = every[keep], level[keep], gain[keep]
        self._cull_at = max(64, 2 * len(self.points))


def _less(value: float, bound: float) -> bool:
    """Whether a value is below a bound by more than rounding."""
    return value < bound - 1e-12 * max(1.0, abs(bound))


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
